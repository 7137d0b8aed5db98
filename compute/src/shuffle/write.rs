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
use super::frame::{FrameBuffer, FrameError, FrameReader};
use super::read::unreadable;
use crate::program::memory::Reservation;
use crate::program::task::{SharedTask, TaskContext, abort, abort_disk};

/// How long frames become; shorter where there are many pieces.
const FRAME_TARGET_BYTES: usize = 64 << 10;
/// How long the frames of all pieces together become before they are packed, unless that is under [`FRAME_MIN_BYTES`] for
/// each. It is the same for every worker: where frames end is part of what a map task leaves.
const FRAMES_LEN_BYTES: usize = 8 << 20;
/// No frame is made shorter than this, but the last.
const FRAME_MIN_BYTES: usize = 1 << 10;
/// How much is written at a time.
const WRITE_LEN_BYTES: usize = 1 << 20;
/// How much of a spill file is read at a time, for each piece that is being read.
pub(super) const SPOOL_READ_LEN_BYTES: usize = 128 << 10;
/// Less than this is not spilled, however short memory is.
pub(super) const SPILL_MIN_BYTES: usize = 256 << 10;

/// Splits records into pieces, and holds their frames in memory as far as there is some, in a spill file beyond it.
pub(crate) struct PieceWriter {
    task: TaskContext,
    pieces: Vec<PendingPiece>,
    frame_bytes: usize,
    memory: Reservation,
    /// How much the buffers of all open frames take.
    open_bytes: usize,
    /// How much the finished frames take in memory.
    held_bytes: usize,
    spill: Option<Spill>,
}

/// One piece that is being written.
#[derive(Default)]
pub(super) struct PendingPiece {
    /// The frame that is being filled.
    pub(super) frame: FrameBuffer,
    /// Finished frames.
    pub(super) packed: Vec<u8>,
    pub(super) records: u64,
    /// Where its earlier frames are in the spill file.
    pub(super) spilled: Vec<Segment>,
}

/// A part of a piece in a spill file.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    offset: u64,
    len_bytes: usize,
    crc32c: u32,
}

/// A file of the worker's own directory, deleted when it is dropped.
pub(super) struct Spill {
    file: Box<dyn File>,
    path: PathBuf,
    len_bytes: u64,
    task: Arc<SharedTask>,
}

impl PieceWriter {
    /// Writes the output of a map task in `pieces` pieces. Ends the task if there are more than its memory has room for.
    pub(crate) fn output(task: &TaskContext, pieces: usize) -> Self {
        let least_bytes = pieces * (2 * FRAME_MIN_BYTES + size_of::<PendingPiece>());
        let slot_bytes = usize::try_from(task.memory_slot_bytes()).unwrap_or(usize::MAX);
        if least_bytes > slot_bytes.max(2 * FRAMES_LEN_BYTES) {
            abort(TaskFailure::Program {
                message: format!(
                    "{pieces} reduce partitions take {} MiB for what is begun of each, more than a task has here ({} MiB): use \
                     fewer partitions, or raise worker_memory_bytes of the executors",
                    least_bytes >> 20,
                    slot_bytes >> 20
                ),
            });
        }
        Self::new(task, pieces, (FRAMES_LEN_BYTES / pieces.max(1)).clamp(FRAME_MIN_BYTES, FRAME_TARGET_BYTES))
    }

    /// Writes `pieces` pieces that this task reads back, with what memory there is.
    pub(crate) fn spool(task: &TaskContext, pieces: usize) -> Self {
        let frame_bytes = task.memory_minimum_bytes() / (2 * pieces.max(1));
        Self::new(task, pieces, frame_bytes.clamp(FRAME_MIN_BYTES, FRAME_TARGET_BYTES))
    }

    fn new(task: &TaskContext, pieces: usize, frame_bytes: usize) -> Self {
        let memory = task.reserve();
        memory.take(pieces * frame_bytes);
        Self {
            task: task.clone(),
            pieces: std::iter::repeat_with(PendingPiece::default).take(pieces).collect(),
            frame_bytes,
            memory,
            open_bytes: 0,
            held_bytes: 0,
            spill: None,
        }
    }

