//! Gathering records by their key, in a hash table that spills.

use std::any::Any;
use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::partitioner::{hash_key, partition_of};
use super::records::encoded_len;
use super::write::{PieceWriter, Spool};
use crate::dataset::Records;
use crate::program::task::TaskContext;

/// Among how many parts a table that is too large is split.
const FAN_OUT: u32 = 16;
/// How often a part is split again. Beyond it a part is gathered whatever it takes: splitting does not help against one
/// enormous key.
const LEVELS: u32 = 4;
/// Of how many entries one is measured.
const SAMPLE: usize = 64;
/// How many values wait until they are added together; those that may hold memory of their own do not.
const BATCH: usize = 32;

/// How large a table grows that may be emptied before all is in it: those of a machine's tasks should fit into its cache
/// together, because to wait for the memory behind it costs more than to pass some records on twice.
const CACHED_LEN_BYTES: usize = 8 << 20;

thread_local! {
    /// An empty table that the last task on this thread left: the next one of its stage needs one of the same size.
    static SPARE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// How values with the same key become one state.
pub(crate) trait Aggregation: Send + Sync + 'static {
    /// What is gathered.
    type Value;
    /// What it becomes.
    type State: Serialize + DeserializeOwned + 'static;

    /// The state of one value.
    fn start(&self, value: Self::Value) -> Self::State;
    /// Adds a value.
    fn add(&self, state: &mut Self::State, value: Self::Value);
    /// Adds a state.
    fn merge(&self, state: &mut Self::State, other: Self::State);
    /// About how much memory a state that takes the value in grows by.
    fn growth_bytes(&self, value: &Self::Value) -> usize;
    /// The same for a state.
    fn merge_growth_bytes(&self, state: &Self::State) -> usize;
}

/// A hash table of states by key that knows about how much memory it takes.
pub(crate) struct Table<K, A: Aggregation> {
    aggregation: Arc<A>,
    entries: HashTable<(K, A::State)>,
    /// Bytes that the entries take outside the table, as the measured ones let expect: about what they take encoded.
    outside_bytes: usize,
    /// What the last measured entry takes outside the table.
    sampled_bytes: usize,
    /// Values that are not in the table yet, with the hashes of their keys. Most of what a word costs is to wait for the
    /// memory that its entry is in: looked up one right after the other, several are waited for at once.
    waiting: Vec<(u64, K, A::Value)>,
}

impl<K: Hash + Eq + Serialize, A: Aggregation> Table<K, A> {
    pub(crate) fn new(aggregation: Arc<A>) -> Self {
        let (entries, waiting) = (HashTable::new(), Vec::new());
        Self { aggregation, entries, outside_bytes: 0, sampled_bytes: 0, waiting }
    }

    /// About how much memory it takes.
    #[inline]
    pub(crate) fn len_bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(K, A::State)>() + 1) + self.outside_bytes
    }

    /// Adds a value, at once or with some that come later; says whether the table may have grown.
    #[inline]
    #[must_use]
    pub(crate) fn add(&mut self, key: K, value: A::Value) -> bool {
        self.waiting.push((hash_key(&key), key, value));
        let settles = self.waiting.len() >= BATCH || std::mem::needs_drop::<A::Value>();
        if settles {
            self.settle();
        }
        settles
    }

    /// Whether a table that combines what passes should be emptied: it takes more than `budget_bytes`, or would outgrow the
    /// cache.
    #[inline]
    pub(crate) fn is_full(&self, budget_bytes: usize) -> bool {
        let grows_soon = self.entries.capacity() - self.entries.len() < BATCH;
        self.len_bytes() > budget_bytes || (grows_soon && 2 * self.entries.allocation_size() > CACHED_LEN_BYTES)
    }

    /// Adds the values that wait.
    #[inline(never)]
    fn settle(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for (hash, key, value) in waiting.drain(..) {
            match self.entries.entry(hash, |entry| entry.0 == key, |entry| hash_key(&entry.0)) {
                Entry::Occupied(mut entry) => {
                    self.outside_bytes += self.aggregation.growth_bytes(&value);
                    self.aggregation.add(&mut entry.get_mut().1, value);
                }
                Entry::Vacant(entry) => {
                    entry.insert((key, self.aggregation.start(value)));
                    self.measure(hash);
                }
            }
        }
        self.waiting = waiting;
    }

    /// Adds a state.
    #[inline]
    pub(crate) fn merge(&mut self, key: K, state: A::State) {
        let hash = hash_key(&key);
        match self.entries.entry(hash, |entry| entry.0 == key, |entry| hash_key(&entry.0)) {
            Entry::Occupied(mut entry) => {
                self.outside_bytes += self.aggregation.merge_growth_bytes(&state);
                self.aggregation.merge(&mut entry.get_mut().1, state);
            }
            Entry::Vacant(entry) => {
                entry.insert((key, state));
                self.measure(hash);
            }
        }
    }

    /// Accounts for the entry that was added last, by measuring one of the same hash now and then.
    #[inline]
    fn measure(&mut self, hash: u64) {
        if self.entries.len() % SAMPLE == 1
            && let Some(entry) = self.entries.find(hash, |_| true)
        {
            self.sampled_bytes = encoded_len(entry);
        }
        self.outside_bytes += self.sampled_bytes;
    }

    /// Hands all entries to `sink`, in no particular order; the table is empty then, and keeps its memory unless that alone
    /// is more than `budget_bytes`.
    pub(crate) fn drain(&mut self, budget_bytes: usize, sink: impl FnMut((K, A::State))) {
        self.settle();
        self.entries.drain().for_each(sink);
        self.outside_bytes = 0;
        if self.entries.allocation_size() > budget_bytes {
            self.entries = HashTable::new();
        }
    }
}

