//! A job in one process, for tests: a driver, and workers that follow it as real ones do, over a directory in memory.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::disk::memory::MemoryDisk;
use situ_wire::ids::{ActionId, ClientId, OperationId, ScopeId, StageId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    Locality, Plan, StagePlan, StageWork, TaskFailure, TaskOutcome, TaskSpec, TaskWork, Work,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::driver::{one_result, publication};
use super::error::{ProgramError, ProgramResult, StorageError};
use super::follow::DriverSide;
use super::local::{JOB, LocalOptions, LocalWorld, StillClock, describe, own_directory};
use super::replay::Failure;
use super::runs::{Run, Runs, STACK_LEN_BYTES};
use super::world::{Backend, Files, Released, ScopePath, World};
use crate::dataset::{Context, Graph};
use crate::engine::Engines;

/// The world of a job.
type OneWorld = LocalWorld<MemoryDisk, StillClock>;

/// A job and what is known of it.
pub(crate) struct Rehearsal {
    pub(crate) disk: MemoryDisk,
    world: Arc<OneWorld>,
    side: Arc<Side>,
    workers: Vec<Arc<Runs>>,
    /// Which attempt at the driver the next one is.
    attempt: u32,
}

/// What was seen while a job ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    /// The most nodes that a plan had.
    pub(crate) planned: usize,
    /// The most nodes that a worker kept for tasks between two tasks.
    pub(crate) kept: usize,
    /// The most shuffles whose pieces were there.
    pub(crate) shuffles: usize,
    /// How many persisted datasets were released.
    pub(crate) datasets_released: usize,
    /// How often a worker asked for the work of a stage.
    pub(crate) works_asked: usize,
}

/// What the workers learn.
struct Side {
    world: Arc<OneWorld>,
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Default)]
struct Known {
    results: BTreeMap<ActionId, Vec<Bytes>>,
    plans: BTreeMap<ActionId, Plan>,
    /// What the scopes came to that have ended.
    outcomes: BTreeMap<ScopeId, Bytes>,
    ended: bool,
    /// How often a worker was sent the results of an action.
    sent: usize,
    seen: Seen,
}

impl Rehearsal {
    /// A job with `workers` workers.
    pub(crate) fn new(workers: usize, checked: bool) -> Self {
        Self::with(workers, checked, &Engines::default())
    }

    /// The same for a program with engines.
    pub(crate) fn with(workers: usize, checked: bool, engines: &Engines) -> Self {
        let (disk, options) = (MemoryDisk::default(), LocalOptions::default());
        let world = LocalWorld::new(disk.clone(), StillClock, Path::new("/r"), options);
        let side = Arc::new(Side { world: Arc::clone(&world), known: Mutex::default(), changed: Condvar::new() });
        let runs = || {
            let driver: Arc<dyn DriverSide> = Arc::<Side>::clone(&side);
            Arc::new(Runs::new(driver, engines.clone(), options.memory_limits(), checked))
        };
        let workers = std::iter::repeat_with(runs).take(workers).collect();
        Self { disk, world, side, workers, attempt: 0 }
    }

    /// The same job with a driver that is started anew, and a worker that begins late.
    pub(crate) fn restarted(self) -> Self {
        self.side.known().ended = false;
        let driver: Arc<dyn DriverSide> = Arc::<Side>::clone(&self.side);
        let late = Runs::new(driver, Engines::default(), LocalOptions::default().memory_limits(), false);
        Self { workers: vec![Arc::new(late)], attempt: self.attempt + 1, ..self }
    }

    /// Runs the program in the driver and in all workers to the driver's end.
    pub(crate) fn run(&self, program: impl Fn(&Context) -> ProgramResult + Sync) -> Result<Seen, String> {
        let program = |context: &Context| {
            program(context)?;
            Ok(context.end()?)
        };
        let program: &(dyn Fn(&Context) -> ProgramResult + Sync) = &program;
        let backend = RehearsedDriver {
            world: Arc::clone(&self.world),
            side: Arc::clone(&self.side),
            workers: self.workers.clone(),
            next: AtomicUsize::new(0),
            attempt: self.attempt,
        };
        let result = std::thread::scope(|scope| {
            for runs in &self.workers {
                for run in std::iter::once(&runs.first).chain(&runs.second) {
                    spawn(scope, move || {
                        let follow = AssertUnwindSafe(|| program(&runs.context(run)));
                        let result = catch_unwind(follow).unwrap_or_else(|_| Err("it panicked".into()));
                        run.replay.end(result.map_err(|error| Failure::Program(error.to_string())));
                        Ok(())
                    });
                }
            }
            let driver =
                spawn(scope, move || program(&Context::new(Arc::new(backend))).map_err(|error| error.to_string()));
            let result = driver.join().unwrap_or_else(|_| Err("the driver panicked".to_owned()));
            self.side.known().ended = true;
            self.side.changed.notify_all();
            for runs in &self.workers {
                let over = || Err(Failure::Away("the job has ended".to_owned()));
                std::iter::once(&runs.first).chain(&runs.second).for_each(|run| run.replay.end(over()));
            }
            result
        });
        result.map(|()| self.side.known().seen)
    }

