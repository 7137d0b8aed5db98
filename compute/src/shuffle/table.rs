//! A hash table of states by key.

use std::any::Any;
use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::partitioner::{hash_key, rank_of};
use super::records;
use super::settle::Settling;
use super::size::outside_len;
use crate::program::memory::{MemoryManager, SpareMemory};

/// How many values wait until they are added together; those that may hold memory of their own do not.
const BATCH: usize = 32;

/// How large the table of a combining task is: those of a machine's tasks should fit into its cache together, because to
/// wait for the memory behind it costs more than to pass some records on twice.
const COMBINING_LEN_BYTES: usize = 8 << 20;
/// How many entries it has room for at most: of small ones so many take less than that.
const COMBINING_BUCKETS: usize = 1 << 17;
/// What it and all that its entries hold may take before it is emptied.
pub(crate) const COMBINING_TOTAL_BYTES: usize = 16 << 20;

thread_local! {
    /// An empty table that the last task on this thread left: the next one of its stage needs one of the same kind.
    static SPARE: RefCell<Option<(Box<dyn Any>, SpareMemory)>> = const { RefCell::new(None) };
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

    /// Hands out a state in parts that make it again when they are merged in their order.
    fn parts(&self, state: Self::State, sink: &mut dyn FnMut(&Self::State)) {
        sink(&state);
    }

    /// About how long such a part may be at most; no limit where states cannot be cut.
    fn part_len_bytes(&self) -> usize {
        usize::MAX
    }

    /// What states go through before they are given on.
    fn settling(&self) -> Settling {
        Settling::none()
    }
}

/// A hash table of states by key that knows about how much memory it takes.
pub(crate) struct Table<K, A: Aggregation> {
    aggregation: Arc<A>,
    entries: HashTable<(K, A::State)>,
    /// About how many bytes the entries take outside the table.
    outside_bytes: usize,
    /// Values that are not in the table yet, with the hashes of their keys. Most of what a word costs is to wait for the
    /// memory that its entry is in: looked up one right after the other, several are waited for at once.
    waiting: Vec<(u64, K, A::Value)>,
}

impl<K: Hash + Eq + Serialize, A: Aggregation> Table<K, A> {
    pub(crate) fn new(aggregation: Arc<A>) -> Self {
        let (entries, waiting) = (HashTable::new(), Vec::new());
        Self { aggregation, entries, outside_bytes: 0, waiting }
    }

    /// About how much memory it takes, and will take while it grows if the next entry makes it.
    #[inline]
    pub(crate) fn len_bytes(&self) -> usize {
        let grows = self.entries.len() == self.entries.capacity();
        self.entries.allocation_size() * if grows { 3 } else { 1 } + self.outside_bytes
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What its entries take in a list, and outside of it.
    pub(crate) fn listed_bytes(&self) -> usize {
        self.len() * size_of::<(u64, (K, A::State))>() + self.outside_bytes
    }

    /// Measures all entries, as a state may have kept less of what was added than was expected; says what the largest state
    /// takes.
    pub(crate) fn measure(&mut self) -> usize {
        let mut largest_bytes = 0;
        self.outside_bytes = 0;
        for (key, state) in &self.entries {
            let state_bytes = outside_len(state);
            largest_bytes = largest_bytes.max(state_bytes);
            self.outside_bytes += outside_len(key) + state_bytes;
        }
        largest_bytes
    }

    pub(crate) fn aggregation(&self) -> &Arc<A> {
        &self.aggregation
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

    /// Whether a table that combines what passes should be emptied: another batch might make it grow, or its entries hold
    /// too much.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.entries.capacity() - self.entries.len() < BATCH
            || self.entries.allocation_size() + self.outside_bytes > COMBINING_TOTAL_BYTES
    }

    /// Adds the values that wait.
    #[inline(never)]
    pub(crate) fn settle(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for (hash, key, value) in waiting.drain(..) {
            match self.entries.entry(hash, |entry| entry.0 == key, |entry| hash_key(&entry.0)) {
                Entry::Occupied(mut entry) => {
                    self.outside_bytes += self.aggregation.growth_bytes(&value);
                    self.aggregation.add(&mut entry.get_mut().1, value);
                }
                Entry::Vacant(entry) => {
                    let state = self.aggregation.start(value);
                    self.outside_bytes += outside_len(&key) + outside_len(&state);
                    entry.insert((key, state));
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
                self.outside_bytes += outside_len(&key) + outside_len(&state);
                entry.insert((key, state));
            }
        }
    }

    /// Hands all entries to `sink`; the table is empty then, and keeps its memory. Their order is that of the table's
    /// places: the same for tables of one capacity whose keys came in the same order.
    pub(crate) fn drain(&mut self, sink: impl FnMut((K, A::State))) {
        self.settle();
        self.entries.drain().for_each(sink);
        self.outside_bytes = 0;
    }

    /// All entries, in the order of their ranks: the same whatever became of the table before.
    pub(crate) fn into_ordered(mut self) -> Vec<(u64, (K, A::State))> {
        self.settle();
        let mut entries: Vec<(u64, (K, A::State))> =
            self.entries.into_iter().map(|entry| (rank_of(hash_key(&entry.0)), entry)).collect();
        let encoded = |key: &K| {
            let mut bytes = Vec::new();
            // A key that cannot be encoded did not come through a shuffle.
            records::append(key, &mut bytes).unwrap_or_default();
            bytes
        };
        entries.sort_unstable_by(|(rank, one), (other_rank, other)| {
            rank.cmp(other_rank).then_with(|| encoded(&one.0).cmp(&encoded(&other.0)))
        });
        entries
    }
}

impl<K: Hash + Eq + Serialize + 'static, A: Aggregation> Table<K, A> {
    /// An empty table that combines what passes. All have the same capacity and never another, so that what comes out of
    /// one, and in which order, depends on what went in alone. In the memory that the last task on this thread left with
    /// [`Self::leave`] if it is of this type: new memory, page by page, cost a word count about a twentieth of its time.
    pub(crate) fn combining(aggregation: Arc<A>) -> Self {
        let spare = SPARE.with_borrow_mut(Option::take);
        let spare = spare.and_then(|(spare, _)| spare.downcast::<HashTable<(K, A::State)>>().ok());
        let entries = spare.map(|entries| *entries);
        let entries = entries.unwrap_or_else(|| HashTable::with_capacity(Self::combining_capacity()));
        debug_assert!(entries.is_empty() && entries.capacity() == Self::combining_capacity());
        Self { entries, ..Self::new(aggregation) }
    }

    /// Of a power of two buckets seven in eight are filled.
    const fn combining_capacity() -> usize {
        let mut buckets = COMBINING_BUCKETS;
        while buckets * (size_of::<(K, A::State)>() + 1) > COMBINING_LEN_BYTES && buckets > 4 * BATCH {
            buckets /= 2;
        }
        buckets / 8 * 7
    }

    /// Leaves the memory of an empty combining table for the next task, where there is enough for that.
    pub(crate) fn leave(self, memory: &Arc<MemoryManager>) {
        debug_assert_eq!(self.entries.capacity(), Self::combining_capacity(), "it never grew");
        if self.entries.is_empty() && self.entries.capacity() == Self::combining_capacity() {
            let spare = memory.lend_spare(self.entries.allocation_size() as u64);
            SPARE.set(spare.map(|spare| -> (Box<dyn Any>, SpareMemory) { (Box::new(self.entries), spare) }));
        }
    }
}
