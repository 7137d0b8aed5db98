//! Going through the values of a key, of which there may be more than fit into memory.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::panic::Location;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use situ_wire::messages::scheduler::TaskFailure;

use super::keyed::Operation;
use super::record::{Key, Record};
use super::{Context, Dataset, Records};
use crate::program::task::{TaskContext, abort};
use crate::shuffle::{Order, Sorter, by_hash, hash_key, outside_len, rank_of, records};

/// The values of one key, as they come: some of them may still be on the worker's disk.
///
/// What is not taken when the next key's turn comes is passed over, and gone then.
pub struct Values<V>(Box<dyn Iterator<Item = V>>);

impl<V> std::fmt::Debug for Values<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl<V> Iterator for Values<V> {
    type Item = V;

    #[inline]
    fn next(&mut self) -> Option<V> {
        self.0.next()
    }
}

impl<K: 'static, V: 'static> Dataset<(K, V)> {
    /// All that `function` makes of each key and its values, which it is given one after the other, in the order of the
    /// partitions that they come from. However many values a key has, they take no memory: they are sorted by their keys,
    /// on the worker's disk if need be.
    ///
    /// The keys go to `partitions` partitions by their hash, and stand there as those of [`Dataset::reduce_by_key`].
    ///
    /// ```no_run
    /// # use situ_compute::Dataset;
    /// # fn example(visits: &Dataset<(String, u64)>) -> Dataset<(String, u64)> {
    /// visits.map_groups(|page, times| [(page.clone(), times.max().unwrap_or_default())], 4)
    /// # }
    /// ```
    #[track_caller]
    pub fn map_groups<I>(
        &self,
        function: impl Fn(&K, Values<V>) -> I + Send + Sync + 'static,
        partitions: u32,
    ) -> Dataset<I::Item>
    where
        K: Key,
        V: Record,
        I: IntoIterator + 'static,
        I::IntoIter: 'static,
        I::Item: 'static,
    {
        let operation = Operation::here("map_groups", Location::caller(), partitions);
        let function = Arc::new(function);
        self.groups(&operation, move |_, groups| {
            let function = Arc::clone(&function);
            Records::new(groups.flat_map(move |(key, values)| function(&key, values)))
        })
    }

    /// Each key of both datasets, with each pair of its values here and there. The values that a key has here must fit into
    /// what a task has of the worker's memory, or the job fails and says so; those there need not: let the one with fewer
    /// values a key be the one that joins the other.
    #[track_caller]
    pub fn join<W>(&self, other: &Dataset<(K, W)>, partitions: u32) -> Dataset<(K, (V, W))>
    where
        K: Key + Clone,
        V: Record + Clone,
        W: Record + Clone,
    {
        let place = Location::caller();
        let here = self.narrow(Context::name("join (left)", place), |_, records| {
            Records::new(records.map(|(key, value)| (key, Side::Left(value))))
        });
        let there = other.narrow(Context::name("join (right)", place), |_, records| {
            Records::new(records.map(|(key, value)| (key, Side::Right(value))))
        });
        let operation = Operation::here("join", place, partitions);
        here.union(&there).groups(&operation, |task, groups| {
            let task = task.clone();
            Records::new(groups.flat_map(move |(key, sides)| pairs(&task, key, sides)))
        })
    }

    /// What `apply` makes of the groups of each partition.
    fn groups<U: 'static>(
        &self,
        operation: &Operation,
        apply: impl Fn(&TaskContext, Groups<K, V>) -> Records<U> + Send + Sync + 'static,
    ) -> Dataset<U>
    where
        K: Key,
        V: Record,
    {
        let order: Order<(u64, K, V)> =
            Arc::new(|one, other| one.0.cmp(&other.0).then_with(|| order_of_one_rank(&one.1, &other.1)));
        self.shuffle(operation, by_hash(operation.partitions), move |task, records| {
            let mut sorter = Sorter::new(task, Arc::clone(&order));
            records.for_each(|(key, value)| sorter.push((rank_of(hash_key(&key)), key, value)));
            apply(task, Groups::new(sorter.finish()))
        })
    }
}

