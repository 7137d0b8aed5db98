//! Epochs: what makes the ids and generation stamps of one start of a namenode unlike those of any other.
//!
//! ```text
//! bit 63 | 62 .. 24 | 23 .. 0
//! 0      | epoch    | number, from 1
//! ```
//!
//! Before it makes anything, a namenode that was started begins an epoch, which is a record of the log, and counts all
//! ids and stamps from there. So a namenode that goes on from an older copy of its directory (a backup, a snapshot of
//! a virtual machine), or from one that was formatted anew, gives out nothing that another life of the namespace gave
//! out: what datanodes hold of that is neither written over nor deleted.
//!
//! An epoch is the time of its beginning, in 64ths of a second since 2020, so that later starts have later ones. Where
//! the clock says less than the last epoch (it was set back, or starts came in quick succession), the next one is drawn
//! from the [`DRAWN_FROM`] that follow.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use situ_wire::block::Block;
use situ_wire::ids::{BlockId, GenerationStamp, INodeId};
use situ_wire::time::WallTime;

use super::image::{EpochRecord, ImageRecord, MetaRecord};
use super::ledger::Ledger;

/// How many bits the number takes.
const NUMBER_BITS: u32 = 24;
/// The last epoch that there is.
const LAST: u64 = (1 << (u64::BITS - 1 - NUMBER_BITS)) - 1;
/// From how many epochs one is drawn where the clock does not say which.
const DRAWN_FROM: u64 = 1 << 20;
/// How many numbers are kept free for what one call makes.
const SPARE_NUMBERS: u64 = 1 << 16;
/// Midnight of 2020-01-01 UTC.
const BEGIN: WallTime = WallTime(1_577_836_800_000);
/// What a clock that is right does not say while this is in use: 2120. One that says more is not followed, so that no
/// clock that is wrong once uses up all epochs.
const END: WallTime = WallTime(4_733_510_400_000);

/// An epoch of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}", self.0)
    }
}

impl Epoch {
    /// The epoch of an id or a stamp.
    fn of(id: u64) -> Self {
        Self(id >> NUMBER_BITS)
    }

    /// Its first id and stamp.
    fn first(self) -> u64 {
        self.0 << NUMBER_BITS | 1
    }

    /// The epoch that follows on this one at a time; none if there is no other. `chance` is a random number.
    pub(super) fn next(self, now: WallTime, chance: u64) -> Option<Self> {
        let clock = if now < END { now.0.saturating_sub(BEGIN.0) * 64 / 1000 } else { 0 };
        let drawn = self.0 + 1 + chance % DRAWN_FROM;
        Some(Self(clock.max(drawn))).filter(|next| next.0 <= LAST)
    }
}

impl MetaRecord {
    /// The counters before the first epoch, in which nothing is given out but the root directory's id.
    pub(super) fn before_all(root: INodeId) -> Self {
        Self { next_inode: INodeId(root.0 + 1), next_block: BlockId(1), next_generation: GenerationStamp(1) }
    }

    /// The present epoch.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch::of(self.next_block.0)
    }

    /// Whether an epoch must begin before anything more is made: it wears out.
    pub(super) fn is_worn(&self) -> bool {
        let most = self.next_inode.0.max(self.next_block.0).max(self.next_generation.0);
        most + SPARE_NUMBERS > Epoch(self.epoch().0 + 1).first()
    }

    /// The counters at the beginning of an epoch.
    fn at_beginning(epoch: Epoch) -> Self {
        let first = epoch.first();
        Self { next_inode: INodeId(first), next_block: BlockId(first), next_generation: GenerationStamp(first) }
    }
}

/// The epochs that are over, and which blocks and stamps they gave out.
#[derive(Debug, Default)]
pub(super) struct Epochs(BTreeMap<Epoch, EpochRecord>);

impl Epochs {
    /// Begins an epoch: the counters from there on.
    pub(super) fn begin(&mut self, ledger: &mut Ledger, meta: MetaRecord, epoch: Epoch) -> Result<MetaRecord, String> {
        let over = meta.epoch();
        if epoch <= over || epoch.0 > LAST {
            return Err(format!("{epoch} cannot follow on {over}"));
        }
        let MetaRecord { next_block, next_generation, .. } = meta;
        if next_block.0 > over.first() || next_generation.0 > over.first() {
            self.restore(ledger, EpochRecord { epoch: over, next_block, next_generation })?;
        }
        Ok(MetaRecord::at_beginning(epoch))
    }

    /// Takes a record of an image.
    pub(super) fn restore(&mut self, ledger: &mut Ledger, record: EpochRecord) -> Result<(), String> {
        ledger.add(&ImageRecord::Epoch(record));
        match self.0.insert(record.epoch, record) {
            None => Ok(()),
            Some(_) => Err(format!("{} is there twice", record.epoch)),
        }
    }

