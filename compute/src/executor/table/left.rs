//! What the tasks of a job have left that stands in no file: should the scheduler die, it hears of it again.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use situ_wire::ids::{DatasetId, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::{Holding, StageOutput, TaskDone, TaskSpec};

/// How much the results of one job may take; the oldest go, and their tasks run again if it comes to that.
const RESULTS_LEN_BYTES: usize = 16 << 20;
/// What a result takes beside its bytes, roughly.
const RESULT_AROUND_LEN_BYTES: usize = 256;
/// How many partitions in memory are told at once.
const CACHED_AT_ONCE: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Left {
    results: VecDeque<(TaskAttemptId, StageOutput, Box<TaskDone>)>,
    len_bytes: usize,
    /// What the worker holds in memory, and which attempt put it there.
    cached: BTreeMap<(DatasetId, PartitionId), TaskAttemptId>,
}

impl Left {
    /// A task is done.
    pub(super) fn note(&mut self, task: &TaskSpec, done: &TaskDone) {
        for what in &done.dropped {
            self.cached.remove(what);
        }
        self.cached.extend(done.cached.iter().map(|what| (*what, task.attempt)));
        if let StageOutput::Result { .. } = task.output {
            // Without the message that it came in.
            let result = Bytes::copy_from_slice(&done.result);
            self.len_bytes += len_bytes(&result);
            let kept = TaskDone { result, metrics: done.metrics, ..TaskDone::default() };
            self.results.push_back((task.attempt, task.output, Box::new(kept)));
            while self.len_bytes > RESULTS_LEN_BYTES
                && let Some((_, _, oldest)) = self.results.pop_front()
            {
                self.len_bytes -= len_bytes(&oldest.result);
            }
        }
    }

    /// Whether the worker holds partitions in memory.
    pub(super) fn keeps_partitions(&self) -> bool {
        !self.cached.is_empty()
    }

    /// The worker is gone, and with it what it held in memory.
    pub(super) fn lose_worker(&mut self) {
        self.cached.clear();
    }

    /// All of it.
    pub(super) fn holdings(&self) -> Vec<Holding> {
        let result = |(attempt, output, done): &(TaskAttemptId, StageOutput, Box<TaskDone>)| Holding::Left {
            attempt: *attempt,
            output: *output,
            done: done.clone(),
        };
        let mut holdings: Vec<Holding> = self.results.iter().map(result).collect();
        let mut by: BTreeMap<TaskAttemptId, Vec<(DatasetId, PartitionId)>> = BTreeMap::new();
        for (what, attempt) in &self.cached {
            by.entry(*attempt).or_default().push(*what);
        }
        for (attempt, partitions) in by {
            let pieces = partitions.chunks(CACHED_AT_ONCE).map(<[_]>::to_vec);
            holdings.extend(pieces.map(|partitions| Holding::Cached { attempt, partitions }));
        }
        holdings
    }
}

fn len_bytes(result: &Bytes) -> usize {
    result.len() + RESULT_AROUND_LEN_BYTES
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{ActionId, JobId, ScopeId, StageId};
    use situ_wire::messages::scheduler::{Locality, TaskWork};

    use super::*;

    fn note(left: &mut Left, partition: u32, len: usize, cached: &[u32]) {
        let attempt = TaskAttemptId {
            job: JobId(1),
            stage: StageId(ScopeId::ROOT, 0),
            partition: PartitionId(partition),
            attempt: 0,
        };
        let (action, output) = (ActionId(ScopeId::ROOT, 0), StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) });
        let (work, locality) = (TaskWork::Replay { action, plan_digest: [0; 32] }, Locality::Node);
        let task = TaskSpec { attempt, work, output, locality, alone: false, slots: 1 };
        let cached =
            cached.iter().map(|dataset| (DatasetId(ScopeId::ROOT, *dataset), PartitionId(partition))).collect();
        left.note(&task, &TaskDone { result: vec![0; len].into(), cached, ..TaskDone::default() });
    }

    fn told(left: &Left) -> (Vec<u32>, usize) {
        let results = left.holdings().into_iter().filter_map(|holding| match holding {
            Holding::Left { attempt, .. } => Some(attempt.partition.0),
            _ => None,
        });
        (results.collect(), left.cached.len())
    }

    #[test]
    fn results_are_kept_within_a_bound_and_what_is_in_memory_until_it_goes() {
        let mut left = Left::default();
        (0..4).for_each(|partition| note(&mut left, partition, 5 << 20, &[1, 2]));
        assert_eq!(told(&left), (vec![1, 2, 3], 8), "the oldest makes place");
        let (action, output) = (ActionId(ScopeId::ROOT, 0), StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) });
        let attempt =
            TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 1), partition: PartitionId(0), attempt: 0 };
        let (work, locality) = (TaskWork::Replay { action, plan_digest: [0; 32] }, Locality::Node);
        let task = TaskSpec { attempt, work, output, locality, alone: false, slots: 1 };
        let dropped = (0..4).map(|partition| (DatasetId(ScopeId::ROOT, 1), PartitionId(partition))).collect();
        left.note(&task, &TaskDone { dropped, ..TaskDone::default() });
        assert_eq!(told(&left).1, 4);
        left.lose_worker();
        assert_eq!(told(&left).1, 0);
        (0..200_000).for_each(|partition| note(&mut left, partition, 0, &[]));
        assert!(left.results.len() < 70_000, "{}", left.results.len());
    }
}
