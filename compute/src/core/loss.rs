use std::collections::BTreeSet;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{ExecutorId, JobId, PartitionId, TaskAttemptId};
use situ_wire::limits::NAME_LEN_BYTES;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{ExecutorEvent, ExecutorRegistration, Lost, Response, TaskProgress};
use situ_wire::time::TimeMs;

use super::calls::{Asked, Outcome, now};
use super::job::Job;
use super::policy::ms;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::LostOutput;

/// The most tasks that one executor may run at once.
const SLOTS: u32 = 4_096;

impl Scheduler {
    pub(super) fn register(&mut self, asked: Asked<'_>, registration: ExecutorRegistration) -> Outcome {
        check_registration(&registration)?;
        let id = registration.id;
        let known = self.executors.get(id).filter(|executor| executor.liveness != Liveness::Dead);
        // A registration that is repeated because its answer was lost changes nothing.
        if known.is_none_or(|executor| executor.polled || executor.registration != registration) {
            for before in self.executors.replaced_by(&registration) {
                self.lose_executor(asked.now, before, "its place was taken by a new run");
            }
            self.executors.forget_dead_of(&registration.node);
            if self.executors.len() >= self.policy.executors {
                return Err(RemoteError::new(
                    ErrorCode::TooMuch,
                    format!("the executor on {}", registration.node),
                    format!("{} executors are known already, which is the most", self.policy.executors),
                ));
            }
            self.executors.insert(registration, asked.caller.name.clone(), asked.now);
            let reports = ms(self.policy.resume_ms);
            if let Some(executor) = self.executors.get_mut(id).filter(|_| !reports.is_zero()) {
                executor.reports_until = Some(asked.now + reports);
            }
            self.places_changed();
        }
        let kept = self.jobs.keys().filter(|_| self.policy.resume_ms > 0);
        now(Response::Registered { poll_ms: self.policy.suspect_ms, jobs: kept.copied().collect() })
    }

    pub(super) fn executor_poll(
        &mut self,
        asked: Asked<'_>,
        id: ExecutorId,
        seen: u64,
        events: Vec<ExecutorEvent>,
        progress: &[TaskProgress],
    ) -> Outcome {
        let unknown = || {
            Err(RemoteError::new(
                ErrorCode::NotRegistered,
                format!("executor {id}"),
                "the scheduler does not know it (any more): it must register",
            ))
        };
        if !self.executors.is_there(id) {
            return unknown();
        }
        let Some(executor) = self.executors.get_mut(id) else { return unknown() };
        if executor.owner != asked.caller.name {
            return Err(RemoteError::new(
                ErrorCode::WrongIdentity,
                format!("executor {id}"),
                format!("{} registered it; {} may not speak for it", executor.owner, asked.caller.name),
            ));
        }
        if !executor.poll(seen, asked.now) {
            self.lose_executor(asked.now, id, "it takes this for another run of the scheduler");
            return unknown();
        }
        self.progress(asked.now, id, progress);
        let told = !events.is_empty();
        let mut reported = BTreeSet::new();
        for event in events {
            if let ExecutorEvent::Holds(holding) = &event {
                reported.extend(holding.job());
            }
            self.executor_event(asked.now, id, event);
        }
        for job in reported {
            self.adopt(asked.now, job);
        }
        let before = self.executors.get_mut(id).and_then(|executor| executor.park(asked.call));
        if let Some(call) = before {
            // The executor has moved on; whatever was for it goes to the newer poll.
            self.answer(call, Ok(Response::Commands { last: seen, commands: Vec::new() }));
        }
        if told {
            // Now, so that the executor knows that it was heard; what these events allow to start goes along.
            self.assign(asked.now);
            self.answer_poll(asked.now, id);
        }
        Ok(None)
    }

    pub(super) fn on_disconnected(&mut self, now: TimeMs, id: ExecutorId) {
        if let Some(executor) = self.executors.get_mut(id).filter(|executor| executor.liveness != Liveness::Dead) {
            executor.disconnect(now);
            self.answer_poll(now, id);
        }
    }

    /// Suspects, gives up and forgets executors that are not heard.
    pub(super) fn judge_executors(&mut self, now: TimeMs) {
        self.executors.note(&self.policy);
        let ids: Vec<ExecutorId> = self.executors.due(now).collect();
        for id in ids {
            let Some(executor) = self.executors.get_mut(id) else { continue };
            match (executor.liveness, executor.judge(now, &self.policy)) {
                (Liveness::Dead, _) => self.executors.forget(id),
                (_, Liveness::Dead) => self.lose_executor(now, id, "it is not heard any more"),
                (_, judged) => {
                    executor.liveness = judged;
                    executor.reports_until.take_if(|until| *until <= now);
                }
            }
        }
    }

