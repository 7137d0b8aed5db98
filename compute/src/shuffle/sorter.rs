//! Sorting records, in runs that spill.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::encoded_len;
use super::write::{PieceWriter, SpoolRecords};
use crate::dataset::Records;
use crate::program::task::TaskContext;

/// Of how many records one is measured.
const SAMPLE: usize = 64;
/// How much of each run is in memory while runs are merged.
const RUN_BUFFER_BYTES: usize = 512 << 10;

/// An order of records.
pub(crate) type Order<T> = Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>;

/// Sorts all records of a partition; equal ones stay in the order in which they came.
pub(crate) struct Sorter<T> {
    task: TaskContext,
    order: Order<T>,
    budget_bytes: usize,
    records: Vec<T>,
    outside_bytes: usize,
    sampled_bytes: usize,
    runs: Vec<SpoolRecords<T>>,
}

impl<T: Serialize + DeserializeOwned + 'static> Sorter<T> {
    pub(crate) fn new(task: &TaskContext, order: Order<T>) -> Self {
        let budget_bytes = usize::try_from(task.world().task_memory_bytes()).unwrap_or(usize::MAX);
        Self {
            task: task.clone(),
            order,
            budget_bytes,
            records: Vec::new(),
            outside_bytes: 0,
            sampled_bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Adds a record.
    pub(crate) fn push(&mut self, record: T) {
        if self.records.len().is_multiple_of(SAMPLE) {
            self.sampled_bytes = encoded_len(&record);
        }
        self.outside_bytes += self.sampled_bytes;
        self.records.push(record);
        if self.records.capacity() * size_of::<T>() + self.outside_bytes > self.budget_bytes {
            self.spill();
        }
    }

    fn sort(&mut self) {
        let order = &self.order;
        self.records.sort_by(|one, other| order(one, other));
    }

    fn spill(&mut self) {
        self.sort();
        let mut writer = PieceWriter::new(&self.task, 1, RUN_BUFFER_BYTES);
        for record in self.records.drain(..) {
            writer.write(0, &record);
        }
        self.records.shrink_to_fit();
        self.outside_bytes = 0;
        self.runs.push(writer.into_spool().take(0));
    }

    /// All records, in order.
    pub(crate) fn finish(mut self) -> Records<T> {
        if self.runs.is_empty() {
            self.sort();
            return Records::new(self.records.into_iter());
        }
        if !self.records.is_empty() {
            self.spill();
        }
        let mut runs = self.runs;
        let heads = runs.iter_mut().enumerate().filter_map(|(run, records)| {
            let record = records.next()?;
            Some(Head { record, run, order: Arc::clone(&self.order) })
        });
        let heads: BinaryHeap<Head<T>> = heads.collect();
        Records::new(Merge { heads, runs })
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
