//! Connections with streams.
//!
//! A connection stands between two processes that know who the other is. Either side opens bidirectional streams; each
//! stream has an order, back-pressure and an end of its own in both directions. A suite checks what is promised here
//! against every implementation.

pub mod local;
pub mod net;
pub mod quic;
pub mod sim;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::SocketAddr;

use bytes::Bytes;
use situ_wire::hello::Role;

/// A network, with this process's identity in it.
pub trait Transport: Clone + Send + Sync + 'static {
    /// A connection.
    type Connection: Connection;
    /// Takes connections.
    type Listener: Listener<Connection = Self::Connection>;

    /// Connects to the process that listens at `address` and plays the role `to`, and proves it.
    fn connect(
        &self,
        address: SocketAddr,
        to: Role,
    ) -> impl Future<Output = Result<Self::Connection, TransportError>> + Send;

    /// Listens at `address`; port 0 lets the system choose.
    fn listen(&self, address: SocketAddr) -> impl Future<Output = Result<Self::Listener, TransportError>> + Send;
}

/// Takes connections. Dropping it stops listening and closes what it took.
pub trait Listener: Send + 'static {
    /// A connection.
    type Connection: Connection;

    /// Where it listens, with the port that the system chose.
    fn address(&self) -> SocketAddr;

    /// The next connection whose peer has proven who it is. Peers that cannot are turned away without disturbing
    /// others. An error means that it listens no more.
    fn accept(&mut self) -> impl Future<Output = Result<Self::Connection, TransportError>> + Send;
}

/// A connection. Cheap to clone; every clone is the same connection, which closes when the last one is dropped (and its
/// streams are) or [`Connection::close`] is called.
pub trait Connection: Clone + Send + Sync + 'static {
    /// The sending half of a stream.
    type Send: SendStream;
    /// The receiving half of a stream.
    type Receive: ReceiveStream;

    /// Opens a stream. The peer sees it when something is sent on it.
    fn open(&self) -> impl Future<Output = Result<(Self::Send, Self::Receive), TransportError>> + Send;

    /// The next stream that the peer opened.
    fn accept(&self) -> impl Future<Output = Result<(Self::Send, Self::Receive), TransportError>> + Send;

    /// Who the peer is.
    fn peer(&self) -> &Peer;

    /// Closes it and all its streams at once, in both directions.
    fn close(&self);

    /// Whether it is known to be closed.
    fn is_closed(&self) -> bool;

    /// Waits until it is closed, by whichever side.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

/// The sending half of a stream. Dropping it before [`SendStream::finish`] resets it.
pub trait SendStream: Send + 'static {
    /// Sends all of `bytes`; waits while the peer is behind. Given up half-way, it may have sent any part of them.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Sends all of several pieces in order, in one go where that is cheaper.
    fn send_all(&mut self, pieces: Vec<Bytes>) -> impl Future<Output = Result<(), TransportError>> + Send {
        async move {
            for piece in pieces {
                self.send(piece).await?;
            }
            Ok(())
        }
    }

    /// Says that nothing more comes. What was sent still arrives.
    fn finish(&mut self) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Gives the stream up: the peer sees [`TransportError::Reset`], perhaps before all that was sent.
    fn reset(&mut self);
}

/// The receiving half of a stream. Dropping it before the end tells the peer to stop sending.
pub trait ReceiveStream: Send + 'static {
    /// The next bytes, at least one and at most `limit_bytes`; none when the peer has finished. Given up half-way, it
    /// loses nothing.
    fn receive(&mut self, limit_bytes: usize) -> impl Future<Output = Result<Option<Bytes>, TransportError>> + Send;
}

/// Who is at the other end, as its certificate (or, on one host, the operating system) proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The roles that it may play. A process of the same user on the same host may play any.
    pub roles: Vec<Role>,
    /// The name it is known by: a node's or a user's; none where only the operating system vouches, and what it says
    /// of itself counts.
    pub name: Option<String>,
    /// Where it is, as far as is known.
    pub address: Option<SocketAddr>,
}

/// What went wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nobody listens there, or the way is cut.
    #[error("cannot connect to {role} at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// Who was sought.
        role: Role,
        /// What is known.
        reason: String,
    },
    /// The peer could not prove who it is, or did not accept who we are.
    #[error(
        "{role} at {address} and this process do not trust each other: {reason}; check the address, and that both certificates come from the same cluster"
    )]
    Untrusted {
        /// Where.
        address: SocketAddr,
        /// Who was sought.
        role: Role,
        /// What is known.
        reason: String,
    },
    /// The connection is closed or lost.
    #[error("the connection is lost: {reason}")]
    Closed {
        /// What is known.
        reason: String,
    },
    /// The peer gave this stream up.
    #[error("the peer gave the stream up")]
    Reset,
    /// The peer wants nothing more on this stream.
    #[error("the peer stopped reading the stream")]
    Stopped,
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        reason: String,
    },
    /// Listening there is not allowed without a certificate authority.
    #[error(
        "refusing to listen on {address} without a cluster certificate: only loopback addresses need none; make one with `situ ca`"
    )]
    Insecure {
        /// Where.
        address: SocketAddr,
    },
}
