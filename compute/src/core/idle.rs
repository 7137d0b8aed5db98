use situ_wire::ids::ExecutorId;
use situ_wire::messages::scheduler::{JobState, Lost, Resources, WaitReason, Waiting};
use situ_wire::time::TimeMs;

use super::executor::Executor;
use super::job::Job;
use super::recovery::RecoveredBy;
use super::scheduler::Scheduler;
use super::stage::Stage;

/// What jobs wait for of which nothing goes on. It is found out when somebody asks for it: no event costs more for it.
impl Scheduler {
    /// What a job waits for; none if something of it goes on, or is about to.
    pub(super) fn waiting(&self, job: &Job) -> Option<Waiting> {
        let reason = if job.runs() { job.computes_again() } else { self.idle_for(job) };
        reason.map(|reason| Waiting { reason, since: job.idle_since })
    }

    fn idle_for(&self, job: &Job) -> Option<WaitReason> {
        if job.resumes {
            return self.resume_by.map(|until| WaitReason::Reports { until });
        }
        self.driver_idle_for(job).or_else(|| match job.under_way.is_empty() {
            true => (job.state == JobState::Running).then_some(WaitReason::Driver),
            false if job.is_open() => self.slot_idle_for(job),
            false => self.rests_for(job),
        })
    }

    /// What its driver waits for to begin.
    fn driver_idle_for(&self, job: &Job) -> Option<WaitReason> {
        let driver = &job.driver;
        if let Some(session) = driver.session {
            let begins = WaitReason::DriverBegins { node: None, until: session.until };
            return (job.state == JobState::Waiting).then_some(begins);
        }
        match driver.place {
            Some(executor) => driver
                .heard_by
                .filter(|_| !driver.has_begun)
                .map(|by| WaitReason::DriverBegins { node: Some(self.executors.node(executor)), until: Some(by) }),
            None if driver.rests_until.is_some() => {
                let until = driver.rests_until?;
                Some(match driver.outage {
                    Some(outage) => WaitReason::FileSystem { since: outage.since, until },
                    None => WaitReason::DriverRests { lost: driver.lost, until },
                })
            }
            None if !self.driverless.contains(&job.id()) => None,
            None => self.no_executors().or_else(|| {
                let drivers = self.executors.live().map(|(_, executor)| executor.drivers.len()).sum();
                Some(WaitReason::DriverPlace { drivers: count(drivers) })
            }),
        }
    }

    fn no_executors(&self) -> Option<WaitReason> {
        let known = count(self.executors.len());
        (self.executors.live_len() == 0).then_some(WaitReason::Executors { known })
    }

    /// What a job waits for that has tasks to start.
    fn slot_idle_for(&self, job: &Job) -> Option<WaitReason> {
        if let Some(reason) = self.no_executors() {
            return Some(reason);
        }
        if !self.executors.has_free() && job.reserved.is_none() {
            let live = || self.executors.live().map(|(_, executor)| executor);
            if let Some(until) = live().filter_map(|executor| executor.reports_until).min() {
                return Some(WaitReason::Reports { until });
            }
            let slots = live().map(|executor| executor.registration.slots).fold(0, u32::saturating_add);
            let jobs = count(self.jobs.values().filter(|job| job.runs()).count());
            return Some(WaitReason::Slots { slots, jobs });
        }
        if let Some(reason) = self.room_idle_for(job) {
            return Some(reason);
        }
        let usable = self.usable(job);
        let takes = |id| self.executors.get(id).is_some_and(|there: &Executor| there.takes(job.id()));
        if !self.executors.free().any(|(_, executor)| takes(executor)) {
            let workers = self.executors.live().map(|(_, executor)| executor.registration.workers);
            let jobs = count(self.jobs.values().filter(|job| job.runs()).count());
            return Some(WaitReason::Memory { workers: workers.fold(0, u32::saturating_add), jobs });
        }
        if self.executors.free().any(|(_, executor)| usable.contains(executor)) {
            return Some(WaitReason::OtherSlot);
        }
        let free = self.executors.free().filter_map(|(_, executor)| job.failures.get(&executor));
        let (executors, until) =
            free.fold((0, TimeMs::NEVER), |(free, until), failures| (free + 1, until.min(failures.until)));
        Some(WaitReason::Excluded { executors, until })
    }

    /// What a job waits for whose tasks need more than a slot: all of them that may start.
    fn room_idle_for(&self, job: &Job) -> Option<WaitReason> {
        let open = || job.needed.iter().filter_map(|key| job.stages.get(key)).filter(|stage| stage.is_open());
        let first = open().next().filter(|_| open().all(Stage::is_large))?;
        let Resources { cores, memory_bytes } = first.plan.resources;
        let fits = |(_, there): (ExecutorId, &Executor)| there.slots_of(&first.plan.resources).is_some();
        match job.reserved {
            Some(reserved) => {
                Some(WaitReason::Room { cores, memory_bytes, node: Some(self.executors.node(reserved.executor)) })
            }
            None if !self.executors.live().any(fits) => Some(WaitReason::Room { cores, memory_bytes, node: None }),
            None => None,
        }
    }

    /// What a job waits for whose tasks are tried again later.
    fn rests_for(&self, job: &Job) -> Option<WaitReason> {
        let needed = || job.needed.iter().filter_map(|key| job.stages.get(key));
        let (until, _, key, partition) = self.resting.iter().find(|(_, of, key, partition)| {
            let rests = |key| job.stages.get(key).is_some_and(|stage| stage.resting.contains(&partition.0));
            *of == job.id() && job.needed.contains(key) && rests(key)
        })?;
        Some(match job.stages.get(key)?.task(*partition).away_since() {
            Some(since) => WaitReason::FileSystem { since, until: *until },
            None => {
                let outputs = count(needed().map(|stage| stage.resting.len()).sum());
                WaitReason::LostOutputs { outputs, until: Some(*until) }
            }
        })
    }
}

impl Job {
    /// Whether something of it runs that counts.
    pub(super) fn runs(&self) -> bool {
        self.attempts.values().any(|attempt| !attempt.cancelled)
    }

    /// If all that runs of it computes outputs again that were lost: it is no further before they are there.
    fn computes_again(&self) -> Option<WaitReason> {
        let mut outputs = 0;
        for (id, attempt) in self.attempts.iter().filter(|(_, attempt)| !attempt.cancelled) {
            if !self.recoveries.lacks(Lost::MapOutput, RecoveredBy::Task(attempt.stage, id.partition)) {
                return None;
            }
            outputs += 1;
        }
        Some(WaitReason::LostOutputs { outputs, until: None })
    }

    /// Notes since when nothing of it runs.
    pub(super) fn note_idle(&mut self, now: TimeMs) {
        self.idle_since = if self.runs() { None } else { self.idle_since.or(Some(now)) };
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
