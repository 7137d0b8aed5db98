//! The scheduler's server: one owner of the [core](crate::core), its journal, and the calls that wait for it.
//!
//! | file | what it does |
//! |---|---|
//! | `server` | starts; the owner: takes calls and times to the core and carries its effects out |
//! | `service` | takes calls from connections |
//! | `log` | the journal of jobs: appends, compacts, replays |
//! | `directory` | whose directory it is, and its layout |
//! | `config`, `error` | what they say |

mod config;
mod directory;
mod error;
mod log;
mod server;
mod service;

pub use config::SchedulerConfig;
pub use directory::{LayoutVersion, format};
pub use error::{DirectoryError, SchedulerError};
pub use server::{SchedulerHandle, SchedulerServer};

pub use crate::core::SchedulingPolicy;

#[cfg(test)]
mod tests;
