use std::collections::BTreeSet;

use situ_wire::ids::{ExecutorId, JobId};
use situ_wire::messages::scheduler::{Locality, Resources};
use situ_wire::time::TimeMs;

use super::executor::Executor;
use super::executors::Executors;
use super::pending::{Near, Pending};
use super::stage::{Stage, Task, index};

/// Which executors a job may use: those on which its tasks failed again and again only if there are no others.
#[derive(Debug)]
pub(super) struct Usable {
    job: JobId,
    /// In order; none if there are no others.
    excluded: Vec<ExecutorId>,
    len: usize,
}

impl Usable {
    /// Of so many live executors all but those `excluded`, which are in order.
    pub(super) fn new(job: JobId, live: usize, excluded: Vec<ExecutorId>) -> Self {
        if excluded.len() >= live {
            return Self { job, excluded: Vec::new(), len: live };
        }
        Self { job, len: live - excluded.len(), excluded }
    }

    pub(super) fn contains(&self, executor: ExecutorId) -> bool {
        self.excluded.binary_search(&executor).is_err()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// A task and where it should run.
pub(super) type Found = (Locality, ExecutorId, u32);
/// An executor with free slots, with its load.
type Offer = (u64, ExecutorId);

/// What a search looks at.
struct Search<'a> {
    pending: &'a Pending,
    near: &'a Near,
    tasks: &'a [Task],
    executors: &'a Executors,
    usable: &'a Usable,
    /// What a task takes more than a slot for.
    large: Option<&'a Resources>,
    /// If workers without tasks may make way: since when they must have had their memory.
    before: Option<TimeMs>,
}

impl Stage {
    /// The best task for a free slot that is no further from its input than `allowed`: near to it if there is one, else one
    /// that has nowhere to be near to, else whatever is allowed; of several slots that of the least busy executor. Workers
    /// without tasks that have had their memory since `before` make way, if it is given.
    pub(super) fn find_place(
        &mut self,
        executors: &Executors,
        allowed: Locality,
        usable: &Usable,
        before: Option<TimeMs>,
    ) -> Option<Found> {
        self.pending.look(executors);
        let near = self.pending.near()?;
        let large = self.is_large().then_some(&self.plan.resources);
        let search = Search { pending: &self.pending, near, tasks: &self.tasks, executors, usable, large, before };
        let (mut old_process, mut old_node) = (Vec::new(), Vec::new());
        let process = search.in_memory(&mut old_process);
        let node = (allowed >= Locality::Node).then(|| search.on_node(&mut old_node)).flatten();
        let nearest = [process, node].into_iter().flatten().min_by_key(|(offer, level, _)| (*offer, *level));
        let found = match nearest {
            Some(((_, executor), level, partition)) => Some((level, executor, partition)),
            None => search.further_away(allowed),
        };
        self.pending.forget(&old_process, &old_node);
        found
    }
}

impl Search<'_> {
    /// The least busy executor that has a task's input in memory.
    fn in_memory(&self, old: &mut Vec<Offer>) -> Option<(Offer, Locality, u32)> {
        for offer in &self.near.offers.process {
            let list = self.near.by_executor.get(&offer.1).filter(|_| self.is_free(*offer).is_some());
            let Some(list) = list else {
                old.push(*offer);
                continue;
            };
            if let Some(partition) = self.first(offer.1, list.iter().copied()) {
                return Some((*offer, Locality::Process, partition));
            }
        }
        None
    }

    /// The least busy executor on a node of a task's input.
    fn on_node(&self, old: &mut Vec<Offer>) -> Option<(Offer, Locality, u32)> {
        for offer in &self.near.offers.node {
            let node = self.is_free(*offer).and_then(|there| self.pending.homes.find_node(there.home.node));
            let Some(node) = node.filter(|node| self.near.by_node.waiting(*node) > 0) else {
                old.push(*offer);
                continue;
            };
            if let Some(partition) = self.first(offer.1, self.near.by_node.iter(node, self.pending.all())) {
                return Some((*offer, Locality::Node, partition));
            }
        }
        None
    }

