//! Events in the order of their time, and those of one time in the order in which they were scheduled.

use std::collections::BTreeMap;
use std::time::Duration;

use situ_wire::time::TimeMs;

/// What happens when.
pub(super) struct Schedule<T> {
    now: TimeMs,
    count: u64,
    events: BTreeMap<(TimeMs, u64), T>,
}

impl<T> Schedule<T> {
    pub(super) fn new(now: TimeMs) -> Self {
        Self { now, count: 0, events: BTreeMap::new() }
    }

    pub(super) fn now(&self) -> TimeMs {
        self.now
    }

    /// Something happens at `time`, or now if that is over.
    pub(super) fn at(&mut self, time: TimeMs, what: T) {
        self.count += 1;
        self.events.insert((time.max(self.now), self.count), what);
    }

    /// Something happens in `after_ms`.
    pub(super) fn after(&mut self, after_ms: u64, what: T) {
        self.at(self.now + Duration::from_millis(after_ms), what);
    }

    /// The next event; its time is now.
    pub(super) fn next(&mut self) -> Option<T> {
        let ((time, _), what) = self.events.pop_first()?;
        self.now = time;
        Some(what)
    }
}
