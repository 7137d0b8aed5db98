//! The lineage of datasets: nodes that hold what they are made from, and what an action reaches of them.

mod node;
mod ranges;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::Location;
use std::sync::Arc;

use situ_wire::ids::{ActionId, DatasetId, ShuffleId, StageId};
use situ_wire::messages::scheduler::{PersistedInput, Plan, PlanNode, Resources, StageOutput, StagePlan};

pub(crate) use node::{ActionTask, Carried, CarriedOutput, Kept, MapTask, Node, NodeKind, Parent, ResultTask};

use crate::program::error::ProgramError;

/// What one action reaches of the lineage of a program's datasets. A dataset's id is its place among all that its scope of
/// the program made, so every run of the program gives it the same one.
///
/// ```text
/// text_file -- flat_map -- map -- reduce_by_key (map side) --> reduce_by_key -- collect
/// '------------------- a stage ----------------------------'   '------ a stage ------'
/// ```
///
/// What ends a stage is a node of its own: the map side of a shuffle, or an action. So a stage's id, which is that of its
/// last node, says all that its tasks must know.
pub(crate) struct Graph {
    /// Each behind its parents; the action is the last.
    nodes: Vec<Arc<Node>>,
    places: BTreeMap<DatasetId, Place>,
    own_thread: Option<String>,
}

/// The number of the dataset, and so of the stage, that is the end of a scope, or of the program.
pub(crate) const END: u32 = u32::MAX;

/// Where in the graph a node is.
type Place = usize;

/// What a task shall do, by its stage.
pub(crate) enum StageTask {
    Map { shuffle: ShuffleId, reducers: u32, task: MapTask },
    Result { action: ActionId, task: ResultTask, checked: bool },
}

impl Graph {
    /// What the action that ends in `last` reaches.
    ///
    /// # Errors
    /// When some of it cannot be computed.
    pub(crate) fn of(last: Arc<Node>) -> Result<Self, ProgramError> {
        let mut graph = Self { nodes: Vec::new(), places: BTreeMap::new(), own_thread: last.scope.own_thread() };
        let mut seen = BTreeSet::new();
        // A node stands there twice: before its parents, and behind them.
        let mut open = vec![(last, false)];
        while let Some((node, behind)) = open.pop() {
            if behind {
                graph.places.insert(node.id, graph.nodes.len());
                graph.nodes.push(node);
                continue;
            }
            if let Some(error) = node.unusable() {
                return Err(error);
            }
            if seen.insert(node.id) {
                let parents: Vec<_> =
                    node.parents.iter().rev().map(|parent| (Arc::clone(&parent.node), false)).collect();
                open.push((node, true));
                open.extend(parents);
            }
        }
        Ok(graph)
    }

    /// The action.
    fn last(&self) -> &Arc<Node> {
        self.nodes.last().expect("a graph is made of an action and what it reaches")
    }

    /// The last node of a stage.
    fn end_of(&self, stage: StageId) -> Option<(Place, &Arc<Node>)> {
        let place = *self.places.get(&DatasetId(stage.0, stage.1))?;
        Some((place, &self.nodes[place]))
    }

    /// How many nodes there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// What the action is called.
    pub(crate) fn name(&self) -> &str {
        &self.last().name
    }

    /// Whether the action is the end of a scope, or of the program.
    pub(crate) fn is_end(&self) -> bool {
        self.last().id.1 == END
    }

    /// Whether the driver alone uses what the action gives.
    pub(crate) fn is_for_driver(&self) -> bool {
        matches!(&self.last().kind, NodeKind::Action { task: ActionTask { for_driver: true, .. }, .. })
    }

    /// What the tasks of a stage do; none if the graph has no such stage.
    pub(crate) fn stage_task(&self, stage: StageId) -> Option<StageTask> {
        let (_, node) = self.end_of(stage)?;
        match &node.kind {
            NodeKind::MapSide { reducers, task } => {
                Some(StageTask::Map { shuffle: shuffle_of(node.id), reducers: *reducers, task: Arc::clone(task) })
            }
            NodeKind::Action { action, task: ActionTask { task, checked, .. } } => {
                Some(StageTask::Result { action: *action, task: Arc::clone(task), checked: *checked })
            }
            NodeKind::Narrow | NodeKind::Persisted(_) | NodeKind::ReduceSide { .. } | NodeKind::Carried(_) => None,
        }
    }

    /// What the action needs; `build` is that of a built-in program.
    pub(crate) fn plan(&self, build: Option<[u8; 32]>) -> Plan {
        let node = |node: &Arc<Node>| PlanNode {
            id: node.id,
            name: node.name.clone(),
            parents: node.parents.iter().map(|parent| parent.node.id).collect(),
            partitions: node.partitions,
            value: node.value,
        };
        let mut stages = Vec::new();
        self.add_stage(self.nodes.len() - 1, &mut stages, &mut BTreeSet::new());
        let (name, own_thread) = (self.name().to_owned(), self.own_thread.clone());
        Plan { build, nodes: self.nodes.iter().map(node).collect(), stages, name, own_thread }
    }

