use std::sync::Arc;

use bytes::Bytes;
use situ_wire::messages::scheduler::TaskLocation;
use situ_wire::path::DfsPath;

use super::TaskError;
use crate::program::task::SharedTask;
use crate::program::world::{Input, InputStatistics, Output};

/// A file or directory of the file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Its path.
    pub path: DfsPath,
    /// Whether it is a directory.
    pub is_directory: bool,
}

/// A block of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileBlock {
    /// Where in the file it starts.
    pub offset: u64,
    /// How many bytes it holds.
    pub len_bytes: u64,
    /// Where its replicas are.
    pub locations: Vec<TaskLocation>,
}

/// A file open for reading. Every byte that it gives is verified.
pub struct FileReader {
    task: Arc<SharedTask>,
    input: Box<dyn Input>,
    counted: InputStatistics,
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").finish_non_exhaustive()
    }
}

impl FileReader {
    pub(super) fn new(task: &Arc<SharedTask>, input: Box<dyn Input>) -> Self {
        Self { task: Arc::clone(task), input, counted: InputStatistics::default() }
    }

    /// Up to `len_bytes` bytes from `offset` on, at least one but at the end of the file.
    ///
    /// # Errors
    /// When no replica can be read, or the task was cancelled.
    pub fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, TaskError> {
        let bytes = self.input.read_at(offset, len_bytes)?;
        let (now, before) = (self.input.statistics(), self.counted);
        self.counted = now;
        self.task.measure(|metrics| {
            metrics.input_bytes += bytes.len() as u64;
            metrics.remote_bytes += now.remote_bytes - before.remote_bytes;
            metrics.failovers += now.failovers - before.failovers;
        });
        if self.task.step() { Ok(bytes) } else { Err(TaskError::Cancelled) }
    }
}

/// A file being written. Dropped without [`FileWriter::close`], it is given up.
pub struct FileWriter {
    pub(super) task: Arc<SharedTask>,
    pub(super) output: Box<dyn Output>,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter").finish_non_exhaustive()
    }
}

impl FileWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// When they cannot be written, or the task was cancelled.
    pub fn write(&mut self, bytes: Bytes) -> Result<(), TaskError> {
        self.output.write(bytes)?;
        if self.task.step() { Ok(()) } else { Err(TaskError::Cancelled) }
    }

    /// Closes it: its bytes are durable.
    ///
    /// # Errors
    /// When they are not.
    pub fn close(self) -> Result<(), TaskError> {
        Ok(self.output.close()?)
    }
}
