//! What decides: pure state machines, without clocks, sockets or tasks.

mod retry;
pub(crate) mod writer;

pub(crate) use retry::{Patience, Retries};
