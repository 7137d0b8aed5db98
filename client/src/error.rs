//! What a client could not do.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use situ_runtime::rpc::RpcError;
use situ_wire::block::{Block, DatanodeLocation};
use situ_wire::error::{ErrorCode, RemoteError, Retry};
use situ_wire::hello::Role;
use situ_wire::path::DfsPath;

/// What could not be done, and why. The message is for a person: it names the thing, what was expected, what was found
/// and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server answered that it cannot.
    #[error("cannot {operation} {error}")]
    Refused {
        /// What was asked, as in `delete`.
        operation: &'static str,
        /// What the server said.
        error: RemoteError,
    },
    /// The server was not there, or did not answer, for as long as the configuration allows.
    #[error(transparent)]
    Unreachable(Box<Unreachable>),
    /// The server and this client do not understand or do not trust each other.
    #[error("cannot {operation} {subject}: {error}")]
    Rpc {
        /// What was asked.
        operation: &'static str,
        /// The path, block or job it is about.
        subject: String,
        /// What went wrong.
        error: RpcError,
    },
    /// A file cannot be written any further.
    #[error(transparent)]
    Write(Box<WriteError>),
    /// The writer of a file has ended before: it was closed or given up.
    #[error("cannot write {path}: its writer has ended; open it anew")]
    WriterEnded {
        /// The file.
        path: DfsPath,
    },
    /// No replica of a block can be read.
    #[error(transparent)]
    Unreadable(Box<Unreadable>),
    /// The file is another one than the one that was opened, or has lost blocks since.
    #[error("cannot read {path} any further: it was replaced or changed since it was opened; open it again")]
    Changed {
        /// The file.
        path: DfsPath,
    },
    /// A task of the reader ended before its work was done, as when the process shuts down.
    #[error("cannot read {path} any further: its reader was stopped")]
    Stopped {
        /// The file.
        path: DfsPath,
    },
    /// The configuration names no scheduler.
    #[error("cannot {operation}: the client's configuration names no scheduler; set `scheduler` to its address")]
    NoScheduler {
        /// What was asked.
        operation: &'static str,
    },
}

impl ClientError {
    /// Whether trying again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused { error, .. } => error.retry(),
            Self::Unreachable(_) => Retry::Later,
            Self::Rpc { error, .. } => error.retry(),
            Self::Write(_) | Self::Unreadable(_) | Self::Changed { .. } => Retry::Later,
            Self::NoScheduler { .. } | Self::WriterEnded { .. } | Self::Stopped { .. } => Retry::Never,
        }
    }

    /// The server's code, if the error is a server's answer.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            Self::Rpc { error, .. } => error.remote().map(|remote| remote.code),
            Self::Unreachable(unreachable) => unreachable.last.remote().map(|remote| remote.code),
            Self::Write(_)
            | Self::Unreadable(_)
            | Self::Changed { .. }
            | Self::NoScheduler { .. }
            | Self::WriterEnded { .. }
            | Self::Stopped { .. } => None,
        }
    }
}

/// A server that gave no answer for too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot {operation} {subject}: the {role} at {address} gave no answer in {waited:.1?}: {last}; check that it runs and is reachable"
)]
pub struct Unreachable {
    /// What was asked.
    pub operation: &'static str,
    /// The path, block or job it is about.
    pub subject: String,
    /// Who was asked.
    pub role: Role,
    /// Where.
    pub address: SocketAddr,
    /// For how long.
    pub waited: Duration,
    /// What happened last.
    pub last: RpcError,
}

/// What one datanode could not do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaFailure {
    /// Which datanode.
    pub datanode: DatanodeLocation,
    /// What happened there.
    pub reason: String,
}

impl fmt::Display for ReplicaFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}", self.datanode.node, self.datanode.address, self.reason)
    }
}

/// Shows failures one behind the other.
struct Failures<'a>(&'a [ReplicaFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none, for none is known");
        }
        for (index, failure) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
        }
        Ok(())
    }
}

/// A block that no datanode could take to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot write {path}: no datanode is left that can take its block at offset {offset}; tried: {}; see the cluster's report for datanodes that live, then write the file again",
    Failures(failures)
)]
pub struct WriteError {
    /// The file.
    pub path: DfsPath,
    /// The block in its last life, if it got one.
    pub block: Option<Block>,
    /// Where in the file the block starts.
    pub offset: u64,
    /// What happened where, in order.
    pub failures: Vec<ReplicaFailure>,
}

/// A block that no replica of could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read {path}: no replica of {block} at offset {offset} gave its bytes; tried: {}; `situ fsck` shows where its replicas should be",
    Failures(failures)
)]
pub struct Unreadable {
    /// The file.
    pub path: DfsPath,
    /// The block.
    pub block: Block,
    /// Where in the file the block starts.
    pub offset: u64,
    /// What happened where, in order; empty if the namenode knows no replica.
    pub failures: Vec<ReplicaFailure>,
}
