use bytes::Bytes;
use situ_wire::ids::ShuffleId;

use super::{Left, Memory, Output, TaskContext, TaskError};
use crate::shuffle::{FrameWriter, PieceReader};

/// What a task writes for each reduce partition of its stage's shuffle. Packed with LZ4; what does not fit into the task's
/// memory stands in a spill file until the end.
pub struct Pieces {
    task: TaskContext,
    shuffle: ShuffleId,
    writer: FrameWriter,
    memory: Memory,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("shuffle", &self.shuffle).finish_non_exhaustive()
    }
}

impl Pieces {
    pub(super) fn new(task: &TaskContext, shuffle: ShuffleId, reducers: u32) -> Self {
        let (writer, memory) = (FrameWriter::new(task.shared(), reducers), task.memory());
        Self { task: task.clone(), shuffle, writer, memory }
    }

    /// Among how many reduce partitions the shuffle splits.
    #[must_use]
    pub fn reducers(&self) -> u32 {
        u32::try_from(self.writer.len()).unwrap_or(u32::MAX)
    }

    /// Adds a frame that holds so many records, at least one, for a reduce partition. It may have no bytes. A frame costs 16
    /// bytes, so gather until there are some tens of KiB or more.
    ///
    /// # Errors
    /// When there is no such partition, the frame holds no record or is too long, the disk fails, or the task was cancelled.
    pub fn write(&mut self, reduce: u32, records: u32, frame: &[u8]) -> Result<(), TaskError> {
        self.task.go_on()?;
        let reducers = self.writer.len();
        let piece = usize::try_from(reduce).ok().filter(|piece| *piece < reducers && records > 0).ok_or_else(|| {
            TaskError::program(format!(
                "a frame of {records} records is for reduce partition {reduce}; it needs one record, and there are {reducers} \
                 partitions"
            ))
        })?;
        self.writer.write(piece, records, frame).map_err(TaskError::program)?;
        let more_bytes = (self.writer.held_bytes() as u64).saturating_sub(self.memory.held_bytes());
        if more_bytes > 0 && !self.memory.try_grow(more_bytes) {
            if self.writer.is_worth_spilling() {
                self.writer.spill()?;
                self.memory.shrink(u64::MAX);
            } else {
                self.memory.grow(more_bytes);
            }
        }
        Ok(())
    }

    /// Puts the pieces where others fetch them: what the task leaves.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn finish(self) -> Result<Output, TaskError> {
        Ok(Output(Left::Pieces(self.writer.finish(self.shuffle, self.task.attempt())?)))
    }
}

/// Bytes that a task of an earlier stage wrote, and how many records they hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Which of the partitions of that stage wrote it.
    pub map: u32,
    /// How many records it holds.
    pub records: u32,
    /// What was written.
    pub bytes: Bytes,
}

/// The frames for one reduce partition: those of every map task, in the order of the map partitions, each as it was written.
///
/// A frame's checksum is checked before it is given, that of its piece at the end of the piece: an engine that has begun to
/// give on what it made must end with the error that comes then.
pub struct Frames {
    reader: PieceReader,
    is_over: bool,
    _memory: Memory,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}

impl Frames {
    pub(super) fn new(reader: PieceReader, memory: Memory) -> Self {
        Self { reader, is_over: false, _memory: memory }
    }

    fn take(&mut self) -> Result<Option<Frame>, TaskError> {
        loop {
            let frame = self.reader.frames.next_frame();
            if let Some((records, bytes)) = frame.map_err(|error| self.reader.damaged(error.to_string()))? {
                let map = self.reader.map().map_or(0, |map| map.partition.0);
                return Ok(Some(Frame { map, records, bytes }));
            }
            if !self.reader.advance()? {
                return Ok(None);
            }
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.take();
        self.is_over = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}