    /// Adds a record to a piece. Ends the task if it cannot.
    pub(crate) fn write<T: Serialize>(&mut self, piece: usize, record: &T) {
        let pending = &mut self.pieces[piece];
        let open_before = pending.frame.capacity_bytes();
        if let Err(message) = pending.frame.push(record) {
            abort(TaskFailure::Program { message });
        }
        if pending.frame.is_full(self.frame_bytes) {
            self.finish_frame(piece, open_before);
            self.task.go_on();
            self.keep_to_memory();
        } else if pending.frame.capacity_bytes() != open_before {
            self.open_bytes += pending.frame.capacity_bytes() - open_before;
            self.keep_to_memory();
        }
    }

    /// Ends the frame of a piece whose buffer took `open_before` bytes when it was counted last.
    fn finish_frame(&mut self, piece: usize, open_before: usize) {
        let pending = &mut self.pieces[piece];
        let before = pending.packed.capacity();
        pending.records += pending.frame.finish(2 * self.frame_bytes, &mut pending.packed);
        self.held_bytes += pending.packed.capacity() - before;
        self.open_bytes = self.open_bytes + pending.frame.capacity_bytes() - open_before;
    }

    /// What the open frames take, and may take without asking.
    fn open_len_bytes(&self) -> usize {
        self.open_bytes.max(self.pieces.len() * self.frame_bytes)
    }

    fn keep_to_memory(&mut self) {
        let wanted = self.open_len_bytes() + self.held_bytes;
        if self.memory.grow_to(wanted) {
            return;
        }
        if self.held_bytes < SPILL_MIN_BYTES.min(self.task.memory_minimum_bytes()) {
            self.memory.take(wanted);
        } else {
            self.spill();
        }
    }

