use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use situ_wire::error::RemoteError;
use situ_wire::ids::{ExecutorId, JobId, OperationId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::Response;
use situ_wire::time::TimeMs;

use super::attribution::Resting;
use super::cleaning::Cleaning;
use super::executors::Executors;
use super::finished::Finished;
use super::job::Job;
use super::policy::{SchedulingPolicy, ms};
use super::turns::Turns;
use super::waits::{Topic, Waits};
use super::{CallId, Effect, Event, JobRecord, RecordId, SecretKey};

/// An owner that comes so late to a timeout was itself stopped: silence in the meantime is nobody's fault.
const STALL: Duration = Duration::from_millis(500);

/// Which jobs there are, which tasks run where, and what is to be done when they or their executors fail.
///
/// # Contract
/// The owner calls [`Scheduler::handle`] for every [`Event`] and [`Scheduler::handle_timeout`] when the time that
/// [`Scheduler::poll_timeout`] gives has come, and after either takes all effects from [`Scheduler::poll_effect`] and
/// carries them out in order. Times never go back. An answer that names a record is held until that record is on the
/// disk, which the owner tells with [`Event::Synced`].
///
/// # Failure model
/// Executors may die, hang, come back and repeat what they said; everything they tell is idempotent. A task may run any
/// number of times, twice at once too; of its outputs one counts. What a finished task left may vanish with its executor:
/// it is computed again from its lineage when it is missed. Plans come from users' programs and are checked.
///
/// # References
/// Delay scheduling: Zaharia et al., "Delay Scheduling", EuroSys 2010. Lineage: Zaharia et al., "Resilient Distributed
/// Datasets", NSDI 2012. Speculation: Dean and Ghemawat, "MapReduce", OSDI 2004.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) policy: SchedulingPolicy,
    /// What the secrets of jobs are made from; none until the journal is read.
    pub(super) key: Option<SecretKey>,
    /// The policy bounds how many are unfinished.
    pub(super) jobs: BTreeMap<JobId, Job>,
    pub(super) finished: Finished,
    /// Which job an operation has made: one for each job, unfinished or finished.
    pub(super) operations: BTreeMap<OperationId, JobId>,
    pub(super) next_job: JobId,
    /// Which life of the scheduler this is, from 0.
    pub(super) life: u32,
    /// Jobs whose submission is on the disk and whose driver waits for an executor.
    pub(super) driverless: BTreeSet<JobId>,
    /// Drivers that are placed again later.
    pub(super) resting_drivers: BTreeSet<(TimeMs, JobId)>,
    /// Drivers that have a place, by when they must have begun or be heard again.
    pub(super) driver_deadlines: BTreeSet<(TimeMs, JobId)>,
    /// Jobs for a large task of which an executor is kept.
    pub(super) reserving: BTreeSet<JobId>,
    /// When it was last looked at what can be started.
    pub(super) looked: TimeMs,
    /// Jobs whose drivers are attached, by when these must be heard again.
    pub(super) sessions: BTreeSet<(Option<TimeMs>, JobId)>,
    /// Jobs that have ended and may have left something aside. Each stands in the journal too; what cannot be taken away
    /// is never given up.
    pub(super) cleaning: BTreeMap<JobId, Cleaning>,
    pub(super) executors: Executors,
    pub(super) waits: Waits,
    /// Jobs that the event at hand has changed.
    pub(super) changed: BTreeSet<JobId>,
    /// Until when failures on an executor count for a job: one for each entry of the jobs.
    pub(super) pardons: BTreeSet<(TimeMs, JobId, ExecutorId)>,
    /// Tasks that are tried again later: some of those that rest, and for a while those that have gone.
    pub(super) resting: BTreeSet<Resting>,
    /// The same, once it is known how they stand: their followers are told.
    pub(super) revised: BTreeSet<JobId>,
    /// Which job's turn it is.
    pub(super) turns: Turns,
    /// How many tasks were started.
    pub(super) served: u64,
    /// Until when jobs of earlier lives wait for executors; none when that is over, never until the first event.
    pub(super) resume_by: Option<TimeMs>,
    /// When tasks may be started that no event will start: a level relaxes, an attempt becomes slow.
    pub(super) assign_at: Option<TimeMs>,
    /// What was known of executors and started tasks when everything was started that could be.
    pub(super) assigned: (u64, u64),
    last_record: RecordId,
    pub(super) synced: RecordId,
    effects: VecDeque<Effect>,
    /// The time that the owner was last asked to come back at.
    expected: Option<TimeMs>,
}

