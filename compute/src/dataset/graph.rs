use std::collections::BTreeSet;
use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, ShuffleId, StageId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{Plan, PlanNode, StageOutput, StagePlan};

use super::places::Preferred;
use crate::program::task::TaskContext;

/// Writes one partition's part of a shuffle.
pub(crate) type MapTask = Arc<dyn Fn(&TaskContext, u32) -> Vec<ShufflePiece> + Send + Sync>;
/// Computes one partition's result of an action.
pub(crate) type ResultTask = Arc<dyn Fn(&TaskContext, u32) -> Bytes + Send + Sync>;

/// The lineage of a program's datasets, in the order in which the program made them: so a dataset's id is its place, and
/// every run of the program gives it the same one.
///
/// ```text
/// text_file -- flat_map -- map -- reduce_by_key (map side) --> reduce_by_key -- collect
/// '------------------- a stage ----------------------------'   '------ a stage ------'
/// ```
///
/// What ends a stage is a node of its own: the map side of a shuffle, or an action. So a stage's id, which is that of its
/// last node, says all that its tasks must know.
#[derive(Default)]
pub(crate) struct Graph {
    nodes: Vec<Node>,
}

/// One node.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) parents: Vec<DatasetId>,
    pub(crate) partitions: u32,
    pub(crate) preferred: Preferred,
    pub(crate) kind: NodeKind,
}

/// What a node is to the stages.
#[derive(Clone)]
pub(crate) enum NodeKind {
    /// A source, or made from its parents partition by partition.
    Narrow,
    /// As [`NodeKind::Narrow`], and kept in memory once computed.
    Persisted,
    /// Splits its parent for a shuffle, which the next node reads.
    MapSide { reducers: u32, task: MapTask },
    /// Reads the shuffle that its parent writes.
    ReduceSide,
    /// Computes an action's result.
    Action { action: ActionId, task: ResultTask },
}

/// What a task shall do, by its stage.
pub(crate) enum StageTask {
    Map { shuffle: ShuffleId, reducers: u32, task: MapTask },
    Result { action: ActionId, task: ResultTask },
}

impl Graph {
    /// Adds a node.
    pub(crate) fn add(&mut self, node: Node) -> DatasetId {
        let id = DatasetId(u32::try_from(self.nodes.len()).expect("a program makes fewer than 2^32 datasets"));
        assert!(node.parents.iter().all(|parent| *parent < id), "parents are made before their children");
        assert!(node.partitions > 0, "every dataset has a partition");
        self.nodes.push(node);
        id
    }

    /// The shuffle whose two nodes are added next.
    pub(crate) fn next_shuffle(&self) -> ShuffleId {
        shuffle_of(DatasetId(u32::try_from(self.nodes.len()).expect("a program makes fewer than 2^32 datasets")))
    }

