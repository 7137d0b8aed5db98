use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use situ_wire::ids::{
    ActionId, DatasetId, ExecutorId, JobId, NodeName, OperationId, PartitionId, ShuffleId, StageId, TaskAttemptId,
};
use situ_wire::messages::executor::{JobSecret, LogName};
use situ_wire::messages::scheduler::{
    JobLaunch, JobState, JobStatus, JobSummary, Locality, Lost, Plan, Program, TaskMetrics, TaskSpec,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::RecordId;
use super::places::Places;
use super::recovery::{RecoveredBy, Recoveries};
use super::stage::{Stage, StageKey};

/// How many stages a status lists.
const STAGES_LISTED: usize = 256;

/// An unfinished job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) launch: JobLaunch,
    pub(super) operation: OperationId,
    pub(super) state: JobState,
    pub(super) submitted: TimeMs,
    pub(super) revision: u64,
    /// The record that must be on the disk before it begins: that it was submitted, or, if that was in an earlier life of
    /// the scheduler, that this one began.
    pub(super) record: Option<RecordId>,
    pub(super) driver: Driver,
    pub(super) actions: BTreeMap<ActionId, Action>,
    /// Those of them that are under way.
    pub(super) running: BTreeSet<ActionId>,
    pub(super) stages: BTreeMap<StageKey, Stage>,
    /// Its stages in the order in which they were planned, the newest of them.
    pub(super) planned: VecDeque<StageKey>,
    /// How many of them are not listed any more.
    pub(super) planned_dropped: u64,
    /// Stages that actions under way need.
    pub(super) needed: BTreeSet<StageKey>,
    /// The number of the next attempt at a task, by what a [`TaskAttemptId`] says of it.
    pub(super) next_attempt: BTreeMap<(StageId, PartitionId), u32>,
    /// The number, among all that were started, of its task that was started last.
    pub(super) served: u64,
    /// Attempts that run, those among them that were cancelled too.
    pub(super) attempts: BTreeMap<TaskAttemptId, Attempt>,
    pub(super) cached: Cached,
    pub(super) recoveries: Recoveries,
    pub(super) metrics: TaskMetrics,
    /// How many of its tasks failed, and how many pieces could not be fetched, by executor.
    pub(super) failures: BTreeMap<ExecutorId, Failures>,
    /// Executors that may have processes or shuffle output of it.
    pub(super) touched: BTreeSet<ExecutorId>,
    pub(super) logs: BTreeSet<(LogName, NodeName)>,
    /// The directories below which it writes aside, and the records that say so; none if an earlier life wrote one.
    pub(super) outputs: BTreeMap<DfsPath, Option<RecordId>>,
    /// How much the results and plans of its actions take.
    pub(super) kept_len_bytes: usize,
    pub(super) tasks: u64,
    pub(super) pieces: u64,
}

/// The driver of a job.
#[derive(Debug, Default)]
pub(super) struct Driver {
    /// The attempt that runs, or will.
    pub(super) attempt: u32,
    /// Where; none while it waits for an executor.
    pub(super) place: Option<ExecutorId>,
    /// Until when that attempt must have begun; none when it has, or has no place.
    pub(super) begins_by: Option<TimeMs>,
    /// Where attempts were lost.
    pub(super) lost_on: BTreeSet<ExecutorId>,
    /// How many attempts were lost in this life of the scheduler.
    pub(super) lost: u32,
}

/// What became of an action.
#[derive(Debug)]
pub(super) enum Action {
    /// Its stages run.
    Running { digest: [u8; 32], plan: Box<Plan> },
    /// It is done.
    Done { digest: [u8; 32], plan: Box<Plan>, results: Vec<Bytes> },
    /// The driver recorded a value.
    Recorded(Bytes),
}

/// One attempt at a task, while its executor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) stage: StageKey,
    pub(super) executor: ExecutorId,
    pub(super) started: TimeMs,
    /// Another one won, or nobody needs it: it only takes its slot until its executor says that it ended.
    pub(super) cancelled: bool,
}

