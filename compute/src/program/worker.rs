//! The worker: follows the driver's run of the program, and runs tasks.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::RpcError;
use situ_wire::ids::{ActionId, DatasetId, OperationId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::{Request as ExecutorRequest, Response as ExecutorResponse};
use situ_wire::messages::scheduler::{Plan, Request, Response, StageOutput, TaskFailure, TaskOutcome, TaskSpec};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::calls::wrong_answer;
use super::cluster::{Cluster, ClusterFiles, Fetching};
use super::driver::{one_result, results};
use super::error::ProgramError;
use super::memory::{MemoryLimits, MemoryManager};
use super::replay::{NotReached, Reached, Replay};
use super::task::{TaskContext, TaskOutput, cut, run_task};
use super::world::{Backend, DiskScratch, Files, Pieces, Scratch, World};
use crate::dataset::{Graph, StageTask};

/// One piece of text may be as long as a slot's part of a fourth of the worker's memory.
const TEXT_SHARE: u64 = 4;

/// What the tasks of a worker share.
pub(super) struct Worker<R: Runtime> {
    pub(super) cluster: Arc<Cluster<R>>,
    pub(super) graph: Arc<RwLock<Graph>>,
    pub(super) replay: Arc<Replay>,
    world: Arc<dyn World>,
    memory: Arc<MemoryManager>,
}

impl<R: Runtime> Worker<R> {
    pub(super) fn new(
        cluster: Arc<Cluster<R>>,
        graph: Arc<RwLock<Graph>>,
        work_dir: &Path,
        slots: u32,
        memory_bytes: u64,
    ) -> Arc<Self> {
        let world = Arc::new(WorkerWorld {
            files: ClusterFiles(Arc::clone(&cluster)),
            scratch: DiskScratch { disk: cluster.runtime.disk().clone(), root: work_dir.to_owned() },
            task_memory_bytes: memory_bytes / TEXT_SHARE / u64::from(slots.max(1)),
            cluster: Arc::clone(&cluster),
        });
        let memory = MemoryManager::new(MemoryLimits::of_worker(memory_bytes, slots));
        Arc::new(Self { cluster, graph, replay: Replay::new(), world, memory })
    }

    /// Takes tasks and runs them, one after the other, until the executor has no more for this worker.
    ///
    /// # Errors
    /// When the executor cannot be reached or does not know the job any more.
    pub(super) async fn serve(self: Arc<Self>) -> Result<(), RpcError> {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        loop {
            let spec = match self.cluster.executor.ask(&ExecutorRequest::NextTask { job, secret }).await? {
                ExecutorResponse::Task(Some(spec)) => spec,
                ExecutorResponse::Task(None) => return Ok(()),
                other => return Err(wrong_answer("NextTask", &other)),
            };
            let attempt = spec.attempt;
            let worker = Arc::clone(&self);
            let outcome = self.cluster.runtime.blocking(move || worker.run(&spec)).await;
            let request = ExecutorRequest::TaskEnded { job, secret, attempt, outcome };
            match self.cluster.executor.ask(&request).await? {
                ExecutorResponse::Done => {}
                other => return Err(wrong_answer("TaskEnded", &other)),
            }
        }
    }

    /// Runs one task. Blocks.
    fn run(&self, spec: &TaskSpec) -> TaskOutcome {
        match self.find(spec) {
            Ok(task) => run_task(spec.attempt, &self.world, &self.memory, |context| run_stage_task(&task, context)),
            Err(failure) => TaskOutcome::Failed(cut(failure)),
        }
    }

    /// What a task shall do, once the program has come to its action and the graph is known to be the driver's.
    fn find(&self, spec: &TaskSpec) -> Result<StageTask, TaskFailure> {
        let mismatch = |message: String| TaskFailure::PlanMismatch { message };
        let reached = self.replay.wait_for(spec.action).map_err(|why| match why {
            NotReached::Ended => mismatch(format!("the program ended in this worker before {}", spec.action)),
            NotReached::Other => mismatch(format!(
                "{} is an action in the driver, but a value that the driver records in this worker",
                spec.action
            )),
            NotReached::Failed(error) => TaskFailure::Program {
                message: format!("the program failed in the worker before {}: {error}", spec.action),
            },
        })?;
        if reached.digest != spec.plan_digest {
            return Err(mismatch(self.difference(spec.action, reached)));
        }
        let graph = self.graph.read().unwrap_or_else(PoisonError::into_inner);
        let task = graph.stage_task(spec.attempt.stage);
        match (task, spec.output) {
            (
                Some(StageTask::Map { shuffle, reducers, task }),
                StageOutput::Shuffle { shuffle: asked, reducers: asked_reducers },
            ) if shuffle == asked && reducers == asked_reducers => Ok(StageTask::Map { shuffle, reducers, task }),
            (Some(StageTask::Result { action, task }), StageOutput::Result { action: asked }) if action == asked => {
                Ok(StageTask::Result { action, task })
            }
            (_, output) => Err(mismatch(format!("{} does not give {output:?} in this worker", spec.attempt.stage))),
        }
    }

    /// Says where this worker's graph differs from the driver's.
    fn difference(&self, action: ActionId, reached: Reached) -> String {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        let mine = self.graph.read().unwrap_or_else(PoisonError::into_inner).plan(reached.last);
        let what = match self.cluster.ask(&Request::Plan { job, secret, action }) {
            Ok(Response::Plan(Some(driver))) => driver.difference("the driver", &mine, "this worker"),
            Ok(Response::Plan(None)) => None,
            Ok(other) => Some(wrong_answer("Plan", &other).to_string()),
            Err(error) => Some(format!("the driver's plan cannot be had: {error}")),
        };
        what.unwrap_or_else(|| "the plans differ".to_owned())
    }
}

/// Does what a stage's tasks do.
pub(super) fn run_stage_task(task: &StageTask, context: &TaskContext) -> TaskOutput {
    let partition = context.attempt().partition.0;
    match task {
        StageTask::Map { task, .. } => TaskOutput::Pieces(task(context, partition)),
        StageTask::Result { task, .. } => TaskOutput::Result(task(context, partition)),
    }
}

/// What the tasks of a worker see.
struct WorkerWorld<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    files: ClusterFiles<R>,
    scratch: DiskScratch<R::Disk>,
    task_memory_bytes: u64,
}

