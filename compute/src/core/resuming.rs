use situ_wire::ids::{ExecutorId, JobId, NodeName, ShuffleId};
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{ExecutorCommand, JobState, StageOutput};
use situ_wire::time::TimeMs;

use super::driver::DRIVER_ATTEMPTS_PER_LIFE;
use super::job::{Held, Job};
use super::policy::ms;
use super::scheduler::Scheduler;
use super::stage::{Stage, StageKey};
use super::{JobRecord, RecordId};

/// The attempt at a driver that ran when an earlier life of the scheduler ended, as far as the journal knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Former {
    pub(super) attempt: u32,
    pub(super) node: NodeName,
}

/// How jobs go on that an earlier life of the scheduler began. For a while nothing of them is started: executors register
/// and [report](super::reports) what they have.
///
/// ```text
///  begins --> executors report --> driver reported: it lives on  --its actions are asked again--> outputs are adopted
///                 |                driver not reported by its node, or node not heard in resume_ms: a new attempt
///                 \-- resume_ms after the beginning --> tasks that nobody has reported are started
/// ```
impl Scheduler {
    /// All records are read: jobs of earlier lives wait for executors from the first event on.
    pub(super) fn wait_for_reports(&mut self) {
        if self.policy.resume_ms == 0 {
            self.jobs.values_mut().for_each(|job| job.driver.former = None);
        } else if !self.jobs.is_empty() {
            self.jobs.values_mut().for_each(|job| job.resumes = true);
            self.resume_by = Some(TimeMs::NEVER);
        }
    }

    /// The first event has come.
    pub(super) fn begin_resuming(&mut self, now: TimeMs) {
        if self.resume_by == Some(TimeMs::NEVER) {
            self.resume_by = Some(now + ms(self.policy.resume_ms));
        }
    }

    /// Who has not reported by now is not waited for.
    pub(super) fn end_resuming(&mut self, now: TimeMs) {
        if self.resume_by.take_if(|by| *by <= now).is_some() {
            for (id, job) in &mut self.jobs {
                (job.resumes, job.driver.former) = (false, None);
                self.changed.insert(*id);
            }
        }
    }

    /// The first attempt at drivers and clean-ups in this life.
    pub(super) fn first_driver_attempt(&self) -> u32 {
        self.life.saturating_mul(DRIVER_ATTEMPTS_PER_LIFE)
    }

    /// An executor has something of a job: it is told how the job's processes are started, and of its end.
    pub(super) fn touch(&mut self, job: JobId, executor: ExecutorId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let Some(there) = self.executors.get_mut(executor) else { return };
        if found.touched.insert(executor) {
            there.push(ExecutorCommand::BeginJob { job: found.launch.clone() });
            found.logs.insert((LogName::Worker, there.registration.node.clone()));
        }
    }

    /// An executor has an attempt at a driver: that which ran when the earlier life ended lives on, any other one ends.
    pub(super) fn driver_held(&mut self, now: TimeMs, executor: ExecutorId, job: JobId, attempt: u32) {
        let node = self.executors.node(executor);
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let driver = &mut found.driver;
        if driver.place == Some(executor) && driver.attempt == attempt {
            return;
        }
        if driver.former.take_if(|former| *former == Former { attempt, node }).is_none() {
            return self.executors.command(executor, ExecutorCommand::EndDriver { job, attempt });
        }
        (driver.attempt, driver.place) = (attempt, Some(executor));
        // What a driver alone does is known of it; otherwise it must still show that it has begun.
        let has_begun = !found.actions.is_empty() || !found.outputs.is_empty();
        if has_begun {
            found.state = JobState::Running;
        }
        self.await_driver(now, job, has_begun);
        self.driverless.remove(&job);
        if let Some(there) = self.executors.get_mut(executor) {
            there.drivers.insert(job, attempt);
        }
        self.changed.insert(job);
    }

    /// An executor has told all that it has.
    pub(super) fn whole(&mut self, executor: ExecutorId) {
        let node = self.executors.node(executor);
        if let Some(there) = self.executors.get_mut(executor) {
            there.reports_until = None;
        }
        for job in self.jobs.values_mut() {
            job.driver.former.take_if(|former| former.node == node);
        }
    }

    /// All outputs of a shuffle are there: before anybody reads them it is on the disk what they are. In another life of
    /// the scheduler they must be the same, or what others made of them does not count.
    pub(super) fn note_held(&mut self, now: TimeMs, job: JobId, shuffle: ShuffleId) {
        let Some(found) = self.jobs.get_mut(&job).filter(|_| self.policy.resume_ms > 0) else { return };
        let Some(digest) = found.stages.get(&StageKey::Shuffle(shuffle)).and_then(Stage::digest) else { return };
        let before = found.held.get(&shuffle).map(|held| held.digest);
        if before == Some(digest) || found.varies {
            return;
        }
        if before.is_some() {
            let keeps = |stage: &&Stage| stage.plan.reads.contains(&shuffle) && found.has_in_memory(stage);
            if let Some(reader) = found.stages.values().find(keeps) {
                // No worker can be told to compute one partition anew.
                let what = format!("{} has read it and keeps in memory what it made of it", reader.plan.name);
                let reason = found.not_the_same(shuffle, None, &what);
                return self.fail_job(now, job, &reason);
            }
            // What has been adopted was made from what it was.
            let all: Vec<u32> = match found.stages.get(&StageKey::Shuffle(shuffle)).map(|stage| stage.plan.output) {
                Some(StageOutput::Shuffle { reducers, .. }) => (0..reducers).collect(),
                _ => Vec::new(),
            };
            return self.roll_back(now, job, shuffle, None, &all);
        }
        let record = Some(self.append(JobRecord::Shuffled { job, shuffle, digest }));
        if let Some(found) = self.jobs.get_mut(&job) {
            found.held.insert(shuffle, Held { digest, record });
        }
    }

    /// Outputs of a job are not the same when they are computed again: in no later life can it be known which of them others
    /// have read, so that nothing is adopted any more.
    pub(super) fn outputs_vary(&mut self, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job) else { return };
        if std::mem::replace(&mut found.varies, true) || self.policy.resume_ms == 0 {
            return;
        }
        let record = Some(self.append(JobRecord::Varies { job }));
        if let Some(found) = self.jobs.get_mut(&job) {
            // Nobody reads anything of it before that is certain.
            found.held.values_mut().for_each(|held| held.record = record);
        }
        self.drop_reports(job);
    }
}

impl Job {
    /// Whether workers hold partitions of what a stage keeps, as far as is known.
    fn has_in_memory(&self, stage: &Stage) -> bool {
        stage.plan.persisted.iter().any(|kept| self.cached.has(kept.dataset) || self.reports.cached.has(kept.dataset))
    }

    /// What was known of it of its shuffles, for the journal.
    pub(super) fn held_records(&self) -> impl Iterator<Item = JobRecord> {
        let job = self.id();
        let varies = self.varies.then_some(JobRecord::Varies { job });
        let held = self.held.iter();
        held.map(move |(shuffle, held)| JobRecord::Shuffled { job, shuffle: *shuffle, digest: held.digest })
            .chain(varies)
    }

    /// What the shuffles held that an earlier life has seen whole.
    pub(super) fn restore_held(&mut self, shuffle: ShuffleId, digest: u64) {
        self.held.insert(shuffle, Held { digest, record: None });
    }

    /// The record that must be on the disk before anybody hears where the outputs of a shuffle are.
    pub(super) fn held_record(&self, shuffle: ShuffleId) -> Option<RecordId> {
        self.held.get(&shuffle)?.record
    }
}
