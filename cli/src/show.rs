//! How things are shown: sizes, times, rates, progress.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use situ_wire::time::TimeMs;

use crate::error::CliResult;

/// A size as people read it: `1.5 GiB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A size as asked for: for people, or in bytes.
pub fn size(bytes: u64, human: bool) -> String {
    if human { human_size(bytes) } else { bytes.to_string() }
}

/// A rate in decimal megabytes a second.
pub fn rate(bytes: u64, took: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / 1e6 / took.as_secs_f64().max(1e-6))
}

/// A time of the local zone, to the minute, as `ls` shows it.
pub fn local_time(time: TimeMs) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(time.0).unwrap_or(i64::MAX))
        .map(|time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_else(|_| "?".to_owned())
}

/// Prints to standard output. A reader that has gone away (as in `| head`) ends the process quietly, as Unix tools do.
pub fn out(text: impl AsRef<[u8]>) -> CliResult {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

/// Prints one line to standard output.
pub fn line(text: impl AsRef<str>) -> CliResult {
    out(format!("{}\n", text.as_ref()))
}

/// Prints a value as one line of JSON.
pub fn json(value: &serde_json::Value) -> CliResult {
    line(value.to_string())
}

/// Says something to the person, beside the result.
pub fn note(text: impl AsRef<str>) {
    // If nobody can hear it, there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// A bar on a terminal, nothing in a pipe; counts bytes either way.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// For `total` bytes if they are known. Shown only on a terminal and only if `shown`.
    pub fn bytes(label: &str, total: Option<u64>, shown: bool) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(
                "{prefix:14} {bar:30} {bytes:>10} of {total_bytes:10} {bytes_per_sec:>12} {eta:>4} left",
            )),
            None => ProgressBar::no_length().with_style(style("{prefix:14} {spinner} {bytes:>10} {bytes_per_sec:>12}")),
        };
        Self::start(bar, label, shown)
    }

    /// For `total` things.
    pub fn count(label: &str, total: u64, shown: bool) -> Self {
        let bar = ProgressBar::new(total).with_style(style("{prefix:14} {bar:30} {pos:>5} of {len:5} {msg}"));
        Self::start(bar, label, shown)
    }

    fn start(bar: ProgressBar, label: &str, shown: bool) -> Self {
        bar.set_draw_target(if shown && std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr_with_hz(10)
        } else {
            ProgressDrawTarget::hidden()
        });
        bar.set_prefix(label.to_owned());
        Self { bar, started: Instant::now() }
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.bar.inc(more);
    }

    /// So much is done, of so much.
    pub fn set(&self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// A word beside the bar.
    pub fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// How long it has taken so far.
    pub fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_for_people() {
        assert_eq!(human_size(0), "0 B");
        assert_eq!(human_size(1023), "1023 B");
        assert_eq!(human_size(1536), "1.5 KiB");
        assert_eq!(human_size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(human_size(3 << 30), "3.0 GiB");
        assert_eq!(human_size(u64::MAX), "16.0 EiB");
    }
}
