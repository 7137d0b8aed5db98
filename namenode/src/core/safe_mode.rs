//! Safe mode: after a start the namenode waits for reports before it changes or deletes anything.

use situ_wire::time::TimeMs;

/// How long the datanodes must have been quiet, with all that registered fully reported, until the namenode stops
/// waiting for blocks that nobody seems to have.
const PATIENCE_MS: u64 = 30_000;

/// Whether the namenode waits for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SafeMode {
    /// It replays its journal.
    Starting,
    /// It waits for blocks.
    Waiting {
        /// When a datanode last registered or reported.
        heard: TimeMs,
    },
    /// Enough blocks are there; it waits a little longer for more.
    Extended {
        /// Until when.
        until: TimeMs,
    },
    /// It serves.
    Off,
}

/// What the reports so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Committed blocks.
    pub(super) total: u64,
    /// Those of them with a replica.
    pub(super) found: u64,
    /// How many of a thousand there must be.
    pub(super) threshold_permille: u64,
    /// Whether there are datanodes that live and all of them have reported in full.
    pub(super) all_reported: bool,
}

impl Progress {
    fn is_enough(self) -> bool {
        self.found.saturating_mul(1000) >= self.total.saturating_mul(self.threshold_permille)
    }
}

impl SafeMode {
    pub(super) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Looks at what has been reported; the state that follows.
    pub(super) fn next(self, now: TimeMs, progress: Progress, extension_ms: u64) -> Self {
        match self {
            Self::Starting | Self::Off => self,
            Self::Waiting { .. } if progress.total == 0 => Self::Off,
            Self::Waiting { .. } if progress.is_enough() => {
                Self::Extended { until: TimeMs(now.0.saturating_add(extension_ms)) }.next(now, progress, extension_ms)
            }
            Self::Waiting { heard } => {
                let quiet = now.0 >= heard.0.saturating_add(PATIENCE_MS);
                match (quiet, progress.all_reported) {
                    (false, _) => self,
                    (true, true) => Self::Off,
                    (true, false) => Self::Waiting { heard: now },
                }
            }
            Self::Extended { .. } if !progress.is_enough() => Self::Waiting { heard: now },
            Self::Extended { until } if until <= now => Self::Off,
            Self::Extended { .. } => self,
        }
    }

    /// A datanode registered or reported.
    pub(super) fn hear(&mut self, now: TimeMs) {
        if let Self::Waiting { heard } = self {
            *heard = now;
        }
    }

    /// When it may change by time alone.
    pub(super) fn deadline(self) -> TimeMs {
        match self {
            Self::Starting | Self::Off => TimeMs::NEVER,
            Self::Waiting { heard } => TimeMs(heard.0.saturating_add(PATIENCE_MS)),
            Self::Extended { until } => until,
        }
    }
}

/// Why the namenode is in safe mode, for people.
pub(super) fn reason(mode: SafeMode, progress: Progress) -> Option<String> {
    match mode {
        SafeMode::Off => None,
        SafeMode::Starting => Some("the namenode replays its journal".to_owned()),
        SafeMode::Waiting { .. } => Some(format!(
            "{} of {} blocks are reported; {} of a thousand are needed",
            progress.found, progress.total, progress.threshold_permille
        )),
        SafeMode::Extended { .. } => {
            Some(format!("{} of {} blocks are reported; it ends in a moment", progress.found, progress.total))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Progress = Progress { total: 10, found: 9, threshold_permille: 999, all_reported: false };

    #[test]
    fn it_ends_when_enough_blocks_stay_reported_for_a_while() {
        let waiting = SafeMode::Waiting { heard: TimeMs(0) };
        assert_eq!(waiting.next(TimeMs(5), SOME, 100), waiting);
        let enough = Progress { found: 10, ..SOME };
        let extended = waiting.next(TimeMs(5), enough, 100);
        assert_eq!(extended, SafeMode::Extended { until: TimeMs(105) });
        assert_eq!(extended.next(TimeMs(104), enough, 100), extended);
        assert_eq!(extended.next(TimeMs(105), SOME, 100), SafeMode::Waiting { heard: TimeMs(105) });
        assert_eq!(extended.next(TimeMs(105), enough, 100), SafeMode::Off);
        assert_eq!(waiting.next(TimeMs(5), enough, 0), SafeMode::Off);
    }

    #[test]
    fn it_does_not_wait_for_ever_for_what_nobody_has() {
        let waiting = SafeMode::Waiting { heard: TimeMs(0) };
        let all = Progress { all_reported: true, ..SOME };
        assert_eq!(waiting.next(TimeMs(PATIENCE_MS - 1), all, 100), waiting);
        let later = SafeMode::Waiting { heard: TimeMs(PATIENCE_MS) };
        assert_eq!(waiting.next(TimeMs(PATIENCE_MS), SOME, 100), later);
        assert_eq!(waiting.next(TimeMs(PATIENCE_MS), all, 100), SafeMode::Off);
    }
}
