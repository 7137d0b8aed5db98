//! A program in one process, over a directory, without a cluster: for tests of programs and of this crate.
//!
//! The same plans and the same tasks as on a cluster, one after the other on the calling thread; shuffle output is
//! written and read back in its real format.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use situ_runtime::clock::Clock;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{ActionId, ClientId, JobId, OperationId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{StageOutput, StagePlan, StageWork, TaskDone, TaskFailure, TaskOutcome};
use situ_wire::path::DfsPath;
use situ_wire::time::{TimeMs, WallTime};

use super::driver::publication;
use super::error::{ProgramError, StorageError};
use super::memory::{MemoryLimits, MemoryManager};
use super::own::create_result;
use super::runs::run_stage_task;
use super::task::run_task;
use super::world::{
    Backend, DiskScratch, Entry, Files, Input, InputBlock, InputStatistics, Output, Piece, Pieces, Released, ScopePath,
    Scratch, World,
};
use crate::core::{job_directory, totals};
use crate::dataset::{Context, Graph};
use crate::engine::{Assignment, Engines, TaskError, run_assignment};
use crate::shuffle::{OutputFile, output_path};

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

impl LocalOptions {
    pub(super) fn memory_limits(&self) -> MemoryLimits {
        let Self { task_memory_bytes, cache_memory_bytes, .. } = *self;
        MemoryLimits {
            total_bytes: task_memory_bytes.saturating_add(cache_memory_bytes),
            execution_bytes: task_memory_bytes,
            kept_bytes: cache_memory_bytes,
            slots: 1,
        }
    }
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

/// The same with engines for the work of stages.
pub fn context_with<D: Disk, C: Clock>(
    disk: D,
    clock: C,
    root: &Path,
    options: LocalOptions,
    engines: Engines,
) -> Context {
    in_world(&LocalWorld::new(disk, clock, root, options), engines, 0).0
}

/// The same for a job whose driver is started again and again while nobody remembers what an earlier one recorded: each
/// context is that of the next attempt.
pub(crate) fn attempts<D: Disk, C: Clock>(
    disk: D,
    clock: C,
    root: &Path,
    options: LocalOptions,
) -> impl Fn() -> Context {
    let (world, next) = (LocalWorld::new(disk, clock, root, options), AtomicU32::new(0));
    move || in_world(&world, Engines::default(), next.fetch_add(1, Ordering::Relaxed)).0
}

/// The same, with what counts the memory of its tasks.
#[cfg(test)]
pub(crate) fn measured<D: Disk, C: Clock>(
    disk: D,
    clock: C,
    root: &Path,
    options: LocalOptions,
) -> (Context, Arc<MemoryManager>) {
    in_world(&LocalWorld::new(disk, clock, root, options), Engines::default(), 0)
}

fn in_world<D: Disk, C: Clock>(
    world: &Arc<LocalWorld<D, C>>,
    engines: Engines,
    attempt: u32,
) -> (Context, Arc<MemoryManager>) {
    let memory = MemoryManager::new(world.options.memory_limits());
    let backend = LocalBackend { world: Arc::clone(world), memory: Arc::clone(&memory), engines, attempt };
    (Context::new(Arc::new(backend)), memory)
}

/// A clock that stands still, for tests and measurements in which nothing waits.
#[derive(Clone, Copy, Debug)]
pub struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> TimeMs {
        TimeMs(0)
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep_until(&self, _: TimeMs) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// The own directory of the only job.
pub(super) fn own_directory() -> DfsPath {
    job_directory(&JOB.to_string(), ClientId(0)).expect("that is a name for a job")
}

/// How much of a piece is read at a time.
const READ_LEN_BYTES: usize = 256 << 10;

/// The only job of the process.
pub(super) const JOB: JobId = JobId(1);

/// What each map task of a shuffle left.
pub(super) type Outputs = HashMap<ShuffleId, Vec<(TaskAttemptId, Vec<ShufflePiece>)>>;

/// What all of a job see in one process.
pub(super) struct LocalWorld<D, C> {
    files: LocalFiles<D>,
    scratch: DiskScratch<D>,
    clock: C,
    options: LocalOptions,
    outputs: Mutex<Outputs>,
}

impl<D: Disk, C: Clock> LocalWorld<D, C> {
    pub(super) fn new(disk: D, clock: C, root: &Path, options: LocalOptions) -> Arc<Self> {
        let files = LocalFiles {
            disk: disk.clone(),
            root: root.join("files"),
            block_len_bytes: options.block_len_bytes.max(1),
            published: Mutex::default(),
        };
        let scratch = DiskScratch { disk, root: root.join("work"), life: None };
        Arc::new(Self { files, scratch, clock, options, outputs: Mutex::default() })
    }

    /// Runs the stages of a plan that have not run, each task by `run`; gives the results of the last.
    pub(super) fn run_stages(
        &self,
        stages: &[StagePlan],
        run: impl Fn(&StagePlan, TaskAttemptId) -> Result<TaskDone, String>,
    ) -> Result<Vec<Bytes>, String> {
        let mut results = Vec::new();
        for stage in stages {
            let shuffle = match stage.output {
                StageOutput::Shuffle { shuffle, .. } => Some(shuffle),
                StageOutput::Result { .. } => None,
            };
            if shuffle.is_some_and(|shuffle| self.outputs().contains_key(&shuffle)) {
                continue;
            }
            let mut outputs = Vec::new();
            results.clear();
            for partition in (0..stage.partitions).map(PartitionId) {
                let attempt = TaskAttemptId { job: JOB, stage: stage.stage, partition, attempt: 0 };
                let done = run(stage, attempt)?;
                outputs.push((attempt, done.pieces));
                results.push(done.result);
            }
            if let Some(shuffle) = shuffle {
                self.outputs().insert(shuffle, outputs);
            }
        }
        Ok(match stages.last().map(|stage| stage.output) {
            // It may have been filled before.
            Some(output @ StageOutput::Shuffle { shuffle, .. }) => {
                let tasks = self.outputs().get(&shuffle).cloned().unwrap_or_default();
                totals(output, tasks.into_iter().map(|(_, pieces)| pieces.into_iter()))
            }
            _ => results,
        })
    }

    pub(super) fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a shuffle and deletes its pieces.
    pub(super) fn release(&self, shuffle: ShuffleId) {
        for (map, _) in self.outputs().remove(&shuffle).unwrap_or_default() {
            if let Err(error) = self.scratch.remove(&output_path(&self.scratch.root, shuffle, map)) {
                tracing::warn!(%error, "a piece of a shuffle stays");
            }
        }
    }
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

    fn create_result(&self, of: TaskAttemptId) -> Result<Box<dyn Output>, StorageError> {
        create_result(&self.files, &own_directory(), of)
    }

    fn task_memory_bytes(&self) -> u64 {
        self.options.task_memory_bytes
    }

    fn fetch(
        &self,
        _: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
        _: usize,
    ) -> Result<Pieces, TaskFailure> {
        let outputs = self.outputs().get(&shuffle).cloned().unwrap_or_default();
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
    world: Arc<LocalWorld<D, C>>,
    memory: Arc<MemoryManager>,
    engines: Engines,
    attempt: u32,
}

pub(super) fn describe(attempt: TaskAttemptId, failure: &TaskFailure) -> String {
    let reason = match failure {
        TaskFailure::Fetch { shuffle, map, reason } => format!("it could not fetch {shuffle} from {map}: {reason}"),
        TaskFailure::Program { message }
        | TaskFailure::PlanMismatch { message }
        | TaskFailure::Storage { message, .. } => message.clone(),
        TaskFailure::WorkerLost { reason, .. } | TaskFailure::WorkerSilent { reason, .. } => reason.clone(),
        TaskFailure::Cancelled => "it was cancelled".to_owned(),
        TaskFailure::NoEngine { kind, known } => format!("there is no engine {kind:?}, only these: {known:?}"),
    };
    format!("{attempt}: {reason}")
}

impl<D: Disk, C: Clock> Backend for LocalBackend<D, C> {
    fn run_action(&self, _: ActionId, _: &ScopePath, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
        let plan = graph.plan(None);
        let world: Arc<dyn World> = Arc::clone(&self.world) as Arc<dyn World>;
        let run = |stage: &StagePlan, attempt| {
            if let Some(work) = &stage.work {
                let given = StageWork { work: work.clone(), reads: stage.reads.clone(), partitions: stage.partitions };
                let loaded = || Assignment::load(&given, &self.world.files).map_err(TaskError::from);
                let load = || Ok(Arc::new(loaded()?));
                let (engine, task) = ((&self.engines, work.kind.as_str()), ((attempt, 1), stage.output));
                return match run_assignment(engine, task, Arc::default(), &world, &self.memory, load) {
                    TaskOutcome::Done(done) => Ok(*done),
                    TaskOutcome::Failed(failure) => Err(describe(attempt, &failure)),
                };
            }
            let task = graph.stage_task(stage.stage).ok_or_else(|| format!("there is no {}", stage.stage))?;
            match run_task((attempt, 1), Arc::default(), &world, &self.memory, |context| run_stage_task(&task, context))
            {
                TaskOutcome::Done(done) => Ok(*done),
                TaskOutcome::Failed(failure) => Err(describe(attempt, &failure)),
            }
        };
        let failed = |message| ProgramError::Action { action: plan.name.clone(), message };
        self.world.run_stages(&plan.stages, run).map_err(failed)
    }

    fn wait_for_need(&self) -> Result<(), ProgramError> {
        Ok(())
    }

    fn release(&self, what: Released) {
        match what {
            Released::Shuffle(shuffle) => self.world.release(shuffle),
            Released::Dataset(dataset) => self.memory.remove(dataset),
        }
    }

    fn files(&self) -> &dyn Files {
        &self.world.files
    }

    fn record(
        &self,
        _: ActionId,
        _: &ScopePath,
        compute: &mut dyn FnMut(&dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        Ok(compute(&self.world.files))
    }

    fn scope_outcome(&self, _: &ScopePath, _: &str) -> Result<Option<Bytes>, ProgramError> {
        Ok(None)
    }

    fn end_scope(&self, _: &ScopePath, _: &str, _: Option<&str>, outcome: Bytes) -> Result<Bytes, ProgramError> {
        Ok(outcome)
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        Some(&self.world.files)
    }

    fn own_directory(&self) -> Result<DfsPath, ProgramError> {
        Ok(own_directory())
    }

    fn publishing(&self, _: ActionId, _: &DfsPath) -> Result<bool, ProgramError> {
        Ok(false)
    }

    fn published(&self, _: ActionId) -> Result<(), ProgramError> {
        Ok(())
    }

    fn take_away(&self, output: &DfsPath) -> Result<(), StorageError> {
        crate::dataset::clean_up(self.files(), output, &self.job_name())
    }

    fn publication(&self, action: ActionId) -> OperationId {
        publication(ClientId(0), action)
    }

    fn job_name(&self) -> String {
        JOB.to_string()
    }

    fn attempt(&self) -> u32 {
        self.attempt
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

    fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        // The files of a test have no owners.
        self.make_directory(path)
    }

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        Ok(Box::new(LocalOutput { file: self.disk.open(&self.path(path), OpenMode::CreateNew)?, len_bytes: 0 }))
    }

    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError> {
        let mut published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        if published.contains(&operation) {
            return Ok(());
        }
        for (_, to) in &moves {
            if to.starts_with(&remove) {
                let message = format!("{to}: it lies within {remove}, which is removed");
                return Err(StorageError { code: ErrorCode::InvalidArgument, message });
            }
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
