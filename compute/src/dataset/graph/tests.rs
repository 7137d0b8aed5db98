use std::sync::Weak;

use bytes::Bytes;
use situ_wire::ids::{NodeName, RackName, ScopeId};
use situ_wire::messages::scheduler::{PartitionRange, TaskLocation};

use super::*;
use crate::dataset::places::{Places, Preferred};
use crate::dataset::scope::Scope;
use crate::program::world::Backend;

/// Nobody to tell of what is released.
fn nobody() -> Weak<dyn Backend> {
    Weak::<crate::program::follow::Follower>::new()
}

fn node(id: u32, name: &str, parents: Vec<Parent>, partitions: u32, kind: NodeKind) -> Arc<Node> {
    let (id, name) = (DatasetId(ScopeId::ROOT, id), name.to_owned());
    Arc::new(Node {
        id,
        scope: Scope::root(),
        name,
        parents,
        partitions,
        preferred: None,
        kind,
        value: None,
        broken: None,
        resources: Resources::default(),
    })
}

fn placed(node: Arc<Node>, preferred: &Preferred) -> Arc<Node> {
    Arc::new(Node { preferred: preferred.clone(), ..Arc::into_inner(node).unwrap() })
}

fn map_side(reducers: u32) -> NodeKind {
    NodeKind::MapSide { reducers, task: Arc::new(|_, _| Vec::new()) }
}

fn reduce_side(shuffle: u32) -> NodeKind {
    NodeKind::ReduceSide { kept: Kept::shuffle(ShuffleId(ScopeId::ROOT, shuffle), nobody()) }
}

fn persisted(id: u32) -> NodeKind {
    NodeKind::Persisted(Kept::dataset(DatasetId(ScopeId::ROOT, id), nobody()))
}

fn action(action: u32) -> NodeKind {
    let task = ActionTask { task: Arc::new(|_, _| Bytes::new()), checked: true, for_driver: false };
    NodeKind::Action { action: ActionId(ScopeId::ROOT, action), task }
}

fn place(node: &str) -> TaskLocation {
    TaskLocation { node: NodeName(node.to_owned()), rack: RackName("/rack".to_owned()) }
}

fn range(stage: u32, dataset: u32, count: u32) -> PartitionRange {
    PartitionRange { stage, dataset, count }
}

#[test]
fn a_plan_is_cut_at_shuffles_parents_first_and_holds_what_is_reached() {
    let preferred = Some(Arc::new(Places::Each(vec![vec![place("a")], vec![place("b")]])));
    let text = placed(node(0, "text", vec![], 2, NodeKind::Narrow), &preferred);
    let kept = placed(node(1, "kept", vec![Parent::whole(&text)], 2, persisted(1)), &preferred);
    let writes = placed(node(2, "reduce (map side)", vec![Parent::whole(&kept)], 2, map_side(3)), &preferred);
    let reads = node(3, "reduce", vec![Parent::whole(&writes)], 3, reduce_side(3));
    let _not_needed = node(4, "not needed", vec![Parent::whole(&reads)], 3, NodeKind::Narrow);
    let both = node(5, "both", vec![Parent::whole(&reads), Parent::part(&reads, 3, 0, 3)], 6, NodeKind::Narrow);
    let last = node(6, "collect", vec![Parent::whole(&both)], 6, action(7));
    let graph = Graph::of(last).unwrap();
    let plan = graph.plan(None);
    assert_eq!(plan.name, "collect");
    let ids: Vec<u32> = plan.nodes.iter().map(|node| node.id.1).collect();
    assert_eq!(ids, [0, 1, 2, 3, 5, 6]);
    assert_eq!(plan.nodes[4].parents, [DatasetId(ScopeId::ROOT, 3), DatasetId(ScopeId::ROOT, 3)]);
    let map = StagePlan {
        stage: StageId(ScopeId::ROOT, 2),
        name: "reduce (map side)".to_owned(),
        partitions: 2,
        output: StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, 3), reducers: 3 },
        reads: Vec::new(),
        preferred: vec![vec![place("a")], vec![place("b")]],
        persisted: vec![PersistedInput { dataset: DatasetId(ScopeId::ROOT, 1), partitions: vec![range(0, 0, 2)] }],
        work: None,
        resources: Resources::default(),
    };
    let result = StagePlan {
        stage: StageId(ScopeId::ROOT, 6),
        name: "collect".to_owned(),
        partitions: 6,
        output: StageOutput::Result { action: ActionId(ScopeId::ROOT, 7) },
        reads: vec![ShuffleId(ScopeId::ROOT, 3)],
        preferred: Vec::new(),
        persisted: Vec::new(),
        work: None,
        resources: Resources::default(),
    };
    assert_eq!(plan.stages, [map, result]);
    let task = |stage| graph.stage_task(StageId(ScopeId::ROOT, stage));
    assert!(matches!(task(2), Some(StageTask::Map { shuffle: ShuffleId(ScopeId::ROOT, 3), reducers: 3, .. })));
    assert!(matches!(task(6), Some(StageTask::Result { action: ActionId(ScopeId::ROOT, 7), .. })));
    assert!(task(3).is_none() && task(99).is_none());
    assert_eq!(graph.operations(StageId(ScopeId::ROOT, 6)), ["reduce", "both", "collect"]);
}

#[test]
fn what_a_stage_reads_of_persisted_data_is_known_through_union_and_take() {
    let input = |plan: &Plan, dataset: u32| {
        let stage = plan.stages.last().unwrap();
        let input = stage.persisted.iter().find(|input| input.dataset == DatasetId(ScopeId::ROOT, dataset));
        input.map(|input| input.partitions.clone())
    };
    let source = node(0, "source", vec![], 4, NodeKind::Narrow);
    let one = node(1, "one", vec![Parent::whole(&source)], 4, persisted(1));
    let two = node(2, "two", vec![Parent::whole(&source)], 4, persisted(2));
    let union = node(3, "union", vec![Parent::whole(&one), Parent::part(&two, 4, 0, 4)], 8, NodeKind::Narrow);
    let again = node(4, "union", vec![Parent::whole(&union), Parent::part(&one, 8, 0, 4)], 12, NodeKind::Narrow);
    let all = Graph::of(node(5, "collect", vec![Parent::whole(&again)], 12, action(0))).unwrap().plan(None);
    assert_eq!(input(&all, 1), Some(vec![range(0, 0, 4), range(8, 0, 4)]));
    assert_eq!(input(&all, 2), Some(vec![range(4, 0, 4)]));
    // Partitions 6 and 7 of the union are the last of the second.
    let some = Graph::of(node(6, "take", vec![Parent::part(&again, 0, 6, 3)], 3, action(1))).unwrap().plan(None);
    assert_eq!((input(&some, 1), input(&some, 2)), (Some(vec![range(2, 0, 1)]), Some(vec![range(0, 2, 2)])));
    let first = Graph::of(node(7, "take", vec![Parent::part(&again, 0, 0, 1)], 1, action(2))).unwrap().plan(None);
    assert_eq!((input(&first, 1), input(&first, 2)), (Some(vec![range(0, 0, 1)]), None));
    if let NodeKind::Persisted(kept) = &one.kind {
        kept.release();
    }
    let after = Graph::of(node(8, "take", vec![Parent::part(&again, 0, 0, 1)], 1, action(3))).unwrap().plan(None);
    assert!(after.stages[0].persisted.is_empty(), "what is given up is looked for nowhere");
}
