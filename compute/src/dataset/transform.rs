//! Operations that need no shuffle.

use std::panic::Location;
use std::sync::Arc;

use serde::Serialize;
use situ_wire::ids::DatasetId;

use super::graph::{Kept, NodeKind, Parent};
use super::places::Places;
use super::{Context, Dataset, Records};
use crate::program::task::TaskContext;
use crate::shuffle::outside_len;

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
        let preferred =
            Places::of_both((self.preferred.clone(), self.partitions), (other.preferred.clone(), other.partitions));
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
    /// Half of what tasks may take together is for partitions that are kept, as long as no task needs it: then those go that
    /// were used least recently, but none that is being read. A partition is measured while it is computed; as soon as it
    /// is seen not to fit it is not kept, and passed on. How much it takes is an estimate: the records themselves, and of
    /// each what it holds elsewhere. What records share counts once for each; spare capacity does not count.
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
        let compute = move |task: &TaskContext, partition| match task.memory().manager().get::<T>(id, partition) {
            Some(records) => shared(records),
            None if kept.is_released() => compute(task, partition),
            None => keep(task, (id, partition), compute(task, partition), &kept),
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

/// Keeps the records of a partition, if there is room, and gives them.
fn keep<T>(
    task: &TaskContext,
    (dataset, partition): (DatasetId, u32),
    mut records: Records<T>,
    kept: &Kept,
) -> Records<T>
where
    T: Clone + Serialize + Send + Sync + 'static,
{
    let mut keeping = task.memory().manager().keep(dataset, partition);
    let (mut gathered, mut outside_bytes) = (Vec::new(), 0);
    for record in records.by_ref() {
        // All are measured and no sample: one group may be longer than all others together.
        outside_bytes += outside_len(&record);
        gathered.push(record);
        // A list that grows is there twice for a moment.
        let places = gathered.capacity() * if gathered.len() == gathered.capacity() { 3 } else { 1 };
        if !keeping.grow_to((places * size_of::<T>() + outside_bytes) as u64) {
            tracing::info!(%dataset, partition, "no room to keep a partition; it is computed again when needed");
            // What they take is held until the last of them is passed on.
            let gathered = gathered.into_iter().inspect(move |_| {
                let _held = &keeping;
            });
            return Records::new(gathered.chain(records));
        }
    }
    let len_bytes = gathered.capacity() * size_of::<T>() + outside_bytes;
    let records = Arc::new(gathered);
    keeping.finish(Arc::clone(&records), len_bytes as u64);
    task.note_cached(dataset, partition);
    // It may have been released meanwhile.
    if kept.is_released() {
        task.memory().manager().remove(dataset);
    }
    shared(records)
}

/// Copies of records that are kept.
fn shared<T: Clone + Send + Sync + 'static>(records: Arc<Vec<T>>) -> Records<T> {
    let mut next = 0;
    Records::new(std::iter::from_fn(move || {
        next += 1;
        records.get(next - 1).cloned()
    }))
}
