use std::collections::{BTreeMap, VecDeque};

use situ_wire::codec;
use situ_wire::ids::{JobId, NodeName, OperationId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::JobStatus;

use super::policy::SchedulingPolicy;
use super::{JobRecord, RecordId, Submission};

/// A job that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: Box<JobStatus>,
    pub(super) logs: Vec<(LogName, NodeName)>,
    pub(super) operation: OperationId,
    /// The record that says so; none if an earlier life of the scheduler wrote it.
    pub(super) record: Option<RecordId>,
    len_bytes: usize,
}

/// The jobs that have ended, the newest of them.
#[derive(Debug, Default)]
pub(super) struct Finished {
    jobs: BTreeMap<JobId, Ended>,
    /// In the order in which they ended.
    order: VecDeque<JobId>,
    len_bytes: usize,
}

impl Finished {
    pub(super) fn get(&self, job: JobId) -> Option<&Ended> {
        self.jobs.get(&job)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&JobId, &Ended)> {
        self.jobs.iter()
    }

    /// In the order in which they ended.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Ended> {
        self.order.iter().filter_map(|job| self.jobs.get(job))
    }

    /// Adds a job; the operations of those that had to go.
    pub(super) fn insert(
        &mut self,
        status: Box<JobStatus>,
        logs: Vec<(LogName, NodeName)>,
        operation: OperationId,
        record: Option<RecordId>,
        policy: &SchedulingPolicy,
    ) -> Vec<OperationId> {
        let job = status.summary.job;
        assert!(status.summary.state.is_final(), "only a job that has ended is finished");
        // One that cannot be encoded counts as nothing here; its record is refused where it is written.
        let len_bytes = codec::encode(&*status).map_or(0, |bytes| bytes.len());
        self.len_bytes += len_bytes;
        self.order.push_back(job);
        let before = self.jobs.insert(job, Ended { status, logs, operation, record, len_bytes });
        assert!(before.is_none(), "a job ends once");
        let mut gone = Vec::new();
        while self.jobs.len() > policy.finished_jobs
            || (self.len_bytes > policy.finished_len_bytes && self.jobs.len() > 1)
        {
            let Some(ended) = self.order.pop_front().and_then(|job| self.jobs.remove(&job)) else { break };
            self.len_bytes -= ended.len_bytes;
            gone.push(ended.operation);
        }
        gone
    }

    /// The records that bring it back.
    pub(super) fn records(&self) -> impl Iterator<Item = JobRecord> {
        self.in_order().flat_map(|ended| {
            let summary = ended.status.summary.clone();
            [
                JobRecord::Submitted(Submission {
                    job: summary.job,
                    operation: ended.operation,
                    user: summary.user,
                    program: summary.program,
                    arguments: summary.arguments,
                    submitted: summary.submitted,
                    options: ended.status.options,
                    driver: ended.status.driver,
                }),
                JobRecord::Ended { status: ended.status.clone(), logs: ended.logs.clone() },
            ]
        })
    }
}