/// What went wrong for a job on one executor.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    pub(super) tasks: u32,
    pub(super) fetches: u32,
}

/// Which workers hold which partitions in memory, and which attempt put them there.
#[derive(Debug, Default)]
pub(super) struct Cached {
    holders: BTreeMap<(DatasetId, PartitionId), BTreeMap<ExecutorId, TaskAttemptId>>,
}

impl Cached {
    pub(super) fn insert(&mut self, what: (DatasetId, PartitionId), executor: ExecutorId, by: TaskAttemptId) {
        self.holders.entry(what).or_default().insert(executor, by);
    }

    /// Who holds that partition of any of these datasets. A persisted dataset is taken to be read partition by partition
    /// by its stage: where it is not, a task starts in the wrong place and is still right.
    pub(super) fn holders(&self, datasets: &[DatasetId], partition: u32) -> BTreeSet<ExecutorId> {
        let of = |dataset: &DatasetId| self.holders.get(&(*dataset, PartitionId(partition)));
        datasets.iter().filter_map(of).flat_map(BTreeMap::keys).copied().collect()
    }

    /// The worker on `executor` is gone: what nobody holds now.
    pub(super) fn drop_executor(&mut self, executor: ExecutorId) -> Vec<((DatasetId, PartitionId), TaskAttemptId)> {
        let mut gone = Vec::new();
        self.holders.retain(|what, holders| {
            if let Some(by) = holders.remove(&executor)
                && holders.is_empty()
            {
                gone.push((*what, by));
            }
            !holders.is_empty()
        });
        gone
    }

    pub(super) fn executors(&self) -> BTreeSet<ExecutorId> {
        self.holders.values().flat_map(BTreeMap::keys).copied().collect()
    }
}

