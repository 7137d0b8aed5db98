//! How records move from the tasks of one stage to the tasks of the next.
//!
//! A map task splits its records among the reduce partitions and leaves one [file](mod@format) with one piece for each of
//! them; the executor serves pieces from it; a reduce task fetches its piece of every map task's file and checks each,
//! frame by frame as it comes, and as a whole against the CRC32C that the map task reported. A piece that is missing or
//! wrong is a fetch failure, which makes the map task run again. A piece that is right and whose records do not read back
//! is the program's failure.
//!
//! What a task makes of its input, to the byte and in which order, depends on its input alone: not on how much memory there
//! was, on threads, or on what ran before. Whoever computes it again gets the same. That holds for what records serialize:
//! they may be moved to the disk and back at any time, and what a program has made is settled (`settle`) before it is given
//! on where that might be.

pub mod format;
mod frame;
mod gather;
mod partitioner;
mod read;
pub(crate) mod records;
mod resident;
mod settle;
mod size;
mod sorter;
mod table;
mod whole;
mod write;

pub(crate) use gather::Gatherer;
pub(crate) use partitioner::{Partitioner, by_hash, by_range, hash_key, partition_of, rank_of};
pub(crate) use read::{PieceReader, ShuffleRecords, window_bytes};
pub(crate) use settle::Settling;
pub(crate) use size::outside_len;
pub(crate) use sorter::{Order, Sorter};
pub(crate) use table::{Aggregation, COMBINING_TOTAL_BYTES, Table};
pub(crate) use whole::FrameWriter;
pub(crate) use write::PieceWriter;

#[cfg(test)]
pub(crate) use format::Header;
pub use format::{OutputFile, ShuffleFileError, output_path};
