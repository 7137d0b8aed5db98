use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::Duration;

use situ_wire::ids::{ExecutorId, JobId, NodeName};
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{ExecutorCommand, ExecutorRegistration, Resources};
use situ_wire::time::TimeMs;

use super::CallId;
use super::executor::{Executor, Noted};
use super::places::{Home, Node, Places, Rack};
use super::policy::SchedulingPolicy;

/// What an executor has: slots, and memory for a worker.
type Capacity = (u32, u64);

fn capacity(registration: &ExecutorRegistration) -> Capacity {
    (registration.slots, registration.worker_memory_bytes)
}

/// All executors that are known, dead ones for a while too.
///
/// Whoever gets one to change it makes it *unnoted*; [`Executors::note`] lists it anew. So an event costs what it changes,
/// however many executors there are.
#[derive(Debug, Default)]
pub(super) struct Executors {
    all: BTreeMap<ExecutorId, Executor>,
    /// Where those live that are not dead.
    places: Places,
    /// Those of each node, dead ones too.
    on: BTreeSet<(Node, ExecutorId)>,
    /// Those that may have changed since they were listed.
    unnoted: BTreeSet<ExecutorId>,
    /// Those with free slots, the least busy first.
    free: BTreeSet<(u64, ExecutorId)>,
    free_in: BTreeSet<(Rack, u64, ExecutorId)>,
    /// Those of them whose memory is taken, by when a worker without tasks makes way.
    make_way: BTreeSet<(TimeMs, ExecutorId)>,
    /// Those that a job leaves to another.
    left: BTreeSet<ExecutorId>,
    /// The same in the order in which they came to have them.
    freed: BTreeMap<u64, ExecutorId>,
    last_freed: u64,
    /// Those that get work, those with the fewest drivers first.
    live: BTreeSet<(usize, u64, ExecutorId)>,
    /// Those that get work, by how much they have and how many slots nobody has taken: there are few kinds of executors.
    rooms: BTreeMap<Capacity, BTreeSet<(u32, ExecutorId)>>,
    /// How many there are of each kind, dead ones too.
    capacities: BTreeMap<Capacity, usize>,
    /// When something must be done about which.
    due: BTreeSet<(TimeMs, ExecutorId)>,
    /// Those that wait for commands that are there.
    told: BTreeSet<ExecutorId>,
    suspects: BTreeSet<ExecutorId>,
    /// Rises whenever somebody's free slots or liveness change.
    version: u64,
    /// Nodes to which the first one came, or which the last one left, since that was last asked.
    moved: Vec<Home>,
}

