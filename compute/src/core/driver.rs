use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situ_wire::ids::{ClientId, ExecutorId, JobId, NodeName};
use situ_wire::messages::executor::{JobSecret, LogName};
use situ_wire::messages::scheduler::{ExecutorCommand, JobState, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::attribution::Outage;
use super::calls::{Asked, Outcome, now};
use super::job::{Driver, Job};
use super::policy::ms;
use super::scheduler::Scheduler;
use super::session::GRACE;
use super::{JobRecord, Submission};
use crate::shortened::shortened;

/// How many attempts at the driver of a job each later life of the scheduler numbers. The job's secret stays: a driver of an
/// earlier life, of which the journal does not know, must not be taken for one of this.
pub(super) const DRIVER_ATTEMPTS_PER_LIFE: u32 = 100;

/// The longest wait between two attempts at a driver that do not begin.
const LONGEST_REST: Duration = Duration::from_secs(30);

impl Scheduler {
    /// Places drivers that wait on the least busy executors: first those of users who have the fewest drivers, of one user's
    /// those of the oldest jobs.
    pub(super) fn place_drivers(&mut self, now: TimeMs) {
        let room = |(drivers, _): &(usize, ExecutorId)| *drivers < self.policy.drivers;
        if self.driverless.is_empty() || !self.executors.by_drivers().next().as_ref().is_some_and(room) {
            return;
        }
        let mut turns = self.driver_turns();
        while let Some((count, id)) = turns.pop_first() {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let room = |(drivers, _): &(usize, ExecutorId)| *drivers < self.policy.drivers;
            let mut least_busy = self.executors.by_drivers().take_while(room).map(|(_, executor)| executor);
            let lost_on = &job.driver.lost_on;
            // Where an attempt was lost comes last.
            let first = least_busy.next();
            let other = first.into_iter().chain(least_busy).find(|executor| !lost_on.contains(executor));
            // Where there is no place for one there is none for another.
            let Some(executor) = other.or(first) else { return };
            self.driverless.remove(&id);
            let node = self.executors.node(executor);
            let attempt = job.driver.attempt;
            job.driver.place = Some(executor);
            job.touched.insert(executor);
            job.add_driver_logs(attempt, node.clone());
            let launch = job.launch.clone();
            if let Some(executor) = self.executors.get_mut(executor) {
                executor.drivers.insert(id, attempt);
                executor.push(ExecutorCommand::StartDriver { job: launch, attempt });
            }
            self.executors.note(&self.policy);
            self.await_driver(now, id, false);
            self.append(JobRecord::Driver { job: id, attempt, node });
            self.changed.insert(id);
            self.next_turn(&mut turns, count, id);
        }
    }

    /// The oldest job of each user whose driver waits, by how many drivers that user has.
    fn driver_turns(&self) -> BTreeSet<(usize, JobId)> {
        let mut users: BTreeMap<&str, (usize, Option<JobId>)> = BTreeMap::new();
        for (id, job) in &self.jobs {
            let (drivers, oldest) = users.entry(&job.launch.user).or_default();
            *drivers += usize::from(job.driver.place.is_some());
            if oldest.is_none() && self.driverless.contains(id) && job.driver.former.is_none() {
                *oldest = Some(*id);
            }
        }
        users.into_values().filter_map(|(drivers, oldest)| Some((drivers, oldest?))).collect()
    }

    /// After a job's driver has a place, its user's next one waits its turn.
    fn next_turn(&self, turns: &mut BTreeSet<(usize, JobId)>, drivers: usize, after: JobId) {
        let user = |id: &JobId| self.jobs.get(id).filter(|job| job.driver.former.is_none()).map(|job| &job.launch.user);
        let later = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
        let next = self.driverless.range(later).find(|id| user(id) == user(&after));
        turns.extend(next.map(|next| (drivers + 1, *next)));
    }

    pub(super) fn driver_begin(&mut self, job: JobId) -> Outcome {
        let Some(found) = self.jobs.get(&job) else { return Err(self.gone(job)) };
        let (session_ms, attached) = (self.policy.session_ms, found.driver.session.is_some());
        now(Response::Begun { publisher: found.publisher(), session_ms, attached })
    }

    /// A driver has a place: it must begin, or be heard again if it has begun.
    pub(super) fn await_driver(&mut self, now: TimeMs, job: JobId, has_begun: bool) {
        let limit = if has_begun { self.policy.session_ms } else { self.policy.driver_begin_ms };
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let by = now + ms(limit);
        found.driver.has_begun = has_begun;
        if let Some(before) = found.driver.heard_by.replace(by) {
            self.driver_deadlines.remove(&(before, job));
        }
        self.driver_deadlines.insert((by, job));
    }

    /// A driver calls: it has begun, and lives.
    pub(super) fn driver_calls(&mut self, now: TimeMs, job: JobId) {
        if self.jobs.get(&job).is_some_and(|found| found.driver.place.is_some()) {
            self.await_driver(now, job, true);
        }
        let Some(found) = self.jobs.get_mut(&job) else { return };
        // Its executable is there.
        found.driver.outage = None;
        if found.state == JobState::Waiting {
            found.state = JobState::Running;
            self.changed.insert(job);
        }
    }

    /// Gives up attempts at drivers that should have begun by now (their programs hang, or are none of a job), and those
    /// that are silent: they stand still.
    pub(super) fn judge_drivers(&mut self, now: TimeMs) {
        while let Some((_, job)) = self.driver_deadlines.first().copied().filter(|(by, _)| *by <= now) {
            let driver = self.jobs.get(&job).map(|job| &job.driver);
            let Some(Driver { attempt, place: Some(executor), has_begun, .. }) = driver else {
                unreachable!("a driver that must be heard has a place");
            };
            let (attempt, executor, has_begun) = (*attempt, *executor, *has_begun);
            let why = if has_begun {
                let silent = f64::from(self.policy.session_ms) / 1e3;
                format!(
                    "it was silent for {silent} s (session_ms): its process stood still, or lost its way to the scheduler"
                )
            } else {
                format!(
                    "it did not begin within {} s: its main must call situ_compute::run soon after its start; `situ job \
                     logs {}` may say what it did instead",
                    f64::from(self.policy.driver_begin_ms) / 1e3,
                    job.0
                )
            };
            self.executors.command(executor, ExecutorCommand::EndDriver { job, attempt });
            if let Some(found) = self.jobs.get_mut(&job).filter(|_| !has_begun) {
                found.driver.given_up = Some((executor, attempt));
            }
            self.lose_driver(now, job, &why);
        }
    }

    /// The scheduler stood still for `rest`: it has heard no driver meanwhile, and those whose time would be up now may be
    /// about to be heard.
    pub(super) fn excuse_drivers(&mut self, now: TimeMs, rest: Duration) {
        let soonest = now + ms(self.policy.session_ms) / GRACE;
        for (by, job) in std::mem::take(&mut self.driver_deadlines) {
            let by = (by + rest).max(soonest);
            self.driver_deadlines.insert((by, job));
            if let Some(found) = self.jobs.get_mut(&job) {
                found.driver.heard_by = Some(by);
            }
        }
    }

    pub(super) fn driver_end(
        &mut self,
        asked: Asked<'_>,
        job: JobId,
        secret: JobSecret,
        attempt: u32,
        error: Option<String>,
    ) -> Outcome {
        if let (true, Some(ended)) = (secret == self.secret(job), self.finished.get(job)) {
            // A retry, or an end that came otherwise before.
            return Ok(Some((Response::Done, ended.record)));
        }
        self.check_driver_of(job, secret, attempt)?;
        let state =
            error.map_or(JobState::Succeeded, |error| JobState::Failed { reason: shortened(&error).into_owned() });
        let record = self.end_job(asked.now, job, state);
        Ok(Some((Response::Done, record)))
    }

    /// A driver's process ended. If it had said how the job ended, the job would be gone by now.
    pub(super) fn driver_process_ended(
        &mut self,
        at: TimeMs,
        executor: ExecutorId,
        (job, attempt): (JobId, u32),
        error: Option<String>,
        retry: bool,
    ) {
        let Some(found) = self.jobs.get(&job) else { return self.clean_up_ended(at, executor, (job, attempt), error) };
        if found.driver.place != Some(executor) || found.driver.attempt != attempt {
            return;
        }
        match error {
            Some(error) if retry => self.lose_driver(at, job, &error),
            Some(error) => self.fail_job(at, job, &format!("the driver ended with an error: {error}")),
            None => self.fail_job(
                at,
                job,
                "the driver ended without saying how the job ended: its main must leave by returning from the job, not by \
                 ending the process",
            ),
        }
    }

    /// An attempt at a driver is lost: another one is made, elsewhere if that is possible.
    pub(super) fn lose_driver(&mut self, at: TimeMs, job: JobId, why: &str) {
        let has_begun = self.jobs.get(&job).is_some_and(|found| found.driver.has_begun);
        let Some((executor, attempt)) = self.displace_driver(job) else { return };
        let last = self.last_driver_attempt();
        let Some(found) = self.jobs.get_mut(&job) else { return };
        found.driver.note_lost(at, executor, ms(self.policy.driver_forget_ms));
        let lost = found.driver.lost;
        if lost >= self.policy.driver_attempts || attempt == last {
            let node = self.executors.node(executor);
            let reason =
                format!("{lost} attempts at the driver were lost; the last, attempt {attempt} on {node}: {why}");
            return self.fail_job(at, job, &reason);
        }
        // What keeps one from beginning anywhere, as a full disk, would use up all attempts in a moment.
        let rest = if has_begun { Duration::ZERO } else { rest_after(lost) };
        if rest.is_zero() {
            self.driverless.insert(job);
        } else if let Some(found) = self.jobs.get_mut(&job) {
            found.driver.rests_until = Some(at + rest);
            self.resting_drivers.insert((at + rest, job));
        }
    }

    /// The last attempt that this life of the scheduler numbers.
    fn last_driver_attempt(&self) -> u32 {
        self.first_driver_attempt().saturating_add(DRIVER_ATTEMPTS_PER_LIFE - 1)
    }

    /// The attempt at a driver that has a place has it no more: where that was, and which attempt.
    fn displace_driver(&mut self, job: JobId) -> Option<(ExecutorId, u32)> {
        let first = self.first_driver_attempt();
        let found = self.jobs.get_mut(&job)?;
        let executor = found.driver.place.take()?;
        if let Some(by) = found.driver.heard_by.take() {
            self.driver_deadlines.remove(&(by, job));
        }
        let attempt = found.driver.attempt;
        // One that has lived on has a number of an earlier life.
        found.driver.attempt = (attempt + 1).max(first);
        if let Some(executor) = self.executors.get_mut(executor) {
            executor.drivers.remove(&job);
        }
        self.changed.insert(job);
        Some((executor, attempt))
    }

    /// An attempt at a driver never ran: the file system is away, which holds its executable. Nobody is to blame: it is made
    /// again now and then, for so long. What was given up for the same reason, before that was known, was not lost either.
    pub(super) fn driver_away(
        &mut self,
        now: TimeMs,
        executor: ExecutorId,
        (job, attempt): (JobId, u32),
        message: &str,
    ) {
        let limit = ms(self.policy.storage_away_ms);
        let last = self.last_driver_attempt();
        let Some(found) = self.jobs.get_mut(&job) else { return };
        let driver = &mut found.driver;
        if driver.given_up.take_if(|it| *it == (executor, attempt)).is_some() {
            driver.lost = driver.lost.saturating_sub(1);
        } else if (driver.place, driver.attempt) != (Some(executor), attempt) {
            return;
        }
        let tried = Outage::note(&mut driver.outage, now, limit);
        let Some(until) = tried.ok().filter(|_| attempt < last) else {
            let away = driver.outage.map(|outage| now.since(outage.since)).unwrap_or_default();
            let reason = format!(
                "attempt {attempt} at the driver, on {}: the file system, which holds the program, was away for {} s, and no \
                 driver waits for it longer than {} s: {message}",
                self.executors.node(executor),
                away.as_secs(),
                limit.as_secs()
            );
            return self.fail_job(now, job, &reason);
        };
        // One that was given up has been followed by another already.
        if driver.attempt == attempt
            && self.displace_driver(job).is_some()
            && let Some(found) = self.jobs.get_mut(&job)
        {
            found.driver.rests_until = Some(until);
            self.resting_drivers.insert((until, job));
        }
    }

    /// Drivers that have rested long enough wait for a place again.
    pub(super) fn wake_drivers(&mut self, now: TimeMs) {
        while let Some((until, job)) = self.resting_drivers.first().copied().filter(|(until, _)| *until <= now) {
            self.resting_drivers.remove(&(until, job));
            if let Some(found) = self.jobs.get_mut(&job) {
                found.driver.rests_until = None;
                self.driverless.insert(job);
            }
        }
    }
}

/// How long a driver is not placed again of which so many attempts were lost before they began: the second is made at once,
/// elsewhere.
fn rest_after(lost: u32) -> Duration {
    match lost {
        0 | 1 => Duration::ZERO,
        more => Duration::from_secs(4_u64.saturating_pow(more - 2)).min(LONGEST_REST),
    }
}

impl Driver {
    /// An attempt is lost. Those before it are forgotten when they are so long ago and the job has come on since: a program
    /// that ends its own driver again and again at the same place does not live on by taking its time.
    fn note_lost(&mut self, at: TimeMs, executor: ExecutorId, forget: Duration) {
        let is_long_ago = self.lost_at.is_some_and(|before| at.since(before) >= forget);
        if is_long_ago && self.has_come_on {
            self.lost = 0;
            self.lost_on.clear();
        }
        self.lost += 1;
        self.lost_on.insert(executor);
        (self.lost_at, self.has_come_on) = (Some(at), false);
    }
}

impl Job {
    /// Under which name it publishes. It comes of what only the submitter and the scheduler know, and the journal keeps: a
    /// driver that begins after a restart learns from the namenode what an earlier one has published.
    pub(super) fn publisher(&self) -> ClientId {
        let mut hasher = blake3::Hasher::new_derive_key("situ 2026 who publishes the output of a job");
        hasher.update(&self.operation.client.0.to_le_bytes());
        hasher.update(&self.operation.sequence.to_le_bytes());
        hasher.update(&self.launch.job.0.to_le_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        ClientId(u128::from_le_bytes(id))
    }

    pub(super) fn add_driver_logs(&mut self, attempt: u32, node: NodeName) {
        self.logs.insert((LogName::DriverOut(attempt), node.clone()));
        self.logs.insert((LogName::DriverErr(attempt), node));
    }

    /// The records that bring it back.
    pub(super) fn records(&self) -> Vec<JobRecord> {
        let launch = &self.launch;
        let mut records = vec![JobRecord::Submitted(Submission {
            job: launch.job,
            operation: self.operation,
            user: launch.user.clone(),
            program: launch.program.clone(),
            arguments: launch.arguments.clone(),
            submitted: self.submitted,
            options: launch.options,
            driver: self.driver.kind(),
        })];
        for (log, node) in &self.logs {
            if let LogName::DriverOut(attempt) = log {
                records.push(JobRecord::Driver { job: launch.job, attempt: *attempt, node: node.clone() });
            }
        }
        let (job, user) = (launch.job, &launch.user);
        let aside = |output: &DfsPath| JobRecord::WritesAside { job, user: user.clone(), output: output.clone() };
        records.extend(self.outputs.keys().map(aside));
        records.extend(self.action_records());
        records.extend(self.scope_records());
        records.extend(self.given_records());
        records.extend(self.publication_records());
        records.extend(self.held_records());
        records
    }
}
