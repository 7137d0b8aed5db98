//! Replicas that readers found to be corrupt, which their datanodes shall verify.

use std::collections::BTreeMap;

use situ_wire::block::Block;
use situ_wire::time::TimeMs;

use crate::core::datanodes::DatanodeIndex;

/// After how long without a word a datanode is asked again.
const ASK_AGAIN_MS: u64 = 30_000;

/// Replicas that datanodes shall verify, and when each was last asked for. One stays until its datanode has said what it
/// found: a reader with bad memory must not talk good replicas to death.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<DatanodeIndex, BTreeMap<Block, Option<TimeMs>>>);

impl Doubts {
    pub(super) fn add(&mut self, datanode: DatanodeIndex, block: Block) {
        self.0.entry(datanode).or_default().entry(block).or_default();
    }

    /// A datanode starts anew: it may not remember what it was asked.
    pub(super) fn forget_asked(&mut self, datanode: DatanodeIndex) {
        self.0.get_mut(&datanode).into_iter().flatten().for_each(|(_, asked)| *asked = None);
    }

    /// Up to `limit` replicas that a datanode shall verify now; those that are not `doubted` any more are forgotten.
    pub(super) fn deal(
        &mut self,
        datanode: DatanodeIndex,
        now: TimeMs,
        limit: usize,
        doubted: impl Fn(Block) -> bool,
    ) -> Vec<Block> {
        let Some(blocks) = self.0.get_mut(&datanode) else { return Vec::new() };
        blocks.retain(|block, _| doubted(*block));
        let due = |asked: Option<TimeMs>| asked.is_none_or(|asked| now.0 >= asked.0.saturating_add(ASK_AGAIN_MS));
        let dealt = blocks.iter_mut().filter(|(_, asked)| due(**asked)).take(limit).map(|(block, asked)| {
            *asked = Some(now);
            *block
        });
        let dealt = dealt.collect();
        if blocks.is_empty() {
            self.0.remove(&datanode);
        }
        dealt
    }
}
