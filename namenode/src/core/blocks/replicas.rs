//! What datanodes and clients say about replicas.

use situ_wire::block::Block;
use situ_wire::ids::BlockId;
use situ_wire::messages::namenode::ReportedReplica;
use situ_wire::time::TimeMs;

use super::corrupt::CorruptReplica;
use super::info::{Damaged, Received};
use super::manager::BlockManager;
use super::pending::PendingReason;
use crate::core::datanodes::{DatanodeIndex, DatanodeManager, StorageIndex};

/// How the word of a replica came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// In a full report: it is there.
    Report,
    /// As a change: it has just become final.
    Change,
}

/// What a report of a replica means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken note of.
    Noted,
    /// This namespace never gave it out; another life of it did, or another namespace: nothing is done, least of all
    /// deleted.
    Unknown,
}

impl BlockManager {
    /// Takes word of a final replica, of a block and a life that were `given_out` or not.
    pub(crate) fn replica_reported(
        &mut self,
        datanodes: &mut DatanodeManager,
        storage: StorageIndex,
        replica: ReportedReplica,
        via: Via,
        given_out: bool,
    ) -> Verdict {
        let id = replica.block.id;
        if !given_out {
            datanodes.storage_mut(storage).unknown.insert(id, replica.block.generation);
            return Verdict::Unknown;
        }
        datanodes.storage_mut(storage).unknown.remove(&id);
        let datanode = datanodes.datanode_of(storage);
        let Some(info) = self.get(id) else {
            // The block was deleted, and that is on disk before this order goes out.
            self.invalidations.add(datanode, replica.block);
            return Verdict::Noted;
        };
        if replica.block.generation > info.generation {
            datanodes.storage_mut(storage).unknown.insert(id, replica.block.generation);
            return Verdict::Unknown;
        }
        let stale = replica.block.generation < info.generation;
        let good = !stale && replica.len_bytes == info.len_bytes;
        if !info.committed {
            self.reported_early(datanodes, storage, replica, stale);
        } else if good {
            self.reported_good(datanodes, storage, replica.block, via);
        } else {
            self.reported_bad(datanodes, storage, replica.block, via);
        }
        Verdict::Noted
    }

    /// A replica of a block that its writer has not committed yet.
    fn reported_early(
        &mut self,
        datanodes: &mut DatanodeManager,
        storage: StorageIndex,
        replica: ReportedReplica,
        stale: bool,
    ) {
        let id = replica.block.id;
        let datanode = datanodes.datanode_of(storage);
        let building = self.building.get_mut(&id).expect("an uncommitted block is under construction");
        if stale {
            // A survivor's replica goes on in the new life; that of another is left behind.
            let survivor = building.pipeline.contains(&datanodes.get(datanode).location.id);
            if !survivor {
                self.invalidations.add(datanode, replica.block);
            }
            return;
        }
        if let Some(at) = building.received.iter().position(|other| datanodes.datanode_of(other.storage) == datanode) {
            let before = building.received.swap_remove(at);
            datanodes.storage_mut(before.storage).blocks.remove(id.0);
        }
        building.damaged.retain(|other| other.datanode != datanode);
        building.received.push(Received { storage, len_bytes: replica.len_bytes });
        datanodes.storage_mut(storage).blocks.insert(id.0);
    }

    fn reported_good(&mut self, datanodes: &mut DatanodeManager, storage: StorageIndex, block: Block, via: Via) {
        let id = block.id;
        let datanode = datanodes.datanode_of(storage);
        let corrupt = self.corrupt.of_block(id).iter().copied();
        let corrupt = corrupt.into_iter().find(|replica| datanodes.datanode_of(replica.storage) == datanode);
        if let Some(corrupt) = corrupt
            && via == Via::Report
            && corrupt.generation == block.generation
        {
            // It is still there and still corrupt.
            self.move_corrupt(datanodes, id, corrupt, storage);
            return;
        }
        let was = self.place_of(datanodes, id, datanode);
        if was != Some(storage) || corrupt.is_some() {
            if let Some(was) = was {
                self.take_out(datanodes, was, id);
            }
            self.blocks.get_mut(id.0).expect("looked up by the caller").locations.push(storage);
            datanodes.storage_mut(storage).blocks.insert(id.0);
        }
        self.pending.remove(id, datanode);
        self.reconsider(datanodes, id);
    }

