use std::collections::BTreeSet;

#[cfg(test)]
use situ_wire::ids::JobId;
use situ_wire::ids::ScopeId;
use situ_wire::messages::namenode::Liveness;

use super::job::{Action, Job, Session};
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey};

/// At how many of a job's last actions a check looks: it shall not take longer the longer a job runs.
const RECENT_ACTIONS: usize = 100;

impl Scheduler {
    /// Asserts the invariants. For tests: it looks at everything.
    ///
    /// # Panics
    /// When one does not hold.
    pub fn check(&self) {
        self.executors.check(&self.policy);
        self.turns.check(&self.jobs.keys().copied().collect());
        self.waits.check();
        let attached = self.jobs.values().filter(|job| job.driver.session.is_some()).count();
        assert_eq!(attached, self.sessions.len(), "only who is attached is watched");
        for (id, job) in &self.jobs {
            assert_eq!(*id, job.id(), "a job stands under its own id");
            assert!(!job.state.is_final(), "a job with an end is finished");
            assert!(self.finished.get(*id).is_none(), "a job is either finished or not");
            assert!(*id < self.next_job, "ids are not given twice");
            assert_eq!(self.operations.get(&job.operation), Some(id), "a job is found by its operation");
            self.check_driver(job);
            self.check_attempts(job);
            self.check_stages(job);
            self.check_turn(job);
            self.check_waiting(job);
            self.check_scopes(job);
        }
        for (id, executor) in self.executors.iter() {
            for attempt in executor.running.iter() {
                let of = self.jobs.get(&attempt.job).and_then(|job| job.attempts.get(attempt));
                assert!(
                    of.is_some_and(|of| of.executor == id),
                    "a slot is taken by an attempt that is known: {attempt}"
                );
            }
            for attempt in executor.reported.iter() {
                let waits = self.jobs.get(&attempt.job).is_some_and(|job| job.reports.runs(*attempt));
                assert!(waits, "a slot is taken by an attempt that was reported: {attempt}");
            }
            if let Some(leaving) = executor.workers.leaving() {
                let crowded = self.jobs.get(&leaving.to).and_then(|job| job.crowded.as_ref());
                assert!(crowded.is_some_and(|crowded| crowded.at.contains(&id)), "a job knows who leaves for it");
                assert_ne!(executor.reserved, Some(leaving.job), "no executor is kept for who leaves it");
            }
            for (job, _) in executor.workers.iter() {
                assert!(self.jobs.contains_key(&job), "only unfinished jobs have memory");
            }
            if let Some(job) = executor.reserved {
                let reserved = self.jobs.get(&job).and_then(|job| job.reserved);
                assert_eq!(reserved.map(|reserved| reserved.executor), Some(id), "who is kept for a job knows it");
            }
            for (job, attempt) in &executor.drivers {
                let driver = self.jobs.get(job).map(|job| (job.driver.place, job.driver.attempt));
                assert_eq!(driver, Some((Some(id), *attempt)), "a driver's place knows it");
            }
        }
    }

    fn check_scopes(&self, job: &Job) {
        for (scope, kind) in job.scopes_kept() {
            let has_ended = job.scopes.has_ended(&[scope]);
            assert!(!has_ended, "of an ended scope only what it came to is kept: {kind} of {scope} of {}", job.id());
        }
    }