impl Executors {
    pub(super) fn get(&self, id: ExecutorId) -> Option<&Executor> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ExecutorId) -> Option<&mut Executor> {
        let found = self.all.get_mut(&id)?;
        self.unnoted.insert(id);
        Some(found)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        self.all.iter().map(|(id, executor)| (*id, executor))
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn places_mut(&mut self) -> &mut Places {
        &mut self.places
    }

    /// Drops the names of nodes and racks that nobody uses, executors or `others`.
    pub(super) fn sweep_places(&mut self, others: impl Iterator<Item = Home>) {
        let own = self.all.values().map(|executor| executor.home);
        self.places.sweep(own.chain(others));
    }

    /// Those that get work now.
    pub(super) fn live(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        self.iter().filter(|(_, executor)| executor.liveness == Liveness::Live)
    }

    /// The same as listed, those with the fewest drivers first.
    pub(super) fn by_drivers(&self) -> impl Iterator<Item = (usize, ExecutorId)> {
        self.live.iter().map(|(drivers, _, id)| (*drivers, *id))
    }

    /// How many of them are listed.
    pub(super) fn live_len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn is_live(&self, id: ExecutorId) -> bool {
        self.get(id).is_some_and(|executor| executor.liveness == Liveness::Live)
    }

    /// Those with free slots as listed, the least busy first.
    pub(super) fn free(&self) -> impl Iterator<Item = (u64, ExecutorId)> {
        self.free.iter().copied()
    }

    /// Rises whenever somebody's free slots or liveness change.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether workers without tasks make way now.
    pub(super) fn some_make_way(&self, now: TimeMs) -> bool {
        self.make_way.first().is_some_and(|(at, _)| *at <= now)
    }

    /// When the next of them does, after `now`.
    pub(super) fn next_way(&self, now: TimeMs) -> Option<TimeMs> {
        let later = (Bound::Excluded((now, ExecutorId(u128::MAX))), Bound::Unbounded);
        self.make_way.range(later).next().map(|(at, _)| *at)
    }

    /// Those that a job leaves to another.
    pub(super) fn left(&self) -> impl Iterator<Item = ExecutorId> {
        self.left.iter().copied()
    }

    /// Whether there is room for a task of a job that needs so much, and memory for its worker, where nothing else is kept;
    /// workers without tasks make way that have had theirs since `before`.
    pub(super) fn has_room_for(&self, resources: &Resources, job: JobId, before: TimeMs) -> bool {
        let takes = |id: &ExecutorId| {
            self.get(*id).is_some_and(|it| it.reserved.is_none() && (it.takes(job) || it.makes_way(job, before)))
        };
        let mut kinds = self.rooms.iter();
        kinds.any(|((slots, memory), there)| {
            let wanted = resources.slots_of(*slots, *memory);
            wanted.is_some_and(|wanted| there.range((wanted, ExecutorId(0))..).any(|(_, id)| takes(id)))
        })
    }

    /// Of those that can hold a task of a job that needs so much, and take it, the one that lacks the fewest slots for it.
    pub(super) fn roomiest(
        &self,
        resources: &Resources,
        job: JobId,
        usable: impl Fn(ExecutorId) -> bool,
    ) -> Option<ExecutorId> {
        let takes =
            |id: ExecutorId| self.get(id).is_some_and(|it| it.reserved.is_none() && it.takes(job)) && usable(id);
        let of_kind = |((slots, memory), there): (&Capacity, &BTreeSet<(u32, ExecutorId)>)| {
            let wanted = resources.slots_of(*slots, *memory)?;
            let (room, id) = there.iter().rev().find(|(_, id)| takes(*id))?;
            Some((wanted.saturating_sub(*room), *id))
        };
        self.rooms.iter().filter_map(of_kind).min().map(|(_, id)| id)
    }

    /// What the largest of all that are known has, if none of them can ever hold a task that needs so much.
    pub(super) fn largest_without(&self, resources: &Resources) -> Option<Capacity> {
        let holds = |(slots, memory): &Capacity| resources.slots_of(*slots, *memory).is_some();
        if self.capacities.keys().any(holds) { None } else { self.capacities.keys().next_back().copied() }
    }

    /// Those of a rack with free slots as listed, the least busy first.
    pub(super) fn free_in(&self, rack: Rack) -> impl Iterator<Item = (u64, ExecutorId)> {
        let all = (rack, 0, ExecutorId(0))..=(rack, u64::MAX, ExecutorId(u128::MAX));
        self.free_in.range(all).map(|(_, load, id)| (*load, *id))
    }

    /// Those that came to have the free slots that they have after the change of that number, in that order.
    pub(super) fn freed_after(&self, seen: u64) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        let later = self.freed.range((Bound::Excluded(seen), Bound::Unbounded));
        later.filter_map(|(_, id)| self.get(*id).map(|executor| (*id, executor)))
    }

    /// The number of the last such change.
    pub(super) fn last_freed(&self) -> u64 {
        self.last_freed
    }

    /// Those of a node, dead ones too.
    pub(super) fn on(&self, node: Node) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        let all = (node, ExecutorId(0))..=(node, ExecutorId(u128::MAX));
        self.on.range(all).filter_map(|(_, id)| self.get(*id).map(|executor| (*id, executor)))
    }

    /// Whether somebody whom an executor belongs to is not heard, or not well, with any of his.
    pub(super) fn is_suspected(&self, owner: &str) -> bool {
        self.suspects.iter().filter_map(|id| self.get(*id)).any(|suspect| suspect.owner == owner)
    }

    /// Whether it is there, as far as is known.
    pub(super) fn is_there(&self, id: ExecutorId) -> bool {
        self.get(id).is_some_and(|executor| executor.liveness != Liveness::Dead)
    }

    /// Its node; one that was forgotten has none.
    pub(super) fn node(&self, id: ExecutorId) -> NodeName {
        self.get(id).map(|executor| executor.registration.node.clone()).unwrap_or_default()
    }

    pub(super) fn insert(&mut self, registration: ExecutorRegistration, owner: String, now: TimeMs) {
        let (id, home) = (registration.id, self.places.home(&registration.node, &registration.rack));
        self.remove(id);
        *self.capacities.entry(capacity(&registration)).or_default() += 1;
        let mut executor = Executor::new(registration, owner, now);
        executor.home = home;
        self.all.insert(id, executor);
        self.on.insert((home.node, id));
        self.unnoted.insert(id);
        if self.places.settle(home) {
            self.moved.push(home);
        }
    }

    /// Those that a registration replaces: an earlier run of itself, or whoever listened at its address.
    pub(super) fn replaced_by(&self, registration: &ExecutorRegistration) -> Vec<ExecutorId> {
        let there = self.places.node(&registration.node).into_iter().flat_map(|node| self.on(node));
        let same = there.filter(|(_, other)| other.registration.address == registration.address).map(|(id, _)| id);
        let mut replaced: BTreeSet<ExecutorId> = same.collect();
        replaced.extend(self.get(registration.id).map(|earlier| earlier.registration.id));
        replaced.into_iter().collect()
    }

    /// Forgets the dead of a node: somebody new is there.
    pub(super) fn forget_dead_of(&mut self, node: &NodeName) {
        let there = self.places.node(node).into_iter().flat_map(|node| self.on(node));
        let ids: Vec<ExecutorId> = there.map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.forget(id));
    }

    /// Forgets one that is dead.
    pub(super) fn forget(&mut self, id: ExecutorId) {
        if !self.is_there(id) {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: ExecutorId) {
        let Some(executor) = self.all.remove(&id) else { return };
        self.on.remove(&(executor.home.node, id));
        let capacity = capacity(&executor.registration);
        if let Some(others) = self.capacities.get_mut(&capacity) {
            *others -= 1;
            if *others == 0 {
                self.capacities.remove(&capacity);
            }
        }
        self.unlist(id, capacity, executor.home, executor.freed, executor.noted);
        self.unnoted.remove(&id);
        if executor.liveness != Liveness::Dead && self.places.leave(executor.home) {
            self.moved.push(executor.home);
        }
    }

    /// It is dead. The poll of it that was kept.
    pub(super) fn bury(&mut self, id: ExecutorId) -> Option<CallId> {
        let executor = self.all.get_mut(&id)?;
        if executor.liveness != Liveness::Dead && self.places.leave(executor.home) {
            self.moved.push(executor.home);
        }
        self.unnoted.insert(id);
        executor.bury()
    }

    /// Nodes to which the first executor came, or which the last one left, since this was last asked.
    pub(super) fn take_moved(&mut self) -> Vec<Home> {
        std::mem::take(&mut self.moved)
    }

    /// Gives a command to an executor, if it is there.
    pub(super) fn command(&mut self, id: ExecutorId, command: ExecutorCommand) {
        if let Some(executor) = self.get_mut(id).filter(|executor| executor.liveness != Liveness::Dead) {
            executor.push(command);
        }
    }

    /// The scheduler itself stood still for `rest`: silence in it does not count.
    pub(super) fn excuse(&mut self, rest: Duration, now: TimeMs, policy: &SchedulingPolicy) {
        for (id, executor) in &mut self.all {
            executor.excuse(rest);
            if executor.judge(now, policy) == Liveness::Live {
                executor.liveness = Liveness::Live;
            }
            self.unnoted.insert(*id);
        }
    }

    /// Lists anew what has changed.
    pub(super) fn note(&mut self, policy: &SchedulingPolicy) {
        while let Some(id) = self.unnoted.pop_first() {
            let Some(executor) = self.all.get_mut(&id) else { continue };
            let (before, freed, home) = (executor.noted, executor.freed, executor.home);
            let capacity = capacity(&executor.registration);
            let noted = executor.note(policy);
            if noted == before {
                continue;
            }
            executor.noted = noted;
            let freed_now = match noted.free {
                _ if noted.free == before.free => freed,
                Some(_) => self.last_freed + 1,
                None => 0,
            };
            executor.freed = freed_now;
            self.last_freed = self.last_freed.max(freed_now);
            let changes = |noted: &Noted| (noted.free, noted.room, noted.makes_way, noted.live.is_some());
            self.version += u64::from(changes(&noted) != changes(&before));
            self.unlist(id, capacity, home, freed, before);
            if let Some(room) = noted.room {
                self.rooms.entry(capacity).or_default().insert((room, id));
            }
            if let Some(load) = noted.free {
                self.free.insert((load, id));
                self.free_in.insert((home.rack, load, id));
                self.freed.insert(freed_now, id);
            }
            self.make_way.extend(noted.makes_way.map(|at| (at, id)));
            self.left.extend(noted.left.then_some(id));
            self.live.extend(noted.live.map(|(drivers, load)| (drivers, load, id)));
            self.due.extend(noted.due.map(|due| (due, id)));
            self.told.extend(noted.told.then_some(id));
            self.suspects.extend(noted.suspect.then_some(id));
        }
    }

    fn unlist(&mut self, id: ExecutorId, capacity: Capacity, home: Home, freed: u64, noted: Noted) {
        if let Some(room) = noted.room
            && let Some(there) = self.rooms.get_mut(&capacity)
        {
            there.remove(&(room, id));
            if there.is_empty() {
                self.rooms.remove(&capacity);
            }
        }
        if let Some(load) = noted.free {
            self.free.remove(&(load, id));
            self.free_in.remove(&(home.rack, load, id));
            self.freed.remove(&freed);
        }
        if let Some(at) = noted.makes_way {
            self.make_way.remove(&(at, id));
        }
        self.left.remove(&id);
        if let Some((drivers, load)) = noted.live {
            self.live.remove(&(drivers, load, id));
        }
        if let Some(due) = noted.due {
            self.due.remove(&(due, id));
        }
        self.told.remove(&id);
        self.suspects.remove(&id);
    }

    /// When the next of them needs attention, as listed.
    pub(super) fn next_due(&self) -> Option<TimeMs> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Those that need attention, as listed.
    pub(super) fn due(&self, now: TimeMs) -> impl Iterator<Item = ExecutorId> {
        self.due.iter().take_while(move |(due, _)| *due <= now).map(|(_, id)| *id)
    }

    /// Those that wait for commands that are there, as listed.
    pub(super) fn told(&self) -> impl Iterator<Item = ExecutorId> {
        self.told.iter().copied()
    }

    /// Asserts that everything is listed as it is.
    pub(super) fn check(&self, policy: &SchedulingPolicy) {
        assert!(self.unnoted.is_empty(), "whatever has changed is listed anew");
        let mut sizes = [0; 8];
        let mut rooms = 0;
        for (id, executor) in &self.all {
            assert_eq!(*id, executor.registration.id, "an executor stands under its own id");
            executor.running.check();
            executor.reported.check();
            assert!(executor.running.taken() <= executor.registration.slots, "no executor has more tasks than slots");
            if executor.liveness == Liveness::Dead {
                assert!(executor.running.is_empty() && executor.drivers.is_empty(), "nothing runs on the dead");
            }
            let noted = executor.note(policy);
            assert_eq!(noted, executor.noted, "an executor is listed as it is");
            let Noted { free, makes_way, left, room, live, due, told, suspect } = noted;
            let Home { node, rack } = executor.home;
            let listed = free.is_none_or(|load| {
                self.free.contains(&(load, *id))
                    && self.free_in.contains(&(rack, load, *id))
                    && self.freed.get(&executor.freed) == Some(id)
            });
            assert!(listed, "free slots are listed");
            let there = self.rooms.get(&capacity(&executor.registration));
            let has_room = |room| there.is_some_and(|there| there.contains(&(room, *id)));
            assert!(room.is_none_or(has_room), "room is listed");
            rooms += usize::from(room.is_some());
            assert!(
                live.is_none_or(|(drivers, load)| self.live.contains(&(drivers, load, *id))),
                "the live are listed"
            );
            assert!(due.is_none_or(|due| self.due.contains(&(due, *id))), "what is due is listed");
            assert!(self.on.contains(&(node, *id)), "an executor is found by its node");
            assert_eq!((told, suspect), (self.told.contains(id), self.suspects.contains(id)), "as are the rest");
            assert!(makes_way.is_none_or(|at| self.make_way.contains(&(at, *id))), "who makes way is listed");
            assert_eq!(left, self.left.contains(id), "who is left is listed");
            let counted =
                [free.is_some(), live.is_some(), due.is_some(), told, suspect, true, makes_way.is_some(), left];
            sizes.iter_mut().zip(counted).for_each(|(size, counts)| *size += usize::from(counts));
        }
        let [free, live, due, told, suspects, on, make_way, left] = sizes;
        assert_eq!([free; 3], [self.free.len(), self.free_in.len(), self.freed.len()], "nobody else is free");
        assert_eq!(
            [live, due, told, suspects, on],
            [self.live.len(), self.due.len(), self.told.len(), self.suspects.len(), self.on.len()],
            "nobody else is listed"
        );
        assert_eq!([make_way, left], [self.make_way.len(), self.left.len()], "nor makes way or is left");
        assert_eq!(rooms, self.rooms.values().map(BTreeSet::len).sum::<usize>(), "nobody else has room");
        assert_eq!(self.capacities.values().sum::<usize>(), self.all.len(), "what executors have is counted");
        self.check_places();
    }

    fn check_places(&self) {
        let mut counts: BTreeMap<Node, u32> = BTreeMap::new();
        for executor in self.all.values().filter(|executor| executor.liveness != Liveness::Dead) {
            *counts.entry(executor.home.node).or_default() += 1;
        }
        for executor in self.all.values() {
            let expected = counts.get(&executor.home.node).copied().unwrap_or_default();
            assert_eq!(self.places.executors_on(executor.home.node), expected, "those of a node are counted");
        }
    }
}
