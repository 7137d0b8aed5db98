//! A program in one process, over a directory, without a cluster: for tests of programs and of this crate.
//!
//! The same plans and the same tasks as on a cluster, one after the other on the calling thread; shuffle output is
//! written and read back in its real format.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use situ_runtime::clock::Clock;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{ActionId, ClientId, JobId, OperationId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{Plan, StageOutput, StagePlan, TaskDone, TaskFailure, TaskOutcome};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::error::{ProgramError, StorageError};
use super::memory::{MemoryLimits, MemoryManager};
use super::task::run_task;
use super::worker::run_stage_task;
use super::world::{
    Backend, DiskScratch, Entry, Files, Input, InputBlock, InputStatistics, Output, Piece, Pieces, Scratch, World,
};
use crate::dataset::{Context, Graph};
use crate::shuffle::OutputFile;

/// How a program runs in one process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalOptions {
    /// How long the blocks of an input file are taken to be: a partition each.
    pub block_len_bytes: u64,
    /// How much memory a task may use for what it gathers before it spills.
    pub task_memory_bytes: u64,
    /// How much memory partitions that are kept may take.
    pub cache_memory_bytes: u64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { block_len_bytes: 16 << 20, task_memory_bytes: 256 << 20, cache_memory_bytes: 256 << 20 }
    }
}

/// A context whose paths lie below `root` of `disk`: `/in` is the file `root/files/in`. What tasks write for each other
/// lies in `root/work`.
pub fn context<D: Disk, C: Clock>(disk: D, clock: C, root: &Path, options: LocalOptions) -> Context {
    attempts(disk, clock, root, options)()
}

/// The same for a job whose driver is started again and again while nobody remembers what an earlier one recorded: each
/// context is that of the next attempt.
pub(crate) fn attempts<D: Disk, C: Clock>(
    disk: D,
    clock: C,
    root: &Path,
    options: LocalOptions,
) -> impl Fn() -> Context {
    let world = world(disk, clock, root, options);
    move || in_world(&world).0
}

/// The same, with what counts the memory of its tasks.
#[cfg(test)]
pub(crate) fn measured<D: Disk, C: Clock>(
    disk: D,
    clock: C,
    root: &Path,
    options: LocalOptions,
) -> (Context, Arc<MemoryManager>) {
    in_world(&world(disk, clock, root, options))
}

fn world<D: Disk, C: Clock>(disk: D, clock: C, root: &Path, options: LocalOptions) -> Arc<LocalWorld<D, C>> {
    Arc::new(LocalWorld {
        files: LocalFiles {
            disk: disk.clone(),
            root: root.join("files"),
            block_len_bytes: options.block_len_bytes.max(1),
            published: Mutex::default(),
        },
        scratch: DiskScratch { disk, root: root.join("work") },
        clock,
        options,
        outputs: Mutex::default(),
    })
}

fn in_world<D: Disk, C: Clock>(world: &Arc<LocalWorld<D, C>>) -> (Context, Arc<MemoryManager>) {
    let LocalOptions { task_memory_bytes, cache_memory_bytes, .. } = world.options;
    let memory = MemoryManager::new(MemoryLimits {
        total_bytes: task_memory_bytes.saturating_add(cache_memory_bytes),
        execution_bytes: task_memory_bytes,
        kept_bytes: cache_memory_bytes,
        slots: 1,
    });
    let graph = Arc::new(RwLock::new(Graph::default()));
    let backend = LocalBackend { graph: Arc::clone(&graph), world: Arc::clone(world), memory: Arc::clone(&memory) };
    (Context::new(graph, Box::new(backend)), memory)
}

/// A clock that stands still, for tests and measurements in which nothing waits.
#[derive(Clone, Copy, Debug)]
pub struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> TimeMs {
        TimeMs(0)
    }

    fn sleep_until(&self, _: TimeMs) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// How much of a piece is read at a time.
const READ_LEN_BYTES: usize = 256 << 10;

/// The only job of the process.
const JOB: JobId = JobId(1);

/// What each map task of a shuffle left.
type Outputs = HashMap<ShuffleId, Vec<(TaskAttemptId, Vec<ShufflePiece>)>>;

struct LocalWorld<D, C> {
    files: LocalFiles<D>,
    scratch: DiskScratch<D>,
    clock: C,
    options: LocalOptions,
    outputs: Mutex<Outputs>,
}

impl<D: Disk, C: Clock> World for LocalWorld<D, C> {
    fn now(&self) -> TimeMs {
        self.clock.now()
    }

