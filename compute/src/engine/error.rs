use situ_runtime::disk::DiskError;
use situ_wire::error::Retry;
use situ_wire::ids::{ShuffleId, TaskAttemptId};
use situ_wire::messages::scheduler::TaskFailure;

use crate::program::error::StorageError;

/// Why a task of an engine failed, and with that what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TaskError {
    /// The work, or what it read, is not as it should be. Counts against the task; the same words from two executors end the
    /// job.
    #[error("{message}")]
    Program {
        /// What is wrong.
        message: String,
    },
    /// Input could not be read or output not be written. Counts against the task, unless the file system was away.
    #[error("{message}")]
    Storage {
        /// Why.
        message: String,
        /// Whether the same may work later.
        transient: bool,
    },
    /// A piece of a shuffle is missing or damaged: the task that wrote it runs again, then this one.
    #[error("what {map} wrote for {shuffle} could not be fetched: {reason}")]
    Fetch {
        /// Which shuffle.
        shuffle: ShuffleId,
        /// Whose piece.
        map: TaskAttemptId,
        /// Why.
        reason: String,
    },
    /// Nobody waits for the task any more. What reads, writes or goes on for the task says so; an engine that says it of a
    /// task that was not cancelled has failed, as with [`TaskError::Program`].
    #[error("the task was cancelled")]
    Cancelled,
}

impl TaskError {
    /// The work, or what it read, is not as it should be.
    pub fn program(message: impl Into<String>) -> Self {
        Self::Program { message: message.into() }
    }
}

impl From<TaskError> for TaskFailure {
    fn from(error: TaskError) -> Self {
        match error {
            TaskError::Program { message } => Self::Program { message },
            TaskError::Storage { message, transient } => Self::Storage { message, transient },
            TaskError::Fetch { shuffle, map, reason } => Self::Fetch { shuffle, map, reason },
            TaskError::Cancelled => Self::Cancelled,
        }
    }
}

impl From<TaskFailure> for TaskError {
    fn from(failure: TaskFailure) -> Self {
        match failure {
            TaskFailure::Program { message } | TaskFailure::PlanMismatch { message } => Self::Program { message },
            TaskFailure::Storage { message, transient } => Self::Storage { message, transient },
            TaskFailure::Fetch { shuffle, map, reason } => Self::Fetch { shuffle, map, reason },
            TaskFailure::Cancelled => Self::Cancelled,
            // No task says these of itself.
            TaskFailure::WorkerLost { reason, .. } | TaskFailure::WorkerSilent { reason, .. } => Self::program(reason),
            TaskFailure::NoEngine { kind, .. } => Self::program(kind),
        }
    }
}

impl From<StorageError> for TaskError {
    fn from(error: StorageError) -> Self {
        Self::Storage { transient: error.code.retry() == Retry::Later, message: error.message }
    }
}

impl From<DiskError> for TaskError {
    fn from(error: DiskError) -> Self {
        Self::Storage { message: format!("the worker's directory: {error}"), transient: false }
    }
}
