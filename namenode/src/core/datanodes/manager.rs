//! All datanodes that have registered since the start.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use situ_wire::block::{Block, DatanodeLocation};
use situ_wire::ids::{DatanodeId, NodeName, RackName, StorageId};
use situ_wire::messages::namenode::{DatanodeRegistration, Liveness, VolumeStatus};
use situ_wire::time::TimeMs;

use super::clock::ClockDifference;
use super::storage::{Storage, StorageIndex};
use crate::core::blocks::Copy as CopyOrder;
use crate::core::config::CoreConfig;

/// A datanode, by its place in the manager. Means nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct DatanodeIndex(pub(crate) u32);

/// A rack, by the order in which racks were first heard of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RackIndex(u32);

/// A datanode.
#[derive(Debug)]
pub(crate) struct Datanode {
    pub(crate) location: DatanodeLocation,
    pub(crate) rack: RackIndex,
    pub(crate) liveness: Liveness,
    pub(crate) last_heartbeat: TimeMs,
    /// What liveness counts from: the last heartbeat, or later if the namenode itself stood still.
    heard: TimeMs,
    pub(crate) volumes: Vec<VolumeStatus>,
    pub(crate) storages: BTreeMap<StorageId, StorageIndex>,
    /// Where its replicas stand that only a writer has told of.
    pub(crate) unconfirmed: StorageIndex,
    pub(crate) clock: ClockDifference,
    /// How many bulk transfers it had at its last heartbeat.
    pub(crate) transfers: u32,
    /// How many replicas were placed on it lately.
    pub(crate) scheduled: u32,
    /// Copies that it shall make, for its next heartbeat.
    pub(crate) outbox: VecDeque<CopyOrder>,
    /// When it was last asked for full reports, or last sent a part of one.
    pub(crate) report_asked: Option<TimeMs>,
    /// When it took its address from another datanode, if it has not kept it for long since: the other one may take it
    /// back, and until that is settled no replica is in excess because of what this one holds.
    pub(crate) contested: Option<TimeMs>,
}

impl Datanode {
    /// How busy it is.
    pub(crate) fn load(&self) -> usize {
        self.transfers as usize + self.scheduled as usize + self.outbox.len()
    }

    /// Whether a block of `len_bytes` fits onto one of its volumes, which then still keeps `reserve_bytes`.
    pub(crate) fn has_room(&self, len_bytes: u64, reserve_bytes: u64) -> bool {
        self.room_bytes(reserve_bytes) >= len_bytes
    }

    /// How long a block its volume with the most room takes, and then still keeps `reserve_bytes`.
    pub(crate) fn room_bytes(&self, reserve_bytes: u64) -> u64 {
        let working = self.volumes.iter().filter(|volume| volume.failed.is_none());
        working.map(|volume| volume.free_bytes.saturating_sub(reserve_bytes)).max().unwrap_or(0)
    }
}

/// All datanodes that have registered since the start, and their volumes.
#[derive(Debug)]
pub(crate) struct DatanodeManager {
    datanodes: Vec<Datanode>,
    storages: Vec<Storage>,
    by_id: BTreeMap<DatanodeId, DatanodeIndex>,
    by_node: BTreeMap<NodeName, Vec<DatanodeIndex>>,
    racks: BTreeMap<RackName, RackIndex>,
    suspect_after_ms: u64,
    dead_after_ms: u64,
    next_check: TimeMs,
    /// Whether the namenode has stood still and nobody was judged since.
    excused: bool,
    living_racks: usize,
}

impl DatanodeManager {
    pub(crate) fn new(config: &CoreConfig) -> Self {
        Self {
            datanodes: Vec::new(),
            storages: Vec::new(),
            by_id: BTreeMap::new(),
            by_node: BTreeMap::new(),
            racks: BTreeMap::new(),
            suspect_after_ms: config.suspect_after_ms,
            dead_after_ms: config.dead_after_ms.max(config.suspect_after_ms),
            next_check: TimeMs::NEVER,
            excused: false,
            living_racks: 0,
        }
    }

    pub(crate) fn find(&self, id: DatanodeId) -> Option<DatanodeIndex> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get(&self, index: DatanodeIndex) -> &Datanode {
        &self.datanodes[index.0 as usize]
    }

    pub(crate) fn get_mut(&mut self, index: DatanodeIndex) -> &mut Datanode {
        &mut self.datanodes[index.0 as usize]
    }

    pub(crate) fn storage(&self, index: StorageIndex) -> &Storage {
        &self.storages[index.0 as usize]
    }

    pub(crate) fn storage_mut(&mut self, index: StorageIndex) -> &mut Storage {
        &mut self.storages[index.0 as usize]
    }

    /// The datanode of a storage.
    pub(crate) fn datanode_of(&self, storage: StorageIndex) -> DatanodeIndex {
        self.storage(storage).datanode
    }

