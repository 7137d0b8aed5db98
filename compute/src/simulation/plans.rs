use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, JobId, ScopeId};
use situ_wire::messages::scheduler::{PartitionRange, PersistedInput, Plan, StageOutput};

use super::EXECUTORS;
use super::random::Random;
use crate::core::tests::world::{moved, place, word_count};

/// The job whose map tasks do not give the same output twice.
pub(super) const VARYING: JobId = JobId(2);

/// What a driver does next. A scope is named with those around it, the innermost first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Begin,
    /// Says that it is about to write aside.
    Aside,
    /// Comes to a scope, which may have ended before.
    Enter(Vec<ScopeId>),
    Run(ActionId),
    Leave(Vec<ScopeId>),
    Publish,
    End,
}

/// The program of a job: actions of its own, a scope, a scope within a scope.
pub(super) fn program(job: JobId) -> Vec<Step> {
    let [alone, outer, inner] = [1, 2, 3].map(|number| ScopeId(job.0 * 10 + number));
    let run = |scope, number| Step::Run(ActionId(scope, number));
    let mut steps = vec![Step::Begin, Step::Aside, run(ScopeId::ROOT, 0), run(ScopeId::ROOT, 1)];
    let within = vec![alone];
    steps.extend([Step::Enter(within.clone()), run(alone, 0), run(alone, 1), Step::Leave(within)]);
    if job != VARYING {
        let (outside, inside) = (vec![outer], vec![inner, outer]);
        steps.extend([Step::Enter(outside.clone()), run(outer, 0)]);
        steps.extend([Step::Enter(inside.clone()), run(inner, 0), Step::Leave(inside)]);
        steps.extend([Step::Leave(outside)]);
    }
    steps.extend([run(ScopeId::ROOT, 2), Step::Publish, Step::End]);
    steps
}

/// The plan of an action of a job: later actions of a scope read the shuffle of its first.
pub(super) fn plan(job: JobId, ActionId(scope, number): ActionId) -> Plan {
    let mut random = Random((job.0 << 32 | scope.0) | 1);
    random.next();
    let maps = 1 + random.below(if scope == ScopeId::ROOT { 12 } else { 5 });
    let executor = |random: &mut Random| u32::try_from(1 + random.below(EXECUTORS.into())).unwrap();
    let places = (0..maps).map(|_| (0..random.below(3)).map(|_| place(executor(&mut random))).collect()).collect();
    let reducers = executor(&mut random);
    let mut plan = word_count(places, reducers);
    plan.name = format!("action {number}");
    // Some tasks take a whole executor.
    for stage in &mut plan.stages {
        stage.resources.cores = 1 + u32::from(random.below(4) == 0);
    }
    let last = plan.stages.last_mut().unwrap();
    last.output = StageOutput::Result { action: ActionId(ScopeId::ROOT, number) };
    if job != VARYING {
        let partitions = vec![PartitionRange { stage: 0, dataset: 0, count: last.partitions }];
        last.persisted = vec![PersistedInput { dataset: DatasetId(ScopeId::ROOT, 2), partitions }];
    }
    if scope == ScopeId::ROOT { plan } else { moved(scope, plan) }
}

pub(super) fn result_of(job: JobId, action: ActionId, partition: u32, contents: &[u32]) -> Bytes {
    Bytes::from(format!("{job} {action} {partition} {contents:?}"))
}
