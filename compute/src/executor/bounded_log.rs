//! What keeps the log of a process from filling a disk.
//!
//! The process appends to its log by itself, so that a line is in it as soon as it is written. When the log has grown past
//! its limit, its middle is taken out: its head and its end stay, and a line between them says how much is missing.
//!
//! ```text
//! head                | notice: N bytes are missing here | end, and what comes after it
//! limit - room        | always as long                   | cut to room / 2 when all is longer than limit
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// How much of a log its end takes, at most.
const ROOM_LEN_BYTES: u64 = 1 << 20;
/// What a notice begins with.
const NOTICE: &str = "\n[situ: ";
/// How many digits the number in it has.
const DIGITS: usize = 20;

/// A log that somebody else appends to.
#[derive(Debug)]
pub(super) struct BoundedLog {
    file: File,
    limit_len_bytes: u64,
}

impl BoundedLog {
    /// The log at `path`, which is made if it is not there. Nobody else bounds it at the same time.
    pub(super) fn open(path: &Path, limit_len_bytes: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, limit_len_bytes })
    }

    /// Takes the middle out of it if it has become too long. What is written to it meanwhile may be lost too, uncounted.
    pub(super) fn bound(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len <= self.limit_len_bytes {
            return Ok(());
        }
        let room = ROOM_LEN_BYTES.min(self.limit_len_bytes / 2);
        let head = self.limit_len_bytes - room;
        let missing_before = self.missing(head)?;
        let from = head + missing_before.map_or(0, |_| notice(0, self.limit_len_bytes).len() as u64);
        let kept_from = from.max(len.saturating_sub(room / 2));
        let mut end = vec![0; usize::try_from(len - kept_from).unwrap_or(0)];
        self.file.read_exact_at(&mut end, kept_from)?;
        // Who writes the log may have written the number.
        let missing = missing_before.unwrap_or(0).saturating_add(kept_from - from);
        let text = [notice(missing, self.limit_len_bytes).as_bytes(), &end].concat();
        // Shorter first: whoever appends at this moment does so behind the head, and is cut off or overwritten.
        self.file.set_len(head)?;
        self.file.write_all_at(&text, head)
    }

    /// How much the notice at `head` says is missing; none if there is no notice.
    fn missing(&self, head: u64) -> io::Result<Option<u64>> {
        let mut text = [0; NOTICE.len() + DIGITS];
        self.file.read_exact_at(&mut text, head)?;
        let number = text.strip_prefix(NOTICE.as_bytes()).and_then(|digits| std::str::from_utf8(digits).ok());
        Ok(number.and_then(|digits| digits.parse().ok()))
    }
}

/// The line that stands where something is missing. All are equally long for the same limit.
fn notice(missing: u64, limit: u64) -> String {
    format!(
        "{NOTICE}{missing:0DIGITS$} bytes are missing here: a log may take {limit} bytes (log_len_bytes of the executor)]\n"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_keeps_its_head_and_its_end_and_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let log = BoundedLog::open(&path, 4_000).unwrap();
        let mut writer = File::options().append(true).open(&path).unwrap();
        let mut written = Vec::new();
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            writer.write_all(line.as_bytes()).unwrap();
            written.extend_from_slice(line.as_bytes());
            log.bound().unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= 4_000);
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let (head, rest) = text.split_at(2_000);
        assert_eq!(head.as_bytes(), &written[..2_000]);
        let (told, end) = rest.strip_prefix(NOTICE).unwrap().split_once("]\n").unwrap();
        assert!(end.len() >= 1_000 && written.ends_with(end.as_bytes()), "{end}");
        let (missing, what) = told.split_once(' ').unwrap();
        assert_eq!(missing.parse::<usize>().unwrap(), written.len() - head.len() - end.len());
        assert!(what.starts_with("bytes are missing here: a log may take 4000 bytes"), "{what}");
    }

    #[test]
    fn a_notice_that_the_writer_has_forged_does_no_harm() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let forged = ["x".repeat(2_000), notice(u64::MAX, 4_000), "y".repeat(9_000)].concat();
        std::fs::write(&path, forged).unwrap();
        BoundedLog::open(&path, 4_000).unwrap().bound().unwrap();
        let kept = ["x".repeat(2_000), notice(u64::MAX, 4_000), "y".repeat(1_000)].concat();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }

    #[test]
    fn a_log_within_its_limit_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "short\n").unwrap();
        BoundedLog::open(&path, 6).unwrap().bound().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short\n");
    }
}