    /// Moves all finished frames to the spill file.
    fn spill(&mut self) {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => match Spill::create(self.task.shared()) {
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
        self.memory.shrink_to(self.open_len_bytes());
    }

    /// Writes all pieces as the output of a map task, in its place, and says what they are.
    pub(crate) fn finish(mut self, shuffle: ShuffleId, map: TaskAttemptId) -> Vec<ShufflePiece> {
        let pieces = std::mem::take(&mut self.pieces);
        match write_output(self.task.shared(), pieces, self.spill.as_ref(), (shuffle, map)) {
            Ok(pieces) => pieces,
            Err(error) => abort_disk(&error),
        }
    }

    /// Ends the writing; the pieces can be read back by this task.
    pub(crate) fn into_spool(mut self) -> Spool {
        for piece in 0..self.pieces.len() {
            self.finish_frame(piece, self.pieces[piece].frame.capacity_bytes());
        }
        // What comes next needs the memory.
        if self.held_bytes >= SPILL_MIN_BYTES.min(self.task.memory_minimum_bytes()) {
            self.spill();
        }
        self.memory.shrink_to(self.held_bytes);
        let spill = self.spill.take().map(Rc::new);
        let pieces = self.pieces.drain(..).map(|piece| SpoolPiece {
            segments: piece.spilled,
            packed: Bytes::from(piece.packed),
            records: piece.records,
            longest_bytes: piece.frame.longest_bytes(),
        });
        Spool { pieces: pieces.collect(), held: Rc::new((spill, self.memory)) }
    }
}

/// Writes pieces as the output of a map task, in its place, and says what they are.
pub(super) fn write_output(
    task: &SharedTask,
    pieces: Vec<PendingPiece>,
    spill: Option<&Spill>,
    (shuffle, map): (ShuffleId, TaskAttemptId),
) -> Result<Vec<ShufflePiece>, DiskError> {
    let scratch = task.world().scratch();
    let path = output_path(scratch.root(), shuffle, map);
    let aside = path.with_extension("new");
    let mut out = Appender::new(scratch.create(&aside)?, Header::len_bytes(pieces.len()) as u64);
    let mut header = Header { map, shuffle, pieces: Vec::with_capacity(pieces.len()) };
    for mut piece in pieces {
        piece.records += piece.frame.finish(0, &mut piece.packed);
        let (start, mut crc) = (out.position(), 0);
        for segment in &piece.spilled {
            let spill = spill.expect("a piece with segments has a spill file");
            crc = spill.copy(*segment, crc, &mut out)?;
        }
        crc = crc32c::crc32c_append(crc, &piece.packed);
        out.append(&piece.packed)?;
        let len_bytes = out.position() - start;
        header.pieces.push(ShufflePiece { len_bytes, crc32c: crc, records: piece.records });
    }
    let file = out.finish()?;
    file.write_at(0, &header.encode())?;
    scratch.rename(&aside, &path)?;
    task.measure(|metrics| {
        metrics.shuffle_written_bytes += header.pieces.iter().map(|piece| piece.len_bytes).sum::<u64>();
        metrics.records += header.pieces.iter().map(|piece| piece.records).sum::<u64>();
    });
    Ok(header.pieces)
}

impl Spill {
    pub(super) fn create(task: &Arc<SharedTask>) -> Result<Self, DiskError> {
        let path = task.scratch_path("spill");
        let file = task.world().scratch().create(&path)?;
        Ok(Self { file, path, len_bytes: 0, task: Arc::clone(task) })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<Segment, DiskError> {
        let segment = Segment { offset: self.len_bytes, len_bytes: bytes.len(), crc32c: crc32c::crc32c(bytes) };
        self.file.write_at(segment.offset, bytes)?;
        self.len_bytes += bytes.len() as u64;
        Ok(segment)
    }

    /// Copies a segment; `crc` goes on over its bytes. A disk that gives other bytes than were written must not change a
    /// result.
    fn copy(&self, segment: Segment, mut crc: u32, out: &mut Appender) -> Result<u32, DiskError> {
        let (mut found, mut at) = (0, 0);
        while at < segment.len_bytes {
            let bytes = self.read(segment.offset + at as u64, WRITE_LEN_BYTES.min(segment.len_bytes - at))?;
            at += bytes.len();
            found = crc32c::crc32c_append(found, &bytes);
            crc = crc32c::crc32c_append(crc, &bytes);
            out.append(&bytes)?;
        }
        if found == segment.crc32c { Ok(crc) } else { Err(self.damaged(segment.offset, segment.len_bytes)) }
    }

    /// Exactly so many bytes.
    fn read(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        let bytes = self.file.read_at(offset, len_bytes)?;
        if bytes.len() == len_bytes { Ok(bytes) } else { Err(self.damaged(offset, len_bytes)) }
    }

    fn damaged(&self, offset: u64, len_bytes: usize) -> DiskError {
        let kind = DiskErrorKind::Other(format!("{len_bytes} bytes at {offset} are not those that were written"));
        DiskError { path: self.path.clone(), operation: "read", kind }
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
    pieces: Vec<SpoolPiece>,
    /// The spill file, and what the frames in memory take.
    held: Rc<(Option<Rc<Spill>>, Reservation)>,
}

/// One piece of a [`Spool`]: where its frames are, first in the spill file, then in memory.
#[derive(Default)]
struct SpoolPiece {
    segments: Vec<Segment>,
    packed: Bytes,
    records: u64,
    /// How long its longest frame is.
    longest_bytes: usize,
}

impl Spool {
    /// How many pieces there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The records of a piece, which is then empty. Ends the task if they cannot be read.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, piece: usize) -> SpoolRecords<T> {
        let SpoolPiece { segments, packed, records, longest_bytes } = std::mem::take(&mut self.pieces[piece]);
        SpoolRecords {
            segments: segments.into_iter(),
            current: None,
            packed,
            expected: records,
            longest_bytes,
            held: Rc::clone(&self.held),
            reader: FrameReader::default(),
            records: PhantomData,
        }
    }
}

/// The records of one piece of a [`Spool`].
pub(crate) struct SpoolRecords<T> {
    segments: std::vec::IntoIter<Segment>,
    /// What is left of a segment: where, and how much.
    current: Option<(u64, usize)>,
    packed: Bytes,
    /// How many records were written.
    expected: u64,
    longest_bytes: usize,
    held: Rc<(Option<Rc<Spill>>, Reservation)>,
    reader: FrameReader,
    records: PhantomData<fn() -> T>,
}

impl<T> SpoolRecords<T> {
    /// How long the longest of the frames is that the records are in.
    pub(super) fn longest_frame_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// How much memory it takes to read them, now.
    #[cfg(test)]
    pub(super) fn capacity_bytes(&self) -> usize {
        self.reader.capacity_bytes()
    }

