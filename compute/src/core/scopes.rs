use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ActionId, JobId, ScopeId, ShuffleId, StageId, TaskAttemptId};
use situ_wire::limits::SCOPES_NESTED;
use situ_wire::messages::scheduler::{ActionResult, Plan, Response};

use super::JobRecord;
use super::RecordId;
use super::actions::{RESULT_LEN_BYTES, ensure, ensure_kept, plan_len_bytes, recorded_len_bytes};
use super::calls::{Asked, Outcome, now};
use super::job::{Action, Job};
use super::scheduler::Scheduler;
use super::stage::StageKey;
use super::waits::Topic;

/// The scopes of a job that have ended, and what they came to. Those within another one go with it.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    ended: BTreeMap<ScopeId, EndedScope>,
    /// By the scope around them.
    inner: BTreeSet<(ScopeId, ScopeId)>,
}

#[derive(Debug)]
struct EndedScope {
    outer: ScopeId,
    outcome: Bytes,
    /// The record that says so; none if an earlier life of the scheduler wrote it.
    record: Option<RecordId>,
}

impl Scopes {
    pub(super) fn len(&self) -> usize {
        self.ended.len()
    }

    /// How much what they came to takes.
    pub(super) fn len_bytes(&self) -> usize {
        self.ended.values().map(|ended| recorded_len_bytes(&ended.outcome)).sum()
    }

    /// Whether one of these has ended.
    pub(super) fn has_ended(&self, within: &[ScopeId]) -> bool {
        self.end_of(within).is_some()
    }

    /// Whether one of these has ended, and what is said of it: once it is on the disk, that nobody waits.
    fn end_of(&self, within: &[ScopeId]) -> Option<(Response, Option<RecordId>)> {
        let ended = within.iter().find_map(|scope| self.ended.get(scope))?;
        Some((Response::Action(ActionResult::ScopeEnded), ended.record))
    }

    /// What a scope came to, and the record that must be on the disk before anybody hears of it.
    fn outcome(&self, scope: ScopeId) -> Option<(Bytes, Option<RecordId>)> {
        self.ended.get(&scope).map(|ended| (ended.outcome.clone(), ended.record))
    }

    fn insert(&mut self, scope: ScopeId, ended: EndedScope) {
        self.inner.insert((ended.outer, scope));
        self.ended.insert(scope, ended);
    }

    fn inner_of(&self, outer: ScopeId) -> impl Iterator<Item = ScopeId> {
        self.inner.range((outer, ScopeId(0))..=(outer, ScopeId(u64::MAX))).map(|(_, scope)| *scope)
    }

    /// Forgets the scopes within one that has ended; how much they took.
    fn forget_inner(&mut self, outer: ScopeId) -> usize {
        let inner: Vec<ScopeId> = self.inner_of(outer).collect();
        let mut len = 0;
        for scope in inner {
            self.inner.remove(&(outer, scope));
            len += self.ended.remove(&scope).map_or(0, |ended| recorded_len_bytes(&ended.outcome));
        }
        len
    }
}

impl Scheduler {
    /// What a scope came to, for who need not run it then.
    pub(super) fn scope_outcome(&mut self, asked: Asked<'_>, job: JobId, within: &[ScopeId], wait: bool) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let (scope, around) = path_of(job, within)?;
        if let Some((outcome, record)) = found.scopes.outcome(scope) {
            return Ok(Some((Response::Action(ActionResult::Done(vec![outcome])), record)));
        }
        if let Some(ended) = found.scopes.end_of(around) {
            return Ok(Some(ended));
        }
        if !wait {
            return now(Response::Action(ActionResult::Unknown));
        }
        self.park(asked, Topic::Scope(job, scope))
    }

