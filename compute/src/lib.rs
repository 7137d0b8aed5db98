//! Datasets, their lineage, and what computes them.
//!
//! A program describes [`Dataset`]s and runs actions on them. It runs several times: once as the *driver*, and once in a
//! *worker* process on every executor that computes for it. All of them build the same graph, so a task is only a few
//! numbers, and closures never travel.
//!
//! What is computed between two operations happens in every one of these processes, and must come to the same: see
//! [`dataset`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | the scheduler's decisions: jobs, stages, tasks, locality, recovery; pure |
//! | [`scheduler`] | the scheduler's server |
//! | [`executor`] | the executor: starts drivers and workers, serves shuffle output and logs |
//! | [`dataset`] | [`Context`], [`Dataset`]: what programs are written with |
//! | [`engine`] | stages whose tasks are given to them, for engines with a plan of their own |
//! | [`program`] | what a program links: its entry point, the driver's and the worker's loops |
//! | [`shuffle`] | how records move from one stage to the next |
//! | [`builtin`] | the programs that every executor has: word count, grep, pi |
//! | [`testing`] | programs in one process, for their tests |
//! | [`text`] | [`Text`], bytes that are cheap to cut and to pass on |

#[cfg(panic = "abort")]
compile_error!(
    "situ-compute ends a task by unwinding: a task that fails, or is not wanted any more, would end the whole worker with \
     `panic = \"abort\"`. Remove that line from the profile in Cargo.toml."
);

pub mod builtin;
pub mod core;
pub mod dataset;
pub mod engine;
pub mod executor;
pub mod program;
pub mod scheduler;
mod shortened;
pub mod shuffle;
pub mod testing;
pub mod text;

pub use dataset::{Broadcast, Context, Dataset, Key, LocalIterator, Record, Records, TextLine, TextOptions, Values};
pub use engine::Resources;
pub use ordered_float::OrderedFloat;
pub use program::error::{ProgramError, ProgramResult};
pub use program::{Program, run, run_with};
pub use text::Text;

#[cfg(test)]
mod simulation;
