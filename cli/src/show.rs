//! How things are shown: sizes, times, rates, progress.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use situ_wire::time::WallTime;

use crate::error::{CliError, CliResult};

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

/// A rate in decimal megabytes a second; in kilobytes where that would be next to nothing.
pub fn rate(bytes: u64, took: Duration) -> String {
    let rate = bytes as f64 / took.as_secs_f64().max(1e-6);
    match rate {
        ..1e5 => format!("{:.1} kB/s", rate / 1e3),
        ..1e7 => format!("{:.1} MB/s", rate / 1e6),
        _ => format!("{:.0} MB/s", rate / 1e6),
    }
}

/// So many of a thing, in the right number: `1 block`, `2 blocks`, `0 directories`.
pub fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {}", several(one)) }
}

/// A word in the plural.
fn several(one: &str) -> String {
    match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    }
}

/// A name that somebody else chose, so that it stays on its line and cannot move the cursor: control characters, and
/// those that turn the direction of writing, are shown as `ls -b` shows them.
pub fn escaped(name: &str) -> Cow<'_, str> {
    escape(name, |_| false)
}

/// As [`escaped`], where standard output is a terminal; elsewhere as it is.
pub fn escaped_on_terminal(name: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { escaped(name) } else { Cow::Borrowed(name) }
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let odd = |letter: char| {
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (letter.is_control() || turns) && !stays(letter)
    };
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match letter {
            _ if !odd(letter) => out.push(letter),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => {
                let mut bytes = [0; 4];
                out.extend(letter.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\{byte:03o}")));
            }
        }
    }
    Cow::Owned(out)
}

/// Rows in columns as wide as what stands in them; those for which `right` holds are flush on the right.
pub fn columns<const N: usize>(rows: &[[String; N]], right: [bool; N]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let cell = |(text, (width, right)): (&String, (usize, bool))| match right {
        true => format!("{text:>width$}"),
        false => format!("{text:width$}"),
    };
    rows.iter()
        .map(|row| {
            let cells: Vec<String> = row.iter().zip(widths.into_iter().zip(right)).map(cell).collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect()
}

/// A time of the local zone, to the minute, as `ls` shows it.
pub fn local_time(time: WallTime) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(time.0).unwrap_or(i64::MAX))
        .map(|time| time.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_else(|_| "?".to_owned())
}

/// Prints to standard output. A reader that has gone away (as in `| head`) changes neither what a command does nor how
/// it ends; where the output is all of it, [`reader_gone`] tells when to leave off.
pub fn out(text: impl AsRef<[u8]>) -> CliResult {
    match Output.write_all(text.as_ref()).and_then(|()| Output.flush()) {
        Err(error) if !reader_gone() => {
            Err(CliError::failed(format!("cannot write to standard output: {error}")).ending())
        }
        _ => Ok(()),
    }
}

/// Whether whoever read standard output has gone away, so that more of it is for nobody.
pub fn reader_gone() -> bool {
    READER_GONE.load(Ordering::Relaxed)
}

/// Of the process, as its standard output is.
static READER_GONE: AtomicBool = AtomicBool::new(false);

/// Standard output, that remembers when its reader has gone away.
pub struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::io::stdout().write(bytes).inspect_err(remember_broken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush().inspect_err(remember_broken)
    }
}

fn remember_broken(error: &std::io::Error) {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        READER_GONE.store(true, Ordering::Relaxed);
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

/// Says something to the person, beside the result. Takes the line of a bar that is shown; the bar comes back below.
pub fn note(text: impl AsRef<str>) {
    let mut stderr = std::io::stderr().lock();
    let clear = if BARS.load(Ordering::Relaxed) > 0 { "\r\x1b[K" } else { "" };
    // What a program or a name says must not move the cursor. If nobody can hear it, there is nobody to tell.
    let _ = writeln!(stderr, "{clear}{}", escape(text.as_ref(), |letter| matches!(letter, '\n' | '\t')));
}

/// How many bars are on the terminal. Of the process, as its standard error is.
static BARS: AtomicUsize = AtomicUsize::new(0);

/// A bar on a terminal, nothing in a pipe; counts bytes either way.
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    drawn: bool,
}

