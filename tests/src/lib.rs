//! The promises of Situ, each shown by a test.
//!
//! | where | what |
//! |---|---|
//! | `src/invariants/` | one file a promise, on real processes that are killed with `kill -9` and stopped with SIGSTOP |
//! | `src/tidy.rs` | the rules of the code itself |
//! | `src/rung1/` | the cores of all roles in a loop, thousands of seeds of faults in seconds |
//! | [`promises`] | what is promised, as checks over plain values |
//! | [`asked`] | the graph of jobs that answer questions |
//! | [`harness`] | what the invariants share: a cluster, its files, its command line |
//!
//! Run all of it with `cargo test --workspace`; the long runs are commands of their own (`situ chaos --help`).

pub mod asked;
pub mod harness;
pub mod promises;
#[cfg(test)]
mod rung1;
