//! What does it: calls with retries, leases, writers and readers.

mod client;
mod namespace;
mod pages;
mod remote;
pub mod scheduler;

pub use client::Client;
pub use pages::{FsckPages, Listing};
pub use remote::{WaitObserver, Waiting};