impl Scheduler {
    /// A scheduler that goes on from `records`, the journal of earlier lives, in which the same thing may stand twice. Jobs
    /// that had not ended go on with what executors report; the actions that were done are done, and what was published is.
    /// `key` must be random: the secrets of jobs are made from it, unless the journal has one already. There are effects to
    /// be carried out at once.
    pub fn new(policy: SchedulingPolicy, key: SecretKey, records: impl IntoIterator<Item = JobRecord>) -> Self {
        let mut scheduler = Self {
            policy,
            key: None,
            jobs: BTreeMap::new(),
            finished: Finished::default(),
            operations: BTreeMap::new(),
            next_job: JobId(1),
            life: 0,
            driverless: BTreeSet::new(),
            resting_drivers: BTreeSet::new(),
            driver_deadlines: BTreeSet::new(),
            reserving: BTreeSet::new(),
            looked: TimeMs::default(),
            sessions: BTreeSet::new(),
            cleaning: BTreeMap::new(),
            executors: Executors::default(),
            waits: Waits::default(),
            changed: BTreeSet::new(),
            pardons: BTreeSet::new(),
            resting: BTreeSet::new(),
            revised: BTreeSet::new(),
            turns: Turns::default(),
            served: 0,
            resume_by: None,
            assign_at: None,
            assigned: (0, 0),
            last_record: RecordId(0),
            synced: RecordId(0),
            effects: VecDeque::new(),
            expected: None,
        };
        for record in records {
            scheduler.replay(record);
        }
        if scheduler.key.is_none() {
            scheduler.key = Some(key);
            scheduler.append(JobRecord::Key(key));
        }
        scheduler.replayed();
        scheduler.wait_for_reports();
        let record = scheduler.append(JobRecord::Began { life: scheduler.life, next: scheduler.next_job });
        // Nothing is started before it is on the disk which life this is.
        scheduler.jobs.values_mut().for_each(|job| job.record = Some(record));
        scheduler.cleaning.values_mut().for_each(|cleaning| cleaning.record = record);
        scheduler
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: TimeMs, event: Event) {
        self.excuse(now);
        match event {
            Event::Call { call, caller, deadline, request } => self.call(now, call, &caller, deadline, *request),
            Event::Synced { record } => self.on_synced(record),
            Event::Disconnected { executor } => self.on_disconnected(now, executor),
        }
        self.settle(now);
    }

