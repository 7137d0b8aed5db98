//! Splitting records into pieces.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_runtime::disk::{DiskError, DiskErrorKind, File};
use situ_wire::ids::{ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::TaskFailure;

use super::format::{Header, output_path};
use super::frame::{FrameBuffer, FrameReader};
use super::read::unreadable;
use crate::program::task::{TaskContext, abort, abort_disk};

/// How long frames become; shorter where there are so many pieces that their frames would fill the memory.
const FRAME_TARGET_BYTES: usize = 64 << 10;
/// How much is written at a time.
const WRITE_LEN_BYTES: usize = 1 << 20;

/// Splits records into pieces, and holds their frames in memory up to a budget and in a spill file beyond it.
pub(crate) struct PieceWriter {
    task: TaskContext,
    pieces: Vec<PendingPiece>,
    frame_bytes: usize,
    /// How much the finished frames may take in memory.
    budget_bytes: usize,
    held_bytes: usize,
    spill: Option<Spill>,
}

/// One piece that is being written.
#[derive(Default)]
struct PendingPiece {
    /// The frame that is being filled.
    frame: FrameBuffer,
    /// Finished frames.
    packed: Vec<u8>,
    records: u64,
    /// Where its earlier frames are in the spill file.
    spilled: Vec<Segment>,
}

/// A part of a piece in a spill file.
#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    len_bytes: usize,
    crc32c: u32,
}

/// A file of the worker's own directory, deleted when it is dropped.
struct Spill {
    file: Box<dyn File>,
    path: PathBuf,
    len_bytes: u64,
    task: TaskContext,
}

impl PieceWriter {
    /// Writes `pieces` pieces and holds up to `budget_bytes` of them in memory.
    pub(crate) fn new(task: &TaskContext, pieces: usize, budget_bytes: usize) -> Self {
        Self {
            task: task.clone(),
            pieces: std::iter::repeat_with(PendingPiece::default).take(pieces).collect(),
            frame_bytes: (budget_bytes / (2 * pieces.max(1))).clamp(1 << 10, FRAME_TARGET_BYTES),
            budget_bytes: budget_bytes / 2,
            held_bytes: 0,
            spill: None,
        }
    }

    /// Adds a record to a piece. Ends the task if it cannot.
    pub(crate) fn write<T: Serialize>(&mut self, piece: usize, record: &T) {
        let pending = &mut self.pieces[piece];
        if let Err(message) = pending.frame.push(record) {
            abort(TaskFailure::Program { message });
        }
        if pending.frame.is_full(self.frame_bytes) {
            let before = pending.packed.len();
            pending.records += pending.frame.finish(&mut pending.packed);
            self.held_bytes += pending.packed.len() - before;
            self.task.go_on();
            if self.held_bytes > self.budget_bytes {
                self.spill();
            }
        }
    }

