use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use situ_wire::ids::{PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::scheduler::StageOutput;
use situ_wire::path::DfsPath;

use super::memory::Lender;
use super::{FileBlock, FileEntry, FileReader, FileWriter, Frames, Memory, Pieces, TaskError};
use crate::program::task::{SharedTask, TaskContext as OwnContext};
use crate::shuffle::{PieceReader, window_bytes};

/// What the task of an engine sees of the world. Cheap to clone, and good on any thread, as long as the task runs.
#[derive(Clone)]
pub struct TaskContext(Arc<Inner>);

struct Inner {
    shared: Arc<SharedTask>,
    lender: Lender,
    share_bytes: u64,
    window_bytes: usize,
    reads: Vec<ShuffleId>,
    output: StageOutput,
    spill: PathBuf,
}

impl std::fmt::Debug for TaskContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TaskContext").field(&self.attempt()).finish()
    }
}

impl TaskContext {
    pub(super) fn new(task: &OwnContext, reads: Vec<ShuffleId>, output: StageOutput) -> Self {
        let memory = task.memory();
        Self(Arc::new(Inner {
            shared: Arc::clone(task.shared()),
            lender: Lender { manager: Arc::clone(memory.manager()), borrower: memory.borrower() },
            share_bytes: task.memory_slot_bytes(),
            window_bytes: window_bytes(task.memory_minimum_bytes()),
            reads,
            output,
            spill: task.shared().scratch_path("engine"),
        }))
    }

    pub(super) fn shared(&self) -> &Arc<SharedTask> {
        &self.0.shared
    }

    /// Which attempt at which task it is.
    #[must_use]
    pub fn attempt(&self) -> TaskAttemptId {
        self.0.shared.attempt()
    }

    /// Which partition of its stage.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.attempt().partition.0
    }

    /// Says that the task goes on. One that says nothing, reads nothing and writes nothing for long is taken for one that
    /// stands still.
    ///
    /// # Errors
    /// When nobody waits for it any more: it should end.
    pub fn go_on(&self) -> Result<(), TaskError> {
        if self.0.shared.step() { Ok(()) } else { Err(TaskError::Cancelled) }
    }

    /// Counts records that the task has produced for its driver or for files; those of [`Pieces`] count by themselves.
    pub fn count_records(&self, records: u64) {
        self.0.shared.measure(|metrics| metrics.records += records);
    }

    /// How much memory the task has while all slots are in use. It may get more, and is sure of half.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.share_bytes
    }

    /// Memory for a part of the work: none yet.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory::new(self.0.lender.clone())
    }

    /// A directory on the worker's disk for what does not fit into memory. Nobody makes it before the task; whatever is in it
    /// is deleted when the task has ended.
    #[must_use]
    pub fn spill_directory(&self) -> PathBuf {
        self.0.spill.clone()
    }

    /// How many shuffles the stage reads.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.0.reads.len()
    }

    /// What the tasks of an earlier stage wrote for a reduce partition: of the shuffle that the stage reads as number `input`.
    ///
    /// # Errors
    /// When the stage reads no such shuffle, or it cannot be said where the pieces are.
    pub fn frames(&self, input: usize, reduce: u32) -> Result<Frames, TaskError> {
        let reads = &self.0.reads;
        let shuffle = *reads.get(input).ok_or_else(|| {
            TaskError::program(format!("it asks for input {input}; its stage reads {} shuffles", reads.len()))
        })?;
        let mut memory = self.memory();
        memory.grow(self.0.window_bytes as u64);
        let reader = PieceReader::fetch(&self.0.shared, shuffle, PartitionId(reduce), self.0.window_bytes)?;
        Ok(Frames::new(reader, memory))
    }

    /// For what the task leaves, if its stage fills a shuffle.
    ///
    /// # Errors
    /// When it does not.
    pub fn pieces(&self) -> Result<Pieces, TaskError> {
        match self.0.output {
            StageOutput::Shuffle { shuffle, reducers } => Ok(Pieces::new(self, shuffle, reducers)),
            StageOutput::Result { .. } => {
                Err(TaskError::program("it writes pieces; its stage fills no shuffle, but gives a result"))
            }
        }
    }

    /// What is at a path of the file system, if anything is.
    ///
    /// # Errors
    /// When the file system refuses or is away.
    pub fn stat(&self, path: &DfsPath) -> Result<Option<FileEntry>, TaskError> {
        let entry = self.0.shared.world().files().stat(path)?;
        Ok(entry.map(|entry| FileEntry { path: entry.path, is_directory: entry.is_directory }))
    }

    /// What a directory holds, by name.
    ///
    /// # Errors
    /// When the file system refuses or is away.
    pub fn list(&self, path: &DfsPath) -> Result<Vec<FileEntry>, TaskError> {
        let entries = self.0.shared.world().files().list(path)?;
        let entry =
            |entry: crate::program::world::Entry| FileEntry { path: entry.path, is_directory: entry.is_directory };
        Ok(entries.into_iter().map(entry).collect())
    }

    /// The blocks of a file, in order: together they are as long as the file.
    ///
    /// # Errors
    /// When the file system refuses or is away.
    pub fn blocks(&self, path: &DfsPath) -> Result<Vec<FileBlock>, TaskError> {
        let blocks = self.0.shared.world().files().blocks(path)?;
        let block = |block: crate::program::world::InputBlock| FileBlock {
            offset: block.offset,
            len_bytes: block.len_bytes,
            locations: block.locations,
        };
        Ok(blocks.into_iter().map(block).collect())
    }

    /// Opens a file, of which `range` will be read in order; other places may be read, too.
    ///
    /// # Errors
    /// When the file system refuses or is away.
    pub fn open(&self, path: &DfsPath, range: Range<u64>) -> Result<FileReader, TaskError> {
        Ok(FileReader::new(&self.0.shared, self.0.shared.world().files().open(path, range)?))
    }

    /// Makes a file in a directory that is there. Another attempt at the task may run, and this one may be for nothing: it
    /// belongs aside, under a name with [`TaskContext::attempt`] in it, until the driver moves what counts.
    ///
    /// # Errors
    /// When there is such a file, or the file system refuses or is away.
    pub fn create(&self, path: &DfsPath) -> Result<FileWriter, TaskError> {
        let output = self.0.shared.world().files().create(path)?;
        Ok(FileWriter { task: Arc::clone(&self.0.shared), output })
    }
}
