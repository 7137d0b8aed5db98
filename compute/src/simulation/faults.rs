use std::time::Duration;

use situ_wire::ids::{JobId, NodeName};
use situ_wire::messages::executor::ProcessLife;

use super::executors::Executor;
use super::processes::{Ending, Pid, Process, Role};
use super::world::{Happens, Simulation};
use super::{EXECUTORS, FAULTS_END};
use crate::core::{JobRecord, Scheduler, SchedulingPolicy, SecretKey};

impl Simulation {
    pub(super) fn fault(&mut self) {
        if self.now >= FAULTS_END {
            return;
        }
        self.later(4_000, Happens::Fault);
        let number = u32::try_from(1 + self.random.below(EXECUTORS.into())).unwrap();
        match self.random.below(20) {
            0..=3 => self.executor_dies(number),
            4..=5 => {
                let until = self.now + Duration::from_millis(self.random.below(15_000));
                let here = self.executors.get_mut(&number).unwrap();
                here.hangs_until = here.hangs_until.max(until);
                self.in_trouble(number);
            }
            6 => {
                if let Some(driver) = self.one_of(number, |role| matches!(role, Role::Driver { .. })) {
                    self.ails(driver);
                    self.ends(driver, Ending::killed());
                }
            }
            7 => self.stops(number, |role| matches!(role, Role::Driver { .. }), 45_000),
            8..=9 => self.scheduler_restarts(),
            10..=11 => {
                // Its disk lost what tasks had written.
                self.oracle.troubled.insert(number);
                self.executors.get_mut(&number).unwrap().files.clear();
            }
            12..=14 => {
                if let Some(worker) = self.one_of(number, |role| role == Role::Worker) {
                    self.ails(worker);
                    self.last_poll(worker);
                    self.ends(worker, Ending::killed());
                }
            }
            15..=16 => {
                // Drivers are what is started then.
                self.away_until = self.now + Duration::from_millis(self.random.below(20_000));
                if let Some(driver) = self.one_of(number, |role| matches!(role, Role::Driver { .. })) {
                    self.ails(driver);
                    self.ends(driver, Ending::killed());
                }
            }
            _ => self.stops(number, |role| role == Role::Worker, 20_000),
        }
    }

    /// A process of that kind on an executor, if there is one.
    fn one_of(&mut self, executor: u32, is: impl Fn(Role) -> bool) -> Option<Pid> {
        let there = self.executors[&executor].processes.iter().filter(|(_, process)| is(process.role));
        let lives: Vec<ProcessLife> = there.map(|(life, _)| *life).collect();
        let which = self.random.below(u64::try_from(lives.len()).unwrap().max(1));
        lives.get(usize::try_from(which).unwrap()).map(|life| Pid { executor, life: *life })
    }

    /// A process stands still for a while, as long as `ms` at most.
    fn stops(&mut self, executor: u32, is: impl Fn(Role) -> bool, ms: u64) {
        let until = self.now + Duration::from_millis(self.random.below(ms));
        if let Some(pid) = self.one_of(executor, is) {
            self.ails(pid);
            self.process_mut(pid).unwrap().stopped_until = until;
        }
    }

    /// What an executor has may be lost, the drivers there among it.
    fn in_trouble(&mut self, number: u32) {
        self.oracle.troubled.insert(number);
        self.executors.get_mut(&number).unwrap().calm_since = self.now;
        let node = NodeName(format!("n{number}"));
        for job in self.submitted.values() {
            let place = self.journal.appended.iter().rev().find_map(|record| match record {
                JobRecord::Driver { job: of, node, .. } if of == job => Some(node),
                _ => None,
            });
            if place == Some(&node) {
                *self.oracle.drivers_lost.entry(*job).or_default() += 1;
            }
        }
    }

    /// A driver is placed, perhaps where nobody is any more.
    pub(super) fn driver_placed(&mut self, job: JobId, node: &NodeName) {
        let number: u32 = node.0[1..].parse().unwrap();
        let there = &self.executors[&number];
        if !there.alive || there.hangs_until > self.now {
            *self.oracle.drivers_lost.entry(job).or_default() += 1;
        }
    }

    fn executor_dies(&mut self, number: u32) {
        self.in_trouble(number);
        let executor = self.executors.get_mut(&number).unwrap();
        let (id, was_alive) = (executor.id, std::mem::replace(&mut executor.alive, false));
        executor.processes.clear();
        executor.waiters.clear();
        executor.owed.clear();
        executor.results.clear();
        if was_alive && self.random.percent(70) {
            self.later(50, Happens::Disconnected(id));
        }
        // Most do not return before the jobs must be done; the last one does, or nobody could do them.
        let rest = if self.executors.values().any(|executor| executor.alive) { 400_000 } else { 8_000 };
        let rest = if self.random.percent(70) { 8_000 } else { rest };
        self.later(rest, Happens::Return(number));
    }

    /// The scheduler is killed: what is not on the disk is gone, and so are all calls.
    fn scheduler_restarts(&mut self) {
        self.journal.appended.truncate(self.journal.synced);
        self.journal.before = self.journal.synced;
        self.journal.held.clear();
        self.scheduler_life += 1;
        let now = self.now;
        let stops = |process: &Process| process.stopped_until > now;
        let ails = |executor: &Executor| executor.processes.values().any(stops) || !executor.ailing.is_empty();
        let troubled = |executor: &Executor| !executor.alive || executor.hangs_until > now || ails(executor);
        let numbers = self.executors.iter().filter(|(_, executor)| troubled(executor)).map(|(number, _)| *number);
        self.oracle.troubled = numbers.collect();
        self.oracle.starved.clear();
        self.executors.values_mut().for_each(|executor| executor.calm_since = now);
        let (key, records) = (SecretKey([self.scheduler_life; 32]), self.journal.appended.clone());
        self.scheduler = Scheduler::new(SchedulingPolicy::default(), key, records);
        self.heap.retain(|_, what| !matches!(what, Happens::Synced(_)));
        for (_, who) in std::mem::take(&mut self.calls) {
            if self.is_alive(&who) {
                self.ask_again(who);
            }
        }
        for job in self.submitted.values() {
            assert!(
                self.scheduler.snapshot().iter().any(|record| record.job() == Some(*job)),
                "an acknowledged job is known"
            );
        }
    }
}
