//! What lies on the disks of the datanodes.

use std::collections::BTreeMap;

use situ_datanode::storage::{Health, ScannedReplica};
use situ_wire::block::{Block, BlockRoot};
use situ_wire::ids::BlockId;

use crate::promises::durable::Stored;

/// The state of a replica's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    /// Being written: dropped at the next start.
    Rbw,
    Final,
    /// Found to be damaged and kept aside.
    Aside,
}

/// A replica's files.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplicaFile {
    pub(super) len_bytes: u64,
    pub(super) root: BlockRoot,
    pub(super) state: FileState,
    /// Whether the bytes are not those that were written.
    pub(super) rotten: bool,
}

/// One disk.
#[derive(Debug, Default)]
pub(super) struct Volume {
    pub(super) failed: bool,
    /// Whether what is on it comes back when its datanode starts again.
    pub(super) returns: bool,
    pub(super) files: BTreeMap<Block, ReplicaFile>,
}

/// What a block's bytes hash to. Every block has content of its own.
pub(super) fn root_of(id: BlockId) -> BlockRoot {
    let mut root = [0x5a; 32];
    root[..8].copy_from_slice(&id.0.to_le_bytes());
    BlockRoot(root)
}

impl Volume {
    /// What a start finds; what was being written goes.
    pub(super) fn scan(&mut self) -> Vec<ScannedReplica> {
        self.files.retain(|_, file| file.state != FileState::Rbw);
        let scanned = |(block, file): (&Block, &ReplicaFile)| ScannedReplica {
            block: *block,
            len_bytes: file.len_bytes,
            health: if file.state == FileState::Final { Health::Final } else { Health::Corrupt },
        };
        self.files.iter().map(scanned).collect()
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.len_bytes).sum()
    }

    /// What lies here of a block.
    pub(super) fn of_block(&self, id: BlockId) -> impl Iterator<Item = Stored> + '_ {
        let from = Block { id, generation: situ_wire::ids::GenerationStamp(0) };
        let to = Block { id, generation: situ_wire::ids::GenerationStamp(u64::MAX) };
        self.files.range(from..=to).map(|(block, file)| file.stored(*block))
    }
}

impl ReplicaFile {
    pub(super) fn stored(&self, block: Block) -> Stored {
        let root = if self.rotten { BlockRoot([0; 32]) } else { self.root };
        Stored { block, len_bytes: self.len_bytes, root, is_final: self.state == FileState::Final }
    }
}
