//! Orders copies of blocks that have too few.

use situ_wire::block::Block;
use situ_wire::ids::BlockId;
use situ_wire::messages::namenode::Liveness;
use situ_wire::time::TimeMs;

use super::low_redundancy::{ONE_LEFT, ONE_RACK};
use super::manager::BlockManager;
use super::pending::PendingReason;
use crate::core::config::CoreConfig;
use crate::core::datanodes::{DatanodeIndex, DatanodeManager, Placement, choose_targets};
use crate::core::random::SplitMix;

/// How many blocks of a level one round looks at.
const EXAMINE: usize = 128;
/// How many copies one round orders.
const ORDERS: usize = 64;

/// A copy that a datanode shall make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) block: Block,
    pub(crate) targets: Vec<DatanodeIndex>,
}

impl BlockManager {
    /// Orders copies for a bounded slice of the blocks that lack some, worst off first.
    pub(crate) fn order_copies(
        &mut self,
        datanodes: &mut DatanodeManager,
        random: &mut SplitMix,
        config: &CoreConfig,
        now: TimeMs,
    ) {
        if self.low.is_empty() {
            return;
        }
        let deadline = TimeMs(now.0.saturating_add(config.pending_timeout_ms));
        let mut orders = 0;
        for id in self.low.next_round(EXAMINE) {
            if orders == ORDERS {
                break;
            }
            let Some((source, copy)) = self.plan_copy(datanodes, random, config, id) else { continue };
            for target in &copy.targets {
                self.pending.add(id, *target, PendingReason::Ordered { source }, deadline);
                datanodes.get_mut(*target).scheduled += 1;
            }
            datanodes.get_mut(source).outbox.push_back(copy);
            self.reconsider(datanodes, id);
            orders += 1;
        }
    }

    fn plan_copy(
        &self,
        datanodes: &DatanodeManager,
        random: &mut SplitMix,
        config: &CoreConfig,
        id: BlockId,
    ) -> Option<(DatanodeIndex, Copy)> {
        let info = self.get(id)?;
        let good = self.good(datanodes, id);
        let pending: Vec<DatanodeIndex> = self.pending.ordered_targets(id).collect();
        let lacking = usize::from(info.replication).saturating_sub(good.len() + pending.len());
        let only_spread = lacking == 0 && info.level == Some(ONE_RACK);
        let source = self.choose_source(datanodes, config, id)?;
        let mut existing: Vec<DatanodeIndex> = good.iter().map(|storage| datanodes.datanode_of(*storage)).collect();
        existing.extend(&pending);
        let corrupt = self.corrupt_of(id).iter().map(|replica| replica.storage);
        let holders = info.locations.as_slice().iter().copied().chain(corrupt);
        let excluded: Vec<DatanodeIndex> = holders.map(|storage| datanodes.datanode_of(storage)).collect();
        let placement = Placement {
            existing: &existing,
            excluded: &excluded,
            local: &[],
            count: if only_spread { 1 } else { lacking },
            len_bytes: info.len_bytes,
            reserve_bytes: config.reserve_bytes,
        };
        let mut targets = choose_targets(datanodes, random, &placement);
        if only_spread {
            let rack = datanodes.get(source).rack;
            targets.retain(|target| datanodes.get(*target).rack != rack);
        }
        (!targets.is_empty()).then(|| (source, Copy { block: info.block(id), targets }))
    }

    /// The least busy datanode that can send the block now. Only copies that were ordered count against its limit: its
    /// readers and writers must not keep blocks from being made whole again. A block's last replica may be sent beyond
    /// the limit, as nothing is more urgent.
    fn choose_source(&self, datanodes: &DatanodeManager, config: &CoreConfig, id: BlockId) -> Option<DatanodeIndex> {
        let info = self.get(id)?;
        let streams = config.replication_streams as usize;
        let limit = if info.level == Some(ONE_LEFT) { streams.saturating_mul(2) } else { streams };
        let storages = info.locations.as_slice().iter();
        let reachable = storages.filter(|storage| datanodes.is_reachable(**storage));
        let can_send = reachable
            .map(|storage| datanodes.datanode_of(*storage))
            .filter(|index| datanodes.get(*index).liveness == Liveness::Live && self.pending.sending(*index) < limit);
        can_send.min_by_key(|index| datanodes.get(*index).load())
    }

    /// The copies that a datanode shall begin now; those whose block is gone or lives anew are left out.
    pub(crate) fn deal_copies(&mut self, datanodes: &mut DatanodeManager, source: DatanodeIndex) -> Vec<Copy> {
        let outbox = std::mem::take(&mut datanodes.get_mut(source).outbox);
        outbox
            .into_iter()
            .filter(|copy| self.get(copy.block.id).map(|info| info.block(copy.block.id)) == Some(copy.block))
            .collect()
    }
}
