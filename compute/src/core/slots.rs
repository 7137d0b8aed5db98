use std::collections::BTreeMap;

use situ_wire::ids::TaskAttemptId;

/// Attempts at tasks on an executor, each with how many slots it takes.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: BTreeMap<TaskAttemptId, u32>,
    taken: u32,
}

impl Slots {
    /// An attempt takes so many slots; if it has some already, it keeps those.
    pub(super) fn insert(&mut self, attempt: TaskAttemptId, slots: u32) {
        self.of.entry(attempt).or_insert_with(|| {
            self.taken += slots;
            slots
        });
    }

    /// An attempt takes none any more; whether it did.
    pub(super) fn remove(&mut self, attempt: &TaskAttemptId) -> bool {
        let slots = self.of.remove(attempt);
        self.taken -= slots.unwrap_or_default();
        slots.is_some()
    }

    /// Keeps some of them.
    pub(super) fn retain(&mut self, keeps: impl Fn(&TaskAttemptId) -> bool) {
        self.of.retain(|attempt, _| keeps(attempt));
        self.taken = self.of.values().sum();
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

    pub(super) fn iter(&self) -> impl Iterator<Item = &TaskAttemptId> {
        self.of.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    pub(super) fn check(&self) {
        assert_eq!(self.taken, self.of.values().sum(), "taken slots are counted");
        assert!(self.of.values().all(|slots| *slots > 0), "every attempt takes one");
    }
}
