use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{DatasetId, ExecutorId, JobId, PartitionId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{
    ExecutorCommand, Holding, StageOutput, TaskDone, TaskFailure, TaskOutcome, TaskSpec, TaskWork,
};
use situ_wire::time::TimeMs;

use super::job::{Action, Attempt, Cached, Job};
use super::policy::SchedulingPolicy;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::{DoneTask, Stage, StageKey, index};
use super::tasks::check_done;

/// What a report takes beside its result and its pieces, roughly.
const REPORT_LEN_BYTES: usize = 256;
/// What a piece takes, roughly.
const ITEM_LEN_BYTES: usize = 32;

/// How many partitions in memory are kept; of others it is not known that they are there.
const CACHED: usize = 1_000_000;

/// What executors have of a job, as they said when they registered, until a plan names it.
#[derive(Debug, Default)]
pub(super) struct Reports {
    tasks: BTreeMap<StageKey, BTreeMap<TaskAttemptId, Report>>,
    /// Partitions in memory.
    pub(super) cached: Cached,
    /// How much the tasks take, roughly.
    len_bytes: usize,
}

/// What an executor has of a task.
#[derive(Debug)]
struct Report {
    executor: ExecutorId,
    what: Reported,
}

#[derive(Debug)]
enum Reported {
    /// It runs.
    Runs(Box<TaskSpec>),
    /// It is done, and what it left is there.
    Done(Box<TaskDone>),
}

impl Report {
    fn len_bytes(&self) -> usize {
        let more = match &self.what {
            Reported::Runs(_) => 0,
            Reported::Done(done) => done.result.len() + done.pieces.len() * ITEM_LEN_BYTES,
        };
        REPORT_LEN_BYTES + more
    }

    fn pieces(&self) -> Option<&[ShufflePiece]> {
        match &self.what {
            Reported::Runs(_) => None,
            Reported::Done(done) => Some(&done.pieces),
        }
    }
}

impl Reports {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Of which stages there are some.
    pub(super) fn keys(&self) -> impl Iterator<Item = &StageKey> {
        self.tasks.keys()
    }

    /// Whether an attempt runs somewhere and is in no plan yet.
    pub(super) fn runs(&self, id: TaskAttemptId) -> bool {
        self.tasks.values().any(|reports| matches!(reports.get(&id), Some(Report { what: Reported::Runs(_), .. })))
    }

    /// Keeps a report; the first one counts. False if there is no room: then that task runs again.
    fn insert(&mut self, key: StageKey, id: TaskAttemptId, report: Report, policy: &SchedulingPolicy) -> bool {
        let pieces = usize::try_from(policy.pieces).unwrap_or(usize::MAX);
        let most = policy.results_len_bytes.saturating_add(pieces.saturating_mul(ITEM_LEN_BYTES));
        let len = self.len_bytes + report.len_bytes();
        if len > most {
            return false;
        }
        let reports = self.tasks.entry(key).or_default();
        if let std::collections::btree_map::Entry::Vacant(entry) = reports.entry(id) {
            entry.insert(report);
            self.len_bytes = len;
        }
        true
    }

    /// Takes out the report that an executor has an attempt that runs.
    fn take_running(&mut self, executor: ExecutorId, id: TaskAttemptId) -> Option<Box<TaskSpec>> {
        for reports in self.tasks.values_mut() {
            let runs = |report: &Report| report.executor == executor && matches!(report.what, Reported::Runs(_));
            if reports.get(&id).is_some_and(runs)
                && let Some(report) = reports.remove(&id)
            {
                self.len_bytes -= report.len_bytes();
                return match report.what {
                    Reported::Runs(task) => Some(task),
                    Reported::Done(_) => None,
                };
            }
        }
        None
    }

    fn take_stage(&mut self, key: StageKey) -> BTreeMap<TaskAttemptId, Report> {
        let reports = self.tasks.remove(&key).unwrap_or_default();
        self.len_bytes -= reports.values().map(Report::len_bytes).sum::<usize>();
        reports
    }

    /// An executor is gone.
    pub(super) fn drop_executor(&mut self, executor: ExecutorId) {
        let _ = self.cached.drop_executor(executor);
        for reports in self.tasks.values_mut() {
            for (_, report) in reports.extract_if(.., |_, report| report.executor == executor) {
                self.len_bytes -= report.len_bytes();
            }
        }
        self.tasks.retain(|_, reports| !reports.is_empty());
    }
}

/// What executors report is adopted as soon as a plan names it and what it was made from is known to be the same: a stage
/// that reads shuffles when these are whole, a shuffle also when it is whole itself and holds what the journal says.
impl Scheduler {
    /// An executor says what it has.
    pub(super) fn holds(&mut self, now: TimeMs, executor: ExecutorId, holding: Holding) {
        let Some(job) = holding.job() else { return self.whole(executor) };
        if !self.jobs.contains_key(&job) {
            // It has ended since the executor registered. What takes away what it wrote aside may run there already.
            let cleans = self.executors.get(executor).is_some_and(|there| there.drivers.contains_key(&job));
            if matches!(holding, Holding::Job(_)) && !cleans {
                self.executors.command(executor, ExecutorCommand::EndJob { job });
            }
            return;
        }
        if self.policy.resume_ms == 0 {
            return;
        }
        self.touch(job, executor);
        match holding {
            Holding::Driver { attempt, .. } => self.driver_held(now, executor, job, attempt),
            Holding::Task(task) => self.task_held(now, executor, task),
            Holding::Left { attempt, output, done } => self.left_held(executor, attempt, output, done),
            Holding::Cached { attempt, partitions } => self.cached_held(executor, attempt, partitions),
            Holding::Job(_) | Holding::Whole => {}
        }
    }

    fn task_held(&mut self, now: TimeMs, executor: ExecutorId, task: Box<TaskSpec>) {
        let (id, key, action, slots) = (task.attempt, StageKey::from(task.output), task.work.action(), task.slots);
        let Some(found) = self.jobs.get_mut(&id.job) else { return };
        if found.attempts.get(&id).is_some_and(|attempt| attempt.executor == executor) {
            return;
        }
        let report = Report { executor, what: Reported::Runs(task) };
        let kept = !found.attempts.contains_key(&id)
            && found.may_adopt(self.life, id)
            && !found.is_over(action)
            && found.reports.insert(key, id, report, &self.policy);
        match self.executors.get_mut(executor) {
            Some(there) if kept => {
                there.begin(id.job, now);
                there.reported.insert(id, slots.clamp(1, there.registration.slots));
            }
            _ => self.executors.command(executor, ExecutorCommand::CancelTask { attempt: id }),
        }
    }

    fn left_held(&mut self, executor: ExecutorId, id: TaskAttemptId, output: StageOutput, mut done: Box<TaskDone>) {
        let Some(found) = self.jobs.get_mut(&id.job) else { return };
        // The end of one that runs there is told.
        if found.attempts.contains_key(&id) {
            return;
        }
        match output {
            StageOutput::Result { action } if found.is_over(action) => return,
            // It did not hear of the end, or wrote this since.
            StageOutput::Shuffle { shuffle, .. } if found.scopes.has_ended(&[shuffle.0]) => {
                let release = ExecutorCommand::Release { job: id.job, shuffles: vec![shuffle] };
                return self.executors.command(executor, release);
            }
            StageOutput::Result { .. } | StageOutput::Shuffle { .. } if !found.may_adopt(self.life, id) => return,
            StageOutput::Result { .. } | StageOutput::Shuffle { .. } => {}
        }
        done.cached = Vec::new();
        let report = Report { executor, what: Reported::Done(done) };
        // What there is no room for is computed again.
        found.reports.insert(StageKey::from(output), id, report, &self.policy);
    }

    fn cached_held(&mut self, executor: ExecutorId, id: TaskAttemptId, partitions: Vec<(DatasetId, PartitionId)>) {
        let Some(found) = self.jobs.get_mut(&id.job).filter(|found| found.may_adopt(self.life, id)) else { return };
        let partitions = partitions.into_iter().filter(|(dataset, _)| !found.scopes.has_ended(&[dataset.0]));
        for what in partitions.take(CACHED.saturating_sub(found.reports.cached.len())) {
            found.reports.cached.insert(what, executor, id);
        }
    }

    /// A task has ended that was reported to run and is in no plan yet.
    pub(super) fn reported_ended(
        &mut self,
        now: TimeMs,
        executor: ExecutorId,
        id: TaskAttemptId,
        outcome: TaskOutcome,
    ) {
        let Some(found) = self.jobs.get_mut(&id.job) else { return };
        let Some(task) = found.reports.take_running(executor, id) else { return };
        if let Some(there) = self.executors.get_mut(executor) {
            there.reported.remove(&id);
        }
        match outcome {
            TaskOutcome::Done(mut done) => {
                let cached = std::mem::take(&mut done.cached);
                self.left_held(executor, id, task.output, done);
                self.cached_held(executor, id, cached);
                self.adopt(now, id.job);
            }
            // It waits, once there is a plan.
            TaskOutcome::Failed(TaskFailure::PlanMismatch { message }) => {
                self.fail_job(now, id.job, &super::plan::differs(&message));
            }
            TaskOutcome::Failed(_) => {}
        }
    }

    /// Takes into the plans of a job what executors have reported, as far as it fits.
    pub(super) fn adopt(&mut self, now: TimeMs, job: JobId) {
        self.adopt_cached(job);
        loop {
            let Some(found) = self.jobs.get(&job).filter(|found| !found.reports.is_empty()) else { return };
            let planned = |key: &&StageKey| found.stages.contains_key(key);
            let keys: Vec<StageKey> = found.reports.tasks.keys().filter(planned).copied().collect();
            match keys.into_iter().find(|key| self.adopt_stage(now, job, *key)) {
                // What reads it may follow.
                Some(complete) => self.stage_complete(now, job, complete),
                None => return,
            }
        }
    }

    /// Takes in what was reported of a stage; whether that has completed it.
    fn adopt_stage(&mut self, now: TimeMs, job: JobId, key: StageKey) -> bool {
        let Some(found) = self.jobs.get_mut(&job) else { return false };
        let Some(stage) = found.stages.get(&key) else { return false };
        let was_complete = stage.is_complete();
        let readable = stage.plan.reads.iter().all(|shuffle| found.is_complete(*shuffle));
        if !was_complete && !readable && !found.is_reported_whole(key, stage) {
            return false;
        }
        let (done, running): (Vec<_>, Vec<_>) = found
            .reports
            .take_stage(key)
            .into_iter()
            .map(|(id, Report { executor, what })| (id, executor, what))
            .partition(|(.., what)| matches!(what, Reported::Done(_)));
        // They have read it: should it be lost, it must be known what it was.
        let reads = found.stages.get(&key).map(|stage| stage.plan.reads.clone()).unwrap_or_default();
        for shuffle in reads {
            if let Some(stage) = found.stages.get_mut(&StageKey::Shuffle(shuffle)) {
                stage.told = true;
            }
        }
        // What is done needs nobody who does it.
        for (id, executor, what) in done.into_iter().chain(running) {
            match what {
                Reported::Done(left) => self.adopt_done(now, key, (id, executor), *left),
                Reported::Runs(task) => self.adopt_running(now, key, executor, &task),
            }
        }
        self.changed.insert(job);
        let stage = self.jobs.get(&job).and_then(|found| found.stages.get(&key));
        !was_complete && stage.is_some_and(Stage::is_complete)
    }

    fn adopt_done(&mut self, now: TimeMs, key: StageKey, (id, executor): (TaskAttemptId, ExecutorId), left: TaskDone) {
        let node = self.executors.node(executor);
        let Some(found) = self.jobs.get_mut(&id.job) else { return };
        let Some(stage) = found.stages.get_mut(&key) else { return };
        if !stage.is_waited_for(id) {
            return found.keep_spare(key, id, executor, left);
        }
        let fits = check_done(&left, Some(&stage.plan)).is_ok() && stage.is_as_it_was(id.partition, &left.pieces);
        if !fits {
            return;
        }
        let len = left.result.len();
        let (pieces, result) = (left.pieces.into(), Box::from(&*left.result));
        let done = DoneTask { attempt: id, executor, pieces, result };
        let others = stage.adopt(done);
        found.kept_len_bytes += len;
        found.add_metrics(&left.metrics);
        found.recoveries.recover(RecoveredBy::Task(key, id.partition), id, &node, now);
        for other in others {
            self.cancel(other);
        }
        if let Err(reason) = self.check_results(id.job, key) {
            self.fail_job(now, id.job, &reason);
        }
    }

    fn adopt_running(&mut self, now: TimeMs, key: StageKey, executor: ExecutorId, task: &TaskSpec) {
        let id = task.attempt;
        let Some(there) = self.executors.get_mut(executor) else { return };
        there.reported.remove(&id);
        let Some(found) = self.jobs.get_mut(&id.job) else { return };
        let resources = found.stages.get(&key).map(|stage| stage.plan.resources).unwrap_or_default();
        let slots = there.slots_of(&resources).unwrap_or(there.registration.slots);
        let has_room = slots <= there.registration.slots - there.running.taken();
        let planned = found.is_planned(key, &task.work);
        let stage = found.stages.get_mut(&key).filter(|stage| {
            planned && has_room && stage.is_waited_for(id) && stage.attempts(id.partition.0).next().is_none()
        });
        let Some(stage) = stage.filter(|stage| stage.plan.output == task.output && stage.needed_by.is_some()) else {
            return self.executors.command(executor, ExecutorCommand::CancelTask { attempt: id });
        };
        stage.adopt_running(id, executor, now);
        let attempt = Attempt { stage: key, executor, started: now, cancelled: false, alone: task.alone };
        found.attempts.insert(id, attempt);
        there.running.insert(id, slots);
    }

    /// Partitions in memory that plans under way keep.
    fn adopt_cached(&mut self, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job).filter(|found| !found.reports.cached.is_empty()) else { return };
        let reported = std::mem::take(&mut found.reports.cached);
        let mut adopted = false;
        for (what, executor, by) in reported.all() {
            if found.needed.iter().any(|key| found.is_persisted(*key, what)) {
                found.cached.insert(what, executor, by);
                adopted = true;
            } else {
                found.reports.cached.insert(what, executor, by);
            }
        }
        if adopted {
            let Job { stages, needed, cached, .. } = found;
            for key in &*needed {
                if let Some(stage) = stages.get_mut(key) {
                    stage.sort(cached, self.executors.places());
                }
            }
        }
    }

    /// Nobody will plan these stages, nor read these datasets: what was reported of them goes, and what it was reported of.
    pub(super) fn forget_reports(
        &mut self,
        job: JobId,
        stage: impl Fn(&StageKey) -> bool,
        dataset: impl Fn(&DatasetId) -> bool,
    ) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        found.reports.cached.release(dataset);
        let keys: Vec<StageKey> = found.reports.keys().filter(|key| stage(key)).copied().collect();
        for key in keys {
            let mut executors = BTreeSet::new();
            for (id, Report { executor, .. }) in found.reports.take_stage(key) {
                let Some(there) = self.executors.get_mut(executor) else { continue };
                executors.insert(executor);
                if there.reported.remove(&id) {
                    there.push(ExecutorCommand::CancelTask { attempt: id });
                }
            }
            let StageKey::Shuffle(shuffle) = key else { continue };
            for executor in executors {
                self.executors.command(executor, ExecutorCommand::Release { job, shuffles: vec![shuffle] });
            }
        }
    }

    /// Nothing of what was reported of a job counts.
    pub(super) fn drop_reports(&mut self, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        for (id, report) in std::mem::take(&mut found.reports).tasks.into_values().flatten() {
            if let Some(there) = self.executors.get_mut(report.executor)
                && there.reported.remove(&id)
            {
                there.push(ExecutorCommand::CancelTask { attempt: id });
            }
        }
    }
}

