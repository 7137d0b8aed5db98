//! Which job has which processes and tasks on this executor: decides, does nothing.
//!
//! ```text
//! task:  queued --NextTask--> handed --TaskEnded--> reported
//!           \                    \-- worker gone --> reported as WorkerLost
//!            \-- cancelled --> reported as Cancelled
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{JobId, TaskAttemptId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{ExecutorCommand, ExecutorEvent, JobLaunch, TaskFailure, TaskOutcome, TaskSpec};
use situ_wire::time::TimeMs;

/// A worker's call for work that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct WaiterId(pub(super) u64);

/// One life of a job's worker process, so that the end of an earlier one is not taken for that of a later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct WorkerLife(pub(super) u64);

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Start the driver of a job.
    StartDriver { launch: JobLaunch, attempt: u32 },
    /// Start the worker of a job.
    StartWorker { launch: JobLaunch, life: WorkerLife },
    /// End all processes of a job and drop its shuffle output.
    EndJob { job: JobId },
    /// Answer a worker that asks for work.
    Answer { waiter: WaiterId, task: Result<Option<Box<TaskSpec>>, RemoteError> },
    /// Tell the scheduler.
    Report(ExecutorEvent),
}

/// How long before the end of a worker's patience no task is handed to it any more: it would not hear of it.
const HAND_OVER_MARGIN_MS: u64 = 1_000;

#[derive(Debug)]
struct Job {
    launch: JobLaunch,
    drivers: BTreeSet<u32>,
    worker: Option<WorkerLife>,
    queued: VecDeque<Box<TaskSpec>>,
    handed: BTreeSet<TaskAttemptId>,
    waiting: BTreeMap<WaiterId, TimeMs>,
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

    /// When a waiting worker must be answered.
    pub(super) fn poll_timeout(&self) -> Option<TimeMs> {
        self.jobs.values().flat_map(|job| job.waiting.values()).min().copied()
    }

    /// Carries out a command of the scheduler. Each comes once.
    pub(super) fn command(&mut self, command: ExecutorCommand) {
        match command {
            ExecutorCommand::StartDriver { job: launch, attempt } => {
                let job = self.job(&launch);
                if job.drivers.insert(attempt) {
                    self.actions.push_back(Action::StartDriver { launch, attempt });
                }
            }
            ExecutorCommand::RunTask { job: launch, task } => self.run_task(&launch, task),
            ExecutorCommand::CancelTask { attempt } => self.cancel(attempt),
            ExecutorCommand::EndJob { job } => self.end_job(job),
        }
    }

