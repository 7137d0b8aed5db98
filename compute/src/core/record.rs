use bytes::Bytes;
use serde::{Deserialize, Serialize};
use situ_wire::ids::{ActionId, JobId, NodeName, OperationId, ScopeId, ShuffleId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{DriverPlace, JobOptions, JobStatus, Program};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

/// What of a job outlives the scheduler. On the disk as its variant's number: never renumber, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobRecord {
    /// A life of the scheduler began, the first after a snapshot too.
    Began {
        /// Which, from 0: attempts at tasks are numbered on from it, so that no two lives give the same number.
        life: u32,
        /// The next job gets this id, or a later one: ids below it have been given.
        next: JobId,
    },
    /// It was submitted.
    Submitted(Submission),
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
    /// It writes aside below a directory: should it not succeed, that must be taken away; its own directory always.
    WritesAside {
        /// Which job.
        job: JobId,
        /// As whom.
        user: String,
        /// The directory that shall be its output.
        output: DfsPath,
    },
    /// It has ended, and nothing that it wrote aside is left; or taking it away failed so often that it stays.
    Cleaned {
        /// Which job.
        job: JobId,
    },
    /// An action of it is done, and never runs again: whatever becomes of its driver, this is its result.
    ActionDone {
        /// Of which job.
        job: JobId,
        /// Which action.
        action: ActionId,
        /// What it is called, for people.
        name: String,
        /// The digest of its plan.
        digest: [u8; 32],
        /// The result of each partition.
        results: Vec<Bytes>,
        /// What the shuffles that it used held, as [digests](crate::core) of their pieces; those are left out that stand in
        /// an earlier record.
        given: Vec<(ShuffleId, u64)>,
    },
    /// Its driver recorded a value under an action's number.
    Recorded {
        /// Of which job.
        job: JobId,
        /// Which action.
        action: ActionId,
        /// The value, encoded.
        value: Bytes,
    },
    /// Its driver is about to publish: from here on the output may be there.
    Publishing {
        /// Which job.
        job: JobId,
        /// The action that names the publication.
        action: ActionId,
        /// Where.
        output: DfsPath,
    },
    /// Its driver has published, and does not do so again.
    Published {
        /// Which job.
        job: JobId,
        /// The action that names the publication.
        action: ActionId,
    },
    /// What the secrets of all jobs are made from, drawn once.
    Key(SecretKey),
    /// All outputs of a shuffle were there, for the first time or after some were lost.
    Shuffled {
        /// Of which job.
        job: JobId,
        /// Which shuffle.
        shuffle: ShuffleId,
        /// What it held, as a [digest](crate::core) of its pieces.
        digest: u64,
    },
    /// Its outputs are not the same when they are computed again: what executors have of it does not count in later lives.
    Varies {
        /// Which job.
        job: JobId,
    },
    /// What shuffles held that its actions used, beyond what the records of these say.
    Given {
        /// Of which job.
        job: JobId,
        /// [Digests](crate::core) of their pieces.
        given: Vec<(ShuffleId, u64)>,
    },
    /// A scope of its program has ended: its actions and the scopes within it are known no more.
    ScopeEnded {
        /// Of which job.
        job: JobId,
        /// Which scope.
        scope: ScopeId,
        /// The scope around it.
        outer: ScopeId,
        /// What it came to, encoded.
        outcome: Bytes,
    },
}

/// All that a submission says. One record holds it: a job is remembered as it was meant, or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// The id of the job that it made.
    pub job: JobId,
    /// The operation that made it.
    pub operation: OperationId,
    /// Who submitted it.
    pub user: String,
    /// What it runs.
    pub program: Program,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// When.
    pub submitted: TimeMs,
    /// How it shall run.
    pub options: JobOptions,
    /// Where its driver runs.
    pub driver: DriverPlace,
}

/// A key that nobody but the scheduler knows. It is not shown.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl JobRecord {
    /// Of which job, if it is of one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Began { .. } | Self::Key(_) => None,
            Self::Submitted(submission) => Some(submission.job),
            Self::Driver { job, .. }
            | Self::WritesAside { job, .. }
            | Self::Cleaned { job }
            | Self::ActionDone { job, .. }
            | Self::Recorded { job, .. }
            | Self::Publishing { job, .. }
            | Self::Published { job, .. }
            | Self::Shuffled { job, .. }
            | Self::Varies { job }
            | Self::ScopeEnded { job, .. }
            | Self::Given { job, .. } => Some(*job),
            Self::Ended { status, .. } => Some(status.summary.job),
        }
    }
}