impl Job {
    /// Whether a task does what its stage is planned to do.
    fn is_planned(&self, key: StageKey, work: &TaskWork) -> bool {
        let own = self.stages.get(&key).and_then(|stage| stage.plan.work.as_ref());
        match (work, self.actions.get(&work.action()), own) {
            (TaskWork::Replay { plan_digest, .. }, Some(Action::Running { digest, .. }), None) => digest == plan_digest,
            (TaskWork::Payload { kind, digest, .. }, Some(Action::Running { .. }), Some(own)) => {
                own.kind == *kind && own.digest == *digest
            }
            _ => false,
        }
    }

    /// Whether what an executor says of an attempt can be believed: that there was one is known by its number.
    fn may_adopt(&self, life: u32, id: TaskAttemptId) -> bool {
        !self.varies && id.attempt < self.numbers.next(life, id.stage, id.partition)
    }

    /// Whether all outputs of a shuffle are there or reported, and are what the journal says. Then it does not matter
    /// whether what they were made from is still there.
    fn is_reported_whole(&self, key: StageKey, stage: &Stage) -> bool {
        let (StageKey::Shuffle(shuffle), Some(reports)) = (key, self.reports.tasks.get(&key)) else { return false };
        let Some(held) = self.held.get(&shuffle) else { return false };
        let missing = stage.plan.partitions - stage.done;
        if reports.len() < index(missing) {
            return false;
        }
        let mut first: BTreeMap<u32, &[ShufflePiece]> = BTreeMap::new();
        for (id, pieces) in reports.iter().filter_map(|(id, report)| Some((id, report.pieces()?))) {
            if id.stage == stage.plan.stage {
                first.entry(id.partition.0).or_insert(pieces);
            }
        }
        stage.digest_with(|partition| first.get(&partition).copied()) == Some(held.digest)
    }
}