    /// An executor is dead, and all that was there is lost: drivers, tasks, map outputs, partitions in memory.
    pub(super) fn lose_executor(&mut self, now: TimeMs, id: ExecutorId, why: &str) {
        if !self.executors.is_there(id) {
            return;
        }
        let node = self.executors.node(id);
        if let Some(call) = self.executors.bury(id) {
            self.answer(call, Ok(Response::Commands { last: 0, commands: Vec::new() }));
        }
        let touched = |job: &&Job| job.touched.contains(&id);
        let jobs: Vec<JobId> = self.jobs.values().filter(touched).map(Job::id).collect();
        for job in jobs {
            self.lose_attempts(now, id, job);
            self.lose_outputs(now, id, job);
            self.await_return(now, id, job);
            self.lose_cached(now, id, job);
            let Some(found) = self.jobs.get_mut(&job) else { continue };
            found.touched.remove(&id);
            found.reports.drop_executor(id);
            if let Some(failures) = found.failures.remove(&id) {
                self.pardons.remove(&(failures.until, job, id));
            }
            let drove = found.driver.place == Some(id);
            found.find_needed(now, self.executors.places());
            self.changed.insert(job);
            if drove {
                self.lose_driver(now, job, &format!("the executor on {node} is lost: {why}"));
            }
        }
        self.lose_clean_ups(now, id);
        self.places_changed();
    }

    /// The attempts of a job on an executor are lost.
    fn lose_attempts(&mut self, now: TimeMs, executor: ExecutorId, job: JobId) {
        let node = self.executors.node(executor);
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let there = found.attempts.iter().filter(|(_, attempt)| attempt.executor == executor);
        let lost: Vec<TaskAttemptId> = there.map(|(id, _)| *id).collect();
        for id in lost {
            let Some(attempt) = found.attempts.remove(&id) else { continue };
            let Some(stage) = found.stages.get_mut(&attempt.stage).filter(|_| !attempt.cancelled) else { continue };
            if !stage.stop(id) {
                stage.wait(id.partition.0, &found.cached);
            }
            if stage.needed_by.is_some() {
                let by = RecoveredBy::Task(attempt.stage, id.partition);
                found.recoveries.lose(Lost::RunningTask, id, node.clone(), now, by);
            }
        }
    }

    /// The outputs that were on an executor are lost, but it may come back with them: they are not computed again at once.
    pub(super) fn await_return(&mut self, now: TimeMs, executor: ExecutorId, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job).filter(|found| self.policy.resume_ms > 0 && !found.varies) else {
            return;
        };
        let until = now + ms(self.policy.resume_ms);
        for (key, stage) in &mut found.stages {
            let there = |lost: &LostOutput| lost.executor == executor;
            let lost: Vec<u32> =
                stage.lost.iter().filter(|(_, lost)| there(lost)).map(|(partition, _)| *partition).collect();
            for partition in lost.into_iter().map(PartitionId) {
                if stage.let_rest(partition) {
                    self.resting.insert((until, job, *key, partition));
                }
            }
        }
    }

    /// Executors came or went: what is near to input has changed.
    fn places_changed(&mut self) {
        for home in self.executors.take_moved() {
            for (id, job) in &mut self.jobs {
                let Job { stages, needed, .. } = job;
                for key in &*needed {
                    if let Some(stage) = stages.get_mut(key) {
                        stage.node_changed(home, self.executors.places());
                        self.changed.insert(*id);
                    }
                }
            }
        }
    }
}

fn check_registration(registration: &ExecutorRegistration) -> Result<(), RemoteError> {
    let ExecutorRegistration { node, rack, slots, workers, .. } = registration;
    let named = |name: &str| !name.is_empty() && name.len() <= NAME_LEN_BYTES;
    if named(&node.0) && named(&rack.0) && (1..=SLOTS).contains(slots) && *workers > 0 {
        return Ok(());
    }
    Err(RemoteError::new(
        ErrorCode::InvalidArgument,
        format!("the executor on {node}"),
        format!(
            "it needs a node and a rack with names of 1 to {NAME_LEN_BYTES} bytes, 1 to {SLOTS} slots and memory for a worker; \
             it has rack {rack}, {slots} slots and memory for {workers} workers"
        ),
    ))
}
