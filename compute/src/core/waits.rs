use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use situ_wire::ids::{ActionId, JobId, ScopeId};
use situ_wire::time::TimeMs;

use super::CallId;

/// What a call waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Topic {
    /// The result of an action.
    Action(JobId, ActionId),
    /// That an action is done.
    ActionEnd(JobId, ActionId),
    /// The end of a scope.
    Scope(JobId, ScopeId),
    /// A change of a job.
    Status(JobId),
}

/// One call that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wait {
    /// The call.
    pub(super) call: CallId,
    /// What it waits for.
    pub(super) topic: Topic,
    /// Since when.
    pub(super) since: TimeMs,
    /// Until when.
    pub(super) until: TimeMs,
}

/// The calls whose answers are not there yet: by what they wait for, and by when their time is up.
#[derive(Debug, Default)]
pub(super) struct Waits {
    calls: BTreeMap<CallId, Wait>,
    topics: BTreeSet<(Topic, CallId)>,
    times: BTreeSet<(TimeMs, CallId)>,
}

impl Waits {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Keeps a call.
    pub(super) fn park(&mut self, wait: Wait) {
        assert!(!self.calls.contains_key(&wait.call), "a call waits for one thing");
        self.topics.insert((wait.topic, wait.call));
        self.times.insert((wait.until, wait.call));
        self.calls.insert(wait.call, wait);
    }

    /// Takes out all that wait for `topic`, in the order of their calls.
    pub(super) fn take(&mut self, topic: Topic) -> Vec<Wait> {
        self.on(topic).into_iter().filter_map(|call| self.remove(call)).collect()
    }

    /// Takes out all that wait for anything of a job.
    pub(super) fn take_job(&mut self, job: JobId) -> Vec<Wait> {
        let (first, last) = (ScopeId(0), ScopeId(u64::MAX));
        let mut calls = self.on_actions(job, ActionId(first, 0)..=ActionId(last, u32::MAX));
        calls.extend(self.between(Topic::Scope(job, first), Topic::Scope(job, last)));
        calls.extend(self.on(Topic::Status(job)));
        calls.sort_unstable();
        calls.into_iter().filter_map(|call| self.remove(call)).collect()
    }

    /// Takes out all that wait for an action of a scope.
    pub(super) fn take_actions(&mut self, job: JobId, scope: ScopeId) -> Vec<Wait> {
        let calls = self.on_actions(job, ActionId::all_of(scope));
        calls.into_iter().filter_map(|call| self.remove(call)).collect()
    }

    /// Takes out all whose time is up.
    pub(super) fn take_due(&mut self, now: TimeMs) -> Vec<Wait> {
        let due: Vec<CallId> =
            self.times.iter().take_while(|(until, _)| *until <= now).map(|(_, call)| *call).collect();
        due.into_iter().filter_map(|call| self.remove(call)).collect()
    }

    /// Ends the waits for `topic` sooner: `rest` after they began, but not in the past.
    pub(super) fn hasten(&mut self, topic: Topic, now: TimeMs, rest: std::time::Duration) {
        for call in self.on(topic) {
            let Some(wait) = self.calls.get_mut(&call) else { continue };
            let until = wait.until.min(now.max(wait.since + rest));
            self.times.remove(&(wait.until, call));
            self.times.insert((until, call));
            wait.until = until;
        }
    }

    /// When the next one's time is up.
    pub(super) fn next_due(&self) -> Option<TimeMs> {
        self.times.first().map(|(until, _)| *until)
    }

    pub(super) fn check(&self) {
        assert_eq!(self.calls.len(), self.topics.len(), "every waiting call has one topic");
        assert_eq!(self.calls.len(), self.times.len(), "every waiting call has one time");
    }

    fn on_actions(&self, job: JobId, actions: RangeInclusive<ActionId>) -> Vec<CallId> {
        let (first, last) = actions.into_inner();
        let mut calls = self.between(Topic::Action(job, first), Topic::Action(job, last));
        calls.extend(self.between(Topic::ActionEnd(job, first), Topic::ActionEnd(job, last)));
        calls
    }

    fn on(&self, topic: Topic) -> Vec<CallId> {
        self.between(topic, topic)
    }

    fn between(&self, first: Topic, last: Topic) -> Vec<CallId> {
        let range = (first, CallId(0))..=(last, CallId(u64::MAX));
        self.topics.range(range).map(|(_, call)| *call).collect()
    }

    fn remove(&mut self, call: CallId) -> Option<Wait> {
        let wait = self.calls.remove(&call)?;
        self.topics.remove(&(wait.topic, call));
        self.times.remove(&(wait.until, call));
        Some(wait)
    }
}
