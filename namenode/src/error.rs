//! What can go wrong with a namenode as a whole. What can go wrong with one call is a
//! [`RemoteError`](situ_wire::error::RemoteError).

use std::path::PathBuf;

use situ_runtime::disk::DiskError;
use situ_runtime::journal::JournalError;
use situ_runtime::rpc::RpcError;
use situ_runtime::store::StoreError;
use situ_wire::codec::CodecError;
use situ_wire::ids::{ClusterId, TxId};

use crate::server::LayoutVersion;

/// Why a directory was not formatted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FormatError {
    /// It holds a namespace.
    #[error(
        "{} is formatted already and may hold a namespace: start the namenode on it, or name another directory",
        directory.display()
    )]
    AlreadyFormatted {
        /// Which.
        directory: PathBuf,
    },
    /// It holds something that is not a namenode's.
    #[error("{} is not empty: it holds {found:?}; name a new or empty directory", directory.display())]
    NotEmpty {
        /// Which.
        directory: PathBuf,
        /// The first thing that is there.
        found: String,
    },
    /// The disk fails, or another process uses the directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a directory is not one that a namenode can run on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DirectoryError {
    /// It was never formatted.
    #[error(
        "{} is not a namenode's directory: expected its VERSION file, and there is none: if its disk is not mounted, mount \
         it; if it is new, or lost for good, `situ namenode --config FILE --format` makes an empty namespace there, once (no \
         file of a lost one is known any more then)",
        directory.display()
    )]
    NotFormatted {
        /// Which.
        directory: PathBuf,
    },
    /// The directory of its edit log is gone.
    #[error(
        "{} is gone, which held the edit log: bring it back, or mount its disk; without it nothing of the namespace is \
         known",
        journal.display()
    )]
    NoJournal {
        /// Where it was.
        journal: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, but this namenode is of cluster {expected}: name the directory of its own \
         cluster",
        directory.display()
    )]
    WrongCluster {
        /// Which.
        directory: PathBuf,
        /// What its version file says.
        found: ClusterId,
        /// What was configured.
        expected: ClusterId,
    },
    /// Another release wrote it.
    #[error(
        "{}: layout {}, but this release reads layout {} only: run the release that wrote it",
        path.display(), found.0, LayoutVersion::CURRENT.0
    )]
    WrongLayout {
        /// The version file.
        path: PathBuf,
        /// What it says.
        found: LayoutVersion,
    },
    /// The version file is not what it should be.
    #[error("{} is damaged: {reason}; restore it from a copy: it holds nothing but layout and cluster", path.display())]
    Damaged {
        /// The version file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk fails, or another process uses the directory.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Why a namenode did not start.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration cannot be.
    #[error("configuration of the namenode: {name} = {found}: {expected}")]
    Config {
        /// Which.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
    /// Its directory is not one that it can run on.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its edit log cannot be read whole.
    #[error("the edit log cannot be read, and the namenode does not start with a part of it: {0}")]
    Journal(#[from] JournalError),
    /// A record of the edit log is whole, but it is not an edit, or it does not fit the namespace.
    #[error(
        "{tx} of the edit log in {} cannot be applied: {reason}; it was written by another release, or this is a defect",
        journal.display()
    )]
    Edit {
        /// Where the log is.
        journal: PathBuf,
        /// Which record.
        tx: TxId,
        /// What is wrong with it.
        reason: String,
    },
    /// No image is good, and the log does not reach back to the beginning.
    #[error(
        "no image in {} can be used ({}), and the edit log begins at {first} only: restore the directory from a copy",
        images.display(), refused.join("; ")
    )]
    NoImage {
        /// Where the images are.
        images: PathBuf,
        /// Why each was refused.
        refused: Vec<String>,
        /// The first record of the log.
        first: TxId,
    },
    /// The best image knows more than the log: acknowledged edits are gone from it.
    #[error(
        "the edit log ends at {last}, but image {} holds everything up to {image_tx}: the end of the log was lost \
         after it had been synced; restore {} from a copy",
        image.display(), journal.display()
    )]
    LogBehindImage {
        /// The image.
        image: PathBuf,
        /// Its last transaction.
        image_tx: TxId,
        /// Where the log is.
        journal: PathBuf,
        /// Its last record.
        last: TxId,
    },
}

impl From<DiskError> for StartError {
    fn from(error: DiskError) -> Self {
        Self::Directory(error.into())
    }
}

/// Why a running namenode had to end. Nothing more was acknowledged from then on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NamenodeError {
    /// The edit log could not be written or synced: what is on the disk is not known any more.
    #[error("the edit log failed, and nothing more can be acknowledged: {0}")]
    Journal(#[from] JournalError),
    /// An edit was too large to be written down.
    #[error("{tx} cannot be written to the edit log: {reason}")]
    Edit {
        /// Which.
        tx: TxId,
        /// Why.
        reason: CodecError,
    },
    /// Nobody can connect any more.
    #[error("the namenode hears nobody any more: {0}")]
    Listener(RpcError),
    /// A task of it ended by itself: a defect.
    #[error("the namenode's {task} ended unexpectedly; this is a defect: report it")]
    TaskEnded {
        /// Which.
        task: &'static str,
    },
}

/// Why an image cannot be used. The namenode goes on without it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ImageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("it has no header: it was never finished")]
    NoHeader,
    #[error("its header is damaged: {reason}")]
    Header { reason: &'static str },
    #[error("it is of format {found}; this release reads format {expected} only")]
    Format { found: u16, expected: u16 },
    #[error("it belongs to cluster {found}")]
    Cluster { found: ClusterId },
    #[error("it was being brought forward when the namenode ended")]
    InProgress,
    #[error("the disk has {free_bytes} bytes free, but {needed_bytes} are needed: free some space")]
    NoRoom { free_bytes: u64, needed_bytes: u64 },
    #[error("the edit log failed, or the namenode ended, before it was finished")]
    Abandoned,
    #[error("a record is damaged: {reason}")]
    Record { reason: String },
    #[error("its records have the digest {found}, but it was written with {expected}")]
    Digest { found: String, expected: String },
    #[error("it ends at {tx}, but the edit log begins at {first}")]
    Gap { tx: TxId, first: TxId },
}
