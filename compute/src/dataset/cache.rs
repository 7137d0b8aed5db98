use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use situ_wire::ids::{DatasetId, PartitionId};

/// A partition's records, of whatever type.
type KeptRecords = Arc<dyn Any + Send + Sync>;
/// Partitions that are kept no more, for their memory to be freed where it holds nobody up.
pub(crate) type Dropped = Vec<((DatasetId, PartitionId), KeptRecords)>;

/// The partitions that a worker keeps in memory, and how much they take.
#[derive(Default)]
pub(crate) struct Kept {
    partitions: BTreeMap<(DatasetId, PartitionId), Partition>,
    used_bytes: u64,
    /// Counts uses.
    uses: u64,
}

struct Partition {
    records: KeptRecords,
    len_bytes: u64,
    /// When it was used last.
    used: u64,
}

impl Kept {
    /// How much all take together, those that are still being gathered with them.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// The records of a partition.
    pub(crate) fn get(&mut self, dataset: DatasetId, partition: u32) -> Option<KeptRecords> {
        let found = self.partitions.get_mut(&(dataset, PartitionId(partition)))?;
        self.uses += 1;
        found.used = self.uses;
        Some(Arc::clone(&found.records))
    }

    /// Makes room for `more_bytes` of a partition of `dataset` that is being gathered, where all together may take
    /// `limit_bytes`. The partitions of a dataset do not push each other out: a walk over more of them than there is room
    /// for would find none of them at its next turn.
    pub(crate) fn grow(&mut self, dataset: DatasetId, more_bytes: u64, limit_bytes: u64) -> (bool, Dropped) {
        let Some(others) = limit_bytes.checked_sub(more_bytes) else { return (false, Dropped::new()) };
        let dropped = self.drop_until(others, Some(dataset));
        let grown = self.used_bytes <= others;
        if grown {
            self.used_bytes += more_bytes;
        }
        (grown, dropped)
    }

    /// Gives back room of a partition that was being gathered.
    pub(crate) fn shrink(&mut self, bytes: u64) {
        self.used_bytes -= bytes;
    }

    /// Keeps a partition for which there is room already; gives what was kept in its place, as two attempts may have
    /// computed it at once.
    #[must_use]
    pub(crate) fn insert(
        &mut self,
        dataset: DatasetId,
        partition: u32,
        records: KeptRecords,
        len_bytes: u64,
    ) -> Option<KeptRecords> {
        self.uses += 1;
        let kept = Partition { records, len_bytes, used: self.uses };
        let before = self.partitions.insert((dataset, PartitionId(partition)), kept)?;
        self.used_bytes -= before.len_bytes;
        Some(before.records)
    }

    /// Whether a partition is kept.
    pub(crate) fn contains(&self, id: (DatasetId, PartitionId)) -> bool {
        self.partitions.contains_key(&id)
    }

    /// Drops partitions that nobody reads, the least recently used first, until all take at most `limit_bytes`.
    pub(crate) fn make_room(&mut self, limit_bytes: u64) -> Dropped {
        self.drop_until(limit_bytes, None)
    }

    /// Drops all partitions of a dataset.
    pub(crate) fn remove(&mut self, dataset: DatasetId) -> Dropped {
        let ids: Vec<_> = self.partitions.keys().filter(|(id, _)| *id == dataset).copied().collect();
        ids.into_iter().filter_map(|id| self.remove_one(id)).collect()
    }

    fn drop_until(&mut self, limit_bytes: u64, spared: Option<DatasetId>) -> Dropped {
        let mut dropped = Dropped::new();
        while self.used_bytes > limit_bytes {
            let free = self.partitions.iter().filter(|((dataset, _), partition)| {
                Some(*dataset) != spared && Arc::strong_count(&partition.records) == 1
            });
            let Some(id) = free.min_by_key(|(_, partition)| partition.used).map(|(id, _)| *id) else { break };
            dropped.extend(self.remove_one(id));
        }
        dropped
    }

    fn remove_one(&mut self, id: (DatasetId, PartitionId)) -> Option<((DatasetId, PartitionId), KeptRecords)> {
        let partition = self.partitions.remove(&id)?;
        self.used_bytes -= partition.len_bytes;
        Some((id, partition.records))
    }
}
