use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::ExecutorId;
use situ_wire::messages::scheduler::TaskLocation;

use super::executors::Executors;
use super::homes::Homes;
use super::places::{Home, Places};
use super::stage::index;
use super::waiting::{Bits, Lists};

/// The tasks of a stage that wait for a slot, by where their input lies while somebody needs the stage.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) homes: Homes,
    all: Bits,
    near: Option<Near>,
}

/// Where the waiting tasks of a stage could run near their input, and the executors that might take them.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) by_node: Lists,
    pub(super) by_rack: Lists,
    /// Those whose input is in the memory of workers.
    pub(super) by_executor: BTreeMap<ExecutorId, BTreeSet<u32>>,
    holders: BTreeMap<u32, Box<[ExecutorId]>>,
    /// No executor lives on a node of theirs, or they have none: waiting for one gains nothing.
    pub(super) homeless: Bits,
    /// Whether executors live on each node and in each rack.
    lives_on: Vec<bool>,
    lives_in: Vec<bool>,
    /// How many nodes and racks with waiting tasks have executors.
    live_nodes: usize,
    live_racks: usize,
    pub(super) offers: Offers,
}

/// Executors with free slots that may have a task's input: a stage looks once at each that has one more slot, and not at
/// all of them whenever something happens. What is in the sets may be out of date; what is missing in them is of no use,
/// or comes with `seen`, `nodes` or `holders`.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// The last of [`Executors::freed_after`] that was looked at.
    pub(super) seen: u64,
    /// Nodes on which the first task waits since.
    nodes: Vec<u32>,
    /// Executors for which the first task waits since.
    holders: Vec<ExecutorId>,
    /// By load: those that hold a task's input in memory.
    pub(super) process: BTreeSet<(u64, ExecutorId)>,
    /// By load: those on a node of a task's input.
    pub(super) node: BTreeSet<(u64, ExecutorId)>,
}

