//! How far a datanode's wall clock is from the namenode's.

use situ_wire::time::CLOCKS_AGREE_MS;

/// The difference of one datanode's clock, and what the operator has heard of it.
///
/// A message that was held up makes the clock look as if it were behind: so a difference is believed as far as two messages
/// in a row show it.
#[derive(Debug, Default)]
pub(crate) struct ClockDifference {
    /// What the last message showed.
    last_ms: Option<i64>,
    /// What is believed.
    ahead_ms: i64,
    /// What the operator has heard; 0 while the clocks agree.
    told_ms: i64,
}

impl ClockDifference {
    /// Takes by how much a message shows the datanode's clock to be ahead. Gives what the operator is to hear, once for
    /// each change: by how much it is ahead, or 0 if the clocks agree again.
    pub(crate) fn hear(&mut self, shown_ms: i64) -> Option<i64> {
        let last_ms = self.last_ms.replace(shown_ms)?;
        self.ahead_ms = match (last_ms, shown_ms) {
            (0.., 0..) => last_ms.min(shown_ms),
            (..0, ..0) => last_ms.max(shown_ms),
            _ => 0,
        };
        if self.ahead_ms.abs_diff(self.told_ms) <= CLOCKS_AGREE_MS {
            return None;
        }
        self.told_ms = if self.ahead_ms.unsigned_abs() > CLOCKS_AGREE_MS { self.ahead_ms } else { 0 };
        Some(self.told_ms)
    }

    /// By how many milliseconds the datanode's clock is ahead; negative if it is behind.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.ahead_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_once_and_so_is_its_end() {
        let mut clock = ClockDifference::default();
        let told: Vec<_> = [0, -9_000, 3, 4, 60_000, 60_010, 60_020, 62_000, 90_000, 90_000, 7, 7, 7]
            .map(|shown_ms| clock.hear(shown_ms))
            .into_iter()
            .collect();
        let expected = [
            // One message that was held up is no difference.
            None,
            None,
            None,
            None,
            // The first says nothing, the second that it is so.
            None,
            Some(60_000),
            None,
            None,
            // It grew.
            None,
            Some(90_000),
            // It is over.
            Some(0),
            None,
            None,
        ];
        assert_eq!(told, expected);
        assert_eq!(clock.ahead_ms(), 7);
    }

    #[test]
    fn a_clock_that_is_behind_is_told_as_one_that_is_ahead() {
        let mut clock = ClockDifference::default();
        assert_eq!(
            [-6_000, -7_000, i64::MIN, i64::MAX].map(|shown_ms| clock.hear(shown_ms)),
            [None, Some(-6_000), None, Some(0)]
        );
    }
}
