//! Which job has which processes and tasks on this executor: decides, does nothing.
//!
//! ```text
//! task:  queued --answer to a poll--> held --a poll says how it ended--> reported
//!         |   ^                        |\-- its worker is gone --> reported as WorkerLost
//!         |   |                        |\-- its worker is silent --> reported as WorkerSilent; the worker is ended
//!         |   |                        |\-- cancelled, and still held after a while: its worker is ended
//!         |   \-- a poll has it not ---/
//!         \-- cancelled --> reported as Cancelled
//! ```
//!
//! Only so many jobs have a worker at once as the memory holds. A worker without tasks is ended when another job's is
//! waited for; nobody is to blame then.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{JobId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::{JobSecret, Orders, ProcessLife, WorkerPoll};
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, Holding, JobLaunch, Program, TaskFailure, TaskOutcome, TaskProgress, TaskSpec,
};
use situ_wire::time::TimeMs;

use self::left::Left;
use self::room::Room;
use self::worker::{Cause, Limits, Verdict, Worker};

mod left;
mod room;
mod worker;

#[cfg(test)]
mod protocol;
#[cfg(test)]
mod tests;

/// A worker's poll that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct WaiterId(pub(crate) u64);

/// What has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// The scheduler knows this executor from now on, and that these jobs have not ended; what else it did before it must be
    /// told.
    Registered { jobs: BTreeSet<JobId> },
    /// The scheduler says what to do. Each command comes once.
    Command(ExecutorCommand),
    /// A worker polls.
    Poll { waiter: WaiterId, poll: WorkerPoll },
    /// A driver process has ended, or could not be started; perhaps because the file system is away, which holds its
    /// executable.
    DriverEnded { job: JobId, attempt: u32, life: ProcessLife, error: Option<String>, retry: bool, away: bool },
    /// A worker process has ended, or could not be started; perhaps because the file system is away, which holds its
    /// executable.
    WorkerEnded { job: JobId, life: ProcessLife, reason: String, away: bool },
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Start the driver of a job.
    StartDriver { launch: JobLaunch, attempt: u32, life: ProcessLife },
    /// Start the worker of a job.
    StartWorker { launch: JobLaunch, life: ProcessLife },
    /// End all processes of a job and drop its shuffle output.
    EndJob { job: JobId },
    /// Drop the output of these shuffles.
    Release { job: JobId, shuffles: Vec<ShuffleId> },
    /// End one process of a job. A driver counts as gone already, a worker when its end is told.
    EndProcess { job: JobId, life: ProcessLife },
    /// Answer a worker's poll.
    Answer { waiter: WaiterId, result: Result<Orders, RemoteError> },
    /// Tell the scheduler.
    Report(ExecutorEvent),
    /// Look for what is in the directories of these jobs, and tell the scheduler; that is all then.
    Survey { jobs: BTreeSet<JobId> },
    /// Tell the scheduler some time how far the tasks have come that workers hold.
    Progress(Vec<TaskProgress>),
}

/// What a worker is told that shall end.
const END: Orders = Orders { run: Vec::new(), give_up: Vec::new(), end: true };
/// How often the progress of tasks is told.
const PROGRESS: Duration = Duration::from_secs(1);
/// An owner that comes so late to a timeout was itself stopped: silence in the meantime is nobody's fault.
const STALL: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Job {
    launch: JobLaunch,
    /// The attempts at its driver that run here.
    drivers: BTreeMap<u32, ProcessLife>,
    worker: Option<Worker>,
    /// Tasks that no worker has.
    queued: VecDeque<Box<TaskSpec>>,
    left: Left,
}

/// The jobs of an executor.
///
/// # Contract
/// The owner calls [`JobTable::handle`] for every [`Event`] and [`JobTable::handle_timeout`] when the time that
/// [`JobTable::poll_timeout`] gives has come, and after either carries out all that [`JobTable::poll_action`] gives.
#[derive(Debug)]
pub(crate) struct JobTable {
    jobs: BTreeMap<JobId, Job>,
    limits: Limits,
    room: Room,
    /// The life of the process that was started last.
    last_life: u64,
    /// Whether a task has come further since progress was told, and when it may be told again.
    progress: (bool, TimeMs),
    /// The time that the owner was last asked to come back at.
    expected: TimeMs,
    actions: VecDeque<Action>,
}

impl JobTable {
    /// A table without jobs, which gives up workers that are silent for `silence` and has so many `workers` at once. The
    /// lives of processes are numbered from `lives` on, which must be random: secrets of jobs outlive an executor, and so may
    /// a process of an earlier run.
    pub(crate) fn new(silence: Duration, lives: u64, workers: u32) -> Self {
        Self {
            jobs: BTreeMap::new(),
            limits: Limits::new(silence),
            room: Room::new(workers),
            last_life: lives,
            progress: (false, TimeMs::default()),
            expected: TimeMs::NEVER,
            actions: VecDeque::new(),
        }
    }

