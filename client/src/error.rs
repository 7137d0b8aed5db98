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

/// Shows what every datanode failed with last, one behind the other, in the order in which they were first tried: who is
/// tried again and again mostly fails in the same way.
struct Failures<'a>(&'a [ReplicaFailure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let mut last: Vec<&ReplicaFailure> = Vec::new();
        for failure in self.0 {
            match last.iter_mut().find(|seen| seen.datanode.id == failure.datanode.id) {
                Some(seen) => *seen = failure,
                None => last.push(failure),
            }
        }
        for (index, failure) in last.into_iter().enumerate() {
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
#[error("cannot read {path} from byte {offset} on: {}", why_unreadable(path, *block, *damaged, failures))]
pub struct Unreadable {
    /// The file.
    pub path: DfsPath,
    /// The block.
    pub block: Block,
    /// The first byte of the file that could not be read; those before it are good.
    pub offset: u64,
    /// Whether the bytes of every replica that the namenode knows are wrong.
    pub damaged: bool,
    /// What happened where, in order; empty if the namenode knows no replica.
    pub failures: Vec<ReplicaFailure>,
}

fn why_unreadable(path: &DfsPath, block: Block, damaged: bool, failures: &[ReplicaFailure]) -> String {
    let (path, tried) = (path.for_shell(), Failures(failures));
    if failures.is_empty() {
        format!(
            "no datanode that holds its {block} is live; see what is left of it with `situ fsck {path}`, and start the \
             datanodes that hold it"
        )
    } else if damaged {
        format!(
            "every replica of its {block} is damaged: {tried}; see with `situ fsck {path}` whether other blocks are, too, \
             and restore the file from elsewhere"
        )
    } else {
        format!(
            "no replica of its {block} gave its bytes; tried: {tried}; see what is left of it with `situ fsck {path}`, \
             and start the datanodes that hold it"
        )
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{BlockId, DatanodeId, GenerationStamp, NodeName, RackName};

    use super::*;

    fn failure(id: u128, reason: &str) -> ReplicaFailure {
        let datanode = DatanodeLocation {
            id: DatanodeId(id),
            node: NodeName(format!("node-{id}")),
            rack: RackName("/rack".into()),
            address: SocketAddr::from(([127, 0, 0, 1], 9)),
        };
        ReplicaFailure { datanode, reason: reason.to_owned() }
    }

    #[test]
    fn each_replica_is_blamed_once_and_the_next_step_is_named() {
        let unreadable = |failures, damaged| Unreadable {
            path: DfsPath::parse("/with space").unwrap(),
            block: Block { id: BlockId(7), generation: GenerationStamp(1) },
            offset: 70,
            damaged,
            failures,
        };
        let round = || [failure(1, "it is away"), failure(2, "its bytes are wrong")];
        let mut failures: Vec<_> = round().into_iter().chain(round()).chain(round()).collect();
        failures.push(failure(1, "it does not have the block"));
        assert_eq!(
            unreadable(failures, false).to_string(),
            "cannot read /with space from byte 70 on: no replica of its blk_7_1 gave its bytes; tried: node-1 at \
             127.0.0.1:9: it does not have the block; node-2 at 127.0.0.1:9: its bytes are wrong; see what is left of it with `situ \
             fsck '/with space'`, and start the datanodes that hold it"
        );
        assert_eq!(
            unreadable(Vec::new(), false).to_string(),
            "cannot read /with space from byte 70 on: no datanode that holds its blk_7_1 is live; see what is left of it \
             with `situ fsck '/with space'`, and start the datanodes that hold it"
        );
        assert_eq!(
            unreadable(vec![failure(2, "its bytes are wrong")], true).to_string(),
            "cannot read /with space from byte 70 on: every replica of its blk_7_1 is damaged: node-2 at 127.0.0.1:9: its \
             bytes are wrong; see with `situ fsck '/with space'` whether other blocks are, too, and restore the file from \
             elsewhere"
        );
    }
}