impl Pending {
    /// All of so many tasks wait, and nobody needs them yet.
    pub(super) fn new(partitions: u32, preferred: &[Vec<TaskLocation>], places: &mut Places) -> Self {
        let mut all = Bits::new(partitions);
        for partition in 0..partitions {
            all.insert(partition);
        }
        Self { homes: Homes::new(preferred, places), all, near: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.len() == 0
    }

    pub(super) fn contains(&self, partition: u32) -> bool {
        self.all.contains(partition)
    }

    pub(super) fn all(&self) -> &Bits {
        &self.all
    }

    pub(super) fn near(&self) -> Option<&Near> {
        self.near.as_ref()
    }

    /// Somebody needs the stage: what waits is sorted by its places. `holders` says who has a partition in memory.
    pub(super) fn sort(&mut self, holders: impl Fn(u32) -> BTreeSet<ExecutorId>, places: &Places) {
        let (mut by_node, mut by_rack) = self.homes.lists();
        by_node.fill(&self.all);
        by_rack.fill(&self.all);
        let lives_on: Vec<bool> = self.homes.nodes().iter().map(|node| places.lives_on(*node)).collect();
        let lives_in: Vec<bool> = self.homes.racks().iter().map(|rack| places.lives_in(*rack)).collect();
        let mut near = Near {
            live_nodes: count(&lives_on, &by_node),
            live_racks: count(&lives_in, &by_rack),
            by_node,
            by_rack,
            by_executor: BTreeMap::new(),
            holders: BTreeMap::new(),
            homeless: self.all.none(),
            lives_on,
            lives_in,
            offers: Offers::default(),
        };
        for partition in self.all.iter() {
            near.hold(partition, &holders(partition));
            near.judge_home(partition, &self.homes, true);
        }
        self.near = Some(near);
    }

    /// Nobody needs the stage.
    pub(super) fn unsort(&mut self) {
        self.near = None;
    }

    /// A task waits; `holders` have its input in memory.
    pub(super) fn insert(&mut self, partition: u32, holders: &BTreeSet<ExecutorId>) {
        if !self.all.insert(partition) {
            return;
        }
        let Some(near) = &mut self.near else { return };
        near.hold(partition, holders);
        for node in self.homes.of(partition) {
            if near.by_node.insert(*node, partition) {
                near.live_nodes += usize::from(near.lives_on[index(*node)]);
                near.offers.nodes.push(*node);
            }
        }
        for rack in self.homes.racks_of(partition) {
            if near.by_rack.insert(rack, partition) {
                near.live_racks += usize::from(near.lives_in[index(rack)]);
            }
        }
        near.judge_home(partition, &self.homes, true);
    }

    /// A task waits no more.
    pub(super) fn remove(&mut self, partition: u32) {
        if !self.all.remove(partition) {
            return;
        }
        let Some(near) = &mut self.near else { return };
        near.let_go(partition);
        for node in self.homes.of(partition) {
            if near.by_node.remove(*node, &self.all) {
                near.live_nodes -= usize::from(near.lives_on[index(*node)]);
            }
        }
        for rack in self.homes.racks_of(partition) {
            if near.by_rack.remove(rack, &self.all) {
                near.live_racks -= usize::from(near.lives_in[index(rack)]);
            }
        }
        near.judge_home(partition, &self.homes, false);
    }

    /// The first executor came to a node, or the last one left it. Whether that is of interest.
    pub(super) fn node_changed(&mut self, home: Home, places: &Places) -> bool {
        let Some(near) = &mut self.near else { return false };
        let mut of_interest = false;
        if let Some(rack) = self.homes.find_rack(home.rack) {
            let lives = places.lives_in(home.rack);
            if std::mem::replace(&mut near.lives_in[index(rack)], lives) != lives && near.by_rack.waiting(rack) > 0 {
                near.live_racks = near.live_racks + usize::from(lives) - usize::from(!lives);
                of_interest = true;
            }
        }
        let Some(node) = self.homes.find_node(home.node) else { return of_interest };
        let lives = places.lives_on(home.node);
        if std::mem::replace(&mut near.lives_on[index(node)], lives) != lives && near.by_node.waiting(node) > 0 {
            near.live_nodes = near.live_nodes + usize::from(lives) - usize::from(!lives);
            let there: Vec<u32> = near.by_node.iter(node, &self.all).collect();
            for partition in there {
                near.judge_home(partition, &self.homes, true);
            }
            of_interest = true;
        }
        of_interest
    }

    /// An executor has nothing in memory any more. Whether a task waited for that.
    pub(super) fn holder_gone(&mut self, executor: ExecutorId) -> bool {
        let Some(near) = &mut self.near else { return false };
        let Some(partitions) = near.by_executor.remove(&executor) else { return false };
        for partition in partitions {
            let left = near.holders.remove(&partition).unwrap_or_default();
            let left: Box<[ExecutorId]> = left.into_iter().filter(|holder| *holder != executor).collect();
            if !left.is_empty() {
                near.holders.insert(partition, left);
            }
            near.judge_home(partition, &self.homes, true);
        }
        true
    }

    /// The first levels at which tasks have places with executors: process, node, rack.
    pub(super) fn levels(&self) -> [bool; 3] {
        let Some(near) = &self.near else { return [false; 3] };
        [!near.by_executor.is_empty(), near.live_nodes > 0, near.live_racks > 0]
    }

    /// Looks at the executors that have free slots since it last did.
    pub(super) fn look(&mut self, executors: &Executors) {
        let Some(near) = &mut self.near else { return };
        // Most of them must be out of date.
        if near.offers.node.len().max(near.offers.process.len()) > 2 * executors.len() + 64 {
            near.offers = Offers::default();
        }
        let offers = &mut near.offers;
        for (id, executor) in executors.freed_after(offers.seen) {
            let entry = (executor.load(), id);
            if self.homes.find_node(executor.home.node).is_some_and(|node| near.by_node.waiting(node) > 0) {
                offers.node.insert(entry);
            }
            if near.by_executor.contains_key(&id) {
                offers.process.insert(entry);
            }
        }
        offers.seen = executors.last_freed();
        for node in offers.nodes.drain(..) {
            let there = executors.on(self.homes.nodes()[index(node)]).filter(|(_, executor)| executor.free() > 0);
            offers.node.extend(there.map(|(id, executor)| (executor.load(), id)));
        }
        for id in offers.holders.drain(..) {
            if let Some(executor) = executors.get(id).filter(|executor| executor.free() > 0) {
                offers.process.insert((executor.load(), id));
            }
        }
    }

    /// What was out of date.
    pub(super) fn forget(&mut self, process: &[(u64, ExecutorId)], node: &[(u64, ExecutorId)]) {
        let Some(near) = &mut self.near else { return };
        for entry in process {
            near.offers.process.remove(entry);
        }
        for entry in node {
            near.offers.node.remove(entry);
        }
    }

    /// Asserts every index against a recount.
    pub(super) fn check(&self, executors: &Executors) {
        let Some(near) = &self.near else { return };
        near.by_node.check(&self.all);
        near.by_rack.check(&self.all);
        let places = executors.places();
        let lives_on: Vec<bool> = self.homes.nodes().iter().map(|node| places.lives_on(*node)).collect();
        let lives_in: Vec<bool> = self.homes.racks().iter().map(|rack| places.lives_in(*rack)).collect();
        assert_eq!((&near.lives_on, &near.lives_in), (&lives_on, &lives_in), "who lives where is known");
        assert_eq!(near.live_nodes, count(&lives_on, &near.by_node), "nodes with executors are counted");
        assert_eq!(near.live_racks, count(&lives_in, &near.by_rack), "racks with executors are counted");
        for (executor, partitions) in &near.by_executor {
            assert!(!partitions.is_empty(), "an executor that holds nothing is not listed");
            for partition in partitions {
                assert!(self.contains(*partition), "only what waits is listed");
                assert!(near.holders[partition].contains(executor), "a task knows its holders");
            }
        }
        for partition in 0..self.all.end() {
            let (waits, held) = (self.contains(partition), near.holders.contains_key(&partition));
            let placed = self.homes.of(partition);
            let home = placed.iter().any(|node| lives_on[index(*node)]);
            assert_eq!(near.homeless.contains(partition), waits && !held && !home, "the homeless are known");
        }
        for (id, executor) in executors.freed_after(0).filter(|(_, executor)| executor.freed <= near.offers.seen) {
            let entry = (executor.load(), id);
            if let Some(node) = self.homes.find_node(executor.home.node) {
                let known = near.offers.node.contains(&entry) || near.offers.nodes.contains(&node);
                assert!(known || near.by_node.waiting(node) == 0, "no executor near a task is overlooked");
            }
            let known = near.offers.process.contains(&entry) || near.offers.holders.contains(&id);
            assert!(
                known || !near.by_executor.contains_key(&id),
                "no executor that holds a task's input is overlooked"
            );
        }
    }
}

impl Near {
    fn hold(&mut self, partition: u32, holders: &BTreeSet<ExecutorId>) {
        for holder in holders {
            let list = self.by_executor.entry(*holder).or_default();
            if list.is_empty() {
                self.offers.holders.push(*holder);
            }
            list.insert(partition);
        }
        if !holders.is_empty() {
            self.holders.insert(partition, holders.iter().copied().collect());
        }
    }

    fn let_go(&mut self, partition: u32) {
        for holder in self.holders.remove(&partition).unwrap_or_default() {
            if let Some(list) = self.by_executor.get_mut(&holder) {
                list.remove(&partition);
                if list.is_empty() {
                    self.by_executor.remove(&holder);
                }
            }
        }
    }

    /// Finds out whether a task has anywhere to wait for.
    fn judge_home(&mut self, partition: u32, homes: &Homes, waits: bool) {
        let places = homes.of(partition);
        let free = waits && !self.holders.contains_key(&partition);
        let homeless = free && !places.iter().any(|node| self.lives_on[index(*node)]);
        if homeless {
            self.homeless.insert(partition);
        } else {
            self.homeless.remove(partition);
        }
    }
}

/// How many of the places that have executors have waiting tasks.
fn count(lives: &[bool], lists: &Lists) -> usize {
    (0..).zip(lives).filter(|(place, lives)| **lives && lists.waiting(*place) > 0).count()
}
