//! Calls and framed streams over connections.
//!
//! A [`Connector`] holds one connection to each peer, says [`Hello`](situ_wire::hello::Hello) on it, and opens streams:
//! a [`Caller`] for calls, which are pipelined on one stream and answered in any order, and [`FrameSender`] with
//! [`FrameReceiver`] for bulk bytes. [`serve`] is the other end: it answers the hello, checks who calls, and hands calls
//! and streams to a [`Service`].

mod caller;
mod connector;
mod error;
mod frames;
mod server;

pub use caller::Caller;
pub use connector::{Connector, Identity};
pub use error::{Refusal, RpcError};
pub use frames::{FrameReceiver, FrameSender, receive_message, send_message};
pub use server::{CallerIdentity, Reply, ServerIdentity, Service, serve};

#[cfg(test)]
mod tests;
