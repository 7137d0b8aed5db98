//! Gathering records by their key.

use std::hash::Hash;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::messages::scheduler::TaskFailure;

use super::partitioner::{hash_key, rank_of};
use super::resident::{Moves, resident};
use super::table::{Aggregation, Table};
use super::write::{PieceWriter, SpoolRecords};
use crate::dataset::Records;
use crate::program::memory::Reservation;
use crate::program::task::{TaskContext, abort};

/// How many bits of a rank say to which part of its level a key belongs.
const PART_BITS: u32 = 4;
/// What it takes to write a part of a state: it is encoded in a buffer that doubles, and packed behind that.
const WRITTEN_COPIES: usize = 3;
/// How often parts are split again: beyond that the keys of a part have nearly all of their rank in common.
const LEVELS: u32 = 12;

/// Gathers all records of a partition by key, and gives the keys in the order of their ranks.
///
/// What does not fit into memory is split by the highest bits of the ranks into a spill file, and gathered part by part,
/// each of which is split by the next bits if need be. From the moment on at which that begins, the states gathered so far
/// and all that comes later stand in that file as they came: so the values of a key are combined one after the other, in
/// the order in which they came, whether there was room or not, and the order of the keys is the same too.
pub(crate) struct Gatherer<K, A: Aggregation> {
    task: TaskContext,
    table: Table<K, A>,
    memory: Reservation,
    level: u32,
    overflow: Option<PieceWriter>,
}

