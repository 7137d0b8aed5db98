use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{ActionId, JobId, PartitionId, ScopeId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{ActionResult, MapOutput, Request, Response, StagePlan, StageWork};
use situ_wire::time::TimeMs;

use super::finished::Ended;
use super::job::{Action, Job};
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey, index};
use super::waits::{Topic, Wait};
use super::{CallId, Caller, RecordId};

/// One call on its way through the core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) now: TimeMs,
    pub(super) call: CallId,
    pub(super) caller: &'a Caller,
    /// When an answer that says "not yet" is still in time.
    pub(super) until: TimeMs,
}

/// An answer, once a record is on the disk; none if it comes later.
pub(super) type Outcome = Result<Option<(Response, Option<RecordId>)>, RemoteError>;

/// An answer that waits for nothing.
pub(super) fn now(response: Response) -> Outcome {
    Ok(Some((response, None)))
}

impl Scheduler {
    pub(super) fn call(&mut self, at: TimeMs, call: CallId, caller: &Caller, deadline: TimeMs, request: Request) {
        // An eighth of the time is left for the way back.
        let patience = deadline.since(at);
        let asked = Asked { now: at, call, caller, until: at + (patience - patience / 8) };
        let outcome = match required_role(&request) {
            Some(role) if caller.role != role => Err(RemoteError::new(
                ErrorCode::PermissionDenied,
                format!("{} {}", caller.role, caller.name),
                format!(
                    "it is no {role}, who alone may ask for this; use a certificate for the role {role}, which `situ ca \
                     issue --role {role}` makes"
                ),
            )),
            _ => self.dispatch(asked, request),
        };
        match outcome {
            Ok(Some((response, when))) => self.answer_when(call, Ok(response), when),
            Ok(None) => {}
            // Who hears that a job has ended acts on it: not before that is certain.
            Err(error) if error.code == ErrorCode::JobFailed => {
                let when = self.last_record();
                self.answer_when(call, Err(error), Some(when));
            }
            Err(error) => self.answer(call, Err(error)),
        }
    }

    fn dispatch(&mut self, asked: Asked<'_>, request: Request) -> Outcome {
        if let Some((job, secret, attempt)) = driver_of(&request) {
            self.check_driver_of(job, secret, attempt)?;
            self.driver_calls(asked.now, job);
            self.hear_session(asked.now, job);
        }
        match request {
            Request::Submit { program, arguments, operation, options, driver } => {
                self.submit(asked, program, arguments, (operation, driver), options)
            }
            Request::List { before } => self.list(before),
            Request::Status { job, seen } => self.status(asked, job, seen),
            Request::Kill { job, reason } => self.kill(asked, job, &reason),
            Request::Logs { job } => self.logs(job),
            Request::Executors => {
                now(Response::Executors(self.executors.iter().map(|(_, executor)| executor.status()).collect()))
            }
            Request::ExecutorRegister(registration) => self.register(asked, registration),
            Request::ExecutorPoll { id, seen, events, progress } => {
                self.executor_poll(asked, id, seen, events, &progress)
            }
            Request::DriverBegin { job, .. } => self.driver_begin(job),
            Request::DriverLives { .. } => now(Response::Done),
            Request::RunAction { job, action, plan, .. } => self.run_action(asked, job, action, plan),
            Request::Record { job, action, value, .. } => self.record_value(asked, job, action, value),
            Request::ActionResult { job, secret, action, within, wait, results } => {
                self.job_of(job, secret)?;
                self.action_result(asked, (job, action), &within, wait, results)
            }
            Request::ScopeOutcome { job, secret, within, wait } => {
                self.job_of(job, secret)?;
                self.scope_outcome(asked, job, &within, wait)
            }
            Request::EndScope { job, within, outcome, .. } => self.end_scope(asked, job, &within, outcome),
            Request::Plan { job, secret, action } => match self.job_of(job, secret)?.actions.get(&action) {
                Some(Action::Running { plan, .. }) => now(Response::Plan(Some(plan.clone()))),
                Some(Action::Done(_) | Action::Recorded { .. }) | None => now(Response::Plan(None)),
            },
            Request::StageWork { job, secret, stage } => {
                let found = self.job_of(job, secret)?;
                let stages = found.needed.iter().filter_map(|key| found.stages.get(key));
                let work = |needed: &super::stage::Stage| {
                    let StagePlan { work, reads, partitions, .. } = &needed.plan;
                    Some(Box::new(StageWork { work: work.clone()?, reads: reads.clone(), partitions: *partitions }))
                };
                now(Response::StageWork(stages.filter(|needed| needed.plan.stage == stage).find_map(work)))
            }
            Request::MapOutputs { job, secret, shuffle, reduce, by } => {
                self.job_of(job, secret)?;
                self.map_outputs(job, shuffle, reduce, by)
            }
            Request::DriverEnd { job, secret, attempt, error } => self.driver_end(asked, job, secret, attempt, error),
            Request::Publishing { job, action, output, .. } => self.publishing(job, action, output),
            Request::Published { job, action, .. } => self.published(job, action),
            Request::Release { job, shuffles, datasets, .. } => self.release(job, shuffles, datasets),
            Request::OwnDirectory { job, secret } => {
                self.job_of(job, secret)?;
                self.own_directory(job)
            }
        }
    }

