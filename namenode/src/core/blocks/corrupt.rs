//! Replicas whose bytes, length or life are not what they should be.

use std::collections::BTreeMap;

use situ_wire::ids::{BlockId, GenerationStamp};

use crate::core::datanodes::StorageIndex;

/// A replica that is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CorruptReplica {
    pub(crate) storage: StorageIndex,
    /// The life in which the datanode has it.
    pub(crate) generation: GenerationStamp,
    /// Whether only a reader says so. Its datanode is asked, and until it has confirmed that, the replica stays.
    pub(crate) doubted: bool,
}

/// Replicas that are not good. Each is kept until there are enough good ones: it may be the best that is left.
#[derive(Debug, Default)]
pub(super) struct CorruptReplicas(BTreeMap<BlockId, Vec<CorruptReplica>>);

impl CorruptReplicas {
    pub(super) fn add(&mut self, block: BlockId, replica: CorruptReplica) {
        let replicas = self.0.entry(block).or_default();
        replicas.retain(|other| other.storage != replica.storage);
        replicas.push(replica);
    }

    pub(super) fn of_block(&self, block: BlockId) -> &[CorruptReplica] {
        if self.0.is_empty() {
            return &[];
        }
        self.0.get(&block).map_or(&[], Vec::as_slice)
    }

    /// A replica's datanode says as well that it is not good. Whether that was in doubt.
    pub(super) fn confirm(&mut self, block: BlockId, storage: StorageIndex, generation: GenerationStamp) -> bool {
        let replicas = self.0.get_mut(&block).into_iter().flatten();
        let mut doubted = replicas.filter(|it| it.doubted && it.storage == storage && it.generation == generation);
        doubted.next().map(|replica| replica.doubted = false).is_some()
    }

    /// Takes a replica out; whether it was there.
    pub(super) fn remove(&mut self, block: BlockId, storage: StorageIndex) -> bool {
        let Some(replicas) = self.0.get_mut(&block) else { return false };
        let before = replicas.len();
        replicas.retain(|replica| replica.storage != storage);
        let removed = replicas.len() < before;
        if replicas.is_empty() {
            self.0.remove(&block);
        }
        removed
    }

    pub(super) fn remove_block(&mut self, block: BlockId) -> Vec<CorruptReplica> {
        self.0.remove(&block).unwrap_or_default()
    }

    /// How many blocks have one.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BlockId, &[CorruptReplica])> {
        self.0.iter().map(|(block, replicas)| (*block, replicas.as_slice()))
    }
}
