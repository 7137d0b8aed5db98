//! Namespace operations are linearizable, each applied at most once whatever is retried.
//!
//! Checked by witness: the order of the transactions in the journal is the order that must explain everything. The
//! operations of the journal are carried out in that order on a [`Model`], which gives the answer that each must have
//! had and, after each transaction, what every read must have seen. The [`Witness`] compares them with the answers that
//! clients got, and checks that an answer is never older than one that another client had before it asked.

mod entry;
mod model;
mod reads;
mod witness;

pub use entry::{BlockEntry, Entry, FileEntry};
pub use model::{Expected, Model};
pub use witness::{Answer, Disagreement, Witness};
