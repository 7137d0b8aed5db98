//! `situ up`: a whole cluster on one machine, every role a process of its own.
//!
//! | module | what it holds |
//! |---|---|
//! | [`layout`] | where everything lies in the cluster's directory |
//! | [`process`] | one role as a child process |
//! | [`cluster`] | all of them: made, started in order, stopped in order |
//! | [`running`] | which clusters run on this machine |
//! | `settings` | configuration files that people edit and `up` keeps up to date |
//! | [`watch`] | the command: keeps a cluster running until Ctrl-C |

pub mod cluster;
pub mod layout;
pub mod process;
pub mod running;
mod settings;
pub mod watch;

pub use cluster::{Cluster, ClusterOptions, Member, Timings};
pub use layout::Layout;
