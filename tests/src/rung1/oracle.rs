//! What must hold at any time.

use std::collections::BTreeMap;

use situ_namenode::core::{CallId, Change, Edit, EditV1};
use situ_wire::block::Block;
use situ_wire::ids::{DatanodeId, StorageId, TxId};
use situ_wire::messages::namenode::Request;
use situ_wire::time::TimeMs;

use super::disk::{FileState, root_of};
use super::world::World;
use crate::promises::durable::{self, Promised, Stored};
use crate::promises::metadata::{Answer, Disagreement, Model, Witness};
use crate::promises::{fencing, integrity};

/// For how long an order to delete may still be under way: as long as its message, its hold for a sync, the stalls
/// of both sides and the deletion itself may take.
const ORDER_MS: u64 = 70_000;

/// For how long the loss of a disk may stay unnoticed: until its datanode has looked, or is dead.
const UNNOTICED_MS: u64 = 90_000;

/// What was promised and ordered.
#[derive(Default)]
pub(super) struct Oracle {
    witness: Witness,
    /// Orders to delete that may still be under way.
    orders: BTreeMap<(DatanodeId, Block), TimeMs>,
    /// Replicas that went with their disks, and when.
    lost: Vec<(Block, TimeMs)>,
}

impl Oracle {
    pub(super) fn model(&self) -> &Model {
        self.witness.model()
    }

    pub(super) fn asked(&mut self, request: &Request) -> TxId {
        self.witness.asked(request)
    }

    pub(super) fn answered(&mut self, call: CallId, answer: Answer) -> Result<(), Disagreement> {
        self.witness.answered(call.0, answer)
    }

    pub(super) fn received(&mut self, call: CallId, when: TxId) {
        self.witness.received(call.0, when);
    }

    pub(super) fn durable(&mut self, tx: TxId, edit: &Edit) -> Result<(), Disagreement> {
        self.witness.durable(tx, edit)
    }

    pub(super) fn crashed(&mut self) -> Result<(), Disagreement> {
        self.witness.crashed()
    }

    /// The namenode wants a replica deleted.
    pub(super) fn ordered(&mut self, now: TimeMs, datanode: DatanodeId, block: Block) {
        self.orders.insert((datanode, block), now);
    }

    /// A fault has taken a replica.
    pub(super) fn lost(&mut self, now: TimeMs, block: Block) {
        self.lost.push((block, now));
    }

    fn lost_lately(&self, now: TimeMs, block: Block) -> usize {
        self.lost.iter().filter(|(other, at)| *other == block && now.0 < at.0 + UNNOTICED_MS).count()
    }

    fn is_ordered(&self, now: TimeMs, datanode: DatanodeId, block: Block) -> bool {
        self.orders.get(&(datanode, block)).is_some_and(|since| now.0 < since.0 + ORDER_MS)
    }
}

