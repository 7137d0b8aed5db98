//! What Situ's processes say to each other.
//!
//! No async and no sockets: ids, messages, codec, limits, error codes and versions. Everything here is plain data that
//! can be encoded, decoded and compared.
//!
//! | module | what it holds |
//! |---|---|
//! | [`ids`] | newtypes for every id |
//! | [`time`] | [`TimeMs`](time::TimeMs), the only notion of time that messages carry |
//! | [`path`] | [`DfsPath`](path::DfsPath), a validated absolute path |
//! | [`block`] | blocks, where they are, and tokens that open them |
//! | [`tree`] | the BLAKE3 tree that verifies a block |
//! | [`codec`] | frames: a length, then a message in postcard |
//! | [`hello`] | the handshake: versions, cluster, role |
//! | [`error`] | [`RemoteError`](error::RemoteError): what a server answers when it cannot |
//! | [`limits`] | every bound, in one place |
//! | [`messages`] | the calls of each role |

pub mod block;
pub mod codec;
pub mod error;
#[cfg(test)]
mod golden;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod messages;
pub mod path;
pub mod time;
pub mod tree;
