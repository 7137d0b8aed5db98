use std::time::Duration;

use situ_wire::ids::{ExecutorId, JobId, TaskAttemptId};
use situ_wire::messages::scheduler::{FailedAttempt, JobStatus, Locality, QuietAttempt, Resources, TaskProgress};
use situ_wire::time::TimeMs;

use super::job::{Job, Planned};
use super::policy::ms;
use super::scheduler::Scheduler;
use super::stage::{Running, Stage, StageKey};

/// A second attempt at a task, and where it shall run.
struct Second {
    key: StageKey,
    partition: u32,
    executor: ExecutorId,
    level: Locality,
}

impl Scheduler {
    /// An executor tells how far its tasks have come.
    pub(super) fn progress(&mut self, now: TimeMs, executor: ExecutorId, progress: &[TaskProgress]) {
        for TaskProgress { attempt: id, steps } in progress {
            let Some(job) = self.jobs.get_mut(&id.job) else { continue };
            let own = job.attempts.get(id).filter(|attempt| attempt.executor == executor);
            if let Some(stage) = own.map(|attempt| attempt.stage).and_then(|key| job.stages.get_mut(&key)) {
                stage.progress(*id, *steps, now);
            }
        }
    }

    /// Gives tasks that run much longer than their peers, or make no progress, a second attempt where slots are left over.
    pub(super) fn speculate(&mut self, now: TimeMs) {
        for job in self.turns.slow(now) {
            while self.executors.has_free() {
                let Some(Second { key, partition, executor, level }) = self.find_second(now, job) else { break };
                self.launch(now, job, key, partition, executor, level);
            }
            // Some may only have been listed as what they are not any more.
            self.changed.insert(job);
        }
    }

    /// A task of a job that needs a second attempt, and a place for it.
    fn find_second(&mut self, now: TimeMs, job: JobId) -> Option<Second> {
        let stalled = ms(self.policy.stalled_ms);
        let mut candidates: Vec<(StageKey, Running, bool)> = Vec::new();
        let policy = &self.policy;
        let Job { stages, needed, .. } = self.jobs.get_mut(&job)?;
        for key in &*needed {
            let Some(stage) = stages.get_mut(key).filter(|stage| stage.ready) else { continue };
            let quiet = stage.quiet_since(before(now, stalled));
            candidates.extend(quiet.into_iter().filter(|it| is_only(stage, it)).map(|it| (*key, it, true)));
            if let Some(limit) = slow_after(stage, policy) {
                let old = stage.started_before(before(now, limit)).filter(|it| is_only(stage, it));
                candidates.extend(old.map(|it| (*key, *it, false)));
            }
        }
        let found = self.jobs.get(&job)?;
        candidates.into_iter().find_map(|(key, running, is_stalled)| {
            let resources = found.stages.get(&key)?.plan.resources;
            let executor = self.place_for_second(found, &resources, running.executor, is_stalled)?;
            let partition = running.attempt.partition.0;
            let level = self.locality_of(found, found.stages.get(&key)?, partition, executor);
            Some(Second { key, partition, executor, level })
        })
    }

    /// Where a second attempt may run: elsewhere. One at a task that has come to a standstill may run on the same executor
    /// if there is no other at all.
    fn place_for_second(
        &self,
        job: &Job,
        resources: &Resources,
        first_on: ExecutorId,
        is_stalled: bool,
    ) -> Option<ExecutorId> {
        let usable = self.usable(job);
        let owner = |executor: ExecutorId| self.executors.get(executor).map_or("", |executor| &executor.owner);
        let has_room = |id: ExecutorId| {
            self.executors.get(id).is_some_and(|there| there.takes(job.id()) && there.has_room(resources))
        };
        let fits = |executor: &ExecutorId| {
            usable.contains(*executor) && has_room(*executor) && !self.executors.is_suspected(owner(*executor))
        };
        let mut free = self.executors.free().map(|(_, executor)| executor).filter(fits);
        if is_stalled && usable.len() == 1 {
            return free.next();
        }
        free.find(|executor| *executor != first_on)
    }

    /// Where a job stands, with what it waits for and the attempt of each stage that has made no progress for longest.
    pub(super) fn job_status(&self, job: &Job) -> JobStatus {
        let mut status = JobStatus { waiting: self.waiting(job), ..job.status() };
        for (planned, status) in job.planned.iter().zip(&mut status.stages) {
            let Planned::Kept(key) = planned else { continue };
            let Some(stage) = job.stages.get(key) else { continue };
            let quiet = stage.all_attempts().min_by_key(|running| running.quiet_since);
            status.quiet = quiet.map(|running| QuietAttempt {
                attempt: running.attempt,
                node: self.executors.node(running.executor),
                since: running.quiet_since,
            });
        }
        status
    }

