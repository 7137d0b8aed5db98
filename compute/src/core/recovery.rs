use std::collections::{BTreeMap, VecDeque};

use situ_wire::ids::{DatasetId, NodeName, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::{Lost, Recovery, RecoveryOutcome};
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
    /// The newest [`LISTED`], each with what brings it back.
    listed: VecDeque<(Recovery, RecoveredBy)>,
    dropped: u64,
    /// Those of the listed that are not back, by what brings them back, as positions in the list from its very beginning.
    open: BTreeMap<RecoveredBy, Vec<u64>>,
}

impl Recoveries {
    /// Notes a loss.
    pub(super) fn lose(&mut self, lost: Lost, task: TaskAttemptId, node: NodeName, at: TimeMs, by: RecoveredBy) {
        let position = self.dropped + self.listed.len() as u64;
        self.listed.push_back((Recovery { lost_at: at, lost, task, node, outcome: RecoveryOutcome::Open }, by));
        self.open.entry(by).or_default().push(position);
        if self.listed.len() > LISTED
            && let Some((_, by)) = self.listed.pop_front()
        {
            let position = self.dropped;
            self.dropped += 1;
            if let Some(open) = self.open.get_mut(&by) {
                open.retain(|other| *other != position);
                if open.is_empty() {
                    self.open.remove(&by);
                }
            }
        }
    }

    /// Notes that whatever `by` brings back is back.
    pub(super) fn recover(&mut self, by: RecoveredBy, attempt: TaskAttemptId, node: &NodeName, at: TimeMs) {
        for position in self.open.remove(&by).unwrap_or_default() {
            if let Some(recovery) = find(&mut self.listed, self.dropped, position) {
                recovery.outcome = RecoveryOutcome::Recovered { by: attempt, node: node.clone(), at };
            }
        }
    }

    /// Whether something of that kind is lost that `by` brings back.
    pub(super) fn lacks(&self, lost: Lost, by: RecoveredBy) -> bool {
        let listed = |position: &u64| {
            let index = position.checked_sub(self.dropped).and_then(|index| usize::try_from(index).ok())?;
            self.listed.get(index)
        };
        let positions = self.open.get(&by).into_iter().flatten();
        positions.filter_map(listed).any(|(recovery, _)| recovery.lost == lost)
    }

    /// Notes that nobody needs a stage any more, and so nothing of it that is not back. A later action may.
    pub(super) fn give_up_stage(&mut self, key: StageKey, at: TimeMs) {
        let all = RecoveredBy::Task(key, PartitionId(0))..=RecoveredBy::Task(key, PartitionId(u32::MAX));
        for position in self.open.range(all).flat_map(|(_, positions)| positions) {
            give_up(find(&mut self.listed, self.dropped, *position), at);
        }
    }

    /// Notes that a stage is gone: nothing of it will be back.
    pub(super) fn forget_stage(&mut self, key: StageKey) {
        let all = RecoveredBy::Task(key, PartitionId(0))..=RecoveredBy::Task(key, PartitionId(u32::MAX));
        let gone: Vec<RecoveredBy> = self.open.range(all).map(|(by, _)| *by).collect();
        gone.iter().for_each(|by| drop(self.open.remove(by)));
    }

    /// Notes that nobody reads these datasets any more.
    pub(super) fn forget_datasets(&mut self, is_released: impl Fn(&DatasetId) -> bool) {
        self.open.retain(|by, _| !matches!(by, RecoveredBy::Cache(dataset, _) if is_released(dataset)));
    }

    /// How many are not back.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Notes that the job has ended: nothing is needed any more.
    pub(super) fn end(&mut self, at: TimeMs) {
        self.open.clear();
        self.listed.iter_mut().for_each(|(recovery, _)| give_up(Some(recovery), at));
    }

    pub(super) fn listed(&self) -> Vec<Recovery> {
        self.listed.iter().map(|(recovery, _)| recovery.clone()).collect()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The one at a position from the very beginning, if it is still listed.
fn find(listed: &mut VecDeque<(Recovery, RecoveredBy)>, dropped: u64, position: u64) -> Option<&mut Recovery> {
    let index = position.checked_sub(dropped).and_then(|index| usize::try_from(index).ok())?;
    listed.get_mut(index).map(|(recovery, _)| recovery)
}

fn give_up(recovery: Option<&mut Recovery>, at: TimeMs) {
    if let Some(recovery) = recovery.filter(|recovery| recovery.outcome == RecoveryOutcome::Open) {
        recovery.outcome = RecoveryOutcome::NotNeeded { at };
    }
}
