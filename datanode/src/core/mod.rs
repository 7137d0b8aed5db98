//! What a datanode decides: which replicas are there and in which state, who may write them, what the namenode is told.
//!
//! Pure: no async, no clock, no files, no sockets. Events go in through [`Core::handle`] and [`Core::handle_timeout`],
//! effects come out of [`Core::poll_effect`]; [`Core::poll_timeout`] says when to come back at the latest.
//!
//! | module | what it holds |
//! |---|---|
//! | [`replicas`] | the replicas, their states, and the rules of lives |
//! | [`volumes`] | room, and volumes that have failed |
//! | [`reporter`] | registration, heartbeats, reports |
//! | [`scrub`] | which replica is verified next |
//! | [`tokens`] | what block tokens are judged by |

mod datanode;
mod event;
pub mod replicas;
pub mod reporter;
pub mod scrub;
pub mod tokens;
pub mod volumes;

pub use datanode::{Core, CoreConfig, Me, VolumeAtStart};
pub use event::{CallError, CallId, CallKind, Effect, Event, RequestId, StopReason, WriteGrant, WriterEnd, WriterId};

#[cfg(test)]
mod tests;
