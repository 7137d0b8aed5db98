//! A running datanode.
//!
//! One task owns the core: it takes messages and the core's timer, and does what the core says. Everything that takes
//! time runs beside it and sends it messages: streams of blocks, file operations, calls to the namenode.
//!
//! | module | what it holds |
//! |---|---|
//! | `start` | [`Datanode::start`]: from directories to a running datanode |
//! | `owner` | the task that owns the core |
//! | `node` | what streams share, and how they reach the owner |
//! | `service` | who handles which stream |
//! | `pipeline` | writing a block, on this datanode and those behind it |
//! | `read` | reading a range of a replica |
//! | `replicate` | copying a replica to other datanodes |
//! | `files` | deletions and other work on volumes, in order; notes in the index |
//! | `verify` | reading a replica at a rate and checking it |
//! | `namenode` | calls to the namenode |

mod files;
mod namenode;
mod node;
mod owner;
mod pipeline;
mod read;
mod replicate;
mod service;
mod start;
mod verify;

pub use start::{Datanode, DatanodeHandle};

#[cfg(test)]
mod tests;
