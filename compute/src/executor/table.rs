//! Which job has which processes and tasks on this executor: decides, does nothing.
//!
//! ```text
//! task:  queued --NextTask--> handed --TaskEnded--> reported
//!           \                    \-- worker gone --> reported as WorkerLost
//!            \                    \-- cancelled, and still there after a while: its worker is ended, and gets no more
//!             \-- cancelled --> reported as Cancelled
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{JobId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, JobLaunch, Program, TaskFailure, TaskOutcome, TaskSpec,
};
use situ_wire::time::TimeMs;

use crate::program::task::cut;

/// A worker's call for work that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct WaiterId(pub(super) u64);

/// One life of a job's worker process, so that the end of an earlier one is not taken for that of a later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct WorkerLife(pub(super) u64);

/// One process of a job.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum ProcessId {
    /// This attempt at its driver.
    Driver(u32),
    /// Its worker, in this life.
    Worker(WorkerLife),
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Start the driver of a job.
    StartDriver { launch: JobLaunch, attempt: u32 },
    /// Start the worker of a job.
    StartWorker { launch: JobLaunch, life: WorkerLife },
    /// End all processes of a job and drop its shuffle output.
    EndJob { job: JobId },
    /// Drop the output of these shuffles.
    Release { job: JobId, shuffles: Vec<ShuffleId> },
    /// End one process of a job. A driver counts as gone already, a worker when its end is told.
    EndProcess { job: JobId, process: ProcessId },
    /// Answer a worker that asks for work.
    Answer { waiter: WaiterId, task: Result<Option<Box<TaskSpec>>, RemoteError> },
    /// Tell the scheduler.
    Report(ExecutorEvent),
}

/// How long before the end of a worker's patience no task is handed to it any more: it would not hear of it.
const HAND_OVER_MARGIN_MS: u64 = 1_000;
/// How long a worker may take from its start until it is ready. Fetching its executable is part of that.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a worker may go on with a task that was cancelled: what it computes is for nothing, and takes a slot.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Job {
    launch: JobLaunch,
    drivers: BTreeSet<u32>,
    worker: Option<WorkerLife>,
    /// Until when the worker must be ready; none when it is, or when there is none.
    ready_by: Option<TimeMs>,
    queued: VecDeque<Box<TaskSpec>>,
    handed: BTreeSet<TaskAttemptId>,
    /// Of those that are handed, which were cancelled, and until when they must have ended.
    cancelled: BTreeMap<TaskAttemptId, TimeMs>,
    waiting: BTreeMap<WaiterId, TimeMs>,
    /// Why the worker was told to end, until it is gone. What it is given meanwhile would be lost unnoticed, and another
    /// one would have the same log and directory: it gets no more tasks, and no other one is started.
    ending: Option<Ending>,
}

impl Job {
    /// Gives tasks to those who wait, the oldest first. Who has waited long enough is told to ask again instead: it gives
    /// its call up soon, and a task that goes there is with nobody.
    fn hand_over(&mut self, now: TimeMs, actions: &mut VecDeque<Action>) {
        self.waiting.retain(|waiter, until| {
            let waits = *until > now;
            if !waits {
                let again = RemoteError::new(ErrorCode::Unavailable, self.launch.job, "no task yet; ask again");
                actions.push_back(Action::Answer { waiter: *waiter, task: Err(again) });
            }
            waits
        });
        while let Some(waiting) = self.waiting.first_entry()
            && let Some(task) = self.queued.pop_front()
        {
            self.handed.insert(task.attempt);
            actions.push_back(Action::Answer { waiter: waiting.remove_entry().0, task: Ok(Some(task)) });
        }
    }
}

/// Why a worker was told to end.
#[derive(Debug)]
struct Ending {
    reason: String,
    /// Whether its tasks run again without counting as failed.
    excused: bool,
}

/// The jobs of an executor.
#[derive(Debug, Default)]
pub(super) struct JobTable {
    jobs: BTreeMap<JobId, Job>,
    lives: u64,
    actions: VecDeque<Action>,
}

