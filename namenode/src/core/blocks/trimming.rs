//! Deletes replicas: those too many, and those that are not good.
//!
//! A replica of a block that is there is deleted only while enough *other* replicas are sure to be good: reported by
//! the datanode itself, on a live datanode, on a volume whose full report has come, not chosen to go. It is checked when
//! a replica is chosen and again when the order is given. While any replica of the block is on a volume whose full report
//! has not come, none is deleted.

use situ_wire::block::Block;
use situ_wire::ids::BlockId;
use situ_wire::messages::namenode::Liveness;
use situ_wire::time::TimeMs;

use super::info::BlockInfo;
use super::invalidations::MayDelete;
use super::manager::BlockManager;
use crate::core::datanodes::{DatanodeIndex, DatanodeManager, StorageIndex};

/// How many blocks one round looks at.
const EXAMINE: usize = 256;

impl BlockManager {
    /// Chooses replicas to delete in a bounded slice of the blocks that may have some.
    pub(crate) fn choose_deletions(&mut self, datanodes: &DatanodeManager) {
        if self.trim.is_empty() {
            return;
        }
        let round = self.trim.next_round(self.trim_cursor, EXAMINE);
        self.trim_cursor = round.last().copied().unwrap_or(0);
        for id in round.into_iter().map(BlockId) {
            let Some(info) = self.get(id) else { continue };
            if self.is_uncertain(datanodes, id, info) {
                continue;
            }
            let (wanted, block) = (usize::from(info.replication), info.block(id));
            if self.may_drop_corrupt(datanodes, id, info) {
                for replica in self.corrupt.of_block(id).iter().filter(|replica| !replica.doubted) {
                    let block = Block { id, generation: replica.generation };
                    self.invalidations.add(datanodes.datanode_of(replica.storage), block);
                }
            }
            while let Some(victim) = self.choose_victim(datanodes, id, wanted) {
                self.excess.add(id, victim);
                self.invalidations.add(victim, block);
            }
            self.reconsider(datanodes, id);
        }
    }

    /// Whether any replica of the block is on a volume of which nothing is known yet, or on a datanode that may be away
    /// again at any moment.
    fn is_uncertain(&self, datanodes: &DatanodeManager, id: BlockId, info: &BlockInfo) -> bool {
        let corrupt = self.corrupt.of_block(id).iter().map(|replica| replica.storage);
        info.locations.as_slice().iter().copied().chain(corrupt).any(|storage| {
            let storage = datanodes.storage(storage);
            storage.stale || datanodes.get(storage.datanode).contested.is_some()
        })
    }

    /// Replicas that are sure to be good and to stay.
    fn sure(&self, datanodes: &DatanodeManager, id: BlockId) -> Vec<StorageIndex> {
        let mut sure = self.good(datanodes, id);
        sure.retain(|storage| {
            let storage = datanodes.storage(*storage);
            storage.is_confirmed() && !storage.stale && datanodes.get(storage.datanode).liveness == Liveness::Live
        });
        sure
    }

    /// Whether the block's corrupt replicas may go: there are enough good ones; or one at least, and no other datanode
    /// is left that could take a copy.
    fn may_drop_corrupt(&self, datanodes: &DatanodeManager, id: BlockId, info: &BlockInfo) -> bool {
        let sure = self.sure(datanodes, id).len();
        let holders = info.locations.as_slice().len() + self.corrupt.of_block(id).len();
        sure >= usize::from(info.replication) || (sure > 0 && datanodes.live_count() <= holders)
    }

    /// Chooses a replica to delete, if there are more than `wanted` without it: one on a datanode that is not live, else
    /// one that shares its rack with another, else one where space is short.
    fn choose_victim(&self, datanodes: &DatanodeManager, id: BlockId, wanted: usize) -> Option<DatanodeIndex> {
        let good = self.good(datanodes, id);
        if good.len() <= wanted {
            return None;
        }
        let sure = self.sure(datanodes, id);
        let enough_without = |storage: StorageIndex| sure.iter().filter(|other| **other != storage).count() >= wanted;
        let confirmed = good.iter().filter(|storage| datanodes.storage(**storage).is_confirmed());
        let victims = confirmed.filter(|storage| enough_without(**storage));
        let victim = victims.min_by_key(|storage| {
            let datanode = datanodes.get(datanodes.datanode_of(**storage));
            let same_rack =
                good.iter().filter(|other| datanodes.get(datanodes.datanode_of(**other)).rack == datanode.rack);
            let free_bytes: u64 = datanode.volumes.iter().map(|volume| volume.free_bytes).sum();
            (datanode.liveness == Liveness::Live, same_rack.count() < 2, free_bytes, **storage)
        });
        victim.map(|storage| datanodes.datanode_of(*storage))
    }

    /// Whether a datanode may be told now to delete a block's replica in one of its lives.
    fn may_delete(&self, datanodes: &DatanodeManager, datanode: DatanodeIndex, block: Block) -> MayDelete {
        let id = block.id;
        let Some(info) = self.get(id) else { return MayDelete::Now };
        if block.generation > info.generation {
            return MayDelete::Never;
        }
        if let Some(building) = self.building.get(&id) {
            let survivor = building.pipeline.contains(&datanodes.get(datanode).location.id);
            let left_behind = block.generation < info.generation && !survivor;
            return if left_behind { MayDelete::Now } else { MayDelete::Never };
        }
        if self.is_uncertain(datanodes, id, info) {
            return MayDelete::Later;
        }
        let corrupt = self.corrupt.of_block(id).iter().any(|replica| {
            let here = datanodes.datanode_of(replica.storage) == datanode;
            here && replica.generation == block.generation && !replica.doubted
        });
        let may = if corrupt {
            self.may_drop_corrupt(datanodes, id, info)
        } else if block.generation < info.generation {
            self.sure(datanodes, id).len() >= usize::from(info.replication)
        } else if self.excess.contains(id, datanode) {
            // What is excess is not among the sure ones. When too few of those are left, it stays after all.
            let enough = self.sure(datanodes, id).len() >= usize::from(info.replication);
            return if enough { MayDelete::Now } else { MayDelete::Never };
        } else {
            return MayDelete::Never;
        };
        if may { MayDelete::Now } else { MayDelete::Later }
    }

    /// The replicas that a datanode shall delete now, up to `limit`.
    pub(crate) fn deal_deletions(
        &mut self,
        datanodes: &DatanodeManager,
        datanode: DatanodeIndex,
        now: TimeMs,
        limit: usize,
    ) -> Vec<Block> {
        let mut invalidations = std::mem::take(&mut self.invalidations);
        let (dealt, ended) =
            invalidations.deal(datanode, now, limit, |block| self.may_delete(datanodes, datanode, block));
        self.invalidations = invalidations;
        for block in ended {
            if self.excess.remove(block.id, datanode) {
                self.reconsider(datanodes, block.id);
            }
        }
        dealt
    }
}
