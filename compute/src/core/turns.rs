use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use situ_wire::ids::JobId;
use situ_wire::time::TimeMs;

/// Which job's turn it is, and when time alone changes what may be started.
#[derive(Debug, Default)]
pub(super) struct Turns {
    jobs: BTreeMap<JobId, Turn>,
    open: BTreeSet<(usize, u64, JobId)>,
    relaxes: BTreeSet<(TimeMs, JobId)>,
    slow: BTreeSet<(TimeMs, JobId)>,
    late: BTreeSet<(TimeMs, JobId)>,
    /// Runs while there are free slots: what stages that hold back wait by.
    pub(super) clock: SlotClock,
}

/// How a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Turn {
    /// If it has tasks to start: how many of its attempts run, and the number of the task that was started last.
    pub(super) open: Option<(usize, u64)>,
    /// When a stage of it takes what is further away, by [`SlotClock`].
    pub(super) relaxes: Option<TimeMs>,
    /// When a task of it becomes slow.
    pub(super) slow: Option<TimeMs>,
    /// When an attempt of it has taken all the time that it may.
    pub(super) late: Option<TimeMs>,
}

impl Turns {
    /// A job stands differently now; without a turn it has none.
    pub(super) fn set(&mut self, job: JobId, turn: Option<Turn>) {
        let before = match turn {
            Some(turn) => self.jobs.insert(job, turn),
            None => self.jobs.remove(&job),
        };
        let (before, turn) = (before.unwrap_or_default(), turn.unwrap_or_default());
        if before.open != turn.open {
            before.open.map(|(running, served)| self.open.remove(&(running, served, job)));
            self.open.extend(turn.open.map(|(running, served)| (running, served, job)));
        }
        for (set, before, now) in [
            (&mut self.relaxes, before.relaxes, turn.relaxes),
            (&mut self.slow, before.slow, turn.slow),
            (&mut self.late, before.late, turn.late),
        ] {
            if before != now {
                before.map(|at| set.remove(&(at, job)));
                set.extend(now.map(|at| (at, job)));
            }
        }
    }

    pub(super) fn get(&self, job: JobId) -> Option<Turn> {
        self.jobs.get(&job).copied()
    }

    /// The job with tasks to start whose turn comes after `last`: the one of which the fewest attempts run, or that has
    /// waited longest since its last task was started.
    pub(super) fn next(&self, last: Option<(usize, u64, JobId)>) -> Option<(usize, u64, JobId)> {
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.open.range((after, Bound::Unbounded)).next().copied()
    }

    /// The jobs of which a stage takes what is further away from now on.
    pub(super) fn relaxed(&self, now: TimeMs) -> Vec<JobId> {
        let at = self.clock.read(now);
        self.relaxes.iter().take_while(|(from, _)| *from <= at).map(|(_, job)| *job).collect()
    }

    /// The jobs that have slow tasks.
    pub(super) fn slow(&self, now: TimeMs) -> Vec<JobId> {
        self.slow.iter().take_while(|(from, _)| *from <= now).map(|(_, job)| *job).collect()
    }

    /// The jobs of which an attempt has taken all the time that it may.
    pub(super) fn late(&self, now: TimeMs) -> Vec<JobId> {
        self.late.iter().take_while(|(from, _)| *from <= now).map(|(_, job)| *job).collect()
    }

    pub(super) fn next_late(&self) -> Option<TimeMs> {
        self.late.first().map(|(at, _)| *at)
    }

    pub(super) fn check(&self, jobs: &BTreeSet<JobId>) {
        assert!(self.jobs.keys().all(|job| jobs.contains(job)), "only unfinished jobs have turns");
        let count = |of: fn(&Turn) -> bool| self.jobs.values().filter(|turn| of(turn)).count();
        assert_eq!(self.open.len(), count(|turn| turn.open.is_some()), "no job has two turns");
        assert_eq!(self.relaxes.len(), count(|turn| turn.relaxes.is_some()), "nor any other time");
        assert_eq!(self.slow.len(), count(|turn| turn.slow.is_some()), "nor any other time");
        assert_eq!(self.late.len(), count(|turn| turn.late.is_some()), "nor any other time");
    }

    /// When time alone allows something to be started; none while there are no slots for it.
    pub(super) fn next_start(&self, now: TimeMs) -> Option<TimeMs> {
        self.clock.since?;
        let relaxes = self.relaxes.first().map(|(at, _)| now + at.since(self.clock.read(now)));
        // Those that are slow already had their chance.
        let later = (Bound::Excluded((now, JobId(u64::MAX))), Bound::Unbounded);
        let slow = self.slow.range(later).next().map(|(at, _)| *at);
        [relaxes, slow].into_iter().flatten().min()
    }
}

/// A clock that runs while executors have free slots.
#[derive(Debug, Default)]
pub(super) struct SlotClock {
    /// What it showed when it was stopped last.
    stopped: TimeMs,
    /// Since when it runs.
    since: Option<TimeMs>,
}

impl SlotClock {
    pub(super) fn read(&self, now: TimeMs) -> TimeMs {
        self.stopped + self.since.map(|since| now.since(since)).unwrap_or_default()
    }

    pub(super) fn run(&mut self, now: TimeMs, runs: bool) {
        if self.since.is_some() != runs {
            self.stopped = self.read(now);
            self.since = runs.then_some(now);
        }
    }
}