impl JobTable {
    /// The next thing to do.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When a waiting worker must be answered, or one that is not as it should be must be ended.
    pub(super) fn poll_timeout(&self) -> Option<TimeMs> {
        let times = |job: &Job| job.waiting.values().chain(job.cancelled.values()).chain(&job.ready_by).min().copied();
        self.jobs.values().filter_map(times).min()
    }

    /// The hashes of the stored programs that jobs use.
    pub(super) fn stored_programs(&self) -> BTreeSet<[u8; 32]> {
        let hash = |job: &Job| match job.launch.program {
            Program::Stored { hash, .. } => Some(hash),
            Program::BuiltIn { .. } => None,
        };
        self.jobs.values().filter_map(hash).collect()
    }

    /// Carries out a command of the scheduler. Each comes once.
    pub(super) fn command(&mut self, now: TimeMs, command: ExecutorCommand) {
        match command {
            ExecutorCommand::StartDriver { job: launch, attempt } => {
                if job_of(&mut self.jobs, &launch).drivers.insert(attempt) {
                    self.actions.push_back(Action::StartDriver { launch, attempt });
                }
            }
            ExecutorCommand::RunTask { job: launch, task } => self.run_task(now, &launch, task),
            ExecutorCommand::CancelTask { attempt } => self.cancel(now, attempt),
            ExecutorCommand::EndJob { job } => self.end_job(job),
            ExecutorCommand::Release { job, shuffles, .. } => {
                if self.jobs.contains_key(&job) && !shuffles.is_empty() {
                    self.actions.push_back(Action::Release { job, shuffles });
                }
            }
            ExecutorCommand::EndDriver { job, attempt } => {
                if self.jobs.get_mut(&job).is_some_and(|job| job.drivers.remove(&attempt)) {
                    self.actions.push_back(Action::EndProcess { job, process: ProcessId::Driver(attempt) });
                }
            }
        }
    }

