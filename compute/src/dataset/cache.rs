use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use situ_wire::ids::DatasetId;

/// The partitions that a worker keeps in memory.
///
/// Shared by the tasks of one worker; the lock is held for a look-up only.
pub(crate) struct Cache {
    limit_bytes: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The records, and about how many bytes they take.
    partitions: HashMap<(DatasetId, u32), (Arc<dyn Any + Send + Sync>, u64)>,
    used_bytes: u64,
}

impl Cache {
    /// Keeps at most so much.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, kept: Mutex::default() }
    }

    /// The records of a partition, if they are kept.
    pub(crate) fn get<T: Send + Sync + 'static>(&self, dataset: DatasetId, partition: u32) -> Option<Arc<Vec<T>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&kept.partitions.get(&(dataset, partition))?.0).downcast().ok()
    }

    /// Forgets a dataset.
    pub(crate) fn evict(&self, dataset: DatasetId) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut freed_bytes = 0;
        let gone: Vec<_> = kept
            .partitions
            .extract_if(|(of, _), (_, len_bytes)| {
                let goes = *of == dataset;
                freed_bytes += if goes { *len_bytes } else { 0 };
                goes
            })
            .collect();
        kept.used_bytes -= freed_bytes;
        drop(kept);
        // Not under the lock: it may take long.
        drop(gone);
    }

    /// Keeps the records of a partition, which take about `len_bytes`, if there is room. Says whether they are kept.
    pub(crate) fn put<T: Send + Sync + 'static>(
        &self,
        dataset: DatasetId,
        partition: u32,
        records: Arc<Vec<T>>,
        len_bytes: u64,
    ) -> bool {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.partitions.contains_key(&(dataset, partition)) {
            return true;
        }
        if kept.used_bytes.saturating_add(len_bytes) > self.limit_bytes {
            tracing::info!(%dataset, partition, len_bytes, "no room to keep a partition; it is computed again when needed");
            return false;
        }
        kept.used_bytes += len_bytes;
        kept.partitions.insert((dataset, partition), (records, len_bytes));
        true
    }

    /// About how many bytes it keeps.
    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).used_bytes
    }
}
