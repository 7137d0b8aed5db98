use super::*;
use crate::ids::ScopeId;

fn plan(names: &[&str]) -> Plan {
    let node = |(index, name): (u32, &&str)| PlanNode {
        id: DatasetId(ScopeId::ROOT, index),
        name: (*name).to_owned(),
        parents: index.checked_sub(1).map(|parent| DatasetId(ScopeId::ROOT, parent)).into_iter().collect(),
        partitions: 4,
        value: None,
    };
    Plan {
        build: None,
        nodes: (0..).zip(names).map(node).collect(),
        stages: Vec::new(),
        name: "collect at main.rs:9".to_owned(),
        own_thread: None,
    }
}

#[test]
fn plans_that_differ_say_where() {
    let (one, two) = (plan(&["text_file", "map"]), plan(&["text_file", "filter"]));
    assert_eq!(one.difference("the driver", &one.clone(), "the worker"), None);
    assert_eq!(
        one.difference("the driver", &two, "the worker").as_deref(),
        Some(
            "dataset-1 is \"map\" with 4 partitions, made from [dataset-0] in the driver and \"filter\" with 4 \
             partitions, made from [dataset-0] in the worker"
        )
    );
    assert_eq!(
        one.difference("the driver", &plan(&["text_file"]), "the worker").as_deref(),
        Some("dataset-1 is \"map\" with 4 partitions, made from [dataset-0] in the driver and missing in the worker")
    );
    let renamed = Plan { name: "count at main.rs:9".to_owned(), ..one.clone() };
    assert_ne!(one.digest(), renamed.digest());
    let mut valued = one.clone();
    valued.nodes[0].value = Some([1; 32]);
    let difference = one.difference("the driver", &valued, "the worker").unwrap();
    assert!(difference.contains("\"text_file\" has other values of the driver"), "{difference}");
    let (old, new) = (Plan { build: Some([1; 32]), ..one.clone() }, Plan { build: Some([2; 32]), ..one.clone() });
    let difference = old.difference("the driver", &new, "the worker").unwrap();
    assert!(difference.contains("0101") && difference.contains("same release"), "{difference}");
}

#[test]
fn a_partition_of_a_stage_finds_that_of_the_dataset() {
    let range = |stage, dataset, count| PartitionRange { stage, dataset, count };
    let input =
        PersistedInput { dataset: DatasetId(ScopeId::ROOT, 1), partitions: vec![range(2, 0, 3), range(7, 1, 1)] };
    let found: Vec<Option<u32>> = (0..9).map(|partition| input.partition(partition)).collect();
    assert_eq!(found, [None, None, Some(0), Some(1), Some(2), None, None, Some(1), None]);
}

#[test]
fn a_digest_does_not_depend_on_where_input_lies() {
    let one = plan(&["text_file"]);
    let mut moved = one.clone();
    moved.stages.push(StagePlan {
        stage: StageId(ScopeId::ROOT, 0),
        name: String::new(),
        partitions: 4,
        output: StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) },
        reads: Vec::new(),
        preferred: Vec::new(),
        persisted: Vec::new(),
        work: None,
        resources: Resources { cores: 3, memory_bytes: 1 },
    });
    assert_eq!(one.digest(), moved.digest());
    let with = |digest| {
        let mut plan = moved.clone();
        plan.stages[0].work =
            Some(Work { kind: "sql".to_owned(), digest, payload: Payload::Inline(bytes::Bytes::new()) });
        plan
    };
    assert_ne!(with([0; 32]).digest(), moved.digest(), "what the tasks do is in it");
    let said = with([0; 32]).difference("the driver", &with([1; 32]), "this run");
    assert_eq!(said.as_deref(), Some("stage-0 has other work in the driver than in this run"));
}
