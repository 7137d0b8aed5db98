use situ_wire::ids::{ExecutorId, JobId, PartitionId, TaskAttemptId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{ExecutorCommand, Locality};
use situ_wire::time::TimeMs;

use super::job::{Attempt, Job};
use super::scheduler::Scheduler;
use super::search::Usable;
use super::stage::{Stage, StageKey};
use super::turns::Turn;

impl Scheduler {
    /// Starts what can be started: drivers, then tasks of the job with the fewest that run, or that has waited longest since
    /// its last one was started, then second attempts.
    pub(super) fn assign(&mut self, now: TimeMs) {
        self.executors.note(&self.policy);
        self.place_drivers(now);
        self.settle_leavers(now);
        let ways = self.executors.next_way(self.looked).is_some_and(|at| at <= now);
        self.looked = now;
        let relaxed = self.turns.relaxed(now);
        let version = (self.executors.version(), self.served);
        if self.changed.is_empty()
            && relaxed.is_empty()
            && self.assigned == version
            && self.turns.slow(now).is_empty()
            && !ways
        {
            // The job that it was for may be gone.
            self.assign_at = self.next_start(now);
            return;
        }
        self.take_turns(now);
        self.start_reserved(now);
        self.take_turns(now);
        let mut last = None;
        while self.executors.has_free()
            && let Some(turn) = self.turns.next(last)
        {
            if !self.assign_one(now, turn.2) {
                last = Some(turn);
            }
        }
        if self.policy.speculation {
            self.speculate(now);
        }
        self.changed.extend(relaxed);
        self.take_turns(now);
        self.turns.clock.run(now, self.executors.has_free());
        self.assigned = (self.executors.version(), self.served);
        self.assign_at = self.next_start(now);
    }

    /// When time alone allows something to be started.
    fn next_start(&self, now: TimeMs) -> Option<TimeMs> {
        let way = self.turns.next(None).and_then(|_| self.executors.next_way(now));
        [self.turns.next_start(now), way].into_iter().flatten().min()
    }

    /// Finds out how the jobs stand that have changed.
    fn take_turns(&mut self, now: TimeMs) {
        while let Some(job) = self.changed.pop_first() {
            self.take_turn(now, job);
            self.revised.insert(job);
        }
    }

    /// Finds out how a job stands: stages that have something to start may hold back from now on, others have nothing to.
    pub(super) fn take_turn(&mut self, now: TimeMs, job: JobId) {
        let at = self.turns.clock.read(now);
        self.note_crowding(now, job);
        let Some(found) = self.jobs.get_mut(&job) else { return self.turns.set(job, None) };
        found.note_idle(now);
        let mut turn = Turn::default();
        let sooner = |one: Option<TimeMs>, other| [one, other].into_iter().flatten().min();
        for key in &found.needed {
            let Some(stage) = found.stages.get_mut(key) else { continue };
            if !found.resumes && stage.is_open() {
                turn.open = Some((found.attempts.len(), found.served));
                stage.hold_back(at);
                turn.relaxes = sooner(turn.relaxes, stage.next_relaxation(at, &self.policy));
            } else {
                stage.hold_nothing_back();
            }
        }
        if let Some(found) = self.jobs.get(&job) {
            turn.slow = self.next_slow(found);
            turn.late = self.next_late(found);
        }
        self.turns.set(job, Some(turn));
    }

    /// Starts one task of a job in the best place that it may have now; whether there was one.
    fn assign_one(&mut self, now: TimeMs, job: JobId) -> bool {
        let at = self.turns.clock.read(now);
        let Some(usable) = self.jobs.get(&job).map(|found| self.usable(found)) else { return false };
        let open: Vec<StageKey> = self.jobs.get(&job).map(Job::open_stages).unwrap_or_default();
        if let Some(reason) = open.iter().find_map(|key| self.never_fits(job, *key)) {
            self.fail_job(now, job, &reason);
            return false;
        }
        let before = TimeMs(now.0.saturating_sub(self.policy.crowded_ms.into()));
        let way = self.executors.some_make_way(now).then_some(before);
        let mut crowded = None;
        let best = open.into_iter().find_map(|key| {
            let Self { jobs, executors, policy, .. } = &mut *self;
            let stage = jobs.get_mut(&job)?.stages.get_mut(&key)?;
            let allowed = stage.allowed(at, policy);
            // While a large one waits for room, an event costs it nothing more.
            let has_room = !stage.is_large() || executors.has_room_for(&stage.plan.resources, job, before);
            let mut find = |before| stage.find_place(executors, allowed, &usable, before);
            let found = has_room.then(|| find(None).or_else(|| way.and_then(|before| find(Some(before))))).flatten();
            if found.is_none() {
                crowded.get_or_insert(key);
                if !has_room {
                    self.reserve(job, key);
                }
            }
            Some((key, found?))
        });
        let Some((key, (level, executor, partition))) = best else {
            if let Some(key) = crowded {
                self.make_room(now, job, key);
            }
            return false;
        };
        self.launch(now, job, key, partition, executor, level);
        self.take_turn(now, job);
        true
    }

    /// The executors that a job may use.
    pub(super) fn usable(&self, job: &Job) -> Usable {
        let out = |executor: &&ExecutorId| self.executors.is_live(**executor) && self.is_excluded(job, **executor);
        Usable::new(job.id(), self.executors.live_len(), job.failures.keys().filter(out).copied().collect())
    }

    pub(super) fn is_excluded(&self, job: &Job, executor: ExecutorId) -> bool {
        job.failures.get(&executor).is_some_and(|failures| {
            failures.tasks >= self.policy.exclude_failures || failures.fetches >= self.policy.exclude_fetch_failures
        })
    }

    /// How near an executor is to the input of a task, its memory included.
    pub(super) fn locality_of(&self, job: &Job, stage: &Stage, partition: u32, executor: ExecutorId) -> Locality {
        if job.cached.holders(&stage.plan.persisted, partition).contains(&executor) {
            return Locality::Process;
        }
        let home = self.executors.get(executor).map(|executor| executor.home).unwrap_or_default();
        stage.pending.homes.locality(home, partition)
    }

    /// Starts an attempt at a task on an executor.
    pub(super) fn launch(
        &mut self,
        now: TimeMs,
        job: JobId,
        key: StageKey,
        partition: u32,
        executor: ExecutorId,
        level: Locality,
    ) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let Some(there) = self.executors.get_mut(executor) else { return };
        let Some(stage) = found.stages.get(&key) else { return };
        let partition = PartitionId(partition);
        let number = found.numbers.take(self.life, stage.plan.stage, partition);
        let attempt = TaskAttemptId { job, stage: stage.plan.stage, partition, attempt: number };
        let Some(stage) = found.stages.get(&key) else { return };
        let slots = there.slots_of(&stage.plan.resources).unwrap_or(there.registration.slots);
        let Some(task) = found.task_spec(attempt, stage, (level, slots)) else { return };
        let alone = task.alone;
        let begins = found.touched.insert(executor);
        if begins {
            there.push(ExecutorCommand::BeginJob { job: found.launch.clone() });
        }
        there.push(ExecutorCommand::RunTask { task: Box::new(task) });
        let is_new = there.begin(job, now);
        there.running.insert(attempt, slots);
        // Where its driver is, or was, it has had nothing else until now.
        if begins || found.driver.place == Some(executor) || found.driver.lost_on.contains(&executor) {
            found.logs.insert((LogName::Worker, there.registration.node.clone()));
        }
        self.executors.note(&self.policy);
        self.served += 1;
        found.served = self.served;
        found.attempts.insert(attempt, Attempt { stage: key, executor, started: now, cancelled: false, alone });
        if let Some(stage) = found.stages.get_mut(&key) {
            stage.start(attempt, executor, now, level);
        }
        self.changed.insert(job);
        self.relieve(now, job, executor, is_new);
    }
}

impl Job {
    /// Its stages that have tasks to start.
    fn open_stages(&self) -> Vec<StageKey> {
        let is_open = |key: &&StageKey| self.stages.get(key).is_some_and(Stage::is_open);
        self.needed.iter().filter(is_open).copied().collect()
    }

    /// Whether it has tasks that may be started.
    pub(super) fn is_open(&self) -> bool {
        !self.resumes && self.needed.iter().filter_map(|key| self.stages.get(key)).any(Stage::is_open)
    }
}