    /// Takes in what has happened.
    pub(crate) fn handle(&mut self, now: TimeMs, event: Event) {
        self.excuse(now);
        match event {
            Event::Registered { jobs } => self.registered(jobs),
            Event::Command(command) => self.command(now, command),
            Event::Poll { waiter, poll } => self.poll(now, waiter, poll),
            Event::DriverEnded { job, attempt, life, error, retry, away } => {
                let ended = ExecutorEvent::DriverEnded { job, attempt, error, retry, away };
                self.driver_ended((job, attempt), life, away, ended);
            }
            Event::WorkerEnded { job, life, reason, away } => self.worker_ended(job, life, &reason, away),
        }
        self.give_places(now);
        self.expect(now);
    }

    /// Does what the time demands: gives up workers that are not as they should be, and answers polls that have waited
    /// long enough; the next ones are the workers' heartbeat.
    pub(crate) fn handle_timeout(&mut self, now: TimeMs) {
        self.excuse(now);
        self.judge_workers(now);
        for job in self.jobs.values_mut() {
            job.hand_over(now, &mut self.actions);
        }
        self.expect(now);
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`JobTable::handle_timeout`], if nothing happens before.
    pub(crate) fn poll_timeout(&self) -> Option<TimeMs> {
        self.jobs.values().filter_map(|job| job.worker.as_ref()?.next_due()).min()
    }

    /// The hashes of the stored programs that jobs use.
    pub(super) fn stored_programs(&self) -> BTreeSet<[u8; 32]> {
        let hash = |job: &Job| match job.launch.program {
            Program::Stored { hash, .. } => Some(hash),
            Program::BuiltIn { .. } => None,
        };
        self.jobs.values().filter_map(hash).collect()
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

    /// Ends the jobs that have ended, and tells the scheduler what there is of the others.
    fn registered(&mut self, jobs: BTreeSet<JobId>) {
        let ended: Vec<JobId> = self.jobs.keys().filter(|job| !jobs.contains(job)).copied().collect();
        ended.into_iter().for_each(|job| self.end_job(job));
        for (id, job) in &self.jobs {
            let holdings = job.holdings(*id).into_iter();
            self.actions.extend(holdings.map(|holding| Action::Report(ExecutorEvent::Holds(holding))));
        }
        self.actions.push_back(Action::Survey { jobs });
    }

    /// Whether a job is here.
    pub(crate) fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// The tasks that it has, each with the life of the worker that it was given to, if it was.
    #[cfg(test)]
    pub(crate) fn tasks(&self) -> BTreeMap<TaskAttemptId, Option<ProcessLife>> {
        let of = |job: &Job| {
            let queued = job.queued.iter().map(|task| (task.attempt, None));
            let held =
                job.worker.iter().flat_map(|worker| worker.progress().map(|task| (task.attempt, Some(worker.life))));
            queued.chain(held).collect::<Vec<_>>()
        };
        self.jobs.values().flat_map(of).collect()
    }

    /// Ends every job: this executor ends.
    pub(super) fn end_all(&mut self) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        jobs.into_iter().for_each(|job| self.end_job(job));
    }

    fn command(&mut self, now: TimeMs, command: ExecutorCommand) {
        match command {
            ExecutorCommand::StartDriver { job: launch, attempt } => self.start_driver(launch, attempt),
            ExecutorCommand::BeginJob { job: launch } => drop(job_of(&mut self.jobs, &launch)),
            ExecutorCommand::RunTask { task } => self.run_task(now, task),
            ExecutorCommand::CancelTask { attempt } => self.cancel(now, attempt),
            ExecutorCommand::EndJob { job } => self.end_job(job),
            ExecutorCommand::Release { job, shuffles } => {
                if self.jobs.contains_key(&job) && !shuffles.is_empty() {
                    self.actions.push_back(Action::Release { job, shuffles });
                }
            }
            ExecutorCommand::EndDriver { job, attempt } => {
                if let Some(life) = self.jobs.get_mut(&job).and_then(|job| job.drivers.remove(&attempt)) {
                    self.actions.push_back(Action::EndProcess { job, life });
                }
            }
        }
    }

    fn start_driver(&mut self, launch: JobLaunch, attempt: u32) {
        let job = job_of(&mut self.jobs, &launch);
        if let Entry::Vacant(driver) = job.drivers.entry(attempt) {
            let life = *driver.insert(next_life(&mut self.last_life));
            self.actions.push_back(Action::StartDriver { launch, attempt, life });
        }
    }