    /// A node.
    pub(crate) fn node(&self, id: DatasetId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// What the tasks of a stage do; none if the graph has no such stage.
    pub(crate) fn stage_task(&self, stage: StageId) -> Option<StageTask> {
        match &self.nodes.get(stage.0 as usize)?.kind {
            NodeKind::MapSide { reducers, task } => Some(StageTask::Map {
                shuffle: shuffle_of(DatasetId(stage.0)),
                reducers: *reducers,
                task: Arc::clone(task),
            }),
            NodeKind::Action { action, task } => Some(StageTask::Result { action: *action, task: Arc::clone(task) }),
            NodeKind::Narrow | NodeKind::Persisted | NodeKind::ReduceSide => None,
        }
    }

    /// What the action that ends in `last` needs.
    pub(crate) fn plan(&self, last: DatasetId) -> Plan {
        let mut stages = Vec::new();
        self.add_stage(last, &mut stages);
        let nodes = self.nodes[..=last.0 as usize]
            .iter()
            .map(|node| PlanNode {
                name: node.name.clone(),
                parents: node.parents.clone(),
                partitions: node.partitions,
            })
            .collect();
        Plan { nodes, stages, name: self.node(last).name.clone() }
    }

    /// Adds the stage that ends in `last`, behind those that it reads from.
    fn add_stage(&self, last: DatasetId, stages: &mut Vec<StagePlan>) {
        let stage = StageId(last.0);
        if stages.iter().any(|planned| planned.stage == stage) {
            return;
        }
        let mut reads = BTreeSet::new();
        let mut persisted = BTreeSet::new();
        let mut seen = BTreeSet::from([last]);
        let mut open = vec![last];
        while let Some(id) = open.pop() {
            let node = self.node(id);
            match node.kind {
                NodeKind::ReduceSide => {
                    reads.insert(ShuffleId(id.0));
                    for parent in &node.parents {
                        self.add_stage(*parent, stages);
                    }
                    continue;
                }
                NodeKind::Persisted => {
                    persisted.insert(id);
                }
                NodeKind::Narrow | NodeKind::MapSide { .. } | NodeKind::Action { .. } => {}
            }
            open.extend(node.parents.iter().filter(|parent| seen.insert(**parent)));
        }
        let node = self.node(last);
        let output = match node.kind {
            NodeKind::MapSide { reducers, .. } => StageOutput::Shuffle { shuffle: shuffle_of(last), reducers },
            NodeKind::Action { action, .. } => StageOutput::Result { action },
            NodeKind::Narrow | NodeKind::Persisted | NodeKind::ReduceSide => {
                unreachable!("a stage ends in a map side or an action")
            }
        };
        stages.push(StagePlan {
            stage,
            name: node.name.clone(),
            partitions: node.partitions,
            output,
            reads: reads.into_iter().collect(),
            preferred: node.preferred.as_ref().map(|places| places.to_vec()).unwrap_or_default(),
            persisted: persisted.into_iter().collect(),
        });
    }
}

/// The shuffle that a map side writes: the node that reads it is made right behind it.
pub(crate) fn shuffle_of(map_side: DatasetId) -> ShuffleId {
    ShuffleId(map_side.0 + 1)
}

/// A node's name: its operation and where in the program it stands, as in `flat_map at main.rs:12`. Only the file's own
/// name is in it: a driver and its workers run the same binary, people read the rest in the file.
pub(crate) fn node_name(operation: &str, place: &Location<'_>) -> String {
    let file = place.file().rsplit(['/', '\\']).next().unwrap_or_default();
    format!("{operation} at {file}:{}", place.line())
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{NodeName, RackName};
    use situ_wire::messages::scheduler::TaskLocation;

    use super::*;
    use crate::dataset::places::Places;

    fn node(name: &str, parents: &[u32], partitions: u32, kind: NodeKind) -> Node {
        let parents = parents.iter().copied().map(DatasetId).collect();
        Node { name: name.to_owned(), parents, partitions, preferred: None, kind }
    }

    fn map_side(reducers: u32) -> NodeKind {
        NodeKind::MapSide { reducers, task: Arc::new(|_, _| Vec::new()) }
    }

    fn place(node: &str) -> TaskLocation {
        TaskLocation { node: NodeName(node.to_owned()), rack: RackName("/rack".to_owned()) }
    }

    #[test]
    fn a_plan_is_cut_at_shuffles_parents_first() {
        let mut graph = Graph::default();
        let preferred = Some(Arc::new(Places::Each(vec![vec![place("a")], vec![place("b")]])));
        graph.add(Node { preferred: preferred.clone(), ..node("text", &[], 2, NodeKind::Narrow) });
        graph.add(Node { preferred: preferred.clone(), ..node("kept", &[0], 2, NodeKind::Persisted) });
        graph.add(Node { preferred, ..node("reduce (map side)", &[1], 2, map_side(3)) });
        graph.add(node("reduce", &[2], 3, NodeKind::ReduceSide));
        graph.add(node("not needed", &[3], 3, NodeKind::Narrow));
        graph.add(node("both", &[3, 3], 6, NodeKind::Narrow));
        let task: ResultTask = Arc::new(|_, _| Bytes::new());
        let last = graph.add(node("collect", &[5], 6, NodeKind::Action { action: ActionId(7), task }));
        let plan = graph.plan(last);
        assert_eq!(plan.name, "collect");
        assert_eq!(plan.nodes.len(), 7);
        assert_eq!(plan.nodes[5].parents, [DatasetId(3), DatasetId(3)]);
        let map = StagePlan {
            stage: StageId(2),
            name: "reduce (map side)".to_owned(),
            partitions: 2,
            output: StageOutput::Shuffle { shuffle: ShuffleId(3), reducers: 3 },
            reads: Vec::new(),
            preferred: vec![vec![place("a")], vec![place("b")]],
            persisted: vec![DatasetId(1)],
        };
        let result = StagePlan {
            stage: StageId(6),
            name: "collect".to_owned(),
            partitions: 6,
            output: StageOutput::Result { action: ActionId(7) },
            reads: vec![ShuffleId(3)],
            preferred: Vec::new(),
            persisted: Vec::new(),
        };
        assert_eq!(plan.stages, [map, result]);
        let task = |stage| graph.stage_task(StageId(stage));
        assert!(matches!(task(2), Some(StageTask::Map { shuffle: ShuffleId(3), reducers: 3, .. })));
        assert!(matches!(task(6), Some(StageTask::Result { action: ActionId(7), .. })));
        assert!(task(3).is_none() && task(99).is_none());
    }
}
