//! Processes on different hosts (or that want to be treated so), over QUIC.
//!
//! Always TLS 1.3, always with certificates on both sides; see [`security`](crate::security) for what they say. A client
//! asks for the name of the role that it looks for, so the TLS library itself turns away a server that may not play it.
//! A server opens a first stream with one byte to say that it has accepted the client: without it a client whose
//! certificate is refused would learn that only later.
//!
//! What matters for speed, measured on loopback: large datagrams first, then offloaded segmentation where datagrams are
//! small, then one thread that drives the endpoint and does nothing else, then a socket buffer that is larger than a
//! stream's window.

mod connection;
mod driver;
mod endpoint;
mod settings;

pub use connection::{QuicConnection, QuicReceiveStream, QuicSendStream};
pub(super) use driver::Driver;
pub(super) use endpoint::{QuicListener, connect};
pub(super) use settings::Settings;
