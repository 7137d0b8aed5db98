//! How fast the journal takes records on the disk of this directory (or the one named first), and reads them back.
//!
//! `cargo bench -p situ-runtime --bench journal -- [directory]`
#![allow(clippy::print_stdout)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use situ_runtime::disk::Disk as _;
use situ_runtime::disk::fs::FsDisk;
use situ_runtime::journal::{Journal, JournalError, JournalOptions};

const RECORD_LEN_BYTES: usize = 150;
const ROUND: Duration = Duration::from_secs(3);

fn main() -> Result<(), JournalError> {
    let root = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = PathBuf::from(root.unwrap_or_else(|| ".".to_owned())).join("journal-bench");
    println!("{:>9} {:>12} {:>10} {:>10} {:>12}", "per sync", "records/s", "p50 us", "p99 us", "replay/s");
    for count in [1, 16, 128, 1024] {
        FsDisk.remove_directory(&directory)?;
        let (mut journal, _) = Journal::open(FsDisk, &directory, JournalOptions::new([7; 16]))?;
        let records = vec![Bytes::from(vec![42; RECORD_LEN_BYTES]); count];
        let mut took = Vec::new();
        let begin = Instant::now();
        while begin.elapsed() < ROUND {
            let one = Instant::now();
            journal.append(&records)?;
            took.push(one.elapsed());
        }
        let per_second =
            |begin: Instant| journal.last() * 1000 / u64::try_from(begin.elapsed().as_millis()).unwrap_or(1).max(1);
        let appended = per_second(begin);
        let begin = Instant::now();
        let mut read = 0;
        journal.replay(1, |_, record| {
            read += record.len();
            Ok::<_, JournalError>(())
        })?;
        let replayed = per_second(begin);
        took.sort_unstable();
        let at = |percent: usize| took[took.len() * percent / 100].as_micros();
        println!("{count:>9} {appended:>12} {:>10} {:>10} {replayed:>12}", at(50), at(99));
    }
    FsDisk.remove_directory(&directory)?;
    Ok(())
}
