//! A network in memory, for simulations.
//!
//! One [`SimNetwork`] joins hosts, each with an address of its own; a [`SimTransport`] is one process on such a host. It
//! promises what [`Transport`](crate::transport::Transport) promises, over links that take time, can be cut in one
//! direction or both and healed again, and hosts that can be killed. What is sent into a cut link arrives when it heals;
//! if it stays cut for longer than [`IDLE_TIMEOUT`], the connections over it are lost, as with QUIC.

mod connection;
mod endpoint;
mod network;
mod pipe;

pub use connection::{SimConnection, SimReceiveStream, SimSendStream};
pub use endpoint::{SimListener, SimTransport};
pub use network::{IDLE_TIMEOUT, SimIdentity, SimNetwork};
