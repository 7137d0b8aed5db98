//! What a namenode counts while it runs.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that only rises. Shared by reference.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one namenode since it started.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Calls that reached the namesystem.
    pub calls: Counter,
    /// Calls turned away because too many were waiting, or at shutdown.
    pub refused: Counter,
    /// Calls dropped because their caller had stopped waiting.
    pub expired: Counter,
    /// Times that the owner woke up for calls; `calls / wakes` is how many it takes at a time.
    pub wakes: Counter,
    /// Edits handed to the edit log.
    pub edits: Counter,
    /// Times that the edit log reported progress; `edits / syncs` is how many share a sync.
    pub syncs: Counter,
    /// Images brought forward to the end.
    pub checkpoints: Counter,
    /// Records written to images.
    pub image_records: Counter,
    /// Images that could not be brought forward, and are made anew.
    pub image_failures: Counter,
}
