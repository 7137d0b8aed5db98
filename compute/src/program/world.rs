//! What tasks and drivers need of the world, behind traits without types: a user's closures are the same whether they
//! run on a cluster or [in one process](super::local), and a `Dataset` must not carry a type for it.
//!
//! All calls block: tasks and programs run on threads of their own.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use situ_runtime::disk::{Disk, DiskError, File, OpenMode};
use situ_wire::ids::{ActionId, DatasetId, OperationId, PartitionId, ScopeId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::{ProcessLife, ShufflePiece};
use situ_wire::messages::scheduler::{TaskFailure, TaskLocation};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::error::{ProgramError, StorageError};
use crate::dataset::Graph;

/// What a task needs.
pub(crate) trait World: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> TimeMs;

    /// The worker's own directory.
    fn scratch(&self) -> &dyn Scratch;

    /// The file system.
    fn files(&self) -> &dyn Files;

    /// Makes the file for a task's result in the job's own directory: it is too long to go by way of the scheduler.
    fn create_result(&self, of: TaskAttemptId) -> Result<Box<dyn Output>, StorageError>;

    /// How long one piece of text may be that a task reads.
    fn task_memory_bytes(&self) -> u64;

    /// What every map task of a shuffle wrote for one reduce partition, in the order of the map partitions. `by` reads it;
    /// about `window_bytes` at most are on their way at once.
    fn fetch(
        &self,
        by: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
        window_bytes: usize,
    ) -> Result<Pieces, TaskFailure>;
}

/// Pieces that are being fetched.
pub(crate) type Pieces = Box<dyn Iterator<Item = Result<Piece, TaskFailure>> + Send>;

/// What one map task wrote for one reduce partition.
pub(crate) struct Piece {
    /// The attempt that wrote it.
    pub(crate) map: TaskAttemptId,
    /// What was reported of it.
    pub(crate) piece: ShufflePiece,
    /// Its bytes, as they come. Who takes them checks them.
    pub(crate) chunks: Box<dyn Iterator<Item = Result<Bytes, TaskFailure>> + Send>,
}

/// What runs actions.
pub(crate) trait Backend: Send + Sync + 'static {
    /// Runs an action of a scope, or gives the result that its driver got; in a worker nothing, where only the driver uses
    /// it.
    fn run_action(&self, action: ActionId, scope: &ScopePath, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError>;

    /// Waits until somebody here needs the program to go on: it is about to fetch results that are large. In a driver that is
    /// so at once.
    fn wait_for_need(&self) -> Result<(), ProgramError>;

    /// Computes a value from outside and records it, or gives what is recorded. Only a driver computes.
    fn record(
        &self,
        action: ActionId,
        scope: &ScopePath,
        compute: &mut dyn FnMut(&dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError>;

    /// What a scope of this name came to, if it has ended and need not run here.
    fn scope_outcome(&self, scope: &ScopePath, name: &str) -> Result<Option<Bytes>, ProgramError>;

    /// A scope of this name has ended here, perhaps with an error. Gives what it came to in the driver, whose `outcome` is
    /// recorded: what belongs to the scope is forgotten.
    fn end_scope(
        &self,
        scope: &ScopePath,
        name: &str,
        error: Option<&str>,
        outcome: Bytes,
    ) -> Result<Bytes, ProgramError>;

    /// The program has let go of something that was kept for it.
    fn release(&self, what: Released);

    /// The file system.
    fn files(&self) -> &dyn Files;

    /// The file system, for what only the driver does; none in a worker.
    fn driver_files(&self) -> Option<&dyn Files>;

    /// The job's own directory, which is taken away with the job, however that ends, and whoever has written to it.
    fn own_directory(&self) -> Result<DfsPath, ProgramError>;

    /// Notes that tasks will write below `output`, so that it is taken away should the job not succeed, even when its
    /// driver is killed, and that the driver will publish there what belongs to `action`; whether it has done so already, in
    /// an earlier attempt. Only a driver does.
    fn publishing(&self, action: ActionId, output: &DfsPath) -> Result<bool, ProgramError>;

    /// Notes that it has: no later attempt at the driver does it again.
    fn published(&self, action: ActionId) -> Result<(), ProgramError>;

    /// Has what tasks wrote aside below `output` taken away, now or when the job ends: nothing is published there. Only a
    /// driver does.
    fn take_away(&self, output: &DfsPath) -> Result<(), StorageError>;

    /// Names the publication that belongs to an action: the same in every attempt at the driver, whatever became of the
    /// scheduler meanwhile.
    fn publication(&self, action: ActionId) -> OperationId;

    /// A name for the job, for directories of its own.
    fn job_name(&self) -> String;

    /// Which attempt at the driver this is. Only a driver asks.
    fn attempt(&self) -> u32;

    /// Whether the replay of the program is checked.
    fn is_checked(&self) -> bool {
        false
    }
}

/// A scope and those around it, but for the whole program.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct ScopePath(Vec<ScopeId>);

impl ScopePath {
    /// A scope within this one.
    pub(crate) fn with(&self, inner: ScopeId) -> Self {
        Self(std::iter::once(inner).chain(self.0.iter().copied()).collect())
    }

    pub(crate) fn id(&self) -> ScopeId {
        self.0.first().copied().unwrap_or(ScopeId::ROOT)
    }

    /// Whether it is within this other one.
    pub(crate) fn is_within(&self, outer: ScopeId) -> bool {
        match outer {
            ScopeId::ROOT => !self.0.is_empty(),
            outer => self.0.iter().skip(1).any(|scope| *scope == outer),
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.0.len()
    }

    /// The innermost first.
    pub(crate) fn to_vec(&self) -> Vec<ScopeId> {
        self.0.clone()
    }
}

/// What a program has let go of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Released {
    /// Nobody reads the pieces of this shuffle any more.
    Shuffle(ShuffleId),
    /// Nobody reads the persisted partitions of this dataset any more.
    Dataset(DatasetId),
}

/// The file system as far as programs need it.
pub(crate) trait Files: Send + Sync {
    /// What is at a path: none, or whether it is a directory.
    fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError>;

    /// What a directory holds, by name.
    fn list(&self, path: &DfsPath) -> Result<Vec<Entry>, StorageError>;

    /// The blocks of a file, in order.
    fn blocks(&self, path: &DfsPath) -> Result<Vec<InputBlock>, StorageError>;

    /// Opens a file for reading; `range` will be read in order.
    fn open(&self, path: &DfsPath, range: Range<u64>) -> Result<Box<dyn Input>, StorageError>;

    /// Makes a directory and its missing parents; fine if it is there.
    fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError>;

    /// Makes a directory that nobody else may look into, in one in which everybody may make things, and that one and its
    /// missing parents if they are missing; fine if it is there.
    fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError>;

    /// Makes a file in a directory that is there.
    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError>;

    /// Publishes output: all moves happen and `remove` goes, or nothing happens.
    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError>;

    /// Deletes a file or directory; whether it was there.
    fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError>;
}

/// A file or directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Its path.
    pub(crate) path: DfsPath,
    /// Whether it is a directory.
    pub(crate) is_directory: bool,
    /// Whether it is a file that is still being written.
    pub(crate) is_open: bool,
}

/// One block of an input file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct InputBlock {
    /// Where in the file it starts.
    pub(crate) offset: u64,
    /// How many bytes it holds.
    pub(crate) len_bytes: u64,
    /// Where its replicas are.
    pub(crate) locations: Vec<TaskLocation>,
}

