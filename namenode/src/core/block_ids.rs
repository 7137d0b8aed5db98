//! The ids of blocks: an epoch and a number within it.
//!
//! ```text
//! bit 63 | 62 .. 44 | 43 .. 0
//! 0      | epoch    | number, from 1
//! ```
//!
//! Every namespace has an epoch of its own, drawn when its first block is made. What datanodes still hold of another
//! namespace of the same cluster, whose directory was lost or is not mounted, has ids that this one neither gave out nor
//! ever will: it is not written over, and not deleted.

use situ_wire::ids::BlockId;

/// How many bits the number takes: at 30,000 blocks a second they last for 18 years.
const NUMBER_BITS: u32 = 44;
/// How many epochs there are, the first, in which there is no epoch to be seen, included.
const EPOCHS: u64 = 1 << (u64::BITS - 1 - NUMBER_BITS);

/// The next block's id, after which `next` was to come. The first one of a namespace begins the epoch that `chance` says;
/// 0 is none.
pub(super) fn next_id(next: BlockId, chance: u64) -> BlockId {
    if next == BlockId(1) { BlockId((chance % EPOCHS) << NUMBER_BITS | 1) } else { next }
}

/// Whether this namespace, which is to give out `next`, has given out `id`.
pub(super) fn was_given_out(id: BlockId, next: BlockId) -> bool {
    id < next && id.0 >> NUMBER_BITS == next.0 >> NUMBER_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_namespace_gave_out_is_known_as_such() {
        let first = next_id(BlockId(1), 7);
        assert_eq!(first, BlockId((7 << NUMBER_BITS) + 1));
        let next = BlockId(first.0 + 5);
        assert_eq!(next_id(next, 9), next, "an epoch is drawn once");
        assert!(was_given_out(first, next) && !was_given_out(next, next));
        for epoch in [0, 6, 8] {
            assert!(!was_given_out(BlockId((epoch << NUMBER_BITS) + 2), next), "epoch {epoch}");
        }
        // One in which no block was made yet knows none.
        assert!(!was_given_out(first, BlockId(1)));
        assert!(next_id(BlockId(1), u64::MAX).0 < 1 << 63);
    }
}
