//! Operations that need no shuffle.

use std::panic::Location;
use std::sync::Arc;

use serde::Serialize;
use situ_wire::messages::scheduler::TaskLocation;

use super::graph::{Kept, NodeKind, Parent};
use super::{Context, Dataset, Records};
use crate::shuffle::records::outside_len;

impl<T: 'static> Dataset<T> {
    /// Every record through `function`.
    #[track_caller]
    pub fn map<U: 'static>(&self, function: impl Fn(T) -> U + Send + Sync + 'static) -> Dataset<U> {
        let function = Arc::new(function);
        self.narrow(Context::name("map", Location::caller()), move |_, records| {
            let function = Arc::clone(&function);
            Records::new(records.map(move |record| function(record)))
        })
    }

    /// The records that `predicate` holds for.
    #[track_caller]
    pub fn filter(&self, predicate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Dataset<T> {
        let predicate = Arc::new(predicate);
        self.narrow(Context::name("filter", Location::caller()), move |_, records| {
            let predicate = Arc::clone(&predicate);
            Records::new(records.filter(move |record| predicate(record)))
        })
    }

    /// All that `function` makes of every record.
    #[track_caller]
    pub fn flat_map<I>(&self, function: impl Fn(T) -> I + Send + Sync + 'static) -> Dataset<I::Item>
    where
        I: IntoIterator + 'static,
        I::IntoIter: 'static,
        I::Item: 'static,
    {
        let function = Arc::new(function);
        self.narrow(Context::name("flat_map", Location::caller()), move |_, records| {
            let function = Arc::clone(&function);
            Records::new(records.flat_map(move |record| function(record)))
        })
    }

    /// What `function` makes of each partition as a whole.
    #[track_caller]
    pub fn map_partitions<I>(&self, function: impl Fn(Records<T>) -> I + Send + Sync + 'static) -> Dataset<I::Item>
    where
        I: IntoIterator + 'static,
        I::IntoIter: 'static,
        I::Item: 'static,
    {
        self.narrow(Context::name("map_partitions", Location::caller()), move |_, records| {
            Records::new(function(records).into_iter())
        })
    }

    /// What `function` makes of each partition as a whole, given its number.
    #[track_caller]
    pub fn map_partitions_with_index<I>(
        &self,
        function: impl Fn(u32, Records<T>) -> I + Send + Sync + 'static,
    ) -> Dataset<I::Item>
    where
        I: IntoIterator + 'static,
        I::IntoIter: 'static,
        I::Item: 'static,
    {
        self.narrow(Context::name("map_partitions_with_index", Location::caller()), move |partition, records| {
            Records::new(function(partition, records).into_iter())
        })
    }

    /// Every record behind the key that `function` finds for it.
    #[track_caller]
    pub fn key_by<K: 'static>(&self, function: impl Fn(&T) -> K + Send + Sync + 'static) -> Dataset<(K, T)> {
        let function = Arc::new(function);
        self.narrow(Context::name("key_by", Location::caller()), move |_, records| {
            let function = Arc::clone(&function);
            Records::new(records.map(move |record| (function(&record), record)))
        })
    }

    /// The records of both datasets, those of this one first.
    #[track_caller]
    pub fn union(&self, other: &Self) -> Dataset<T> {
        let preferred = match (&self.preferred, &other.preferred) {
            (None, None) => None,
            (first, second) => {
                let mut places: Vec<Vec<TaskLocation>> =
                    first.as_ref().map_or_else(|| vec![Vec::new(); self.partitions as usize], |p| p.as_ref().clone());
                match second {
                    Some(second) => places.extend(second.iter().cloned()),
                    None => places.resize(places.len() + other.partitions as usize, Vec::new()),
                }
                Some(Arc::new(places))
            }
        };
        let (first, second, split) = (Arc::clone(&self.compute), Arc::clone(&other.compute), self.partitions);
        self.context.add(
            Context::name("union", Location::caller()),
            vec![Parent::whole(&self.node), Parent::part(&other.node, self.partitions, 0, other.partitions)],
            self.partitions + other.partitions,
            preferred,
            move |task, partition| match partition.checked_sub(split) {
                None => first(task, partition),
                Some(partition) => second(task, partition),
            },
        )
    }

    /// The same records, kept in the memory of the workers once an action has computed them, as far as there is room: a
    /// later action finds them there, and its tasks go where they are. What is lost with a worker is computed again.
    ///
    /// How much a partition takes is an estimate: the records themselves, and of each what it would take encoded, numbers
    /// at their full length, for what it holds elsewhere. What a record shares counts once for each that shares it; not
    /// counted is spare capacity, and the up to 1 MiB of input that a [`Text`](crate::Text) of a file's line keeps when it
    /// is longer than 23 bytes: to keep few lines of many, keep copies (`Text::copy_from_slice`). A partition is in memory
    /// as a whole before it is known whether there is room.
    #[track_caller]
    pub fn persist(&self) -> Dataset<T>
    where
        T: Clone + Serialize + Send + Sync,
    {
        let id = self.context.next_dataset(1);
        let kept = self.context.kept(|backend| Kept::dataset(id, backend));
        let node = self.context.node(
            id,
            Context::name("persist", Location::caller()),
            self.parent(),
            self.partitions,
            self.preferred.clone(),
            NodeKind::Persisted(Arc::clone(&kept)),
        );
        let compute = Arc::clone(&self.compute);
        let compute = move |task: &_, partition| {
            let task: &crate::program::task::TaskContext = task;
            let records = match task.cache().get::<T>(id, partition) {
                Some(records) => records,
                None if kept.is_released() => return compute(task, partition),
                None => {
                    let records: Arc<Vec<T>> = Arc::new(compute(task, partition).collect());
                    // All are measured and no sample: one group may be longer than all others together.
                    let outside_bytes: usize = records.iter().map(outside_len).sum();
                    let len_bytes = (records.capacity() * size_of::<T>() + outside_bytes) as u64;
                    if task.cache().put(id, partition, Arc::clone(&records), len_bytes) {
                        task.note_cached(id, partition);
                        // It may have been released meanwhile.
                        if kept.is_released() {
                            task.cache().evict(id);
                        }
                    }
                    records
                }
            };
            let mut next = 0;
            Records::new(std::iter::from_fn(move || {
                next += 1;
                records.get(next - 1).cloned()
            }))
        };
        Dataset::new(self.context.clone(), Arc::new(node), Arc::new(compute))
    }

    /// Gives up what is kept of this dataset, if it is one that [`Dataset::persist`] has made: the workers forget it, and from
    /// here on it is computed whenever it is needed. Without this that happens when the dataset, and all that is made from it,
    /// is dropped.
    pub fn unpersist(&self) {
        if let NodeKind::Persisted(kept) = &self.node.kind {
            kept.release();
        }
    }
}