/// A file open for reading.
pub(crate) trait Input: Send {
    /// Up to `len_bytes` bytes from `offset` on, at least one but at the end of the file.
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, StorageError>;

    /// What reading has taken so far.
    fn statistics(&self) -> InputStatistics;
}

/// What reading took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct InputStatistics {
    /// Bytes that a datanode of another node sent.
    pub(crate) remote_bytes: u64,
    /// Blocks read from another replica than the first that was tried.
    pub(crate) failovers: u64,
}

/// A file being written. Dropped without [`Output::close`], it is given up.
pub(crate) trait Output: Send {
    /// Appends bytes.
    fn write(&mut self, bytes: Bytes) -> Result<(), StorageError>;

    /// Closes it: its bytes are durable.
    fn close(self: Box<Self>) -> Result<(), StorageError>;
}

/// Where in a worker's directory files are that do not outlive their task.
const SPILL: &str = "spill";

/// A worker's own directory on a local disk.
pub(crate) trait Scratch: Send + Sync {
    /// Where it is.
    fn root(&self) -> &Path;

    /// The directory in it of files that are deleted by the task that makes them.
    fn spill(&self) -> PathBuf {
        self.root().join(SPILL)
    }

    /// Makes a file and its missing parents; one that is there is emptied.
    fn create(&self, path: &Path) -> Result<Box<dyn File>, DiskError>;

    /// Moves a file into its place.
    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError>;

    /// Deletes a file.
    fn remove(&self, path: &Path) -> Result<(), DiskError>;

    /// Deletes a directory and all that is in it, if it is there.
    fn remove_directory(&self, path: &Path) -> Result<(), DiskError>;
}

/// A [`Scratch`] on a disk.
pub(crate) struct DiskScratch<D> {
    pub(crate) disk: D,
    pub(crate) root: PathBuf,
    /// The process whose spilled files stand apart from those of earlier ones.
    pub(crate) life: Option<ProcessLife>,
}

impl<D: Disk> DiskScratch<D> {
    /// Deletes what earlier processes have spilled, who were killed and could not.
    pub(crate) fn forget_earlier(&self) -> Result<(), DiskError> {
        let spill = self.root.join(SPILL);
        if !self.disk.exists(&spill)? {
            return Ok(());
        }
        let own = self.life.map(|life| life.0.to_string());
        for earlier in self.disk.list(&spill)?.into_iter().filter(|entry| Some(&entry.name) != own.as_ref()) {
            self.disk.remove_directory(&spill.join(&earlier.name))?;
        }
        Ok(())
    }
}

impl<D: Disk> Scratch for DiskScratch<D> {
    fn root(&self) -> &Path {
        &self.root
    }

    fn spill(&self) -> PathBuf {
        let spill = self.root.join(SPILL);
        self.life.map_or(spill.clone(), |life| spill.join(life.0.to_string()))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>, DiskError> {
        if let Some(parent) = path.parent() {
            self.disk.create_directory(parent)?;
        }
        Ok(Box::new(self.disk.open(path, OpenMode::Truncate)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.disk.remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        if self.disk.exists(path)? { self.disk.remove_directory(path) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;

    use super::*;

    #[test]
    fn a_worker_deletes_what_killed_ones_have_spilled() {
        let disk = MemoryDisk::default();
        let scratch =
            |life| DiskScratch { disk: disk.clone(), root: PathBuf::from("/work"), life: Some(ProcessLife(life)) };
        let (first, second) = (scratch(1), scratch(2));
        first.forget_earlier().unwrap();
        first.create(&first.spill().join("a")).unwrap();
        first.create(&first.root().join("shuffle-1").join("output")).unwrap();
        second.create(&second.spill().join("b")).unwrap();
        second.forget_earlier().unwrap();
        assert!(!disk.exists(&first.spill()).unwrap() && disk.exists(&second.spill().join("b")).unwrap());
        assert!(disk.exists(Path::new("/work/shuffle-1/output")).unwrap());
    }
}