    fn scratch(&self) -> &dyn Scratch {
        &self.scratch
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn task_memory_bytes(&self) -> u64 {
        self.options.task_memory_bytes
    }

    fn is_wanted(&self, _: TaskAttemptId) -> bool {
        true
    }

    fn fetch(&self, shuffle: ShuffleId, reduce: PartitionId, _: usize) -> Result<Pieces, TaskFailure> {
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = outputs.get(&shuffle).cloned().unwrap_or_default();
        let (disk, root) = (self.scratch.disk.clone(), self.scratch.root.clone());
        Ok(Box::new(outputs.into_iter().map(move |(map, pieces)| {
            let fetch = move |reason| TaskFailure::Fetch { shuffle, map, reason };
            let chunks = read_piece(&disk, &root, shuffle, map, reduce).map_err(fetch)?;
            let chunks = Box::new(chunks.map(move |chunk| chunk.map_err(fetch)));
            Ok(Piece { map, piece: pieces[reduce.0 as usize], chunks })
        })))
    }
}

/// The bytes of a piece, some at a time.
fn read_piece<D: Disk>(
    disk: &D,
    root: &Path,
    shuffle: ShuffleId,
    map: TaskAttemptId,
    reduce: PartitionId,
) -> Result<impl Iterator<Item = Result<Bytes, String>> + use<D>, String> {
    let output = OutputFile::open(disk, root, shuffle, map).map_err(|error| error.to_string())?;
    let (_, range) = output.range((reduce, PartitionId(reduce.0 + 1))).map_err(|error| error.to_string())?;
    Ok(range.clone().step_by(READ_LEN_BYTES).map(move |offset| {
        let len = usize::try_from(range.end - offset).unwrap_or(usize::MAX).min(READ_LEN_BYTES);
        output.file().read_at(offset, len).map_err(|error| error.to_string())
    }))
}

struct LocalBackend<D, C> {
    graph: Arc<RwLock<Graph>>,
    world: Arc<LocalWorld<D, C>>,
    memory: Arc<MemoryManager>,
}

impl<D: Disk, C: Clock> LocalBackend<D, C> {
    /// Runs a stage; gives the result of each partition.
    fn run_stage(&self, stage: &StagePlan) -> Result<Vec<Bytes>, String> {
        let mut outputs = Vec::new();
        let mut results = Vec::new();
        for partition in 0..stage.partitions {
            let attempt = TaskAttemptId { job: JOB, stage: stage.stage, partition: PartitionId(partition), attempt: 0 };
            let done = self.run_partition(attempt)?;
            outputs.push((attempt, done.pieces));
            results.push(done.result);
        }
        if let StageOutput::Shuffle { shuffle, .. } = stage.output {
            self.world.outputs.lock().unwrap_or_else(PoisonError::into_inner).insert(shuffle, outputs);
        }
        Ok(results)
    }

    fn run_partition(&self, attempt: TaskAttemptId) -> Result<TaskDone, String> {
        let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
        let task = graph.stage_task(attempt.stage).ok_or_else(|| format!("there is no {}", attempt.stage))?;
        drop(graph);
        let world: Arc<dyn World> = Arc::clone(&self.world) as Arc<dyn World>;
        match run_task(attempt, &world, &self.memory, |context| run_stage_task(&task, context)) {
            TaskOutcome::Done(done) => Ok(*done),
            TaskOutcome::Failed(failure) => Err(describe(attempt, &failure)),
        }
    }
}

fn describe(attempt: TaskAttemptId, failure: &TaskFailure) -> String {
    let reason = match failure {
        TaskFailure::Fetch { shuffle, map, reason } => format!("it could not fetch {shuffle} from {map}: {reason}"),
        TaskFailure::Program { message } | TaskFailure::PlanMismatch { message } | TaskFailure::Storage { message } => {
            message.clone()
        }
        TaskFailure::WorkerLost { reason } | TaskFailure::ExecutorLost { reason } => reason.clone(),
        TaskFailure::Cancelled => "it was cancelled".to_owned(),
    };
    format!("{attempt}: {reason}")
}

impl<D: Disk, C: Clock> Backend for LocalBackend<D, C> {
    fn run_action(&self, _: ActionId, plan: Plan) -> Result<Vec<Bytes>, ProgramError> {
        let mut results = Vec::new();
        for stage in &plan.stages {
            if let StageOutput::Shuffle { shuffle, .. } = stage.output
                && self.world.outputs.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&shuffle)
            {
                continue;
            }
            results =
                self.run_stage(stage).map_err(|message| ProgramError::Action { action: plan.name.clone(), message })?;
        }
        Ok(results)
    }

    fn record(&self, _: ActionId, compute: &mut dyn FnMut(&dyn Files) -> Bytes) -> Result<Bytes, ProgramError> {
        Ok(compute(&self.world.files))
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        Some(&self.world.files)
    }

