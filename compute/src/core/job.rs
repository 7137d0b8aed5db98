use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use situ_wire::ids::{
    ActionId, DatasetId, ExecutorId, JobId, NodeName, OperationId, PartitionId, ScopeId, ShuffleId, StageId,
    TaskAttemptId,
};
use situ_wire::limits::ATTEMPTS_PER_LIFE;
use situ_wire::messages::executor::{JobSecret, LogName};
use situ_wire::messages::scheduler::{
    ActionResult, DriverPlace, FailedAttempt, JobLaunch, JobState, JobStatus, JobSummary, Locality, Lost, Payload,
    PersistedInput, Plan, StageOutput, StagePlan, StageStatus, TaskMetrics, TaskSpec, TaskWork, Work,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::attribution::Outage;
use super::crowding::Crowded;
use super::places::Places;
use super::publications::Publication;
use super::recovery::{RecoveredBy, Recoveries};
use super::reports::Reports;
use super::reserve::Reserved;
use super::resuming::Former;
use super::scopes::Scopes;
use super::stage::{Stage, StageKey};
use super::{RecordId, Submission};

/// How many stages a status lists.
const STAGES_LISTED: usize = 256;
/// What a done action takes beside its name and its results, and what each of these takes beside its bytes, roughly.
const ACTION_KEPT_LEN_BYTES: usize = 160;
const RESULT_KEPT_LEN_BYTES: usize = 32;

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
    /// The policy bounds how many, and how much their results take.
    pub(super) actions: BTreeMap<ActionId, Action>,
    /// Those of them that run.
    pub(super) under_way: BTreeSet<ActionId>,
    /// The scopes of its program that have ended. The policy bounds them with the actions.
    pub(super) scopes: Scopes,
    /// Those of actions under way, and shuffles until they are released. The policy bounds their tasks and pieces.
    pub(super) stages: BTreeMap<StageKey, Stage>,
    /// Since when nothing of it runs; none while something does, and as long as this life of the scheduler does not know.
    pub(super) idle_since: Option<TimeMs>,
    /// Its stages in the order in which they were planned, the newest [`STAGES_LISTED`] of them.
    pub(super) planned: VecDeque<Planned>,
    /// How many of them are not listed any more.
    pub(super) planned_dropped: u64,
    /// Stages that actions under way need.
    pub(super) needed: BTreeSet<StageKey>,
    pub(super) numbers: AttemptNumbers,
    /// The number, among all that were started, of its task that was started last.
    pub(super) served: u64,
    /// Attempts that run, those among them that were cancelled too: there are no more than slots.
    pub(super) attempts: BTreeMap<TaskAttemptId, Attempt>,
    /// Partitions of datasets that its plans keep, until they are released.
    pub(super) cached: Cached,
    pub(super) recoveries: Recoveries,
    pub(super) metrics: TaskMetrics,
    /// The attempt at a task that failed last.
    pub(super) last_failure: Option<FailedAttempt>,
    /// How many of its tasks failed, and how many pieces could not be fetched, by executor, until each is pardoned.
    pub(super) failures: BTreeMap<ExecutorId, Failures>,
    /// Executors that were told how to start its processes: they may have some, or shuffle output of it. There are no more
    /// than executors.
    pub(super) touched: BTreeSet<ExecutorId>,
    /// One for each node, and two for each attempt at the driver.
    pub(super) logs: BTreeSet<(LogName, NodeName)>,
    /// The directories below which it writes aside, and the records that say so; none if an earlier life wrote one. The
    /// policy bounds them.
    pub(super) outputs: BTreeMap<DfsPath, Option<RecordId>>,
    /// What it publishes, by the action that names it: there are no more than actions.
    pub(super) publications: BTreeMap<ActionId, Publication>,
    /// What the shuffles held that actions used which are done, as digests of their pieces: what is computed again must be
    /// the same. Until they are released.
    pub(super) given: BTreeMap<ShuffleId, u64>,
    /// What its shuffles held when they were whole last, until they are released.
    pub(super) held: BTreeMap<ShuffleId, Held>,
    /// Whether its outputs are known not to be the same when they are computed again: then nothing is adopted.
    pub(super) varies: bool,
    /// What executors have of it that no plan names yet. The policy bounds it.
    pub(super) reports: Reports,
    /// Whether an earlier life of the scheduler began it, and executors may still report what they have of it.
    pub(super) resumes: bool,
    /// Shuffles that the driver has released and an action under way may need.
    pub(super) released: BTreeSet<ShuffleId>,
    /// How much the results of its actions, the plans of those under way and the work of its stages take.
    pub(super) kept_len_bytes: usize,
    /// The executor that is kept for a large task of it.
    pub(super) reserved: Option<Reserved>,
    /// If it finds no memory for a worker of it: since when, and who makes room.
    pub(super) crowded: Option<Crowded>,
    /// How many tasks the stages have that it keeps, and how many pieces their shuffles.
    pub(super) tasks: u64,
    pub(super) pieces: u64,
}

