//! Replicas that were chosen to go because there are more than there should be.

use std::collections::BTreeMap;

use situ_wire::ids::BlockId;

use crate::core::datanodes::DatanodeIndex;

/// Replicas that were chosen to go. They stay readable until they are gone, but no longer count.
#[derive(Debug, Default)]
pub(super) struct ExcessReplicas(BTreeMap<BlockId, Vec<DatanodeIndex>>);

impl ExcessReplicas {
    pub(super) fn add(&mut self, block: BlockId, datanode: DatanodeIndex) {
        let datanodes = self.0.entry(block).or_default();
        if !datanodes.contains(&datanode) {
            datanodes.push(datanode);
        }
    }

    pub(super) fn contains(&self, block: BlockId, datanode: DatanodeIndex) -> bool {
        // Most of the time nothing is excess.
        !self.0.is_empty() && self.0.get(&block).is_some_and(|datanodes| datanodes.contains(&datanode))
    }

    pub(super) fn remove(&mut self, block: BlockId, datanode: DatanodeIndex) -> bool {
        let Some(datanodes) = self.0.get_mut(&block) else { return false };
        let before = datanodes.len();
        datanodes.retain(|other| *other != datanode);
        let removed = datanodes.len() < before;
        if datanodes.is_empty() {
            self.0.remove(&block);
        }
        removed
    }

    pub(super) fn of_block(&self, block: BlockId) -> &[DatanodeIndex] {
        self.0.get(&block).map_or(&[], Vec::as_slice)
    }

    pub(super) fn remove_block(&mut self, block: BlockId) {
        self.0.remove(&block);
    }
}