    /// Moves all finished frames to the spill file.
    fn spill(&mut self) {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => match Spill::create(&self.task) {
                Ok(spill) => self.spill.insert(spill),
                Err(error) => abort_disk(&error),
            },
        };
        for piece in self.pieces.iter_mut().filter(|piece| !piece.packed.is_empty()) {
            // Taken with its memory: a piece that gets no more records must not keep what counts as free.
            let packed = std::mem::take(&mut piece.packed);
            match spill.append(&packed) {
                Ok(segment) => piece.spilled.push(segment),
                Err(error) => abort_disk(&error),
            }
        }
        self.held_bytes = 0;
    }

    /// Writes all pieces as the output of a map task, in its place, and says what they are.
    pub(crate) fn finish(mut self, shuffle: ShuffleId, map: TaskAttemptId) -> Vec<ShufflePiece> {
        let pieces = match self.write_output(shuffle, map) {
            Ok(pieces) => pieces,
            Err(error) => abort_disk(&error),
        };
        self.task.measure(|metrics| {
            metrics.shuffle_written_bytes += pieces.iter().map(|piece| piece.len_bytes).sum::<u64>();
            metrics.records += pieces.iter().map(|piece| piece.records).sum::<u64>();
        });
        pieces
    }

    fn write_output(&mut self, shuffle: ShuffleId, map: TaskAttemptId) -> Result<Vec<ShufflePiece>, DiskError> {
        let world = Arc::clone(self.task.world());
        let scratch = world.scratch();
        let path = output_path(scratch.root(), shuffle, map);
        let aside = path.with_extension("new");
        let mut out = Appender::new(scratch.create(&aside)?, Header::len_bytes(self.pieces.len()) as u64);
        let mut header = Header { map, shuffle, pieces: Vec::with_capacity(self.pieces.len()) };
        for mut piece in std::mem::take(&mut self.pieces) {
            piece.records += piece.frame.finish(&mut piece.packed);
            let (start, mut crc) = (out.position(), 0);
            for segment in &piece.spilled {
                let spill = self.spill.as_ref().expect("a piece with segments has a spill file");
                let bytes = spill.read(*segment)?;
                crc = crc32c::crc32c_append(crc, &bytes);
                out.append(&bytes)?;
            }
            crc = crc32c::crc32c_append(crc, &piece.packed);
            out.append(&piece.packed)?;
            let len_bytes = out.position() - start;
            header.pieces.push(ShufflePiece { len_bytes, crc32c: crc, records: piece.records });
        }
        let file = out.finish()?;
        file.write_at(0, &header.encode())?;
        scratch.rename(&aside, &path)?;
        Ok(header.pieces)
    }

    /// Ends the writing; the pieces can be read back by this task.
    pub(crate) fn into_spool(mut self) -> Spool {
        let spill = self.spill.take().map(Rc::new);
        let pieces = self.pieces.drain(..).map(|mut piece| {
            piece.frame.finish(&mut piece.packed);
            (piece.spilled, Bytes::from(piece.packed))
        });
        Spool { pieces: pieces.collect(), spill }
    }
}

impl Spill {
    fn create(task: &TaskContext) -> Result<Self, DiskError> {
        let path = task.scratch_path("spill");
        let file = task.world().scratch().create(&path)?;
        Ok(Self { file, path, len_bytes: 0, task: task.clone() })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<Segment, DiskError> {
        let segment = Segment { offset: self.len_bytes, len_bytes: bytes.len(), crc32c: crc32c::crc32c(bytes) };
        self.file.write_at(segment.offset, bytes)?;
        self.len_bytes += bytes.len() as u64;
        Ok(segment)
    }

    /// Reads a segment back. A disk that gives other bytes than were written must not change a result.
    fn read(&self, segment: Segment) -> Result<Bytes, DiskError> {
        let bytes = self.file.read_at(segment.offset, segment.len_bytes)?;
        if bytes.len() != segment.len_bytes || crc32c::crc32c(&bytes) != segment.crc32c {
            return Err(DiskError {
                path: self.path.clone(),
                operation: "read",
                kind: DiskErrorKind::Other(format!(
                    "{} bytes at {} are not those that were written",
                    segment.len_bytes, segment.offset
                )),
            });
        }
        Ok(bytes)
    }
}

impl Drop for Spill {
    fn drop(&mut self) {
        if let Err(error) = self.task.world().scratch().remove(&self.path) {
            tracing::warn!(%error, "a spill file stays");
        }
    }
}

/// Appends to a file in large writes.
struct Appender {
    file: Box<dyn File>,
    offset: u64,
    gathered: Vec<u8>,
}

impl Appender {
    fn new(file: Box<dyn File>, offset: u64) -> Self {
        Self { file, offset, gathered: Vec::new() }
    }

