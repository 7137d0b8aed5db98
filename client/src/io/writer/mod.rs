//! Writing a file: the application's end ([`FileWriter`]), the task that owns the writing (`owner`), and one task for
//! each pipeline (`pipeline`).

mod file_writer;
mod hashing;
mod owner;
mod pipeline;

pub use file_writer::{CreateOptions, FileWriter, Written};
