//! The memory of a worker, which all that its tasks gather and all partitions that it keeps are borrowed from.
//!
//! A task's operators borrow as they grow, through a [`Reservation`] each; what cannot be had is spilled to the worker's
//! disk. Of N running tasks each may hold a part in N, and is sure of half of a slot's part whatever the others hold: so no
//! task waits for another. Partitions that are kept take what nobody needs, and are dropped when a task does: the least
//! recently used first, never one that is being read.
//!
//! What is borrowed is counted, not allocated: it decides when to spill, and never what comes out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use situ_wire::ids::{DatasetId, PartitionId};

use crate::dataset::{Dropped, Kept};

/// A slot's part in so many is asked for at once, so that not every record asks.
const STEPS: u64 = 64;
/// The longest such step.
const STEP_MAX_BYTES: u64 = 1 << 20;
/// So much a slot has, however little was configured: what one record takes.
const SLOT_MIN_BYTES: u64 = 1 << 20;
/// A slot's part in so many is what an operator may always hold.
const MINIMUM: u64 = 16;
/// Of all memory one part in so many is for what tasks leave to the next ones.
const SPARE_PART: u64 = 8;

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryLimits {
    /// All together.
    pub(crate) total_bytes: u64,
    /// For what tasks gather.
    pub(crate) execution_bytes: u64,
    /// For partitions that are kept.
    pub(crate) kept_bytes: u64,
    /// How many tasks run at once.
    pub(crate) slots: u32,
}

impl MemoryLimits {
    /// Of a worker's memory half is lent. The rest is for what is not counted: the program's own, the records between two
    /// operators, the space that an allocator does not give back. Tasks may take all of it, partitions that are kept the
    /// half that no task is sure of.
    pub(crate) fn of_worker(memory_bytes: u64, slots: u32) -> Self {
        let total_bytes = memory_bytes / 2;
        Self { total_bytes, execution_bytes: total_bytes, kept_bytes: total_bytes / 2, slots: slots.max(1) }
    }

    /// Half of each.
    pub(crate) fn halved(self) -> Self {
        let Self { total_bytes, execution_bytes, kept_bytes, slots } = self;
        Self { total_bytes: total_bytes / 2, execution_bytes: execution_bytes / 2, kept_bytes: kept_bytes / 2, slots }
    }

    /// What a slot is meant to have.
    pub(crate) fn slot_bytes(&self) -> u64 {
        self.execution_bytes / u64::from(self.slots)
    }

    /// What an operator may hold whatever others of its task hold: with less it would spill at every record.
    pub(crate) fn operator_bytes(&self) -> usize {
        usize::try_from(self.slot_bytes() / MINIMUM).unwrap_or(usize::MAX)
    }
}

/// Lends memory. Shared by the tasks of a worker; the lock is held for a few steps.
pub(crate) struct MemoryManager {
    limits: MemoryLimits,
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    tasks: BTreeMap<u64, Borrower>,
    next_task: u64,
    kept: Kept,
    /// What tasks have left to the next ones.
    spare_bytes: u64,
    /// Partitions that are not kept any more, and of which nobody has been told yet.
    dropped: Vec<(DatasetId, PartitionId)>,
    peak_bytes: u64,
}

/// A running task.
#[derive(Clone, Copy)]
struct Borrower {
    held_bytes: u64,
    /// How many slots it takes: so many parts it may have.
    slots: u32,
}

impl MemoryManager {
    pub(crate) fn new(limits: MemoryLimits) -> Arc<Self> {
        Arc::new(Self { limits, pool: Mutex::default() })
    }

    pub(crate) fn limits(&self) -> &MemoryLimits {
        &self.limits
    }