    fn run_task(&mut self, now: TimeMs, task: Box<TaskSpec>) {
        let id = task.attempt.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            let reason = format!("the executor was not told how to start processes of {id}");
            return self.fail_task(task.attempt, TaskFailure::WorkerLost { reason, company: 0 });
        };
        job.queued.push_back(task);
        job.hand_over(now, &mut self.actions);
        if job.worker.is_none() {
            self.room.wait(id);
        }
    }

    /// What no worker has yet is taken back at once. What one has may run on for a while.
    fn cancel(&mut self, now: TimeMs, attempt: TaskAttemptId) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else { return };
        if let Some(worker) = &mut job.worker {
            worker.cancel(now, attempt);
        }
        let before = job.queued.len();
        job.queued.retain(|task| task.attempt != attempt);
        let is_taken_back = job.queued.len() < before;
        job.hand_over(now, &mut self.actions);
        if is_taken_back {
            self.fail_task(attempt, TaskFailure::Cancelled);
        }
    }

    fn end_job(&mut self, id: JobId) {
        if let Some(job) = self.jobs.remove(&id)
            && let Some(mut worker) = job.worker
        {
            worker.send_home(&mut self.actions);
            self.room.linger(id, worker.life);
        }
        // Also for a job that is not known: an earlier run of this executor may have left its output.
        self.actions.push_back(Action::EndJob { job: id });
    }

    /// A worker says what it has. It is told to end when it is not the job's worker, and is not listened to.
    fn poll(&mut self, now: TimeMs, waiter: WaiterId, poll: WorkerPoll) {
        let result = match self.check(poll.job, poll.secret) {
            Ok(_) => Ok(END),
            // A worker of an ended job ends, too.
            Err(error) if error.code == ErrorCode::NotFound => Ok(END),
            Err(error) => Err(error),
        };
        let job = self.jobs.get_mut(&poll.job).filter(|_| result.is_ok());
        let found = job.and_then(|Job { worker, queued, left, .. }| Some((worker.as_mut()?, queued, left)));
        let Some((worker, queued, left)) = found.filter(|(worker, ..)| worker.life == poll.life) else {
            return self.actions.push_back(Action::Answer { waiter, result });
        };
        self.progress.0 |= worker.poll(now, &self.limits, (waiter, poll), queued, left, &mut self.actions);
        worker.hand_over(now, queued, &mut self.actions);
        self.tell_progress(now);
    }

    /// Tells how far the tasks have come, if they have and it was not just told. A worker polls again soon.
    fn tell_progress(&mut self, now: TimeMs) {
        if matches!(self.progress, (true, next) if next <= now) {
            self.progress = (false, now + PROGRESS);
            let workers = self.jobs.values().filter_map(|job| job.worker.as_ref());
            self.actions.push_back(Action::Progress(workers.flat_map(Worker::progress).collect()));
        }
    }

    /// Ends workers that are not ready in time, are silent, or go on with what was cancelled.
    fn judge_workers(&mut self, now: TimeMs) {
        for (id, job) in &mut self.jobs {
            let Some(worker) = &mut job.worker else { continue };
            let Some(cause) = worker.judge(now, &self.limits, &mut self.actions) else { continue };
            if cause == Cause::Silent {
                job.left.lose_worker();
                // They run elsewhere at once, whatever it takes to end it.
                let Verdict { reason, .. } = worker.verdict("");
                let lost = ExecutorEvent::WorkerLost { job: *id, reason: reason.clone() };
                self.actions.push_back(Action::Report(lost));
                let held = worker.take_held();
                let company = company_in(&held);
                for attempt in held {
                    let failure = TaskFailure::WorkerSilent { reason: reason.clone(), company };
                    self.actions.push_back(report(attempt, TaskOutcome::Failed(failure)));
                }
            }
            self.actions.push_back(Action::EndProcess { job: *id, life: worker.life });
        }
    }

    /// The end of a driver that was given up is of no interest, unless it never ran: then it was given up for nothing that
    /// it did.
    fn driver_ended(&mut self, (job, attempt): (JobId, u32), life: ProcessLife, away: bool, ended: ExecutorEvent) {
        let Some(known) = self.jobs.get_mut(&job) else { return };
        let told = known.drivers.get(&attempt).map_or(away, |runs| *runs == life);
        if told {
            known.drivers.remove(&attempt);
            self.actions.push_back(Action::Report(ended));
        }
    }

    /// A worker process has ended, or could not be started: what it held is lost. What is queued goes to the next one, but
    /// if it was never ready, neither may the next one be: then that is lost, too. When the file system was away, nobody here
    /// is to blame.
    fn worker_ended(&mut self, job: JobId, life: ProcessLife, reason: &str, away: bool) {
        self.room.gone(job, life);
        let Some(known) = self.jobs.get_mut(&job) else { return };
        let Some(mut worker) = known.worker.take_if(|worker| worker.life == life) else { return };
        known.left.lose_worker();
        worker.send_home(&mut self.actions);
        if away && worker.verdict(reason).cause != Some(Cause::MakesRoom) {
            for task in known.queued.drain(..) {
                let failure = TaskFailure::Storage { message: reason.to_owned(), transient: true };
                self.actions.push_back(report(task.attempt, TaskOutcome::Failed(failure)));
            }
            return;
        }
        let Verdict { reason, cause } = worker.verdict(reason);
        let never_ready: Vec<TaskAttemptId> = match worker.is_ready() || cause == Some(Cause::MakesRoom) {
            true => Vec::new(),
            false => known.queued.drain(..).map(|task| task.attempt).collect(),
        };
        match cause {
            // It was told when that was noticed.
            Some(Cause::Silent) => {}
            Some(Cause::MakesRoom) => self.actions.push_back(Action::Report(ExecutorEvent::WorkerEnded { job })),
            _ => {
                let lost = ExecutorEvent::WorkerLost { job, reason: reason.clone() };
                self.actions.push_back(Action::Report(lost));
            }
        }
        let held = worker.take_held();
        let company = company_in(&held);
        for attempt in held {
            let failure = match cause {
                // Nobody can end one of its tasks alone: the others run again.
                Some(Cause::KeepsCancelled) => TaskFailure::Cancelled,
                _ => TaskFailure::WorkerLost { reason: reason.clone(), company },
            };
            self.fail_task(attempt, failure);
        }
        for attempt in never_ready {
            self.fail_task(attempt, TaskFailure::WorkerLost { reason: reason.clone(), company: 0 });
        }
        // If it has more to do.
        self.room.wait(job);
    }

    fn fail_task(&mut self, attempt: TaskAttemptId, failure: TaskFailure) {
        self.actions.push_back(report(attempt, TaskOutcome::Failed(failure)));
    }

    fn expect(&mut self, now: TimeMs) {
        // Nobody can come before now: one standstill would count with each of the events that waited for its end.
        self.expected = self.poll_timeout().map_or(TimeMs::NEVER, |due| due.max(now));
    }

    /// If the owner comes late, it stood still and heard nobody: that silence does not count against workers.
    fn excuse(&mut self, now: TimeMs) {
        let late = now.since(self.expected);
        if late > STALL {
            let workers = self.jobs.values_mut().filter_map(|job| job.worker.as_mut());
            workers.for_each(|worker| worker.excuse(now, late, &self.limits));
        }
    }
}

