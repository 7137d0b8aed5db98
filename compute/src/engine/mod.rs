//! Stages whose tasks are given to them: for engines that bring a plan of their own, as those of queries or of programs in
//! other languages.
//!
//! The tasks of a [`Dataset`](crate::Dataset) are what the program says, so a worker must have run the program up to where
//! they are made. The tasks of a [`Stage`] are a [`Work`]: a kind, which names an [`Engine`] that the program has
//! registered, and bytes, which mean something to that engine alone. They travel once with the plan, and a worker runs them
//! at once. Everything else is the same: places, resources, shuffles, recovery, speculation.
//!
//! What moves between stages are [`Frame`]s: opaque bytes and how many records they hold. What an engine leaves for a task
//! must depend on the work, the partition and what it reads alone, to the byte: it may be computed again.
//!
//! ```
//! use bytes::Bytes;
//! use situ_compute::engine::{Engine, Engines, Output, TaskContext, TaskError, Work};
//!
//! /// `split` sends the numbers below its argument to their reducers, `sum` adds what it reads.
//! struct Numbers;
//!
//! impl Engine for Numbers {
//!     fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError> {
//!         if let Some(most) = work.strip_prefix(b"split") {
//!             let mut pieces = task.pieces()?;
//!             for number in 0..most[0] {
//!                 pieces.write(u32::from(number) % pieces.reducers(), 1, &[number])?;
//!             }
//!             return pieces.finish();
//!         }
//!         let mut sum = 0_u32;
//!         for frame in task.frames(0, task.partition())? {
//!             sum += frame?.bytes.iter().map(|number| u32::from(*number)).sum::<u32>();
//!         }
//!         Ok(Output::result(sum.to_string()))
//!     }
//! }
//!
//! let directory = std::env::temp_dir().join(format!("situ-doc-engine-{}", std::process::id()));
//! let engines = Engines::new().with("numbers", Numbers);
//! let context = situ_compute::testing::context_with(&directory, engines);
//! let split = context.stage("split", 2, Work::new("numbers", &b"split\x0a"[..])).shuffle(3)?;
//! let totals = split.fill()?;
//! assert_eq!(totals.iter().map(|total| total.records).collect::<Vec<_>>(), [8, 6, 6]);
//! let sums = context.stage("sum", 3, Work::new("numbers", &b"sum"[..])).reads(&split).run()?;
//! assert_eq!(sums, ["36", "24", "30"]);
//! # std::fs::remove_dir_all(&directory).ok();
//! # Ok::<(), situ_compute::ProgramError>(())
//! ```

mod context;
mod error;
mod files;
mod memory;
mod pieces;
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use situ_wire::messages::executor::ShufflePiece;
pub use situ_wire::messages::scheduler::{ReduceTotal, Resources, TaskLocation};
pub use situ_wire::path::DfsPath;

pub use context::TaskContext;
pub use error::TaskError;
pub use files::{FileBlock, FileEntry, FileReader, FileWriter};
pub use memory::Memory;
pub use pieces::{Frame, Frames, Pieces};

pub use crate::dataset::{Shuffle, Stage, Work};
pub(crate) use run::{Assignment, Works, run_assignment};

/// Runs the work of stages.
pub trait Engine: Send + Sync + 'static {
    /// Does one task, on a thread of its own; it may use others, but what comes out must not depend on how they run.
    ///
    /// All calls of `task` block. In asynchronous code they belong where blocking is allowed.
    ///
    /// # Errors
    /// Why the task failed. A panic is a failure of the program, too.
    fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError>;
}

/// What a done task leaves.
#[derive(Debug)]
pub struct Output(pub(crate) Left);

#[derive(Debug)]
pub(crate) enum Left {
    Pieces(Vec<ShufflePiece>),
    Result(Bytes),
}

impl Output {
    /// A result for the driver; of a stage that fills a shuffle [`Pieces::finish`] gives what its tasks leave.
    pub fn result(bytes: impl Into<Bytes>) -> Self {
        Self(Left::Result(bytes.into()))
    }
}

/// The engines of a program, by the kinds of work that they run.
#[derive(Clone, Default)]
pub struct Engines(BTreeMap<String, Arc<dyn Engine>>);

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Engines {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more, in the place of one of the same kind.
    #[must_use]
    pub fn with(mut self, kind: &str, engine: impl Engine) -> Self {
        self.0.insert(kind.to_owned(), Arc::new(engine));
        self
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Arc<dyn Engine>> {
        self.0.get(kind)
    }

    pub(crate) fn kinds(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }
}
