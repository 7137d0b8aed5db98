//! All blocks, and the queues that say what is to be done about them.

use std::collections::BTreeMap;

use situ_wire::block::{Block, BlockRoot, CommittedBlock};
use situ_wire::ids::{BlockId, DatanodeId, GenerationStamp, INodeId};
use situ_wire::time::TimeMs;

use super::corrupt::{CorruptReplica, CorruptReplicas};
use super::doubts::Doubts;
use super::excess::ExcessReplicas;
use super::info::{BlockInfo, Building, Locations};
use super::invalidations::Invalidations;
use super::low_redundancy::LowRedundancy;
use super::pending::{PendingReason, PendingReplication};
use crate::core::datanodes::{DatanodeIndex, DatanodeManager, StorageIndex};
use crate::core::digest::RecordRef;
use crate::core::image::{BlockRecord, ImageRecord};
use crate::core::ledger::Ledger;
use crate::core::sparse::{IdMap, IdSet};

/// All blocks, and the queues that say what is to be done about them.
///
/// After every change around a block [`reconsider`](Self::reconsider) puts it into the right queues, so that they are
/// right at any time; only a dead datanode's many blocks are gone through in slices.
#[derive(Debug)]
pub(crate) struct BlockManager {
    pub(super) blocks: IdMap<BlockInfo>,
    pub(super) building: BTreeMap<BlockId, Building>,
    pub(super) low: LowRedundancy,
    pub(super) pending: PendingReplication,
    pub(super) excess: ExcessReplicas,
    pub(super) corrupt: CorruptReplicas,
    pub(super) invalidations: Invalidations,
    pub(super) doubts: Doubts,
    /// Committed blocks with fewer good replicas than they should have.
    pub(super) deficient: IdSet,
    /// Committed blocks without any good replica.
    pub(super) missing: IdSet,
    /// Blocks of which a replica may have to go: there are too many, or one is corrupt.
    pub(super) trim: IdSet,
    pub(super) trim_cursor: u64,
    committed: usize,
}

/// How many good replicas a block has, and on how many racks they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tally {
    /// Good replicas that are not chosen to go.
    good: usize,
    /// All that can be read.
    readable: usize,
    one_rack: bool,
}

impl BlockManager {
    pub(crate) fn new() -> Self {
        Self {
            blocks: IdMap::new(),
            building: BTreeMap::new(),
            low: LowRedundancy::default(),
            pending: PendingReplication::default(),
            excess: ExcessReplicas::default(),
            corrupt: CorruptReplicas::default(),
            invalidations: Invalidations::default(),
            doubts: Doubts::default(),
            deficient: IdSet::default(),
            missing: IdSet::default(),
            trim: IdSet::default(),
            trim_cursor: 0,
            committed: 0,
        }
    }

    pub(crate) fn get(&self, id: BlockId) -> Option<&BlockInfo> {
        self.blocks.get(id.0)
    }

    /// What is known of a block only while it is under construction.
    pub(crate) fn building(&self, id: BlockId) -> Option<&Building> {
        self.building.get(&id)
    }

