use std::borrow::Cow;
use std::time::Duration;

use situ_wire::ids::{ExecutorId, JobId, NodeName, PartitionId, TaskAttemptId};
use situ_wire::messages::scheduler::{FailedAttempt, Lost, TaskFailure};
use situ_wire::time::TimeMs;

use super::job::Attempt;
use super::plan::differs;
use super::policy::ms;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey, Task};
use crate::shortened::shortened;

/// The first and the longest wait before a task is tried again whose file system was away.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// An attempt that ran for longer had a file system for a while: what it met then is an outage of its own. One that never had
/// ends sooner: that is how long a client waits.
const WITHOUT_FILE_SYSTEM: Duration = Duration::from_secs(180);

/// How many attempts at a task may give up by themselves: what they read may be lost, or the worker must end that has them.
/// A worker's word alone does not keep a task from being blamed for ever.
const GIVEN_UP: u32 = 32;

/// What went wrong with a task, when something did.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// A worker ended that had it and others: the next attempt has a worker for itself, so that it is known who is to blame.
    alone: bool,
    /// What its program said last, and where.
    said: Option<(ExecutorId, String)>,
    /// The file system is away.
    outage: Option<Outage>,
    /// How many attempts ended as cancelled which nobody had cancelled.
    given_up: u32,
}

/// A file system that a task, or an attempt to start a driver, does not reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) since: TimeMs,
    tries: u32,
}

impl Outage {
    /// It is away once more. When to try again; or for how long it has been away, if that is `limit` or longer.
    pub(super) fn note(outage: &mut Option<Self>, now: TimeMs, limit: Duration) -> Result<TimeMs, Duration> {
        let outage = outage.get_or_insert(Self { since: now, tries: 0 });
        let Self { since, tries } = *outage;
        outage.tries += 1;
        if now.since(since) >= limit {
            return Err(now.since(since));
        }
        let rest = BACKOFF.0.saturating_mul(1 << tries.min(16)).min(BACKOFF.1);
        // Not past the time at which the job gives up: then it is tried once more.
        Ok((now + rest).min((since + limit).max(now + BACKOFF.0)))
    }
}

impl Task {
    /// Whether its next attempt needs a worker for itself.
    pub(super) fn is_alone(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.alone)
    }

    /// Since when it does not reach its file system, if it does not.
    pub(super) fn away_since(&self) -> Option<TimeMs> {
        self.trouble.as_ref()?.outage.map(|outage| outage.since)
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }

    /// An attempt ended as cancelled, which nobody had asked for. That is its own failure when it happens again and again.
    fn gave_up(&mut self) -> TaskFailure {
        let trouble = self.trouble();
        trouble.given_up = trouble.given_up.saturating_add(1);
        if trouble.given_up <= GIVEN_UP {
            return TaskFailure::Cancelled;
        }
        let message = format!("more than {GIVEN_UP} of its attempts ended as cancelled, and nobody had cancelled them");
        TaskFailure::Program { message }
    }
}

impl Stage {
    /// A task that would wait for a slot waits for better times first. False if another attempt at it runs.
    pub(super) fn let_rest(&mut self, partition: PartitionId) -> bool {
        let waits = self.pending.contains(partition.0);
        if waits {
            self.pending.remove(partition.0);
            self.resting.insert(partition.0);
        }
        waits
    }
}

