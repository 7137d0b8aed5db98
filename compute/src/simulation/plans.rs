use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, JobId, ScopeId};
use situ_wire::messages::scheduler::{PartitionRange, PersistedInput, Plan, StageOutput, StagePlan};

use super::EXECUTORS;
use super::random::Random;
use crate::core::tests::world::{place, word_count};

/// The job whose map tasks do not give the same output twice.
pub(super) const VARYING: JobId = JobId(2);

/// The plan of an action of a job: later actions read the shuffle of the first.
pub(super) fn plan(seed: u64, job: JobId, action: u32) -> Plan {
    let mut random = Random(seed ^ (job.0 << 32) | 1);
    random.next();
    let maps = 1 + random.below(12);
    let number = |random: &mut Random| u32::try_from(1 + random.below(EXECUTORS.into())).unwrap();
    let places = (0..maps).map(|_| (0..random.below(3)).map(|_| place(number(&mut random))).collect()).collect();
    let reducers = number(&mut random);
    let mut plan = word_count(places, reducers);
    plan.name = format!("action {action}");
    // Some tasks take a whole executor.
    for stage in &mut plan.stages {
        stage.resources.cores = 1 + u32::from(random.below(4) == 0);
    }
    let last = plan.stages.last_mut().unwrap();
    last.output = StageOutput::Result { action: ActionId(ScopeId::ROOT, action) };
    if job != VARYING {
        let partitions = vec![PartitionRange { stage: 0, dataset: 0, count: last.partitions }];
        last.persisted = vec![PersistedInput { dataset: DatasetId(ScopeId::ROOT, 2), partitions }];
    }
    plan
}

pub(super) fn result_of(job: JobId, action: ActionId, partition: u32, contents: &[u32]) -> Bytes {
    Bytes::from(format!("{job} {action} {partition} {contents:?}"))
}

pub(super) trait Partitions {
    fn plan_partitions(&self) -> usize;
}

impl Partitions for StagePlan {
    fn plan_partitions(&self) -> usize {
        self.partitions.try_into().unwrap()
    }
}