    /// The bytes that come next.
    fn more(&mut self) -> Result<Option<Bytes>, DiskError> {
        let Some(spill) = &self.held.0 else {
            return Ok(Some(std::mem::take(&mut self.packed)).filter(|packed| !packed.is_empty()));
        };
        if self.current.is_none() {
            self.current = self.segments.next().map(|segment| (segment.offset, segment.len_bytes));
        }
        let Some((offset, left)) = self.current else {
            return Ok(Some(std::mem::take(&mut self.packed)).filter(|packed| !packed.is_empty()));
        };
        let len = left.min(SPOOL_READ_LEN_BYTES);
        self.current = Some((offset + len as u64, left - len)).filter(|(_, left)| *left > 0);
        spill.read(offset, len).map(Some)
    }

    /// The worker's disk gave other bytes than were written.
    fn damaged(&self, error: &impl std::fmt::Display) -> ! {
        let message = match &self.held.0 {
            Some(spill) => format!("the spill file {} is damaged: {error}", spill.path.display()),
            None => format!("a spool in memory is damaged: {error}"),
        };
        abort(TaskFailure::Storage { message, transient: false })
    }
}

impl<T: DeserializeOwned> Iterator for SpoolRecords<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        loop {
            match self.reader.next() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err(error @ FrameError::Records(_)) => unreadable(&error),
                Err(error) => self.damaged(&error),
            }
            match self.more() {
                Ok(Some(bytes)) => self.reader.feed(bytes),
                Ok(None) => match self.reader.finish() {
                    // At the end; asked once more there is nothing.
                    Ok(found) if found == std::mem::take(&mut self.expected) => return None,
                    Ok(found) => self.damaged(&format!("it gave {found} records of a piece, others were written")),
                    Err(error) => self.damaged(&error),
                },
                Err(error) => abort_disk(&error),
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use situ_runtime::disk::memory::MemoryDisk;
    use situ_wire::ids::{JobId, PartitionId, ScopeId, StageId};
    use situ_wire::messages::scheduler::TaskOutcome;
    use situ_wire::time::TimeMs;

    use super::*;
    use crate::program::error::StorageError;
    use crate::program::memory::{MemoryLimits, MemoryManager};
    use crate::program::task::{TaskOutput, run_task};
    use crate::program::world::{DiskScratch, Files, Output, Pieces, Scratch, World};
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

        fn create_result(&self, _: TaskAttemptId) -> Result<Box<dyn Output>, StorageError> {
            unreachable!("it has no result")
        }

        fn task_memory_bytes(&self) -> u64 {
            unreachable!("the writer is told its budget")
        }

        fn fetch(&self, _: TaskAttemptId, _: ShuffleId, _: PartitionId, _: usize) -> Result<Pieces, TaskFailure> {
            unreachable!("the task fetches nothing")
        }
    }

