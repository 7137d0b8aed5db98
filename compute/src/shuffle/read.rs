//! Taking records out of what was fetched.

use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use situ_wire::ids::{PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::TaskFailure;

use super::frame::{FrameError, FrameReader};
use crate::program::memory::Reservation;
use crate::program::task::{SharedTask, TaskContext, abort};
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

/// How much may be under way to a task of which an operator may hold `minimum_bytes`.
pub(crate) fn window_bytes(minimum_bytes: usize) -> usize {
    (2 * minimum_bytes).clamp(WINDOW_MIN_BYTES, WINDOW_MAX_BYTES)
}

/// What every map task of a shuffle wrote for one reduce partition, in the order of the map partitions, checked.
///
/// Frames are given while their piece still comes: the checksum of each is checked before, that of the piece when all of it
/// was there. Where that one is wrong the task fails, with whatever it has made of them.
pub(crate) struct PieceReader {
    task: Arc<SharedTask>,
    shuffle: ShuffleId,
    pieces: Pieces,
    current: Option<Current>,
    pub(crate) frames: FrameReader,
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

impl PieceReader {
    /// Begins to fetch, so many bytes at a time.
    pub(crate) fn fetch(
        task: &Arc<SharedTask>,
        shuffle: ShuffleId,
        reduce: PartitionId,
        window_bytes: usize,
    ) -> Result<Self, TaskFailure> {
        let pieces = task.world().fetch(task.attempt(), shuffle, reduce, window_bytes).inspect_err(|failure| {
            // What it reads is being made again: the attempt is as good as cancelled.
            if *failure == TaskFailure::Cancelled {
                task.give_up();
            }
        })?;
        Ok(Self { task: Arc::clone(task), shuffle, pieces, current: None, frames: FrameReader::default() })
    }

    /// Whose piece is being taken.
    pub(crate) fn map(&self) -> Option<TaskAttemptId> {
        self.current.as_ref().map(|current| current.piece.map)
    }

    /// Takes the bytes that come next; false at the end of the last piece.
    #[inline(never)]
    pub(crate) fn advance(&mut self) -> Result<bool, TaskFailure> {
        if !self.task.step() {
            return Err(TaskFailure::Cancelled);
        }
        let Some(current) = &mut self.current else {
            let Some(piece) = self.pieces.next() else { return Ok(false) };
            self.current = Some(Current { piece: piece?, found: ShufflePiece::default() });
            return Ok(true);
        };
        match current.piece.chunks.next() {
            Some(bytes) => {
                let bytes = bytes?;
                self.task.measure(|metrics| metrics.shuffle_read_bytes += bytes.len() as u64);
                current.found.len_bytes += bytes.len() as u64;
                current.found.crc32c = crc32c::crc32c_append(current.found.crc32c, &bytes);
                self.frames.feed(bytes);
            }
            None => {
                let whole = self.frames.finish().map_err(|error| error.to_string());
                let checked = whole.and_then(|records| {
                    current.found.records = records;
                    current.check()
                });
                checked.map_err(|reason| self.damaged(reason))?;
                self.current = None;
            }
        }
        Ok(true)
    }

    /// The bytes are not those that were written: only another run of the map task can help.
    pub(crate) fn damaged(&self, reason: String) -> TaskFailure {
        let map = self.map().expect("bytes are those of a piece");
        TaskFailure::Fetch { shuffle: self.shuffle, map, reason }
    }
}

/// The records of one reduce partition: those of every map task, in the order of the map partitions.
pub(crate) struct ShuffleRecords<T> {
    reader: PieceReader,
    /// Holds what may be under way.
    _memory: Reservation,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ShuffleRecords<T> {
    /// Begins to fetch. Ends the task if it cannot.
    pub(crate) fn fetch(task: &TaskContext, shuffle: ShuffleId, reduce: PartitionId) -> Self {
        let memory = task.reserve();
        let window_bytes = window_bytes(task.memory_minimum_bytes());
        memory.take(window_bytes);
        let reader = PieceReader::fetch(task.shared(), shuffle, reduce, window_bytes);
        Self { reader: reader.unwrap_or_else(|failure| abort(failure)), _memory: memory, records: PhantomData }
    }

    /// Ends the task because of a frame.
    fn refuse(&self, error: &FrameError) -> ! {
        match error {
            // Its checksum is right.
            FrameError::Records(_) => unreadable(error),
            _ => abort(self.reader.damaged(error.to_string())),
        }
    }
}

impl<T: DeserializeOwned> Iterator for ShuffleRecords<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            match self.reader.frames.next() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => self.refuse(&error),
            }
            match self.reader.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(failure) => abort(failure),
            }
        }
    }
}
