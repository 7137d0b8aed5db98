//! Reading a file: where its blocks are (`locations`), one block's range from one replica after another (`segment`), and
//! the application's end ([`FileReader`], [`FileStream`]).

mod file_reader;
mod file_stream;
mod locations;
mod segment;

pub use file_reader::{FileReader, ReadStatistics};
pub use file_stream::FileStream;
