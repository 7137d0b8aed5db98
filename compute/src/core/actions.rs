use std::collections::btree_map::Entry;

use bytes::Bytes;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ActionId, JobId, ScopeId};
use situ_wire::limits::MESSAGE_LEN_BYTES;
use situ_wire::messages::scheduler::{ActionResult, JobState, Payload, Plan, Response, StagePlan, Work};
use situ_wire::time::TimeMs;

use super::JobRecord;
use super::calls::{Asked, Outcome};
use super::job::{Action, DoneAction, Job, pieces, work_len_bytes};
use super::plan::{check_plan, differs};
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey};
use super::waits::Topic;
use crate::shortened::shortened;

/// The most that the results of one action may take, where each is short or says which file it is in: they travel in one
/// message.
pub(super) const RESULT_LEN_BYTES: usize = MESSAGE_LEN_BYTES - (64 << 10);
/// What a message needs around the result of one partition, at most.
const RESULT_AROUND_LEN_BYTES: usize = 5;
/// What a recorded value takes beside its bytes, roughly.
const RECORDED_AROUND_LEN_BYTES: usize = 100;

impl Scheduler {
    /// A driver runs an action: a new one begins; for one that it ran before, perhaps in an earlier attempt, it gets or
    /// awaits the same result.
    pub(super) fn run_action(&mut self, asked: Asked<'_>, job: JobId, action: ActionId, plan: Box<Plan>) -> Outcome {
        if let Some(ended) = self.scope_end_of(job, action, &plan) {
            return Ok(Some(ended));
        }
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
            Some(Action::Running { digest: before, .. } | Action::Done(DoneAction { digest: before, .. }))
                if *before == digest =>
            {
                return self.await_action(asked, job, action);
            }
            Some(Action::Running { plan: before, .. }) => {
                before.difference("an earlier run of the driver", &plan, "this run").unwrap_or_default()
            }
            Some(Action::Done(DoneAction { name, .. })) if *name == plan.name => {
                format!("what {name} is computed from is not what it was in an earlier run of the driver")
            }
            Some(Action::Done(DoneAction { name, .. })) => {
                format!("an earlier run of the driver ran {name} under its number, this run runs {}", plan.name)
            }
            Some(Action::Recorded { .. }) => {
                "an earlier run of the driver recorded a value under its number".to_owned()
            }
        };
        self.refuse_action(asked.now, job, action, &differs(&difference))
    }

    /// Whether all jobs together may have the tasks of one more plan. What others have planned goes with them: a job waits
    /// for that and does not fail. The oldest never waits, or two that are near the bound would wait for each other.
    fn room_for(&self, job: &Job, plan: &Plan) -> Result<(), RemoteError> {
        let others: u64 = self.jobs.values().map(|job| job.tasks).sum::<u64>() - job.tasks;
        let new = plan.stages.iter().filter(|stage| !job.stages.contains_key(&StageKey::from(stage.output)));
        let own = job.tasks + new.map(|stage| u64::from(stage.partitions)).sum::<u64>();
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
        self.refuse(at, job, format!("{action}: {reason}"))
    }

    /// What a driver asks for cannot be: the job fails, and the driver is told.
    pub(super) fn refuse(&mut self, at: TimeMs, job: JobId, reason: String) -> Outcome {
        let record = self.end_job(at, job, JobState::Failed { reason: shortened(&reason).into_owned() });
        let failed = ActionResult::Failed(RemoteError::new(ErrorCode::JobFailed, job, reason));
        Ok(Some((Response::Action(failed), record)))
    }

    fn await_action(&mut self, asked: Asked<'_>, job: JobId, action: ActionId) -> Outcome {
        match self.jobs.get(&job).and_then(|found| found.actions.get(&action)) {
            Some(Action::Running { .. }) => self.park(asked, Topic::Action(job, action)),
            Some(ended) => match ended.result() {
                Some((result, record)) => Ok(Some((Response::Action(result), record))),
                None => Err(self.gone(job)),
            },
            // Its results were too much.
            None => Err(self.gone(job)),
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
        check_plan(&plan, action).map_err(|reason| format!("its plan cannot be run: {reason}"))?;
        let Some(found) = self.jobs.get_mut(&job) else { return Ok(()) };
        let known = |stage: &StagePlan| found.stages.get(&StageKey::from(stage.output));
        for stage in &plan.stages {
            if let Some(before) = known(stage) {
                check_same(&before.plan, stage)?;
            }
        }
        let new = || plan.stages.iter().filter(|stage| known(stage).is_none());
        let tasks = found.tasks + new().map(|stage| u64::from(stage.partitions)).sum::<u64>();
        let pieces = found.pieces.saturating_add(new().map(pieces).fold(0, u64::saturating_add));
        let work = new().map(work_len_bytes).sum::<usize>();
        let len = found.kept_len_bytes + plan_len_bytes(&plan) + work;
        let too_large = |setting: &'static str| {
            move |reason| {
                format!(
                    "{reason}: use fewer and larger partitions, or raise `{setting}` in the scheduler's configuration"
                )
            }
        };
        ensure(tasks, self.policy.tasks, "tasks").map_err(too_large("tasks"))?;
        ensure(pieces, self.policy.pieces, "pieces of shuffles (map tasks times reduce partitions)")
            .map_err(too_large("pieces"))?;
        ensure(found.actions_kept() + 1, self.policy.actions as u64, "actions and ended scopes")?;
        ensure_kept(len, self.policy.results_len_bytes, || found.scopes.len_bytes())?;
        found.kept_len_bytes = len;
        for stage in &mut plan.stages {
            let key = StageKey::from(stage.output);
            if let StageKey::Shuffle(shuffle) = key {
                // The driver has come back to it.
                found.released.remove(&shuffle);
            }
            // The stage has the places; nobody asks the plan for them.
            let preferred = std::mem::take(&mut stage.preferred);
            let work = stage.work.clone();
            if let Some(Work { payload, .. }) = &mut stage.work {
                *payload = Payload::Inline(Bytes::new());
            }
            let Job { stages, cached, .. } = found;
            match stages.get_mut(&key) {
                Some(before) => before.move_input(&preferred, cached, self.executors.places_mut()),
                None => {
                    let stage = StagePlan { preferred, work, ..stage.clone() };
                    found.plan(key, Stage::new(stage, self.executors.places_mut()));
                }
            }
        }
        found.actions.insert(action, Action::Running { digest, plan });
        found.under_way.insert(action);
        found.find_needed(at, self.executors.places());
        self.changed.insert(job);
        self.finish_action(at, job, action);
        self.adopt(at, job);
        Ok(())
    }

    /// If all of an action's results are there, whoever waits for them gets them, once it is on the disk that it is done.
    pub(super) fn finish_action(&mut self, at: TimeMs, job: JobId, action: ActionId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let Some(key) = found.root(action) else { return };
        if !found.stages.get(&key).is_some_and(Stage::is_complete) {
            return;
        }
        let Some(Action::Running { digest, plan }) = found.actions.remove(&action) else { return };
        found.under_way.remove(&action);
        let results = match key {
            StageKey::Result(_) => found.forget_stage(key).map(Stage::into_results),
            // Others may read it.
            StageKey::Shuffle(_) => found.stages.get(&key).map(Stage::totals),
        };
        let Some(results) = results else { return };
        let results_len_bytes = match key {
            StageKey::Result(_) => results.iter().map(Bytes::len).sum::<usize>(),
            // They were made just now.
            StageKey::Shuffle(_) => 0,
        };
        let given = found.give(&plan);
        let given = self.record_given(job, given);
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let name = plan.name.clone();
        let kept = found.kept_len_bytes - plan_len_bytes(&plan) - results_len_bytes;
        let mut done = DoneAction { name, digest, results, given, record: None };
        found.kept_len_bytes = kept + done.len_bytes();
        if let Err(reason) =
            ensure_kept(found.kept_len_bytes, self.policy.results_len_bytes, || found.scopes.len_bytes())
        {
            return self.fail_job(at, job, &format!("{action}: {reason}"));
        }
        let DoneAction { name, results, given, .. } = done.clone();
        let record = self.append(JobRecord::ActionDone { job, action, name, digest, results, given });
        done.record = Some(record);
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let answer = ActionResult::Done(done.results.clone());
        found.actions.insert(action, Action::Done(done));
        found.find_needed(at, self.executors.places());
        self.changed.insert(job);
        self.release_unneeded(job);
        for wait in self.waits.take(Topic::Action(job, action)) {
            self.answer_when(wait.call, Ok(Response::Action(answer.clone())), Some(record));
        }
        for wait in self.waits.take(Topic::ActionEnd(job, action)) {
            self.answer_when(wait.call, Ok(Response::Action(ActionResult::Done(Vec::new()))), Some(record));
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
            let (name, partitions) = (&stage.plan.name, stage.tasks.len());
            format!("{name}: {reason}, even where large ones are files; use fewer than its {partitions} partitions")
        })
    }

    pub(super) fn record_value(&mut self, asked: Asked<'_>, job: JobId, action: ActionId, value: Bytes) -> Outcome {
        if action.0 != ScopeId::ROOT
            && let Some(ended) = self.scope_end(job, &[action.0])?
        {
            return Ok(Some(ended));
        }
        let Some(found) = self.jobs.get_mut(&job) else { return Err(self.gone(job)) };
        match found.actions.get(&action) {
            Some(Action::Recorded { .. }) => return self.await_action(asked, job, action),
            Some(Action::Running { .. } | Action::Done(_)) => {
                let difference =
                    "an earlier run of the driver ran an action under this number, this run records a value";
                return self.refuse_action(asked.now, job, action, &differs(difference));
            }
            None => {}
        }
        let len = found.kept_len_bytes + recorded_len_bytes(&value);
        let bounds = ensure_kept(len, self.policy.results_len_bytes, || found.scopes.len_bytes())
            .and_then(|()| ensure(found.actions_kept() + 1, self.policy.actions as u64, "actions and ended scopes"))
            .and_then(|()| ensure(value.len() as u64, RESULT_LEN_BYTES as u64, "bytes in one recorded value"));
        if let Err(reason) = bounds {
            return self.refuse_action(asked.now, job, action, &reason);
        }
        found.kept_len_bytes = len;
        let record = self.append(JobRecord::Recorded { job, action, value: value.clone() });
        if let Some(found) = self.jobs.get_mut(&job) {
            found.actions.insert(action, Action::Recorded { value: value.clone(), record: Some(record) });
        }
        let answer = ActionResult::Done(vec![value]);
        for topic in [Topic::Action(job, action), Topic::ActionEnd(job, action)] {
            for wait in self.waits.take(topic) {
                self.answer_when(wait.call, Ok(Response::Action(answer.clone())), Some(record));
            }
        }
        Ok(Some((Response::Action(answer), Some(record))))
    }
}

