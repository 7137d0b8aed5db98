use std::time::Duration;

use situ_wire::codec::CodecError;
use situ_wire::error::{RemoteError, Retry};

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
        }
    }

    /// The peer's own error, if that is what it is.
    #[must_use]
    pub fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error) => Some(error),
            _ => None,
        }
    }
}