impl Scheduler {
    /// An attempt failed by nobody's cancelling; its task waits again unless another attempt runs. Who is to blame?
    ///
    /// | failure | against the task | against the executor |
    /// |---|---|---|
    /// | its program, its storage | yes; the same words from two executors end the job | yes |
    /// | it took longer than it may | yes | yes |
    /// | its worker ended | if it was alone there | once for each worker that ended |
    /// | its worker was silent | if it was alone there; it runs elsewhere | once for each such worker |
    /// | the file system was away | no, for a time | no |
    /// | a piece could not be fetched | no, for many times | that which served it |
    /// | it gave up by itself | no, for many times; then as its program | no; then as its program |
    ///
    /// Of drivers the same is true: one that could not be started because the file system was away is not lost.
    pub(super) fn task_failed(&mut self, now: TimeMs, id: TaskAttemptId, attempt: Attempt, failure: TaskFailure) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let node = self.executors.node(attempt.executor);
        let Some(stage) = job.stages.get_mut(&attempt.stage) else { return };
        let failure = match failure {
            TaskFailure::Cancelled => stage.task_mut(id.partition).gave_up(),
            failure => failure,
        };
        if !matches!(failure, TaskFailure::Cancelled) {
            stage.failed += 1;
            let (node, reason) = (node.clone(), shortened(&reason_of(&failure)).into_owned());
            job.last_failure = Some(FailedAttempt { attempt: id, node, at: now, reason });
        }
        let by = RecoveredBy::Task(attempt.stage, id.partition);
        match failure {
            TaskFailure::Cancelled => {}
            TaskFailure::PlanMismatch { message } => {
                self.fail_job(now, id.job, &differs(&message));
            }
            TaskFailure::NoEngine { kind, known } => {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let reason = format!(
                    "{id} ({}) on {node}: its work is for an engine {kind:?}, and the program has these: {known}; register \
                     it with `situ_compute::Program::engine`",
                    stage.plan.name
                );
                self.fail_job(now, id.job, &reason);
            }
            TaskFailure::Fetch { shuffle, map, reason } => {
                let task = stage.task_mut(id.partition);
                task.fetch_failures += 1;
                let failures = task.fetch_failures;
                if failures >= self.policy.fetch_attempts {
                    let reason = format!(
                        "{id}, last on {node}: input could not be fetched {failures} times; the last, from {map}: {reason}"
                    );
                    return self.fail_job(now, id.job, &reason);
                }
                self.lose_fetched(now, id.job, shuffle, map);
            }
            TaskFailure::WorkerLost { ref reason, company } | TaskFailure::WorkerSilent { ref reason, company } => {
                job.recoveries.lose(Lost::RunningTask, id, node.clone(), now, by);
                // An executor that gives it company all the same keeps nobody from being blamed for ever.
                let blamed = company == 0 || attempt.alone;
                let task = stage.task_mut(id.partition);
                task.trouble().alone = true;
                if matches!(failure, TaskFailure::WorkerSilent { .. }) && !blamed {
                    // Where one worker stands still the next may, too.
                    task.failed_on.push(attempt.executor);
                }
                if job.failures.get_mut(&attempt.executor).is_some_and(|there| std::mem::take(&mut there.crashed)) {
                    self.blame_executor(now, id.job, attempt.executor);
                }
                if blamed {
                    self.blame_task(now, id, attempt, &node, &format!("its worker process ended: {reason}"));
                }
            }
            TaskFailure::Storage { message, transient: true } => {
                self.file_system_away(now, id, attempt, node, &message)
            }
            TaskFailure::Storage { message, transient: false } => {
                self.blame_executor(now, id.job, attempt.executor);
                self.blame_task(now, id, attempt, &node, &message);
            }
            TaskFailure::Program { message } => {
                let said = stage.task_mut(id.partition).trouble().said.replace((attempt.executor, message.clone()));
                if let Some((before, _)) = said.filter(|(on, said)| *on != attempt.executor && *said == message) {
                    let (name, before) = (&stage.plan.name, self.executors.node(before));
                    let reason = format!(
                        "{id} ({name}) failed with the same words on {before} and on {node}, so that it is not tried again: \
                         {message}"
                    );
                    return self.fail_job(now, id.job, &reason);
                }
                self.blame_executor(now, id.job, attempt.executor);
                self.blame_task(now, id, attempt, &node, &message);
            }
        }
    }

    /// A failure counts against the task.
    pub(super) fn blame_task(
        &mut self,
        now: TimeMs,
        id: TaskAttemptId,
        attempt: Attempt,
        node: &NodeName,
        message: &str,
    ) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let Some(stage) = job.stages.get_mut(&attempt.stage) else { return };
        let name = stage.plan.name.clone();
        let task = stage.task_mut(id.partition);
        task.failures += 1;
        task.failed_on.push(attempt.executor);
        // The file system was there.
        task.trouble().outage = None;
        let failures = task.failures;
        if failures >= self.policy.task_attempts {
            let reason = format!("{id} ({name}) failed, the {failures}th time, on {node}: {message}");
            self.fail_job(now, id.job, &reason);
        }
    }

    /// A failure counts against an executor, as far as a job goes. Some time after the last one it is forgotten: what was
    /// wrong there may be right again.
    pub(super) fn blame_executor(&mut self, now: TimeMs, job: JobId, executor: ExecutorId) {
        self.note_failure(now, job, executor, |failures| failures.tasks += 1);
    }

    /// A piece of what a job has on an executor could not be fetched. How many could not by now.
    pub(super) fn blame_server(&mut self, now: TimeMs, job: JobId, executor: ExecutorId) -> u32 {
        self.note_failure(now, job, executor, |failures| failures.fetches += 1)
    }

    /// A worker has crashed; its tasks are reported one by one, and each says why.
    pub(super) fn worker_crashed(&mut self, now: TimeMs, job: JobId, executor: ExecutorId) {
        self.note_failure(now, job, executor, |failures| failures.crashed = true);
    }

    fn note_failure(
        &mut self,
        now: TimeMs,
        job: JobId,
        executor: ExecutorId,
        note: impl FnOnce(&mut super::job::Failures),
    ) -> u32 {
        if !self.executors.is_there(executor) {
            return 0;
        }
        let Some(found) = self.jobs.get_mut(&job) else { return 0 };
        let failures = found.failures.entry(executor).or_default();
        note(failures);
        self.pardons.remove(&(failures.until, job, executor));
        failures.until = now + ms(self.policy.exclude_ms);
        self.pardons.insert((failures.until, job, executor));
        failures.fetches
    }

    /// Forgets what was wrong on executors long enough ago.
    pub(super) fn pardon(&mut self, now: TimeMs) {
        while let Some((_, job, executor)) = self.pardons.first().copied().filter(|(until, ..)| *until <= now) {
            self.pardons.pop_first();
            if let Some(found) = self.jobs.get_mut(&job) {
                found.failures.remove(&executor);
                self.changed.insert(job);
            }
        }
    }

    /// The file system was away while a task ran. Nobody here is to blame: it is tried again now and then, for so long.
    fn file_system_away(&mut self, now: TimeMs, id: TaskAttemptId, attempt: Attempt, node: NodeName, message: &str) {
        let limit = ms(self.policy.storage_away_ms);
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let Some(stage) = job.stages.get_mut(&attempt.stage) else { return };
        let trouble = stage.task_mut(id.partition).trouble();
        if now.since(attempt.started) > WITHOUT_FILE_SYSTEM {
            trouble.outage = None;
        }
        let is_first = trouble.outage.is_none();
        let tried = Outage::note(&mut trouble.outage, now, limit);
        if let Err(away) = tried {
            let reason = format!(
                "{id} ({}): the file system was away for {} s, and no task waits for it longer than {} s; last, on {node}: \
                 {message}",
                stage.plan.name,
                away.as_secs(),
                limit.as_secs()
            );
            return self.fail_job(now, id.job, &reason);
        }
        if let Ok(until) = tried
            && stage.let_rest(id.partition)
        {
            self.resting.insert((until, id.job, attempt.stage, id.partition));
        }
        if is_first {
            let by = RecoveredBy::Task(attempt.stage, id.partition);
            job.recoveries.lose(Lost::Storage, id, node, now, by);
        }
    }

    /// Tasks that have rested long enough wait for a slot again.
    pub(super) fn wake(&mut self, now: TimeMs) {
        while let Some((_, job, key, partition)) = self.resting.first().copied().filter(|(until, ..)| *until <= now) {
            self.resting.pop_first();
            let Some(found) = self.jobs.get_mut(&job) else { continue };
            if let Some(stage) = found.stages.get_mut(&key)
                && stage.resting.remove(&partition.0)
            {
                stage.wait(partition.0, &found.cached);
                self.changed.insert(job);
            }
        }
    }

    /// A job has ended: nothing of this is remembered of it.
    pub(super) fn forget_attribution(&mut self, job: JobId, failures: &[(ExecutorId, TimeMs)]) {
        for (executor, until) in failures {
            self.pardons.remove(&(*until, job, *executor));
        }
        self.resting.retain(|(_, of, ..)| *of != job);
    }
}

/// What is said of a failure.
fn reason_of(failure: &TaskFailure) -> Cow<'_, str> {
    match failure {
        TaskFailure::Fetch { map, reason, .. } => format!("input could not be fetched from {map}: {reason}").into(),
        TaskFailure::Program { message }
        | TaskFailure::PlanMismatch { message }
        | TaskFailure::Storage { message, .. } => message.into(),
        TaskFailure::WorkerLost { reason, .. } => format!("its worker process ended: {reason}").into(),
        TaskFailure::WorkerSilent { reason, .. } => reason.into(),
        TaskFailure::NoEngine { kind, .. } => format!("there is no engine {kind:?}").into(),
        TaskFailure::Cancelled => "it was cancelled".into(),
    }
}

/// A task that rests: until when, and which.
pub(super) type Resting = (TimeMs, JobId, StageKey, PartitionId);
