//! The datanode: replicas on volumes, the pipelines that write them, and what it tells the namenode.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | which replicas are there and in which state, and what follows from that; pure |
//! | [`storage`] | replicas on a volume: formats, the steps that make one final, the scan at start |
//! | [`server`] | [`Datanode`]: the owner of the core, and the streams and calls around it |
//! | [`config`] | [`DatanodeConfig`] |
//! | [`error`] | why a datanode does not start, and why it stops |

pub mod config;
pub mod core;
pub mod error;
pub mod server;
pub mod storage;

pub use config::DatanodeConfig;
pub use error::{DatanodeError, StartError};
pub use server::{Datanode, DatanodeHandle};
pub use storage::format;
