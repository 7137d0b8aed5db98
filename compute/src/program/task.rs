//! One task: what its records see of it, and how it ends.

use std::any::Any;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use bytes::Bytes;
use situ_wire::error::Retry;
use situ_wire::ids::{DatasetId, PartitionId, TaskAttemptId};
use situ_wire::limits::{MESSAGE_LEN_BYTES, TASK_RESULT_LEN_BYTES};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{TaskDone, TaskFailure, TaskMetrics, TaskOutcome};

use super::error::StorageError;
use super::memory::{MemoryManager, Reservation, TaskMemory};
use super::reading::located;
use super::world::World;
use crate::shortened::shortened;

/// How many engines a failure names at most.
const ENGINES_TOLD: usize = 100;
/// How much of the name of each.
const ENGINE_CHARS: usize = 255;
/// How much an outcome may take together.
const LEFT_LEN_BYTES: usize = MESSAGE_LEN_BYTES - (1 << 20);
/// What an outcome takes beside what is counted, and what each of these takes, at most.
const OUTCOME_LEN_BYTES: usize = 256;
const PIECE_LEN_BYTES: usize = 25;
const CACHED_LEN_BYTES: usize = 20;

/// What a task and the heartbeat of its worker tell each other while it runs.
#[derive(Debug, Default)]
pub(crate) struct TaskControl {
    steps: AtomicU64,
    given_up: AtomicBool,
}

impl TaskControl {
    /// How often the task has read or written something.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Nobody waits for the task any more: it ends itself when it next reads or writes something.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Whether nobody waits for the task any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

/// What a task is and has counted, for all threads that work for it.
pub(crate) struct SharedTask {
    attempt: TaskAttemptId,
    world: Arc<dyn World>,
    metrics: Mutex<TaskMetrics>,
    /// Numbers the files that it makes in the worker's directory.
    scratch_files: AtomicU32,
    control: Arc<TaskControl>,
}

impl SharedTask {
    pub(crate) fn attempt(&self) -> TaskAttemptId {
        self.attempt
    }

    pub(crate) fn world(&self) -> &Arc<dyn World> {
        &self.world
    }