impl<K, A> Gatherer<K, A>
where
    K: Hash + Eq + Serialize + DeserializeOwned + 'static,
    A: Aggregation,
{
    pub(crate) fn new(task: &TaskContext, aggregation: Arc<A>) -> Self {
        Self::at_level(task, aggregation, 0)
    }

    fn at_level(task: &TaskContext, aggregation: Arc<A>, level: u32) -> Self {
        Self { task: task.clone(), table: Table::new(aggregation), memory: task.reserve(), level, overflow: None }
    }

    /// Adds a value.
    #[inline]
    pub(crate) fn add(&mut self, key: K, value: A::Value) {
        if let Some(overflow) = &mut self.overflow {
            let state = self.table.aggregation().start(value);
            pass(overflow, self.level, &key, &state);
        } else if self.table.add(key, value) {
            self.keep_to_memory();
        }
    }

    /// Adds a state.
    #[inline]
    pub(crate) fn merge(&mut self, key: K, state: A::State) {
        if let Some(overflow) = &mut self.overflow {
            pass(overflow, self.level, &key, &state);
        } else {
            self.table.merge(key, state);
            self.keep_to_memory();
        }
    }

    #[inline]
    fn keep_to_memory(&mut self) {
        if !self.memory.grow_to(self.table.len_bytes()) {
            self.shortage();
        }
    }

    /// There is no more memory.
    #[inline(never)]
    fn shortage(&mut self) {
        let largest_bytes = self.table.measure();
        let len_bytes = self.table.len_bytes();
        // Less than was expected, by enough that this is not asked at each record.
        if len_bytes <= self.memory.held_bytes() / 4 * 3 {
            return;
        }
        // To split helps against many keys, not against one.
        if self.table.len() > 1 && self.level < LEVELS {
            return self.overflow(largest_bytes);
        }
        let part_bytes = largest_bytes.min(self.table.aggregation().part_len_bytes());
        if !self.memory.insist(len_bytes + (WRITTEN_COPIES - 1) * part_bytes) {
            let whose = if self.table.len() <= 1 { "one key" } else { "keys with the same hash" };
            self.too_large(whose, len_bytes);
        }
    }

    /// Ends the task because memory does not hold what must be in it at once.
    fn too_large(&self, whose: &str, len_bytes: usize) -> ! {
        abort(TaskFailure::Program {
            message: format!(
                "the values of {whose} take over {} MiB, which is all that a task has here ({} MiB); gather less of each key \
                 with reduce_by_key or combine_by_key, go through its values with map_groups, which needs no memory for \
                 them, or raise worker_memory_bytes of the executors",
                len_bytes >> 20,
                self.task.memory_slot_bytes() >> 20
            ),
        });
    }

    /// This level goes to the disk. The largest of its states takes `largest_bytes`.
    fn overflow(&mut self, largest_bytes: usize) {
        let (level, task) = (self.level, &self.task);
        let aggregation = Arc::clone(self.table.aggregation());
        let writing_bytes = WRITTEN_COPIES * largest_bytes.min(aggregation.part_len_bytes());
        let writing = task.reserve();
        if !writing.insist(writing_bytes) {
            self.too_large("one key", writing_bytes);
        }
        let writer = self.overflow.insert(PieceWriter::spool(task, 1 << PART_BITS));
        self.table.drain(|(key, state)| aggregation.parts(state, &mut |part| pass(writer, level, &key, part)));
        self.table = Table::new(aggregation);
        self.memory.shrink_to(0);
        drop(writing);
    }

    /// Each key with its state, in the order of the keys' ranks.
    pub(crate) fn finish(mut self) -> Records<(K, A::State)> {
        if self.overflow.is_none() {
            self.table.settle();
            // All are twice in memory while they are put into order.
            let (listed_bytes, splits) = (self.table.listed_bytes(), self.table.len() > 1 && self.level < LEVELS);
            if splits && !self.memory.grow_to(self.table.len_bytes() + listed_bytes) {
                let largest_bytes = self.table.measure();
                self.overflow(largest_bytes);
            }
        }
        let Some(overflow) = self.overflow else {
            let listed_bytes = self.table.listed_bytes();
            let aggregation = Arc::clone(self.table.aggregation());
            let mut settling = aggregation.settling();
            let entries = self.table.into_ordered().into_iter().map(|(_, entry)| entry);
            self.memory.shrink_to(listed_bytes);
            let entries = resident(self.task, entries, self.memory, Parts { aggregation, pending: None });
            return Records::new(entries.map(move |(key, state)| (key, settling.settle(state))));
        };
        let (mut spool, task, level) = (overflow.into_spool(), self.task, self.level + 1);
        let aggregation = Arc::clone(self.table.aggregation());
        Records::new((0..spool.len()).flat_map(move |part| {
            let mut gatherer = Self::at_level(&task, Arc::clone(&aggregation), level);
            spool.take(part).for_each(|(key, state)| gatherer.merge(key, state));
            gatherer.finish()
        }))
    }
}

/// Writes a key's state to its part.
#[inline]
fn pass<K: Hash + Serialize, S: Serialize>(writer: &mut PieceWriter, level: u32, key: &K, state: &S) {
    let rank = rank_of(hash_key(key));
    let part = (rank << (level * PART_BITS)) >> (u64::BITS - PART_BITS);
    writer.write(usize::try_from(part).expect("it is below 16"), &(key, state));
}

/// Moves entries in parts of their states, one behind the other.
struct Parts<K, A: Aggregation> {
    aggregation: Arc<A>,
    /// The first part of the next entry.
    pending: Option<(K, A::State)>,
}

impl<K, A> Moves<(K, A::State)> for Parts<K, A>
where
    K: Eq + Serialize + DeserializeOwned,
    A: Aggregation,
{
    fn write(&self, writer: &mut PieceWriter, (key, state): (K, A::State)) {
        self.aggregation.parts(state, &mut |part| writer.write(0, &(&key, part)));
    }

    fn next(&mut self, records: &mut SpoolRecords<(K, A::State)>) -> Option<(K, A::State)> {
        let (key, mut state) = self.pending.take().or_else(|| records.next())?;
        for (other, part) in records {
            if other != key {
                self.pending = Some((other, part));
                break;
            }
            self.aggregation.merge(&mut state, part);
        }
        Some((key, state))
    }
}
