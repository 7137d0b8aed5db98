//! The namenode: the namespace, the blocks, and where they are.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what is decided: the state machine, pure |
//! | [`server`] | what is done: the owner task, the edit log, images, the door for calls |
//! | [`config`] | [`NamenodeConfig`] |
//! | [`error`] | why a namenode does not start, or ends |
//! | [`metrics`] | what it counts |
//!
//! Life: [`format()`] a directory once, [`Namenode::start`] on it, [`NamenodeHandle::shutdown`].

pub mod config;
pub mod core;
pub mod error;
pub mod metrics;
pub mod server;

pub use config::NamenodeConfig;
pub use error::{DirectoryError, FormatError, NamenodeError, StartError};
pub use server::{Namenode, NamenodeHandle, format, formatted_cluster};
