//! The calls that an executor answers: to its own workers and drivers ([`Request`]), and the shuffle stream to anyone
//! who computes for the same job.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::scheduler::{TaskOutcome, TaskProgress, TaskSpec};
use crate::error::RemoteError;
use crate::ids::{JobId, PartitionId, ShuffleId, TaskAttemptId};

/// A secret that the scheduler makes for each job: its driver and workers show it with every call, and a piece of a
/// shuffle is served only to who knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobSecret(pub [u8; 16]);

impl std::fmt::Debug for JobSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobSecret(..)")
    }
}

/// Asks an executor for what one map task wrote for one reduce partition. The answer is one frame of
/// [`FetchReply`], then the raw bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FetchShuffle {
    /// Of which job.
    pub job: JobId,
    /// Shows that the asker belongs to it.
    pub secret: JobSecret,
    /// Which shuffle.
    pub shuffle: ShuffleId,
    /// The attempt whose output it is.
    pub map: TaskAttemptId,
    /// For which reduce partitions, first and one past the last: their pieces follow each other.
    pub reduce: (PartitionId, PartitionId),
}

/// What an executor answers to [`FetchShuffle`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FetchReply {
    /// The pieces follow, one behind the other.
    Pieces(Vec<ShufflePiece>),
    /// They do not.
    Refused(RemoteError),
}

/// What one map task wrote for one reduce partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ShufflePiece {
    /// How many bytes it takes, compressed.
    pub len_bytes: u64,
    /// The CRC32C of those bytes.
    pub crc32c: u32,
    /// How many records it holds.
    pub records: u64,
}

/// One life of a process of a job, as its executor numbers it: the next process of the same job is another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct ProcessLife(pub u64);

/// A call to an executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A worker lives, says what it holds and what has ended, and asks for work; the answer comes as soon as there is
    /// some, at the latest when the executor wants to hear it again. Answer: [`Response::Orders`].
    Poll(WorkerPoll),
    /// Anyone with a right to the job reads the log of its processes on this executor. Answer: [`Response::Log`].
    ReadLog {
        /// Of which job.
        job: JobId,
        /// Which of its logs.
        log: LogName,
        /// From where.
        offset: u64,
        /// At most so many bytes.
        limit_bytes: u32,
    },
}

/// The heartbeat of a worker.
///
/// One poll of a worker is in force at a time. It begins the next one only when the last was answered or given up, and
/// never looks at an answer to one that it gave up. Therefore `held` and `ended` are all that it has: a task that it was
/// given before and that is in neither never reached it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WorkerPoll {
    /// Of which job.
    pub job: JobId,
    /// Shows it.
    pub secret: JobSecret,
    /// Which life of the job's worker this is.
    pub life: ProcessLife,
    /// Rises with each poll, from 1: one that arrives behind a later one is refused.
    pub number: u64,
    /// The tasks that run, those that have ended and do not fit into this poll among them.
    pub held: Vec<TaskProgress>,
    /// How tasks ended; repeated until a poll that said so was answered.
    pub ended: Vec<(TaskAttemptId, TaskOutcome)>,
    /// How many more tasks it can run now.
    pub free: u32,
}

/// What a worker shall do.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Orders {
    /// Run these.
    pub run: Vec<TaskSpec>,
    /// Give these up; perhaps told before.
    pub give_up: Vec<TaskAttemptId>,
    /// End: the job has ended, or another worker takes its place.
    pub end: bool,
}

/// A log that an executor keeps for a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum LogName {
    /// What an attempt at the driver wrote to standard output.
    DriverOut(u32),
    /// What it wrote to standard error.
    DriverErr(u32),
    /// What the workers wrote to standard output and standard error.
    Worker,
}

/// An answer of an executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// What the worker shall do.
    Orders(Orders),
    /// A piece of a log; empty at its end.
    Log(Bytes),
}