impl Job {
    /// An action ended in an earlier life of the scheduler, as a record says; it may have been told before.
    pub(super) fn restore_action(&mut self, action: ActionId, ended: Action) {
        let Entry::Vacant(entry) = self.actions.entry(action) else { return };
        match &ended {
            Action::Done(done) => {
                self.kept_len_bytes += done.len_bytes();
                self.given.extend(done.given.iter().copied());
            }
            Action::Recorded { value, .. } => self.kept_len_bytes += recorded_len_bytes(value),
            Action::Running { .. } => {}
        }
        entry.insert(ended);
    }

    /// The records that bring its actions back.
    pub(super) fn action_records(&self) -> impl Iterator<Item = JobRecord> {
        let job = self.id();
        self.actions.iter().filter_map(move |(action, state)| {
            let action = *action;
            match state {
                Action::Running { .. } => None,
                Action::Done(done) => {
                    let DoneAction { name, digest, results, given, .. } = done.clone();
                    Some(JobRecord::ActionDone { job, action, name, digest, results, given })
                }
                Action::Recorded { value, .. } => Some(JobRecord::Recorded { job, action, value: value.clone() }),
            }
        })
    }
}

/// How much a recorded value takes in memory, roughly.
pub(super) fn recorded_len_bytes(value: &Bytes) -> usize {
    value.len() + RECORDED_AROUND_LEN_BYTES
}