    /// Does `work` as a task that has so much memory, and a disk to spill to.
    pub(in crate::shuffle) fn in_task(
        limit_bytes: u64,
        work: impl FnOnce(&TaskContext),
    ) -> (TaskOutcome, Arc<MemoryManager>) {
        let attempt =
            TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(0), attempt: 0 };
        let scratch = DiskScratch { disk: MemoryDisk::default(), root: PathBuf::from("/r"), life: None };
        let world: Arc<dyn World> = Arc::new(OnlyDisk(scratch));
        let limits = MemoryLimits { total_bytes: limit_bytes, execution_bytes: limit_bytes, kept_bytes: 0, slots: 1 };
        let manager = MemoryManager::new(limits);
        let outcome = run_task((attempt, 1), Arc::default(), &world, &manager, |task| {
            work(task);
            TaskOutput::Result(Bytes::new())
        });
        (outcome, manager)
    }

    #[test]
    fn pieces_that_are_filled_one_after_the_other_keep_no_memory() {
        const LIMIT_BYTES: u64 = 1 << 20;
        let mut kept_bytes = 0;
        let (outcome, manager) = in_task(LIMIT_BYTES, |task| {
            let mut writer = PieceWriter::spool(task, 16);
            for piece in 0..16 {
                for number in 0..100_000_u32 {
                    writer.write(piece, &hash_key(&number));
                }
            }
            kept_bytes = writer.pieces.iter().map(|piece| piece.packed.capacity()).sum();
        });
        assert!(matches!(outcome, TaskOutcome::Done(_)), "{outcome:?}");
        assert!(kept_bytes as u64 <= LIMIT_BYTES, "{kept_bytes} bytes of {LIMIT_BYTES}");
        // What frames take is what their buffers take.
        assert!(manager.peak_bytes() <= LIMIT_BYTES + 16 * 64 * 1024, "{}", manager.peak_bytes());
    }

    #[test]
    fn a_long_record_in_each_of_many_pieces_holds_no_memory_that_is_not_counted() {
        const PIECES: usize = 1_000;
        let (outcome, manager) = in_task(64 << 20, |task| {
            let mut writer = PieceWriter::output(task, PIECES);
            for round in 0..2_u8 {
                for piece in 0..PIECES {
                    writer.write(piece, &vec![round; 100_000]);
                    for number in 0..700_u64 {
                        writer.write(piece, &hash_key(&number));
                    }
                }
            }
            let open: usize = writer.pieces.iter().map(|piece| piece.frame.capacity_bytes()).sum();
            let packed: usize = writer.pieces.iter().map(|piece| piece.packed.capacity()).sum();
            assert_eq!((open, packed), (writer.open_bytes, writer.held_bytes));
            assert!(open <= 2 * FRAMES_LEN_BYTES, "{open} bytes for frames that are begun");
            assert!(writer.memory.held_bytes() >= open + packed);
        });
        assert!(matches!(outcome, TaskOutcome::Done(_)), "{outcome:?}");
        assert!(manager.peak_bytes() <= 64 << 20);
    }

    #[test]
    fn more_pieces_than_there_is_memory_for_are_refused() {
        let (outcome, _) = in_task(1 << 20, |task| drop(PieceWriter::output(task, 1_000_000)));
        let TaskOutcome::Failed(TaskFailure::Program { message }) = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("1000000 reduce partitions take ") && message.contains("use fewer"), "{message}");
        let (outcome, _) = in_task(1 << 20, |task| drop(PieceWriter::output(task, 6_000)));
        assert!(matches!(outcome, TaskOutcome::Done(_)), "{outcome:?}");
    }

    #[test]
    fn records_that_are_missing_are_no_end() {
        let (outcome, _) = in_task(1 << 20, |task| {
            let mut writer = PieceWriter::spool(task, 1);
            (0..100_u32).for_each(|number| writer.write(0, &number));
            let mut spool = writer.into_spool();
            spool.pieces[0].records += 1;
            spool.take::<u32>(0).for_each(drop);
        });
        let TaskOutcome::Failed(TaskFailure::Storage { message, .. }) = outcome else { panic!("{outcome:?}") };
        assert!(message.contains("100 records of a piece"), "{message}");
    }
}