    /// Ends every job: the scheduler knows nothing of them any more.
    pub(super) fn end_all(&mut self) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.end_job(job));
    }

    fn job(&mut self, launch: &JobLaunch) -> &mut Job {
        self.jobs.entry(launch.job).or_insert_with(|| Job {
            launch: launch.clone(),
            drivers: BTreeSet::new(),
            worker: None,
            queued: VecDeque::new(),
            handed: BTreeSet::new(),
            waiting: BTreeMap::new(),
        })
    }

    fn run_task(&mut self, launch: &JobLaunch, task: Box<TaskSpec>) {
        let next_life = WorkerLife(self.lives + 1);
        let job = self.job(launch);
        let starts = job.worker.is_none();
        if starts {
            job.worker = Some(next_life);
        }
        let waiter = job.waiting.pop_first();
        match &waiter {
            Some(_) => {
                job.handed.insert(task.attempt);
            }
            None => job.queued.push_back(task.clone()),
        }
        if let Some((waiter, _)) = waiter {
            self.actions.push_back(Action::Answer { waiter, task: Ok(Some(task)) });
        }
        if starts {
            self.lives = next_life.0;
            self.actions.push_back(Action::StartWorker { launch: launch.clone(), life: next_life });
        }
    }

    /// Only what no worker has yet can be taken back; what one has runs to its end, which the scheduler ignores.
    fn cancel(&mut self, attempt: TaskAttemptId) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else { return };
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
    pub(super) fn next_task(&mut self, job: JobId, secret: JobSecret, waiter: WaiterId, deadline: TimeMs) {
        if let Err(error) = self.check(job, secret) {
            // A worker of an ended job ends, too.
            let task = if error.code == ErrorCode::NotFound { Ok(None) } else { Err(error) };
            return self.actions.push_back(Action::Answer { waiter, task });
        }
        let Some(job) = self.jobs.get_mut(&job) else { return };
        match job.queued.pop_front() {
            Some(task) => {
                job.handed.insert(task.attempt);
                self.actions.push_back(Action::Answer { waiter, task: Ok(Some(task)) });
            }
            None => {
                job.waiting.insert(waiter, TimeMs(deadline.0.saturating_sub(HAND_OVER_MARGIN_MS)));
            }
        }
    }

    /// Answers workers that have waited long enough; they ask again.
    pub(super) fn handle_timeout(&mut self, now: TimeMs) {
        for job in self.jobs.values_mut() {
            let over: Vec<WaiterId> =
                job.waiting.iter().filter(|(_, until)| **until <= now).map(|(waiter, _)| *waiter).collect();
            for waiter in over {
                job.waiting.remove(&waiter);
                let error = RemoteError::new(ErrorCode::Unavailable, job.launch.job, "no task yet; ask again");
                self.actions.push_back(Action::Answer { waiter, task: Err(error) });
            }
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
            self.actions.push_back(Action::Report(ExecutorEvent::TaskEnded { attempt, outcome }));
        }
        Ok(())
    }

    /// A driver process has ended.
    pub(super) fn driver_ended(&mut self, job: JobId, attempt: u32, error: Option<String>, retry: bool) {
        if let Some(known) = self.jobs.get_mut(&job)
            && known.drivers.remove(&attempt)
        {
            self.actions.push_back(Action::Report(ExecutorEvent::DriverEnded { job, attempt, error, retry }));
        }
    }

    /// A worker process has ended, or could not be started: its tasks are lost.
    pub(super) fn worker_ended(&mut self, job: JobId, life: WorkerLife, reason: &str) {
        let Some(known) = self.jobs.get_mut(&job).filter(|known| known.worker == Some(life)) else { return };
        known.worker = None;
        for waiter in std::mem::take(&mut known.waiting).into_keys() {
            self.actions.push_back(Action::Answer { waiter, task: Ok(None) });
        }
        self.actions.push_back(Action::Report(ExecutorEvent::WorkerLost { job, reason: reason.to_owned() }));
        let lost = std::mem::take(&mut known.handed).into_iter();
        let queued = std::mem::take(&mut known.queued);
        for attempt in lost.chain(queued.into_iter().map(|task| task.attempt)) {
            let outcome = TaskOutcome::Failed(TaskFailure::WorkerLost { reason: reason.to_owned() });
            self.actions.push_back(Action::Report(ExecutorEvent::TaskEnded { attempt, outcome }));
        }
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{ActionId, PartitionId, StageId};
    use situ_wire::messages::scheduler::{Locality, Program, StageOutput};

    use super::*;

    const SECRET: JobSecret = JobSecret([7; 16]);

    fn launch() -> JobLaunch {
        JobLaunch {
            job: JobId(1),
            secret: SECRET,
            user: "ann".to_owned(),
            program: Program::BuiltIn { name: "wordcount".to_owned() },
            arguments: Vec::new(),
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
        table.command(run(0));
        table.command(run(1));
        assert_eq!(actions(&mut table), [Action::StartWorker { launch: launch(), life: WorkerLife(1) }]);
        table.next_task(JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(1), task: Ok(Some(task(0))) }]);
        let done = TaskOutcome::Done(Box::default());
        for _ in 0..2 {
            table.task_ended(JobId(1), SECRET, task(0).attempt, done.clone()).unwrap();
        }
        let ended = ExecutorEvent::TaskEnded { attempt: task(0).attempt, outcome: done };
        assert_eq!(actions(&mut table), [Action::Report(ended)]);
    }

    #[test]
    fn a_waiting_worker_gets_the_next_task_or_is_told_to_ask_again_in_time() {
        let mut table = JobTable::default();
        table.command(run(0));
        table.next_task(JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        table.next_task(JobId(1), SECRET, WaiterId(2), TimeMs(9_000));
        table.next_task(JobId(1), SECRET, WaiterId(3), TimeMs(9_500));
        actions(&mut table);
        assert_eq!(table.poll_timeout(), Some(TimeMs(8_000)));
        table.command(run(1));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(2), task: Ok(Some(task(1))) }]);
        table.handle_timeout(TimeMs(8_499));
        assert_eq!(actions(&mut table), []);
        table.handle_timeout(TimeMs(8_500));
        let again = RemoteError::new(ErrorCode::Unavailable, "job-1", "no task yet; ask again");
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(3), task: Err(again) }]);
    }

    #[test]
    fn a_lost_worker_loses_all_its_tasks_and_the_next_task_starts_another() {
        let mut table = JobTable::default();
        table.command(run(0));
        table.command(run(1));
        table.next_task(JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        actions(&mut table);
        table.worker_ended(JobId(1), WorkerLife(1), "signal 9");
        let lost = |partition| {
            let outcome = TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "signal 9".to_owned() });
            Action::Report(ExecutorEvent::TaskEnded { attempt: task(partition).attempt, outcome })
        };
        let worker = ExecutorEvent::WorkerLost { job: JobId(1), reason: "signal 9".to_owned() };
        assert_eq!(actions(&mut table), [Action::Report(worker), lost(0), lost(1)]);
        table.command(run(2));
        assert_eq!(actions(&mut table), [Action::StartWorker { launch: launch(), life: WorkerLife(2) }]);
        table.worker_ended(JobId(1), WorkerLife(1), "told twice");
        assert_eq!(actions(&mut table), []);
    }

    #[test]
    fn a_queued_task_can_be_taken_back_and_a_handed_one_runs_on() {
        let mut table = JobTable::default();
        table.command(run(0));
        table.command(run(1));
        table.next_task(JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        actions(&mut table);
        table.command(ExecutorCommand::CancelTask { attempt: task(0).attempt });
        assert_eq!(actions(&mut table), []);
        table.command(ExecutorCommand::CancelTask { attempt: task(1).attempt });
        let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
        let ended = ExecutorEvent::TaskEnded { attempt: task(1).attempt, outcome };
        assert_eq!(actions(&mut table), [Action::Report(ended)]);
    }

    #[test]
    fn an_ended_job_sends_its_workers_home_and_strangers_are_refused() {
        let mut table = JobTable::default();
        table.command(run(0));
        table.next_task(JobId(1), SECRET, WaiterId(1), TimeMs(9_000));
        table.next_task(JobId(1), SECRET, WaiterId(2), TimeMs(9_000));
        actions(&mut table);
        table.next_task(JobId(1), JobSecret([0; 16]), WaiterId(3), TimeMs(9_000));
        let refused = actions(&mut table);
        assert!(
            matches!(&refused[..], [Action::Answer { task: Err(error), .. }] if error.code == ErrorCode::PermissionDenied)
        );
        table.command(ExecutorCommand::EndJob { job: JobId(1) });
        assert_eq!(
            actions(&mut table),
            [Action::Answer { waiter: WaiterId(2), task: Ok(None) }, Action::EndJob { job: JobId(1) }]
        );
        table.next_task(JobId(1), SECRET, WaiterId(4), TimeMs(9_000));
        assert_eq!(actions(&mut table), [Action::Answer { waiter: WaiterId(4), task: Ok(None) }]);
    }
}