    /// Counts something.
    pub(crate) fn measure(&self, change: impl FnOnce(&mut TaskMetrics)) {
        change(&mut self.metrics.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn metrics(&self) -> TaskMetrics {
        *self.metrics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a step of its progress; false if nobody waits for it any more.
    pub(crate) fn step(&self) -> bool {
        self.control.steps.fetch_add(1, Ordering::Relaxed);
        !self.is_given_up()
    }

    /// Nobody needs this attempt any more: what it needs is gone.
    pub(crate) fn give_up(&self) {
        self.control.give_up();
    }

    /// Whether nobody needs this attempt any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.control.is_given_up()
    }

    /// A name that no other file in the worker's directory has.
    pub(crate) fn scratch_path(&self, purpose: &str) -> std::path::PathBuf {
        let number = self.scratch_files.fetch_add(1, Ordering::Relaxed);
        let TaskAttemptId { stage, partition, attempt, .. } = self.attempt;
        self.world.scratch().spill().join(format!("{stage}-{partition}-{attempt}-{purpose}-{number}"))
    }
}

/// What the operations of a task share: what it is, the world, and what it has counted. A task runs on one thread.
#[derive(Clone)]
pub(crate) struct TaskContext(Rc<Inner>);

struct Inner {
    shared: Arc<SharedTask>,
    memory: Rc<TaskMemory>,
    cached: RefCell<Vec<(DatasetId, PartitionId)>>,
}

impl TaskContext {
    /// What other threads may know of it.
    pub(crate) fn shared(&self) -> &Arc<SharedTask> {
        &self.0.shared
    }

    pub(crate) fn attempt(&self) -> TaskAttemptId {
        self.0.shared.attempt
    }

    pub(crate) fn world(&self) -> &Arc<dyn World> {
        &self.0.shared.world
    }

    /// What the task holds of the worker's memory.
    pub(crate) fn memory(&self) -> &TaskMemory {
        &self.0.memory
    }

    /// Memory for one operator: none yet.
    pub(crate) fn reserve(&self) -> Reservation {
        self.0.memory.reserve()
    }

    /// How much memory the task has, while all slots are in use.
    pub(crate) fn memory_slot_bytes(&self) -> u64 {
        self.0.memory.share_bytes()
    }

    /// How much memory an operator has, whatever others of the task hold.
    pub(crate) fn memory_minimum_bytes(&self) -> usize {
        self.0.memory.manager().limits().operator_bytes()
    }

    /// Counts something.
    pub(crate) fn measure(&self, change: impl FnOnce(&mut TaskMetrics)) {
        self.0.shared.measure(change);
    }

    /// Ends the task if it was cancelled meanwhile. Called wherever it has read or written something, which counts as a
    /// step of its progress.
    pub(crate) fn go_on(&self) {
        if !self.0.shared.step() {
            abort(TaskFailure::Cancelled);
        }
    }

    /// Notes that the worker now keeps a partition.
    pub(crate) fn note_cached(&self, dataset: DatasetId, partition: u32) {
        self.0.cached.borrow_mut().push((dataset, PartitionId(partition)));
    }
}

/// Ends the task that runs on this thread. It unwinds, so that no operation above goes on with records that are not all
/// there.
pub(crate) fn abort(failure: TaskFailure) -> ! {
    std::panic::resume_unwind(Box::new(Abort(failure)))
}

/// Ends the task because the file system failed.
pub(crate) fn abort_storage(error: &StorageError) -> ! {
    // Of what is damaged or full, waiting makes nothing better: only who gave no answer may be back soon.
    let transient = error.code.retry() == Retry::Later;
    abort(TaskFailure::Storage { message: error.message.clone(), transient })
}

/// Ends the task because the worker's own disk failed.
pub(crate) fn abort_disk(error: &situ_runtime::disk::DiskError) -> ! {
    abort(TaskFailure::Storage { message: format!("the worker's directory: {error}"), transient: false })
}

struct Abort(TaskFailure);

/// What a task leaves.
pub(crate) enum TaskOutput {
    /// It wrote its part of a shuffle.
    Pieces(Vec<ShufflePiece>),
    /// Its result for the driver.
    Result(Bytes),
}

thread_local! {
    /// Whether this thread runs a task.
    static IN_TASK: Cell<bool> = const { Cell::new(false) };
}

/// Whether a task runs on this thread.
pub(crate) fn is_in_task() -> bool {
    IN_TASK.get()
}

/// Runs `work` as the task `attempt`, which takes so many slots, and says how it went whatever happens in it.
pub(crate) fn run_task(
    (attempt, slots): (TaskAttemptId, u32),
    control: Arc<TaskControl>,
    world: &Arc<dyn World>,
    memory: &Arc<MemoryManager>,
    work: impl FnOnce(&TaskContext) -> TaskOutput,
) -> TaskOutcome {
    listen_to_panics();
    let started = world.now();
    let shared = SharedTask {
        attempt,
        world: Arc::clone(world),
        metrics: Mutex::default(),
        scratch_files: AtomicU32::new(0),
        control,
    };
    let memory_of_task = TaskMemory::begin(memory, slots);
    let task =
        TaskContext(Rc::new(Inner { shared: Arc::new(shared), memory: memory_of_task, cached: RefCell::default() }));
    let shared = task.clone();
    IN_TASK.set(true);
    let result = catch_unwind(AssertUnwindSafe(move || work(&shared)));
    IN_TASK.set(false);
    let wall = world.now().since(started);
    task.measure(|metrics| metrics.wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
    match result {
        Ok(output) => {
            let mut done = TaskDone {
                // Another task may have needed the room meanwhile, and told so.
                cached: memory.still_kept(task.0.cached.take()),
                dropped: memory.take_dropped(),
                metrics: task.0.shared.metrics(),
                ..TaskDone::default()
            };
            match output {
                TaskOutput::Pieces(pieces) => done.pieces = pieces,
                TaskOutput::Result(result) => done.result = result,
            }
            told(done).unwrap_or_else(|(message, dropped)| {
                memory.put_back(dropped);
                TaskOutcome::Failed(TaskFailure::Program { message })
            })
        }
        Err(payload) => TaskOutcome::Failed(failure_of(payload)),
    }
}

/// A done task; or why what it leaves cannot be told, as it must fit into a message, and what it has dropped.
fn told(done: TaskDone) -> Result<TaskOutcome, (String, Vec<(DatasetId, PartitionId)>)> {
    let len = done.result.len();
    if len > TASK_RESULT_LEN_BYTES {
        let message = format!(
            "its result takes {len} bytes; at most {TASK_RESULT_LEN_BYTES} are allowed, a larger one must be a file"
        );
        return Err((message, done.dropped));
    }
    let len = done_len_bytes(&done);
    if len > LEFT_LEN_BYTES {
        let message = format!(
            "what is to be told of its output takes {len} bytes; at most {LEFT_LEN_BYTES} fit: use fewer reduce partitions"
        );
        return Err((message, done.dropped));
    }
    Ok(TaskOutcome::Done(Box::new(done)))
}

/// How long what a task leaves is when it is encoded, or a little more.
fn done_len_bytes(done: &TaskDone) -> usize {
    let partitions = done.cached.len() + done.dropped.len();
    OUTCOME_LEN_BYTES + done.result.len() + done.pieces.len() * PIECE_LEN_BYTES + partitions * CACHED_LEN_BYTES
}

/// How long an outcome is when it is encoded, or a little more.
pub(crate) fn about_len_bytes(outcome: &TaskOutcome) -> usize {
    match outcome {
        TaskOutcome::Done(done) => done_len_bytes(done),
        TaskOutcome::Failed(
            TaskFailure::Fetch { reason: text, .. }
            | TaskFailure::Program { message: text }
            | TaskFailure::WorkerLost { reason: text, .. }
            | TaskFailure::PlanMismatch { message: text }
            | TaskFailure::Storage { message: text, .. }
            | TaskFailure::WorkerSilent { reason: text, .. },
        ) => OUTCOME_LEN_BYTES + text.len(),
        TaskOutcome::Failed(TaskFailure::NoEngine { kind, known }) => {
            OUTCOME_LEN_BYTES + kind.len() + known.iter().map(|kind| kind.len() + 8).sum::<usize>()
        }
        TaskOutcome::Failed(TaskFailure::Cancelled) => OUTCOME_LEN_BYTES,
    }
}

/// What a caught panic says.
fn failure_of(payload: Box<dyn Any + Send>) -> TaskFailure {
    let failure = match payload.downcast::<Abort>() {
        Ok(abort) => abort.0,
        Err(payload) => {
            let place = LAST_PANIC.take();
            TaskFailure::Program { message: format!("it panicked{place}: {}", panic_message(payload.as_ref())) }
        }
    };
    cut(located(failure))
}

/// A failure with what it says cut to what is told.
pub(crate) fn cut(mut failure: TaskFailure) -> TaskFailure {
    match &mut failure {
        TaskFailure::Fetch { reason: text, .. }
        | TaskFailure::Program { message: text }
        | TaskFailure::WorkerLost { reason: text, .. }
        | TaskFailure::PlanMismatch { message: text }
        | TaskFailure::Storage { message: text, .. }
        | TaskFailure::WorkerSilent { reason: text, .. } => {
            if let Cow::Owned(cut) = shortened(text) {
                *text = cut;
            }
        }
        TaskFailure::NoEngine { kind, known } => {
            known.truncate(ENGINES_TOLD);
            for name in known.iter_mut().chain([kind]) {
                if let Some((end, _)) = name.char_indices().nth(ENGINE_CHARS) {
                    name.truncate(end);
                }
            }
        }
        TaskFailure::Cancelled => {}
    }
    failure
}

/// What a caught panic outside a task says.
pub(super) fn unwound(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<Abort>() {
        Ok(abort) => match abort.0 {
            TaskFailure::Program { message } | TaskFailure::Storage { message, .. } => message,
            other => format!("{other:?}"),
        },
        Err(payload) => panic_message(payload.as_ref()).to_owned(),
    }
}

/// The text of a panic.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "(its payload is no text)"
    }
}

thread_local! {
    /// Where the last panic of this thread happened, as ` at main.rs:12`.
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Notes where panics happen, which `catch_unwind` does not tell. The hook that was there still runs.
fn listen_to_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if let Some(place) = info.location() {
                LAST_PANIC.replace(format!(" at {}:{}", place.file(), place.line()));
            }
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{JobId, ScopeId, ShuffleId, StageId};
    use situ_wire::time::TimeMs;

    use super::*;
    use crate::program::memory::MemoryLimits;
    use crate::program::world::{Files, Output, Pieces, Scratch};
    use crate::shortened::TOLD_CHARS;
    use crate::shuffle::PieceReader;

    /// A world in which nothing is.
    struct Empty;

    impl World for Empty {
        fn now(&self) -> TimeMs {
            TimeMs(0)
        }

        fn scratch(&self) -> &dyn Scratch {
            unreachable!("the task writes nothing")
        }

        fn files(&self) -> &dyn Files {
            unreachable!("the task reads nothing")
        }

        fn create_result(&self, _: TaskAttemptId) -> Result<Box<dyn Output>, StorageError> {
            unreachable!("it has no result")
        }

        fn task_memory_bytes(&self) -> u64 {
            0
        }

        fn fetch(&self, _: TaskAttemptId, _: ShuffleId, _: PartitionId, _: usize) -> Result<Pieces, TaskFailure> {
            Err(TaskFailure::Cancelled)
        }
    }

    fn memory() -> Arc<MemoryManager> {
        MemoryManager::new(MemoryLimits { total_bytes: 0, execution_bytes: 0, kept_bytes: 0, slots: 1 })
    }

    const ATTEMPT: TaskAttemptId =
        TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(0), attempt: 0 };

