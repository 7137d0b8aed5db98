//! What programs are written with: a [`Context`] makes [`Dataset`]s, their operations make more, actions compute them.
//!
//! Names follow the RDD API of Apache Spark. Operations are lazy: they add a node to the program's lineage graph and
//! nothing else. An action sends the graph to the scheduler and waits.
//!
//! What a program must keep to, because it runs several times (see [`run`](crate::run)): the same arguments give the same
//! operations in the same order. What varies (the time, random numbers, files outside Situ) enters through the result of
//! an action. Functions given to operations run in other processes than the one that goes on to print the result: what
//! they change outside their arguments stays there.

mod action;
mod cache;
mod context;
mod core;
mod graph;
mod groups;
mod keyed;
mod parallelize;
mod pieces;
mod places;
mod records;
mod save;
mod sort;
mod text_file;
mod transform;

pub use context::Context;
pub use core::Dataset;
pub use groups::Values;
pub use records::Records;
pub use save::TextLine;
pub(crate) use save::clean_up;

pub(crate) use cache::Kept;
pub(crate) use graph::{Graph, StageTask};

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod tests;
