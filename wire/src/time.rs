//! The notions of time that messages and cores carry: one that only ever goes on, and the time of day.
//!
//! All that is decided by time (deadlines, leases, who is alive, whether a token has expired) is decided by [`TimeMs`].
//! [`WallTime`] is for people to read. They are types of their own, so that one is never taken for the other.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds by a process's own clock, which goes on whatever the machine's wall clock does. It says nothing to another
/// process, nor to the next run of the same, but beside another time of the same run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TimeMs(pub u64);

impl TimeMs {
    /// Later than every other time.
    pub const NEVER: Self = Self(u64::MAX);

    /// How long after `earlier` this is; nothing if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for TimeMs {
    type Output = Self;

    fn add(self, rest: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(rest.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Milliseconds since the Unix epoch, as a machine's wall clock tells them. It may be wrong, and be set back or ahead at
/// any time: nothing is decided by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// How long after `earlier` this is; nothing if it is not after it.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// By how many milliseconds this is after `other`; negative if it is before it.
    #[must_use]
    pub fn ahead_of_ms(self, other: Self) -> i64 {
        let ms = |one: u64, other: u64| i64::try_from(one.saturating_sub(other)).unwrap_or(i64::MAX);
        ms(self.0, other.0) - ms(other.0, self.0)
    }
}

/// What a core knows of the time of day: how far it is ahead of the core's own time. Whoever drives a core tells it anew
/// with each event, since a wall clock may be set at any time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WallClock {
    ahead_ms: i64,
}

impl WallClock {
    /// The wall clock says `wall` at `now`.
    #[must_use]
    pub fn read(now: TimeMs, wall: WallTime) -> Self {
        Self { ahead_ms: wall.ahead_of_ms(WallTime(now.0)) }
    }

    /// What it says at `time`, as far as is known.
    #[must_use]
    pub fn at(self, time: TimeMs) -> WallTime {
        WallTime(time.0.saturating_add_signed(self.ahead_ms))
    }

    /// By how many milliseconds it was set ahead since it was read as `before`; negative if it was set back.
    #[must_use]
    pub fn set_since_ms(self, before: Self) -> i64 {
        self.ahead_ms.saturating_sub(before.ahead_ms)
    }
}

/// Wall clocks that are apart by no more than this agree: a message is on its way for a while, too.
pub const CLOCKS_AGREE_MS: u64 = 5_000;

impl fmt::Debug for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms since 1970", self.0)
    }
}

impl fmt::Debug for TimeMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_tells_the_time_of_day_and_by_how_much_it_was_set() {
        let before = WallClock::read(TimeMs(100), WallTime(5_000));
        assert_eq!(before.at(TimeMs(160)), WallTime(5_060));
        let after = WallClock::read(TimeMs(160), WallTime(1_060));
        assert_eq!((after.at(TimeMs(160)), after.set_since_ms(before)), (WallTime(1_060), -4_000));
        assert_eq!(WallClock::read(TimeMs(160), WallTime(0)).at(TimeMs(100)), WallTime(0), "not before the epoch");
        assert_eq!(WallTime(0).ahead_of_ms(WallTime(u64::MAX)), -i64::MAX);
    }
}
