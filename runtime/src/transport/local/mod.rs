//! Two processes on one host, over Unix sockets.
//!
//! A listener's socket stands in the abstract namespace of Linux under a name made from its address, so it belongs to
//! the network namespace that the address belongs to, and it is gone with its process. Both ends ask the operating
//! system who the other is (`SO_PEERCRED`): a process of the same user, or of root, may play any role; nobody else gets
//! a connection.
//!
//! A connection is a control socket, and one more socket for each stream: whoever opens a stream makes a pair of
//! sockets and passes one of them through the control socket, on which one byte says what comes:
//!
//! | byte | means |
//! |---|---|
//! | `W` | the listener accepts the connector; once |
//! | `S` | a stream; its socket comes along |
//! | `P` | are you there? |
//! | `A` | I am |
//!
//! On a stream stand chunks: a length (u32 LE, never 0), then as many bytes; a length of 0 says that nothing more
//! comes. A socket that ends without it means that the peer gave the stream up or is dead. Which of them it is, is asked
//! through the control socket: the dead do not answer.

mod connection;
mod listener;
mod stream;

pub use connection::LocalConnection;
pub use listener::LocalListener;
pub(super) use listener::connect;
pub use stream::{LocalReceiveStream, LocalSendStream};
