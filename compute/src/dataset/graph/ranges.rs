use std::collections::BTreeMap;

use situ_wire::ids::DatasetId;
use situ_wire::messages::scheduler::PartitionRange;

use super::node::{Node, NodeKind};

/// Which partitions of each node of a stage the partitions of the stage read: of each node ascending by those of the stage,
/// as few ranges as say it. `stage` gives the nodes with every node before its parents; `last` is its first.
pub(super) fn read_by<'a>(
    stage: impl Iterator<Item = &'a Node>,
    last: &Node,
) -> BTreeMap<DatasetId, Vec<PartitionRange>> {
    let mut read: BTreeMap<DatasetId, Vec<PartitionRange>> = BTreeMap::new();
    read.insert(last.id, vec![PartitionRange { stage: 0, dataset: 0, count: last.partitions }]);
    for node in stage {
        // All that read it come before it.
        let Some(ranges) = read.get_mut(&node.id) else { continue };
        merge(ranges);
        if matches!(node.kind, NodeKind::ReduceSide { .. }) {
            continue;
        }
        let ranges = ranges.clone();
        for parent in &node.parents {
            let through = ranges.iter().filter_map(|range| compose(*range, parent.range));
            read.entry(parent.node.id).or_default().extend(through);
        }
    }
    read
}

/// Of what a stage reads of a node, what it reads through it of a parent.
fn compose(of_node: PartitionRange, of_parent: PartitionRange) -> Option<PartitionRange> {
    let start = of_node.dataset.max(of_parent.stage);
    let end = (of_node.dataset + of_node.count).min(of_parent.stage + of_parent.count);
    (start < end).then(|| PartitionRange {
        stage: of_node.stage + (start - of_node.dataset),
        dataset: of_parent.dataset + (start - of_parent.stage),
        count: end - start,
    })
}

/// Sorts ranges and joins those that go on where another ends. Of two that overlap the first stays: one place to run a task
/// is enough.
fn merge(ranges: &mut Vec<PartitionRange>) {
    ranges.sort_unstable_by_key(|range| (range.stage, range.dataset));
    let mut next = 0;
    ranges.retain(|range| {
        let behind = range.stage >= next;
        if behind {
            next = range.stage + range.count;
        }
        behind
    });
    ranges.dedup_by(|next, range| {
        let goes_on = range.stage + range.count == next.stage && range.dataset + range.count == next.dataset;
        if goes_on {
            range.count += next.count;
        }
        goes_on
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_followed_and_joined() {
        let range = |stage, dataset, count| PartitionRange { stage, dataset, count };
        assert_eq!(compose(range(10, 2, 5), range(0, 100, 4)), Some(range(10, 102, 2)));
        assert_eq!(compose(range(10, 2, 5), range(4, 0, 9)), Some(range(12, 0, 3)));
        assert_eq!(compose(range(10, 2, 2), range(4, 0, 9)), None);
        let mut ranges = vec![range(5, 5, 1), range(0, 0, 3), range(3, 3, 2), range(6, 0, 1)];
        merge(&mut ranges);
        assert_eq!(ranges, [range(0, 0, 6), range(6, 0, 1)]);
    }
}