    /// The most that was ever held at once.
    #[cfg(test)]
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.pool().peak_bytes
    }

    /// How much the partitions that are kept take.
    #[cfg(test)]
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.pool().kept.used_bytes()
    }

    /// The records of a partition, if they are kept. They stay as long as they are held.
    pub(crate) fn get<T: Send + Sync + 'static>(&self, dataset: DatasetId, partition: u32) -> Option<Arc<Vec<T>>> {
        self.pool().kept.get(dataset, partition)?.downcast().ok()
    }

    /// Begins to keep a partition.
    pub(crate) fn keep(self: &Arc<Self>, dataset: DatasetId, partition: u32) -> Keeping {
        Keeping { manager: Arc::clone(self), dataset, partition, held_bytes: 0 }
    }

    /// Keeps no partition of a dataset any more.
    pub(crate) fn remove(&self, dataset: DatasetId) {
        let mut pool = self.pool();
        let removed = pool.kept.remove(dataset);
        pool.dropped.extend(removed.iter().map(|(id, _)| *id));
        drop(pool);
        drop(removed);
    }

    /// Partitions that were dropped since this was asked last.
    pub(crate) fn take_dropped(&self) -> Vec<(DatasetId, PartitionId)> {
        std::mem::take(&mut self.pool().dropped)
    }

    /// Dropped partitions of which nobody was told after all.
    pub(crate) fn put_back(&self, dropped: Vec<(DatasetId, PartitionId)>) {
        let mut pool = self.pool();
        let untold: Vec<_> = dropped.into_iter().filter(|id| !pool.kept.contains(*id)).collect();
        pool.dropped.extend(untold);
    }

    /// Of these partitions those that are kept.
    pub(crate) fn still_kept(&self, mut partitions: Vec<(DatasetId, PartitionId)>) -> Vec<(DatasetId, PartitionId)> {
        let pool = self.pool();
        partitions.retain(|id| pool.kept.contains(*id));
        partitions
    }

    /// Memory that outlives a task, for the next one on its thread; none where there is little.
    pub(crate) fn lend_spare(self: &Arc<Self>, len_bytes: u64) -> Option<SpareMemory> {
        let (mut pool, total_bytes) = (self.pool(), self.limits.total_bytes);
        let fits =
            pool.spare_bytes + len_bytes <= total_bytes / SPARE_PART && pool.used_bytes() + len_bytes <= total_bytes;
        pool.spare_bytes += if fits { len_bytes } else { 0 };
        fits.then(|| SpareMemory { manager: Arc::clone(self), len_bytes })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lends a task more, if it may have it.
    pub(crate) fn lend(&self, task: u64, more_bytes: u64) -> bool {
        let (mut pool, limits) = (self.pool(), &self.limits);
        let Some(Borrower { held_bytes, slots }) = pool.tasks.get(&task).copied() else { return false };
        let taken: u64 = pool.tasks.values().map(|task| u64::from(task.slots)).sum();
        let (own, sure_of_each) = (u64::from(slots), limits.slot_bytes() / 2);
        let (wanted, sure) = (held_bytes + more_bytes, own * sure_of_each);
        if wanted > sure {
            let others = pool.tasks.iter().filter(|(other, _)| **other != task).map(|(_, other)| other);
            let claimed: u64 = others.map(|other| other.held_bytes.max(u64::from(other.slots) * sure_of_each)).sum();
            let idle = u64::from(limits.slots).saturating_sub(taken) * sure_of_each;
            if wanted > limits.execution_bytes / taken * own || wanted + claimed + idle > limits.execution_bytes {
                return false;
            }
        }
        let dropped = pool.make_room(more_bytes, limits.total_bytes);
        let lent = pool.used_bytes() + more_bytes <= limits.total_bytes || wanted <= sure;
        if lent {
            pool.add(task, more_bytes);
        }
        drop(pool);
        // Their records are freed outside the lock.
        drop(dropped);
        lent
    }

    /// Lends a task what it must have.
    pub(crate) fn lend_anyway(&self, task: u64, more_bytes: u64) {
        let mut pool = self.pool();
        let dropped = pool.make_room(more_bytes, self.limits.total_bytes);
        pool.add(task, more_bytes);
        drop(pool);
        drop(dropped);
    }

    pub(crate) fn give_back(&self, task: u64, bytes: u64) {
        if let Some(Borrower { held_bytes, .. }) = self.pool().tasks.get_mut(&task) {
            debug_assert!(*held_bytes >= bytes, "nobody gives back more than was lent");
            *held_bytes = held_bytes.saturating_sub(bytes);
        }
    }
}

impl Pool {
    fn execution_bytes(&self) -> u64 {
        self.tasks.values().map(|task| task.held_bytes).sum()
    }

    /// All that is in use.
    fn used_bytes(&self) -> u64 {
        self.execution_bytes() + self.spare_bytes + self.kept.used_bytes()
    }

    /// Drops kept partitions until a task can have `more_bytes`, or none is left that nobody reads.
    fn make_room(&mut self, more_bytes: u64, total_bytes: u64) -> Dropped {
        let others = self.execution_bytes() + self.spare_bytes + more_bytes;
        let dropped = self.kept.make_room(total_bytes.saturating_sub(others));
        self.dropped.extend(dropped.iter().map(|(id, _)| *id));
        dropped
    }

