use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ExecutorId, NodeName};
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{ExecutorCommand, ExecutorRegistration};
use situ_wire::time::TimeMs;

use super::CallId;
use super::executor::Executor;
use super::pending::Places;
use super::policy::SchedulingPolicy;

/// All executors that are known, dead ones for a while too.
#[derive(Debug, Default)]
pub(super) struct Executors {
    all: BTreeMap<ExecutorId, Executor>,
    /// Where those live that are not dead.
    places: Places,
}

impl Executors {
    pub(super) fn get(&self, id: ExecutorId) -> Option<&Executor> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ExecutorId) -> Option<&mut Executor> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        self.all.iter().map(|(id, executor)| (*id, executor))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Executor> {
        self.all.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    /// Those that get work now.
    pub(super) fn live(&self) -> impl Iterator<Item = (ExecutorId, &Executor)> {
        self.iter().filter(|(_, executor)| executor.liveness == Liveness::Live)
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
        self.all.insert(registration.id, Executor::new(registration, owner, now));
        self.find_places();
    }

    /// Those that a registration replaces: an earlier run of itself, or whoever listened at its address.
    pub(super) fn replaced_by(&self, registration: &ExecutorRegistration) -> Vec<ExecutorId> {
        let ExecutorRegistration { id, node, address, .. } = registration;
        let same = |other: &ExecutorRegistration| other.id == *id || (other.node == *node && other.address == *address);
        self.iter().filter(|(_, executor)| same(&executor.registration)).map(|(id, _)| id).collect()
    }

    /// Forgets the dead of a node: somebody new is there.
    pub(super) fn forget_dead_of(&mut self, node: &NodeName) {
        self.all.retain(|_, executor| executor.liveness != Liveness::Dead || executor.registration.node != *node);
    }

    pub(super) fn forget(&mut self, id: ExecutorId) {
        if !self.is_there(id) {
            self.all.remove(&id);
        }
    }

    /// It is dead. The poll of it that was kept.
    pub(super) fn bury(&mut self, id: ExecutorId) -> Option<CallId> {
        let call = self.all.get_mut(&id)?.bury();
        self.find_places();
        call
    }

    /// Gives a command to an executor, if it is there.
    pub(super) fn command(&mut self, id: ExecutorId, command: ExecutorCommand) {
        if let Some(executor) = self.all.get_mut(&id).filter(|executor| executor.liveness != Liveness::Dead) {
            executor.push(command);
        }
    }

    /// When the next of them needs attention.
    pub(super) fn next_due(&self, policy: &SchedulingPolicy) -> Option<TimeMs> {
        self.all.values().map(|executor| executor.next_due(policy)).filter(|due| *due < TimeMs::NEVER).min()
    }

    pub(super) fn check(&self) {
        for (id, executor) in &self.all {
            assert_eq!(*id, executor.registration.id, "an executor stands under its own id");
            let slots = usize::try_from(executor.registration.slots).unwrap_or(usize::MAX);
            assert!(executor.running.len() <= slots, "no executor has more tasks than slots");
            if executor.liveness == Liveness::Dead {
                assert!(executor.running.is_empty() && executor.drivers.is_empty(), "nothing runs on the dead");
            }
        }
    }

    fn find_places(&mut self) {
        let there = || self.all.values().filter(|executor| executor.liveness != Liveness::Dead);
        let nodes: BTreeSet<_> = there().map(|executor| executor.registration.node.clone()).collect();
        let racks: BTreeSet<_> = there().map(|executor| executor.registration.rack.clone()).collect();
        self.places = Places { nodes, racks };
    }
}