    fn position(&self) -> u64 {
        self.offset + self.gathered.len() as u64
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= WRITE_LEN_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.write_at(self.offset, &self.gathered)?;
        self.offset += self.gathered.len() as u64;
        self.gathered.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Box<dyn File>, DiskError> {
        self.flush()?;
        Ok(self.file)
    }
}

/// Pieces that the task that wrote them reads back.
pub(crate) struct Spool {
    /// Where each piece's frames are: first in the spill file, then in memory.
    pieces: Vec<(Vec<Segment>, Bytes)>,
    spill: Option<Rc<Spill>>,
}

impl Spool {
    /// How many pieces there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The records of a piece, which is then empty. Ends the task if they cannot be read.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, piece: usize) -> SpoolRecords<T> {
        let (segments, held) = std::mem::take(&mut self.pieces[piece]);
        SpoolRecords {
            segments: segments.into_iter(),
            held,
            spill: self.spill.clone(),
            reader: FrameReader::new(Bytes::new()),
            records: PhantomData,
        }
    }
}

/// The records of one piece of a [`Spool`].
pub(crate) struct SpoolRecords<T> {
    segments: std::vec::IntoIter<Segment>,
    held: Bytes,
    spill: Option<Rc<Spill>>,
    reader: FrameReader,
    records: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for SpoolRecords<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.reader.next() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error) => unreadable(&error),
            }
            let bytes = match (self.segments.next(), &self.spill) {
                (Some(segment), Some(spill)) => match spill.read(segment) {
                    Ok(bytes) => bytes,
                    Err(error) => abort_disk(&error),
                },
                _ if self.held.is_empty() => return None,
                _ => std::mem::take(&mut self.held),
            };
            self.reader = FrameReader::new(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;
    use situ_wire::ids::{JobId, PartitionId, StageId};
    use situ_wire::messages::scheduler::TaskOutcome;
    use situ_wire::time::TimeMs;

    use super::*;
    use crate::dataset::Cache;
    use crate::program::task::{TaskOutput, run_task};
    use crate::program::world::{DiskScratch, Files, Piece, Scratch, World};
    use crate::shuffle::hash_key;

    /// A world that is a disk to spill to.
    struct OnlyDisk(DiskScratch<MemoryDisk>);

    impl World for OnlyDisk {
        fn now(&self) -> TimeMs {
            TimeMs(0)
        }

        fn scratch(&self) -> &dyn Scratch {
            &self.0
        }

        fn files(&self) -> &dyn Files {
            unreachable!("the task reads no file")
        }

        fn task_memory_bytes(&self) -> u64 {
            unreachable!("the writer is told its budget")
        }

        fn fetch(
            &self,
            _: TaskAttemptId,
            _: ShuffleId,
            _: PartitionId,
        ) -> Result<Box<dyn Iterator<Item = Result<Piece, TaskFailure>>>, TaskFailure> {
            unreachable!("the task fetches nothing")
        }
    }

    #[test]
    fn pieces_that_are_filled_one_after_the_other_keep_no_memory() {
        const BUDGET_BYTES: usize = 64 << 10;
        let attempt = TaskAttemptId { job: JobId(1), stage: StageId(0), partition: PartitionId(0), attempt: 0 };
        let world: Arc<dyn World> =
            Arc::new(OnlyDisk(DiskScratch { disk: MemoryDisk::default(), root: PathBuf::from("/r") }));
        let mut kept_bytes = 0;
        let outcome = run_task(attempt, Arc::default(), &world, &Arc::new(Cache::new(0)), |task| {
            let mut writer = PieceWriter::new(task, 16, BUDGET_BYTES);
            for piece in 0..16 {
                for number in 0..10_000_u32 {
                    writer.write(piece, &hash_key(&number));
                }
            }
            kept_bytes = writer.pieces.iter().map(|piece| piece.packed.capacity()).sum();
            TaskOutput::Result(Bytes::new())
        });
        assert!(matches!(outcome, TaskOutcome::Done(_)), "{outcome:?}");
        // A vector that grows may be half empty.
        assert!(kept_bytes <= 2 * BUDGET_BYTES, "{kept_bytes} bytes with a budget of {BUDGET_BYTES}");
    }
}
