use std::collections::BTreeMap;

use situ_wire::ids::{ExecutorId, NodeName, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::TaskDone;
use situ_wire::time::TimeMs;

use super::executors::Executors;
use super::job::{Cached, Job};
use super::pieces::Pieces;
use super::stage::{Stage, StageKey, index};
use super::tasks::check_done;

/// Outputs of done tasks beside those that count: the same pieces, on other executors. There is one where a second attempt
/// was done before it heard that it is not needed, or an executor came back after its output had been computed again.
///
/// Nobody is told of them before what counts is lost; then one counts in its place, and nothing runs again.
#[derive(Debug, Default)]
pub(super) struct Spares(BTreeMap<(u32, ExecutorId), TaskAttemptId>);

impl Spares {
    /// One of a partition.
    fn take(&mut self, partition: u32) -> Option<(ExecutorId, TaskAttemptId)> {
        let key = *self.0.range(all_of(partition)).next()?.0;
        let attempt = self.0.remove(&key)?;
        Some((key.1, attempt))
    }

    /// Those of a partition are not the same as what will count.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        while self.take(partition.0).is_some() {}
    }

    /// What was on an executor is lost.
    pub(super) fn drop_executor(&mut self, executor: ExecutorId) {
        self.0.retain(|(_, on), _| *on != executor);
    }
}

fn all_of(partition: u32) -> std::ops::RangeInclusive<(u32, ExecutorId)> {
    (partition, ExecutorId(0))..=(partition, ExecutorId(u128::MAX))
}

impl Job {
    /// Keeps what an attempt has left whose task is done already, if it fits the plan and is a spare.
    pub(super) fn keep_spare(&mut self, key: StageKey, id: TaskAttemptId, executor: ExecutorId, left: TaskDone) {
        let Some(stage) = self.stages.get_mut(&key) else { return };
        if check_done(&left, Some(&stage.plan)).is_ok() {
            stage.keep_spare(id, executor, &left.pieces.into());
        }
    }
}

impl Stage {
    /// An attempt is done whose task is done already: what it left is kept if it is the same as what counts, elsewhere.
    pub(super) fn keep_spare(&mut self, attempt: TaskAttemptId, executor: ExecutorId, pieces: &Pieces) {
        let task = self.tasks.get(index(attempt.partition.0)).filter(|_| self.plan.stage == attempt.stage);
        let Some(done) = task.and_then(|task| task.done.as_ref()) else { return };
        if done.executor != executor && pieces.len() > 0 && done.pieces.iter().eq(pieces.iter()) {
            self.spares.0.insert((attempt.partition.0, executor), attempt);
        }
    }

    /// The output of a done task is gone where it was: a spare counts in its place, or it is lost.
    pub(super) fn lose_or_fall_back(&mut self, partition: PartitionId, node: NodeName, at: TimeMs, cached: &Cached) {
        if !self.fall_back(partition) {
            self.lose(partition, node, at, cached);
        }
    }

    fn fall_back(&mut self, partition: PartitionId) -> bool {
        let Some((executor, attempt)) = self.spares.take(partition.0) else { return false };
        let Some(done) = self.task_mut(partition).done.as_mut() else { return false };
        (done.executor, done.attempt) = (executor, attempt);
        true
    }

    pub(super) fn check_spares(&self, executors: &Executors) {
        for (partition, executor) in self.spares.0.keys() {
            assert!(executors.is_there(*executor), "a spare is on an executor that is there");
            let done = self.task(PartitionId(*partition)).done.as_ref();
            assert!(done.is_some_and(|done| done.executor != *executor), "a spare is beside what counts, elsewhere");
        }
    }
}