    /// Whether what is on a storage can be there at all: its volume is in use and its datanode not dead.
    pub(crate) fn is_reachable(&self, storage: StorageIndex) -> bool {
        let storage = self.storage(storage);
        !storage.failed && self.get(storage.datanode).liveness != Liveness::Dead
    }

    /// How many datanodes live.
    pub(crate) fn live_count(&self) -> usize {
        self.datanodes.iter().filter(|datanode| datanode.liveness == Liveness::Live).count()
    }

    /// All datanodes, in the order in which they first registered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (DatanodeIndex, &Datanode)> {
        self.datanodes.iter().enumerate().map(|(at, datanode)| (DatanodeIndex(index_of(at)), datanode))
    }

    /// All storages.
    pub(crate) fn storages(&self) -> impl Iterator<Item = (StorageIndex, &Storage)> {
        self.storages.iter().enumerate().map(|(at, storage)| (StorageIndex(index_of(at)), storage))
    }

    /// How many replicas a datanode has of what this namespace never gave out.
    pub(crate) fn unknown_on(&self, datanode: &Datanode) -> usize {
        datanode.storages.values().map(|storage| self.storage(*storage).unknown.len()).sum()
    }

    /// A datanode has deleted a replica that this namespace may never have given out.
    pub(crate) fn forget_unknown(&mut self, index: DatanodeIndex, block: Block) {
        for storage in self.get(index).storages.values().copied().collect::<Vec<_>>() {
            let unknown = &mut self.storage_mut(storage).unknown;
            if unknown.get(&block.id) == Some(&block.generation) {
                unknown.remove(&block.id);
            }
        }
    }

    /// How many of them there are on datanodes that are not dead.
    pub(crate) fn unknown(&self) -> usize {
        let living = self.datanodes.iter().filter(|datanode| datanode.liveness != Liveness::Dead);
        living.map(|datanode| self.unknown_on(datanode)).sum()
    }

    /// The datanodes on a node.
    pub(crate) fn on_node(&self, node: &NodeName) -> &[DatanodeIndex] {
        self.by_node.get(node).map_or(&[], Vec::as_slice)
    }

    /// How many racks have a datanode that is not dead.
    pub(crate) fn living_racks(&self) -> usize {
        self.living_racks
    }

    fn count_living_racks(&mut self) {
        let living = self.datanodes.iter().filter(|datanode| datanode.liveness != Liveness::Dead);
        let mut racks: Vec<RackIndex> = living.map(|datanode| datanode.rack).collect();
        racks.sort_unstable();
        racks.dedup();
        self.living_racks = racks.len();
    }

    /// Takes a datanode in, or back. All its volumes are to be reported anew.
    pub(crate) fn register(&mut self, now: TimeMs, registration: &DatanodeRegistration) -> DatanodeIndex {
        let location = DatanodeLocation {
            id: registration.id,
            node: registration.node.clone(),
            rack: registration.rack.clone(),
            address: registration.address,
        };
        let next_rack = RackIndex(index_of(self.racks.len()));
        let rack = *self.racks.entry(location.rack.clone()).or_insert(next_rack);
        let index = if let Some(index) = self.find(registration.id) {
            let old = std::mem::replace(&mut self.get_mut(index).location, location);
            if let Some(datanodes) = self.by_node.get_mut(&old.node) {
                datanodes.retain(|other| *other != index);
            }
            index
        } else {
            let index = DatanodeIndex(index_of(self.datanodes.len()));
            let unconfirmed = self.add_storage(Storage::new(index, None));
            self.by_id.insert(registration.id, index);
            self.datanodes.push(Datanode {
                location,
                rack,
                liveness: Liveness::Live,
                last_heartbeat: now,
                heard: now,
                volumes: Vec::new(),
                storages: BTreeMap::new(),
                unconfirmed,
                clock: ClockDifference::default(),
                transfers: 0,
                scheduled: 0,
                outbox: VecDeque::new(),
                report_asked: None,
                contested: None,
            });
            index
        };
        self.by_node.entry(registration.node.clone()).or_default().push(index);
        let datanode = self.get_mut(index);
        datanode.rack = rack;
        datanode.report_asked = None;
        for storage in datanode.storages.values().copied().collect::<Vec<_>>() {
            let storage = self.storage_mut(storage);
            storage.stale = true;
            storage.report = None;
        }
        self.hear(now, index);
        self.count_living_racks();
        index
    }

    /// The other datanodes that are not dead and were last at the address of this one: one process alone can be there.
    pub(crate) fn displaced_by(&self, id: DatanodeId, address: SocketAddr) -> Vec<DatanodeIndex> {
        let others = self.iter().filter(|(_, other)| other.location.id != id && other.location.address == address);
        others.filter(|(_, other)| other.liveness != Liveness::Dead).map(|(index, _)| index).collect()
    }

    /// A datanode is known not to run any more.
    pub(crate) fn mark_dead(&mut self, index: DatanodeIndex) {
        self.get_mut(index).liveness = Liveness::Dead;
        self.count_living_racks();
    }

    /// Notes that a datanode lives.
    pub(crate) fn hear(&mut self, now: TimeMs, index: DatanodeIndex) {
        let settled_after_ms = self.dead_after_ms;
        let datanode = self.get_mut(index);
        datanode.last_heartbeat = now;
        datanode.heard = now;
        datanode.liveness = Liveness::Live;
        datanode.contested = datanode.contested.filter(|since| now.0 < since.0.saturating_add(settled_after_ms));
        self.next_check = self.next_check.min(TimeMs(now.0.saturating_add(self.suspect_after_ms)));
    }

    /// Takes the state of a datanode's volumes. Gives back those that are out of use since: what they held is gone.
    pub(crate) fn update_volumes(&mut self, index: DatanodeIndex, volumes: Vec<VolumeStatus>) -> Vec<StorageIndex> {
        let mut lost = Vec::new();
        for volume in &volumes {
            let known = self.get(index).storages.get(&volume.storage).copied();
            let storage = known.unwrap_or_else(|| {
                let storage = self.add_storage(Storage::new(index, Some(volume.storage)));
                self.get_mut(index).storages.insert(volume.storage, storage);
                storage
            });
            if self.set_failed(storage, volume.failed.is_some()) {
                lost.push(storage);
            }
        }
        let gone = self.get(index).storages.iter();
        let gone = gone.filter(|(id, _)| !volumes.iter().any(|volume| volume.storage == **id));
        for storage in gone.map(|(_, storage)| *storage).collect::<Vec<_>>() {
            if self.set_failed(storage, true) {
                lost.push(storage);
            }
        }
        self.get_mut(index).volumes = volumes;
        lost
    }

    /// Marks a storage as failed or not; whether it failed just now.
    fn set_failed(&mut self, index: StorageIndex, failed: bool) -> bool {
        let storage = self.storage_mut(index);
        let before = std::mem::replace(&mut storage.failed, failed);
        if before != failed {
            storage.stale = true;
            storage.report = None;
            storage.unknown.clear();
        }
        failed && !before
    }

    fn add_storage(&mut self, storage: Storage) -> StorageIndex {
        self.storages.push(storage);
        StorageIndex(index_of(self.storages.len() - 1))
    }

    /// Whether a volume in use of this datanode awaits its full report.
    pub(crate) fn awaits_report(&self, index: DatanodeIndex) -> bool {
        self.get(index).storages.values().any(|storage| {
            let storage = self.storage(*storage);
            storage.stale && !storage.failed
        })
    }

    /// The namenode itself stood still for `late_ms`: that much of everybody's silence says nothing. Whoever spoke
    /// meanwhile waits to be heard, so that nobody is judged for another `rest_ms`; but not twice in a row, or a
    /// namenode that is always late would hold nobody to be dead.
    pub(crate) fn excuse(&mut self, now: TimeMs, late_ms: u64, rest_ms: u64) {
        for datanode in self.datanodes.iter_mut().filter(|datanode| datanode.liveness != Liveness::Dead) {
            datanode.heard = TimeMs(datanode.heard.0.saturating_add(late_ms)).min(now);
        }
        self.excused = !self.excused;
        if self.excused {
            self.next_check = TimeMs(now.0.saturating_add(rest_ms));
        }
    }

    /// Marks those who were silent for too long. Gives back those who are dead since.
    pub(crate) fn check_liveness(&mut self, now: TimeMs) -> Vec<DatanodeIndex> {
        if now < self.next_check {
            return Vec::new();
        }
        self.excused = false;
        let mut dead = Vec::new();
        let mut next = TimeMs::NEVER;
        for (at, datanode) in self.datanodes.iter_mut().enumerate() {
            if datanode.liveness == Liveness::Dead {
                continue;
            }
            let suspect_at = TimeMs(datanode.heard.0.saturating_add(self.suspect_after_ms));
            let dead_at = TimeMs(datanode.heard.0.saturating_add(self.dead_after_ms));
            if dead_at <= now {
                datanode.liveness = Liveness::Dead;
                dead.push(DatanodeIndex(index_of(at)));
            } else if suspect_at <= now {
                datanode.liveness = Liveness::Suspect;
                next = next.min(dead_at);
            } else {
                datanode.liveness = Liveness::Live;
                next = next.min(suspect_at);
            }
        }
        self.next_check = next;
        if !dead.is_empty() {
            self.count_living_racks();
        }
        dead
    }

    pub(crate) fn next_deadline(&self) -> TimeMs {
        self.next_check
    }
}

fn index_of(at: usize) -> u32 {
    u32::try_from(at).expect("fewer than 2^32 datanodes, volumes and racks")
}
