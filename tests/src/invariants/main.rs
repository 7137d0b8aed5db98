//! One file a promise, on real processes.

/// The `situ` executable that is tested.
const SITU: &str = env!("CARGO_BIN_EXE_situ-under-test");

mod compute;
mod durable;
mod fencing;
mod integrity;
mod liveness;
mod metadata;
mod robustness;
