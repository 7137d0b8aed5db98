use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ExecutorId, NodeName, RackName};
use situ_wire::messages::scheduler::{Locality, TaskLocation};

/// Where executors live: what makes a task's place worth waiting for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) nodes: BTreeSet<NodeName>,
    pub(super) racks: BTreeSet<RackName>,
}

/// The tasks of a stage that wait for a slot, by where their input lies.
#[derive(Debug, Default)]
pub(super) struct Pending {
    all: BTreeSet<u32>,
    by_executor: BTreeMap<ExecutorId, BTreeSet<u32>>,
    by_node: BTreeMap<NodeName, BTreeSet<u32>>,
    by_rack: BTreeMap<RackName, BTreeSet<u32>>,
    /// No executor lives on a node of theirs, or they have none: waiting for one gains nothing.
    homeless: BTreeSet<u32>,
}

/// An executor that offers a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer<'a> {
    pub(super) executor: ExecutorId,
    pub(super) node: &'a NodeName,
    pub(super) rack: &'a RackName,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn contains(&self, partition: u32) -> bool {
        self.all.contains(&partition)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.all.iter().copied()
    }

    /// A task waits: its input lies at `preferred`, and `holders` have it in memory.
    pub(super) fn insert(
        &mut self,
        partition: u32,
        preferred: &[TaskLocation],
        holders: &BTreeSet<ExecutorId>,
        places: &Places,
    ) {
        self.all.insert(partition);
        for holder in holders {
            self.by_executor.entry(*holder).or_default().insert(partition);
        }
        for place in preferred {
            self.by_node.entry(place.node.clone()).or_default().insert(partition);
            self.by_rack.entry(place.rack.clone()).or_default().insert(partition);
        }
        if holders.is_empty() && !preferred.iter().any(|place| places.nodes.contains(&place.node)) {
            self.homeless.insert(partition);
        }
    }

    /// A task waits no more.
    pub(super) fn remove(&mut self, partition: u32, preferred: &[TaskLocation]) {
        self.all.remove(&partition);
        self.homeless.remove(&partition);
        for place in preferred {
            take(&mut self.by_node, &place.node, partition);
            take(&mut self.by_rack, &place.rack, partition);
        }
        self.by_executor.retain(|_, partitions| {
            partitions.remove(&partition);
            !partitions.is_empty()
        });
    }

    /// The first levels at which tasks have places with executors: process, node, rack.
    pub(super) fn levels(&self, places: &Places) -> [bool; 3] {
        [
            !self.by_executor.is_empty(),
            self.by_node.keys().any(|node| places.nodes.contains(node)),
            self.by_rack.keys().any(|rack| places.racks.contains(rack)),
        ]
    }

    /// The best task for `offer` that is no further away than `allowed` and that `fits`.
    pub(super) fn pick(
        &self,
        offer: Offer<'_>,
        allowed: Locality,
        preferred: &[Vec<TaskLocation>],
        fits: impl Fn(u32) -> bool,
    ) -> Option<(Locality, u32)> {
        let first = |partitions: Option<&BTreeSet<u32>>| partitions?.iter().copied().find(|partition| fits(*partition));
        if let Some(partition) = first(self.by_executor.get(&offer.executor)) {
            return Some((Locality::Process, partition));
        }
        if allowed >= Locality::Node
            && let Some(partition) = first(self.by_node.get(offer.node))
        {
            return Some((Locality::Node, partition));
        }
        if allowed >= Locality::Rack
            && let Some(partition) = first(self.by_rack.get(offer.rack))
        {
            return Some((Locality::Rack, partition));
        }
        let from = if allowed >= Locality::Any { &self.all } else { &self.homeless };
        let partition = first(Some(from))?;
        let places =
            usize::try_from(partition).ok().and_then(|index| preferred.get(index)).map_or(&[][..], Vec::as_slice);
        Some((locality(offer, places), partition))
    }
}

/// How near a slot is to places, when no memory counts.
pub(super) fn locality(offer: Offer<'_>, places: &[TaskLocation]) -> Locality {
    if places.is_empty() {
        Locality::NoPreference
    } else if places.iter().any(|place| place.node == *offer.node) {
        Locality::Node
    } else if places.iter().any(|place| place.rack == *offer.rack) {
        Locality::Rack
    } else {
        Locality::Any
    }
}

fn take<K: Ord>(index: &mut BTreeMap<K, BTreeSet<u32>>, key: &K, partition: u32) {
    if let Some(partitions) = index.get_mut(key) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            index.remove(key);
        }
    }
}
