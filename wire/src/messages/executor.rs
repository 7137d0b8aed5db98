//! The calls that an executor answers: to its own workers and drivers ([`Request`]), and the shuffle stream to anyone
//! who computes for the same job.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::scheduler::{TaskOutcome, TaskSpec};
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

/// A call to an executor from a process that it started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A worker process is ready. Answer: [`Response::Done`].
    WorkerReady {
        /// Of which job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
    },
    /// A worker asks for work and waits until there is some. Answer: [`Response::Task`].
    NextTask {
        /// Of which job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
    },
    /// A worker has done or failed a task. Answer: [`Response::Done`].
    TaskEnded {
        /// Of which job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which.
        attempt: TaskAttemptId,
        /// How it went.
        outcome: TaskOutcome,
    },
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
    /// A worker asks, while a task runs, whether it shall go on with it. Answer: [`Response::Wanted`].
    IsWanted {
        /// Of which job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which task.
        attempt: TaskAttemptId,
    },
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
    /// It is noted.
    Done,
    /// A task to run; none when the worker shall end.
    Task(Option<Box<TaskSpec>>),
    /// A piece of a log; empty at its end.
    Log(Bytes),
    /// Whether somebody waits for the task: it was not cancelled.
    Wanted(bool),
}