    fn run(control: &Arc<TaskControl>, work: impl FnOnce(&TaskContext) -> TaskOutput) -> TaskOutcome {
        let world: Arc<dyn World> = Arc::new(Empty);
        run_task((ATTEMPT, 1), Arc::clone(control), &world, &memory(), work)
    }

    #[test]
    fn a_task_that_is_given_up_ends_itself_and_its_steps_are_counted() {
        let control = Arc::new(TaskControl::default());
        let outcome = run(&control, |task| {
            for step in 0..1_000 {
                if step == 7 {
                    control.give_up();
                }
                task.go_on();
            }
            TaskOutput::Result(Bytes::new())
        });
        assert_eq!(outcome, TaskOutcome::Failed(TaskFailure::Cancelled));
        assert_eq!(control.steps(), 8);
    }

    #[test]
    fn a_task_whose_input_is_being_made_again_is_as_good_as_cancelled() {
        let control = Arc::new(TaskControl::default());
        let outcome = run(&control, |task| {
            let shuffle = ShuffleId(ScopeId::ROOT, 0);
            match PieceReader::fetch(task.shared(), shuffle, PartitionId(0), 1) {
                Ok(_) => TaskOutput::Result(Bytes::new()),
                Err(failure) => abort(failure),
            }
        });
        assert_eq!(outcome, TaskOutcome::Failed(TaskFailure::Cancelled));
        assert!(control.is_given_up(), "an engine that says so is believed");
    }