    fn add(&mut self, task: u64, more_bytes: u64) {
        // One that has ended holds nothing.
        if let Some(task) = self.tasks.get_mut(&task) {
            task.held_bytes += more_bytes;
        }
        self.note_peak();
    }

    fn note_peak(&mut self) {
        self.peak_bytes = self.peak_bytes.max(self.used_bytes());
    }
}

/// Memory that a task has left to the next one on its thread.
pub(crate) struct SpareMemory {
    manager: Arc<MemoryManager>,
    len_bytes: u64,
}

impl Drop for SpareMemory {
    fn drop(&mut self) {
        self.manager.pool().spare_bytes -= self.len_bytes;
    }
}

/// A partition that is to be kept, while its records come.
pub(crate) struct Keeping {
    manager: Arc<MemoryManager>,
    dataset: DatasetId,
    partition: u32,
    held_bytes: u64,
}

impl Keeping {
    /// Holds `len_bytes`, if there is room; partitions of other datasets that were not used for longer go.
    pub(crate) fn grow_to(&mut self, len_bytes: u64) -> bool {
        if len_bytes <= self.held_bytes {
            return true;
        }
        let step = self.manager.limits.kept_bytes / STEPS;
        let wanted = (len_bytes + step.min(STEP_MAX_BYTES)).saturating_sub(self.held_bytes);
        let (mut pool, limits) = (self.manager.pool(), &self.manager.limits);
        let room = limits.kept_bytes.min(limits.total_bytes.saturating_sub(pool.execution_bytes() + pool.spare_bytes));
        let (grown, dropped) = pool.kept.grow(self.dataset, wanted, room);
        pool.dropped.extend(dropped.iter().map(|(id, _)| *id));
        if grown {
            self.held_bytes += wanted;
            pool.note_peak();
        }
        drop(pool);
        drop(dropped);
        grown
    }

    /// Keeps the records, which take `len_bytes` now that all are there; so much is held.
    pub(crate) fn finish<T: Send + Sync + 'static>(mut self, records: Arc<Vec<T>>, len_bytes: u64) {
        let held_bytes = std::mem::take(&mut self.held_bytes);
        debug_assert!(len_bytes <= held_bytes, "it was asked for");
        let mut pool = self.manager.pool();
        pool.kept.shrink(held_bytes - len_bytes);
        let id = (self.dataset, PartitionId(self.partition));
        pool.dropped.retain(|dropped| *dropped != id);
        let before = pool.kept.insert(self.dataset, self.partition, records, len_bytes);
        drop(pool);
        // Its records are freed outside the lock.
        drop(before);
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        if self.held_bytes > 0 {
            self.manager.pool().kept.shrink(self.held_bytes);
        }
    }
}

/// What a task holds. A task runs on one thread.
pub(crate) struct TaskMemory {
    manager: Arc<MemoryManager>,
    task: u64,
    slots: u32,
    operators: RefCell<Vec<Weak<Operator>>>,
}

impl TaskMemory {
    /// A task begins that takes so many slots.
    pub(crate) fn begin(manager: &Arc<MemoryManager>, slots: u32) -> Rc<Self> {
        let mut pool = manager.pool();
        let task = pool.next_task;
        pool.next_task += 1;
        let slots = slots.clamp(1, manager.limits.slots);
        pool.tasks.insert(task, Borrower { held_bytes: 0, slots });
        drop(pool);
        Rc::new(Self { manager: Arc::clone(manager), task, slots, operators: RefCell::default() })
    }

    /// Under which number it borrows.
    pub(crate) fn borrower(&self) -> u64 {
        self.task
    }

    /// What it is meant to have.
    pub(crate) fn share_bytes(&self) -> u64 {
        self.manager.limits.slot_bytes() * u64::from(self.slots)
    }

    pub(crate) fn manager(&self) -> &Arc<MemoryManager> {
        &self.manager
    }

    /// An operator's part, which is nothing yet.
    pub(crate) fn reserve(self: &Rc<Self>) -> Reservation {
        let operator = Rc::new(Operator::default());
        let mut operators = self.operators.borrow_mut();
        operators.retain(|operator| operator.strong_count() > 0);
        operators.push(Rc::downgrade(&operator));
        Reservation { task: Rc::clone(self), operator }
    }
}

