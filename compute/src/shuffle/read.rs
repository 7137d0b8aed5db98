//! Taking records out of what was fetched.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use situ_wire::ids::{PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::TaskFailure;

use super::frame::{FrameError, FrameReader};
use crate::program::task::{TaskContext, abort};
use crate::program::world::Piece;

/// Checks fetched bytes against what their map task reported.
///
/// # Errors
/// Says how they differ.
pub(crate) fn verify(piece: &ShufflePiece, bytes: &[u8]) -> Result<(), String> {
    let len = bytes.len() as u64;
    if len != piece.len_bytes {
        return Err(format!("it has {len} bytes, {} were written", piece.len_bytes));
    }
    let crc = crc32c::crc32c(bytes);
    if crc != piece.crc32c {
        return Err(format!("its checksum is {crc:08x}, {:08x} was written", piece.crc32c));
    }
    Ok(())
}

/// Ends the task because records do not read back out of bytes that are those that were written. To write them again
/// would not help.
pub(super) fn unreadable(error: &FrameError) -> ! {
    abort(TaskFailure::Program {
        message: format!("a record cannot be read back: {error}; does its type serialize as it deserializes?"),
    })
}

/// The records of one reduce partition: those of every map task, in the order of the map partitions.
pub(crate) struct ShuffleRecords<T> {
    task: TaskContext,
    shuffle: ShuffleId,
    pieces: Box<dyn Iterator<Item = Result<Piece, TaskFailure>>>,
    /// The piece that is being taken: whose it is, and how many records are still to come.
    current: Option<(TaskAttemptId, u64)>,
    reader: FrameReader,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ShuffleRecords<T> {
    /// Begins to fetch. Ends the task if it cannot.
    pub(crate) fn fetch(task: &TaskContext, shuffle: ShuffleId, reduce: PartitionId) -> Self {
        match task.world().fetch(task.attempt(), shuffle, reduce) {
            Ok(pieces) => Self {
                task: task.clone(),
                shuffle,
                pieces,
                current: None,
                reader: FrameReader::new(bytes::Bytes::new()),
                records: PhantomData,
            },
            Err(failure) => abort(failure),
        }
    }

    /// The bytes are those that were written, but not what they should be: only another run of the map task can help.
    fn damaged(&self, map: TaskAttemptId, reason: String) -> ! {
        abort(TaskFailure::Fetch { shuffle: self.shuffle, map, reason })
    }
}

impl<T: DeserializeOwned> Iterator for ShuffleRecords<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            if let Some((map, left)) = self.current {
                match self.reader.next() {
                    Ok(Some(record)) if left > 0 => {
                        self.current = Some((map, left - 1));
                        return Some(record);
                    }
                    Ok(None) if left == 0 => self.current = None,
                    Ok(_) => self.damaged(map, "it does not hold as many records as were written".to_owned()),
                    Err(error @ FrameError::Records(_)) => unreadable(&error),
                    Err(error) => self.damaged(map, error.to_string()),
                }
            }
            match self.pieces.next()? {
                Ok(Piece { map, piece, bytes }) => {
                    self.task.go_on();
                    self.task.measure(|metrics| metrics.shuffle_read_bytes += piece.len_bytes);
                    self.current = Some((map, piece.records));
                    self.reader = FrameReader::new(bytes);
                }
                Err(failure) => abort(failure),
            }
        }
    }
}