    /// How many nodes the workers keep for tasks.
    pub(crate) fn kept(&self) -> usize {
        self.workers.iter().map(|runs| kept(&runs.first)).max().unwrap_or_default()
    }

    /// How many results and recorded values are known.
    pub(crate) fn results(&self) -> usize {
        self.side.known().results.len()
    }

    /// How often a worker was sent the results of an action.
    pub(crate) fn sent(&self) -> usize {
        self.side.known().sent
    }

    /// How many bytes of persisted partitions the workers keep.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.workers.iter().map(|runs| runs.first.memory.kept_bytes()).sum()
    }
}

/// A thread as programs run on.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> Result<(), String> + Send + 'scope,
) -> ScopedJoinHandle<'scope, Result<(), String>> {
    std::thread::Builder::new().stack_size(STACK_LEN_BYTES).spawn_scoped(scope, work).unwrap()
}

fn kept(run: &Run) -> usize {
    run.replay.kept()
}

impl Side {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, action: ActionId, results: Vec<Bytes>) {
        self.known().results.insert(action, results);
        self.changed.notify_all();
    }
}

impl DriverSide for Side {
    fn results(
        &self,
        name: &str,
        action: ActionId,
        scope: &ScopePath,
        wanted: bool,
    ) -> Result<Vec<Bytes>, ProgramError> {
        let within = scope.to_vec();
        let is_over = |known: &Known| within.iter().any(|scope| known.outcomes.contains_key(scope));
        let waits = |known: &mut Known| !known.results.contains_key(&action) && !is_over(known) && !known.ended;
        let mut known = self.changed.wait_while(self.known(), waits).unwrap_or_else(PoisonError::into_inner);
        if is_over(&known) {
            return Err(ProgramError::ScopeEnded { scope: format!("the scope of {name}") });
        }
        let results = known.results.get(&action).ok_or_else(|| over(name))?;
        if !wanted {
            return Ok(Vec::new());
        }
        let results = results.clone();
        known.sent += usize::from(known.plans.contains_key(&action));
        Ok(results)
    }

    fn outcome(&self, name: &str, scope: &ScopePath, wait: bool) -> Result<Option<Bytes>, ProgramError> {
        let within = scope.to_vec();
        let is_told = |known: &Known| within.iter().any(|scope| known.outcomes.contains_key(scope));
        let waits = |known: &mut Known| wait && !is_told(known) && !known.ended;
        let known = self.changed.wait_while(self.known(), waits).unwrap_or_else(PoisonError::into_inner);
        match known.outcomes.get(&scope.id()) {
            None if is_told(&known) => Err(ProgramError::ScopeEnded { scope: format!("the scope of {name}") }),
            None if wait => Err(over(name)),
            outcome => Ok(outcome.cloned()),
        }
    }

    fn is_unknown(&self, action: ActionId, scope: &ScopePath) -> bool {
        let known = self.known();
        let has_ended = scope.to_vec().iter().any(|scope| known.outcomes.contains_key(scope));
        !has_ended && !known.results.contains_key(&action) && !known.plans.contains_key(&action)
    }

    /// What is the same in each run is never taken for a difference, however slow a worker is.
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    fn plan(&self, action: ActionId) -> Result<Option<Box<Plan>>, String> {
        Ok(self.known().plans.get(&action).cloned().map(Box::new))
    }

    fn stage_work(&self, stage: StageId) -> Result<Option<Box<StageWork>>, TaskFailure> {
        let mut known = self.known();
        known.seen.works_asked += 1;
        let found = known.plans.values().flat_map(|plan| &plan.stages).find(|plan| plan.stage == stage);
        let work = |plan: &StagePlan| {
            let StagePlan { work, reads, partitions, .. } = plan;
            Some(Box::new(StageWork { work: work.clone()?, reads: reads.clone(), partitions: *partitions }))
        };
        Ok(found.and_then(work))
    }