impl Drop for TaskMemory {
    fn drop(&mut self) {
        self.manager.pool().tasks.remove(&self.task);
    }
}

/// One operator of a task.
#[derive(Default)]
struct Operator {
    held_bytes: Cell<usize>,
    /// Whether it looks now and then if it is asked to give back what it holds.
    listens: Cell<bool>,
    asked: Cell<bool>,
}

/// What one operator of a task holds; given back when it is dropped.
pub(crate) struct Reservation {
    task: Rc<TaskMemory>,
    operator: Rc<Operator>,
}

impl Reservation {
    /// How much it holds.
    #[inline]
    pub(crate) fn held_bytes(&self) -> usize {
        self.operator.held_bytes.get()
    }

    /// Holds at least `len_bytes`, if there is so much. Where there is not, operators of the same task that only wait to
    /// hand their records on are asked to move them to the disk; the caller spills what it has.
    #[inline]
    pub(crate) fn grow_to(&self, len_bytes: usize) -> bool {
        len_bytes <= self.held_bytes() || self.grow(len_bytes)
    }

    #[inline(never)]
    fn grow(&self, len_bytes: usize) -> bool {
        let (manager, held) = (&self.task.manager, self.held_bytes());
        let slot = manager.limits.slot_bytes();
        let step = usize::try_from((slot / STEPS).min(STEP_MAX_BYTES)).unwrap_or(0);
        let more = (len_bytes + step - held) as u64;
        let minimum = len_bytes <= manager.limits.operator_bytes();
        let lent = manager.lend(self.task.task, more);
        if !lent {
            self.ask_others();
            if !minimum {
                return false;
            }
            manager.lend_anyway(self.task.task, more);
        }
        self.operator.held_bytes.set(len_bytes + step);
        true
    }

    fn ask_others(&self) {
        for operator in self.task.operators.borrow().iter().filter_map(Weak::upgrade) {
            if operator.listens.get() && !Rc::ptr_eq(&operator, &self.operator) {
                operator.asked.set(true);
            }
        }
    }

    /// Holds `len_bytes`, whether there is so much or not: for what cannot be done with less, and is small.
    pub(crate) fn take(&self, len_bytes: usize) {
        if !self.grow_to(len_bytes) {
            self.task.manager.lend_anyway(self.task.task, (len_bytes - self.held_bytes()) as u64);
            self.operator.held_bytes.set(len_bytes);
        }
    }

    /// Holds `len_bytes` for what cannot be spilled, if a slot has so much at all, whatever others hold of it now.
    pub(crate) fn insist(&self, len_bytes: usize) -> bool {
        let granted = len_bytes as u64 <= self.task.share_bytes().max(SLOT_MIN_BYTES);
        if granted {
            self.take(len_bytes);
        }
        granted
    }

    /// Gives back what is over `len_bytes`.
    pub(crate) fn shrink_to(&self, len_bytes: usize) {
        let held = self.held_bytes();
        if held > len_bytes {
            self.task.manager.give_back(self.task.task, (held - len_bytes) as u64);
            self.operator.held_bytes.set(len_bytes);
        }
    }

    /// From now on [`Self::is_asked`] is looked at.
    pub(crate) fn listen(&self) {
        self.operator.asked.set(false);
        self.operator.listens.set(true);
    }

    /// Whether another operator of the task needs what it holds.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.operator.asked.get()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::ScopeId;

    use super::*;

    fn manager(slots: u32) -> Arc<MemoryManager> {
        MemoryManager::new(MemoryLimits { total_bytes: 6400, execution_bytes: 6400, kept_bytes: 3200, slots })
    }

    #[test]
    fn a_task_is_sure_of_half_a_slot_whatever_the_other_holds() {
        let manager = manager(2);
        let first = TaskMemory::begin(&manager, 1);
        let large = first.reserve();
        assert!(large.grow_to(4700), "alone it may have all but what the other slot is sure of");
        assert!(!large.grow_to(4900));
        let second = TaskMemory::begin(&manager, 1);
        let small = second.reserve();
        assert!(small.grow_to(1500));
        assert!(!small.grow_to(3000), "the first has it");
        assert!(!large.grow_to(4800), "it has more than its half");
        drop(large);
        assert!(small.grow_to(3000));
        assert!(!small.grow_to(3300), "of two tasks each has half");
        drop(first);
        assert!(small.grow_to(4700));
        assert!(manager.peak_bytes() <= 6400);
    }

