use bytes::Bytes;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ActionId, JobId};
use situ_wire::limits::MESSAGE_LEN_BYTES;
use situ_wire::messages::scheduler::{ActionResult, Plan, Response, StageOutput, StagePlan};
use situ_wire::time::TimeMs;

use super::calls::{Asked, Outcome, now};
use super::job::{Action, Job};
use super::plan::check_plan;
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey};
use super::waits::Topic;

/// The most that the results of one action may take: they travel in one message.
const RESULT_LEN_BYTES: usize = MESSAGE_LEN_BYTES - (64 << 10);
/// What a message needs around the result of one partition, at most.
const RESULT_AROUND_LEN_BYTES: usize = 5;

impl Scheduler {
    /// A driver runs an action: a new one begins; for one that it ran before, perhaps in an earlier attempt, it gets or
    /// awaits the same result.
    pub(super) fn run_action(&mut self, asked: Asked<'_>, job: JobId, action: ActionId, plan: Box<Plan>) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let digest = plan.digest();
        let difference = match found.actions.get(&action) {
            None => {
                self.room_for(found, &plan)?;
                return match self.begin_action(asked.now, job, action, digest, plan) {
                    Ok(()) => self.await_action(asked, job, action),
                    Err(reason) => self.refuse_action(asked.now, job, action, &reason),
                };
            }
            Some(Action::Running { digest: before, .. } | Action::Done { digest: before, .. }) if *before == digest => {
                return self.await_action(asked, job, action);
            }
            Some(Action::Running { plan: before, .. } | Action::Done { plan: before, .. }) => {
                before.difference("an earlier run of the driver", &plan, "this run").unwrap_or_default()
            }
            Some(Action::Recorded(_)) => "an earlier run of the driver recorded a value under its number".to_owned(),
        };
        let reason = format!(
            "the program does not do the same each time it runs: {difference}; what varies (time, randomness, files \
             outside the file system) must enter it through an action"
        );
        self.refuse_action(asked.now, job, action, &reason)
    }

    /// Whether all jobs together may have the tasks of one more plan. What others have planned goes with them: a job waits
    /// for that and does not fail. The oldest never waits, or two that are near the bound would wait for each other.
    fn room_for(&self, job: &Job, plan: &Plan) -> Result<(), RemoteError> {
        let others: u64 = self.jobs.values().map(|job| job.tasks).sum::<u64>() - job.tasks;
        let own = job.tasks + plan.stages.iter().map(|stage| u64::from(stage.partitions)).sum::<u64>();
        let oldest = self.jobs.range(..job.id()).all(|(_, older)| older.tasks == 0);
        if oldest || others.saturating_add(own) <= self.policy.all_tasks {
            return Ok(());
        }
        let message = format!(
            "it would have {own} tasks beside the {others} of other jobs; at most {} are planned at once; ask again",
            self.policy.all_tasks
        );
        Err(RemoteError::new(ErrorCode::Unavailable, job.id(), message))
    }

    /// An action cannot be run: the job fails, and the driver is told.
    fn refuse_action(&mut self, at: TimeMs, job: JobId, action: ActionId, reason: &str) -> Outcome {
        let reason = format!("{action}: {reason}");
        self.fail_job(at, job, &reason);
        now(Response::Action(ActionResult::Failed(RemoteError::new(ErrorCode::JobFailed, job, reason))))
    }

    fn await_action(&mut self, asked: Asked<'_>, job: JobId, action: ActionId) -> Outcome {
        match self.jobs.get(&job).and_then(|found| found.actions.get(&action)) {
            Some(Action::Done { results, .. }) => now(Response::Action(ActionResult::Done(results.clone()))),
            Some(Action::Running { .. }) => self.park(asked, Topic::Action(job, action)),
            // Its results were too much.
            Some(Action::Recorded(_)) | None => Err(self.gone(job)),
        }
    }

    fn begin_action(
        &mut self,
        at: TimeMs,
        job: JobId,
        action: ActionId,
        digest: [u8; 32],
        mut plan: Box<Plan>,
    ) -> Result<(), String> {
        check_plan(&plan, action, &self.policy).map_err(|reason| format!("its plan makes no sense: {reason}"))?;
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let known = |stage: &StagePlan| found.stages.get(&StageKey::from(stage.output));
        for stage in &plan.stages {
            if let Some(before) = known(stage) {
                check_same(&before.plan, stage)?;
            }
        }
        let new = || plan.stages.iter().filter(|stage| known(stage).is_none());
        let tasks = found.tasks + new().map(|stage| u64::from(stage.partitions)).sum::<u64>();
        let pieces = found.pieces + new().map(pieces).fold(0, u64::saturating_add);
        let len = found.kept_len_bytes + plan_len_bytes(&plan);
        ensure(tasks, self.policy.tasks, "tasks")?;
        ensure(pieces, self.policy.pieces, "pieces of shuffles (map tasks times reduce partitions)")?;
        ensure(found.actions.len() as u64 + 1, self.policy.actions as u64, "actions")?;
        ensure(len as u64, self.policy.results_len_bytes as u64, "bytes of plans and results")?;
        (found.tasks, found.pieces, found.kept_len_bytes) = (tasks, pieces, len);
        for stage in &mut plan.stages {
            let key = StageKey::from(stage.output);
            // The stage has the places; nobody asks the plan for them.
            let preferred = std::mem::take(&mut stage.preferred);
            let Job { stages, cached, .. } = found;
            match stages.get_mut(&key) {
                Some(before) => before.move_input(&preferred, cached, self.executors.places_mut()),
                None => {
                    let stage = StagePlan { preferred, ..stage.clone() };
                    found.plan(key, Stage::new(stage, self.executors.places_mut()));
                }
            }
        }
        found.actions.insert(action, Action::Running { digest, plan });
        found.running.insert(action);
        found.find_needed(at, self.executors.places());
        self.changed.insert(job);
        self.finish_action(at, job, action);
        Ok(())
    }