    fn writes_aside(&self, _: &DfsPath) -> Result<(), ProgramError> {
        Ok(())
    }

    fn publication(&self, action: ActionId) -> OperationId {
        OperationId { client: ClientId(0), sequence: u64::from(action.0) }
    }

    fn job_name(&self) -> String {
        JOB.to_string()
    }
}

/// A directory as a file system.
struct LocalFiles<D> {
    disk: D,
    root: PathBuf,
    block_len_bytes: u64,
    /// Publications that were carried out, and are not again.
    published: Mutex<BTreeSet<OperationId>>,
}

impl<D: Disk> LocalFiles<D> {
    fn path(&self, path: &DfsPath) -> PathBuf {
        path.components().fold(self.root.clone(), |directory, name| directory.join(name))
    }

    fn len(&self, path: &DfsPath) -> Result<u64, DiskError> {
        self.disk.open(&self.path(path), OpenMode::Read)?.len()
    }
}

impl From<DiskError> for StorageError {
    fn from(error: DiskError) -> Self {
        let code = match error.kind {
            DiskErrorKind::NotFound => ErrorCode::NotFound,
            DiskErrorKind::AlreadyExists => ErrorCode::AlreadyExists,
            DiskErrorKind::Full => ErrorCode::DiskFull,
            _ => ErrorCode::Io,
        };
        Self { code, message: error.to_string() }
    }
}

impl<D: Disk> Files for LocalFiles<D> {
    fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
        let local = self.path(path);
        if !self.disk.exists(&local)? {
            return Ok(None);
        }
        Ok(Some(Entry { path: path.clone(), is_directory: self.disk.list(&local).is_ok(), is_open: false }))
    }

    fn list(&self, path: &DfsPath) -> Result<Vec<Entry>, StorageError> {
        let entries = self.disk.list(&self.path(path))?;
        let entry = |entry: situ_runtime::disk::DirectoryEntry| match path.join(&entry.name) {
            Ok(path) => Ok(Entry { path, is_directory: entry.is_directory, is_open: false }),
            Err(error) => Err(StorageError { code: ErrorCode::InvalidArgument, message: error.to_string() }),
        };
        entries.into_iter().map(entry).collect()
    }

    fn blocks(&self, path: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
        let len = self.len(path)?;
        let starts = (0..len).step_by(usize::try_from(self.block_len_bytes).unwrap_or(usize::MAX));
        let block =
            |offset| InputBlock { offset, len_bytes: self.block_len_bytes.min(len - offset), locations: Vec::new() };
        Ok(starts.map(block).collect())
    }

    fn open(&self, path: &DfsPath, _: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
        Ok(Box::new(LocalInput(self.disk.open(&self.path(path), OpenMode::Read)?)))
    }

    fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        Ok(self.disk.create_directory(&self.path(path))?)
    }

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        Ok(Box::new(LocalOutput { file: self.disk.open(&self.path(path), OpenMode::CreateNew)?, len_bytes: 0 }))
    }

    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        success: DfsPath,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if published.contains(&operation) {
            return Ok(());
        }
        if success.starts_with(&remove) {
            let message = format!("{success}: it lies within {remove}, which is removed");
            return Err(StorageError { code: ErrorCode::InvalidArgument, message });
        }
        for (_, to) in &moves {
            if self.disk.exists(&self.path(to))? {
                return Err(StorageError {
                    code: ErrorCode::AlreadyExists,
                    message: format!("{to}: it exists already"),
                });
            }
        }
        for (from, to) in &moves {
            self.disk.rename(&self.path(from), &self.path(to))?;
        }
        self.disk.open(&self.path(&success), OpenMode::CreateNew)?;
        self.disk.remove_directory(&self.path(&remove))?;
        published.insert(operation);
        Ok(())
    }

    fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
        let local = self.path(path);
        if !self.disk.exists(&local)? {
            return Ok(false);
        }
        if !recursive && !self.disk.list(&local)?.is_empty() {
            return Err(StorageError { code: ErrorCode::NotEmpty, message: format!("{path}: it is not empty") });
        }
        self.disk.remove_directory(&local)?;
        Ok(true)
    }
}

struct LocalInput<F>(F);

impl<F: File> Input for LocalInput<F> {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, StorageError> {
        Ok(self.0.read_at(offset, len_bytes)?)
    }

    fn statistics(&self) -> InputStatistics {
        InputStatistics::default()
    }
}

struct LocalOutput<F> {
    file: F,
    len_bytes: u64,
}

impl<F: File> Output for LocalOutput<F> {
    fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.file.write_at(self.len_bytes, &bytes)?;
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        Ok(self.file.sync()?)
    }
}
