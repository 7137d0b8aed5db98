//! One task: what its records see of it, and how it ends.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::ids::{DatasetId, PartitionId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{TaskDone, TaskFailure, TaskMetrics, TaskOutcome};
use situ_wire::time::TimeMs;

use super::error::StorageError;
use super::memory::{MemoryManager, Reservation, TaskMemory};
use super::world::World;

/// How often a task that takes long asks whether it is still wanted.
const ASK: Duration = Duration::from_secs(1);
/// How much of what a failure says is told. It may be the text of a panic, of any length: it must fit into a message.
const TOLD_CHARS: usize = 8_000;

/// What the operations of a task share: what it is, the world, and what it has counted. A task runs on one thread.
#[derive(Clone)]
pub(crate) struct TaskContext(Rc<Inner>);

struct Inner {
    attempt: TaskAttemptId,
    world: Arc<dyn World>,
    memory: Rc<TaskMemory>,
    metrics: Cell<TaskMetrics>,
    cached: RefCell<Vec<(DatasetId, PartitionId)>>,
    /// Numbers the files that it makes in the worker's directory.
    scratch_files: Cell<u32>,
    /// When it last asked whether it is wanted, or began.
    asked: Cell<TimeMs>,
}

impl TaskContext {
    pub(crate) fn attempt(&self) -> TaskAttemptId {
        self.0.attempt
    }

    pub(crate) fn world(&self) -> &Arc<dyn World> {
        &self.0.world
    }

    /// What the task holds of the worker's memory.
    pub(crate) fn memory(&self) -> &TaskMemory {
        &self.0.memory
    }

    /// Memory for one operator: none yet.
    pub(crate) fn reserve(&self) -> Reservation {
        self.0.memory.reserve()
    }

    /// How much memory a task has, while all slots are in use.
    pub(crate) fn memory_slot_bytes(&self) -> u64 {
        self.0.memory.manager().limits().slot_bytes()
    }

    /// How much memory an operator has, whatever others of the task hold.
    pub(crate) fn memory_minimum_bytes(&self) -> usize {
        self.0.memory.manager().limits().operator_bytes()
    }

    /// Counts something.
    pub(crate) fn measure(&self, change: impl FnOnce(&mut TaskMetrics)) {
        let mut metrics = self.0.metrics.get();
        change(&mut metrics);
        self.0.metrics.set(metrics);
    }

    /// Ends the task if it was cancelled meanwhile. Called wherever it has read or written something; asks now and then.
    pub(crate) fn go_on(&self) {
        let now = self.0.world.now();
        if now.since(self.0.asked.get()) < ASK {
            return;
        }
        self.0.asked.set(now);
        if !self.0.world.is_wanted(self.0.attempt) {
            abort(TaskFailure::Cancelled);
        }
    }

    /// Notes that the worker now keeps a partition.
    pub(crate) fn note_cached(&self, dataset: DatasetId, partition: u32) {
        self.0.cached.borrow_mut().push((dataset, PartitionId(partition)));
    }

    /// A name that no other file in the worker's directory has.
    pub(crate) fn scratch_path(&self, purpose: &str) -> std::path::PathBuf {
        let number = self.0.scratch_files.get();
        self.0.scratch_files.set(number + 1);
        let TaskAttemptId { stage, partition, attempt, .. } = self.0.attempt;
        self.0.world.scratch().root().join("spill").join(format!("{stage}-{partition}-{attempt}-{purpose}-{number}"))
    }
}

/// Ends the task that runs on this thread. It unwinds, so that no operation above goes on with records that are not all
/// there.
pub(crate) fn abort(failure: TaskFailure) -> ! {
    std::panic::resume_unwind(Box::new(Abort(failure)))
}

/// Ends the task because the file system failed.
pub(crate) fn abort_storage(error: &StorageError) -> ! {
    abort(TaskFailure::Storage { message: error.message.clone() })
}

/// Ends the task because the worker's own disk failed.
pub(crate) fn abort_disk(error: &situ_runtime::disk::DiskError) -> ! {
    abort(TaskFailure::Storage { message: format!("the worker's directory: {error}") })
}

struct Abort(TaskFailure);

/// What a task leaves.
pub(crate) enum TaskOutput {
    /// It wrote its part of a shuffle.
    Pieces(Vec<ShufflePiece>),
    /// Its result for the driver.
    Result(Bytes),
}

