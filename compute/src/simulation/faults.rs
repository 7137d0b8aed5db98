use std::time::Duration;

use super::checks::policy;
use super::executors::Executor;
use super::world::{Happens, Simulation};
use super::{EXECUTORS, FAULTS_END};
use crate::core::{Scheduler, SecretKey};

impl Simulation {
    pub(super) fn fault(&mut self) {
        if self.now >= FAULTS_END {
            return;
        }
        self.later(6_000, Happens::Fault);
        let number = u32::try_from(1 + self.random.below(EXECUTORS.into())).unwrap();
        let fault = self.random.below(10);
        if !(7..=8).contains(&fault) {
            self.troubled.insert(number);
        }
        match fault {
            0..=4 => {
                let executor = self.executors.get_mut(&number).unwrap();
                let (id, was_alive) = (executor.id, std::mem::replace(&mut executor.alive, false));
                if was_alive && self.random.percent(70) {
                    self.later(50, Happens::Disconnected(id));
                }
                // Most do not return before the jobs must be done; the last one does, or nobody could do them.
                let rest = if self.executors.values().any(|executor| executor.alive) { 400_000 } else { 8_000 };
                let rest = if self.random.percent(60) { 8_000 } else { rest };
                self.later(rest, Happens::Return(number));
            }
            5..=6 => {
                let until = self.now + Duration::from_millis(self.random.below(15_000));
                self.executors.get_mut(&number).unwrap().hangs_until = until;
            }
            7 => self.driver_dies(number),
            8 => self.scheduler_restarts(),
            _ => {
                // Its disk lost what tasks had written.
                self.executors.get_mut(&number).unwrap().outputs.clear();
            }
        }
    }

    /// The scheduler is killed: what is not on the disk is gone, and so are all calls.
    pub(super) fn scheduler_restarts(&mut self) {
        self.appended.truncate(self.synced);
        self.before = self.synced;
        self.scheduler_life += 1;
        let now = self.now;
        let hangs = |(_, executor): &(&u32, &Executor)| !executor.alive || executor.hangs_until > now;
        self.troubled = self.executors.iter().filter(hangs).map(|(number, _)| *number).collect();
        self.starved.clear();
        self.scheduler = Scheduler::new(policy(), SecretKey([self.scheduler_life; 32]), self.appended.clone());
        self.held.clear();
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