impl Job {
    /// What there is of it, but for what stands in files.
    fn holdings(&self, id: JobId) -> Vec<Holding> {
        let drivers = self.drivers.keys().map(|attempt| Holding::Driver { job: id, attempt: *attempt });
        let held = self.worker.iter().flat_map(Worker::tasks).chain(self.queued.iter());
        let tasks = held.map(|task| Holding::Task(task.clone()));
        std::iter::once(Holding::Job(id)).chain(drivers).chain(tasks).chain(self.left.holdings()).collect()
    }

    /// Gives tasks to the worker if its poll waits.
    fn hand_over(&mut self, now: TimeMs, actions: &mut VecDeque<Action>) {
        if let Some(worker) = &mut self.worker {
            worker.hand_over(now, &mut self.queued, actions);
        }
    }
}

fn next_life(last: &mut u64) -> ProcessLife {
    *last = last.wrapping_add(1);
    ProcessLife(*last)
}

/// How many others each of these tasks had beside it.
fn company_in(held: &[TaskAttemptId]) -> u32 {
    u32::try_from(held.len().saturating_sub(1)).unwrap_or(u32::MAX)
}

fn report(attempt: TaskAttemptId, outcome: TaskOutcome) -> Action {
    Action::Report(ExecutorEvent::TaskEnded { attempt, outcome })
}

/// The job of a launch, which may be new.
fn job_of<'a>(jobs: &'a mut BTreeMap<JobId, Job>, launch: &JobLaunch) -> &'a mut Job {
    jobs.entry(launch.job).or_insert_with(|| Job {
        launch: launch.clone(),
        drivers: BTreeMap::new(),
        worker: None,
        queued: VecDeque::new(),
        left: Left::default(),
    })
}
