//! What a server answers when it cannot do what it was asked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether asking again can help.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retry {
    /// It cannot: the same request gets the same answer.
    Never,
    /// The same server may soon answer otherwise.
    Later,
    /// Another server (another replica, another datanode) may do it now.
    Elsewhere,
}

/// What kind of error it is. On the wire as its number: never renumber, never reuse.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ErrorCode {
    /// The path, job or block is not there.
    NotFound,
    /// The target is there already.
    AlreadyExists,
    /// A directory was needed.
    NotADirectory,
    /// A file was needed.
    IsADirectory,
    /// The directory holds something.
    NotEmpty,
    /// The caller may not.
    PermissionDenied,
    /// A value in the request is out of its range or contradicts another.
    InvalidArgument,
    /// Another client writes this file.
    BeingWritten,
    /// The caller does not hold the lease (any more).
    LeaseLost,
    /// The block or replica is not in that life.
    StaleGeneration,
    /// The namenode still waits for reports.
    SafeMode,
    /// No datanode can take the block.
    NoDatanodes,
    /// The disk is full.
    DiskFull,
    /// The replica's bytes are not what they should be.
    Corrupt,
    /// The block token does not open the block.
    BadToken,
    /// The peer belongs to another cluster.
    WrongCluster,
    /// The peer speaks another version.
    WrongVersion,
    /// The peer is not what its certificate says, or has none that counts here.
    WrongIdentity,
    /// The sender must register first.
    NotRegistered,
    /// A limit is reached.
    TooMuch,
    /// The server is too busy or shutting down.
    Unavailable,
    /// The call took longer than its deadline.
    DeadlineExceeded,
    /// What arrived is not a message of this protocol.
    Malformed,
    /// The job ended otherwise than with success.
    JobFailed,
    /// A file or disk of the server failed.
    Io,
    /// The server broke a rule of its own: a defect.
    Internal,
    /// Map outputs that a task reads are lost and being computed again: it gives its slot back and waits for its turn.
    OutputsLost,
    /// The disk of the namenode is almost full: it takes no change of that kind until somebody frees space there.
    NamenodeFull,
}

impl ErrorCode {
    /// Whether asking again can help.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::SafeMode | Self::Unavailable | Self::DeadlineExceeded | Self::NotRegistered | Self::NoDatanodes => {
                Retry::Later
            }
            Self::DiskFull | Self::Corrupt | Self::BadToken | Self::StaleGeneration | Self::Io => Retry::Elsewhere,
            Self::NotFound
            | Self::AlreadyExists
            | Self::NotADirectory
            | Self::IsADirectory
            | Self::NotEmpty
            | Self::PermissionDenied
            | Self::InvalidArgument
            | Self::BeingWritten
            | Self::LeaseLost
            | Self::WrongCluster
            | Self::WrongVersion
            | Self::WrongIdentity
            | Self::TooMuch
            | Self::Malformed
            | Self::JobFailed
            | Self::Internal
            | Self::OutputsLost
            | Self::NamenodeFull => Retry::Never,
        }
    }
}

/// An error as it travels: its kind, the thing it is about, and a sentence that says what was expected, what was found
/// and what to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteError {
    /// What kind of error.
    pub code: ErrorCode,
    /// The path, block, job or process it is about.
    pub subject: String,
    /// What was expected, what was found, what to do next.
    pub message: String,
}

impl RemoteError {
    /// An error about `subject`.
    pub fn new(code: ErrorCode, subject: impl fmt::Display, message: impl Into<String>) -> Self {
        Self { code, subject: subject.to_string(), message: message.into() }
    }

    /// Whether asking again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.code.retry()
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.message)
    }
}

impl std::error::Error for RemoteError {}
