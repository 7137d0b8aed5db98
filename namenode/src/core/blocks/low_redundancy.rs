//! Blocks that need another copy, worst off first.

use situ_wire::ids::BlockId;

use crate::core::sparse::IdSet;

/// How many levels there are.
const LEVELS: usize = 4;

/// One replica is left: the next failure loses the block.
pub(super) const ONE_LEFT: u8 = 0;
/// Less than a third of the replicas are left.
pub(super) const FEW_LEFT: u8 = 1;
/// Some are missing.
pub(super) const SOME_MISSING: u8 = 2;
/// All are there, but on one rack.
pub(super) const ONE_RACK: u8 = 3;

/// Blocks that need another copy and have a replica to make it from. A block knows its own level.
#[derive(Debug, Default)]
pub(super) struct LowRedundancy {
    levels: [IdSet; LEVELS],
    cursors: [u64; LEVELS],
}

impl LowRedundancy {
    /// The level of a block with so many good replicas, if it needs a copy.
    pub(super) fn level(good: usize, pending: usize, wanted: usize, one_rack: bool) -> Option<u8> {
        if good == 0 {
            // Nothing to copy from: the block is missing, which is kept elsewhere.
            None
        } else if good + pending < wanted {
            Some(match good {
                1 => ONE_LEFT,
                _ if good * 3 < wanted => FEW_LEFT,
                _ => SOME_MISSING,
            })
        } else {
            (one_rack && pending == 0).then_some(ONE_RACK)
        }
    }

    pub(super) fn change(&mut self, block: BlockId, from: Option<u8>, to: Option<u8>) {
        if let Some(level) = from {
            let was = self.levels[usize::from(level)].remove(block.0);
            assert!(was, "{block} knows its level");
        }
        if let Some(level) = to {
            self.levels[usize::from(level)].insert(block.0);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.levels.iter().all(IdSet::is_empty)
    }

    /// Up to `limit` blocks of each level, worst level first, going round within a level from call to call.
    pub(super) fn next_round(&mut self, limit: usize) -> Vec<BlockId> {
        let mut blocks = Vec::new();
        for (level, cursor) in self.levels.iter().zip(&mut self.cursors) {
            let round = level.next_round(*cursor, limit);
            *cursor = round.last().copied().unwrap_or(0);
            blocks.extend(round.into_iter().map(BlockId));
        }
        blocks
    }
}
