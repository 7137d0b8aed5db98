//! The calls of each role.
//!
//! Every bidirectional stream opens with one [`StreamOpen`] that says what it is for. A stream of calls then carries
//! [`Call`]s one way and [`Answer`]s the other, in any order, matched by number; a stream of bulk bytes carries what its
//! opening says.

pub mod datanode;
pub mod executor;
pub mod namenode;
pub mod scheduler;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::RemoteError;

/// The first message on every stream that a connector opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StreamOpen {
    /// Calls to the role that listens: its request type one way, its answer type the other.
    Calls,
    /// Bytes towards a datanode: packets of a block.
    WriteBlock(Box<datanode::WriteBlock>),
    /// Bytes from a datanode: a range of a replica.
    ReadBlock(Box<datanode::ReadBlock>),
    /// Bytes from an executor: one piece of a shuffle.
    FetchShuffle(executor::FetchShuffle),
}

/// One call on a stream of calls.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The caller's number for it, unique on its stream.
    pub number: u64,
    /// How long the caller waits, so that the server may drop what nobody waits for any more.
    pub timeout_ms: u32,
    /// The request, encoded.
    pub request: Bytes,
}

/// The answer to one [`Call`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The call's number.
    pub number: u64,
    /// The response, encoded, or why there is none.
    pub result: Result<Bytes, RemoteError>,
}