    /// Something that a job still keeps of a scope beside what that came to, if there is anything.
    #[cfg(test)]
    pub(crate) fn kept_of(&self, job: JobId, scope: ScopeId) -> Option<&'static str> {
        self.jobs.get(&job)?.scopes_kept().find(|(of, _)| *of == scope).map(|(_, kind)| kind)
    }

    fn check_driver(&self, job: &Job) {
        let waits = self.driverless.contains(&job.id());
        let durable = job.record.is_none_or(|record| record <= self.synced);
        let placed = job.driver.session.is_none();
        let rests = job.driver.rests_until.is_some_and(|until| self.resting_drivers.contains(&(until, job.id())));
        assert_eq!(rests, job.driver.rests_until.is_some(), "a driver that rests is watched");
        assert_eq!(
            waits,
            placed && durable && !rests && job.driver.place.is_none(),
            "a durable job has a driver or waits for one"
        );
        assert!(placed || job.driver.place.is_none(), "a driver that is attached has no place");
        let watched = |session: Session| self.sessions.contains(&(session.until, job.id()));
        assert!(job.driver.session.is_none_or(watched), "whoever is attached is watched");
        let heard_by = job.driver.heard_by;
        assert!(
            heard_by.is_none_or(|by| self.driver_deadlines.contains(&(by, job.id()))),
            "a driver that must be heard is watched"
        );
        assert_eq!(heard_by.is_some(), job.driver.place.is_some(), "who has a place must be heard");
        if let Some(place) = job.driver.place {
            assert!(self.executors.is_there(place), "a driver is not on a dead executor");
        }
    }

    fn check_waiting(&self, job: &Job) {
        let durable = job.record.is_none_or(|record| record <= self.synced);
        let explained = job.runs() || self.waiting(job).is_some();
        assert!(!durable || explained, "a job of which nothing goes on waits for something: {}", job.id());
        assert!(!job.runs() || job.idle_since.is_none(), "a job of which something runs is not idle: {}", job.id());
    }

    fn check_attempts(&self, job: &Job) {
        for (id, attempt) in &job.attempts {
            let there = self.executors.get(attempt.executor).is_some_and(|executor| executor.running.contains(id));
            assert!(there, "an attempt takes a slot: {id}");
            let next = job.numbers.next(self.life, id.stage, id.partition);
            let comes_back = job.stages.values().any(|stage| stage.plan.stage.0 == id.stage.0);
            let is_over = attempt.cancelled && id.stage.0 != ScopeId::ROOT && !comes_back;
            assert!(id.attempt < next || is_over, "attempts are not numbered twice: {id}");
            let known = job.stages.get(&attempt.stage).is_some_and(|stage| {
                stage
                    .attempts(id.partition.0)
                    .any(|running| running.attempt == *id && running.executor == attempt.executor)
            });
            assert_eq!(known, !attempt.cancelled, "a task knows its attempts that count: {id}");
        }
    }

    fn check_turn(&self, job: &Job) {
        let (turn, open) = (self.turns.get(job.id()).unwrap_or_default(), job.is_open());
        assert_eq!(turn.open, open.then_some((job.attempts.len(), job.served)), "a job's turn is known: {}", job.id());
        assert_eq!(turn.slow, self.next_slow(job), "it is known when a task is slow: {}", job.id());
        assert_eq!(turn.late, self.next_late(job), "it is known when an attempt is late: {}", job.id());
    }

    fn check_stages(&self, job: &Job) {
        for (key, stage) in &job.stages {
            stage.check(&self.executors);
            for running in stage.all_attempts() {
                assert!(job.attempts.contains_key(&running.attempt), "a running attempt is known: {}", running.attempt);
            }
            if let StageKey::Shuffle(_) = key {
                for done in stage.tasks.iter().filter_map(|task| task.done.as_ref()) {
                    assert!(self.executors.is_there(done.executor), "an output is on an executor that is there");
                }
            }
            let reads_complete = stage.plan.reads.iter().all(|shuffle| job.is_complete(*shuffle));
            if stage.needed_by.is_some() {
                assert!(job.needed.contains(key), "needed stages are listed");
                assert!(!stage.is_complete(), "a complete stage is not needed");
                assert_eq!(stage.ready, reads_complete, "a stage is ready when what it reads is complete");
                assert!(stage.lost.is_empty(), "lost outputs of a needed stage are missed");
            }
        }
        let needed: BTreeSet<StageKey> =
            job.stages.iter().filter(|(_, stage)| stage.needed_by.is_some()).map(|(key, _)| *key).collect();
        assert_eq!(needed, job.needed, "needed stages are listed");
        let is_running = |action: &Action| matches!(action, Action::Running { .. });
        assert!(
            job.under_way.iter().all(|action| job.actions.get(action).is_some_and(is_running)),
            "what is under way runs: {}",
            job.id()
        );
        let mut recent = job.actions.iter().rev().take(RECENT_ACTIONS).filter(|(_, action)| is_running(action));
        assert!(recent.all(|(action, _)| job.under_way.contains(action)), "what runs is under way");
        for action in &job.under_way {
            let complete = job.root(*action).and_then(|root| job.stages.get(&root)).map(Stage::is_complete);
            assert_eq!(complete, Some(false), "an action that is complete is done: {action}");
        }
        assert!(
            job.released.iter().all(|shuffle| job.stages.contains_key(&StageKey::Shuffle(*shuffle))),
            "it is there"
        );
        for executor in job.cached.executors().union(&job.touched) {
            let liveness = self.executors.get(*executor).map(|executor| executor.liveness);
            assert!(liveness.is_some_and(|liveness| liveness != Liveness::Dead), "nothing is expected of the dead");
        }
    }
}

impl Job {
    /// The scopes of which it keeps something beside what they came to, and what; but for the many actions of a long job, and
    /// for what goes with the action that needs it.
    fn scopes_kept(&self) -> impl Iterator<Item = (ScopeId, &'static str)> {
        let stays = |key: &&StageKey| !matches!(key, StageKey::Shuffle(shuffle) if self.released.contains(shuffle));
        let actions = self.actions.keys().rev().take(RECENT_ACTIONS).map(|action| (action.0, "actions"));
        let stages = self.stages.keys().filter(stays).map(|key| (key.scope(), "stages"));
        let held = self.held.keys().filter(|shuffle| !self.released.contains(shuffle));
        let shuffles = held.chain(self.given.keys()).map(|shuffle| (shuffle.0, "what shuffles held"));
        let cached = self.cached.datasets().chain(self.reports.cached.datasets());
        let cached = cached.map(|dataset| (dataset.0, "partitions in memory"));
        let reports = self.reports.keys().map(|key| (key.scope(), "reports"));
        actions.chain(stages).chain(shuffles).chain(cached).chain(reports)
    }
}
