//! The executor: runs the processes of jobs beside a datanode.
//!
//! User code never runs in the executor itself: each job has one worker process here, which pulls its tasks, and perhaps
//! its driver. The executor holds the other end of their standard inputs, so that they end when it does, and serves
//! their shuffle output and logs.
//!
//! ```text
//!  scheduler <-- poll: events up, commands down --> link --+
//!  worker    <-- next task, task ended ------> service ----+--> owner: JobTable decides, server does
//!  process exits, memory watch ----------------------------+
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `table` | which job has which processes and tasks here; pure |
//! | `server` | the owner task |
//! | `link` | the conversation with the scheduler |
//! | `process` | starting, watching and ending processes |
//! | `programs` | executables, fetched from the file system and checked |
//! | `service` | calls and streams from workers, other executors and people |

mod config;
mod error;
mod link;
mod process;
mod programs;
mod server;
mod service;
mod table;

pub use config::ExecutorConfig;
pub use error::StartError;
pub use server::{Executor, ExecutorHandle};
