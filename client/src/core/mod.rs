//! What decides: pure state machines, without clocks, sockets or tasks.

pub mod glob;
mod replicas;
mod retry;
mod verify;
pub(crate) mod writer;

pub(crate) use replicas::Suspects;
pub(crate) use retry::{Patience, Retries};
pub(crate) use verify::{Verifier, widened};
