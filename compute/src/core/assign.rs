use std::collections::BTreeSet;

use situ_wire::ids::{ExecutorId, JobId, PartitionId, TaskAttemptId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{ExecutorCommand, Locality};
use situ_wire::time::TimeMs;

use super::executor::Executor;
use super::job::{Attempt, Job};
use super::pending::{Offer, locality};
use super::scheduler::Scheduler;
use super::stage::StageKey;

/// The executors with free slots in one round, the least busy first.
type Free = BTreeSet<(u64, ExecutorId)>;

impl Scheduler {
    /// Starts what can be started: drivers, then tasks of the job with the fewest that run, or that has waited longest since
    /// its last one was started, then second attempts.
    pub(super) fn assign(&mut self, now: TimeMs) {
        self.place_drivers(now);
        let free = |(id, executor): (ExecutorId, &Executor)| (executor.free() > 0).then(|| (executor.load(), id));
        let mut free: Free = self.executors.live().filter_map(free).collect();
        let turn = |job: &Job| (job.attempts.len(), job.served, job.id());
        let mut open: BTreeSet<(usize, u64, JobId)> =
            self.jobs.values().filter(|job| !job.resumes && job.is_open()).map(turn).collect();
        while let Some((.., job)) = open.pop_first() {
            if free.is_empty() {
                break;
            }
            if self.assign_one(now, job, &mut free)
                && let Some(found) = self.jobs.get(&job)
            {
                open.insert(turn(found));
            }
        }
        let slow = if self.policy.speculation { self.speculate(now, &mut free) } else { None };
        let relaxation = self.hold_back(now, &free);
        self.assign_at = [slow, relaxation].into_iter().flatten().min();
    }

    /// Starts one task of a job in the best place that it may have now; whether there was one.
    fn assign_one(&mut self, now: TimeMs, job: JobId, free: &mut Free) -> bool {
        let Some(found) = self.jobs.get(&job) else { return false };
        let usable = self.usable(found);
        for key in &found.needed {
            let Some(stage) = found.stages.get(key).filter(|stage| stage.is_open()) else { continue };
            let allowed = stage.allowed(now, self.executors.places(), &self.policy);
            let mut best: Option<(Locality, ExecutorId, u32)> = None;
            for (_, executor) in free.iter().filter(|(_, executor)| usable.binary_search(executor).is_ok()) {
                let Some(there) = self.executors.get(*executor) else { continue };
                let Some((level, partition)) = stage.pick(there.offer(), allowed, &usable) else { continue };
                if best.is_none_or(|(before, ..)| rank(level) < rank(before)) {
                    best = Some((level, *executor, partition));
                }
                if rank(level) <= rank(Locality::Node) {
                    break;
                }
            }
            if let Some((level, executor, partition)) = best {
                let key = *key;
                self.launch(now, job, key, partition, executor, level, free);
                return true;
            }
        }
        false
    }

    /// The executors that a job may use, in order: those on which its tasks failed again and again only if there are no
    /// others.
    pub(super) fn usable(&self, job: &Job) -> Vec<ExecutorId> {
        let all: Vec<ExecutorId> = self.executors.live().map(|(executor, _)| executor).collect();
        if job.failures.is_empty() || all.iter().all(|executor| self.is_excluded(job, *executor)) {
            return all;
        }
        all.into_iter().filter(|executor| !self.is_excluded(job, *executor)).collect()
    }

    pub(super) fn is_excluded(&self, job: &Job, executor: ExecutorId) -> bool {
        job.failures.get(&executor).is_some_and(|failures| {
            failures.tasks >= self.policy.exclude_failures || failures.fetches >= self.policy.exclude_fetch_failures
        })
    }

    /// How near an executor is to the input of a task, its memory included.
    pub(super) fn locality_of(&self, job: &Job, key: StageKey, partition: u32, offer: Offer<'_>) -> Locality {
        let Some(stage) = job.stages.get(&key) else { return Locality::Any };
        if job.cached.holders(&stage.plan.persisted, partition).contains(&offer.executor) {
            return Locality::Process;
        }
        locality(offer, stage.preferred(partition))
    }

    /// Starts an attempt at a task on an executor.
    #[expect(clippy::too_many_arguments, reason = "an attempt is what all of these say together")]
    pub(super) fn launch(
        &mut self,
        now: TimeMs,
        job: JobId,
        key: StageKey,
        partition: u32,
        executor: ExecutorId,
        level: Locality,
        free: &mut Free,
    ) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let Some(there) = self.executors.get_mut(executor) else { return };
        let Some(stage) = found.stages.get(&key) else { return };
        let partition = PartitionId(partition);
        let number = found.numbers.take(self.life, stage.plan.stage, partition);
        let attempt = TaskAttemptId { job, stage: stage.plan.stage, partition, attempt: number };
        let Some(stage) = found.stages.get(&key) else { return };
        let Some(task) = found.task_spec(attempt, stage, level) else { return };
        let alone = task.alone;
        free.remove(&(there.load(), executor));
        if found.touched.insert(executor) {
            there.push(ExecutorCommand::BeginJob { job: found.launch.clone() });
        }
        there.push(ExecutorCommand::RunTask { task: Box::new(task) });
        there.running.insert(attempt);
        if there.free() > 0 {
            free.insert((there.load(), executor));
        }
        self.served += 1;
        found.served = self.served;
        found.logs.insert((LogName::Worker, there.registration.node.clone()));
        found.attempts.insert(attempt, Attempt { stage: key, executor, started: now, cancelled: false, alone });
        if let Some(stage) = found.stages.get_mut(&key) {
            stage.start(attempt, level);
        }
        self.changed.insert(job);
    }

    /// Stages that leave slots unused count how long; those that have nothing to start begin anew. When the next of them
    /// takes what is further away.
    fn hold_back(&mut self, now: TimeMs, free: &Free) -> Option<TimeMs> {
        let mut next = None;
        let places = self.executors.places();
        for job in self.jobs.values_mut() {
            for key in &job.needed {
                let Some(stage) = job.stages.get_mut(key) else { continue };
                if !stage.is_open() {
                    stage.hold_nothing_back();
                    continue;
                }
                if free.is_empty() {
                    stage.pause_holding_back(now);
                    continue;
                }
                stage.hold_back(now);
                let at = stage.next_relaxation(now, places, &self.policy);
                next = [next, at].into_iter().flatten().min();
            }
        }
        next
    }
}

/// What is better to start: a task that does not care where it runs should not take a slot that another one wants, but it
/// loses nothing anywhere.
fn rank(locality: Locality) -> u8 {
    match locality {
        Locality::Process => 0,
        Locality::Node => 1,
        Locality::NoPreference => 2,
        Locality::Rack => 3,
        Locality::Any => 4,
    }
}

impl Job {
    /// Whether it has tasks that may be started.
    pub(super) fn is_open(&self) -> bool {
        self.needed.iter().filter_map(|key| self.stages.get(key)).any(super::stage::Stage::is_open)
    }
}
