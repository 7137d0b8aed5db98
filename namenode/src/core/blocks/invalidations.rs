//! Replicas that datanodes shall delete.

use std::collections::BTreeMap;
use std::ops::Bound;

use situ_wire::block::Block;
use situ_wire::time::TimeMs;

use crate::core::datanodes::DatanodeIndex;

/// After how long without a word the order is given again.
const REPEAT_AFTER_MS: u64 = 60_000;
/// How often an order is given. A replica that outlives all of them shows in the next full report.
const ATTEMPTS: u8 = 3;

/// How far an order has come.
#[derive(Debug, Clone, Copy, Default)]
struct Order {
    sent: Option<TimeMs>,
    attempts: u8,
}

/// What may be done about an order now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MayDelete {
    /// Give it.
    Now,
    /// Not yet.
    Later,
    /// Never: its reason is gone.
    Never,
}

/// Replicas that datanodes shall delete, each in one life. An order stays until the datanode confirms it.
#[derive(Debug, Default)]
pub(super) struct Invalidations {
    datanodes: BTreeMap<DatanodeIndex, BTreeMap<Block, Order>>,
    cursors: BTreeMap<DatanodeIndex, Block>,
}

impl Invalidations {
    pub(super) fn add(&mut self, datanode: DatanodeIndex, block: Block) {
        self.datanodes.entry(datanode).or_default().entry(block).or_default();
    }

    /// Takes an order back, or notes that it was carried out.
    pub(super) fn remove(&mut self, datanode: DatanodeIndex, block: Block) {
        if let Some(orders) = self.datanodes.get_mut(&datanode) {
            orders.remove(&block);
            if orders.is_empty() {
                self.remove_datanode(datanode);
            }
        }
    }

    /// Forgets the orders to a datanode that is dead or new: its full report will bring back what still holds.
    pub(super) fn remove_datanode(&mut self, datanode: DatanodeIndex) -> Vec<Block> {
        self.cursors.remove(&datanode);
        self.datanodes.remove(&datanode).unwrap_or_default().into_keys().collect()
    }

    pub(super) fn contains(&self, datanode: DatanodeIndex, block: Block) -> bool {
        self.datanodes.get(&datanode).is_some_and(|orders| orders.contains_key(&block))
    }

    /// Up to `limit` orders for a datanode, of those that `may_delete` lets go now, going round from call to call.
    /// Second, the orders that were given up.
    pub(super) fn deal(
        &mut self,
        datanode: DatanodeIndex,
        now: TimeMs,
        limit: usize,
        may_delete: impl Fn(Block) -> MayDelete,
    ) -> (Vec<Block>, Vec<Block>) {
        let (mut dealt, mut ended) = (Vec::new(), Vec::new());
        let Some(orders) = self.datanodes.get_mut(&datanode) else { return (dealt, ended) };
        let cursor = self.cursors.get(&datanode).copied();
        let after = (cursor.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let up_to = (Bound::Unbounded, cursor.map_or(Bound::Unbounded, Bound::Included));
        let ahead: Vec<Block> = orders.range(after).map(|(block, _)| *block).take(limit * 2).collect();
        let behind = cursor.into_iter().flat_map(|_| orders.range(up_to).map(|(block, _)| *block));
        let behind: Vec<Block> = behind.take(limit * 2 - ahead.len()).collect();
        let mut last = cursor;
        for block in ahead.into_iter().chain(behind) {
            if dealt.len() == limit {
                break;
            }
            last = Some(block);
            let Some(order) = orders.get_mut(&block) else { continue };
            if order.sent.is_some_and(|sent| now.0 < sent.0.saturating_add(REPEAT_AFTER_MS)) {
                continue;
            }
            match may_delete(block) {
                MayDelete::Now if order.attempts < ATTEMPTS => {
                    *order = Order { sent: Some(now), attempts: order.attempts + 1 };
                    dealt.push(block);
                }
                MayDelete::Later => {}
                MayDelete::Now | MayDelete::Never => {
                    orders.remove(&block);
                    ended.push(block);
                }
            }
        }
        if orders.is_empty() {
            self.remove_datanode(datanode);
        } else if let Some(last) = last {
            self.cursors.insert(datanode, last);
        }
        (dealt, ended)
    }
}