impl Job {
    pub(super) fn new(
        (id, operation, submitted): (JobId, OperationId, TimeMs),
        user: String,
        program: Program,
        arguments: Vec<String>,
        secret: JobSecret,
        record: Option<RecordId>,
    ) -> Self {
        Self {
            launch: JobLaunch { job: id, secret, user, program, arguments },
            operation,
            state: JobState::Waiting,
            submitted,
            revision: 1,
            record,
            driver: Driver::default(),
            served: 0,
            actions: BTreeMap::new(),
            running: BTreeSet::new(),
            stages: BTreeMap::new(),
            planned: VecDeque::new(),
            planned_dropped: 0,
            needed: BTreeSet::new(),
            next_attempt: BTreeMap::new(),
            attempts: BTreeMap::new(),
            cached: Cached::default(),
            recoveries: Recoveries::default(),
            metrics: TaskMetrics::default(),
            failures: BTreeMap::new(),
            touched: BTreeSet::new(),
            logs: BTreeSet::new(),
            outputs: BTreeMap::new(),
            kept_len_bytes: 0,
            tasks: 0,
            pieces: 0,
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.launch.job
    }

    /// Whether all outputs of a shuffle are there.
    pub(super) fn is_complete(&self, shuffle: ShuffleId) -> bool {
        self.stages.get(&StageKey::Shuffle(shuffle)).is_some_and(Stage::is_complete)
    }

    /// Takes a stage into its plans.
    pub(super) fn plan(&mut self, key: StageKey, stage: Stage) {
        self.stages.insert(key, stage);
        self.planned.push_back(key);
        if self.planned.len() > STAGES_LISTED
            && let Some(oldest) = self.planned.pop_front()
        {
            self.planned_dropped += 1;
            self.forget_closed(oldest);
        }
    }

    /// Drops the figures of a closed stage that is not listed any more.
    pub(super) fn forget_closed(&mut self, key: StageKey) {
        let StageKey::Result(action) = key else { return };
        let closed = !matches!(self.actions.get(&action), Some(Action::Running { .. }));
        if closed && !self.planned.contains(&key) {
            self.stages.remove(&key);
        }
    }

    /// Finds out which stages the actions under way need, from their results back to what is complete. A stage that is
    /// newly needed indexes its tasks anew, and outputs that it lost unnoticed are missed now.
    pub(super) fn find_needed(&mut self, at: TimeMs, places: &Places) {
        let mut needed: BTreeMap<StageKey, ActionId> = BTreeMap::new();
        for action in &self.running {
            let mut open = vec![StageKey::Result(*action)];
            while let Some(key) = open.pop() {
                let Some(stage) = self.stages.get(&key).filter(|stage| !stage.is_complete()) else { continue };
                if let Entry::Vacant(entry) = needed.entry(key) {
                    entry.insert(*action);
                    open.extend(stage.plan.reads.iter().map(|shuffle| StageKey::Shuffle(*shuffle)));
                }
            }
        }
        for key in std::mem::take(&mut self.needed) {
            if !needed.contains_key(&key)
                && let Some(stage) = self.stages.get_mut(&key)
            {
                stage.rest();
                self.recoveries.give_up_stage(key, at);
            }
        }
        for (key, action) in needed {
            self.needed.insert(key);
            self.need(key, action, places);
        }
    }

    fn need(&mut self, key: StageKey, action: ActionId, places: &Places) {
        let reads_complete = |stage: &Stage| stage.plan.reads.iter().all(|shuffle| self.is_complete(*shuffle));
        let ready = self.stages.get(&key).is_some_and(reads_complete);
        let Self { stages, cached, recoveries, .. } = self;
        let Some(stage) = stages.get_mut(&key) else { return };
        stage.ready = ready;
        if stage.needed_by.replace(action).is_none() {
            stage.sort(cached, places);
        }
        for (partition, lost) in std::mem::take(&mut stage.lost) {
            let by = RecoveredBy::Task(key, PartitionId(partition));
            recoveries.lose(Lost::MapOutput, lost.attempt, lost.node, lost.at, by);
        }
    }

    pub(super) fn summary(&self) -> JobSummary {
        let JobLaunch { job, user, program, arguments, .. } = self.launch.clone();
        let (state, submitted) = (self.state.clone(), self.submitted);
        JobSummary { job, program, arguments, user, state, submitted, ended: None }
    }

    pub(super) fn status(&self) -> JobStatus {
        JobStatus {
            summary: self.summary(),
            revision: self.revision,
            stages: self.planned.iter().filter_map(|key| self.stages.get(key)).map(Stage::status).collect(),
            stages_dropped: self.planned_dropped,
            recoveries: self.recoveries.listed(),
            recoveries_dropped: self.recoveries.dropped(),
            metrics: self.metrics,
        }
    }

    /// What an attempt is told.
    pub(super) fn task_spec(&self, attempt: TaskAttemptId, stage: &Stage, locality: Locality) -> Option<TaskSpec> {
        let action = stage.needed_by?;
        let Some(Action::Running { digest, .. }) = self.actions.get(&action) else { return None };
        Some(TaskSpec { attempt, action, plan_digest: *digest, output: stage.plan.output, locality })
    }

    /// Adds what a done task took.
    pub(super) fn add_metrics(&mut self, done: &TaskMetrics) {
        let sum = &mut self.metrics;
        for (sum, more) in [
            (&mut sum.input_bytes, done.input_bytes),
            (&mut sum.remote_bytes, done.remote_bytes),
            (&mut sum.shuffle_read_bytes, done.shuffle_read_bytes),
            (&mut sum.shuffle_written_bytes, done.shuffle_written_bytes),
            (&mut sum.records, done.records),
            (&mut sum.wall_ms, done.wall_ms),
            (&mut sum.failovers, done.failovers),
        ] {
            // The figures come from a user's process.
            *sum = sum.saturating_add(more);
        }
    }
}
