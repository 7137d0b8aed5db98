//! Sorting records, in runs that spill.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::resident::resident;
use super::size::outside_len;
use super::write::{PieceWriter, SPOOL_READ_LEN_BYTES, SpoolRecords};
use crate::dataset::Records;
use crate::program::memory::Reservation;
use crate::program::task::TaskContext;

/// How many runs are merged at once. Each has a part of its file and a frame in memory.
const MERGED_RUNS: usize = 32;
/// What a run takes while it is merged.
const RUN_LEN_BYTES: usize = 2 * SPOOL_READ_LEN_BYTES;

/// An order of records.
pub(crate) type Order<T> = Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>;

/// Sorts all records of a partition; equal ones stay in the order in which they came.
pub(crate) struct Sorter<T> {
    task: TaskContext,
    order: Order<T>,
    memory: Reservation,
    records: Vec<T>,
    outside_bytes: usize,
    /// Sorted, each of records that came before those of the next; with it how often its records were merged.
    runs: Vec<(u32, SpoolRecords<T>)>,
}

impl<T: Serialize + DeserializeOwned + 'static> Sorter<T> {
    pub(crate) fn new(task: &TaskContext, order: Order<T>) -> Self {
        let (memory, records, runs) = (task.reserve(), Vec::new(), Vec::new());
        Self { task: task.clone(), order, memory, records, outside_bytes: 0, runs }
    }

    /// Adds a record.
    #[inline]
    pub(crate) fn push(&mut self, record: T) {
        self.outside_bytes += outside_len(&record);
        self.records.push(record);
        if !self.memory.grow_to(self.len_bytes()) {
            self.spill();
        }
    }

    /// What the records take: half as much again while they are sorted, twice as much when the next makes them move.
    #[inline]
    fn len_bytes(&self) -> usize {
        let capacity = self.records.capacity();
        let more = if self.records.len() == capacity { capacity } else { capacity / 2 };
        // A list of records without bytes has any capacity.
        capacity.saturating_add(more) * size_of::<T>() + self.outside_bytes
    }

    fn sort(&mut self) {
        let order = &self.order;
        self.records.sort_by(|one, other| order(one, other));
    }

    #[inline(never)]
    fn spill(&mut self) {
        self.sort();
        let records = std::mem::take(&mut self.records);
        self.runs.push((0, spool(&self.task, records.into_iter())));
        self.outside_bytes = 0;
        self.memory.shrink_to(0);
        while let Some(level) = self.runs.last().map(|run| run.0)
            && let Some(first) = self.runs.len().checked_sub(MERGED_RUNS)
            && self.runs[first].0 == level
        {
            let runs = self.runs.split_off(first);
            self.runs.push((level + 1, spool(&self.task, merge(&self.order, &self.memory, runs))));
            self.memory.shrink_to(0);
        }
    }

    /// All records, in order.
    pub(crate) fn finish(mut self) -> Records<T> {
        if self.runs.is_empty() {
            self.sort();
            return Records::new(resident(self.task, self.records.into_iter(), self.memory));
        }
        if !self.records.is_empty() {
            self.spill();
        }
        let merged = merge(&self.order, &self.memory, self.runs);
        Records::new(Merging { merged, _memory: self.memory })
    }
}

/// Writes a run.
fn spool<T: Serialize + DeserializeOwned + 'static>(
    task: &TaskContext,
    records: impl Iterator<Item = T>,
) -> SpoolRecords<T> {
    let mut writer = PieceWriter::spool(task, 1);
    records.for_each(|record| writer.write(0, &record));
    writer.into_spool().take(0)
}

fn merge<T: DeserializeOwned>(order: &Order<T>, memory: &Reservation, runs: Vec<(u32, SpoolRecords<T>)>) -> Merge<T> {
    memory.take(runs.len() * RUN_LEN_BYTES);
    let mut runs: Vec<SpoolRecords<T>> = runs.into_iter().map(|(_, records)| records).collect();
    let heads = runs.iter_mut().enumerate().filter_map(|(run, records)| {
        let record = records.next()?;
        Some(Head { record, run, order: Arc::clone(order) })
    });
    let heads: BinaryHeap<Head<T>> = heads.collect();
    Merge { heads, runs }
}

/// The last merge, with the memory that it takes.
struct Merging<T> {
    merged: Merge<T>,
    _memory: Reservation,
}

impl<T: DeserializeOwned> Iterator for Merging<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.merged.next()
    }
}

/// The first record of a run. The least one, and among equal ones that of the earliest run, is the greatest head: a
/// [`BinaryHeap`] gives the greatest first.
struct Head<T> {
    record: T,
    run: usize,
    order: Order<T>,
}

impl<T> Ord for Head<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.order)(&other.record, &self.record).then(other.run.cmp(&self.run))
    }
}

impl<T> PartialOrd for Head<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Head<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Head<T> {}

/// Merges sorted runs.
struct Merge<T> {
    heads: BinaryHeap<Head<T>>,
    runs: Vec<SpoolRecords<T>>,
}

impl<T: DeserializeOwned> Iterator for Merge<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let mut head = self.heads.peek_mut()?;
        match self.runs[head.run].next() {
            Some(next) => Some(std::mem::replace(&mut head.record, next)),
            None => Some(std::collections::binary_heap::PeekMut::pop(head).record),
        }
    }
}
