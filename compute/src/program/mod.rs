//! What a program links: its entry point, the driver's and the worker's loops.
//!
//! | module | what it holds |
//! |---|---|
//! | [`environment`] | what an executor tells a process of a job |
//! | `entry` | [`run`], [`Program`]: what the program's `main` calls |
//! | `replay`, `follow` | how a worker's run of the program follows its driver's |
//! | `runs` | the runs of the program in a worker, and what its tasks do with them |
//! | `check` | a task that is computed with two runs, and compared |
//! | `at_client` | a driver in its user's terminal |
//! | `driver` | the part that runs actions |
//! | `session` | a driver from its begin to its end; one that a client attaches keeps its job alive by being heard |
//! | `worker` | the part that follows the driver and runs tasks |
//! | `heartbeat` | the worker's one call to its executor |
//! | `cluster` | the world of both on a cluster: files, calls, fetching |
//! | [`local`] | a program in one process, over a directory: for tests |
//! | `world` | what all of these offer to datasets and tasks |
//! | `memory` | what tasks and kept partitions borrow of the worker's memory |
//! | `own` | where results of tasks are that are files |
//! | `patience` | how the program itself bears with a file system that is away |
//! | `reading` | which input a task reads, for its failure |
//! | `task` | one task from its start to its end |

mod at_client;
mod calls;
mod check;
mod cluster;
mod driver;
mod entry;
pub mod environment;
pub(crate) mod error;
pub(crate) mod follow;
pub(crate) mod heartbeat;
pub(crate) mod input;
pub mod local;
pub(crate) mod memory;
pub(crate) mod own;
mod patience;
pub(crate) mod reading;
#[cfg(test)]
pub(crate) mod rehearsal;
mod replay;
pub(crate) mod runs;
mod session;
pub(crate) mod task;
mod worker;
pub(crate) mod world;

pub(crate) use entry::clean_up;
pub use entry::{Program, run, run_with};
pub use session::{Session, SessionError};