impl<R: Runtime> World for WorkerWorld<R> {
    fn now(&self) -> TimeMs {
        self.cluster.runtime.clock().now()
    }

    fn scratch(&self) -> &dyn Scratch {
        &self.scratch
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn task_memory_bytes(&self) -> u64 {
        self.task_memory_bytes
    }

    fn is_wanted(&self, attempt: TaskAttemptId) -> bool {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        let request = ExecutorRequest::IsWanted { job, secret, attempt };
        match self.cluster.handle.block_on(self.cluster.executor.ask(&request)) {
            Ok(ExecutorResponse::Wanted(wanted)) => wanted,
            Ok(other) => {
                tracing::warn!(error = %wrong_answer("IsWanted", &other), "the task goes on");
                true
            }
            Err(error) => {
                tracing::warn!(%attempt, %error, "it is not known whether the task is wanted; it goes on");
                true
            }
        }
    }

    fn fetch(&self, shuffle: ShuffleId, reduce: PartitionId, window_bytes: usize) -> Result<Pieces, TaskFailure> {
        Ok(Box::new(Fetching::begin(Arc::clone(&self.cluster), shuffle, reduce, window_bytes)?))
    }
}

/// Gives the program in a worker the results that its driver got.
pub(super) struct WorkerBackend<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    replay: Arc<Replay>,
}

impl<R: Runtime> WorkerBackend<R> {
    pub(super) fn new(worker: &Worker<R>) -> Self {
        Self { cluster: Arc::clone(&worker.cluster), replay: Arc::clone(&worker.replay) }
    }

    fn driver_results(&self, name: &str, action: ActionId) -> Result<Vec<Bytes>, ProgramError> {
        self.replay.wait_until_passed(action);
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        results(name, self.cluster.ask(&Request::ActionResult { job, secret, action, wait: true }))
    }
}

impl<R: Runtime> Backend for WorkerBackend<R> {
    fn run_action(&self, action: ActionId, plan: Plan) -> Result<Vec<Bytes>, ProgramError> {
        let last = plan.nodes.len().checked_sub(1).and_then(|last| u32::try_from(last).ok());
        let last = DatasetId(last.expect("a plan holds at least its action"));
        self.replay.reach(action, Reached { digest: plan.digest(), last });
        self.driver_results(&plan.name, action)
    }

    fn record(&self, action: ActionId, _: &mut dyn FnMut(&dyn Files) -> Bytes) -> Result<Bytes, ProgramError> {
        one_result(self.driver_results("a record", action)?)
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        None
    }

    fn writes_aside(&self, _: &DfsPath) -> Result<(), ProgramError> {
        unreachable!("only a driver makes room for output")
    }

    fn publication(&self, _: ActionId) -> OperationId {
        unreachable!("only a driver publishes")
    }

    fn job_name(&self) -> String {
        self.cluster.environment.job.to_string()
    }
}