    /// A replica in an older life or of another length.
    fn reported_bad(&mut self, datanodes: &mut DatanodeManager, storage: StorageIndex, block: Block, via: Via) {
        let id = block.id;
        let datanode = datanodes.datanode_of(storage);
        let was = self.place_of(datanodes, id, datanode);
        let late = was.is_some_and(|was| datanodes.storage(was).is_confirmed()) && via == Via::Change;
        if late && self.get(id).is_some_and(|info| block.generation < info.generation) {
            // Word of an older life that was overtaken.
            return;
        }
        if let Some(was) = was {
            self.take_out(datanodes, was, id);
            self.excess.remove(id, datanode);
        }
        self.pending.remove(id, datanode);
        self.corrupt.add(id, CorruptReplica { storage, generation: block.generation, doubted: false });
        datanodes.storage_mut(storage).blocks.insert(id.0);
        self.reconsider(datanodes, id);
    }

    fn move_corrupt(
        &mut self,
        datanodes: &mut DatanodeManager,
        id: BlockId,
        corrupt: CorruptReplica,
        storage: StorageIndex,
    ) {
        if corrupt.storage != storage {
            self.take_out(datanodes, corrupt.storage, id);
            self.corrupt.add(id, CorruptReplica { storage, ..corrupt });
            datanodes.storage_mut(storage).blocks.insert(id.0);
        }
    }

    /// Takes a replica of a committed block out of its place.
    fn take_out(&mut self, datanodes: &mut DatanodeManager, storage: StorageIndex, id: BlockId) {
        datanodes.storage_mut(storage).blocks.remove(id.0);
        let info = self.blocks.get_mut(id.0).expect("looked up by the caller");
        let found = info.locations.remove(storage) || self.corrupt.remove(id, storage);
        assert!(found, "what is in a storage's set has a place");
    }

    /// A replica is gone from a storage.
    pub(crate) fn replica_lost(&mut self, datanodes: &mut DatanodeManager, storage: StorageIndex, id: BlockId) {
        if !datanodes.storage(storage).blocks.contains(id.0) {
            return;
        }
        let datanode = datanodes.datanode_of(storage);
        if let Some(building) = self.building.get_mut(&id) {
            building.received.retain(|received| received.storage != storage);
            datanodes.storage_mut(storage).blocks.remove(id.0);
            return;
        }
        self.take_out(datanodes, storage, id);
        self.excess.remove(id, datanode);
        self.pending.remove(id, datanode);
        self.reconsider(datanodes, id);
    }

    /// A datanode has deleted a replica.
    pub(crate) fn replica_deleted(&mut self, datanodes: &mut DatanodeManager, datanode: DatanodeIndex, block: Block) {
        self.invalidations.remove(datanode, block);
        let Some(info) = self.get(block.id) else { return };
        let same_life = info.generation == block.generation;
        if let Some(building) = self.building.get(&block.id) {
            let received = building.received.iter().map(|received| received.storage);
            let place = received.into_iter().find(|storage| datanodes.datanode_of(*storage) == datanode);
            if let Some(storage) = place.filter(|_| same_life) {
                self.replica_lost(datanodes, storage, block.id);
            }
            return;
        }
        let corrupt = self.corrupt.of_block(block.id).iter();
        let corrupt = corrupt.copied().find(|replica| datanodes.datanode_of(replica.storage) == datanode);
        let place = match corrupt {
            Some(replica) => (replica.generation == block.generation).then_some(replica.storage),
            None => self.place_of(datanodes, block.id, datanode).filter(|_| same_life),
        };
        if let Some(storage) = place {
            self.replica_lost(datanodes, storage, block.id);
        }
    }

    /// A datanode says that the bytes of a replica of its own are not what they should be. It keeps such a replica aside and
    /// leaves it out of its full reports, but tells of it again whenever it registers. The block was given out in that
    /// life. Whether that was new.
    pub(crate) fn corrupt_at_home(
        &mut self,
        datanodes: &mut DatanodeManager,
        datanode: DatanodeIndex,
        block: Block,
    ) -> bool {
        let id = block.id;
        let Some(info) = self.get(id) else {
            self.invalidations.add(datanode, block);
            return false;
        };
        if block.generation > info.generation {
            return false;
        }
        if let Some(building) = self.building.get_mut(&id) {
            building.damaged.retain(|other| other.datanode != datanode);
            building.damaged.push(Damaged { datanode, generation: block.generation });
            let received = building.received.iter().map(|received| received.storage);
            let place = received.into_iter().find(|storage| datanodes.datanode_of(*storage) == datanode);
            if let Some(storage) = place {
                self.replica_lost(datanodes, storage, id);
            }
            return true;
        }
        if let Some(storage) = self.place_of(datanodes, id, datanode) {
            let new = self.corrupt.confirm(id, storage, block.generation);
            return self.replica_corrupt(datanodes, datanode, block, false) || new;
        }
        let storage = datanodes.get(datanode).unconfirmed;
        self.corrupt.add(id, CorruptReplica { storage, generation: block.generation, doubted: false });
        datanodes.storage_mut(storage).blocks.insert(id.0);
        self.reconsider(datanodes, id);
        true
    }

