use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use situ_wire::ids::{ShuffleId, StageId, TaskAttemptId};
use situ_wire::messages::scheduler::{Payload, StageOutput, StageWork, TaskFailure, TaskOutcome};

use super::{Engines, Left, TaskContext, TaskError};
use crate::program::error::StorageError;
use crate::program::memory::MemoryManager;
use crate::program::task::{TaskControl, TaskOutput, abort, run_task};
use crate::program::world::{Files, World};

/// How many stages' work a worker keeps, and how many bytes of it, unless a single one is longer.
const WORKS: usize = 64;
const WORKS_LEN_BYTES: usize = 64 << 20;

/// What the tasks of a stage are given.
pub(crate) struct Assignment {
    bytes: Bytes,
    reads: Vec<ShuffleId>,
    partitions: u32,
}

impl Assignment {
    /// Reads and checks what came with a plan.
    pub(crate) fn load(work: &StageWork, files: &dyn Files) -> Result<Self, StorageError> {
        let StageWork { work, reads, partitions } = work;
        let bytes = match &work.payload {
            Payload::Inline(bytes) => bytes.clone(),
            Payload::Stored { path, len_bytes } => crate::dataset::read_stored(files, path, *len_bytes, &work.digest)?,
        };
        Ok(Self { bytes, reads: reads.clone(), partitions: *partitions })
    }
}

/// Runs a task of an engine, and says how it went whatever happens in it. `load` gives what it does.
pub(crate) fn run_assignment(
    (engines, kind): (&Engines, &str),
    (task, output): ((TaskAttemptId, u32), StageOutput),
    control: Arc<TaskControl>,
    world: &Arc<dyn World>,
    memory: &Arc<MemoryManager>,
    load: impl FnOnce() -> Result<Arc<Assignment>, TaskFailure>,
) -> TaskOutcome {
    let Some(engine) = engines.get(kind) else {
        let failure = TaskFailure::NoEngine { kind: kind.to_owned(), known: engines.kinds() };
        return TaskOutcome::Failed(crate::program::task::cut(failure));
    };
    run_task(task, control, world, memory, |own| {
        let assignment = load().unwrap_or_else(|failure| abort(failure));
        let context = TaskContext::new(own, assignment.reads.clone(), output);
        let spill = Spill { world: Arc::clone(world), path: context.spill_directory() };
        let left = engine.run(&assignment.bytes, &context);
        drop(spill);
        match left {
            Ok(output) => match output.0 {
                Left::Pieces(pieces) => TaskOutput::Pieces(pieces),
                Left::Result(result) => TaskOutput::Result(crate::dataset::told_of(own, assignment.partitions, result)),
            },
            // Nobody would be blamed for that: it must be true.
            Err(TaskError::Cancelled) if !own.shared().is_given_up() => abort(TaskFailure::Program {
                message: format!("the engine {kind:?} says that its task was cancelled, which it was not"),
            }),
            Err(error) => abort(error.into()),
        }
    })
}

/// What an engine spills, deleted with its task.
struct Spill {
    world: Arc<dyn World>,
    path: std::path::PathBuf,
}

impl Drop for Spill {
    fn drop(&mut self) {
        if let Err(error) = self.world.scratch().remove_directory(&self.path) {
            tracing::warn!(%error, "what an engine has spilled stays until the job ends");
        }
    }
}

/// The work of the stages that a worker has tasks of: each is asked for once, and kept until others need the room.
#[derive(Default)]
pub(crate) struct Works(Mutex<VecDeque<(WorkId, Arc<Slot>)>>);

/// Of which stage, and which.
type WorkId = (StageId, [u8; 32]);
/// Held while somebody asks for it.
type Slot = Mutex<Option<Arc<Assignment>>>;

impl Works {
    /// The work of a stage; `ask` is called unless it is known.
    pub(crate) fn get(
        &self,
        id: WorkId,
        ask: impl FnOnce() -> Result<Assignment, TaskFailure>,
    ) -> Result<Arc<Assignment>, TaskFailure> {
        let slot = self.slot(id);
        let mut known = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(work) = &*known {
            return Ok(Arc::clone(work));
        }
        let work = Arc::new(ask()?);
        *known = Some(Arc::clone(&work));
        drop(known);
        self.make_room();
        Ok(work)
    }

    /// The place of a stage's work, the last to be given up from now on.
    fn slot(&self, id: WorkId) -> Arc<Slot> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.iter().position(|(other, _)| *other == id).and_then(|at| all.remove(at));
        let slot = known.map(|(_, slot)| slot).unwrap_or_default();
        all.push_back((id, Arc::clone(&slot)));
        slot
    }

    /// Gives up what was not used for longest.
    fn make_room(&self) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is being asked for has no length yet.
        let len = |slot: &Slot| slot.try_lock().ok().and_then(|work| work.as_ref().map(|work| work.bytes.len()));
        let mut total: usize = all.iter().filter_map(|(_, slot)| len(slot)).sum();
        while all.len() > 1 && (all.len() > WORKS || total > WORKS_LEN_BYTES) {
            let Some((_, slot)) = all.pop_front() else { return };
            total -= len(&slot).unwrap_or_default();
        }
    }
}
