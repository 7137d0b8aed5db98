//! What keeps the log of a process from filling a disk.
//!
//! When a log has grown past its limit, its middle is taken out: its head and its end stay, and a line between them says
//! how much is missing.
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

/// A log with one writer.
#[derive(Debug)]
pub(super) struct BoundedLog {
    file: File,
    len_bytes: u64,
    limit_len_bytes: u64,
}

impl BoundedLog {
    /// The log at `path`, which is made if it is not there and goes on where it ends if it is. Nobody else writes to it
    /// meanwhile.
    pub(super) fn open(path: &Path, limit_len_bytes: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let len_bytes = file.metadata()?.len();
        Ok(Self { file, len_bytes, limit_len_bytes })
    }

    /// Adds to its end. It is longer than its limit by these bytes for a moment.
    ///
    /// # Errors
    /// When the disk fails or is full; the log ends with as many of the bytes as could be written.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            match self.file.write_at(left, self.len_bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    left = &left[len..];
                    self.len_bytes += len as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.len_bytes <= self.limit_len_bytes { Ok(()) } else { self.cut() }
    }

    /// Takes the middle out of it.
    fn cut(&mut self) -> io::Result<()> {
        let room = ROOM_LEN_BYTES.min(self.limit_len_bytes / 2);
        let head = self.limit_len_bytes - room;
        let missing_before = self.missing(head)?;
        let from = head + missing_before.map_or(0, |_| notice(0, self.limit_len_bytes).len() as u64);
        let kept_from = from.max(self.len_bytes.saturating_sub(room / 2));
        let mut end = vec![0; usize::try_from(self.len_bytes - kept_from).unwrap_or(0)];
        self.file.read_exact_at(&mut end, kept_from)?;
        // Who writes the log may have written the number.
        let missing = missing_before.unwrap_or(0).saturating_add(kept_from - from);
        let text = [notice(missing, self.limit_len_bytes).as_bytes(), &end].concat();
        // Whoever reads it meanwhile, or finds it after a crash, sees some of the end twice and never less of it.
        self.file.write_all_at(&text, head)?;
        self.len_bytes = head + text.len() as u64;
        self.file.set_len(self.len_bytes)
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
    use super::*;

    #[test]
    fn a_log_keeps_its_head_and_its_end_and_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BoundedLog::open(&path, 4_000).unwrap();
        let mut written = Vec::new();
        for number in 0..10_000 {
            let line = format!("line {number}\n");
            if number % 1_000 == 0 {
                // Another process of the same job goes on with it.
                log = BoundedLog::open(&path, 4_000).unwrap();
            }
            log.append(line.as_bytes()).unwrap();
            written.extend_from_slice(line.as_bytes());
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
        BoundedLog::open(&path, 4_000).unwrap().append(forged.as_bytes()).unwrap();
        let kept = ["x".repeat(2_000), notice(u64::MAX, 4_000), "y".repeat(1_000)].concat();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }

    #[test]
    fn a_log_within_its_limit_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        BoundedLog::open(&path, 6).unwrap().append(b"short\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short\n");
    }
}