/// What a shuffle held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) digest: u64,
    /// The record that says so; none if an earlier life of the scheduler wrote it.
    pub(super) record: Option<RecordId>,
}

/// The driver of a job.
#[derive(Debug, Default)]
pub(super) struct Driver {
    /// If its client is the driver: whether that is heard. Such a one has a single attempt, and nothing below is said of it.
    pub(super) session: Option<Session>,
    /// The attempt that runs, or will.
    pub(super) attempt: u32,
    /// Where; none while it waits for an executor.
    pub(super) place: Option<ExecutorId>,
    /// The attempt that may live on from an earlier life of the scheduler: no other is placed while that is open.
    pub(super) former: Option<Former>,
    /// Whether that attempt has begun.
    pub(super) has_begun: bool,
    /// Until when that attempt must have begun, or be heard again; none when it has no place.
    pub(super) heard_by: Option<TimeMs>,
    /// Where attempts were lost.
    pub(super) lost_on: BTreeSet<ExecutorId>,
    /// How many attempts were lost in this life of the scheduler, but for those that are forgotten.
    pub(super) lost: u32,
    /// When the last of them was lost.
    pub(super) lost_at: Option<TimeMs>,
    /// Whether the job has come on since: something of its program is done that will not be done again.
    pub(super) has_come_on: bool,
    /// The attempt that was given up last because it had not begun in time, and where: perhaps it could not.
    pub(super) given_up: Option<(ExecutorId, u32)>,
    /// The file system is away, which holds its executable.
    pub(super) outage: Option<Outage>,
    /// Until when it is not placed again.
    pub(super) rests_until: Option<TimeMs>,
}

/// How the client lives that is a job's driver.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Session {
    /// Until when it must be heard again; none until this life of the scheduler has looked at the clock.
    pub(super) until: Option<TimeMs>,
}

impl Driver {
    /// Who runs it.
    pub(super) fn kind(&self) -> DriverPlace {
        if self.session.is_some() { DriverPlace::Attached } else { DriverPlace::Placed }
    }

    /// Whether that attempt is the one that counts, and may run.
    pub(super) fn is(&self, attempt: u32) -> bool {
        attempt == self.attempt && (self.place.is_some() || self.session.is_some())
    }
}

/// What became of an action.
#[derive(Debug)]
pub(super) enum Action {
    /// Its stages run.
    Running { digest: [u8; 32], plan: Box<Plan> },
    /// It is done. Its plan is gone: a driver that was started anew shows by the digest that it does the same.
    Done(DoneAction),
    /// The driver recorded a value.
    Recorded {
        value: Bytes,
        /// The record that says so; none if an earlier life of the scheduler wrote it.
        record: Option<RecordId>,
    },
}

impl Action {
    /// Its result, and the record that must be on the disk before anybody hears of it.
    pub(super) fn result(&self) -> Option<(ActionResult, Option<RecordId>)> {
        match self {
            Self::Running { .. } => None,
            Self::Done(done) => Some((ActionResult::Done(done.results.clone()), done.record)),
            Self::Recorded { value, record } => Some((ActionResult::Done(vec![value.clone()]), *record)),
        }
    }
}

/// An action that is done.
#[derive(Clone, Debug)]
pub(super) struct DoneAction {
    pub(super) name: String,
    pub(super) digest: [u8; 32],
    pub(super) results: Vec<Bytes>,
    /// What the shuffles held that it was the first to use.
    pub(super) given: Vec<(ShuffleId, u64)>,
    /// The record that says so; none if an earlier life of the scheduler wrote it.
    pub(super) record: Option<RecordId>,
}

