//! Where jobs and executors stand, for people.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{ExecutorRegistration, StageOutput};
use crate::ids::{NodeName, StageId, TaskAttemptId};
use crate::messages::executor::LogName;
use crate::messages::namenode::Liveness;
use crate::time::TimeMs;

/// Where a stage stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StageStatus {
    /// Its id.
    pub stage: StageId,
    /// Its name.
    pub name: String,
    /// What becomes of its partitions.
    pub output: StageOutput,
    /// How many tasks it has.
    pub tasks: u32,
    /// How many are done now: it falls when outputs are lost.
    pub done: u32,
    /// How many run now.
    pub running: u32,
    /// How many attempts failed.
    pub failed: u32,
    /// How many attempts were started, by locality: process, node, rack, any, no preference.
    pub localities: [u32; 5],
    /// The attempt that runs and has made no progress for longest.
    pub quiet: Option<QuietAttempt>,
}

/// An attempt at a task that makes no progress.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QuietAttempt {
    /// Which.
    pub attempt: TaskAttemptId,
    /// On which node it runs.
    pub node: NodeName,
    /// Since when, by the scheduler's clock.
    pub since: TimeMs,
}

/// What an unfinished job waits for of which nothing goes on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// For what.
    pub reason: WaitReason,
    /// Since when nothing of it runs, by the scheduler's clock; none if that is not known, or what runs brings it no further.
    pub since: Option<TimeMs>,
}

/// Why nothing of an unfinished job goes on. Times are of the scheduler's clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WaitReason {
    /// No executor is there that takes work.
    Executors {
        /// How many are known all the same.
        known: u32,
    },
    /// The scheduler, or an executor, has just begun, and hears or tells first what there is from before.
    Reports {
        /// Until when that may take.
        until: TimeMs,
    },
    /// Each executor has as many drivers as it takes.
    DriverPlace {
        /// How many drivers there are.
        drivers: u32,
    },
    /// Its driver is being started.
    DriverBegins {
        /// Where; none if its client is its driver.
        node: Option<NodeName>,
        /// By when it must have begun, or it is given up.
        until: Option<TimeMs>,
    },
    /// Its driver computes between two actions: it has asked for nothing.
    Driver,
    /// All slots are taken.
    Slots {
        /// How many there are.
        slots: u32,
        /// Of how many jobs the tasks are that have them.
        jobs: u32,
    },
    /// Slots are free only where the memory holds no more workers than there are, and those work for other jobs.
    Memory {
        /// How many workers the executors hold at once.
        workers: u32,
        /// Of how many jobs tasks run.
        jobs: u32,
    },
    /// A task needs more than one slot, and no executor has as much room now.
    Room {
        /// How many cores it needs.
        cores: u32,
        /// How much memory, in bytes; 0 for what a slot has.
        memory_bytes: u64,
        /// Which executor is kept for it, until it has room; none if no live one is large enough.
        node: Option<NodeName>,
    },
    /// Slots are free, but others are waited for: nearer to its input, or where its tasks have not failed.
    OtherSlot,
    /// Slots are free only on executors that are left out, because its tasks failed there.
    Excluded {
        /// How many these are.
        executors: u32,
        /// Until when the first of them is.
        until: TimeMs,
    },
    /// The file system is away.
    FileSystem {
        /// Since when.
        since: TimeMs,
        /// When it is tried again.
        until: TimeMs,
    },
    /// Outputs of its tasks are lost, and have to be there again before it goes on.
    LostOutputs {
        /// How many.
        outputs: u32,
        /// Until when their executor may come back with them; none while they are computed again.
        until: Option<TimeMs>,
    },
    /// Attempts at its driver were lost before they began.
    DriverRests {
        /// How many.
        lost: u32,
        /// Until when no other one is made.
        until: TimeMs,
    },
}

/// An attempt at a task that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FailedAttempt {
    /// Which.
    pub attempt: TaskAttemptId,
    /// On which node it ran.
    pub node: NodeName,
    /// When that was known, by the scheduler's clock.
    pub at: TimeMs,
    /// Why, cut short.
    pub reason: String,
}

/// Something that was lost and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recovery {
    /// When it was lost.
    pub lost_at: TimeMs,
    /// What.
    pub lost: Lost,
    /// The task that had it.
    pub task: TaskAttemptId,
    /// On which node it was.
    pub node: NodeName,
    /// What became of it.
    pub outcome: RecoveryOutcome,
}

/// What became of something that was lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecoveryOutcome {
    /// It is not back yet.
    Open,
    /// It is back.
    Recovered {
        /// The attempt that brought it back.
        by: TaskAttemptId,
        /// On which node.
        node: NodeName,
        /// When.
        at: TimeMs,
    },
    /// What needed it ended without it. It is back after all if something later needs it again.
    NotNeeded {
        /// When.
        at: TimeMs,
    },
}

/// What was lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Lost {
    /// A task that ran: it runs again elsewhere, reading another replica of its input.
    RunningTask,
    /// The output of a done map task: it is computed again from its lineage.
    MapOutput,
    /// A partition that was kept in memory: it is computed again when it is needed.
    CachedPartition,
    /// A task that ran while the file system was away: it is tried again now and then.
    Storage,
    /// The output of a done task, or what one that ran had read: its input was computed again and is not the same.
    Superseded,
}

/// Where a log of a job is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogLocation {
    /// Which log.
    pub log: LogName,
    /// On which node.
    pub node: NodeName,
    /// The executor that has it.
    pub address: SocketAddr,
}

/// The state of one executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// What it said when it joined.
    pub registration: ExecutorRegistration,
    /// Whether it is there.
    pub liveness: Liveness,
    /// How many tasks run there now.
    pub running: u32,
    /// When it was last heard.
    pub last_poll: TimeMs,
}
