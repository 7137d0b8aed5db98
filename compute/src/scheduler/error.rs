use std::path::PathBuf;

use situ_runtime::disk::DiskError;
use situ_runtime::journal::JournalError;
use situ_runtime::rpc::RpcError;
use situ_wire::codec::CodecError;
use situ_wire::ids::ClusterId;

use super::LayoutVersion;

/// Why a scheduler does not start, or must stop.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// Its configuration does not go together.
    #[error("scheduler: {reason}")]
    Config {
        /// Which rule is broken, and by what.
        reason: String,
    },
    /// Its directory cannot be used.
    #[error("scheduler: {0}")]
    Directory(#[from] DirectoryError),
    /// Its disk failed.
    #[error("scheduler: {0}")]
    Disk(#[from] DiskError),
    /// Its journal is damaged or failed: what is on the disk is not known, so it acknowledges nothing more.
    #[error("scheduler: {0}")]
    Journal(#[from] JournalError),
    /// A record of the journal cannot be read, although its bytes are what was written.
    #[error(
        "scheduler: record {sequence} of the journal of jobs is of a format that this program does not know: {reason}; use the program that wrote it, or a later one"
    )]
    Record {
        /// Its number.
        sequence: u64,
        /// Why.
        reason: CodecError,
    },
    /// A record is too long to be written.
    #[error("scheduler: a record for the journal of jobs cannot be encoded: {reason}")]
    Encode {
        /// Why.
        reason: CodecError,
    },
    /// It hears nobody any more.
    #[error("scheduler: {0}")]
    Listener(RpcError),
}

/// Why a directory is not this scheduler's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    /// It is nobody's.
    #[error(
        "{} is not a scheduler's directory: expected its VERSION file, and there is none: if its disk is not mounted, mount \
         it; if it is new, or lost for good, `situ scheduler --config FILE --format` makes an empty one there, once (the jobs \
         that a lost one knew are known no more then, and no file is touched)",
        directory.display()
    )]
    NotFormatted {
        /// Which.
        directory: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "the directory {} belongs to cluster {found}, this scheduler to cluster {expected}: name the right directory",
        directory.display()
    )]
    WrongCluster {
        /// Which.
        directory: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Whose it should be.
        expected: ClusterId,
    },
    /// It was written by a program with another layout.
    #[error(
        "{} says layout {}, this program knows layout {}: use the program that wrote it, or, if that is an earlier one, move \
         the scheduler's directory aside and start with `--format`: its jobs are known no more then, and no file is touched",
        path.display(), found.0, LayoutVersion::CURRENT.0
    )]
    WrongLayout {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: LayoutVersion,
    },
    /// Its version file is not one.
    #[error("{} is not the version file of a scheduler: {reason}; name the right directory, or bring it back from a copy", path.display())]
    Damaged {
        /// The version file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It has no version file and holds something.
    #[error("the directory {} is not a scheduler's and holds {found:?}: name an empty or a new directory", directory.display())]
    NotEmpty {
        /// Which.
        directory: PathBuf,
        /// The first thing in it.
        found: String,
    },
}