    fn files(&self) -> &dyn Files {
        World::files(self.world.as_ref())
    }

    fn own_directory(&self) -> Result<DfsPath, ProgramError> {
        Ok(own_directory())
    }

    fn now(&self) -> TimeMs {
        self.world.now()
    }

    fn rest(&self, _: Duration) {
        unreachable!("its file system is there")
    }

    fn job_name(&self) -> String {
        JOB.to_string()
    }

    fn build(&self) -> Option<[u8; 32]> {
        None
    }
}

/// Nobody gives a result any more.
fn over(name: &str) -> ProgramError {
    ProgramError::Action { action: name.to_owned(), message: "the job has ended".to_owned() }
}

/// Gives the tasks to the workers in turn.
struct RehearsedDriver {
    world: Arc<OneWorld>,
    side: Arc<Side>,
    workers: Vec<Arc<Runs>>,
    next: AtomicUsize,
    attempt: u32,
}

impl RehearsedDriver {
    /// What an earlier attempt has left.
    fn recorded(&self, action: ActionId) -> Option<Vec<Bytes>> {
        self.side.known().results.get(&action).cloned()
    }
}

impl Backend for RehearsedDriver {
    fn run_action(&self, action: ActionId, _: &ScopePath, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
        if let Some(results) = self.recorded(action) {
            return Ok(results);
        }
        let plan = graph.plan(None);
        let plan_digest = plan.digest();
        self.side.known().plans.insert(action, plan.clone());
        let world: Arc<dyn World> = Arc::<OneWorld>::clone(&self.world);
        let run = |stage: &StagePlan, attempt: TaskAttemptId| {
            let worker = &self.workers[self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len()];
            let locality = Locality::NoPreference;
            let work = match &stage.work {
                None => TaskWork::Replay { action, plan_digest },
                Some(Work { kind, digest, .. }) => TaskWork::Payload { action, kind: kind.clone(), digest: *digest },
            };
            let spec = TaskSpec { attempt, work, output: stage.output, locality, alone: false, slots: 1 };
            let outcome = worker.run(&spec, &Arc::default(), &world);
            let mut known = self.side.known();
            known.seen.kept = known.seen.kept.max(kept(&worker.first));
            match outcome {
                TaskOutcome::Done(done) => Ok(*done),
                TaskOutcome::Failed(failure) => Err(describe(attempt, &failure)),
            }
        };
        let results = self
            .world
            .run_stages(&plan.stages, run)
            .map_err(|message| ProgramError::Action { action: plan.name.clone(), message })?;
        let shuffles = self.world.outputs().len();
        let mut known = self.side.known();
        known.seen.shuffles = known.seen.shuffles.max(shuffles);
        known.seen.planned = known.seen.planned.max(plan.nodes.len());
        drop(known);
        self.side.give(action, results.clone());
        Ok(results)
    }

    fn wait_for_need(&self) -> Result<(), ProgramError> {
        Ok(())
    }

    fn record(
        &self,
        action: ActionId,
        _: &ScopePath,
        compute: &mut dyn FnMut(&dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        let value = match self.recorded(action) {
            Some(values) => one_result(values)?,
            None => compute(self.files()),
        };
        self.side.give(action, vec![value.clone()]);
        Ok(value)
    }

    fn scope_outcome(&self, scope: &ScopePath, _: &str) -> Result<Option<Bytes>, ProgramError> {
        Ok(self.side.known().outcomes.get(&scope.id()).cloned())
    }

    fn end_scope(&self, scope: &ScopePath, _: &str, _: Option<&str>, outcome: Bytes) -> Result<Bytes, ProgramError> {
        let mut known = self.side.known();
        let of_scope = ActionId::all_of(scope.id());
        known.results.retain(|action, _| !of_scope.contains(action));
        known.plans.retain(|action, _| !of_scope.contains(action));
        known.outcomes.insert(scope.id(), outcome.clone());
        self.side.changed.notify_all();
        Ok(outcome)
    }

    fn release(&self, what: Released) {
        match what {
            Released::Shuffle(shuffle) => self.world.release(shuffle),
            Released::Dataset(_) => self.side.known().seen.datasets_released += 1,
        }
    }

    fn files(&self) -> &dyn Files {
        World::files(self.world.as_ref())
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        Some(self.files())
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

    fn is_checked(&self) -> bool {
        self.workers.iter().any(|runs| runs.second.is_some())
    }
}