    /// The unfinished job that `secret` opens.
    pub(super) fn job_of(&self, job: JobId, secret: JobSecret) -> Result<&Job, RemoteError> {
        if secret != self.secret(job) {
            return Err(RemoteError::new(
                ErrorCode::PermissionDenied,
                job,
                "the secret of this call is not that of the job: the process must end",
            ));
        }
        self.jobs.get(&job).ok_or_else(|| self.gone(job))
    }

    /// Whether it is the job's driver that calls.
    pub(super) fn check_driver_of(&self, job: JobId, secret: JobSecret, attempt: u32) -> Result<(), RemoteError> {
        let found = self.job_of(job, secret)?;
        if found.record.is_some_and(|record| record > self.synced) {
            // A driver that is attached has outlived the scheduler.
            return Err(RemoteError::new(ErrorCode::Unavailable, job, "the scheduler is about to begin; ask again"));
        }
        if found.driver.former.is_some() && attempt < self.first_driver_attempt() {
            return Err(RemoteError::new(
                ErrorCode::Unavailable,
                job,
                "the scheduler has just begun, and the executor has not told of this driver yet; ask again",
            ));
        }
        if !found.driver.is(attempt) {
            return Err(RemoteError::new(
                ErrorCode::LeaseLost,
                job,
                format!("attempt {attempt} at the driver was given up: the process must end"),
            ));
        }
        Ok(())
    }

    /// Why a job that is not under way cannot be worked for.
    pub(super) fn gone(&self, job: JobId) -> RemoteError {
        match self.finished.get(job) {
            Some(Ended { status, .. }) => ended_error(job, &status.summary.state),
            None => RemoteError::new(
                ErrorCode::NotFound,
                job,
                "there is no such job, or it ended so long ago that it is forgotten; `situ job list` shows all",
            ),
        }
    }

    /// Keeps a call until `topic` moves.
    pub(super) fn park(&mut self, asked: Asked<'_>, topic: Topic) -> Outcome {
        if self.waits.len() >= self.policy.waits {
            return Err(RemoteError::new(
                ErrorCode::Unavailable,
                "the scheduler",
                format!("{} calls wait already, which is the most; ask again later", self.policy.waits),
            ));
        }
        self.waits.park(Wait { call: asked.call, topic, since: asked.now, until: asked.until });
        Ok(None)
    }

    /// Answers a call whose time is up.
    pub(super) fn answer_late(&mut self, wait: Wait) {
        let outcome = match wait.topic {
            Topic::Status(job) => self.status_now(job),
            Topic::Action(job, action) | Topic::ActionEnd(job, action) => {
                Err(RemoteError::new(ErrorCode::Unavailable, format!("{action} of {job}"), "not there yet; ask again"))
            }
            Topic::Scope(job, scope) => {
                Err(RemoteError::new(ErrorCode::Unavailable, format!("{scope} of {job}"), "not ended yet; ask again"))
            }
        };
        match outcome {
            Ok(Some((response, when))) => self.answer_when(wait.call, Ok(response), when),
            Ok(None) => {}
            Err(error) => self.answer(wait.call, Err(error)),
        }
    }

    fn action_result(
        &mut self,
        asked: Asked<'_>,
        (job, action): (JobId, ActionId),
        within: &[ScopeId],
        wait: bool,
        results: bool,
    ) -> Outcome {
        if let Some(ended) = self.scope_end(job, within)? {
            return Ok(Some(ended));
        }
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        match found.actions.get(&action) {
            None if !wait => now(Response::Action(ActionResult::Unknown)),
            Some(Action::Done(done)) if !results => {
                Ok(Some((Response::Action(ActionResult::Done(Vec::new())), done.record)))
            }
            known => match known.and_then(Action::result) {
                Some((result, record)) => Ok(Some((Response::Action(result), record))),
                None if results => self.park(asked, Topic::Action(job, action)),
                None => self.park(asked, Topic::ActionEnd(job, action)),
            },
        }
    }