    /// Whether a storage's replica of a block is known to be corrupt.
    pub(crate) fn is_corrupt_on(&self, storage: StorageIndex, id: BlockId) -> bool {
        self.corrupt.of_block(id).iter().any(|replica| replica.storage == storage)
    }

    /// A reader says that a replica's bytes did not verify: others are read and copied from, and its datanode is asked.
    /// Whether that was new.
    pub(crate) fn replica_doubted(
        &mut self,
        datanodes: &mut DatanodeManager,
        datanode: DatanodeIndex,
        block: Block,
    ) -> bool {
        let new = self.replica_corrupt(datanodes, datanode, block, true);
        if new {
            self.doubts.add(datanode, block);
        }
        new
    }

    /// A replica's bytes did not verify. Whether that was new.
    fn replica_corrupt(
        &mut self,
        datanodes: &mut DatanodeManager,
        datanode: DatanodeIndex,
        block: Block,
        doubted: bool,
    ) -> bool {
        let Some(info) = self.get(block.id) else { return false };
        let here = |storage: &&StorageIndex| datanodes.datanode_of(**storage) == datanode;
        let Some(storage) = info.locations.as_slice().iter().find(here).copied() else { return false };
        if info.generation != block.generation {
            return false;
        }
        self.blocks.get_mut(block.id.0).expect("looked up above").locations.remove(storage);
        self.excess.remove(block.id, datanode);
        self.pending.remove(block.id, datanode);
        self.corrupt.add(block.id, CorruptReplica { storage, generation: block.generation, doubted });
        self.reconsider(datanodes, block.id);
        true
    }

    /// The replicas that a datanode shall verify now, up to `limit`.
    pub(crate) fn deal_doubts(
        &mut self,
        datanodes: &DatanodeManager,
        datanode: DatanodeIndex,
        now: TimeMs,
        limit: usize,
    ) -> Vec<Block> {
        let corrupt = &self.corrupt;
        self.doubts.deal(datanode, now, limit, |block| {
            corrupt.of_block(block.id).iter().any(|replica| {
                let here = datanodes.datanode_of(replica.storage) == datanode;
                replica.doubted && here && replica.generation == block.generation
            })
        })
    }

    /// A copy that was ordered did not come about.
    pub(crate) fn copy_failed(&mut self, datanodes: &DatanodeManager, id: BlockId, target: DatanodeIndex) {
        if self.pending.ordered_targets(id).any(|other| other == target) {
            self.pending.remove(id, target);
            self.reconsider(datanodes, id);
        }
    }

    /// Stops counting on replicas that have not come by `now`. Gives back how many.
    pub(crate) fn expire_pending(&mut self, datanodes: &mut DatanodeManager, now: TimeMs) -> usize {
        let mut expired = 0;
        while let Some((id, target)) = self.pending.overdue(now) {
            expired += 1;
            let reason = self.pending.remove(id, target);
            if reason == Some(PendingReason::Acknowledged) {
                let unconfirmed = datanodes.get(target).unconfirmed;
                self.replica_lost(datanodes, unconfirmed, id);
            }
            self.reconsider(datanodes, id);
        }
        expired
    }

    /// Stops counting on copies to and from a datanode that is dead or starts anew, and on its deletions.
    pub(crate) fn forget_orders(&mut self, datanodes: &mut DatanodeManager, datanode: DatanodeIndex) {
        datanodes.get_mut(datanode).outbox.clear();
        self.doubts.forget_asked(datanode);
        for block in self.invalidations.remove_datanode(datanode) {
            if self.excess.remove(block.id, datanode) {
                self.reconsider(datanodes, block.id);
            }
        }
        for (id, target) in self.pending.of_datanode(datanode) {
            if self.pending.ordered_targets(id).any(|other| other == target) {
                self.pending.remove(id, target);
                self.reconsider(datanodes, id);
            }
        }
    }
}
