use std::collections::BTreeMap;
use std::time::Duration;

use situ_wire::ids::JobId;
use situ_wire::time::TimeMs;

/// For which jobs an executor keeps the memory of a worker: those that it has workers of, or will have.
///
/// ```text
///          a task of it begins, where memory is free
///   none ---------------------------------------------> kept <---+
///    ^                                                  |  |     | the other one's last task has ended
///    |  nothing of it runs, and it has had its time:    |  |     |
///    +-- another job begins tasks instead --------------+  +--> leaving, to another job: begins nothing more
///    +-- its job has ended
/// ```
///
/// The time that a worker has is a slice, or, if longer, [`USES`] times as long as it took to make the partitions that it keeps
/// in memory.
#[derive(Debug)]
pub(super) struct Workers {
    /// How many fit.
    max: usize,
    of: BTreeMap<JobId, Tenure>,
    leaving: Option<Leaving>,
}

/// For how many times as long as it took to make them a job may use partitions that its worker keeps, before it makes way: or
/// it would make them again for each use.
const USES: u32 = 3;

/// The time of a job with the memory of a worker.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    began: TimeMs,
    /// From when its slice of time counts.
    since: TimeMs,
    /// Whether it has had nothing to do in between: what it keeps is made.
    has_rested: bool,
}

/// A job that begins nothing more on an executor, so that another one gets its worker's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaving {
    pub(super) job: JobId,
    pub(super) to: JobId,
}

impl Workers {
    pub(super) fn new(max: u32) -> Self {
        Self { max: usize::try_from(max).unwrap_or(usize::MAX).max(1), of: BTreeMap::new(), leaving: None }
    }

    /// Whether a job may begin tasks.
    pub(super) fn takes(&self, job: JobId) -> bool {
        match self.of.contains_key(&job) {
            true => self.leaving.is_none_or(|leaving| leaving.job != job),
            false => self.has_memory(),
        }
    }

    /// Whether memory is kept for the worker of a job.
    pub(super) fn keeps(&self, job: JobId) -> bool {
        self.of.contains_key(&job)
    }

    /// Whether there is memory for one more worker.
    pub(super) fn has_memory(&self) -> bool {
        self.of.len() < self.max
    }

    pub(super) fn leaving(&self) -> Option<Leaving> {
        self.leaving
    }

    /// Those for which memory is kept, and since when their slice of time counts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, TimeMs)> {
        self.of.iter().map(|(job, tenure)| (*job, tenure.since))
    }

    /// Which job of those that are `idle` makes way for another one first, and since when its worker has had memory.
    fn first_idle(&self, idle: impl Fn(JobId) -> bool) -> Option<(TimeMs, JobId)> {
        self.iter().filter(|(job, _)| idle(*job)).map(|(job, since)| (since, job)).min()
    }

    /// Whether a job may begin tasks if one that is `idle` and has had its time makes way: none but those that have memory
    /// since `before`, or longer.
    pub(super) fn makes_way(&self, job: JobId, before: TimeMs, idle: impl Fn(JobId) -> bool) -> bool {
        !self.has_memory()
            && !self.of.contains_key(&job)
            && self.first_idle(idle).is_some_and(|(since, _)| since <= before)
    }

    /// If all memory is taken: when one that is `idle` has had its time.
    pub(super) fn next_idle(&self, time: Duration, idle: impl Fn(JobId) -> bool) -> Option<TimeMs> {
        let (since, _) = self.first_idle(idle).filter(|_| !self.has_memory())?;
        Some(since + time)
    }

    /// A job begins: it gets memory, if it has none, that of one that is `idle` if none is free. Whether it is new.
    pub(super) fn begin(&mut self, job: JobId, now: TimeMs, idle: impl Fn(JobId) -> bool) -> bool {
        if let Some(tenure) = self.of.get_mut(&job) {
            tenure.has_rested |= idle(job);
            return false;
        }
        if !self.has_memory()
            && let Some((_, idle)) = self.first_idle(idle)
        {
            self.of.remove(&idle);
        }
        self.give(job, now);
        true
    }

    fn give(&mut self, job: JobId, now: TimeMs) {
        self.of.entry(job).or_insert(Tenure { began: now, since: now, has_rested: false });
    }

    /// The worker of a job keeps a partition from now on. If it is of what the job began with, its slice, which is `time`
    /// long, counts from so late that it can use what it has made.
    pub(super) fn keep(&mut self, job: JobId, now: TimeMs, time: Duration) {
        let Some(tenure) = self.of.get_mut(&job).filter(|tenure| !tenure.has_rested) else { return };
        let until = now + now.since(tenure.began) * USES;
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        tenure.since = tenure.since.max(TimeMs(until.0.saturating_sub(time_ms)));
    }

    /// A job shall begin nothing more, for the good of another.
    pub(super) fn leave(&mut self, leaving: Leaving) {
        self.leaving = Some(leaving);
    }

    /// Nobody leaves for a job any more; who did.
    pub(super) fn stay(&mut self, to: JobId) -> Option<JobId> {
        self.leaving.take_if(|leaving| leaving.to == to).map(|leaving| leaving.job)
    }

    /// If the one that leaves is `idle`, the other one has its memory from now on.
    pub(super) fn settle(&mut self, now: TimeMs, idle: impl Fn(JobId) -> bool) {
        if let Some(Leaving { job, to }) = self.leaving.take_if(|leaving| idle(leaving.job)) {
            self.of.remove(&job);
            self.give(to, now);
        }
    }

    /// A job needs nothing any more.
    pub(super) fn end(&mut self, job: JobId) {
        self.of.remove(&job);
    }
}