    /// All outputs of a shuffle for a range of reduce partitions, which an attempt at a task will read.
    fn map_outputs(
        &mut self,
        job: JobId,
        shuffle: ShuffleId,
        (first, end): (PartitionId, PartitionId),
        by: TaskAttemptId,
    ) -> Outcome {
        let error = |code, message: String| Err(RemoteError::new(code, format!("{shuffle} of {job}"), message));
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        if by.job != job || found.attempts.get(&by).is_some_and(|attempt| attempt.cancelled) {
            return error(ErrorCode::OutputsLost, format!("nobody waits for {by}"));
        }
        let stage = found.stages.get(&StageKey::Shuffle(shuffle));
        // Who lives on from an earlier life of the scheduler may be faster than its driver, and than those who have the outputs.
        if found.resumes && !stage.is_some_and(Stage::is_complete) || stage.is_none() && found.reports.runs(by) {
            let message = "the scheduler has just begun, and not all executors have told what they have; ask again";
            return error(ErrorCode::Unavailable, message.to_owned());
        }
        let Some(stage) = stage else { return error(ErrorCode::NotFound, "no action has planned it".to_owned()) };
        let range = index(first.0)..index(end.0);
        let mut outputs = Vec::new();
        for done in stage.tasks.iter().map(|task| task.done.as_ref()) {
            let there = done.and_then(|done| Some((done, self.executors.get(done.executor)?)));
            let Some((done, executor)) = there else {
                // Kept waiting, it could keep the slot that those who compute them again wait for.
                return error(ErrorCode::OutputsLost, "outputs are lost and being computed again".to_owned());
            };
            let Some(pieces) = done.pieces.get(range.clone()) else {
                return error(
                    ErrorCode::InvalidArgument,
                    format!("there are {} reduce partitions; {first} to {end} were asked for", done.pieces.len()),
                );
            };
            outputs.push(MapOutput { map: done.attempt, address: executor.registration.address, pieces });
        }
        let Some(job) = self.jobs.get_mut(&job) else { return Err(self.gone(job)) };
        job.note_read(shuffle, (first.0, end.0), by);
        Ok(Some((Response::MapOutputs(outputs), job.held_record(shuffle))))
    }
}

/// As which driver a call is made; none for the end of one, which may be said again when its job has ended.
fn driver_of(request: &Request) -> Option<(JobId, JobSecret, u32)> {
    match *request {
        Request::DriverBegin { job, secret, attempt }
        | Request::DriverLives { job, secret, attempt }
        | Request::RunAction { job, secret, attempt, .. }
        | Request::Record { job, secret, attempt, .. }
        | Request::EndScope { job, secret, attempt, .. }
        | Request::Publishing { job, secret, attempt, .. }
        | Request::Published { job, secret, attempt, .. }
        | Request::Release { job, secret, attempt, .. } => Some((job, secret, attempt)),
        _ => None,
    }
}

/// Who alone may make a call; none where a secret decides or anyone may.
fn required_role(request: &Request) -> Option<Role> {
    match request {
        Request::Submit { .. } | Request::Kill { .. } => Some(Role::User),
        Request::ExecutorRegister(_) | Request::ExecutorPoll { .. } => Some(Role::Executor),
        Request::List { .. }
        | Request::Status { .. }
        | Request::Logs { .. }
        | Request::Executors
        | Request::DriverBegin { .. }
        | Request::DriverLives { .. }
        | Request::RunAction { .. }
        | Request::Record { .. }
        | Request::ActionResult { .. }
        | Request::ScopeOutcome { .. }
        | Request::EndScope { .. }
        | Request::Plan { .. }
        | Request::MapOutputs { .. }
        | Request::StageWork { .. }
        | Request::DriverEnd { .. }
        | Request::OwnDirectory { .. }
        | Request::Publishing { .. }
        | Request::Published { .. }
        | Request::Release { .. } => None,
    }
}

/// What whoever still works for a job that has ended is told.
pub(super) fn ended_error(job: JobId, state: &situ_wire::messages::scheduler::JobState) -> RemoteError {
    use situ_wire::messages::scheduler::JobState::{Failed, Killed, Running, Succeeded, Waiting};
    let message = match state {
        Failed { reason } => format!("the job failed: {reason}"),
        Killed { reason } => format!("the job was ended: {reason}"),
        Succeeded => "the job has ended already".to_owned(),
        Waiting | Running => "the job has not begun".to_owned(),
    };
    RemoteError::new(ErrorCode::JobFailed, job, message)
}