impl Progress {
    /// For `total` bytes if they are known. Shown only on a terminal and only if `shown`.
    pub fn bytes(label: &str, total: Option<u64>, shown: bool) -> Self {
        let bar = match total {
            Some(total) if is_narrow() => {
                ProgressBar::new(total).with_style(style("{prefix:14!} {bytes:>10} of {total_bytes}"))
            }
            Some(total) => ProgressBar::new(total).with_style(style(
                "{prefix:14!} {wide_bar} {bytes:>10} of {total_bytes:10} {decimal_bytes_per_sec:>11} {eta:>4} left",
            )),
            None => ProgressBar::no_length()
                .with_style(style("{prefix:14!} {spinner} {bytes:>10} {decimal_bytes_per_sec:>11}")),
        };
        Self::start(bar, label, shown)
    }

    /// For `total` things.
    pub fn count(label: &str, total: u64, shown: bool) -> Self {
        let template = if is_narrow() {
            "{prefix} {pos} of {len} {wide_msg}"
        } else {
            "{prefix} {bar:15} {pos:>5} of {len} {wide_msg}"
        };
        Self::start(ProgressBar::new(total).with_style(style(template)), label, shown)
    }

    fn start(bar: ProgressBar, label: &str, shown: bool) -> Self {
        let drawn = shown && std::io::stderr().is_terminal();
        bar.set_draw_target(ProgressDrawTarget::hidden());
        bar.set_prefix(escaped(label).into_owned());
        if drawn {
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        BARS.fetch_add(usize::from(drawn), Ordering::Relaxed);
        Self { bar, started: Instant::now(), drawn }
    }

    /// So much more is done.
    pub fn add(&self, more: u64) {
        self.bar.inc(more);
    }

    /// So much is done, of so much. Of nothing, nothing can be shown.
    pub fn set(&self, done: u64, total: u64) {
        if total == 0 {
            return;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
    }

    /// A word beside the bar, as much of it as there is room for.
    pub fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
    }

    /// Has something else printed meanwhile, above the bar.
    pub fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
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
        BARS.fetch_sub(usize::from(self.drawn), Ordering::Relaxed);
    }
}

/// Whether a bar with all that belongs to it would take more than one line of the terminal, which it would then fill.
fn is_narrow() -> bool {
    const WHOLE_COLUMNS: u16 = 72;
    rustix::termios::tcgetwinsize(std::io::stderr()).is_ok_and(|size| (1..WHOLE_COLUMNS).contains(&size.ws_col))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_all_else_is_several() {
        assert_eq!(count(1, "block"), "1 block");
        assert_eq!(count(0, "block"), "0 blocks");
        assert_eq!(count(2, "directory"), "2 directories");
    }

    #[test]
    fn no_name_moves_the_cursor() {
        assert_eq!(escaped("a b 🦀 ü"), "a b 🦀 ü");
        assert_eq!(escaped("a\nb\tc\x1b[31m\u{9b}d\u{202e}e"), r"a\nb\tc\033[31m\302\233d\342\200\256e");
        assert_eq!(escape("one\ntwo\x07", |letter| letter == '\n'), "one\ntwo\\007");
    }

    #[test]
    fn zones_are_known_by_their_names() {
        let there = std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists();
        assert!(!there || jiff::tz::TimeZone::get("Asia/Tokyo").is_ok());
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let rows = [["node-1", "7", "live"], ["a longer name", "12", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(columns(&rows, [false, true, false]), ["node-1          7  live", "a longer name  12"]);
    }

    #[test]
    fn rates_have_digits_that_say_something() {
        let second = Duration::from_secs(1);
        assert_eq!(rate(180, second), "0.2 kB/s");
        assert_eq!(rate(1_800, second), "1.8 kB/s");
        assert_eq!(rate(1_800_000, second), "1.8 MB/s");
        assert_eq!(rate(309_000_000, second), "309 MB/s");
    }

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