    /// The names of the nodes whose functions the tasks of a stage call, as they call them.
    pub(crate) fn operations(&self, stage: StageId) -> Vec<&str> {
        let nodes = self.end_of(stage).map(|(last, _)| self.stage_nodes(last)).unwrap_or_default();
        nodes.into_iter().map(|place| self.nodes[place].name.as_str()).collect()
    }

    /// The nodes of the stage that ends in `last`, each behind its parents.
    fn stage_nodes(&self, last: Place) -> BTreeSet<Place> {
        let mut seen = BTreeSet::from([last]);
        let mut open = vec![last];
        while let Some(place) = open.pop() {
            let node = &self.nodes[place];
            if !matches!(node.kind, NodeKind::ReduceSide { .. } | NodeKind::Carried(_)) {
                let parents = node.parents.iter().map(|parent| self.places[&parent.node.id]);
                open.extend(parents.filter(|parent| seen.insert(*parent)));
            }
        }
        seen
    }

    /// Adds the stage that ends in `last`, behind those that it reads from, unless it is `planned`.
    fn add_stage(&self, last: Place, stages: &mut Vec<StagePlan>, planned: &mut BTreeSet<Place>) {
        if !planned.insert(last) {
            return;
        }
        let nodes = self.stage_nodes(last);
        let mut reads = Vec::new();
        let mut persisted = Vec::new();
        for place in &nodes {
            let node = &self.nodes[*place];
            match &node.kind {
                NodeKind::ReduceSide { .. } => {
                    reads.push(ShuffleId(node.id.0, node.id.1));
                    for parent in &node.parents {
                        self.add_stage(self.places[&parent.node.id], stages, planned);
                    }
                }
                NodeKind::Carried(_) => {
                    for parent in &node.parents {
                        reads.push(shuffle_of(parent.node.id));
                        self.add_stage(self.places[&parent.node.id], stages, planned);
                    }
                }
                NodeKind::Persisted(kept) if !kept.is_released() => persisted.push(node.id),
                _ => {}
            }
        }
        let node = &self.nodes[last];
        let output = match &node.kind {
            NodeKind::MapSide { reducers, .. }
            | NodeKind::Carried(Carried { output: CarriedOutput::Shuffle { reducers, .. }, .. }) => {
                StageOutput::Shuffle { shuffle: shuffle_of(node.id), reducers: *reducers }
            }
            NodeKind::Action { action, .. }
            | NodeKind::Carried(Carried { output: CarriedOutput::Result { action }, .. }) => {
                StageOutput::Result { action: *action }
            }
            NodeKind::Narrow
            | NodeKind::Persisted(_)
            | NodeKind::ReduceSide { .. }
            | NodeKind::Carried(Carried { output: CarriedOutput::Nothing, .. }) => {
                unreachable!("a stage ends in a map side or an action")
            }
        };
        stages.push(StagePlan {
            stage: StageId(node.id.0, node.id.1),
            name: node.name.clone(),
            partitions: node.partitions,
            output,
            reads,
            preferred: node.preferred.as_ref().map(|places| places.to_vec()).unwrap_or_default(),
            persisted: self.persisted_inputs(&nodes, node, &persisted),
            work: match &node.kind {
                NodeKind::Carried(carried) => Some(carried.work.clone()),
                _ => None,
            },
            resources: nodes
                .iter()
                .map(|place| self.nodes[*place].resources)
                .fold(Resources::default(), Resources::max),
        });
    }

    /// What the tasks of the stage that ends in the last node need.
    #[cfg(test)]
    pub(crate) fn needs(&self) -> Resources {
        let nodes = self.stage_nodes(self.nodes.len() - 1);
        nodes.iter().map(|place| self.nodes[*place].resources).fold(Resources::default(), Resources::max)
    }

    /// How the partitions of a stage read each persisted dataset in it.
    fn persisted_inputs(&self, nodes: &BTreeSet<Place>, last: &Node, persisted: &[DatasetId]) -> Vec<PersistedInput> {
        if persisted.is_empty() {
            return Vec::new();
        }
        let stage = nodes.iter().rev().map(|place| self.nodes[*place].as_ref());
        let mut read = ranges::read_by(stage, last);
        let input = |dataset: &DatasetId| {
            let partitions = read.remove(dataset).filter(|ranges| !ranges.is_empty())?;
            Some(PersistedInput { dataset: *dataset, partitions })
        };
        persisted.iter().filter_map(input).collect()
    }
}

/// The shuffle that a map side writes: the node that reads it is made right behind it.
pub(crate) fn shuffle_of(map_side: DatasetId) -> ShuffleId {
    ShuffleId(map_side.0, map_side.1 + 1)
}

/// A node's name: its operation and where in the program it stands, as in `flat_map at main.rs:12`. Only the file's own
/// name is in it: a driver and its workers run the same binary, people read the rest in the file.
pub(crate) fn node_name(operation: &str, place: &Location<'_>) -> String {
    let file = place.file().rsplit(['/', '\\']).next().unwrap_or_default();
    format!("{operation} at {file}:{}", place.line())
}

#[cfg(test)]
mod tests;
