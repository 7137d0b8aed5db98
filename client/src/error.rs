//! What a client could not do.

use std::net::SocketAddr;
use std::time::Duration;

use situ_runtime::rpc::RpcError;
use situ_wire::error::{ErrorCode, RemoteError, Retry};
use situ_wire::hello::Role;

/// What could not be done, and why. The message is for a person: it names the thing, what was expected, what was found
/// and what to do next.
#[derive(Debug, Clone, thiserror::Error)]
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
            Self::NoScheduler { .. } => Retry::Never,
        }
    }

    /// The server's code, if the error is a server's answer.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { error, .. } => Some(error.code),
            Self::Rpc { error, .. } => error.remote().map(|remote| remote.code),
            Self::Unreachable(unreachable) => unreachable.last.remote().map(|remote| remote.code),
            Self::NoScheduler { .. } => None,
        }
    }
}

/// A server that gave no answer for too long.
#[derive(Debug, Clone, thiserror::Error)]
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
