//! Where new replicas go.
//!
//! The first replica goes onto the writer's node, the second onto another rack, the third onto the second's rack but
//! another node, further ones anywhere with no more than a fair share on any rack. Among those that fit, the less busy
//! of two drawn at random is taken, which spreads load almost as well as the least busy of all and does not send
//! everyone to the same one (Mitzenmacher, "The power of two choices in randomized load balancing", 2001).
//!
//! A bounded spread of copies (copysets: Cidon et al., 2013) would restrict here which groups of nodes may hold a block
//! together.

use situ_wire::messages::namenode::Liveness;

use super::manager::{DatanodeIndex, DatanodeManager, RackIndex};
use crate::core::random::SplitMix;

/// What is to be placed.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    /// Where replicas are already, as far as they count.
    pub(crate) existing: &'a [DatanodeIndex],
    /// Where none may go.
    pub(crate) excluded: &'a [DatanodeIndex],
    /// The datanodes on the writer's node.
    pub(crate) local: &'a [DatanodeIndex],
    /// How many replicas to place.
    pub(crate) count: usize,
    /// How long they may become.
    pub(crate) len_bytes: u64,
    /// How much stays free on a volume.
    pub(crate) reserve_bytes: u64,
}

/// Where a replica should go.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Anywhere,
    Local,
    OnRack(RackIndex),
    OffRack(RackIndex),
}

/// Chooses datanodes for new replicas, in the order of a pipeline. There may be fewer than asked for, or none.
pub(crate) fn choose_targets(
    datanodes: &DatanodeManager,
    random: &mut SplitMix,
    placement: &Placement<'_>,
) -> Vec<DatanodeIndex> {
    let fits = |index: DatanodeIndex| {
        let datanode = datanodes.get(index);
        datanode.liveness == Liveness::Live
            && !placement.excluded.contains(&index)
            && !placement.existing.contains(&index)
            && datanode.has_room(placement.len_bytes, placement.reserve_bytes)
    };
    let mut candidates: Vec<DatanodeIndex> =
        datanodes.iter().map(|(index, _)| index).filter(|index| fits(*index)).collect();
    let wanted = placement.existing.len() + placement.count;
    let rack_share = wanted.saturating_sub(1) / datanodes.living_racks().max(1) + 2;
    let mut taken = placement.existing.to_vec();
    let mut chosen = Vec::new();
    while chosen.len() < placement.count && !candidates.is_empty() {
        let wish = wish(datanodes, &taken, placement.local);
        let index = choose(datanodes, random, &candidates, &taken, wish, placement.local, rack_share);
        candidates.retain(|candidate| *candidate != index);
        taken.push(index);
        chosen.push(index);
    }
    chosen
}

fn wish(datanodes: &DatanodeManager, taken: &[DatanodeIndex], local: &[DatanodeIndex]) -> Wish {
    let rack = |at: usize| datanodes.get(taken[at]).rack;
    match taken.len() {
        0 if local.is_empty() => Wish::Anywhere,
        0 => Wish::Local,
        1 => Wish::OffRack(rack(0)),
        2 if rack(0) == rack(1) => Wish::OffRack(rack(0)),
        2 => Wish::OnRack(rack(1)),
        _ => {
            // Whatever was lost before: never all on one rack.
            let first = rack(0);
            let one_rack = taken.iter().all(|index| datanodes.get(*index).rack == first);
            if one_rack { Wish::OffRack(first) } else { Wish::Anywhere }
        }
    }
}

/// Takes the best candidate: as wished and on a fresh node; else on a fresh node; else any.
fn choose(
    datanodes: &DatanodeManager,
    random: &mut SplitMix,
    candidates: &[DatanodeIndex],
    taken: &[DatanodeIndex],
    wish: Wish,
    local: &[DatanodeIndex],
    rack_share: usize,
) -> DatanodeIndex {
    let fresh_node = |index: DatanodeIndex| {
        let node = &datanodes.get(index).location.node;
        taken.iter().all(|other| datanodes.get(*other).location.node != *node)
    };
    let as_wished = |index: DatanodeIndex| {
        let rack = datanodes.get(index).rack;
        let on_rack = taken.iter().filter(|other| datanodes.get(**other).rack == rack).count();
        match wish {
            Wish::Anywhere => on_rack < rack_share,
            Wish::Local => local.contains(&index),
            Wish::OnRack(wanted) => rack == wanted,
            Wish::OffRack(unwanted) => rack != unwanted,
        }
    };
    let mut best: Vec<DatanodeIndex> =
        candidates.iter().copied().filter(|index| fresh_node(*index) && as_wished(*index)).collect();
    if best.is_empty() {
        best = candidates.iter().copied().filter(|index| fresh_node(*index)).collect();
    }
    let best = if best.is_empty() { candidates } else { &best };
    let one = best[random.index(best.len())];
    let two = best[random.index(best.len())];
    if datanodes.get(two).load() < datanodes.get(one).load() { two } else { one }
}
