use std::net::SocketAddr;
use std::time::Duration;

use situ_wire::codec::CodecError;
use situ_wire::error::{RemoteError, Retry};
use situ_wire::hello::Role;

use crate::transport::TransportError;

/// Why a call or a stream failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The network failed: whether the peer has acted is not known.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer answered with an error.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The peer does not let this process in: what was to be asked never came to it.
    #[error(transparent)]
    Refused(#[from] Box<Refusal>),
    /// The peer sent something that is not of this protocol.
    #[error("the peer sent something unexpected: {0}")]
    Codec(#[from] CodecError),
    /// The peer ended a stream in the middle.
    #[error("the peer ended the stream before {expected}")]
    Ended {
        /// What was still to come.
        expected: &'static str,
    },
    /// The peer did not answer in time: whether it has acted is not known.
    #[error("no answer within {timeout:?}")]
    DeadlineExceeded {
        /// How long was waited.
        timeout: Duration,
    },
    /// The peer gave an answer of another kind than the request has.
    #[error("the answer to {request} is of another kind: {found}")]
    WrongAnswer {
        /// What was asked.
        request: &'static str,
        /// What came, cut to a readable length.
        found: String,
    },
}

/// A peer that does not let this process in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {role} at {address} refused {error}")]
pub struct Refusal {
    /// Who was looked for.
    pub role: Role,
    /// Where.
    pub address: SocketAddr,
    /// What it says of this process.
    pub error: RemoteError,
}

impl RpcError {
    /// Whether asking again can help.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self {
            Self::Transport(TransportError::Untrusted { .. } | TransportError::Insecure { .. })
            | Self::Codec(_)
            | Self::WrongAnswer { .. } => Retry::Never,
            Self::Transport(_) | Self::Ended { .. } | Self::DeadlineExceeded { .. } => Retry::Later,
            Self::Remote(error) => error.retry(),
            Self::Refused(refusal) => refusal.error.retry(),
        }
    }

    /// The peer's own error, if that is what it is.
    #[must_use]
    pub fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error) => Some(error),
            Self::Refused(refusal) => Some(&refusal.error),
            _ => None,
        }
    }
}