    /// If all of an action's results are there, whoever waits for them gets them.
    pub(super) fn finish_action(&mut self, at: TimeMs, job: JobId, action: ActionId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let key = StageKey::Result(action);
        let Some(stage) = found.stages.get_mut(&key).filter(|stage| stage.is_complete()) else { return };
        let results = stage.close();
        let Some(Action::Running { digest, plan }) = found.actions.remove(&action) else { return };
        found.running.remove(&action);
        found.actions.insert(action, Action::Done { digest, plan, results: results.clone() });
        found.forget_closed(key);
        found.find_needed(at, self.executors.places());
        let kept = found.kept_len_bytes;
        self.changed.insert(job);
        if let Err(reason) = ensure(kept as u64, self.policy.results_len_bytes as u64, "bytes of plans and results") {
            return self.fail_job(at, job, &format!("{action}: {reason}; save large results to files"));
        }
        for wait in self.waits.take(Topic::Action(job, action)) {
            self.answer(wait.call, Ok(Response::Action(ActionResult::Done(results.clone()))));
        }
    }

    /// Checks that the results of a stage still fit into a message.
    ///
    /// # Errors
    /// When the action's results would not fit into a message.
    pub(super) fn check_results(&self, job: JobId, key: StageKey) -> Result<(), String> {
        let Some(found) = self.jobs.get(&job) else { return Ok(()) };
        let Some(stage) = found.stages.get(&key) else { return Ok(()) };
        let len = stage.results_len_bytes + stage.tasks.len() * RESULT_AROUND_LEN_BYTES;
        ensure(len as u64, RESULT_LEN_BYTES as u64, "bytes of results for the driver").map_err(|reason| {
            format!("{}: {reason}; save large results to files instead of collecting them", stage.plan.name)
        })
    }

    pub(super) fn record_value(&mut self, asked: Asked<'_>, job: JobId, action: ActionId, value: Bytes) -> Outcome {
        let Some(found) = self.jobs.get_mut(&job) else { return Err(self.gone(job)) };
        let done = |value: &Bytes| now(Response::Action(ActionResult::Done(vec![value.clone()])));
        match found.actions.get(&action) {
            Some(Action::Recorded(before)) => return done(before),
            Some(Action::Running { .. } | Action::Done { .. }) => {
                let reason = "the program does not do the same each time it runs: an earlier run of the driver ran an action \
                              under this number, this run records a value";
                return self.refuse_action(asked.now, job, action, reason);
            }
            None => {}
        }
        let len = found.kept_len_bytes + value.len();
        let bounds = ensure(len as u64, self.policy.results_len_bytes as u64, "bytes of plans and results")
            .and_then(|()| ensure(found.actions.len() as u64 + 1, self.policy.actions as u64, "actions"))
            .and_then(|()| ensure(value.len() as u64, RESULT_LEN_BYTES as u64, "bytes in one recorded value"));
        if let Err(reason) = bounds {
            return self.refuse_action(asked.now, job, action, &reason);
        }
        found.kept_len_bytes = len;
        found.actions.insert(action, Action::Recorded(value.clone()));
        for wait in self.waits.take(Topic::Action(job, action)) {
            self.answer(wait.call, Ok(Response::Action(ActionResult::Done(vec![value.clone()]))));
        }
        done(&value)
    }
}

/// A stage that was planned before must be planned the same again.
fn check_same(before: &StagePlan, stage: &StagePlan) -> Result<(), String> {
    let shape = |stage: &StagePlan| (stage.stage, stage.partitions, stage.output, stage.reads.clone());
    if shape(before) == shape(stage) {
        return Ok(());
    }
    Err(format!("an earlier action planned {:?}, this one {:?}, for the same shuffle", shape(before), shape(stage)))
}

fn pieces(stage: &StagePlan) -> u64 {
    match stage.output {
        StageOutput::Shuffle { reducers, .. } => u64::from(stage.partitions) * u64::from(reducers),
        StageOutput::Result { .. } => 0,
    }
}

/// How much a plan takes in memory, roughly.
fn plan_len_bytes(plan: &Plan) -> usize {
    let nodes = plan.nodes.iter().map(|node| node.name.len() + node.parents.len() * 4 + 64);
    let stages = plan.stages.iter().map(|stage| stage.name.len() + stage.reads.len() * 4 + 128);
    nodes.chain(stages).sum()
}

/// Keeps a bound on what one job may have.
fn ensure(found: u64, most: u64, what: &str) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("the job would have {found} {what}; at most {most} are allowed")) }
}