impl DoneAction {
    /// How much of it is kept as long as the job runs.
    pub(super) fn len_bytes(&self) -> usize {
        let results: usize = self.results.iter().map(|result| result.len() + RESULT_KEPT_LEN_BYTES).sum();
        results + self.name.len() + self.given.len() * 16 + ACTION_KEPT_LEN_BYTES
    }
}

/// A stage in the list of a job's stages.
#[derive(Debug)]
pub(super) enum Planned {
    /// It is kept, under this name.
    Kept(StageKey),
    /// It is gone: its action is done, or its shuffle released. These were its figures.
    Gone(Box<StageStatus>),
}

/// One attempt at a task, while its executor has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) stage: StageKey,
    pub(super) executor: ExecutorId,
    pub(super) started: TimeMs,
    /// Another one won, or nobody needs it: it only takes its slot until its executor says that it ended.
    pub(super) cancelled: bool,
    /// Whether its worker was told to run nothing else beside it.
    pub(super) alone: bool,
}

/// The numbers of attempts: no two at the same task of a job have the same, or what an executor says late of one would be
/// taken for what it says of another.
#[derive(Debug, Default)]
pub(super) struct AttemptNumbers {
    /// The next one for each task of the stages that are kept, by what a [`TaskAttemptId`] says of it.
    next: BTreeMap<(StageId, PartitionId), u32>,
    /// The last of the stages that are gone of each scope, and what no attempt at a task of them had reached. Programs do not
    /// come back to them; should one, it goes on from there.
    gone: BTreeMap<ScopeId, (StageId, u32)>,
}

impl AttemptNumbers {
    /// The number of the next attempt in this life of the scheduler.
    pub(super) fn take(&mut self, life: u32, stage: StageId, partition: PartitionId) -> u32 {
        let first = life.saturating_mul(ATTEMPTS_PER_LIFE);
        let gone = self.gone.get(&stage.0).filter(|(last, _)| stage <= *last);
        let after = gone.map_or(first, |(_, after)| first.max(*after));
        let next = self.next.entry((stage, partition)).or_insert(after);
        let number = *next;
        *next += 1;
        number
    }

    /// The number that an attempt at a task would have now.
    pub(super) fn next(&self, life: u32, stage: StageId, partition: PartitionId) -> u32 {
        let first = life.saturating_mul(ATTEMPTS_PER_LIFE);
        let next = self.next.get(&(stage, partition)).copied().or(self.gone.get(&stage.0).map(|(_, after)| *after));
        next.unwrap_or(first).max(first)
    }

    /// A stage is gone.
    pub(super) fn forget(&mut self, stage: StageId) {
        let all = (stage, PartitionId(0))..=(stage, PartitionId(u32::MAX));
        let numbers: Vec<((StageId, PartitionId), u32)> = self.next.range(all).map(|(of, next)| (*of, *next)).collect();
        let (last, after) = self.gone.get(&stage.0).copied().unwrap_or((stage, 0));
        let after = numbers.iter().map(|(_, next)| *next).max().unwrap_or(0).max(after);
        self.gone.insert(stage.0, (last.max(stage), after));
        for (of, _) in numbers {
            self.next.remove(&of);
        }
    }

    /// A scope has ended: no program comes back to its stages.
    pub(super) fn forget_all_of(&mut self, scope: ScopeId) {
        self.gone.remove(&scope);
        let stages = StageId::all_of(scope);
        let all = (*stages.start(), PartitionId(0))..=(*stages.end(), PartitionId(u32::MAX));
        let numbered: Vec<(StageId, PartitionId)> = self.next.range(all).map(|(of, _)| *of).collect();
        for of in numbered {
            self.next.remove(&of);
        }
    }

    /// For how many tasks and scopes one is kept.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.next.len() + self.gone.len().saturating_sub(1)
    }
}

