//! Safe mode: after a start the namenode waits for reports before it changes or deletes anything. It waits for as long as it
//! takes, or for an operator's word: blocks that nobody reports may be on a rack that has no power yet, and replicas that
//! this namespace never gave out say that it is not the one that it should be.

use situ_wire::time::TimeMs;

/// Whether the namenode waits for reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SafeMode {
    /// It replays its journal.
    Starting,
    /// It waits for blocks.
    Waiting,
    /// Enough blocks are there; it waits a little longer for more.
    Extended {
        /// Until when.
        until: TimeMs,
    },
    /// An operator has said so, and must say when it ends.
    Ordered,
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
    /// Replicas of what this namespace never gave out.
    pub(super) unknown: u64,
}

impl Progress {
    fn has_threshold(self) -> bool {
        self.found.saturating_mul(1000) >= self.total.saturating_mul(self.threshold_permille)
    }

    fn is_enough(self) -> bool {
        self.has_threshold() && self.unknown == 0
    }
}

impl SafeMode {
    pub(super) fn is_on(self) -> bool {
        self != Self::Off
    }

    /// Looks at what has been reported; the state that follows.
    pub(super) fn next(self, now: TimeMs, progress: Progress, extension_ms: u64) -> Self {
        match self {
            Self::Starting | Self::Ordered | Self::Off => self,
            Self::Waiting if !progress.is_enough() => self,
            Self::Waiting if progress.total == 0 => Self::Off,
            Self::Waiting => {
                Self::Extended { until: TimeMs(now.0.saturating_add(extension_ms)) }.next(now, progress, extension_ms)
            }
            Self::Extended { .. } if !progress.is_enough() => Self::Waiting,
            Self::Extended { until } if until <= now => Self::Off,
            Self::Extended { .. } => self,
        }
    }

    /// When it may change by time alone.
    pub(super) fn deadline(self) -> TimeMs {
        match self {
            Self::Extended { until } => until,
            Self::Starting | Self::Waiting | Self::Ordered | Self::Off => TimeMs::NEVER,
        }
    }
}

/// Why the namenode is in safe mode, and how that ends, for people.
pub(super) fn reason(mode: SafeMode, progress: Progress) -> Option<String> {
    let Progress { total, found, threshold_permille, unknown } = progress;
    match mode {
        SafeMode::Off => None,
        SafeMode::Starting => Some("the namenode replays its journal".to_owned()),
        SafeMode::Ordered => Some("an operator has said so; `situ admin safemode leave` ends it".to_owned()),
        SafeMode::Waiting if progress.has_threshold() => Some(format!(
            "datanodes hold {unknown} replicas that this namespace never gave out: was the namenode started with an older \
             copy of its directory, or with another one? Then stop it and give it the right one; if there is none, \
             `situ admin safemode leave` goes on with what is known (such replicas are kept)"
        )),
        SafeMode::Waiting => Some(format!(
            "{found} of {total} blocks are reported, {threshold_permille} of a thousand are needed; it goes on by itself when \
             the datanodes have come (`situ admin report` shows them); `situ admin safemode leave` goes on without them"
        )),
        SafeMode::Extended { .. } => Some(format!("{found} of {total} blocks are reported; it ends in a moment")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Progress = Progress { total: 1000, found: 998, threshold_permille: 999, unknown: 0 };
    const ENOUGH: Progress = Progress { found: 999, ..SOME };

    #[test]
    fn it_ends_when_enough_blocks_stay_reported_for_a_while() {
        let waiting = SafeMode::Waiting;
        assert_eq!(waiting.next(TimeMs(5), SOME, 100), waiting);
        assert_eq!(waiting.deadline(), TimeMs::NEVER, "and not because nobody says anything");
        let extended = waiting.next(TimeMs(5), ENOUGH, 100);
        assert_eq!(extended, SafeMode::Extended { until: TimeMs(105) });
        assert_eq!(extended.next(TimeMs(104), ENOUGH, 100), extended);
        assert_eq!(extended.next(TimeMs(105), SOME, 100), waiting);
        assert_eq!(extended.next(TimeMs(105), ENOUGH, 100), SafeMode::Off);
        assert_eq!(waiting.next(TimeMs(5), ENOUGH, 0), SafeMode::Off);
        assert_eq!(waiting.next(TimeMs(5), Progress { total: 0, found: 0, ..SOME }, 100), SafeMode::Off);
    }

    #[test]
    fn what_was_never_given_out_and_an_operator_hold_it() {
        let strange = Progress { unknown: 1, ..ENOUGH };
        assert_eq!(SafeMode::Waiting.next(TimeMs(5), strange, 0), SafeMode::Waiting);
        assert_eq!(SafeMode::Extended { until: TimeMs(7) }.next(TimeMs(7), strange, 0), SafeMode::Waiting);
        assert_eq!(SafeMode::Off.next(TimeMs(5), strange, 0), SafeMode::Off);
        assert_eq!(SafeMode::Ordered.next(TimeMs(5), ENOUGH, 0), SafeMode::Ordered);
        assert!(reason(SafeMode::Waiting, strange).is_some_and(|reason| reason.contains("never gave out")));
        assert!(reason(SafeMode::Waiting, SOME).is_some_and(|reason| reason.contains("998 of 1000 blocks")));
    }
}
