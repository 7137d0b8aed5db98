use std::collections::BTreeMap;

use situ_wire::ids::{ExecutorId, JobId};
use situ_wire::time::TimeMs;

use super::policy::ms;
use super::scheduler::Scheduler;

/// A job that has tasks to start and of which nothing runs: perhaps because wherever slots are free the memory is taken by
/// the workers of other jobs.
///
/// Where an executor holds fewer workers than slots, jobs that always have something to start would keep their workers for
/// ever. So one that has waited for long makes another leave an executor: that starts nothing more there, and when what it
/// runs there has ended, the next worker has its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crowded {
    /// Since when.
    since: TimeMs,
    /// Where another one leaves for it.
    pub(super) at: Option<ExecutorId>,
}

/// A job that leaves an executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaving {
    pub(super) job: JobId,
    /// For which one.
    pub(super) to: JobId,
}

impl Scheduler {
    /// Notes since when a job has tasks to start and nothing of it runs.
    pub(super) fn note_crowding(&mut self, now: TimeMs, job: JobId) {
        match self.jobs.get_mut(&job) {
            Some(found) if found.is_open() && found.attempts.is_empty() => {
                found.crowded.get_or_insert(Crowded { since: now, at: None });
            }
            _ => self.end_crowding(job),
        }
    }

    /// Whether there is no memory for a worker of a job of which nothing runs. If that has lasted, room is made.
    pub(super) fn is_crowded_out(&mut self, now: TimeMs, job: JobId) -> bool {
        let Some(Crowded { since, at }) = self.jobs.get(&job).and_then(|found| found.crowded) else { return false };
        if self.executors.has_open() {
            return false;
        }
        if since + ms(self.policy.crowded_ms) > now || at.is_some_and(|at| self.is_left_to(job, at)) {
            return true;
        }
        self.call_back(job, at);
        let leaver = self.find_leaver(job);
        if let Some((executor, leaver)) = leaver
            && let Some(there) = self.executors.get_mut(executor)
        {
            there.leaving = Some(Leaving { job: leaver, to: job });
        }
        if let Some(found) = self.jobs.get_mut(&job) {
            found.crowded = Some(Crowded { since, at: leaver.map(|(executor, _)| executor) });
        }
        true
    }

    /// Something of a job runs, or nothing of it waits any more: nobody leaves for it.
    fn end_crowding(&mut self, job: JobId) {
        if let Some(Crowded { at, .. }) = self.jobs.get_mut(&job).and_then(|found| found.crowded.take()) {
            self.call_back(job, at);
        }
    }

    /// Who leaves an executor to a job may stay.
    pub(super) fn call_back(&mut self, job: JobId, at: Option<ExecutorId>) {
        let there = at.and_then(|at| self.executors.get_mut(at));
        if let Some(leaving) = there.and_then(|there| there.leaving.take_if(|leaving| leaving.to == job)) {
            self.changed.insert(leaving.job);
        }
    }

    /// Whether somebody leaves an executor to a job that may use it.
    fn is_left_to(&self, job: JobId, executor: ExecutorId) -> bool {
        let there = self.executors.get(executor).filter(|there| there.leaving.is_some_and(|leaving| leaving.to == job));
        let usable = self.jobs.get(&job).is_some_and(|found| self.usable(found).contains(executor));
        usable && there.is_some_and(|there| there.takes_tasks())
    }

    /// Who shall leave which executor for a job: of those that go on to start tasks the one of which the most run, where the
    /// fewest of them do.
    fn find_leaver(&self, job: JobId) -> Option<(ExecutorId, JobId)> {
        let usable = self.usable(self.jobs.get(&job)?);
        self.turns.busiest().filter(|other| *other != job).find_map(|other| {
            let mut there: BTreeMap<ExecutorId, usize> = BTreeMap::new();
            for attempt in self.jobs.get(&other)?.attempts.values() {
                *there.entry(attempt.executor).or_default() += 1;
            }
            let may_leave = |id: &ExecutorId| {
                let executor = self.executors.get(*id);
                usable.contains(*id)
                    && executor.is_some_and(|it| it.takes_tasks() && it.leaving.is_none() && it.reserved.is_none())
            };
            let fewest = there.into_iter().filter(|(id, _)| may_leave(id)).min_by_key(|(id, tasks)| (*tasks, *id));
            Some((fewest?.0, other))
        })
    }
}