/// Keys of one rank are equal, but for one pair in many millions of millions.
fn order_of_one_rank<K: Key>(one: &K, other: &K) -> Ordering {
    if one == other {
        return Ordering::Equal;
    }
    let encoded = |key: &K| {
        let mut bytes = Vec::new();
        // It came through a shuffle, so it can be encoded.
        records::append(key, &mut bytes).unwrap_or_default();
        bytes
    };
    encoded(one).cmp(&encoded(other))
}

/// Which dataset of a join a value is from.
#[derive(Serialize, Deserialize)]
enum Side<V, W> {
    Left(V),
    Right(W),
}

/// Each value of the right with each of the left, which come first: the left's partitions do, and order is kept.
fn pairs<K, V, W>(
    task: &TaskContext,
    key: Rc<K>,
    sides: Values<Side<V, W>>,
) -> impl Iterator<Item = (K, (V, W))> + use<K, V, W>
where
    K: Clone + 'static,
    V: Clone + Serialize + 'static,
    W: Clone + 'static,
{
    let memory = task.reserve();
    let (mut sides, mut left, mut len_bytes, mut first) = (sides, Vec::new(), 0, None);
    for side in sides.by_ref() {
        match side {
            Side::Left(value) => {
                len_bytes += 2 * size_of::<V>() + outside_len(&value);
                left.push(value);
                if !memory.insist(len_bytes) {
                    abort(TaskFailure::Program {
                        message: format!(
                            "the values of one key on the left of a join take over {} MiB, which is all that a task has here \
                             ({} MiB); join the other way round, or raise worker_memory_bytes of the executors",
                            len_bytes >> 20,
                            task.memory_slot_bytes() >> 20
                        ),
                    });
                }
            }
            Side::Right(value) => {
                first = Some(value);
                break;
            }
        }
    }
    let right = first.into_iter().chain(sides.filter_map(|side| match side {
        Side::Right(value) => Some(value),
        Side::Left(_) => None,
    }));
    let left = Rc::new((left, memory));
    right.flat_map(move |other| {
        let (key, left) = (Rc::clone(&key), Rc::clone(&left));
        (0..left.0.len()).map(move |at| (K::clone(&key), (left.0[at].clone(), other.clone())))
    })
}

/// The groups of records that are sorted by their keys' ranks.
struct Groups<K, V>(Rc<RefCell<Stream<K, V>>>);

struct Stream<K, V> {
    records: Records<(u64, K, V)>,
    /// The first record of the next group, as soon as it was seen.
    pending: Option<(u64, K, V)>,
    /// The group whose turn it is.
    current: Option<(u64, Rc<K>)>,
    /// Its number.
    group: u64,
}

impl<K: Key, V: 'static> Groups<K, V> {
    fn new(records: Records<(u64, K, V)>) -> Self {
        Self(Rc::new(RefCell::new(Stream { records, pending: None, current: None, group: 0 })))
    }
}

impl<K: Key, V> Stream<K, V> {
    /// The next value of the current group.
    fn value(&mut self) -> Option<V> {
        let (rank, key) = self.current.as_ref()?;
        if self.pending.is_none() {
            self.pending = self.records.next();
        }
        let within = self.pending.as_ref().is_some_and(|record| record.0 == *rank && record.1 == **key);
        if within { self.pending.take().map(|(_, _, value)| value) } else { None }
    }
}

impl<K: Key, V: 'static> Iterator for Groups<K, V> {
    type Item = (Rc<K>, Values<V>);

    fn next(&mut self) -> Option<(Rc<K>, Values<V>)> {
        let mut stream = self.0.borrow_mut();
        while stream.value().is_some() {}
        let (rank, key, value) = match stream.pending.take() {
            Some(record) => record,
            None => stream.records.next()?,
        };
        let key = Rc::new(key);
        stream.current = Some((rank, Rc::clone(&key)));
        stream.group += 1;
        let (group, shared) = (stream.group, Rc::clone(&self.0));
        let rest = std::iter::from_fn(move || {
            let mut stream = shared.borrow_mut();
            if stream.group == group { stream.value() } else { None }
        });
        Some((key, Values(Box::new(std::iter::once(value).chain(rest)))))
    }
}
