//! The check of the replay: a task is computed with what two runs of the program have made, and both must come to the same.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use blake3::Hasher;
use bytes::Bytes;
use situ_runtime::disk::{DiskError, File};
use situ_wire::ids::{OperationId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{TaskDone, TaskFailure, TaskOutcome};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::error::StorageError;
use super::memory::MemoryManager;
use super::runs::{Found, STACK_LEN_BYTES, run_stage_task};
use super::task::{TaskControl, run_task};
use super::world::{Entry, Files, Input, InputBlock, Output, Pieces, Scratch, World};
use crate::dataset::StageTask;
use crate::shuffle::{output_path, records};

/// Where below the worker's directory the second computation writes.
const ASIDE: &str = "check";

/// Whether this process has warned of records that are not the same to the byte.
static HAS_WARNED: AtomicBool = AtomicBool::new(false);

/// Does a task with what one run of the program has made, and once more with what another has made; its outcome is that of
/// the first if both are the same. The second leaves nothing: its shuffle output is deleted, its files are not written.
///
/// Records that differ only in the order of what they hold are the same: a `HashMap` has none.
pub(super) fn compute_twice(
    (attempt, slots): (TaskAttemptId, u32),
    control: &Arc<TaskControl>,
    world: &Arc<dyn World>,
    (found, memory): (&Found, &Arc<MemoryManager>),
    (again, other_memory): (&Found, &Arc<MemoryManager>),
) -> TaskOutcome {
    let watched = Watched::new(world, world.scratch().root().to_owned(), true);
    let (mut done, records) = match compute((attempt, slots), control, &watched, found, memory) {
        (TaskOutcome::Done(done), records) => (done, records),
        (failed @ TaskOutcome::Failed(_), _) => return failed,
    };
    if matches!(found.task, StageTask::Result { checked: false, .. }) {
        return TaskOutcome::Done(done);
    }
    let aside = world.scratch().root().join(ASIDE);
    let shadow = Watched::new(world, aside.clone(), false);
    let (second, other_records) = compute((attempt, slots), control, &shadow, again, other_memory);
    if let StageTask::Map { shuffle, .. } = &again.task
        && let Err(error) = world.scratch().remove(&output_path(&aside, *shuffle, attempt))
        && matches!(second, TaskOutcome::Done(_))
    {
        tracing::warn!(%error, "what a check wrote stays until the job ends");
    }
    let TaskAttemptId { stage, partition, .. } = attempt;
    let operations = found.graph.operations(stage);
    let name = operations.last().copied().unwrap_or_default();
    let what = match second {
        TaskOutcome::Done(second) => {
            let files = watched.written() != shadow.written();
            let counts = |done: &TaskDone| done.pieces.iter().map(|piece| piece.records).collect::<Vec<_>>();
            let same_records = records == other_records && counts(&done) == counts(&second);
            let difference = difference(&done, &second);
            match difference.as_ref().filter(|_| !same_records) {
                Some(difference) => difference.clone(),
                None if files => "it wrote other bytes to its files".to_owned(),
                None => {
                    if difference.is_some() && !HAS_WARNED.swap(true, Ordering::Relaxed) {
                        warn(&format!(
                            "{partition} of {stage}, {name}, gives records that hold a HashMap or a HashSet"
                        ));
                    }
                    return TaskOutcome::Done(done);
                }
            }
        }
        // It may be that it fails now and then: that is tried again, as when it fails the first time.
        TaskOutcome::Failed(TaskFailure::Program { message }) => {
            let message = format!("computed a second time, with another run of the program, it failed: {message}");
            return TaskOutcome::Failed(super::task::cut(TaskFailure::Program { message }));
        }
        // Nothing that is the program's doing.
        failed @ TaskOutcome::Failed(_) => {
            memory.put_back(std::mem::take(&mut done.dropped));
            return failed;
        }
    };
    // The next task tells of them.
    memory.put_back(done.dropped);
    let message = format!(
        "{partition} of {stage}, {name}, was computed with two runs of the program, and not the same came out: {what}; the \
         functions that it calls are those of {}: what they have captured, or ask for, is another in each run, or they go \
         through a HashMap or a HashSet in its order (use BTreeMap and BTreeSet in records)",
        operations.join(", ")
    );
    TaskOutcome::Failed(super::task::cut(TaskFailure::PlanMismatch { message }))
}

#[expect(clippy::print_stderr, reason = "standard error is the log of a job's process")]
fn warn(what: &str) {
    eprintln!(
        "warning: {what}: its order is another each time they are computed, and an output that must be computed again after \
         a failure must be the same to the byte, or the job goes back or fails; use BTreeMap and BTreeSet in records"
    );
}

/// Does a task on a thread that has done nothing before; gives a hash of the records that it wrote, too.
fn compute(
    task: (TaskAttemptId, u32),
    control: &Arc<TaskControl>,
    world: &Arc<Watched>,
    found: &Found,
    memory: &Arc<MemoryManager>,
) -> (TaskOutcome, blake3::Hash) {
    let world: Arc<dyn World> = Arc::<Watched>::clone(world);
    let run = || run_task(task, Arc::clone(control), &world, memory, |context| run_stage_task(&found.task, context));
    let work = || records::noting(run);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("task".to_owned()).stack_size(STACK_LEN_BYTES);
        let failed = |message: String| {
            (TaskOutcome::Failed(TaskFailure::Storage { message, transient: false }), blake3::hash(&[]))
        };
        match thread.spawn_scoped(scope, work) {
            Ok(running) => running.join().unwrap_or_else(|_| failed("the thread of the task is gone".to_owned())),
            Err(error) => failed(format!("no thread for a task: {error}")),
        }
    })
}

