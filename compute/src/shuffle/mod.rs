//! How records move from the tasks of one stage to the tasks of the next.
//!
//! A map task splits its records among the reduce partitions and leaves one [file](mod@format) with one piece for each of
//! them; the executor serves pieces from it; a reduce task fetches its piece of every map task's file and checks each
//! against the CRC32C that the map task reported. A piece that is missing or wrong is a fetch failure, which makes the
//! map task run again. A piece that is right and whose records do not read back is the program's failure.

mod aggregate;
pub mod format;
mod frame;
mod partitioner;
mod read;
pub(crate) mod records;
mod sorter;
mod write;

pub(crate) use aggregate::{Aggregation, Gatherer, Table};
pub(crate) use partitioner::{Partitioner, by_hash, by_range, hash_key, partition_of};
pub(crate) use read::{ShuffleRecords, verify};
pub(crate) use sorter::{Order, Sorter};
pub(crate) use write::PieceWriter;

#[cfg(test)]
pub(crate) use format::Header;
pub use format::{OutputFile, ShuffleFileError, output_path};
