use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ActionId, DatasetId, ShuffleId};
use situ_wire::limits::{NAME_LEN_BYTES, PARTITIONS, WORK_LEN_BYTES};
use situ_wire::messages::scheduler::{Payload, PersistedInput, Plan, StageOutput, StagePlan, Work};

use super::stage::index;

/// The longest name of a dataset, a stage or an action.
const LABEL_LEN_BYTES: usize = 1 << 10;
/// The most reduce partitions of a shuffle in which an action ends: all totals are one answer.
const TOTALS: u32 = 100_000;
/// The most places that one partition's input may have.
const PLACES: usize = 32;

/// Checks a plan, which a user's program made: that it is a graph cut into stages that can be run in their order.
///
/// # Errors
/// Says which rule is broken, and where.
pub(super) fn check_plan(plan: &Plan, action: ActionId) -> Result<(), String> {
    check_label("the action", &plan.name)?;
    let mut known = Known::new();
    for node in &plan.nodes {
        let id = node.id;
        check_label(&id.to_string(), &node.name)?;
        ensure(node.partitions <= PARTITIONS, || {
            format!("{id} has {} partitions; at most {PARTITIONS} are allowed", node.partitions)
        })?;
        let parent = node.parents.iter().find(|parent| !known.contains_key(parent));
        ensure(parent.is_none(), || format!("{id} is made from {parent:?}, which does not come before it"))?;
        ensure(known.insert(id, node.partitions).is_none(), || format!("there are two of {id}"))?;
    }
    let Some((last, before)) = plan.stages.split_last() else { return Err("it has no stages".to_owned()) };
    if let StageOutput::Result { action: other } = last.output {
        ensure(other == action, || {
            format!("its last stage must give the result of {action}; it gives that of {other}")
        })?;
    }
    let mut filled: BTreeSet<ShuffleId> = BTreeSet::new();
    for stage in before {
        check_stage(&known, stage, &filled)?;
        if let StageOutput::Result { .. } = stage.output {
            return Err(format!("{} gives a result, but is not the last stage", stage.stage));
        }
        check_shuffle(stage.output, PARTITIONS, &mut filled)?;
    }
    check_stage(&known, last, &filled)?;
    check_shuffle(last.output, TOTALS, &mut filled)
}

fn check_shuffle(output: StageOutput, most: u32, filled: &mut BTreeSet<ShuffleId>) -> Result<(), String> {
    let StageOutput::Shuffle { shuffle, reducers } = output else { return Ok(()) };
    ensure((1..=most).contains(&reducers), || {
        format!("{shuffle} has {reducers} reduce partitions; 1 to {most} are allowed")
    })?;
    ensure(filled.insert(shuffle), || format!("two stages fill {shuffle}"))
}

/// How many partitions each dataset has.
type Known = BTreeMap<DatasetId, u32>;

fn check_stage(known: &Known, stage: &StagePlan, filled: &BTreeSet<ShuffleId>) -> Result<(), String> {
    let id = stage.stage;
    check_label(&id.to_string(), &stage.name)?;
    let partitions = known.get(&DatasetId(id.0, id.1));
    ensure(partitions == Some(&stage.partitions), || {
        format!("{id} has {} tasks, but its dataset has these partitions: {partitions:?}", stage.partitions)
    })?;
    let missing = stage.reads.iter().find(|shuffle| !filled.contains(shuffle));
    ensure(missing.is_none(), || format!("{id} reads {missing:?}, which no stage before it fills"))?;
    let placed = stage.preferred.len();
    ensure(placed == 0 || placed == index(stage.partitions), || {
        format!("{id} has {} tasks, but places for {placed}", stage.partitions)
    })?;
    for places in &stage.preferred {
        let found = places.len();
        ensure(found <= PLACES, || format!("{id} has a task with {found} places; at most {PLACES} are allowed"))?;
        let long = places.iter().any(|place| place.node.0.len().max(place.rack.0.len()) > NAME_LEN_BYTES);
        ensure(!long, || format!("{id} names a node or rack with more than {NAME_LEN_BYTES} bytes"))?;
    }
    stage.work.as_ref().map_or(Ok(()), |work| check_work(stage, work))?;
    stage.persisted.iter().try_for_each(|input| check_persisted(known, stage, input))
}

/// What travels is short, and what its digest says.
fn check_work(stage: &StagePlan, work: &Work) -> Result<(), String> {
    let id = stage.stage;
    let found = work.kind.len();
    ensure(found <= NAME_LEN_BYTES, || {
        format!("the kind of work of {id} has {found} bytes; at most {NAME_LEN_BYTES} are allowed")
    })?;
    let Payload::Inline(bytes) = &work.payload else { return Ok(()) };
    ensure(bytes.len() <= WORK_LEN_BYTES, || {
        format!("the work of {id} takes {} bytes; at most {WORK_LEN_BYTES} travel with a plan", bytes.len())
    })?;
    ensure(*blake3::hash(bytes).as_bytes() == work.digest, || format!("the work of {id} is not what its digest says"))
}

/// Every range lies within the stage and within the dataset, behind the range before it.
fn check_persisted(known: &Known, stage: &StagePlan, input: &PersistedInput) -> Result<(), String> {
    let (id, dataset) = (stage.stage, input.dataset);
    let Some(partitions) = known.get(&dataset) else {
        return Err(format!("{id} keeps {dataset}, which is not in the graph"));
    };
    let mut next = 0;
    for range in &input.partitions {
        let end = |start: u32| u64::from(start) + u64::from(range.count);
        let fits = range.count > 0
            && u64::from(range.stage) >= next
            && end(range.stage) <= u64::from(stage.partitions)
            && end(range.dataset) <= u64::from(*partitions);
        ensure(fits, || format!("{id} cannot read {range:?} of {dataset}, which has {partitions} partitions"))?;
        next = end(range.stage);
    }
    Ok(())
}

/// Why a job fails whose program does not do the same each time it runs, and what to do.
pub(super) fn differs(difference: &str) -> String {
    format!(
        "the program does not do the same each time it runs: {difference}; every process of a job runs the program, so what \
         varies (the order of a HashMap, time, random numbers, files outside the file system) must enter it through \
         `context.once`, `context.share`, `context.broadcast` or the result of an action, and what goes into functions \
         in an order of its own must be sorted; `situ job submit --check-replay` looks for it"
    )
}

fn check_label(what: &str, label: &str) -> Result<(), String> {
    let found = label.len();
    ensure(found <= LABEL_LEN_BYTES, || {
        format!("the name of {what} has {found} bytes; at most {LABEL_LEN_BYTES} are allowed")
    })
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