/// Runs `work` as the task `attempt`, and says how it went whatever happens in it.
pub(crate) fn run_task(
    attempt: TaskAttemptId,
    world: &Arc<dyn World>,
    memory: &Arc<MemoryManager>,
    work: impl FnOnce(&TaskContext) -> TaskOutput,
) -> TaskOutcome {
    listen_to_panics();
    let started = world.now();
    let task = TaskContext(Rc::new(Inner {
        attempt,
        world: Arc::clone(world),
        memory: TaskMemory::begin(memory),
        metrics: Cell::default(),
        cached: RefCell::default(),
        scratch_files: Cell::new(0),
        asked: Cell::new(started),
    }));
    let shared = task.clone();
    let result = catch_unwind(AssertUnwindSafe(move || work(&shared)));
    let wall = world.now().since(started);
    task.measure(|metrics| metrics.wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
    match result {
        Ok(output) => {
            let mut done = TaskDone {
                cached: task.0.cached.take(),
                dropped: memory.take_dropped(),
                metrics: task.0.metrics.get(),
                ..TaskDone::default()
            };
            match output {
                TaskOutput::Pieces(pieces) => done.pieces = pieces,
                TaskOutput::Result(result) => done.result = result,
            }
            TaskOutcome::Done(Box::new(done))
        }
        Err(payload) => TaskOutcome::Failed(failure_of(payload)),
    }
}

/// What a caught panic says.
fn failure_of(payload: Box<dyn Any + Send>) -> TaskFailure {
    cut(match payload.downcast::<Abort>() {
        Ok(abort) => abort.0,
        Err(payload) => {
            let place = LAST_PANIC.take();
            TaskFailure::Program { message: format!("it panicked{place}: {}", panic_message(payload.as_ref())) }
        }
    })
}

/// A failure with what it says cut to what is told.
pub(crate) fn cut(mut failure: TaskFailure) -> TaskFailure {
    match &mut failure {
        TaskFailure::Fetch { reason: text, .. }
        | TaskFailure::Program { message: text }
        | TaskFailure::WorkerLost { reason: text }
        | TaskFailure::PlanMismatch { message: text }
        | TaskFailure::Storage { message: text }
        | TaskFailure::ExecutorLost { reason: text } => {
            if let Some((end, _)) = text.char_indices().nth(TOLD_CHARS) {
                text.truncate(end);
                text.push_str(" ...");
            }
        }
        TaskFailure::Cancelled => {}
    }
    failure
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use situ_wire::ids::{JobId, ShuffleId, StageId};

    use super::*;
    use crate::program::memory::MemoryLimits;
    use crate::program::world::{Files, Pieces, Scratch};

    /// A world in which time passes with every look at the clock, by 100 ms, and the task is wanted for 3 s.
    #[derive(Default)]
    struct Hasty {
        now: AtomicU64,
        asked: AtomicU64,
    }

    impl World for Hasty {
        fn now(&self) -> TimeMs {
            TimeMs(self.now.fetch_add(100, Ordering::Relaxed))
        }

        fn scratch(&self) -> &dyn Scratch {
            unreachable!("the task writes nothing")
        }

        fn files(&self) -> &dyn Files {
            unreachable!("the task reads nothing")
        }

        fn task_memory_bytes(&self) -> u64 {
            0
        }

        fn is_wanted(&self, _: TaskAttemptId) -> bool {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.now.load(Ordering::Relaxed) < 3_000
        }

        fn fetch(&self, _: ShuffleId, _: PartitionId, _: usize) -> Result<Pieces, TaskFailure> {
            unreachable!("the task fetches nothing")
        }
    }

    fn memory() -> Arc<MemoryManager> {
        MemoryManager::new(MemoryLimits { total_bytes: 0, execution_bytes: 0, kept_bytes: 0, slots: 1 })
    }

    const ATTEMPT: TaskAttemptId =
        TaskAttemptId { job: JobId(1), stage: StageId(0), partition: PartitionId(0), attempt: 0 };

    #[test]
    fn a_task_that_is_not_wanted_any_more_ends_itself() {
        let hasty = Arc::new(Hasty::default());
        let world: Arc<dyn World> = Arc::<Hasty>::clone(&hasty);
        let memory = memory();
        let outcome = run_task(ATTEMPT, &world, &memory, |task| {
            for _ in 0..1_000 {
                task.go_on();
            }
            TaskOutput::Result(Bytes::new())
        });
        assert_eq!(outcome, TaskOutcome::Failed(TaskFailure::Cancelled));
        assert_eq!(hasty.asked.load(Ordering::Relaxed), 3, "it asks once a second");
    }

    #[test]
    fn of_a_long_panic_the_beginning_is_told() {
        let world: Arc<dyn World> = Arc::new(Hasty::default());
        let outcome = run_task(ATTEMPT, &world, &memory(), |_| panic!("{}", "é".repeat(20_000)));
        let TaskOutcome::Failed(TaskFailure::Program { message }) = outcome else { panic!("{outcome:?}") };
        assert!(message.starts_with("it panicked at ") && message.ends_with("éé ..."), "{}", message.len());
        assert_eq!(message.chars().count(), TOLD_CHARS + 4);
        let again = cut(TaskFailure::Program { message: message.clone() });
        assert_eq!(again, TaskFailure::Program { message }, "it may be cut again on its way");
    }
}