impl Stage {
    /// Whether a task of it has no output yet, and this is an attempt at it.
    fn is_waited_for(&self, id: TaskAttemptId) -> bool {
        let task = self.tasks.get(index(id.partition.0)).filter(|_| self.plan.stage == id.stage);
        task.is_some_and(|task| task.done.is_none())
    }

    /// Whether an output is what it was, if that is known.
    fn is_as_it_was(&self, partition: PartitionId, pieces: &[ShufflePiece]) -> bool {
        self.fingerprints
            .get(&partition.0)
            .is_none_or(|before| super::rollback::fingerprint(pieces.iter().copied()) == *before)
    }

    /// A task is done, as it turns out; the attempts at it, which run for nothing now.
    fn adopt(&mut self, done: DoneTask) -> Vec<TaskAttemptId> {
        let partition = done.attempt.partition;
        self.resting.remove(&partition.0);
        self.fingerprints.remove(&partition.0);
        self.told = true;
        self.read_all(partition);
        self.complete(done)
    }

    /// A task runs, as it turns out.
    fn adopt_running(&mut self, id: TaskAttemptId, executor: ExecutorId, now: TimeMs) {
        self.resting.remove(&id.partition.0);
        self.read_all(id.partition);
        self.take_up(id, executor, now);
    }

    /// A task may have read everything: nobody knows what.
    fn read_all(&mut self, partition: PartitionId) {
        if !self.plan.reads.is_empty() {
            self.task_mut(partition).read = (0, u32::MAX);
        }
    }
}