    /// All blocks, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (BlockId, &BlockInfo)> {
        self.blocks.iter().map(|(id, info)| (BlockId(id), info))
    }

    /// All blocks from an id on, ascending.
    pub(crate) fn iter_from(&self, from: BlockId) -> impl Iterator<Item = (BlockId, &BlockInfo)> {
        self.blocks.iter_from(from.0).map(|(id, info)| (BlockId(id), info))
    }

    /// How many blocks there are.
    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// How many of them are committed.
    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// How many have fewer good replicas than they should have.
    pub(crate) fn deficient(&self) -> usize {
        self.deficient.len()
    }

    /// How many have none.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// How many have a corrupt replica.
    pub(crate) fn with_corrupt(&self) -> usize {
        self.corrupt.len()
    }

    /// How many copies are under way.
    pub(crate) fn copies_under_way(&self) -> u64 {
        self.pending.ordered()
    }

    /// The corrupt replicas of a block.
    pub(crate) fn corrupt_of(&self, id: BlockId) -> &[CorruptReplica] {
        self.corrupt.of_block(id)
    }

    /// The block's record, as an image holds it.
    pub(crate) fn record(&self, id: BlockId) -> Option<RecordRef<'_>> {
        let info = self.get(id)?;
        let pipeline = self.building.get(&id).map_or(&[][..], |building| building.pipeline.as_slice());
        Some(ImageRecord::Block(BlockRecord {
            id,
            generation: info.generation,
            inode: info.inode,
            len_bytes: info.len_bytes,
            root: info.committed.then_some(info.root),
            pipeline,
        }))
    }

    /// A block that its writer begins.
    pub(crate) fn add(
        &mut self,
        ledger: &mut Ledger,
        block: Block,
        inode: INodeId,
        replication: u16,
        pipeline: Vec<DatanodeId>,
    ) {
        let info = BlockInfo {
            generation: block.generation,
            inode,
            len_bytes: 0,
            locations: Locations::default(),
            root: BlockRoot([0; 32]),
            replication,
            committed: false,
            level: None,
        };
        let before = self.blocks.insert(block.id.0, info);
        assert!(before.is_none(), "{} is never given out twice", block.id);
        self.building.insert(block.id, Building { pipeline, ..Building::default() });
        self.note(ledger, block.id);
    }

    /// A block from an image. Its file's replication is set when all is there.
    pub(crate) fn restore(&mut self, ledger: &mut Ledger, record: &BlockRecord) -> Result<(), String> {
        if self.blocks.contains(record.id.0) {
            return Err(format!("{} is there twice", record.id));
        }
        let committed = record.root.is_some();
        let info = BlockInfo {
            generation: record.generation,
            inode: record.inode,
            len_bytes: record.len_bytes,
            locations: Locations::default(),
            root: record.root.unwrap_or(BlockRoot([0; 32])),
            replication: 0,
            committed,
            level: None,
        };
        self.blocks.insert(record.id.0, info);
        if committed {
            self.committed += 1;
        } else {
            self.building.insert(record.id, Building { pipeline: record.pipeline.clone(), ..Building::default() });
        }
        self.note(ledger, record.id);
        Ok(())
    }

    /// Tells a block how many replicas it shall have.
    pub(crate) fn set_replication(&mut self, datanodes: &DatanodeManager, id: BlockId, replication: u16) {
        if let Some(info) = self.blocks.get_mut(id.0) {
            info.replication = replication;
            self.reconsider(datanodes, id);
        }
    }

    /// The writer has finished a block; until `deadline` its word on the replicas is good.
    pub(crate) fn commit(
        &mut self,
        ledger: &mut Ledger,
        datanodes: &mut DatanodeManager,
        committed: &CommittedBlock,
        deadline: TimeMs,
    ) {
        let id = committed.block.id;
        self.forget(ledger, id);
        let building = self.building.remove(&id).expect("an uncommitted block is under construction");
        let info = self.blocks.get_mut(id.0).expect("the caller looked it up");
        assert_eq!(info.generation, committed.block.generation, "only the present life is committed");
        info.committed = true;
        info.len_bytes = committed.len_bytes;
        info.root = committed.root;
        let generation = info.generation;
        self.committed += 1;
        self.note(ledger, id);
        for received in building.received {
            if received.len_bytes == committed.len_bytes {
                self.blocks.get_mut(id.0).expect("still there").locations.push(received.storage);
            } else {
                self.corrupt.add(id, CorruptReplica { storage: received.storage, generation, doubted: false });
            }
        }
        for damaged in building.damaged {
            let storage = datanodes.get(damaged.datanode).unconfirmed;
            if self.place_of(datanodes, id, damaged.datanode).is_none() && datanodes.is_reachable(storage) {
                let generation = damaged.generation;
                self.corrupt.add(id, CorruptReplica { storage, generation, doubted: false });
                datanodes.storage_mut(storage).blocks.insert(id.0);
            }
        }
        for datanode in &committed.replicas {
            let Some(index) = datanodes.find(*datanode) else { continue };
            let storage = datanodes.get(index).unconfirmed;
            if self.place_of(datanodes, id, index).is_none() && datanodes.is_reachable(storage) {
                self.blocks.get_mut(id.0).expect("still there").locations.push(storage);
                datanodes.storage_mut(storage).blocks.insert(id.0);
                self.pending.add(id, index, PendingReason::Acknowledged, deadline);
            }
        }
        // Members of the pipeline that do not have this life may have an older one, which nobody counts.
        let older = Block { id, generation: GenerationStamp(generation.0.saturating_sub(1)) };
        for index in building.pipeline.iter().filter_map(|datanode| datanodes.find(*datanode)) {
            if self.place_of(datanodes, id, index).is_none() {
                self.invalidations.add(index, older);
            }
        }
        self.reconsider(datanodes, id);
    }

    /// An unfinished block begins a new life on the survivors of its pipeline.
    pub(crate) fn begin_life(
        &mut self,
        ledger: &mut Ledger,
        datanodes: &mut DatanodeManager,
        id: BlockId,
        generation: GenerationStamp,
        pipeline: Vec<DatanodeId>,
    ) {
        self.forget(ledger, id);
        let info = self.blocks.get_mut(id.0).expect("the caller looked it up");
        assert!(generation > info.generation, "generation stamps rise");
        let old = info.block(id);
        info.generation = generation;
        let building = self.building.get_mut(&id).expect("an uncommitted block is under construction");
        let before = std::mem::replace(&mut building.pipeline, pipeline);
        for received in building.received.drain(..) {
            datanodes.storage_mut(received.storage).blocks.remove(id.0);
        }
        for datanode in before {
            if let Some(index) = datanodes.find(datanode)
                && !building.pipeline.contains(&datanode)
            {
                self.invalidations.add(index, old);
            }
        }
        self.note(ledger, id);
    }

    /// A block goes, and all its replicas with it.
    pub(crate) fn remove(&mut self, ledger: &mut Ledger, datanodes: &mut DatanodeManager, id: BlockId) {
        self.forget(ledger, id);
        let info = self.blocks.remove(id.0).expect("the caller looked it up");
        let block = info.block(id);
        if let Some(building) = self.building.remove(&id) {
            for received in building.received {
                self.discard(datanodes, received.storage, block);
            }
            let members = building.pipeline.iter().filter_map(|datanode| datanodes.find(*datanode));
            let members: Vec<DatanodeIndex> = members.collect();
            for damaged in building.damaged.iter().filter(|damaged| !members.contains(&damaged.datanode)) {
                // Left behind in an older life and kept aside, so that no report brings it back to mind.
                self.invalidations.add(damaged.datanode, Block { id, generation: damaged.generation });
            }
            for index in members {
                self.invalidations.add(index, block);
            }
        }
        for storage in info.locations.as_slice() {
            self.discard(datanodes, *storage, block);
        }
        for replica in self.corrupt.remove_block(id) {
            self.discard(datanodes, replica.storage, Block { id, generation: replica.generation });
        }
        self.committed -= usize::from(info.committed);
        self.low.change(id, info.level, None);
        self.pending.remove_block(id);
        self.excess.remove_block(id);
        for set in [&mut self.deficient, &mut self.missing, &mut self.trim] {
            set.remove(id.0);
        }
    }

    /// Forgets a replica and has it deleted.
    fn discard(&mut self, datanodes: &mut DatanodeManager, storage: StorageIndex, block: Block) {
        datanodes.storage_mut(storage).blocks.remove(block.id.0);
        self.invalidations.add(datanodes.datanode_of(storage), block);
    }

    /// Takes a block's record out of the ledger before it changes or goes.
    fn forget(&mut self, ledger: &mut Ledger, id: BlockId) {
        ledger.subtract(&self.record(id).expect("the caller looked it up"));
    }

    /// Puts a block's record into the ledger after it came or changed.
    fn note(&mut self, ledger: &mut Ledger, id: BlockId) {
        ledger.add(&self.record(id).expect("it is there now"));
    }

    /// Where a datanode's replica of a block stands, good or corrupt.
    pub(super) fn place_of(
        &self,
        datanodes: &DatanodeManager,
        id: BlockId,
        datanode: DatanodeIndex,
    ) -> Option<StorageIndex> {
        let locations = self.get(id)?.locations.as_slice().iter().copied();
        let corrupt = self.corrupt.of_block(id).iter().map(|replica| replica.storage);
        locations.chain(corrupt).find(|storage| datanodes.datanode_of(*storage) == datanode)
    }

    /// Good replicas that are not chosen to go.
    pub(super) fn good(&self, datanodes: &DatanodeManager, id: BlockId) -> Vec<StorageIndex> {
        let Some(info) = self.get(id) else { return Vec::new() };
        let good = info.locations.as_slice().iter().copied();
        good.filter(|storage| {
            datanodes.is_reachable(*storage) && !self.excess.contains(id, datanodes.datanode_of(*storage))
        })
        .collect()
    }

    fn tally(&self, datanodes: &DatanodeManager, id: BlockId, info: &BlockInfo) -> Tally {
        let mut tally = Tally { good: 0, readable: 0, one_rack: true };
        let mut rack = None;
        for storage in info.locations.as_slice() {
            if !datanodes.is_reachable(*storage) {
                continue;
            }
            let datanode = datanodes.datanode_of(*storage);
            tally.readable += 1;
            if !self.excess.contains(id, datanode) {
                tally.good += 1;
                let this = datanodes.get(datanode).rack;
                tally.one_rack &= *rack.get_or_insert(this) == this;
            }
        }
        tally.one_rack &= tally.good > 1 && datanodes.living_racks() > 1;
        tally
    }

    /// Puts a block into the queues in which it belongs now.
    pub(super) fn reconsider(&mut self, datanodes: &DatanodeManager, id: BlockId) {
        let Some(info) = self.get(id) else { return };
        if !info.committed {
            return;
        }
        let wanted = usize::from(info.replication);
        let tally = self.tally(datanodes, id, info);
        let pending = self.pending.ordered_targets(id).count();
        let from = info.level;
        let to = LowRedundancy::level(tally.good, pending, wanted, tally.one_rack);
        let trim = tally.good > wanted || !self.corrupt.of_block(id).is_empty();
        if from != to {
            self.low.change(id, from, to);
            self.blocks.get_mut(id.0).expect("looked up above").level = to;
        }
        self.deficient.set(id.0, tally.good < wanted);
        self.missing.set(id.0, tally.readable == 0);
        self.trim.set(id.0, trim);
    }

    /// When an expected replica is overdue next.
    pub(crate) fn next_deadline(&self) -> Option<TimeMs> {
        self.pending.next_deadline()
    }

    /// Asserts what must hold at any time. Blocks on a storage for which `in_slices` holds are being gone through.
    pub(crate) fn check(&self, datanodes: &DatanodeManager, in_slices: impl Fn(StorageIndex) -> bool) {
        let mut places = 0;
        for (id, info) in self.iter() {
            assert_eq!(info.committed, !self.building.contains_key(&id), "{id} is committed or under construction");
            let received = self.building(id).map_or(&[][..], |building| &building.received);
            assert!(info.committed || info.locations.as_slice().is_empty(), "{id} has no locations yet");
            assert!(info.committed || self.corrupt.of_block(id).is_empty(), "{id} has no corrupt replicas yet");
            let mut storages = info.locations.as_slice().to_vec();
            storages.extend(self.corrupt.of_block(id).iter().map(|replica| replica.storage));
            storages.extend(received.iter().map(|received| received.storage));
            places += storages.len();
            let mut holders = Vec::new();
            for storage in &storages {
                assert!(datanodes.storage(*storage).blocks.contains(id.0), "{id} is in the set of its storage");
                holders.push(datanodes.datanode_of(*storage));
            }
            holders.sort_unstable();
            holders.dedup();
            assert_eq!(holders.len(), storages.len(), "{id} has one replica a datanode at most");
            for datanode in self.excess.of_block(id) {
                assert!(holders.contains(datanode), "only a replica that is there is excess");
                assert!(self.invalidations.contains(*datanode, info.block(id)), "what is excess is to be deleted");
            }
            if !storages.iter().any(|storage| in_slices(*storage)) {
                self.check_queues(datanodes, id, info);
            }
        }
        let in_sets: usize = datanodes.storages().map(|(_, storage)| storage.blocks.len()).sum();
        assert_eq!(places, in_sets, "a storage's set holds nothing else");
        assert_eq!(self.committed + self.building.len(), self.blocks.len());
        assert!(self.corrupt.iter().all(|(id, _)| self.blocks.contains(id.0)));
    }

    fn check_queues(&self, datanodes: &DatanodeManager, id: BlockId, info: &BlockInfo) {
        let wanted = usize::from(info.replication);
        let tally = self.tally(datanodes, id, info);
        assert_eq!(self.deficient.contains(id.0), info.committed && tally.good < wanted, "{id}: {tally:?}");
        assert_eq!(self.missing.contains(id.0), info.committed && tally.readable == 0, "{id}: {tally:?}");
        let pending = self.pending.ordered_targets(id).count();
        let level = LowRedundancy::level(tally.good, pending, wanted, false);
        if info.committed && level.is_some() {
            assert_eq!(info.level, level, "{id}: {tally:?} with {pending} pending of {wanted}");
        }
    }
}