/// A stage that was planned before must be planned the same again.
fn check_same(before: &StagePlan, stage: &StagePlan) -> Result<(), String> {
    let work = |stage: &StagePlan| stage.work.as_ref().map(|work| (work.kind.clone(), work.digest));
    let shape = |stage: &StagePlan| (stage.stage, stage.partitions, stage.output, stage.reads.clone(), work(stage));
    if shape(before) == shape(stage) {
        return Ok(());
    }
    Err(format!("an earlier action planned {:?}, this one {:?}, for the same shuffle", shape(before), shape(stage)))
}

/// How much a plan takes in memory, roughly.
pub(super) fn plan_len_bytes(plan: &Plan) -> usize {
    let nodes = plan.nodes.iter().map(|node| node.name.len() + node.parents.len() * 4 + 64);
    let stages = plan.stages.iter().map(|stage| stage.name.len() + stage.reads.len() * 4 + 128);
    nodes.chain(stages).sum::<usize>() + plan.own_thread.as_ref().map_or(0, String::len)
}

/// Keeps a bound on what the scheduler has of one job until that ends. `returned` is how much of that is what scopes have
/// returned, and is asked for where it is too much.
pub(super) fn ensure_kept(found: usize, most: usize, returned: impl FnOnce() -> usize) -> Result<(), String> {
    let what = "bytes of plans, results of actions, recorded values and what scopes have returned";
    ensure(found as u64, most as u64, what).map_err(|reason| {
        format!(
            "{reason}, because they stay with the scheduler until the job, or the scope around them, ends; scopes have \
             returned {} of these bytes: return less from scopes and save what is large (`save_as_text_file`), run parts of \
             the program in scopes (`Context::scope`), and those within others, at whose end all that is in them goes, or \
             raise results_len_bytes in the scheduler's configuration",
            returned()
        )
    })
}

/// Keeps a bound on what one job may have.
pub(super) fn ensure(found: u64, most: u64, what: &str) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("the job would have {found} {what}; at most {most} are allowed")) }
}