    /// A scope of a job's program has ended in its driver. What it came to is recorded, and what belongs to it is forgotten:
    /// nobody runs it again.
    pub(super) fn end_scope(&mut self, asked: Asked<'_>, job: JobId, within: &[ScopeId], outcome: Bytes) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let (scope, around) = path_of(job, within)?;
        if found.scopes.has_ended(within) {
            return self.scope_outcome(asked, job, within, false);
        }
        let (freed, freed_len) = found.taken_by(scope);
        let (kept, len) = (found.actions_kept() - freed + 1, found.kept_len_bytes - freed_len);
        let outcome_len = recorded_len_bytes(&outcome);
        let returned = || found.scopes.len_bytes() + outcome_len;
        let bounds = ensure_kept(len + outcome_len, self.policy.results_len_bytes, returned)
            .and_then(|()| ensure(kept, self.policy.actions as u64, "actions and ended scopes"))
            .and_then(|()| ensure(outcome.len() as u64, RESULT_LEN_BYTES as u64, "bytes that a scope returns"));
        if let Err(reason) = bounds {
            return self.refuse(asked.now, job, format!("{scope}: {reason}"));
        }
        let outer = around.first().copied().unwrap_or(ScopeId::ROOT);
        let record = self.append(JobRecord::ScopeEnded { job, scope, outer, outcome: outcome.clone() });
        let answer = |result: ActionResult| Ok(Response::Action(result));
        if let Some(found) = self.jobs.get_mut(&job) {
            let ended = EndedScope { outer, outcome: outcome.clone(), record: Some(record) };
            let shuffles = found.end_scope(scope, ended);
            found.released.extend(shuffles);
            found.find_needed(asked.now, self.executors.places());
            let attempts: Vec<TaskAttemptId> = found.attempts_of(scope).collect();
            for attempt in attempts {
                self.cancel(attempt);
            }
            self.changed.insert(job);
        }
        self.release_unneeded(job);
        self.forget_reports(job, |key| key.scope() == scope, |dataset| dataset.0 == scope);
        for wait in self.waits.take_actions(job, scope) {
            self.answer_when(wait.call, answer(ActionResult::ScopeEnded), Some(record));
        }
        for wait in self.waits.take(Topic::Scope(job, scope)) {
            self.answer_when(wait.call, answer(ActionResult::Done(vec![outcome.clone()])), Some(record));
        }
        Ok(Some((Response::Action(ActionResult::Done(vec![outcome])), Some(record))))
    }

    /// What is said of an action whose scope, or one around it, has ended.
    pub(super) fn scope_end(
        &self,
        job: JobId,
        within: &[ScopeId],
    ) -> Result<Option<(Response, Option<RecordId>)>, RemoteError> {
        if within.is_empty() {
            return Ok(None);
        }
        path_of(job, within)?;
        Ok(self.jobs.get(&job).and_then(|found| found.scopes.end_of(within)))
    }

    /// The same of an action that has a plan, which may be of nothing that belongs to an ended scope either.
    pub(super) fn scope_end_of(
        &self,
        job: JobId,
        action: ActionId,
        plan: &Plan,
    ) -> Option<(Response, Option<RecordId>)> {
        let scopes = &self.jobs.get(&job)?.scopes;
        let stages = plan.stages.iter().map(|stage| stage.stage.0);
        std::iter::once(action.0).chain(stages).find_map(|scope| scopes.end_of(&[scope]))
    }
}

impl Job {
    /// Whether nobody waits for an action any more.
    pub(super) fn is_over(&self, action: ActionId) -> bool {
        let done = |action: &Action| !matches!(action, Action::Running { .. });
        self.scopes.has_ended(&[action.0]) || self.actions.get(&action).is_some_and(done)
    }

    /// How many actions and scopes are kept.
    pub(super) fn actions_kept(&self) -> u64 {
        (self.actions.len() + self.scopes.len()) as u64
    }

    /// How many actions and scopes go with a scope, and how much what is known of them takes.
    fn taken_by(&self, scope: ScopeId) -> (u64, usize) {
        let actions = self.actions.range(ActionId::all_of(scope)).map(|(_, action)| match action {
            Action::Done(done) => done.len_bytes(),
            Action::Recorded { value, .. } => recorded_len_bytes(value),
            Action::Running { plan, .. } => plan_len_bytes(plan),
        });
        let inner = self.scopes.inner_of(scope).filter_map(|inner| self.scopes.ended.get(&inner));
        let lens = actions.chain(inner.map(|ended| recorded_len_bytes(&ended.outcome)));
        lens.fold((0, 0), |(count, sum), len| (count + 1, sum + len))
    }

