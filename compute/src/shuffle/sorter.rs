//! Sorting records, in runs that spill.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::resident::{Whole, resident};
use super::size::outside_len;
use super::write::{PieceWriter, SPOOL_READ_LEN_BYTES, SpoolRecords};
use crate::dataset::Records;
use crate::program::memory::Reservation;
use crate::program::task::TaskContext;

/// How many runs are merged at once, at most.
const MERGED_RUNS: usize = 32;
/// A slot's part in so many is for runs that are merged, whatever others hold.
const MERGING_PART: usize = 4;

/// An order of records.
pub(crate) type Order<T> = Arc<dyn Fn(&T, &T) -> Ordering + Send + Sync>;

/// Sorts all records of a partition; equal ones stay in the order in which they came.
pub(crate) struct Sorter<T> {
    task: TaskContext,
    order: Order<T>,
    memory: Reservation,
    records: Vec<T>,
    outside_bytes: usize,
    /// What the longest of these records holds beside itself.
    longest_bytes: usize,
    /// Sorted, each of records that came before those of the next.
    runs: Vec<Run<T>>,
}

/// Sorted records.
struct Run<T> {
    /// How often they were merged.
    level: u32,
    records: SpoolRecords<T>,
    /// What the longest of them holds beside itself.
    longest_bytes: usize,
}

impl<T> Run<T> {
    /// What it takes while it is merged: what is read at once, a frame as it comes and unpacked, and the records that are
    /// compared and passed on.
    fn merged_bytes(&self) -> usize {
        SPOOL_READ_LEN_BYTES + 2 * (self.records.longest_frame_bytes() + self.longest_bytes)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Sorter<T> {
    pub(crate) fn new(task: &TaskContext, order: Order<T>) -> Self {
        let (memory, records, runs) = (task.reserve(), Vec::new(), Vec::new());
        Self { task: task.clone(), order, memory, records, outside_bytes: 0, longest_bytes: 0, runs }
    }

    /// Adds a record.
    #[inline]
    pub(crate) fn push(&mut self, record: T) {
        let outside_bytes = outside_len(&record);
        self.outside_bytes += outside_bytes;
        self.longest_bytes = self.longest_bytes.max(outside_bytes);
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
        let records = spool(&self.task, records.into_iter());
        self.runs.push(Run { level: 0, records, longest_bytes: std::mem::take(&mut self.longest_bytes) });
        self.outside_bytes = 0;
        self.memory.shrink_to(0);
        while let Some(level) = self.runs.last().map(|run| run.level)
            && let Some(first) = self.runs.len().checked_sub(MERGED_RUNS)
            && self.runs[first].level == level
        {
            let mut runs = self.runs.split_off(first);
            self.make_few(&mut runs);
            let merged = self.merge_to_run(runs, level + 1);
            self.runs.push(merged);
        }
    }

    /// Merges runs until the rest can be merged at once: those next to each other, so that equal records stay in order.
    fn make_few(&self, runs: &mut Vec<Run<T>>) {
        while self.fitting(runs) < runs.len() {
            let mut rest = std::mem::take(runs);
            while !rest.is_empty() {
                let later = rest.split_off(self.fitting(&rest));
                let first = std::mem::replace(&mut rest, later);
                if first.len() < 2 {
                    runs.extend(first);
                    continue;
                }
                let level = first.iter().map(|run| run.level).max().unwrap_or(0);
                runs.push(self.merge_to_run(first, level + 1));
            }
        }
    }

    /// How many of these runs, from the first on, can be merged at once; for so many there is memory then.
    fn fitting(&self, runs: &[Run<T>]) -> usize {
        let needed = |count: usize| runs[..count].iter().map(Run::merged_bytes).sum::<usize>();
        let slot_bytes = usize::try_from(self.task.memory_slot_bytes()).unwrap_or(usize::MAX);
        let mut count = runs.len().min(MERGED_RUNS);
        while count > 2 && needed(count) > slot_bytes / MERGING_PART && !self.memory.grow_to(needed(count)) {
            count = count.div_ceil(2);
        }
        self.memory.take(needed(count));
        count
    }

    fn merge_to_run(&self, runs: Vec<Run<T>>, level: u32) -> Run<T> {
        let longest_bytes = runs.iter().map(|run| run.longest_bytes).max().unwrap_or(0);
        let records = spool(&self.task, merge(&self.order, runs));
        self.memory.shrink_to(0);
        Run { level, records, longest_bytes }
    }

    /// All records, in order.
    pub(crate) fn finish(mut self) -> Records<T> {
        if self.runs.is_empty() {
            self.sort();
            return Records::new(resident(self.task, self.records.into_iter(), self.memory, Whole));
        }
        if !self.records.is_empty() {
            self.spill();
        }
        let mut runs = std::mem::take(&mut self.runs);
        self.make_few(&mut runs);
        let merged = merge(&self.order, runs);
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

fn merge<T: DeserializeOwned>(order: &Order<T>, runs: Vec<Run<T>>) -> Merge<T> {
    let mut runs: Vec<SpoolRecords<T>> = runs.into_iter().map(|run| run.records).collect();
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

#[cfg(test)]
mod tests {
    use situ_wire::messages::scheduler::TaskOutcome;

    use super::*;
    use crate::shuffle::hash_key;
    use crate::shuffle::write::tests::in_task;

    #[test]
    fn so_many_runs_are_merged_at_once_as_there_is_memory_for_what_they_hold() {
        let record = |n: u64| -> Vec<u64> { (0..100_000).map(|place| hash_key(&(n, place))).collect() };
        let (outcome, manager) = in_task(8 << 20, |task| {
            let mut sorter = Sorter::new(task, Arc::new(|one: &Vec<u64>, other: &Vec<u64>| one[0].cmp(&other[0])));
            for n in 0..12 {
                sorter.push(record(n));
                sorter.spill();
            }
            let mut runs = std::mem::take(&mut sorter.runs);
            assert_eq!(runs.len(), 12);
            sorter.make_few(&mut runs);
            assert_eq!(runs.len(), 2, "a record takes a tenth of the memory, and must be there several times");
            let mut merged = merge(&sorter.order, runs);
            let mut count = 0;
            while let Some(record) = merged.next() {
                let heads: usize = merged.heads.iter().map(|head| outside_len(&head.record)).sum();
                let buffers: usize = merged.runs.iter().map(SpoolRecords::capacity_bytes).sum();
                let taken = heads + buffers + outside_len(&record);
                assert!(taken <= sorter.memory.held_bytes(), "{taken} of {}", sorter.memory.held_bytes());
                count += 1;
            }
            assert_eq!(count, 12);
        });
        assert!(matches!(outcome, TaskOutcome::Done(_)), "{outcome:?}");
        assert!(manager.peak_bytes() <= 10 << 20, "{}", manager.peak_bytes());
    }
}
