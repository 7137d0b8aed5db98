//! Lengths of time, as people write them.

use std::time::Duration;

/// The units, the longest first, in ms.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `90s`, `10m`, `2h`.
///
/// # Errors
/// When it is none, or no time at all.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
    number
        .parse::<u64>()
        .ok()
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a length of time; write one such as 500ms, 90s, 10m, 2h or 1d"))
}

/// Writes it as [`parse`] reads it, in the longest unit that makes a whole number of it.
pub(crate) fn text(ms: u64) -> String {
    let whole = |(_, unit): &&(&str, u64)| ms >= *unit && ms.is_multiple_of(*unit);
    UNITS.iter().find(whole).map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", ms / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_with_units() {
        for (written, ms) in [("500ms", 500), ("90s", 90_000), ("10m", 600_000), ("2h", 7_200_000), ("1d", 86_400_000)]
        {
            assert_eq!(parse(written), Ok(Duration::from_millis(ms)));
            assert_eq!(text(ms), written);
        }
        assert_eq!(text(60_500), "60500ms");
        for wrong in ["", "10", "m", "0s", "10 m", "1.5h", "-1s", "10x", "99999999999999999999s", "999999999999999d"] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains("90s"), "{error}");
        }
    }
}