    /// Ends every job: the scheduler knows nothing of them any more.
    pub(super) fn end_all(&mut self) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.end_job(job));
    }

    fn run_task(&mut self, now: TimeMs, launch: &JobLaunch, task: Box<TaskSpec>) {
        let job = job_of(&mut self.jobs, launch);
        job.queued.push_back(task);
        job.hand_over(now, &mut self.actions);
        self.start_worker(now, launch.job);
    }

    /// Starts a job's worker unless there is one.
    fn start_worker(&mut self, now: TimeMs, job: JobId) {
        let Some(job) = self.jobs.get_mut(&job).filter(|job| job.worker.is_none()) else { return };
        self.lives += 1;
        let life = WorkerLife(self.lives);
        (job.worker, job.ready_by) = (Some(life), Some(now + READY_LIMIT));
        self.actions.push_back(Action::StartWorker { launch: job.launch.clone(), life });
    }

    /// What no worker has yet is taken back at once. What one has may run on for a while: its worker asks whether it is
    /// wanted, and may have other tasks.
    fn cancel(&mut self, now: TimeMs, attempt: TaskAttemptId) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else { return };
        if job.handed.contains(&attempt) && job.ending.is_none() {
            job.cancelled.insert(attempt, now + CANCEL_LIMIT);
        }
        let before = job.queued.len();
        job.queued.retain(|task| task.attempt != attempt);
        if job.queued.len() < before {
            let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
            self.actions.push_back(Action::Report(ExecutorEvent::TaskEnded { attempt, outcome }));
        }
    }

    fn end_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id) {
            for waiter in job.waiting.into_keys() {
                self.actions.push_back(Action::Answer { waiter, task: Ok(None) });
            }
        }
        // Also for a job that is not known: an earlier run of this executor may have left its output.
        self.actions.push_back(Action::EndJob { job: id });
    }

    /// Checks that who calls belongs to a job that is here.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn check(&self, job: JobId, secret: JobSecret) -> Result<&JobLaunch, RemoteError> {
        match self.jobs.get(&job) {
            Some(known) if known.launch.secret == secret => Ok(&known.launch),
            Some(_) => Err(RemoteError::new(ErrorCode::PermissionDenied, job, "the caller does not know its secret")),
            None => Err(RemoteError::new(ErrorCode::NotFound, job, "this executor does not run it; it may have ended")),
        }
    }

    /// A worker asks for work until `deadline`.
    pub(super) fn next_task(&mut self, now: TimeMs, job: JobId, secret: JobSecret, waiter: WaiterId, deadline: TimeMs) {
        if let Err(error) = self.check(job, secret) {
            // A worker of an ended job ends, too.
            let task = if error.code == ErrorCode::NotFound { Ok(None) } else { Err(error) };
            return self.actions.push_back(Action::Answer { waiter, task });
        }
        let Some(job) = self.jobs.get_mut(&job) else { return };
        if job.ending.is_some() {
            return self.actions.push_back(Action::Answer { waiter, task: Ok(None) });
        }
        job.waiting.insert(waiter, TimeMs(deadline.0.saturating_sub(HAND_OVER_MARGIN_MS)));
        job.hand_over(now, &mut self.actions);
    }

    /// A worker is ready for tasks.
    ///
    /// # Errors
    /// When the caller does not belong to the job.
    pub(super) fn worker_ready(&mut self, job: JobId, secret: JobSecret) -> Result<(), RemoteError> {
        self.check(job, secret)?;
        if let Some(job) = self.jobs.get_mut(&job) {
            job.ready_by = None;
        }
        Ok(())
    }

    /// Ends workers that are not ready in time, or go on with what was cancelled.
    fn judge_workers(&mut self, now: TimeMs) {
        let due = |by: &TimeMs| *by <= now;
        for (id, job) in &mut self.jobs {
            let Some(life) = job.worker.filter(|_| job.ending.is_none()) else { continue };
            let ending = if job.ready_by.as_ref().is_some_and(due) {
                let reason = format!(
                    "it was not ready within {} s: its main must call situ_compute::run soon after its start; its log may \
                     say what it did instead",
                    READY_LIMIT.as_secs()
                );
                Ending { reason, excused: false }
            } else if job.cancelled.values().any(due) {
                // Its other tasks run again: nobody can end one of them alone.
                let reason = "it went on with a cancelled task, and was ended".to_owned();
                Ending { reason, excused: true }
            } else {
                continue;
            };
            (job.ending, job.ready_by) = (Some(ending), None);
            job.cancelled.clear();
            for waiter in std::mem::take(&mut job.waiting).into_keys() {
                self.actions.push_back(Action::Answer { waiter, task: Ok(None) });
            }
            self.actions.push_back(Action::EndProcess { job: *id, process: ProcessId::Worker(life) });
        }
    }

    /// Does what the time demands: ends workers, and answers those that have waited long enough; they ask again.
    pub(super) fn handle_timeout(&mut self, now: TimeMs) {
        self.judge_workers(now);
        for job in self.jobs.values_mut() {
            job.hand_over(now, &mut self.actions);
        }
    }

    /// A worker has done or failed a task. A repeated report is fine.
    ///
    /// # Errors
    /// When the caller does not belong to the job.
    pub(super) fn task_ended(
        &mut self,
        job: JobId,
        secret: JobSecret,
        attempt: TaskAttemptId,
        outcome: TaskOutcome,
    ) -> Result<(), RemoteError> {
        self.check(job, secret)?;
        if attempt.job != job {
            return Err(RemoteError::new(ErrorCode::InvalidArgument, attempt, format!("it is not a task of {job}")));
        }
        if let Some(job) = self.jobs.get_mut(&job)
            && job.handed.remove(&attempt)
        {
            job.cancelled.remove(&attempt);
            // A worker has cut it already, if it keeps to that.
            let outcome = match outcome {
                TaskOutcome::Failed(failure) => TaskOutcome::Failed(cut(failure)),
                done @ TaskOutcome::Done(_) => done,
            };
            self.actions.push_back(Action::Report(ExecutorEvent::TaskEnded { attempt, outcome }));
        }
        Ok(())
    }

    /// Whether a worker shall go on with a task.
    ///
    /// # Errors
    /// When the caller does not belong to the job.
    pub(super) fn is_wanted(&self, job: JobId, secret: JobSecret, attempt: TaskAttemptId) -> Result<bool, RemoteError> {
        self.check(job, secret)?;
        let has =
            |job: &Job| job.handed.contains(&attempt) && !job.cancelled.contains_key(&attempt) && job.ending.is_none();
        Ok(self.jobs.get(&job).is_some_and(has))
    }

    /// A driver process has ended.
    pub(super) fn driver_ended(&mut self, job: JobId, attempt: u32, error: Option<String>, retry: bool) {
        if let Some(known) = self.jobs.get_mut(&job)
            && known.drivers.remove(&attempt)
        {
            self.actions.push_back(Action::Report(ExecutorEvent::DriverEnded { job, attempt, error, retry }));
        }
    }

    /// A worker process has ended, or could not be started: its tasks are lost. When it was ended for a cancelled task,
    /// those that it had not been given go to the next one.
    pub(super) fn worker_ended(&mut self, now: TimeMs, job: JobId, life: WorkerLife, reason: &str) {
        let Some(known) = self.jobs.get_mut(&job).filter(|known| known.worker == Some(life)) else { return };
        (known.worker, known.ready_by) = (None, None);
        known.cancelled.clear();
        let ending = known.ending.take().unwrap_or_else(|| Ending { reason: reason.to_owned(), excused: false });
        for waiter in std::mem::take(&mut known.waiting).into_keys() {
            self.actions.push_back(Action::Answer { waiter, task: Ok(None) });
        }
        let Ending { reason, excused } = ending;
        self.actions.push_back(Action::Report(ExecutorEvent::WorkerLost { job, reason: reason.clone() }));
        let mut lost: Vec<TaskAttemptId> = std::mem::take(&mut known.handed).into_iter().collect();
        if !excused {
            lost.extend(known.queued.drain(..).map(|task| task.attempt));
        }
        let next = !known.queued.is_empty();
        let company = u32::try_from(lost.len().saturating_sub(1)).unwrap_or(u32::MAX);
        for attempt in lost {
            let lost = TaskFailure::WorkerLost { reason: reason.clone(), company };
            let failure = if excused { TaskFailure::Cancelled } else { lost };
            let outcome = TaskOutcome::Failed(failure);
            self.actions.push_back(Action::Report(ExecutorEvent::TaskEnded { attempt, outcome }));
        }
        if next {
            self.start_worker(now, job);
        }
    }
}