impl<K: Hash + Eq + Serialize + 'static, A: Aggregation> Table<K, A> {
    /// An empty table, in the memory that the last task on this thread left with [`Self::leave`] if it is of this type: to
    /// grow from nothing, table by table, cost a word count about a twentieth of its time.
    pub(crate) fn reuse(aggregation: Arc<A>) -> Self {
        let spare =
            SPARE.with_borrow_mut(Option::take).and_then(|spare| spare.downcast::<HashTable<(K, A::State)>>().ok());
        Self { entries: spare.map(|entries| *entries).unwrap_or_default(), ..Self::new(aggregation) }
    }

    /// Leaves the memory of an empty table for the next task, if it is at most `limit_bytes`.
    pub(crate) fn leave(self, limit_bytes: usize) {
        if self.entries.is_empty() && self.entries.allocation_size() <= limit_bytes {
            SPARE.set(Some(Box::new(self.entries)));
        }
    }
}

/// Gathers all records of a partition by key. What does not fit into memory is split by another part of the keys' hash
/// into a spill file, and gathered part by part.
pub(crate) struct Gatherer<K, A: Aggregation> {
    task: TaskContext,
    table: Table<K, A>,
    budget_bytes: usize,
    level: u32,
    overflow: Option<PieceWriter>,
}

impl<K, A> Gatherer<K, A>
where
    K: Hash + Eq + Serialize + DeserializeOwned + 'static,
    A: Aggregation,
{
    pub(crate) fn new(task: &TaskContext, aggregation: Arc<A>) -> Self {
        let budget_bytes = usize::try_from(task.world().task_memory_bytes()).unwrap_or(usize::MAX);
        Self::at_level(task, aggregation, budget_bytes, 0)
    }

    fn at_level(task: &TaskContext, aggregation: Arc<A>, budget_bytes: usize, level: u32) -> Self {
        Self { task: task.clone(), table: Table::new(aggregation), budget_bytes, level, overflow: None }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, key: K, value: A::Value) {
        if self.table.add(key, value) {
            self.keep_to_budget();
        }
    }

    /// Adds a state.
    #[inline]
    pub(crate) fn merge(&mut self, key: K, state: A::State) {
        self.table.merge(key, state);
        self.keep_to_budget();
    }

    #[inline]
    fn keep_to_budget(&mut self) {
        if self.table.len_bytes() > self.budget_bytes && self.level < LEVELS {
            self.spill();
        }
    }

    fn spill(&mut self) {
        let (task, budget, level) = (&self.task, self.budget_bytes, self.level);
        let writer = self.overflow.get_or_insert_with(|| PieceWriter::new(task, FAN_OUT as usize, budget / 2));
        self.table.drain(0, |entry| {
            let part = partition_of(hash_key(&entry.0), level + 1, FAN_OUT);
            writer.write(part as usize, &entry);
        });
    }

    /// Each key with its state, in no particular order.
    pub(crate) fn finish(mut self) -> Records<(K, A::State)> {
        self.table.settle();
        if self.overflow.is_some() {
            self.spill();
        }
        match self.overflow {
            None => Records::new(self.table.entries.into_iter()),
            Some(writer) => {
                let mut spool: Spool = writer.into_spool();
                let (task, aggregation) = (self.task, self.table.aggregation);
                let (budget, level) = (self.budget_bytes, self.level + 1);
                Records::new((0..spool.len()).flat_map(move |part| {
                    let mut gatherer = Self::at_level(&task, Arc::clone(&aggregation), budget, level);
                    spool.take(part).for_each(|(key, state)| gatherer.merge(key, state));
                    gatherer.finish()
                }))
            }
        }
    }
}
