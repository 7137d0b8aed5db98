use std::time::Duration;

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobState;
use situ_wire::time::TimeMs;

use super::policy::ms;
use super::scheduler::Scheduler;

/// Of the time for which a driver may be silent, it is given at least one part in so many after the scheduler itself stood
/// still: it is heard more often than that.
pub(super) const GRACE: u32 = 3;

impl Scheduler {
    /// A job was submitted whose driver is attached.
    pub(super) fn open_session(&mut self, now: TimeMs, job: JobId) {
        self.extend_session(job, now + ms(self.policy.session_ms));
    }

    /// The driver of a job was heard, which counts if it is attached: it runs, perhaps since an earlier life of the scheduler.
    pub(super) fn hear_session(&mut self, now: TimeMs, job: JobId) {
        let Some(found) = self.jobs.get_mut(&job).filter(|job| job.driver.session.is_some()) else { return };
        if found.state == JobState::Waiting {
            found.state = JobState::Running;
            self.changed.insert(job);
        }
        self.extend_session(job, now + ms(self.policy.session_ms));
    }

    fn extend_session(&mut self, job: JobId, until: TimeMs) {
        let Some(session) = self.jobs.get_mut(&job).and_then(|job| job.driver.session.as_mut()) else { return };
        self.sessions.remove(&(session.until, job));
        session.until = Some(until);
        self.sessions.insert((session.until, job));
    }

    /// Ends the jobs whose drivers are attached and not heard. Those of an earlier life of the scheduler are waited for
    /// from now on.
    pub(super) fn judge_sessions(&mut self, now: TimeMs) {
        let due = |(until, _): &(Option<TimeMs>, JobId)| until.is_none_or(|until| until <= now);
        while let Some((until, job)) = self.sessions.first().copied().filter(due) {
            if until.is_none() {
                self.extend_session(job, now + ms(self.policy.session_ms));
            } else {
                self.lose_session(now, job);
            }
        }
    }

    fn lose_session(&mut self, now: TimeMs, job: JobId) {
        let began = self.jobs.get(&job).is_some_and(|job| job.state != JobState::Waiting);
        let silent = f64::from(self.policy.session_ms) / 1e3;
        let why = if began {
            "it was killed, stood still or lost its way to the scheduler, and a job whose driver is attached ends with it"
        } else {
            "it was killed, or its main did not call situ_compute::run soon after its start"
        };
        self.fail_job(now, job, &format!("its client has not been heard for {silent} s: {why}"));
    }

    /// When the next one must be judged.
    pub(super) fn next_session_end(&self) -> Option<TimeMs> {
        self.sessions.first().map(|(until, _)| until.unwrap_or_default())
    }

    /// The scheduler stood still for `rest`: it has heard nobody meanwhile, and those whose time would be up now may be
    /// about to be heard.
    pub(super) fn excuse_sessions(&mut self, now: TimeMs, rest: Duration) {
        let soonest = now + ms(self.policy.session_ms) / GRACE;
        for (until, job) in self.sessions.clone() {
            if let Some(until) = until {
                self.extend_session(job, (until + rest).max(soonest));
            }
        }
    }
}
