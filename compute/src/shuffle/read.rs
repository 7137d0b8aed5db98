//! Taking records out of what was fetched.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use situ_wire::ids::{PartitionId, ShuffleId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::TaskFailure;

use super::frame::{FrameError, FrameReader};
use crate::program::memory::Reservation;
use crate::program::task::{TaskContext, abort};
use crate::program::world::{Piece, Pieces};

/// How much may be under way to a task at once, at least and at most: as long as the task is busy with one piece, nobody
/// takes what comes of the others, and all of them together must fit into the window of one connection.
const WINDOW_MIN_BYTES: usize = 3 << 20;
const WINDOW_MAX_BYTES: usize = 8 << 20;

/// Ends the task because records do not read back out of bytes that are those that were written. To write them again
/// would not help.
pub(super) fn unreadable(error: &FrameError) -> ! {
    abort(TaskFailure::Program {
        message: format!("a record cannot be read back: {error}; does its type serialize as it deserializes?"),
    })
}

/// The records of one reduce partition: those of every map task, in the order of the map partitions.
///
/// They are given while their piece still comes: the checksum of each frame is checked before, that of the piece when all
/// of it was there. Where that one is wrong the task fails, with whatever it has made of the records.
pub(crate) struct ShuffleRecords<T> {
    task: TaskContext,
    shuffle: ShuffleId,
    pieces: Pieces,
    current: Option<Current>,
    reader: FrameReader,
    /// Holds what may be under way.
    _memory: Reservation,
    records: PhantomData<fn() -> T>,
}

/// The piece that is being taken.
struct Current {
    piece: Piece,
    /// What has come of it.
    found: ShufflePiece,
}

impl Current {
    fn check(&self) -> Result<(), String> {
        let (found, written) = (&self.found, &self.piece.piece);
        if found.len_bytes != written.len_bytes {
            return Err(format!("it has {} bytes, {} were written", found.len_bytes, written.len_bytes));
        }
        if found.crc32c != written.crc32c {
            return Err(format!("its checksum is {:08x}, {:08x} was written", found.crc32c, written.crc32c));
        }
        if found.records != written.records {
            return Err(format!("it has {} records, {} were written", found.records, written.records));
        }
        Ok(())
    }
}

impl<T: DeserializeOwned> ShuffleRecords<T> {
    /// Begins to fetch. Ends the task if it cannot.
    pub(crate) fn fetch(task: &TaskContext, shuffle: ShuffleId, reduce: PartitionId) -> Self {
        let memory = task.reserve();
        let window_bytes = (2 * task.memory_minimum_bytes()).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES);
        memory.take(window_bytes);
        match task.world().fetch(task.attempt(), shuffle, reduce, window_bytes) {
            Ok(pieces) => Self {
                task: task.clone(),
                shuffle,
                pieces,
                current: None,
                reader: FrameReader::default(),
                _memory: memory,
                records: PhantomData,
            },
            Err(failure) => abort(failure),
        }
    }

    /// Takes the bytes that come next; false at the end of the last piece.
    #[inline(never)]
    fn advance(&mut self) -> bool {
        self.task.go_on();
        let Some(current) = &mut self.current else {
            let Some(piece) = self.pieces.next() else { return false };
            let piece = piece.unwrap_or_else(|failure| abort(failure));
            self.current = Some(Current { piece, found: ShufflePiece { len_bytes: 0, crc32c: 0, records: 0 } });
            return true;
        };
        match current.piece.chunks.next() {
            Some(Ok(bytes)) => {
                self.task.measure(|metrics| metrics.shuffle_read_bytes += bytes.len() as u64);
                current.found.len_bytes += bytes.len() as u64;
                current.found.crc32c = crc32c::crc32c_append(current.found.crc32c, &bytes);
                self.reader.feed(bytes);
            }
            Some(Err(failure)) => abort(failure),
            None => {
                let whole = self.reader.finish().map_err(|error| error.to_string());
                let checked = whole.and_then(|records| {
                    current.found.records = records;
                    current.check()
                });
                if let Err(reason) = checked {
                    self.damaged(reason);
                }
                self.current = None;
            }
        }
        true
    }

    /// The bytes are not those that were written: only another run of the map task can help.
    fn damaged(&self, reason: String) -> ! {
        let map = self.current.as_ref().map(|current| current.piece.map).expect("bytes are those of a piece");
        abort(TaskFailure::Fetch { shuffle: self.shuffle, map, reason })
    }

    /// Ends the task because of a frame.
    fn refuse(&self, error: &FrameError) -> ! {
        match error {
            // Its checksum is right.
            FrameError::Records(_) => unreadable(error),
            _ => self.damaged(error.to_string()),
        }
    }
}

impl<T: DeserializeOwned> Iterator for ShuffleRecords<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            match self.reader.next() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => self.refuse(&error),
            }
            if !self.advance() {
                return None;
            }
        }
    }
}
