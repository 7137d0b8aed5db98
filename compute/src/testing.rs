//! Programs in one process, for their tests.
//!
//! ```
//! let directory = std::env::temp_dir().join(format!("situ-doc-{}", std::process::id()));
//! let context = situ_compute::testing::context(&directory);
//! let evens = context.parallelize((0..10_u32).collect(), 3).filter(|n| n % 2 == 0);
//! assert_eq!(evens.collect()?, [0, 2, 4, 6, 8]);
//! # std::fs::remove_dir_all(&directory).ok();
//! # Ok::<(), situ_compute::ProgramError>(())
//! ```

use std::path::Path;

use situ_runtime::disk::fs::FsDisk;
use situ_runtime::real::RealClock;

use crate::dataset::Context;
use crate::engine::Engines;
use crate::program::local::{self, LocalOptions};

/// A context that runs everything in this process, one task after the other: the same plans, tasks and shuffle files as
/// on a cluster. The file `/in` of the program is `files/in` in `directory`; `work` in it is for the tasks.
#[must_use]
pub fn context(directory: &Path) -> Context {
    local::context(FsDisk, RealClock::new(), directory, LocalOptions::default())
}

/// The same for a program with engines for the work of its stages (see [`crate::engine`]).
#[must_use]
pub fn context_with(directory: &Path, engines: Engines) -> Context {
    local::context_with(FsDisk, RealClock::new(), directory, LocalOptions::default(), engines)
}