    /// Forgets what belongs to a scope that has ended, but for the shuffles that are to be released.
    fn end_scope(&mut self, scope: ScopeId, ended: EndedScope) -> Vec<ShuffleId> {
        self.kept_len_bytes += recorded_len_bytes(&ended.outcome);
        self.scopes.insert(scope, ended);
        self.kept_len_bytes -= self.scopes.forget_inner(scope);
        let actions: Vec<ActionId> = self.actions.range(ActionId::all_of(scope)).map(|(action, _)| *action).collect();
        for action in actions {
            match self.actions.remove(&action) {
                Some(Action::Done(done)) => self.kept_len_bytes -= done.len_bytes(),
                Some(Action::Recorded { value, .. }) => self.kept_len_bytes -= recorded_len_bytes(&value),
                // A thread that the scope has left behind runs it: nobody waits for that.
                Some(Action::Running { plan, .. }) => {
                    self.under_way.remove(&action);
                    self.kept_len_bytes -= plan_len_bytes(&plan);
                    let stage = self.forget_stage(StageKey::Result(action));
                    self.kept_len_bytes -= stage.map_or(0, |stage| stage.results_len_bytes);
                }
                None => {}
            }
        }
        self.held.retain(|shuffle, _| shuffle.0 != scope);
        self.given.retain(|shuffle, _| shuffle.0 != scope);
        self.cached.release(|dataset| dataset.0 == scope);
        self.recoveries.forget_datasets(|dataset| dataset.0 == scope);
        self.numbers.forget_all_of(scope);
        let of_scope = StageKey::Shuffle(ShuffleId(scope, 0))..=StageKey::Shuffle(ShuffleId(scope, u32::MAX));
        let shuffles = self.stages.range(of_scope).filter_map(|(key, _)| match key {
            StageKey::Shuffle(shuffle) => Some(*shuffle),
            StageKey::Result(_) => None,
        });
        shuffles.collect()
    }

    /// The attempts under way at tasks of a scope.
    fn attempts_of(&self, scope: ScopeId) -> impl Iterator<Item = TaskAttemptId> {
        let of = StageId::all_of(scope);
        self.attempts.keys().filter(move |attempt| of.contains(&attempt.stage)).copied()
    }

    /// A scope ended in an earlier life of the scheduler, as a record says; it may have been told before.
    pub(super) fn restore_scope(&mut self, scope: ScopeId, outer: ScopeId, outcome: Bytes) {
        if !self.scopes.has_ended(&[scope]) {
            self.end_scope(scope, EndedScope { outer, outcome, record: None });
        }
    }

    /// The records that bring its scopes back.
    pub(super) fn scope_records(&self) -> impl Iterator<Item = JobRecord> {
        let job = self.id();
        self.scopes.ended.iter().map(move |(scope, ended)| JobRecord::ScopeEnded {
            job,
            scope: *scope,
            outer: ended.outer,
            outcome: ended.outcome.clone(),
        })
    }
}

/// A scope and those around it, as a call names them.
fn path_of(job: JobId, within: &[ScopeId]) -> Result<(ScopeId, &[ScopeId]), RemoteError> {
    let wrong = |found: String| {
        let message = format!("{found}; expected a scope and those around it, at most {SCOPES_NESTED}, each once");
        Err(RemoteError::new(ErrorCode::InvalidArgument, job, message))
    };
    let different: BTreeSet<&ScopeId> = within.iter().take(SCOPES_NESTED + 1).collect();
    match within.split_first() {
        None => wrong("it names no scope".to_owned()),
        Some(_) if within.len() > SCOPES_NESTED => wrong(format!("it names {} scopes", within.len())),
        Some(_) if different.len() < within.len() => wrong("it names a scope twice".to_owned()),
        Some(_) if different.contains(&ScopeId::ROOT) => wrong("it names the whole program".to_owned()),
        Some((scope, around)) => Ok((*scope, around)),
    }
}