/// How what two computations left differs.
fn difference(one: &TaskDone, two: &TaskDone) -> Option<String> {
    if one.result != two.result {
        let (one, two) = (&one.result, &two.result);
        let place = one.iter().zip(two).position(|(one, two)| one != two).unwrap_or(one.len().min(two.len()));
        return Some(format!("results of {} and {} bytes that differ at byte {place}", one.len(), two.len()));
    }
    let place = (0..one.pieces.len().max(two.pieces.len())).find(|at| one.pieces.get(*at) != two.pieces.get(*at))?;
    let show = |done: &TaskDone| match done.pieces.get(place) {
        Some(ShufflePiece { len_bytes, crc32c, records }) => {
            format!("{records} records in {len_bytes} bytes with the checksum {crc32c:08x}")
        }
        None => "nothing".to_owned(),
    };
    Some(format!("for reduce partition {place} {} and {}", show(one), show(two)))
}

/// A world that notes what is written to files, and may keep it to itself.
struct Watched {
    world: Arc<dyn World>,
    root: PathBuf,
    passes_on: bool,
    written: Arc<Mutex<Hasher>>,
}

impl Watched {
    fn new(world: &Arc<dyn World>, root: PathBuf, passes_on: bool) -> Arc<Self> {
        Arc::new(Self { world: Arc::clone(world), root, passes_on, written: Arc::default() })
    }

    fn written(&self) -> blake3::Hash {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).finalize()
    }
}

impl World for Watched {
    fn now(&self) -> TimeMs {
        self.world.now()
    }

    fn scratch(&self) -> &dyn Scratch {
        self
    }

    fn files(&self) -> &dyn Files {
        self
    }

    /// Of a result what is told of it is compared.
    fn create_result(&self, of: TaskAttemptId) -> Result<Box<dyn Output>, StorageError> {
        let output = if self.passes_on { Some(self.world.create_result(of)?) } else { None };
        Ok(Box::new(WatchedOutput { output, written: Arc::default() }))
    }

    fn task_memory_bytes(&self) -> u64 {
        self.world.task_memory_bytes()
    }

    fn fetch(
        &self,
        by: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
        window_bytes: usize,
    ) -> Result<Pieces, TaskFailure> {
        self.world.fetch(by, shuffle, reduce, window_bytes)
    }
}

impl Scratch for Watched {
    fn root(&self) -> &Path {
        &self.root
    }

    fn spill(&self) -> PathBuf {
        self.world.scratch().spill()
    }

    fn create(&self, path: &Path) -> Result<Box<dyn File>, DiskError> {
        self.world.scratch().create(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.world.scratch().rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.world.scratch().remove(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.world.scratch().remove_directory(path)
    }
}

impl Files for Watched {
    fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
        self.world.files().stat(path)
    }

    fn list(&self, path: &DfsPath) -> Result<Vec<Entry>, StorageError> {
        self.world.files().list(path)
    }

    fn blocks(&self, path: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
        self.world.files().blocks(path)
    }

    fn open(&self, path: &DfsPath, range: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
        self.world.files().open(path, range)
    }

    fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        self.world.files().make_directory(path)
    }

    fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        self.world.files().make_own_directory(path)
    }

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        let output = if self.passes_on { Some(self.world.files().create(path)?) } else { None };
        Ok(Box::new(WatchedOutput { output, written: Arc::clone(&self.written) }))
    }

    fn publish(&self, _: Vec<(DfsPath, DfsPath)>, _: DfsPath, _: OperationId) -> Result<(), StorageError> {
        unreachable!("no task publishes")
    }

    fn delete(&self, _: &DfsPath, _: bool) -> Result<bool, StorageError> {
        unreachable!("no task deletes")
    }
}

struct WatchedOutput {
    output: Option<Box<dyn Output>>,
    written: Arc<Mutex<Hasher>>,
}

impl Output for WatchedOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).update(&bytes);
        self.output.as_mut().map_or(Ok(()), |output| output.write(bytes))
    }

    fn close(self: Box<Self>) -> Result<(), StorageError> {
        self.output.map_or(Ok(()), Output::close)
    }
}