    /// Whether a block in a life was given out by this namespace, which is at `meta`. Of what was not, nothing is known.
    pub(super) fn gave_out(&self, meta: &MetaRecord, block: Block) -> bool {
        let within = |id: u64, present: u64, over: fn(&EpochRecord) -> u64| {
            let epoch = Epoch::of(id);
            let next = if epoch == Epoch::of(present) { Some(present) } else { self.0.get(&epoch).map(over) };
            id >= epoch.first() && next.is_some_and(|next| id < next)
        };
        within(block.id.0, meta.next_block.0, |record| record.next_block.0)
            && within(block.generation.0, meta.next_generation.0, |record| record.next_generation.0)
    }

    pub(super) fn get(&self, epoch: Epoch) -> Option<&EpochRecord> {
        self.0.get(&epoch)
    }

    /// All from one on, ascending.
    pub(super) fn iter_from(&self, from: Epoch) -> impl Iterator<Item = &EpochRecord> {
        self.0.range(from..).map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-01.
    const NOW: WallTime = WallTime(1_767_225_600_000);

    fn block(id: u64, generation: u64) -> Block {
        Block { id: BlockId(id), generation: GenerationStamp(generation) }
    }

    #[test]
    fn later_starts_have_later_epochs_whatever_the_clock_says() {
        let first = Epoch::default().next(NOW, 0).unwrap();
        assert_eq!(first.0, (1_767_225_600 - 1_577_836_800) * 64);
        assert_eq!(first.next(WallTime(NOW.0 + 10_000), 0).unwrap().0, first.0 + 640, "a second has 64 of them");
        for chance in [0, 1, DRAWN_FROM - 1, u64::MAX] {
            let drawn = Epoch(first.0 + 1 + chance % DRAWN_FROM);
            for clock in [WallTime(0), NOW, END, WallTime(u64::MAX)] {
                assert_eq!(first.next(clock, chance), Some(drawn), "at {clock:?}");
            }
        }
        assert_eq!(Epoch(LAST).next(NOW, 0), None);
        assert_eq!(Epoch(LAST - 1).next(NOW, 1), None);
        assert!(Epoch(LAST).first() < 1 << 63);
    }

    #[test]
    fn an_epoch_wears_out_before_its_numbers_do() {
        let meta = MetaRecord::at_beginning(Epoch(7));
        assert!(!meta.is_worn() && !MetaRecord::before_all(INodeId(1)).is_worn());
        let next = Epoch(8).first() - SPARE_NUMBERS + 1;
        assert!(MetaRecord { next_inode: INodeId(next), ..meta }.is_worn());
        assert!(MetaRecord { next_block: BlockId(next), ..meta }.is_worn());
        assert!(MetaRecord { next_generation: GenerationStamp(next), ..meta }.is_worn());
    }

    #[test]
    fn what_another_life_gave_out_is_known_as_such() {
        let (mut epochs, mut ledger) = (Epochs::default(), Ledger::default());
        let mut meta = MetaRecord::before_all(INodeId(1));
        assert!(!epochs.gave_out(&meta, block(1, 1)), "before the first epoch nothing is given out");
        let mut given = Vec::new();
        for epoch in [3, 5, 9] {
            meta = epochs.begin(&mut ledger, meta, Epoch(epoch)).unwrap();
            assert!(!epochs.gave_out(&meta, block(meta.next_block.0, meta.next_generation.0)));
            if epoch == 5 {
                continue;
            }
            given.push(block(meta.next_block.0, meta.next_generation.0));
            meta.next_block.0 += 1;
            meta.next_generation.0 += 1;
        }
        assert!(
            epochs.begin(&mut ledger, meta, Epoch(9)).is_err() && epochs.begin(&mut ledger, meta, Epoch(4)).is_err()
        );
        assert!(given.iter().all(|block| epochs.gave_out(&meta, *block)));
        for epoch in [0, 2, 4, 5, 8, 10] {
            let id = Epoch(epoch).first();
            assert!(!epochs.gave_out(&meta, block(id, given[0].generation.0)), "epoch {epoch}");
            assert!(!epochs.gave_out(&meta, block(given[0].id.0, id)), "epoch {epoch}");
        }
        let (id, generation) = (given[1].id.0, given[1].generation.0);
        assert!(
            !epochs.gave_out(&meta, block(id + 1, generation)) && !epochs.gave_out(&meta, block(id, generation + 1))
        );
        assert!(!epochs.gave_out(&meta, block(Epoch(3).first() - 1, generation)));
        assert_eq!(epochs.iter_from(Epoch(0)).map(|record| record.epoch.0).collect::<Vec<_>>(), [3]);
    }
}
