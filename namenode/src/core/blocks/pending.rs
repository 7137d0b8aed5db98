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
}

impl PendingReplication {
    pub(super) fn add(&mut self, block: BlockId, target: DatanodeIndex, reason: PendingReason, deadline: TimeMs) {
        self.remove(block, target);
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
        Some(found.reason)
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
