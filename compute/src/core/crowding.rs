use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ExecutorId, JobId};
use situ_wire::time::TimeMs;

use super::executor::Executor;
use super::executors::Executors;
use super::policy::ms;
use super::scheduler::Scheduler;
use super::search::Usable;
use super::stage::{Stage, StageKey};
use super::workers::Leaving;

/// How a job that has tasks to start gets memory for its workers, where executors hold fewer of them than slots: there, jobs
/// that always have something to start would keep theirs for ever. So others leave an executor to it, one for each
/// `crowded_ms` that it waits, until it has workers on as many as they have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Crowded {
    /// When another one shall leave, if there is no memory yet.
    next: TimeMs,
    /// Where others leave for it.
    pub(super) at: BTreeSet<ExecutorId>,
}

impl Scheduler {
    /// Notes since when a job has tasks to start.
    pub(super) fn note_crowding(&mut self, now: TimeMs, job: JobId) {
        match self.jobs.get_mut(&job) {
            Some(found) if found.is_open() => {
                let next = now + ms(self.policy.crowded_ms);
                found.crowded.get_or_insert_with(|| Crowded { next, at: BTreeSet::new() });
            }
            _ => self.end_crowding(job),
        }
    }

    /// A job has nothing to start any more: nobody leaves for it.
    pub(super) fn end_crowding(&mut self, job: JobId) {
        let crowded = self.jobs.get_mut(&job).and_then(|found| found.crowded.take());
        self.call_back(job, crowded.map(|crowded| crowded.at).unwrap_or_default());
    }

    /// A job begins on an executor where it had no memory, or that was left to it: that will do for a while.
    pub(super) fn relieve(&mut self, now: TimeMs, job: JobId, executor: ExecutorId, is_new: bool) {
        let crowded = self.jobs.get_mut(&job).and_then(|found| found.crowded.as_mut());
        let Some(crowded) = crowded.filter(|crowded| is_new || crowded.at.contains(&executor)) else { return };
        crowded.next = now + ms(self.policy.crowded_ms);
        crowded.at.remove(&executor);
        let others = std::mem::take(&mut crowded.at);
        if let Some(there) = self.executors.get_mut(executor) {
            // It may have got the memory of another one than of who leaves for it.
            self.changed.extend(there.workers.stay(job));
        }
        self.call_back(job, others);
    }

    /// Who leaves these executors to a job may stay.
    pub(super) fn call_back(&mut self, job: JobId, at: BTreeSet<ExecutorId>) {
        for id in at {
            let Some(there) = self.executors.get_mut(id) else { continue };
            self.changed.extend(there.workers.stay(job));
            if there.is_idle(job) {
                there.workers.end(job);
            }
        }
    }

    /// Executors that have been left belong to whom they were left.
    pub(super) fn settle_leavers(&mut self, now: TimeMs) {
        let left: Vec<ExecutorId> = self.executors.left().collect();
        for id in left {
            if let Some(there) = self.executors.get_mut(id) {
                there.settle(now);
            }
        }
        self.executors.note(&self.policy);
    }

    /// A stage has found no place. If memory is what it lacks, and that has lasted, another job leaves an executor.
    pub(super) fn make_room(&mut self, now: TimeMs, job: JobId, key: StageKey) {
        let next = now + ms(self.policy.crowded_ms);
        let Some(found) = self.jobs.get_mut(&job).filter(|found| found.reserved.is_none()) else { return };
        let Some(crowded) = found.crowded.as_mut().filter(|crowded| crowded.next <= now) else { return };
        // This looks at all executors.
        crowded.next = next;
        let Some((executor, leaver)) = self.find_leaver(now, job, key) else { return };
        if let Some(there) = self.executors.get_mut(executor) {
            there.workers.leave(Leaving { job: leaver, to: job });
        }
        if let Some(crowded) = self.jobs.get_mut(&job).and_then(|found| found.crowded.as_mut()) {
            crowded.at.insert(executor);
        }
        self.executors.note(&self.policy);
    }

    /// Who shall leave which executor to a job: of those that have workers on more executors than it has the one that has the
    /// most, where the fewest of its tasks run. Nobody, if the job has memory somewhere: then it waits for something else.
    fn find_leaver(&self, now: TimeMs, job: JobId, key: StageKey) -> Option<(ExecutorId, JobId)> {
        let found = self.jobs.get(&job)?;
        let (stage, usable) = (found.stages.get(&key)?, self.usable(found));
        let mut counts: BTreeMap<JobId, usize> = BTreeMap::new();
        let mut of_use: Vec<(ExecutorId, &Executor)> = Vec::new();
        for (id, there) in self.executors.live() {
            let stays = |holder: &JobId| there.workers.leaving().is_none_or(|leaving| leaving.job != *holder);
            for holder in there.workers.iter().map(|(holder, _)| holder).filter(stays) {
                *counts.entry(holder).or_default() += 1;
            }
            if there.takes_tasks() && could_use(stage, &usable, id, there, &self.executors) {
                if there.takes(job) && there.free() > 0 {
                    return None;
                }
                of_use.push((id, there));
            }
        }
        let has = |there: &Executor| there.workers.keeps(job) || there.workers.leaving().is_some_and(|it| it.to == job);
        let own = of_use.iter().filter(|(_, there)| has(there)).count();
        let long = |since: TimeMs| since + ms(self.policy.crowded_ms) <= now;
        let leavers = of_use.into_iter().flat_map(|(id, there)| {
            let may_leave = !there.takes(job) && there.workers.leaving().is_none() && there.reserved.is_none();
            let holders = there.workers.iter().filter(move |_| may_leave);
            let counts = &counts;
            holders.filter(move |(holder, since)| *holder != job && long(*since)).filter_map(move |(holder, _)| {
                let count = counts.get(&holder).copied().unwrap_or_default();
                (own == 0 || count >= own + 2).then(|| (std::cmp::Reverse(count), there.tasks_of(holder), id, holder))
            })
        });
        leavers.min().map(|(_, _, id, holder)| (id, holder))
    }
}

/// Whether a stage has tasks that may run on an executor some time.
fn could_use(stage: &Stage, usable: &Usable, id: ExecutorId, there: &Executor, executors: &Executors) -> bool {
    usable.contains(id)
        && there.slots_of(&stage.plan.resources).is_some()
        && stage.pending.all().iter().any(|partition| stage.fits(executors, usable, id, partition))
}