impl World {
    /// All replicas of a block on all disks, with where they are.
    pub(super) fn stored(&self, block: Block) -> impl Iterator<Item = (DatanodeId, Stored)> + '_ {
        self.datanodes.iter().flat_map(move |datanode| {
            let volumes = datanode.volumes.values().filter(|volume| !volume.failed);
            volumes.flat_map(move |volume| volume.of_block(block.id)).map(|stored| (datanode.me.id, stored))
        })
    }

    /// What a committed block of a file promises.
    pub(super) fn promised(&self, block: Block) -> Option<(String, Promised)> {
        let (path, _, entry) = self.oracle.model().block(block.id)?;
        let (len_bytes, root) = entry.committed?;
        Some((path.to_owned(), Promised { block: entry.block(), len_bytes, root }))
    }

    /// Blocks were committed: they must be there.
    pub(super) fn check_committed(&mut self, edit: &Edit) {
        let Edit::V1(EditV1 { change, .. }) = edit;
        let (Change::AddBlock { committed, .. } | Change::Complete { committed, .. }) = change else { return };
        for committed in committed {
            self.check_durable(committed.block);
            if let Err(wrong) = integrity::check(committed.block, root_of(committed.block.id), committed.root) {
                self.violated(wrong);
            }
        }
    }

    /// A promised block must be held somewhere.
    pub(super) fn check_durable(&mut self, block: Block) {
        let Some((path, promised)) = self.promised(block) else { return };
        let stored: Vec<Stored> = self.stored(block).map(|(_, stored)| stored).collect();
        if let Err(unreadable) = durable::check(&path, &promised, stored.iter()) {
            self.violated(unreadable);
        }
    }

    /// Every promised block must be held somewhere, and nothing that was deleted may be back.
    pub(super) fn check_all(&mut self) {
        if let Some(core) = &self.namenode.core {
            core.check();
        }
        for datanode in &self.datanodes {
            if let Some(core) = &datanode.core {
                core.check();
            }
        }
        let files = self.oracle.model().files();
        let blocks: Vec<(String, Block)> =
            files.flat_map(|(path, file)| file.blocks.iter().map(|block| (path.to_owned(), block.block()))).collect();
        for (path, block) in blocks {
            if self.oracle.model().is_gone(block.id) {
                self.violated(fencing::Unfenced::Resurrected { path, block: block.id });
            }
            self.check_durable(block);
        }
    }

    /// A datanode is about to delete a replica: not the last good one, and a good one only if it was told so, or has
    /// another.
    pub(super) fn check_deletion(&mut self, at: usize, storage: StorageId, block: Block) {
        let Some((path, promised)) = self.promised(block) else { return };
        let datanode = &self.datanodes[at];
        let file = datanode.volumes.get(&storage).and_then(|volume| volume.files.get(&block));
        if file.is_none_or(|file| !promised.is_held_by(&file.stored(block))) {
            return;
        }
        let id = datanode.me.id;
        let good: Vec<DatanodeId> =
            self.stored(block).filter(|(_, stored)| promised.is_held_by(stored)).map(|(id, _)| id).collect();
        let others = good.len() - 1;
        let has_another = good.iter().filter(|other| **other == id).count() > 1;
        let ordered = has_another || self.oracle.is_ordered(self.schedule.now(), id, block);
        if let Err(unfenced) = fencing::check_deletion(&path, block, id, others, ordered) {
            self.violated(unfenced);
        }
    }

    /// Whether a replica may be destroyed by a fault: when another as good stays that nobody was told to delete, and no
    /// more than r-1 are bad at once without anybody having noticed. Whatever is lost then, is lost by the system.
    pub(super) fn may_destroy(&self, at: usize, block: Block) -> bool {
        let Some((_, file, _)) = self.oracle.model().block(block.id) else {
            return self.oracle.model().is_gone(block.id);
        };
        let now = self.schedule.now();
        let id = self.datanodes[at].me.id;
        let is_good = |stored: &Stored| stored.root == root_of(block.id);
        let stays = |(other, stored): (DatanodeId, Stored)| {
            let whole = stored.is_final && stored.block == block && is_good(&stored);
            whole && other != id && !self.oracle.is_ordered(now, other, block)
        };
        // One that its datanode keeps aside is good to a namenode that has not been told yet, and one on a disk that is
        // away is good to its datanode once it is back.
        let all = self.datanodes.iter().flat_map(|datanode| datanode.volumes.values());
        let rotten = all.flat_map(|volume| volume.of_block(block.id)).filter(|it| it.block == block && !is_good(it));
        let bad = rotten.count() + self.oracle.lost_lately(now, block);
        bad + 1 < usize::from(file.replication) && self.stored(block).any(stays)
    }

    /// Final replicas on a disk.
    pub(super) fn final_on(&self, at: usize, storage: StorageId) -> Vec<Block> {
        let Some(volume) = self.datanodes[at].volumes.get(&storage) else { return Vec::new() };
        let files = volume.files.iter().filter(|(_, file)| file.state == FileState::Final && !file.rotten);
        files.map(|(block, _)| *block).collect()
    }
}