    /// No slot is near to a task's input: the first task goes where it is least far away. One that has no place at all
    /// should not take a slot that another one wants, but it loses nothing anywhere.
    fn further_away(&self, allowed: Locality) -> Option<Found> {
        let from = if allowed >= Locality::Any { self.pending.all() } else { &self.near.homeless };
        let placed = |partition: &u32| !self.pending.homes.of(*partition).is_empty();
        let first = from.iter().next().filter(placed);
        let prefers = first.is_some() || from.len() == 0;
        if prefers
            && allowed >= Locality::Rack
            && let Some((executor, partition)) = self.in_rack()
        {
            return Some((Locality::Rack, executor, partition));
        }
        let beside = first.and_then(|partition| {
            let racks = self.pending.homes.racks_of(partition);
            let offers = racks.filter_map(|rack| self.first_in(rack, |_| Some(partition)));
            offers.min().map(|((_, executor), partition)| (executor, partition))
        });
        let (executor, partition) = beside.or_else(|| self.anywhere(|| from.iter()))?;
        let home = self.executors.get(executor).map(|executor| executor.home).unwrap_or_default();
        Some((self.pending.homes.locality(home, partition), executor, partition))
    }

    /// The least busy executor in the rack of a task's input.
    fn in_rack(&self) -> Option<(ExecutorId, u32)> {
        let racks = (0..).take(self.pending.homes.racks().len()).filter(|rack| self.near.by_rack.waiting(*rack) > 0);
        let first = |rack| {
            self.first_in(rack, |executor| self.first(executor, self.near.by_rack.iter(rack, self.pending.all())))
        };
        racks.filter_map(first).min().map(|((_, executor), partition)| (executor, partition))
    }

    /// The least busy executor of a rack for which there is a task.
    fn first_in(&self, rack: u32, task: impl Fn(ExecutorId) -> Option<u32>) -> Option<(Offer, u32)> {
        let rack = self.pending.homes.racks()[index(rack)];
        let usable = self.executors.free_in(rack).filter(|(_, executor)| self.takes(*executor));
        usable
            .filter_map(|offer| Some((offer, task(offer.1).filter(|partition| self.fits(offer.1, *partition))?)))
            .next()
    }

    /// The least busy executor for which one of `partitions` is.
    fn anywhere<I: Iterator<Item = u32>>(&self, partitions: impl Fn() -> I) -> Option<(ExecutorId, u32)> {
        partitions().next()?;
        self.executors.free().find_map(|(_, executor)| Some((executor, self.first(executor, partitions())?)))
    }

    /// An executor that has free slots, if its load is still that.
    fn is_free(&self, (load, executor): Offer) -> Option<&Executor> {
        self.executors.get(executor).filter(|executor| executor.free() > 0 && executor.load() == load)
    }

    /// The first task that may run on an executor.
    fn first(&self, executor: ExecutorId, mut partitions: impl Iterator<Item = u32>) -> Option<u32> {
        if !self.takes(executor) {
            return None;
        }
        partitions.find(|partition| self.fits(executor, *partition))
    }

    /// Whether an executor with free slots may take a task of the stage, and has room for it and memory for its worker.
    fn takes(&self, executor: ExecutorId) -> bool {
        let takes = |there: &Executor| {
            there.takes(self.usable.job) || self.before.is_some_and(|before| there.makes_way(self.usable.job, before))
        };
        let has_room = |there: &Executor| self.large.is_none_or(|large| there.has_room(large));
        self.usable.contains(executor) && self.executors.get(executor).is_some_and(|it| takes(it) && has_room(it))
    }

    fn fits(&self, executor: ExecutorId, partition: u32) -> bool {
        fits(self.tasks, self.executors, self.usable, executor, partition)
    }
}

impl Stage {
    /// Whether a task may run on an executor, whatever there is free of it.
    pub(super) fn fits(&self, executors: &Executors, usable: &Usable, executor: ExecutorId, partition: u32) -> bool {
        fits(&self.tasks, executors, usable, executor, partition)
    }
}

/// A task avoids executors on which it failed while one that may be used is left on which it did not.
fn fits(tasks: &[Task], executors: &Executors, usable: &Usable, executor: ExecutorId, partition: u32) -> bool {
    let failed_on = &tasks[index(partition)].failed_on;
    if !failed_on.contains(&executor) {
        return true;
    }
    let usable_too = |other: &&ExecutorId| executors.is_live(**other) && usable.contains(**other);
    failed_on.iter().filter(usable_too).collect::<BTreeSet<_>>().len() >= usable.len()
}
