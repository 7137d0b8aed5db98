//! The namenode's shell: one task owns the [`Namesystem`](crate::core::Namesystem), everything else feeds it.
//!
//! ```text
//! connections --calls--> owner --edits--> edit log --synced--> owner --answers--> connections
//!                          |
//!                          +--changes--> image writer --done--> owner --drop before--> edit log
//! ```
//!
//! | file | what it holds |
//! |---|---|
//! | `namenode` | starting, the handle, ending |
//! | `directory` | the version file and where things are |
//! | `recovery` | images and edit log read back |
//! | `service` | the door: calls are decoded and queue |
//! | `owner` | select, act, do the effects |
//! | `room` | how much room the log has, and when to look |
//! | `replies` | answers that wait for the disk |
//! | `log` | the writer of the edit log: group commit |
//! | `images` | which images there are, and when checkpoints happen |
//! | `image_writer` | the task that brings one image forward |
//! | `image` | the format of an image |

mod directory;
mod image;
mod image_writer;
mod images;
mod log;
mod namenode;
mod owner;
mod recovery;
mod replies;
mod room;
mod service;
#[cfg(test)]
mod tests;

pub use directory::{LayoutVersion, format, formatted_cluster};
pub use namenode::{Namenode, NamenodeHandle};
