use std::collections::BTreeMap;

use situ_wire::ids::{JobId, TaskAttemptId};

/// Attempts at tasks on an executor, each with how many slots it takes.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: BTreeMap<TaskAttemptId, u32>,
    taken: u32,
    /// How many there are of each job.
    jobs: BTreeMap<JobId, u32>,
}

impl Slots {
    /// An attempt takes so many slots; if it has some already, it keeps those.
    pub(super) fn insert(&mut self, attempt: TaskAttemptId, slots: u32) {
        self.of.entry(attempt).or_insert_with(|| {
            self.taken += slots;
            *self.jobs.entry(attempt.job).or_default() += 1;
            slots
        });
    }

    /// An attempt takes none any more; whether it did.
    pub(super) fn remove(&mut self, attempt: &TaskAttemptId) -> bool {
        let Some(slots) = self.of.remove(attempt) else { return false };
        self.taken -= slots;
        if let Some(count) = self.jobs.get_mut(&attempt.job) {
            *count -= 1;
            if *count == 0 {
                self.jobs.remove(&attempt.job);
            }
        }
        true
    }

    /// Those of a job take none any more.
    pub(super) fn remove_job(&mut self, job: JobId) {
        if self.jobs.remove(&job).is_some() {
            self.of.retain(|attempt, _| attempt.job != job);
            self.taken = self.of.values().sum();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many slots all of them take.
    pub(super) fn taken(&self) -> u32 {
        self.taken
    }

    pub(super) fn contains(&self, attempt: &TaskAttemptId) -> bool {
        self.of.contains_key(attempt)
    }

    /// How many there are of a job.
    pub(super) fn of_job(&self, job: JobId) -> u32 {
        self.jobs.get(&job).copied().unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TaskAttemptId> {
        self.of.keys()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn check(&self) {
        assert_eq!(self.taken, self.of.values().sum(), "taken slots are counted");
        assert!(self.of.values().all(|slots| *slots > 0), "every attempt takes one");
        let mut jobs = BTreeMap::new();
        for attempt in self.of.keys() {
            *jobs.entry(attempt.job).or_default() += 1;
        }
        assert_eq!(self.jobs, jobs, "those of each job are counted");
    }
}
