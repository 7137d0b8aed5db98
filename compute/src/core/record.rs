use serde::{Deserialize, Serialize};
use situ_wire::ids::{JobId, NodeName, OperationId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{JobStatus, Program};
use situ_wire::time::TimeMs;

/// What of a job outlives the scheduler. On the disk as its variant's number: never renumber, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobRecord {
    /// It was submitted.
    Submitted {
        /// Its id.
        job: JobId,
        /// The operation that made it.
        operation: OperationId,
        /// Who submitted it.
        user: String,
        /// What it runs.
        program: Program,
        /// With which arguments.
        arguments: Vec<String>,
        /// When.
        submitted: TimeMs,
    },
    /// An attempt at its driver was placed.
    Driver {
        /// Of which job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// On which node: its logs are there.
        node: NodeName,
    },
    /// It ended.
    Ended {
        /// All about it.
        status: Box<JobStatus>,
        /// Where its logs are.
        logs: Vec<(LogName, NodeName)>,
    },
}

impl JobRecord {
    /// Of which job.
    #[must_use]
    pub fn job(&self) -> JobId {
        match self {
            Self::Submitted { job, .. } | Self::Driver { job, .. } => *job,
            Self::Ended { status, .. } => status.summary.job,
        }
    }
}
