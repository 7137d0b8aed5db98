//! The executor: runs the processes of jobs beside a datanode.
//!
//! User code never runs in the executor itself: each job has one worker process here, which says with one call what it
//! holds and what has ended and is told what to do, and perhaps its driver. Between the executor and each of them stands
//! a *shim*, with which they and all that they start end when the executor does. The executor serves their shuffle output
//! and logs.
//!
//! ```text
//!  scheduler <-- poll: events and progress up, commands down ---> link ----+
//!  worker    --> poll: held and ended up, orders down ----------> service -+--> owner: JobTable decides, server does
//!  process exits, memory watch --------------------------------------------+
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | `table` | which job has which processes and tasks here, and what each worker holds; pure |
//! | `server` | the owner task |
//! | `directory` | whose its directory is |
//! | `link` | the conversation with the scheduler |
//! | `starting` | what comes before a process: its directories, its executable |
//! | `process` | starting and ending processes, each by its shim |
//! | `shim` | the process that holds one process of a job and all that it starts |
//! | `machine` | how much memory there is |
//! | `descendants` | what a process has started, as the operating system shows it |
//! | `bounded_log` | what keeps a log from filling a disk |
//! | `programs` | executables, fetched from the file system and checked |
//! | `survey` | what an earlier run has left in the directories of jobs |
//! | `removals` | what is being removed, beside the owner |
//! | `service` | calls and streams from workers, other executors and people |

mod bounded_log;
mod config;
mod descendants;
mod directory;
mod error;
mod link;
mod machine;
mod process;
mod programs;
mod removals;
mod server;
mod service;
mod shim;
mod starting;
mod survey;
pub(crate) mod table;

pub use config::{ExecutorConfig, SLOT_MEMORY_MIN_BYTES, default_memory_bytes};
pub use directory::format;
pub use error::StartError;
pub use server::{Executor, ExecutorHandle};
pub use shim::shim;
