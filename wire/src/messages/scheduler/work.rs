use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{ActionId, ShuffleId};
use crate::path::DfsPath;

/// What a task does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskWork {
    /// What the program says: its worker must have run it up to the action.
    Replay {
        /// The action that it is for.
        action: ActionId,
        /// The digest of the plan of that action, which the worker compares with its own.
        plan_digest: [u8; 32],
    },
    /// What came with the plan of its stage: its worker asks for that once, and waits for no run of the program.
    Payload {
        /// The action that it is for.
        action: ActionId,
        /// Which of the program's engines runs it.
        kind: String,
        /// The BLAKE3 hash of what that is given.
        digest: [u8; 32],
    },
}

impl TaskWork {
    /// The action that the task is for.
    #[must_use]
    pub fn action(&self) -> ActionId {
        match self {
            Self::Replay { action, .. } | Self::Payload { action, .. } => *action,
        }
    }
}

/// What the tasks of a stage do that nobody's program says: it travels with the plan.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Which of the program's engines runs it.
    pub kind: String,
    /// The BLAKE3 hash of its bytes.
    pub digest: [u8; 32],
    /// Its bytes, the same for all tasks of the stage; what they mean is between the engine and who made the plan.
    pub payload: Payload,
}

/// The bytes of a stage's work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Payload {
    /// Here they are, at most [`WORK_LEN_BYTES`](crate::limits::WORK_LEN_BYTES) of them.
    Inline(Bytes),
    /// They are a file of the job.
    Stored {
        /// Where.
        path: DfsPath,
        /// How many there are.
        len_bytes: u64,
    },
}

/// What a worker must know to run the tasks of a stage.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StageWork {
    /// What they do.
    pub work: Work,
    /// The shuffles that they read.
    pub reads: Vec<ShuffleId>,
    /// How many they are.
    pub partitions: u32,
}

/// What each task of a stage needs of its executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resources {
    /// How many cores it keeps busy: it takes at least as many slots.
    pub cores: u32,
    /// How much of its worker's memory it needs: it takes as many slots as have that; 0 for what one has.
    pub memory_bytes: u64,
}

impl Default for Resources {
    /// One slot.
    fn default() -> Self {
        Self { cores: 1, memory_bytes: 0 }
    }
}

impl Resources {
    /// How many slots a task takes of an executor that has `slots`, whose workers have `worker_memory_bytes`; none if that
    /// can never hold it.
    #[must_use]
    pub fn slots_of(&self, slots: u32, worker_memory_bytes: u64) -> Option<u32> {
        if self.memory_bytes > worker_memory_bytes {
            return None;
        }
        // Rounded up; without memory to share there is nothing to divide by.
        let memory = u128::from(self.memory_bytes) * u128::from(slots);
        let shares = memory.div_ceil(u128::from(worker_memory_bytes.max(1)));
        let wanted = u32::try_from(shares).unwrap_or(u32::MAX).max(self.cores).max(1);
        (wanted <= slots).then_some(wanted)
    }

    /// What holds both.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { cores: self.cores.max(other.cores), memory_bytes: self.memory_bytes.max(other.memory_bytes) }
    }
}

/// What the map tasks of a shuffle wrote for one reduce partition, together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReduceTotal {
    /// How many bytes, compressed.
    pub len_bytes: u64,
    /// How many records.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_takes_as_many_slots_as_have_what_it_needs() {
        let slots = |cores, memory_bytes| Resources { cores, memory_bytes }.slots_of(4, 1000);
        assert_eq!([slots(0, 0), slots(1, 0), slots(1, 250), slots(2, 0)], [Some(1), Some(1), Some(1), Some(2)]);
        assert_eq!([slots(1, 251), slots(3, 251), slots(1, 1000), slots(4, 1)], [Some(2), Some(3), Some(4), Some(4)]);
        assert_eq!([slots(5, 0), slots(1, 1001)], [None, None]);
        assert_eq!(Resources { cores: 1, memory_bytes: 0 }.slots_of(2, 0), Some(1));
        assert_eq!(Resources { cores: 1, memory_bytes: u64::MAX }.slots_of(u32::MAX, u64::MAX), Some(u32::MAX));
    }
}