    /// Does what the time demands.
    pub fn handle_timeout(&mut self, now: TimeMs) {
        self.excuse(now);
        self.judge_executors(now);
        self.judge_drivers(now);
        self.judge_attempts(now);
        self.judge_sessions(now);
        self.judge_clean_ups(now);
        for wait in self.waits.take_due(now) {
            self.answer_late(wait);
        }
        self.settle(now);
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`Scheduler::handle_timeout`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<TimeMs> {
        let silent = self.driver_deadlines.first().map(|(by, _)| *by);
        let pardon = self.pardons.first().map(|(until, ..)| *until);
        let rested = self.resting.first().map(|(until, ..)| *until);
        let driver = self.resting_drivers.first().map(|(until, _)| *until);
        let resume = self.resume_by.filter(|by| *by < TimeMs::NEVER);
        let tasks =
            [self.assign_at, self.turns.next_late(), silent, self.next_session_end(), pardon, rested, driver, resume];
        let others = [self.executors.next_due(), self.waits.next_due(), self.next_clean_up()];
        tasks.into_iter().chain(others).flatten().min()
    }

    /// The records that bring a scheduler to what this one remembers: a journal may be replaced by them.
    #[must_use]
    pub fn snapshot(&self) -> Vec<JobRecord> {
        let began = JobRecord::Began { life: self.life, next: self.next_job };
        let unfinished = self.jobs.values().flat_map(Job::records);
        let aside = self.cleaning.iter().flat_map(|(job, cleaning)| cleaning.records(*job));
        let key = self.key.map(JobRecord::Key);
        std::iter::once(began).chain(key).chain(self.finished.records()).chain(unfinished).chain(aside).collect()
    }

    /// Lets tasks start, tells executors and followers of jobs.
    fn settle(&mut self, now: TimeMs) {
        self.end_resuming(now);
        self.pardon(now);
        self.wake(now);
        self.wake_drivers(now);
        self.assign(now);
        self.place_clean_ups(now);
        self.answer_polls(now);
        for job in std::mem::take(&mut self.revised) {
            if let Some(job) = self.jobs.get_mut(&job) {
                job.revision += 1;
                self.waits.hasten(Topic::Status(job.id()), now, ms(self.policy.status_ms));
            }
        }
        for wait in self.waits.take_due(now) {
            self.answer_late(wait);
        }
        self.executors.note(&self.policy);
        self.sweep_places();
        // Nobody can come before now: what is due already makes each of many events late by the time since the last only.
        self.expected = self.poll_timeout().map(|due| due.max(now));
    }

    /// Drops the names of nodes and racks of jobs that are gone.
    fn sweep_places(&mut self) {
        if self.executors.places().is_full() {
            let stages = self.jobs.values().flat_map(|job| job.stages.values());
            self.executors.sweep_places(stages.flat_map(|stage| stage.pending.homes.used()));
        }
    }

    /// If the owner comes late, it stood still and heard nobody: that silence does not count against executors.
    fn excuse(&mut self, now: TimeMs) {
        self.begin_resuming(now);
        let late = self.expected.map(|expected| now.since(expected)).unwrap_or_default();
        if late > STALL {
            self.executors.excuse(late, now, &self.policy);
            self.excuse_drivers(now, late);
            self.excuse_sessions(now, late);
        }
    }

    /// Appends a record; its position.
    pub(super) fn append(&mut self, record: JobRecord) -> RecordId {
        if let JobRecord::ActionDone { job, .. }
        | JobRecord::Recorded { job, .. }
        | JobRecord::Published { job, .. }
        | JobRecord::ScopeEnded { job, .. } = &record
            && let Some(found) = self.jobs.get_mut(job)
        {
            found.driver.has_come_on = true;
        }
        self.last_record.0 += 1;
        self.effects.push_back(Effect::Append { id: self.last_record, record: Box::new(record) });
        self.last_record
    }

    /// The newest record.
    pub(super) fn last_record(&self) -> RecordId {
        self.last_record
    }

    /// Answers a call now.
    pub(super) fn answer(&mut self, call: CallId, result: Result<Response, RemoteError>) {
        self.answer_when(call, result, None);
    }

    /// Answers a call once `when` is on the disk.
    pub(super) fn answer_when(&mut self, call: CallId, result: Result<Response, RemoteError>, when: Option<RecordId>) {
        let when = when.filter(|record| *record > self.synced);
        self.effects.push_back(Effect::Answer { call, result: Box::new(result), when });
    }

    /// The secret of a job, the same in every life of the scheduler: who does not know the key cannot guess it.
    pub(crate) fn secret(&self, job: JobId) -> JobSecret {
        // Those that are asked for before the journal is read are made anew then.
        let SecretKey(key) = self.key.unwrap_or(SecretKey([0; 32]));
        let hash = blake3::keyed_hash(&key, &job.0.to_le_bytes());
        let mut secret = [0; 16];
        secret.copy_from_slice(&hash.as_bytes()[..16]);
        JobSecret(secret)
    }

    /// Tells executors that wait for work what to do.
    fn answer_polls(&mut self, now: TimeMs) {
        self.executors.note(&self.policy);
        let too_long = |id: &ExecutorId| {
            self.executors.get(*id).is_some_and(|executor| executor.holds_too_long(now, &self.policy))
        };
        let held = self.executors.due(now).filter(too_long);
        let ids: BTreeSet<ExecutorId> = self.executors.told().chain(held).collect();
        for id in ids {
            self.answer_poll(now, id);
        }
    }

    /// Answers the kept poll of an executor, if there is one.
    pub(super) fn answer_poll(&mut self, now: TimeMs, id: ExecutorId) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        let Some(call) = executor.unpark(now) else { return };
        let (last, commands) = executor.commands();
        self.answer(call, Ok(Response::Commands { last, commands }));
    }
}
