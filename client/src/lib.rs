//! The file system client: namespace calls, write pipelines and verified reads.
//!
//! [`Client`] is one client of one cluster, cheap to clone. It asks the namenode what is where, and streams bytes to and
//! from datanodes; failures that another try or another replica can help with never reach the application.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | [`ClientConfig`]: the cluster, its addresses, how files are written, how long to wait |
//! | [`error`] | [`ClientError`]: what could not be done, why, and whether trying again can help |
//! | `core` | what decides, without doing: when to try again, how a pipeline goes on, which replica to read |
//! | `io` | what does it: calls, leases, [`FileWriter`], [`FileReader`] |
//! | [`glob`] | patterns on paths |
//! | [`scheduler`] | calls to the scheduler, and logs of jobs |

pub mod config;
mod core;
pub mod error;
mod io;

pub use config::ClientConfig;
pub use core::glob;
pub use error::ClientError;
pub use io::{
    Client, CreateOptions, FileReader, FileStream, FileWriter, FsckPages, Listing, ReadStatistics, WaitObserver,
    Waiting, Written, scheduler,
};
