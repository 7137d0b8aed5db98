//! Replicas that are expected: of finished pipelines and of ordered copies.

use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::BlockId;
use situ_wire::time::TimeMs;

use crate::core::datanodes::DatanodeIndex;

/// Why a replica is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PendingReason {
    /// The writer says that it is there. It counts as good and can be read until the time is up.
    Acknowledged,
    /// A copy was ordered from that datanode. Until it arrives no other is ordered in its place.
    Ordered {
        /// From where.
        source: DatanodeIndex,
    },
}

#[derive(Debug, Clone, Copy)]
struct Expected {
    target: DatanodeIndex,
    deadline: TimeMs,
    reason: PendingReason,
}

/// Replicas that are expected, each until its deadline; at most one a block and datanode.
#[derive(Debug, Default)]
pub(super) struct PendingReplication {
    blocks: BTreeMap<BlockId, Vec<Expected>>,
    deadlines: BTreeSet<(TimeMs, BlockId, DatanodeIndex)>,
    ordered: u64,
    /// How many blocks each datanode shall send; to several targets a block goes in one stream.
    sending: BTreeMap<DatanodeIndex, usize>,
}

impl PendingReplication {
    pub(super) fn add(&mut self, block: BlockId, target: DatanodeIndex, reason: PendingReason, deadline: TimeMs) {
        self.remove(block, target);
        if let PendingReason::Ordered { source } = reason
            && !self.is_sent_by(block, source)
        {
            *self.sending.entry(source).or_default() += 1;
        }
        self.blocks.entry(block).or_default().push(Expected { target, deadline, reason });
        self.deadlines.insert((deadline, block, target));
        self.ordered += u64::from(reason != PendingReason::Acknowledged);
    }

    /// Expects a replica no longer; gives back why it was expected.
    pub(super) fn remove(&mut self, block: BlockId, target: DatanodeIndex) -> Option<PendingReason> {
        let expected = self.blocks.get_mut(&block)?;
        let at = expected.iter().position(|expected| expected.target == target)?;
        let found = expected.swap_remove(at);
        if expected.is_empty() {
            self.blocks.remove(&block);
        }
        self.deadlines.remove(&(found.deadline, block, target));
        self.ordered -= u64::from(found.reason != PendingReason::Acknowledged);
        if let PendingReason::Ordered { source } = found.reason
            && !self.is_sent_by(block, source)
            && let Some(sending) = self.sending.get_mut(&source)
        {
            *sending -= 1;
            if *sending == 0 {
                self.sending.remove(&source);
            }
        }
        Some(found.reason)
    }

    fn is_sent_by(&self, block: BlockId, source: DatanodeIndex) -> bool {
        let mut expected = self.blocks.get(&block).into_iter().flatten();
        expected.any(|expected| expected.reason == PendingReason::Ordered { source })
    }

    /// How many blocks a datanode was ordered to send that have not arrived.
    pub(super) fn sending(&self, source: DatanodeIndex) -> usize {
        self.sending.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn remove_block(&mut self, block: BlockId) {
        for target in self.targets(block).collect::<Vec<_>>() {
            self.remove(block, target);
        }
    }

    /// Where replicas of a block are expected.
    pub(super) fn targets(&self, block: BlockId) -> impl Iterator<Item = DatanodeIndex> {
        self.blocks.get(&block).into_iter().flatten().map(|expected| expected.target)
    }

    /// Where copies of a block were ordered.
    pub(super) fn ordered_targets(&self, block: BlockId) -> impl Iterator<Item = DatanodeIndex> {
        let expected = self.blocks.get(&block).into_iter().flatten();
        expected.filter(|expected| expected.reason != PendingReason::Acknowledged).map(|expected| expected.target)
    }

    /// What can no longer come since a datanode is dead: copies to it and from it.
    pub(super) fn of_datanode(&self, datanode: DatanodeIndex) -> Vec<(BlockId, DatanodeIndex)> {
        let mut found = Vec::new();
        for (block, expected) in &self.blocks {
            for expected in expected {
                let from = expected.reason == PendingReason::Ordered { source: datanode };
                if from || expected.target == datanode {
                    found.push((*block, expected.target));
                }
            }
        }
        found
    }

    /// The earliest that is overdue.
    pub(super) fn overdue(&self, now: TimeMs) -> Option<(BlockId, DatanodeIndex)> {
        let (deadline, block, target) = self.deadlines.first()?;
        (*deadline <= now).then_some((*block, *target))
    }

    pub(super) fn next_deadline(&self) -> Option<TimeMs> {
        self.deadlines.first().map(|(deadline, ..)| *deadline)
    }

    /// How many copies are under way.
    pub(super) fn ordered(&self) -> u64 {
        self.ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_goes_to_several_is_sent_once() {
        let [one, two, three] = [1, 2, 3].map(DatanodeIndex);
        let (ordered, deadline) = (PendingReason::Ordered { source: one }, TimeMs(9));
        let mut pending = PendingReplication::default();
        pending.add(BlockId(5), two, ordered, deadline);
        pending.add(BlockId(5), three, ordered, deadline);
        pending.add(BlockId(6), three, ordered, deadline);
        pending.add(BlockId(7), three, PendingReason::Acknowledged, deadline);
        assert_eq!((pending.sending(one), pending.ordered()), (2, 3));
        // The same once more, and from another one.
        pending.add(BlockId(6), three, ordered, deadline);
        pending.add(BlockId(5), two, PendingReason::Ordered { source: three }, deadline);
        assert_eq!((pending.sending(one), pending.sending(three)), (2, 1));
        pending.remove(BlockId(5), three);
        assert_eq!((pending.sending(one), pending.sending(three)), (1, 1));
        [5, 6, 7].into_iter().for_each(|block| pending.remove_block(BlockId(block)));
        assert!(pending.sending.is_empty() && pending.ordered() == 0);
    }
}
