//! What does it: calls with retries, leases, writers and readers.

mod client;
mod lease;
mod namespace;
mod pages;
mod reader;
mod remote;
pub mod scheduler;
mod writer;

pub use client::Client;
pub use pages::{FsckPages, Listing};
pub use reader::{FileReader, FileStream, ReadStatistics};
pub use remote::{WaitObserver, Waiting};
pub use writer::{CreateOptions, FileWriter, Written};