/// What went wrong for a job on one executor, lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    pub(super) tasks: u32,
    pub(super) fetches: u32,
    /// Until when that counts.
    pub(super) until: TimeMs,
    /// Its worker there has crashed, and no task has told of it yet: the first one counts.
    pub(super) crashed: bool,
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

    /// A worker that goes on has dropped a partition, which is no loss: it was told to keep it while there is room.
    pub(super) fn remove(&mut self, what: (DatasetId, PartitionId), executor: ExecutorId) {
        if let Some(holders) = self.holders.get_mut(&what) {
            holders.remove(&executor);
            if holders.is_empty() {
                self.holders.remove(&what);
            }
        }
    }

    /// Who holds what that partition of a stage reads of any of its persisted datasets.
    pub(super) fn holders(&self, persisted: &[PersistedInput], partition: u32) -> BTreeSet<ExecutorId> {
        let of = |input: &PersistedInput| {
            let partition = PartitionId(input.partition(partition)?);
            self.holders.get(&(input.dataset, partition))
        };
        persisted.iter().filter_map(of).flat_map(BTreeMap::keys).copied().collect()
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

    /// The datasets of which anybody holds something, each once for each partition.
    pub(super) fn datasets(&self) -> impl Iterator<Item = DatasetId> {
        self.holders.keys().map(|(dataset, _)| *dataset)
    }

    /// Whether anybody holds anything of a dataset.
    pub(super) fn has(&self, dataset: DatasetId) -> bool {
        let all = (dataset, PartitionId(0))..=(dataset, PartitionId(u32::MAX));
        self.holders.range(all).next().is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Who holds what, and which attempt put it there.
    pub(super) fn all(&self) -> impl Iterator<Item = ((DatasetId, PartitionId), ExecutorId, TaskAttemptId)> {
        let holders = |(what, holders): (&(DatasetId, PartitionId), &BTreeMap<ExecutorId, TaskAttemptId>)| {
            let what = *what;
            holders.clone().into_iter().map(move |(executor, by)| (what, executor, by))
        };
        self.holders.iter().flat_map(holders)
    }

    /// Nobody reads these datasets any more.
    pub(super) fn release(&mut self, is_released: impl Fn(&DatasetId) -> bool) {
        self.holders.retain(|(dataset, _), _| !is_released(dataset));
    }

    /// For how many partitions somebody is known.
    pub(super) fn len(&self) -> usize {
        self.holders.len()
    }

    pub(super) fn executors(&self) -> BTreeSet<ExecutorId> {
        self.holders.values().flat_map(BTreeMap::keys).copied().collect()
    }
}

impl Job {
    pub(super) fn new(
        Submission { job, operation, user, program, arguments, submitted, options, driver }: Submission,
        secret: JobSecret,
        record: Option<RecordId>,
    ) -> Self {
        // Whoever opens a session says until when it lasts.
        let session = (driver == DriverPlace::Attached).then(Session::default);
        Self {
            launch: JobLaunch { job, secret, user, program, arguments, options, attached: session.is_some() },
            operation,
            state: JobState::Waiting,
            submitted,
            revision: 1,
            record,
            driver: Driver { session, ..Driver::default() },
            idle_since: None,
            served: 0,
            actions: BTreeMap::new(),
            under_way: BTreeSet::new(),
            scopes: Scopes::default(),
            stages: BTreeMap::new(),
            planned: VecDeque::new(),
            planned_dropped: 0,
            needed: BTreeSet::new(),
            numbers: AttemptNumbers::default(),
            attempts: BTreeMap::new(),
            cached: Cached::default(),
            recoveries: Recoveries::default(),
            metrics: TaskMetrics::default(),
            last_failure: None,
            failures: BTreeMap::new(),
            touched: BTreeSet::new(),
            logs: BTreeSet::new(),
            outputs: BTreeMap::new(),
            publications: BTreeMap::new(),
            given: BTreeMap::new(),
            held: BTreeMap::new(),
            varies: false,
            reports: Reports::default(),
            resumes: false,
            released: BTreeSet::new(),
            kept_len_bytes: 0,
            reserved: None,
            crowded: None,
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
        self.tasks += u64::from(stage.plan.partitions);
        self.pieces += pieces(&stage.plan);
        self.stages.insert(key, stage);
        self.planned.push_back(Planned::Kept(key));
        if self.planned.len() > STAGES_LISTED && self.planned.pop_front().is_some() {
            self.planned_dropped += 1;
        }
    }

    /// Nobody needs a stage any more: only its figures stay, as long as they are listed.
    pub(super) fn forget_stage(&mut self, key: StageKey) -> Option<Stage> {
        let stage = self.stages.remove(&key)?;
        self.needed.remove(&key);
        self.tasks -= u64::from(stage.plan.partitions);
        self.pieces -= pieces(&stage.plan);
        self.kept_len_bytes -= work_len_bytes(&stage.plan);
        let is = |planned: &&mut Planned| matches!(planned, Planned::Kept(other) if *other == key);
        if let Some(planned) = self.planned.iter_mut().rev().find(is) {
            *planned = Planned::Gone(Box::new(stage.status()));
        }
        self.recoveries.forget_stage(key);
        // Two stages may end with the same dataset.
        if self.stages.values().all(|other| other.plan.stage != stage.plan.stage) {
            self.numbers.forget(stage.plan.stage);
        }
        if self.scopes.has_ended(&[stage.plan.stage.0]) {
            self.numbers.forget_all_of(stage.plan.stage.0);
        }
        Some(stage)
    }

    /// Finds out which stages the actions under way need, from their results back to what is complete. A stage that is
    /// newly needed indexes its tasks anew, and outputs that it lost unnoticed are missed now.
    pub(super) fn find_needed(&mut self, at: TimeMs, places: &Places) {
        let mut needed: BTreeMap<StageKey, ActionId> = BTreeMap::new();
        for action in &self.under_way {
            let mut open: Vec<StageKey> = self.root(*action).into_iter().collect();
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
            stages: self.planned.iter().filter_map(|planned| self.listed(planned)).collect(),
            stages_dropped: self.planned_dropped,
            recoveries: self.recoveries.listed(),
            recoveries_dropped: self.recoveries.dropped(),
            metrics: self.metrics,
            driver: self.driver.kind(),
            options: self.launch.options,
            waiting: None,
            last_failure: self.last_failure.clone(),
        }
    }

    fn listed(&self, planned: &Planned) -> Option<StageStatus> {
        match planned {
            Planned::Kept(key) => self.stages.get(key).map(Stage::status),
            Planned::Gone(status) => Some(StageStatus::clone(status)),
        }
    }

    /// What an attempt is told that runs so near to its input and takes so many slots.
    pub(super) fn task_spec(
        &self,
        attempt: TaskAttemptId,
        stage: &Stage,
        (locality, slots): (Locality, u32),
    ) -> Option<TaskSpec> {
        let action = stage.needed_by?;
        let Some(Action::Running { digest, .. }) = self.actions.get(&action) else { return None };
        let work = match &stage.plan.work {
            None => TaskWork::Replay { action, plan_digest: *digest },
            Some(work) => TaskWork::Payload { action, kind: work.kind.clone(), digest: work.digest },
        };
        let (output, alone) = (stage.plan.output, stage.task(attempt.partition).is_alone());
        Some(TaskSpec { attempt, work, output, locality, alone, slots })
    }

    /// What the results of an action come from: its last stage. None if it does not run.
    pub(super) fn root(&self, action: ActionId) -> Option<StageKey> {
        match self.actions.get(&action)? {
            Action::Running { plan, .. } => plan.stages.last().map(|stage| StageKey::from(stage.output)),
            Action::Done(_) | Action::Recorded { .. } => None,
        }
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

/// How much of a stage's work is kept with it.
pub(super) fn work_len_bytes(stage: &StagePlan) -> usize {
    match &stage.work {
        Some(Work { payload: Payload::Inline(bytes), .. }) => bytes.len(),
        Some(Work { payload: Payload::Stored { .. }, .. }) | None => 0,
    }
}

/// How many pieces the output of a stage has.
pub(super) fn pieces(stage: &StagePlan) -> u64 {
    match stage.output {
        StageOutput::Shuffle { reducers, .. } => u64::from(stage.partitions) * u64::from(reducers),
        StageOutput::Result { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_a_worker_has_dropped_is_looked_for_elsewhere() {
        let mut cached = Cached::default();
        let what = (DatasetId(ScopeId::ROOT, 1), PartitionId(0));
        let by =
            TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 2), partition: PartitionId(0), attempt: 0 };
        cached.insert(what, ExecutorId(1), by);
        cached.insert(what, ExecutorId(2), by);
        cached.remove(what, ExecutorId(1));
        cached.remove((DatasetId(ScopeId::ROOT, 1), PartitionId(1)), ExecutorId(2));
        assert_eq!(cached.executors(), BTreeSet::from([ExecutorId(2)]));
        cached.remove(what, ExecutorId(2));
        assert!(cached.executors().is_empty() && cached.drop_executor(ExecutorId(2)).is_empty());
    }
}
