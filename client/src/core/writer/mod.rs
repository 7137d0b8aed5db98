//! The writing of one file: cut into blocks, each sent through a pipeline of datanodes, which may break and be mended.
//!
//! ```text
//! Waiting -> Adding -> Opening(create) -> Streaming -> Finished
//!    ^                    |  fails           | fails      ^
//!    +---- Abandoning <---+                  v            |
//!                            Recovering -> Opening(resume) -> Streaming
//!                             ^    |            | fails
//!                             +----+------------+
//! ```
//!
//! A block keeps every byte that its pipeline has not acknowledged, so that a mended pipeline gets them again. A block
//! whose bytes are all sent finishes in the background while the next one is sent.

mod block;
mod event;
mod file;

#[cfg(test)]
mod tests;

pub(crate) use event::{Effect, Event, Packet, PipelineId, Slot};
pub(crate) use file::{FileWrite, WriteLimits};
