use std::collections::BTreeSet;

use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ExecutorId, JobId, NodeName, OperationId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{
    ActionResult, Attachment, DriverPlace, ExecutorCommand, JobOptions, JobState, JobStatus, JobSummary, LogLocation,
    Program, Response,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::calls::{Asked, Outcome, ended_error, now};
use super::cleaning::is_job_directory;
use super::job::{Action, DoneAction, Job};
use super::resuming::Former;
use super::scheduler::Scheduler;
use super::waits::Topic;
use super::{JobRecord, RecordId, Submission};
use crate::shortened::shortened;

/// The most that the arguments of a program may take together: an operating system takes no more either.
pub(super) const ARGUMENTS_LEN_BYTES: usize = 1 << 20;
/// How much a list of jobs takes in one answer, unless one job takes more.
const LIST_LEN_BYTES: usize = 4 << 20;
/// The longest name of a program.
const PROGRAM_NAME_LEN_BYTES: usize = 255;

impl Scheduler {
    pub(super) fn submit(
        &mut self,
        asked: Asked<'_>,
        program: Program,
        arguments: Vec<String>,
        (operation, driver): (OperationId, DriverPlace),
        options: JobOptions,
    ) -> Outcome {
        if let Some(job) = self.operations.get(&operation) {
            return self.submitted_before(asked, *job);
        }
        self.check_submission(&asked.caller.name, &program, &arguments, options)?;
        let job = self.next_job;
        self.next_job = JobId(job.0 + 1);
        let (user, submitted) = (asked.caller.name.clone(), asked.now);
        let submission = Submission { job, operation, user, program, arguments, submitted, options, driver };
        let record = self.append(JobRecord::Submitted(submission.clone()));
        let mut new = Job::new(submission, self.secret(job), Some(record));
        new.note_idle(asked.now);
        self.jobs.insert(job, new);
        self.operations.insert(operation, job);
        if driver == DriverPlace::Attached {
            self.open_session(asked.now, job);
        }
        Ok(Some((Response::Submitted { job, attachment: self.attachment(job) }, Some(record))))
    }

    /// A submission is made again: only who made it hears of it.
    fn submitted_before(&self, asked: Asked<'_>, job: JobId) -> Outcome {
        let (user, record) = match (self.jobs.get(&job), self.finished.get(job)) {
            (Some(found), _) => (&found.launch.user, found.record),
            (None, Some(ended)) => (&ended.status.summary.user, ended.record),
            (None, None) => return Err(self.gone(job)),
        };
        if *user != asked.caller.name {
            return Err(RemoteError::new(
                ErrorCode::PermissionDenied,
                "the submission",
                format!("{user} has made it, and it is not for {} to make it again", asked.caller.name),
            ));
        }
        Ok(Some((Response::Submitted { job, attachment: self.attachment(job) }, record)))
    }

    /// What makes its client the driver of a job, if it is attached and has not ended.
    fn attachment(&self, job: JobId) -> Option<Attachment> {
        let driver = &self.jobs.get(&job)?.driver;
        driver.session.map(|_| Attachment { secret: self.secret(job), attempt: driver.attempt })
    }

    fn check_submission(
        &self,
        user: &str,
        program: &Program,
        arguments: &[String],
        options: JobOptions,
    ) -> Result<(), RemoteError> {
        let refuse = |code, message| Err(RemoteError::new(code, "the submission", message));
        if options.task_limit_ms == Some(0) {
            let message = "a task may take 0 ms, so that none could end; give it more time, or no limit".to_owned();
            return refuse(ErrorCode::InvalidArgument, message);
        }
        let name = program.name();
        if name.is_empty() || name.len() > PROGRAM_NAME_LEN_BYTES {
            let found = name.len();
            return refuse(
                ErrorCode::InvalidArgument,
                format!("the program's name must have 1 to {PROGRAM_NAME_LEN_BYTES} bytes; it has {found}"),
            );
        }
        let len: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
        if len > ARGUMENTS_LEN_BYTES {
            return refuse(
                ErrorCode::TooMuch,
                format!(
                    "its arguments take {len} bytes; at most {ARGUMENTS_LEN_BYTES} are allowed: put them into a file"
                ),
            );
        }
        if self.jobs.len() >= self.policy.jobs {
            let most = self.policy.jobs;
            return refuse(
                ErrorCode::Unavailable,
                format!("{most} jobs are unfinished, which is the most; submit it later"),
            );
        }
        let own = self.jobs.values().filter(|job| job.launch.user == user).count();
        if own >= self.policy.user_jobs {
            return refuse(
                ErrorCode::Unavailable,
                format!("{own} jobs of {user} are unfinished, which is the most for one user; submit it later"),
            );
        }
        Ok(())
    }

    /// Records are on the disk: jobs whose submission is among them may begin.
    pub(super) fn on_synced(&mut self, record: RecordId) {
        let before = self.synced;
        self.synced = record.max(before);
        // A driver may have lived on meanwhile, or be attached.
        let waits = |job: &&Job| job.driver.place.is_none() && job.driver.session.is_none();
        let durable = |job: &&Job| job.record.is_some_and(|at| at > before && at <= record);
        let begin: Vec<JobId> = self.jobs.values().filter(waits).filter(durable).map(Job::id).collect();
        self.driverless.extend(begin);
    }

    /// Takes in a record of an earlier life.
    pub(super) fn replay(&mut self, record: JobRecord) {
        let next = record.job().map_or(self.next_job, |job| JobId(job.0.saturating_add(1)));
        self.next_job = self.next_job.max(next);
        match record {
            JobRecord::Began { life, next } => {
                self.life = self.life.max(life.saturating_add(1));
                self.next_job = self.next_job.max(next);
            }
            // A snapshot repeats what stands before it.
            JobRecord::Submitted(Submission { job, .. })
                if self.jobs.contains_key(&job) || self.finished.get(job).is_some() => {}
            JobRecord::Submitted(submission) => {
                let job = submission.job;
                self.operations.insert(submission.operation, job);
                self.jobs.insert(job, Job::new(submission, self.secret(job), None));
            }
            JobRecord::Driver { job, attempt, node } => {
                if let Some(job) = self.jobs.get_mut(&job) {
                    if attempt >= job.driver.attempt {
                        job.driver.attempt = attempt.saturating_add(1);
                        job.driver.former = Some(Former { attempt, node: node.clone() });
                    }
                    job.add_driver_logs(attempt, node);
                }
            }
            JobRecord::Ended { status, logs } => {
                let (id, state) = (status.summary.job, &status.summary.state);
                if let Some(cleaning) = self.cleaning.remove(&id) {
                    // Nothing is known of what it has published: where it has, nothing is found.
                    let outputs = left_behind(id, state, cleaning.outputs, &BTreeSet::new());
                    self.clean_up((TimeMs::default(), RecordId::default()), id, &cleaning.user, outputs);
                }
                if let Some(job) = self.jobs.remove(&id) {
                    let published = job.published_at();
                    let outputs = left_behind(id, state, job.outputs.into_keys(), &published);
                    self.clean_up((TimeMs::default(), RecordId::default()), id, &job.launch.user, outputs);
                    self.keep_finished(status, logs, job.operation, None);
                }
            }
            JobRecord::WritesAside { job, user, output } => match self.jobs.get_mut(&job) {
                Some(job) => drop(job.outputs.insert(output, None)),
                // It has ended; or this is what a snapshot repeats, and the job itself comes with it.
                None => self.clean_up((TimeMs::default(), RecordId::default()), job, &user, BTreeSet::from([output])),
            },
            JobRecord::Cleaned { job } => drop(self.cleaning.remove(&job)),
            JobRecord::Key(key) => self.key = Some(key),
            JobRecord::ActionDone { job, .. }
            | JobRecord::Recorded { job, .. }
            | JobRecord::Publishing { job, .. }
            | JobRecord::Published { job, .. }
            | JobRecord::Shuffled { job, .. }
            | JobRecord::Varies { job }
            | JobRecord::ScopeEnded { job, .. }
            | JobRecord::Given { job, .. } => {
                // It has ended; or this is what a snapshot repeats, and the job itself comes with it.
                if let Some(job) = self.jobs.get_mut(&job) {
                    job.restore(record);
                }
            }
        }
    }

    /// The jobs before `before`, newest first, as many as fit into an answer.
    pub(super) fn list(&self, before: Option<JobId>) -> Outcome {
        let end = before.unwrap_or(self.next_job);
        let mut ids: Vec<JobId> = self.jobs.range(..end).map(|(id, _)| *id).collect();
        ids.extend(self.finished.iter().map(|(id, _)| *id).filter(|id| *id < end));
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
        let (mut jobs, mut len, mut record, mut next) = (Vec::new(), 0, None, None);
        for id in ids {
            let (summary, at): (JobSummary, _) = match (self.jobs.get(&id), self.finished.get(id)) {
                (Some(job), _) => (job.summary(), job.record),
                (None, Some(ended)) => (ended.status.summary.clone(), ended.record),
                (None, None) => continue,
            };
            // What cannot be encoded alone cannot be sent either: the answer says so.
            len += codec::encode(&summary).map_or(0, |bytes| bytes.len());
            if len > LIST_LEN_BYTES && !jobs.is_empty() {
                next = jobs.last().map(|last: &JobSummary| last.job);
                break;
            }
            record = record.max(at);
            jobs.push(summary);
        }
        Ok(Some((Response::Jobs { jobs, next }, record)))
    }

    pub(super) fn status(&mut self, asked: Asked<'_>, job: JobId, seen: u64) -> Outcome {
        match self.jobs.get(&job) {
            Some(found) if found.revision == seen => self.park(asked, Topic::Status(job)),
            _ => self.status_now(job),
        }
    }

    pub(super) fn status_now(&self, job: JobId) -> Outcome {
        if let Some(job) = self.jobs.get(&job) {
            return Ok(Some((Response::Status(Box::new(self.job_status(job))), job.record)));
        }
        match self.finished.get(job) {
            Some(ended) => Ok(Some((Response::Status(ended.status.clone()), ended.record))),
            None => Err(self.gone(job)),
        }
    }

    pub(super) fn kill(&mut self, asked: Asked<'_>, job: JobId, reason: &str) -> Outcome {
        if let Some(ended) = self.finished.get(job) {
            return Ok(Some((Response::Done, ended.record)));
        }
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let (owner, caller) = (&found.launch.user, &asked.caller.name);
        if owner != caller && !self.policy.administrators.contains(caller) {
            return Err(RemoteError::new(
                ErrorCode::PermissionDenied,
                job,
                format!("it belongs to {owner}, and {caller} is not an administrator of the scheduler"),
            ));
        }
        let record = self.end_job(asked.now, job, JobState::Killed { reason: shortened(reason).into_owned() });
        Ok(Some((Response::Done, record)))
    }

    pub(super) fn logs(&self, job: JobId) -> Outcome {
        let logs: Vec<(LogName, NodeName)> = match (self.jobs.get(&job), self.finished.get(job)) {
            (Some(found), _) => found.logs.iter().cloned().collect(),
            (None, Some(ended)) => ended.logs.clone(),
            (None, None) => return Err(self.gone(job)),
        };
        let mut locations = Vec::new();
        for (log, node) in logs {
            let there = self.executors.iter().map(|(_, executor)| executor);
            let beside =
                there.filter(|executor| executor.liveness != Liveness::Dead && executor.registration.node == node);
            let at = |address| LogLocation { log, node: node.clone(), address };
            locations.extend(beside.map(|executor| at(executor.registration.address)));
        }
        now(Response::Logs(locations))
    }

    /// A job fails.
    pub(super) fn fail_job(&mut self, at: TimeMs, job: JobId, reason: &str) {
        self.end_job(at, job, JobState::Failed { reason: shortened(reason).into_owned() });
    }

    /// A job has its end: nothing of it runs on, whoever waits for it is told, its status is kept. The record that says so.
    pub(super) fn end_job(&mut self, at: TimeMs, job: JobId, state: JobState) -> Option<RecordId> {
        assert!(state.is_final(), "a job ends with a final state");
        let mut found = self.jobs.remove(&job)?;
        let state = found.explained(state);
        let failures: Vec<(ExecutorId, TimeMs)> = found.failures.iter().map(|(id, it)| (*id, it.until)).collect();
        self.forget_attribution(job, &failures);
        self.driverless.remove(&job);
        if let Some(session) = found.driver.session {
            self.sessions.remove(&(session.until, job));
        }
        self.changed.remove(&job);
        self.turns.set(job, None);
        if let Some(by) = found.driver.heard_by {
            self.driver_deadlines.remove(&(by, job));
        }
        if let Some(until) = found.driver.rests_until {
            self.resting_drivers.remove(&(until, job));
        }
        for (id, attempt) in &found.attempts {
            if let Some(executor) = self.executors.get_mut(attempt.executor) {
                executor.running.remove(id);
            }
        }
        if let Some(reserved) = found.reserved {
            self.free_reserved(job, reserved);
        }
        self.call_back(job, found.crowded.take().map(|crowded| crowded.at).unwrap_or_default());
        for executor in &found.touched {
            if let Some(executor) = self.executors.get_mut(*executor) {
                executor.drivers.remove(&job);
                executor.reported.remove_job(job);
                executor.workers.end(job);
            }
            self.executors.command(*executor, ExecutorCommand::EndJob { job });
        }
        found.state = state.clone();
        found.revision += 1;
        found.recoveries.end(at);
        let mut status = Box::new(found.status());
        status.summary.ended = Some(at);
        for stage in &mut status.stages {
            stage.running = 0;
        }
        let published = found.published_at();
        let logs: Vec<(LogName, NodeName)> = found.logs.into_iter().collect();
        let record = self.append(JobRecord::Ended { status: status.clone(), logs: logs.clone() });
        let outputs = left_behind(job, &state, found.outputs.into_keys(), &published);
        self.clean_up((at, record), job, &found.launch.user, outputs);
        self.keep_finished(status, logs, found.operation, Some(record));
        let error = ended_error(job, &state);
        for wait in self.waits.take_job(job) {
            let result = match wait.topic {
                // Who hears it takes away what it wrote: not before the end is certain.
                Topic::Action(..) | Topic::ActionEnd(..) | Topic::Scope(..) => {
                    Ok(Some((Response::Action(ActionResult::Failed(error.clone())), Some(record))))
                }
                Topic::Status(_) => self.status_now(job),
            };
            match result {
                Ok(Some((response, when))) => self.answer_when(wait.call, Ok(response), when),
                Ok(None) => {}
                Err(error) => self.answer(wait.call, Err(error)),
            }
        }
        Some(record)
    }

    fn keep_finished(
        &mut self,
        status: Box<JobStatus>,
        logs: Vec<(LogName, NodeName)>,
        operation: OperationId,
        record: Option<RecordId>,
    ) {
        for operation in self.finished.insert(status, logs, operation, record, &self.policy) {
            self.operations.remove(&operation);
        }
    }
}

/// What of a job must be taken away after it has ended so: what it wrote aside and did not publish, and always its own
/// directory.
fn left_behind(
    job: JobId,
    state: &JobState,
    outputs: impl IntoIterator<Item = DfsPath>,
    published: &BTreeSet<DfsPath>,
) -> BTreeSet<DfsPath> {
    let job = job.to_string();
    // Also a job that succeeds may have failed to publish at one place, and gone on.
    let left = |output: &DfsPath| {
        *state != JobState::Succeeded || is_job_directory(output, &job) || !published.contains(output)
    };
    outputs.into_iter().filter(left).collect()
}

impl Job {
    /// Takes in a record of an earlier life.
    fn restore(&mut self, record: JobRecord) {
        match record {
            JobRecord::ActionDone { action, name, digest, results, given, .. } => {
                self.restore_action(action, Action::Done(DoneAction { name, digest, results, given, record: None }));
            }
            JobRecord::Recorded { action, value, .. } => {
                self.restore_action(action, Action::Recorded { value, record: None });
            }
            JobRecord::Publishing { action, output, .. } => self.restore_publishing(action, output),
            JobRecord::Published { action, .. } => self.restore_published(action),
            JobRecord::Shuffled { shuffle, digest, .. } => self.restore_held(shuffle, digest),
            JobRecord::Varies { .. } => self.varies = true,
            JobRecord::ScopeEnded { scope, outer, outcome, .. } => self.restore_scope(scope, outer, outcome),
            JobRecord::Given { given, .. } => self.given.extend(given),
            _ => unreachable!("only what a job has done is restored: {record:?}"),
        }
    }
}