    #[test]
    fn a_task_of_several_slots_has_the_part_of_all_of_them() {
        let manager = manager(4);
        let large = TaskMemory::begin(&manager, 3);
        let small = TaskMemory::begin(&manager, 1);
        let (most, rest) = (large.reserve(), small.reserve());
        assert_eq!((large.share_bytes(), small.share_bytes()), (4800, 1600));
        assert!(most.grow_to(4700) && !most.grow_to(4800 + 100));
        assert!(rest.grow_to(1500) && !rest.grow_to(1700), "each has its part");
        assert!(most.insist(4800) && !rest.insist(2 << 20));
    }

    #[test]
    fn what_a_task_must_have_pushes_kept_partitions_out() {
        let manager = manager(1);
        for partition in 0..3 {
            let mut keeping = manager.keep(DatasetId(ScopeId::ROOT, 1), partition);
            assert!(keeping.grow_to(1000));
            keeping.finish(Arc::new(vec![partition]), 1000);
        }
        let task = TaskMemory::begin(&manager, 1);
        let reservation = task.reserve();
        reservation.take(6500);
        assert_eq!(manager.kept_bytes(), 0);
        assert_eq!(manager.take_dropped().len(), 3);
        assert!(manager.peak_bytes() <= 6600, "{}", manager.peak_bytes());
    }

    #[test]
    fn what_tasks_leave_to_the_next_ones_is_little_and_counts() {
        let manager = manager(1);
        let spare = manager.lend_spare(800);
        assert!(spare.is_some() && manager.lend_spare(100).is_none(), "an eighth of 6400 is for that");
        let task = TaskMemory::begin(&manager, 1);
        let reservation = task.reserve();
        assert!(!reservation.grow_to(6000));
        drop(spare);
        assert!(reservation.grow_to(6000));
        assert!(manager.lend_spare(800).is_none(), "it is in use");
    }

    #[test]
    fn operators_of_one_task_share_its_part() {
        let manager = manager(1);
        let task = TaskMemory::begin(&manager, 1);
        let (emitting, gathering) = (task.reserve(), task.reserve());
        assert!(emitting.grow_to(6000));
        assert!(!gathering.grow_to(2000) && !emitting.is_asked(), "it does not listen");
        emitting.listen();
        assert!(gathering.grow_to(400), "a little it always gets");
        assert!(!gathering.grow_to(2000) && emitting.is_asked());
        drop(emitting);
        assert!(gathering.grow_to(6000));
    }

    #[test]
    fn kept_partitions_go_when_a_task_needs_their_room_but_not_while_they_are_read() {
        let manager = manager(1);
        let keep = |partition: u32| {
            let mut keeping = manager.keep(DatasetId(ScopeId::ROOT, 1), partition);
            let grown = keeping.grow_to(1000);
            if grown {
                keeping.finish(Arc::new(vec![partition]), 1000);
            }
            grown
        };
        assert!(keep(0) && keep(1) && keep(2));
        assert!(!keep(3), "a dataset does not push itself out");
        let read = manager.get::<u32>(DatasetId(ScopeId::ROOT, 1), 0).unwrap();
        let task = TaskMemory::begin(&manager, 1);
        let reservation = task.reserve();
        assert!(reservation.grow_to(4000));
        assert!(manager.get::<u32>(DatasetId(ScopeId::ROOT, 1), 1).is_none(), "it was used before the others");
        assert!(reservation.grow_to(5200));
        assert!(!reservation.grow_to(6200), "one is being read");
        assert_eq!(
            manager.take_dropped(),
            [(DatasetId(ScopeId::ROOT, 1), PartitionId(1)), (DatasetId(ScopeId::ROOT, 1), PartitionId(2))]
        );
        drop(read);
        assert!(reservation.grow_to(6200));
        assert_eq!(manager.take_dropped(), [(DatasetId(ScopeId::ROOT, 1), PartitionId(0))]);
        drop(reservation);
        assert!(keep(0));
        let mut other = manager.keep(DatasetId(ScopeId::ROOT, 2), 0);
        assert!(other.grow_to(3000), "another dataset's was used before");
        drop(other);
        manager.remove(DatasetId(ScopeId::ROOT, 1));
        assert!(keep(0) && keep(1) && keep(2), "what was not finished is given back");
    }
}
