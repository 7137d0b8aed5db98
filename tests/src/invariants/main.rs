//! One file a promise, on real processes.
#![expect(clippy::unwrap_used, reason = "all of this crate is tests")]

/// The `situ` executable that is tested.
const SITU: &str = env!("CARGO_BIN_EXE_situ-under-test");

mod compute;
mod directories;
mod durable;
mod engines;
mod fencing;
mod following;
mod full;
mod hangs;
mod input;
mod integrity;
mod liveness;
mod memory;
mod metadata;
mod once;
mod programs;
mod replay;
mod results;
mod resuming;
mod robustness;
mod sessions_attached;
mod unread;