    #[test]
    fn what_is_not_kept_any_more_is_not_told_and_what_was_dropped_is_told_in_the_end() {
        let limits = MemoryLimits { total_bytes: 1000, execution_bytes: 1000, kept_bytes: 1000, slots: 1 };
        let (manager, world) = (MemoryManager::new(limits), Arc::new(Empty) as Arc<dyn World>);
        let keep = |partition: u32| {
            let mut keeping = manager.keep(DatasetId(ScopeId::ROOT, 1), partition);
            assert!(keeping.grow_to(100));
            keeping.finish(Arc::new(vec![partition]), 100);
        };
        let run = |result: Bytes| {
            run_task((ATTEMPT, 1), Arc::default(), &world, &manager, |task| {
                (0..2).for_each(keep);
                (0..2).for_each(|partition| task.note_cached(DatasetId(ScopeId::ROOT, 1), partition));
                // Another task needs the room.
                manager.remove(DatasetId(ScopeId::ROOT, 1));
                keep(1);
                TaskOutput::Result(result)
            })
        };
        let id = |partition| (DatasetId(ScopeId::ROOT, 1), PartitionId(partition));
        assert!(matches!(run(vec![0; TASK_RESULT_LEN_BYTES + 1].into()), TaskOutcome::Failed(_)));
        assert_eq!(manager.take_dropped(), [id(0)], "nobody was told");
        let TaskOutcome::Done(done) = run(Bytes::new()) else { panic!("it fits") };
        assert_eq!((&done.cached[..], &done.dropped[..]), (&[id(1)][..], &[id(0)][..]));
        let most: Vec<_> =
            (0..1000).map(|n| (DatasetId(ScopeId(u64::MAX), u32::MAX), PartitionId(u32::MAX - n))).collect();
        let outcome =
            TaskOutcome::Done(Box::new(TaskDone { cached: most.clone(), dropped: most, ..TaskDone::default() }));
        assert!(situ_wire::codec::encode(&outcome).unwrap().len() <= about_len_bytes(&outcome));
    }

    #[test]
    fn of_a_long_panic_the_beginning_is_told() {
        let outcome = run(&Arc::default(), |_| panic!("{}", "é".repeat(20_000)));
        let TaskOutcome::Failed(TaskFailure::Program { message }) = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("it panicked at ") && message.ends_with("éé ..."), "{}", message.len());
        assert_eq!(message.chars().count(), TOLD_CHARS + 4);
        let again = cut(TaskFailure::Program { message: message.clone() });
        assert_eq!(again, TaskFailure::Program { message }, "it may be cut again on its way");
    }

    #[test]
    fn what_a_task_leaves_fits_into_a_message_or_is_its_failure() {
        let failure = |output: TaskOutput| match run(&Arc::default(), |_| output) {
            TaskOutcome::Failed(TaskFailure::Program { message }) => message,
            outcome => panic!("{outcome:?}"),
        };
        let long = vec![0; TASK_RESULT_LEN_BYTES + 1];
        assert!(failure(TaskOutput::Result(long.into())).starts_with("its result takes 262145 bytes; at most 262144"));
        let most = ShufflePiece { len_bytes: u64::MAX, crc32c: u32::MAX, records: u64::MAX };
        assert!(failure(TaskOutput::Pieces(vec![most; 1_000_000])).contains("use fewer reduce partitions"));
        let outcome = run(&Arc::default(), |_| TaskOutput::Pieces(vec![most; 600_000]));
        let len = situ_wire::codec::encode(&outcome).unwrap().len();
        assert!(len <= about_len_bytes(&outcome) && len < MESSAGE_LEN_BYTES, "{len}");
    }
}
