//! What a worker's run of the program asks instead of computing.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_wire::ids::{ActionId, OperationId, ScopeId, StageId};
use situ_wire::messages::scheduler::{Plan, StageWork, TaskFailure};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::driver::one_result;
use super::error::{ProgramError, StorageError};
use super::memory::MemoryManager;
use super::patience::{PatientFiles, Waiting};
use super::replay::{Failure, Reached, Replay};
use super::task::is_in_task;
use super::world::{Backend, Files, Released, ScopePath};
use crate::dataset::Graph;

/// What a worker learns of its driver.
pub(super) trait DriverSide: Send + Sync + 'static {
    /// The results that the driver got of an action of a scope, or nothing if they are not `wanted`; waits until they are
    /// there.
    fn results(
        &self,
        name: &str,
        action: ActionId,
        scope: &ScopePath,
        wanted: bool,
    ) -> Result<Vec<Bytes>, ProgramError>;

    /// What a scope of this name came to in the driver; if it has not ended, waits for that, or gives none.
    fn outcome(&self, name: &str, scope: &ScopePath, wait: bool) -> Result<Option<Bytes>, ProgramError>;

    /// Whether the driver has, for all that is known, not yet the result of an action, or a value, nor waits for it.
    fn is_unknown(&self, action: ActionId, scope: &ScopePath) -> bool;

    /// How long a run of the program stands still elsewhere than the driver's before that is a difference.
    fn grace(&self) -> Duration;

    /// The plan that the driver sent for an action.
    fn plan(&self, action: ActionId) -> Result<Option<Box<Plan>>, String>;

    /// The work of a stage; none if nobody needs that any more.
    fn stage_work(&self, stage: StageId) -> Result<Option<Box<StageWork>>, TaskFailure>;

    /// The file system.
    fn files(&self) -> &dyn Files;

    /// The job's own directory.
    fn own_directory(&self) -> Result<DfsPath, ProgramError>;

    /// The time now.
    fn now(&self) -> TimeMs;

    /// Blocks for so long.
    fn rest(&self, time: Duration);

    /// The job's name.
    fn job_name(&self) -> String;

    /// Of a built-in program, the hash of the executable that holds it.
    fn build(&self) -> Option<[u8; 32]>;
}

/// How long a run of the program in a worker bears with a file system that is away. A new worker, perhaps on a node that
/// reaches it, may have more luck.
const FILE_SYSTEM_PATIENCE: Duration = Duration::from_secs(120);

/// Gives a run of the program in a worker the results that its driver got.
pub(crate) struct Follower {
    driver: Arc<dyn DriverSide>,
    replay: Arc<Replay>,
    /// What this run has persisted.
    memory: Arc<MemoryManager>,
    files: PatientFiles<FollowerFiles>,
    checked: bool,
}

/// The file system as the program sees it in a worker.
struct FollowerFiles {
    driver: Arc<dyn DriverSide>,
    replay: Arc<Replay>,
}

impl Waiting for FollowerFiles {
    fn files(&self) -> &dyn Files {
        self.driver.files()
    }

    fn now(&self) -> TimeMs {
        self.driver.now()
    }

    fn rest(&self, time: Duration) {
        self.driver.rest(time);
    }

    fn patience(&self) -> Duration {
        FILE_SYSTEM_PATIENCE
    }

    fn give_up(&self, error: &StorageError) {
        self.replay.stop(error.message.clone());
    }
}

impl Follower {
    pub(super) fn new(
        driver: Arc<dyn DriverSide>,
        replay: Arc<Replay>,
        memory: Arc<MemoryManager>,
        checked: bool,
    ) -> Self {
        let files = FollowerFiles { driver: Arc::clone(&driver), replay: Arc::clone(&replay) };
        Self { driver, replay, memory, files: PatientFiles(Arc::new(files)), checked }
    }

