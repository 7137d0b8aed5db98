use std::path::PathBuf;

use crate::disk::DiskError;

/// What a journal could not do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Records that were acknowledged are damaged or gone.
    #[error(
        "the log {} is damaged at byte {offset}, where record {sequence} should be: {reason}; nothing was changed, bring the file back from a copy",
        segment.display()
    )]
    Damaged {
        /// In which file.
        segment: PathBuf,
        /// Where in it.
        offset: u64,
        /// The first record that cannot be read.
        sequence: u64,
        /// What was found.
        reason: &'static str,
    },
    /// A segment is one of another log.
    #[error(
        "the log {} belongs to {}, not to {}: name the right directory",
        segment.display(), hex(found), hex(expected)
    )]
    Foreign {
        /// In which file.
        segment: PathBuf,
        /// The id of the log that it belongs to.
        found: [u8; 16],
        /// The id of this log.
        expected: [u8; 16],
    },
    /// A segment has a format that this program does not know.
    #[error(
        "the log {} has format version {found}; this program reads version {supported}: use the program that wrote it, or a later one",
        segment.display()
    )]
    UnknownVersion {
        /// In which file.
        segment: PathBuf,
        /// Its version.
        found: u32,
        /// The version that is known.
        supported: u32,
    },
    /// Records are asked for that were dropped.
    #[error("record {wanted} is no longer in the log {}, which begins with record {first}", directory.display())]
    Dropped {
        /// The log.
        directory: PathBuf,
        /// What was asked for.
        wanted: u64,
        /// What is the first that is there.
        first: u64,
    },
    /// A record or all records of an append are too long. Nothing was written.
    #[error("{what} of {found_bytes} bytes is too long for the log: at most {limit_bytes} are possible")]
    TooLong {
        /// Which of the two.
        what: &'static str,
        /// Its length.
        found_bytes: usize,
        /// What is possible.
        limit_bytes: usize,
    },
    /// An earlier append failed: what is on the disk is not known.
    #[error("the log {} takes no more records since this happened: {reason}; start the server anew", directory.display())]
    Poisoned {
        /// The log.
        directory: PathBuf,
        /// What happened.
        reason: String,
    },
}

/// A log's id, as people read it.
fn hex(id: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*id))
}
