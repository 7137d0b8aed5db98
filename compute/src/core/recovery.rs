use std::collections::{BTreeMap, VecDeque};

use situ_wire::ids::{DatasetId, NodeName, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::{Lost, Recovery};
use situ_wire::time::TimeMs;

use super::stage::StageKey;

/// How many are listed.
const LISTED: usize = 1_000;

/// What brings a lost thing back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum RecoveredBy {
    /// The end of a task of that stage for that partition.
    Task(StageKey, PartitionId),
    /// That a worker holds that partition in memory again.
    Cache(DatasetId, PartitionId),
}

/// What a job lost and how it came back, the newest of it.
#[derive(Debug, Default)]
pub(super) struct Recoveries {
    listed: VecDeque<Recovery>,
    dropped: u64,
    /// Those that are not back, by what brings them back, as positions in the list from its very beginning.
    open: BTreeMap<RecoveredBy, Vec<u64>>,
}

impl Recoveries {
    /// Notes a loss.
    pub(super) fn lose(&mut self, lost: Lost, task: TaskAttemptId, node: NodeName, at: TimeMs, by: RecoveredBy) {
        let position = self.dropped + self.listed.len() as u64;
        self.listed.push_back(Recovery { lost_at: at, lost, task, node, recovered_by: None, recovered_at: None });
        self.open.entry(by).or_default().push(position);
        if self.listed.len() > LISTED {
            self.listed.pop_front();
            self.dropped += 1;
        }
    }

    /// Notes that whatever `by` brings back is back.
    pub(super) fn recover(&mut self, by: RecoveredBy, attempt: TaskAttemptId, node: &NodeName, at: TimeMs) {
        for position in self.open.remove(&by).unwrap_or_default() {
            let index = position.checked_sub(self.dropped).and_then(|index| usize::try_from(index).ok());
            if let Some(recovery) = index.and_then(|index| self.listed.get_mut(index)) {
                recovery.recovered_by = Some((attempt, node.clone()));
                recovery.recovered_at = Some(at);
            }
        }
    }

    pub(super) fn listed(&self) -> Vec<Recovery> {
        self.listed.iter().cloned().collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}