    /// What the driver says to the program in `scope`. That it cannot be heard, or that the scope or one around it has ended
    /// there, is nothing that its own run has met, and so no error that a program may act on.
    fn heard<T>(&self, scope: ScopeId, answer: Result<T, ProgramError>) -> Result<T, ProgramError> {
        match answer {
            Err(ProgramError::Scheduler { message }) => self.replay.stop(message),
            Err(ProgramError::ScopeEnded { .. }) => {
                self.replay.leave_scope(scope);
                resume_unwind(Box::new(ScopeLeft))
            }
            answer => answer,
        }
    }
}

/// What the body of a scope is left with that has ended in the driver: it unwinds, so that a program that tries again what
/// fails does not do so for ever.
pub(crate) struct ScopeLeft;

impl Backend for Follower {
    fn run_action(&self, action: ActionId, scope: &ScopePath, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
        let digest = graph.plan(self.driver.build()).digest();
        let (name, wanted) = (graph.name().to_owned(), !graph.is_for_driver());
        self.replay.reach(action, scope, Reached { digest, graph });
        let results = self.heard(action.0, self.driver.results(&name, action, scope, wanted));
        self.replay.pass(action);
        results
    }

    /// A task does, of an action behind the results. Where none comes, the driver alone had a use for them.
    fn wait_for_need(&self) -> Result<(), ProgramError> {
        if self.replay.wait_for_need() {
            return Ok(());
        }
        let message = "nobody needs its results here any more".to_owned();
        Err(ProgramError::Action { action: "an action".to_owned(), message })
    }

    fn record(
        &self,
        action: ActionId,
        scope: &ScopePath,
        _: &mut dyn FnMut(&dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        self.replay.reach_value(action, scope);
        let results = self.heard(action.0, self.driver.results("a value of the driver", action, scope, true));
        self.replay.pass(action);
        one_result(results?)
    }

    fn scope_outcome(&self, scope: &ScopePath, name: &str) -> Result<Option<Bytes>, ProgramError> {
        let outcome = self.heard(scope.id(), self.driver.outcome(name, scope, false));
        match outcome {
            Ok(None) => self.replay.enter_scope(scope.id(), name),
            _ => self.replay.leave_scope(scope.id()),
        }
        outcome
    }

    fn end_scope(&self, scope: &ScopePath, name: &str, error: Option<&str>, _: Bytes) -> Result<Bytes, ProgramError> {
        self.replay.end_scope(scope, error.map_or(Ok(()), |error| Err(Failure::Program(error.to_owned()))));
        let outcome = self.heard(scope.id(), self.driver.outcome(name, scope, true));
        self.replay.leave_scope(scope.id());
        let missing =
            || ProgramError::Result { action: name.to_owned(), message: "the scope has not ended".to_owned() };
        outcome?.ok_or_else(missing)
    }

    fn release(&self, what: Released) {
        match what {
            Released::Dataset(dataset) => self.memory.remove(dataset),
            // Its pieces are the executor's.
            Released::Shuffle(_) => {}
        }
    }

    fn files(&self) -> &dyn Files {
        // A task ends instead, and is tried again.
        if is_in_task() { self.driver.files() } else { &self.files }
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        None
    }

    fn own_directory(&self) -> Result<DfsPath, ProgramError> {
        self.heard(ScopeId::ROOT, self.driver.own_directory())
    }

    fn publishing(&self, _: ActionId, _: &DfsPath) -> Result<bool, ProgramError> {
        unreachable!("only a driver makes room for output")
    }

    fn published(&self, _: ActionId) -> Result<(), ProgramError> {
        unreachable!("only a driver publishes")
    }

    fn take_away(&self, _: &DfsPath) -> Result<(), StorageError> {
        unreachable!("only a driver makes room for output")
    }

    fn publication(&self, _: ActionId) -> OperationId {
        unreachable!("only a driver publishes")
    }

    fn job_name(&self) -> String {
        self.driver.job_name()
    }

    fn attempt(&self) -> u32 {
        unreachable!("only a driver has attempts")
    }

    fn is_checked(&self) -> bool {
        self.checked
    }
}