    /// When the first task of a job needs a second attempt; it may have come.
    pub(super) fn next_slow(&self, job: &Job) -> Option<TimeMs> {
        if !self.policy.speculation {
            return None;
        }
        let of = |key: &StageKey| {
            let stage = job.stages.get(key).filter(|stage| stage.ready)?;
            let slow = slow_after(stage, &self.policy)
                .and_then(|limit| stage.oldest().find(|it| is_only(stage, it)).map(|it| it.started + limit));
            let quiet = stage.quietest().find(|(_, it)| is_only(stage, it));
            let stalled = quiet.map(|(listed, _)| listed + ms(self.policy.stalled_ms));
            [slow, stalled].into_iter().flatten().min()
        };
        job.needed.iter().filter_map(of).min()
    }

    /// How long an attempt at a task of a job may take: as the job says, else as the policy does.
    fn task_limit(&self, job: &Job) -> Option<Duration> {
        job.launch.options.task_limit_ms.or(self.policy.task_limit_ms).map(Duration::from_millis)
    }

    /// When the first attempt of a job has taken all the time that it may.
    pub(super) fn next_late(&self, job: &Job) -> Option<TimeMs> {
        let limit = self.task_limit(job)?;
        let oldest = job.needed.iter().filter_map(|key| job.stages.get(key)?.oldest().next());
        oldest.map(|running| running.started + limit).min()
    }

    /// Gives up attempts that have taken all the time that they may.
    pub(super) fn judge_attempts(&mut self, now: TimeMs) {
        for job in self.turns.late(now) {
            let Some(found) = self.jobs.get(&job) else { continue };
            let Some(limit) = self.task_limit(found) else { continue };
            let stages = found.needed.iter().filter_map(|key| found.stages.get(key));
            let old = stages.flat_map(|stage| stage.started_before(before(now, limit)));
            let late: Vec<TaskAttemptId> = old.map(|running| running.attempt).collect();
            for attempt in late {
                self.give_up(now, attempt, limit);
            }
            self.changed.insert(job);
        }
    }

    /// An attempt has taken all the time that it may: that counts as a failure.
    fn give_up(&mut self, now: TimeMs, id: TaskAttemptId, limit: Duration) {
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        let Some(attempt) = job.attempts.get(&id).copied() else { return };
        let Some(stage) = job.stages.get_mut(&attempt.stage) else { return };
        if !stage.stop(id) {
            stage.wait(id.partition.0, &job.cached);
        }
        stage.failed += 1;
        let node = self.executors.node(attempt.executor);
        let setting = match job.launch.options.task_limit_ms {
            Some(_) => "submit it with a longer `--task-limit`",
            None => {
                "submit it with a longer `--task-limit`, or raise `task_limit_ms` in the scheduler's configuration for all"
            }
        };
        let message = format!(
            "it was ended because it took longer than {} s, the limit on a task's time; if tasks of this job need longer, \
             {setting}",
            limit.as_secs_f64()
        );
        job.last_failure = Some(FailedAttempt { attempt: id, node: node.clone(), at: now, reason: message.clone() });
        self.cancel(id);
        self.blame_executor(now, id.job, attempt.executor);
        self.blame_task(now, id, attempt, &node, &message);
    }
}

/// How long a task of a stage may run before it is slow; none while that cannot be said. Of the share of its tasks that
/// must be done before, a part of a task counts for nothing: of two tasks one suffices, of three two.
fn slow_after(stage: &Stage, policy: &super::SchedulingPolicy) -> Option<Duration> {
    let share = u64::from(stage.plan.partitions) * u64::from(policy.speculation_percent) / 100;
    if u64::from(stage.done) < share {
        return None;
    }
    let limit = stage.median_ms()?.saturating_mul(u64::from(policy.speculation_multiple_percent)) / 100;
    Some(Duration::from_millis(limit.max(u64::from(policy.speculation_floor_ms))))
}

/// Whether an attempt is the only one at its task.
fn is_only(stage: &Stage, running: &Running) -> bool {
    stage.attempts(running.attempt.partition.0).count() == 1
}

/// The time that was so long ago; before all times if there is none.
fn before(now: TimeMs, rest: Duration) -> Option<TimeMs> {
    u64::try_from(rest.as_millis()).ok().and_then(|rest| now.0.checked_sub(rest)).map(TimeMs)
}
