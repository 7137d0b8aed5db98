use std::collections::BTreeSet;

use situ_wire::ids::{ExecutorId, JobId, PartitionId};
use situ_wire::messages::scheduler::Locality;
use situ_wire::time::TimeMs;

use super::job::Job;
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey};

/// A task that runs much longer than its peers.
struct Slow {
    job: JobId,
    key: StageKey,
    partition: u32,
    executor: ExecutorId,
    level: Locality,
}

impl Scheduler {
    /// Gives slow tasks a second attempt on another executor, where slots are left over. When the next one becomes slow.
    pub(super) fn speculate(&mut self, now: TimeMs, free: &mut BTreeSet<(u64, ExecutorId)>) -> Option<TimeMs> {
        let mut next: Option<TimeMs> = None;
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            while !free.is_empty() {
                let (slow, later) = self.find_slow(now, job, free);
                next = [next, later].into_iter().flatten().min();
                let Some(Slow { job, key, partition, executor, level }) = slow else { break };
                self.launch(now, job, key, partition, executor, level, free);
            }
        }
        next
    }

    /// A slow task of a job with a place for it, or when the first of its tasks becomes slow.
    fn find_slow(&self, now: TimeMs, job: JobId, free: &BTreeSet<(u64, ExecutorId)>) -> (Option<Slow>, Option<TimeMs>) {
        let mut next: Option<TimeMs> = None;
        let Some(found) = self.jobs.get(&job) else { return (None, None) };
        let usable = self.usable(found);
        let places =
            free.iter().map(|(_, executor)| *executor).filter(|executor| usable.binary_search(executor).is_ok());
        for key in &found.needed {
            let Some(stage) = found.stages.get(key).filter(|stage| stage.ready) else { continue };
            let Some(limit) = self.slow_after_ms(stage) else { continue };
            for partition in &stage.running {
                let Some((started, runs_on)) = only_attempt(found, stage, *partition) else { continue };
                let slow_at = started + std::time::Duration::from_millis(limit);
                if slow_at > now {
                    next = Some(next.map_or(slow_at, |next| next.min(slow_at)));
                    continue;
                }
                let Some(executor) = places.clone().find(|executor| *executor != runs_on) else { continue };
                let Some(there) = self.executors.get(executor) else { continue };
                let level = self.locality_of(found, *key, *partition, there.offer());
                return (Some(Slow { job, key: *key, partition: *partition, executor, level }), next);
            }
        }
        (None, next)
    }

    /// How long a task of a stage may run before it is slow, in ms; none while that cannot be said.
    fn slow_after_ms(&self, stage: &Stage) -> Option<u64> {
        let policy = &self.policy;
        let most_done =
            u64::from(stage.done) * 100 >= u64::from(stage.plan.partitions) * u64::from(policy.speculation_percent);
        if !most_done || stage.running.is_empty() {
            return None;
        }
        let limit = stage.median_ms()?.saturating_mul(u64::from(policy.speculation_multiple_percent)) / 100;
        Some(limit.max(u64::from(policy.speculation_floor_ms)))
    }
}

/// When and where the only attempt at a task was started; none if there are two.
fn only_attempt(job: &Job, stage: &Stage, partition: u32) -> Option<(TimeMs, ExecutorId)> {
    let [attempt] = stage.task(PartitionId(partition)).running[..] else { return None };
    job.attempts.get(&attempt).map(|attempt| (attempt.started, attempt.executor))
}
