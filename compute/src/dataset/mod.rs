//! What programs are written with: a [`Context`] makes [`Dataset`]s, their operations make more, actions compute them.
//!
//! Names follow the RDD API of Apache Spark. Operations are lazy: they add a node to the program's lineage graph and
//! nothing else. An action sends the graph to the scheduler and waits.
//!
//! What a program must keep to, because it runs several times (see [`run`](crate::run)): the same arguments give the same
//! operations in the same order, and functions that give the same for the same record. What varies (the time, random
//! numbers, files outside Situ, **the order of a `HashMap`**) enters through [`Context::once`], [`Context::share`],
//! [`Context::broadcast`] or the result of an action, all of which are the driver's in every process; or it is sorted. What
//! [`Context::parallelize`] is given is the driver's already. `situ job submit --check-replay` looks for what was missed,
//! and programs built without `--release` are always checked: each worker runs the program twice and computes every task
//! in both runs, and where they differ the job fails and says where.
//!
//! Functions given to operations run in other processes than the one that goes on to print the result: what they change
//! outside their arguments stays there. What stands between two actions happens in every process, `println!` included.

mod action;
mod cache;
mod compression;
mod context;
mod core;
mod graph;
mod groups;
mod keyed;
mod local_iterator;
mod parallelize;
mod pieces;
mod places;
mod record;
mod records;
mod results;
mod save;
mod scope;
mod sort;
mod stage;
mod text_file;
mod transform;
mod values;

pub use context::Context;
pub use core::Dataset;
pub use groups::Values;
pub use local_iterator::LocalIterator;
pub use record::{Key, Record};
pub use records::Records;
pub use save::TextLine;
pub(crate) use save::clean_up;
pub(crate) use stage::read_stored;
pub use stage::{Shuffle, Stage, Work};
pub use text_file::TextOptions;
pub use values::Broadcast;

pub(crate) use cache::{Dropped, Kept};
pub(crate) use graph::{END, Graph, StageTask};
pub(crate) use results::told_of;

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod replay_tests;
#[cfg(test)]
mod results_tests;
#[cfg(test)]
mod scope_tests;
#[cfg(test)]
mod stage_tests;
#[cfg(test)]
mod tests;