/// The job of a launch, which may be new.
fn job_of<'a>(jobs: &'a mut BTreeMap<JobId, Job>, launch: &JobLaunch) -> &'a mut Job {
    jobs.entry(launch.job).or_insert_with(|| Job {
        launch: launch.clone(),
        drivers: BTreeSet::new(),
        worker: None,
        ready_by: None,
        queued: VecDeque::new(),
        handed: BTreeSet::new(),
        cancelled: BTreeMap::new(),
        waiting: BTreeMap::new(),
        ending: None,
    })
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{ActionId, PartitionId, StageId};
    use situ_wire::messages::scheduler::{JobOptions, Locality, StageOutput};

    use super::*;

    const NOW: TimeMs = TimeMs(1_000);
    const SECRET: JobSecret = JobSecret([7; 16]);

    fn launch() -> JobLaunch {
        JobLaunch {
            job: JobId(1),
            secret: SECRET,
            user: "ann".to_owned(),
            program: Program::BuiltIn { name: "wordcount".to_owned() },
            arguments: Vec::new(),
            options: JobOptions::default(),
        }
    }

    fn task(partition: u32) -> Box<TaskSpec> {
        let attempt = TaskAttemptId { job: JobId(1), stage: StageId(0), partition: PartitionId(partition), attempt: 0 };
        Box::new(TaskSpec {
            attempt,
            action: ActionId(0),
            plan_digest: [0; 32],
            output: StageOutput::Result { action: ActionId(0) },
            locality: Locality::Node,
            alone: false,
        })
    }

    fn run(partition: u32) -> ExecutorCommand {
        ExecutorCommand::RunTask { job: launch(), task: task(partition) }
    }

    fn actions(table: &mut JobTable) -> Vec<Action> {
        std::iter::from_fn(|| table.poll_action()).collect()
    }

    #[test]
    fn tasks_wait_for_the_worker_and_are_reported_once() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.command(NOW, run(1));
        assert_eq!(actions(&mut table), [Action::StartWorker { launch: launch(), life: WorkerLife(1) }]);
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(1), task: Ok(Some(task(0))) }]);
        let done = TaskOutcome::Done(Box::default());
        for _ in 0..2 {
            table.task_ended(JobId(1), SECRET, task(0).attempt, done.clone()).unwrap();
        }
        let ended = ExecutorEvent::TaskEnded { attempt: task(0).attempt, outcome: done };
        assert_eq!(actions(&mut table), [Action::Report(ended)]);
    }

    #[test]
    fn what_a_worker_says_of_a_failure_is_cut() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        actions(&mut table);
        let failure = TaskFailure::Program { message: "x".repeat(10 << 20) };
        table.task_ended(JobId(1), SECRET, task(0).attempt, TaskOutcome::Failed(failure.clone())).unwrap();
        let outcome = TaskOutcome::Failed(cut(failure));
        let ended = ExecutorEvent::TaskEnded { attempt: task(0).attempt, outcome };
        assert!(situ_wire::codec::encode(&ended).unwrap().len() < 64 << 10);
        assert_eq!(actions(&mut table), [Action::Report(ended)]);
    }

    #[test]
    fn a_waiting_worker_gets_the_next_task_or_is_told_to_ask_again_in_time() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.worker_ready(JobId(1), SECRET).unwrap();
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(2), TimeMs(9_000));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(3), TimeMs(9_500));
        actions(&mut table);
        assert_eq!(table.poll_timeout(), Some(TimeMs(8_000)));
        table.command(NOW, run(1));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(2), task: Ok(Some(task(1))) }]);
        table.handle_timeout(TimeMs(8_499));
        assert_eq!(actions(&mut table), []);
        table.handle_timeout(TimeMs(8_500));
        let again = RemoteError::new(ErrorCode::Unavailable, "job-1", "no task yet; ask again");
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(3), task: Err(again) }]);
    }

    #[test]
    fn a_task_is_not_handed_to_a_call_whose_time_is_up() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        actions(&mut table);
        let late = TimeMs(8_000);
        let again = |waiter| {
            let error = RemoteError::new(ErrorCode::Unavailable, "job-1", "no task yet; ask again");
            Action::Answer { waiter: WaiterId(waiter), task: Err(error) }
        };
        // The call itself was late, with a task there.
        table.next_task(late, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        assert_eq!(actions(&mut table), [again(1)]);
        let handed = |waiter, partition| Action::Answer { waiter: WaiterId(waiter), task: Ok(Some(task(partition))) };
        table.next_task(late, JobId(1), SECRET, WaiterId(2), TimeMs(9_001));
        assert_eq!(actions(&mut table), [handed(2, 0)]);
        // The task was late, and nobody had looked at the time yet.
        table.next_task(NOW, JobId(1), SECRET, WaiterId(3), TimeMs(9_000));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(4), TimeMs(9_001));
        table.command(late, run(1));
        assert_eq!(actions(&mut table), [again(3), handed(4, 1)]);
    }

    #[test]
    fn a_lost_worker_loses_all_its_tasks_and_the_next_task_starts_another() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.command(NOW, run(1));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        actions(&mut table);
        table.worker_ended(NOW, JobId(1), WorkerLife(1), "signal 9");
        let lost = |partition| {
            let outcome = TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "signal 9".to_owned(), company: 1 });
            Action::Report(ExecutorEvent::TaskEnded { attempt: task(partition).attempt, outcome })
        };
        let worker = ExecutorEvent::WorkerLost { job: JobId(1), reason: "signal 9".to_owned() };
        assert_eq!(actions(&mut table), [Action::Report(worker), lost(0), lost(1)]);
        table.command(NOW, run(2));
        assert_eq!(actions(&mut table), [Action::StartWorker { launch: launch(), life: WorkerLife(2) }]);
        table.worker_ended(NOW, JobId(1), WorkerLife(1), "told twice");
        assert_eq!(actions(&mut table), []);
    }

    fn cancelled(partition: u32) -> Action {
        let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
        Action::Report(ExecutorEvent::TaskEnded { attempt: task(partition).attempt, outcome })
    }

    fn worker_lost(reason: &str) -> Action {
        Action::Report(ExecutorEvent::WorkerLost { job: JobId(1), reason: reason.to_owned() })
    }

    fn end_worker(life: u64) -> Action {
        Action::EndProcess { job: JobId(1), process: ProcessId::Worker(WorkerLife(life)) }
    }

    #[test]
    fn a_queued_task_can_be_taken_back_and_a_handed_one_may_end_by_itself() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.command(NOW, run(1));
        table.worker_ready(JobId(1), SECRET).unwrap();
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        actions(&mut table);
        assert_eq!(table.is_wanted(JobId(1), SECRET, task(0).attempt), Ok(true));
        table.command(NOW, ExecutorCommand::CancelTask { attempt: task(0).attempt });
        assert_eq!(actions(&mut table), []);
        table.command(NOW, ExecutorCommand::CancelTask { attempt: task(1).attempt });
        assert_eq!(actions(&mut table), [cancelled(1)]);
        let wanted = |table: &JobTable, secret| table.is_wanted(JobId(1), secret, task(0).attempt);
        assert_eq!(wanted(&table, SECRET), Ok(false));
        assert_eq!(wanted(&table, JobSecret([0; 16])).unwrap_err().code, ErrorCode::PermissionDenied);
        assert_eq!(table.poll_timeout(), Some(TimeMs(11_000)));
        table.handle_timeout(TimeMs(10_999));
        assert_eq!(actions(&mut table), []);
        table.task_ended(JobId(1), SECRET, task(0).attempt, TaskOutcome::Done(Box::default())).unwrap();
        assert_eq!(actions(&mut table).len(), 1);
        assert_eq!(table.poll_timeout(), None);
    }

    #[test]
    fn a_worker_that_goes_on_with_a_cancelled_task_is_ended_and_its_other_tasks_count_as_cancelled() {
        let mut table = JobTable::default();
        (0..3).for_each(|partition| table.command(NOW, run(partition)));
        table.worker_ready(JobId(1), SECRET).unwrap();
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(2), TimeMs(9_000));
        actions(&mut table);
        table.command(NOW, ExecutorCommand::CancelTask { attempt: task(0).attempt });
        table.handle_timeout(TimeMs(11_000));
        assert_eq!(actions(&mut table), [end_worker(1)]);
        assert_eq!(table.poll_timeout(), None, "all waits for its end");
        assert_eq!(table.is_wanted(JobId(1), SECRET, task(1).attempt), Ok(false));
        // While it is still there, it gets nothing; what it has done by then counts.
        table.next_task(NOW, JobId(1), SECRET, WaiterId(3), TimeMs(99_000));
        table.command(TimeMs(11_000), ExecutorCommand::CancelTask { attempt: task(1).attempt });
        table.command(TimeMs(11_000), run(3));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(3), task: Ok(None) }]);
        table.handle_timeout(TimeMs(60_000));
        assert_eq!((actions(&mut table), table.poll_timeout()), (vec![], None), "it is ended once");
        table.worker_ended(TimeMs(60_000), JobId(1), WorkerLife(1), "signal 9");
        // What it had not been given goes to the next worker.
        let next = Action::StartWorker { launch: launch(), life: WorkerLife(2) };
        let lost = worker_lost("it went on with a cancelled task, and was ended");
        assert_eq!(actions(&mut table), [lost, cancelled(0), cancelled(1), next]);
        // It is a worker like another: it may be late, too.
        assert_eq!(table.poll_timeout(), Some(TimeMs(120_000)));
        for (waiter, partition) in [(4, 2), (5, 3)] {
            table.next_task(NOW, JobId(1), SECRET, WaiterId(waiter), TimeMs(199_000));
            let given = Ok(Some(task(partition)));
            assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(waiter), task: given }]);
        }
        table.worker_ended(NOW, JobId(1), WorkerLife(1), "told twice");
        assert_eq!(actions(&mut table), []);
    }

    #[test]
    fn a_worker_that_is_not_ready_in_time_is_ended() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        actions(&mut table);
        table.handle_timeout(TimeMs(60_999));
        assert_eq!(actions(&mut table), []);
        assert_eq!(table.poll_timeout(), Some(TimeMs(61_000)));
        table.handle_timeout(TimeMs(61_000));
        assert_eq!(actions(&mut table), [end_worker(1)]);
        table.worker_ended(NOW, JobId(1), WorkerLife(1), "signal 9");
        let [Action::Report(ExecutorEvent::WorkerLost { reason, .. }), Action::Report(_)] = &actions(&mut table)[..]
        else {
            panic!("its end is told, and that of its task")
        };
        assert!(reason.starts_with("it was not ready within 60 s"), "{reason}");
        assert_eq!(table.poll_timeout(), None);
    }

    #[test]
    fn a_driver_that_was_given_up_is_ended_and_its_end_is_not_told() {
        let mut table = JobTable::default();
        table.command(NOW, ExecutorCommand::StartDriver { job: launch(), attempt: 3 });
        assert_eq!(actions(&mut table), [Action::StartDriver { launch: launch(), attempt: 3 }]);
        for _ in 0..2 {
            table.command(NOW, ExecutorCommand::EndDriver { job: JobId(1), attempt: 3 });
        }
        assert_eq!(actions(&mut table), [Action::EndProcess { job: JobId(1), process: ProcessId::Driver(3) }]);
        table.driver_ended(JobId(1), 3, Some("it was ended".to_owned()), false);
        assert_eq!(actions(&mut table), []);
    }

    #[test]
    fn released_shuffles_of_a_job_that_is_here_are_dropped() {
        let mut table = JobTable::default();
        let release = |shuffles| ExecutorCommand::Release { job: JobId(1), shuffles, datasets: Vec::new() };
        table.command(NOW, release(vec![ShuffleId(3)]));
        assert_eq!(actions(&mut table), [], "nothing of it is here");
        table.command(NOW, run(0));
        actions(&mut table);
        table.command(NOW, release(Vec::new()));
        table.command(NOW, release(vec![ShuffleId(3)]));
        assert_eq!(actions(&mut table), [Action::Release { job: JobId(1), shuffles: vec![ShuffleId(3)] }]);
    }

    #[test]
    fn an_ended_job_sends_its_workers_home_and_strangers_are_refused() {
        let mut table = JobTable::default();
        table.command(NOW, run(0));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        table.next_task(NOW, JobId(1), SECRET, WaiterId(2), TimeMs(9_000));
        actions(&mut table);
        table.next_task(NOW, JobId(1), JobSecret([0; 16]), WaiterId(3), TimeMs(9_000));
        let refused = actions(&mut table);
        assert!(
            matches!(&refused[..], [Action::Answer { task: Err(error), .. }] if error.code == ErrorCode::PermissionDenied)
        );
        table.command(NOW, ExecutorCommand::EndJob { job: JobId(1) });
        assert_eq!(
            actions(&mut table),
            [Action::Answer { waiter: WaiterId(2), task: Ok(None) }, Action::EndJob { job: JobId(1) }]
        );
        table.next_task(NOW, JobId(1), SECRET, WaiterId(4), TimeMs(9_000));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(4), task: Ok(None) }]);
    }
}
