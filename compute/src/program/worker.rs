//! The worker: follows the driver's run of the program, and runs tasks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::RpcError;
use situ_wire::error::{ErrorCode, Retry};
use situ_wire::ids::{ActionId, PartitionId, ShuffleId, StageId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    ActionResult, Plan, Request, Response, StageWork, TaskFailure, TaskOutcome, TaskSpec,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::calls::wrong_answer;
use super::cluster::{Cluster, ClusterFiles, Fetching};
use super::driver::{known, results};
use super::environment::ProcessRole;
use super::error::{ProgramError, StorageError};
use super::follow::DriverSide;
use super::memory::MemoryLimits;
use super::own::create_result;
use super::runs::Runs;
use super::task::TaskControl;
use super::world::{DiskScratch, Files, Output, Pieces, ScopePath, Scratch, World};
use crate::engine::Engines;

/// One piece of text may be as long as a slot's part of a fourth of the worker's memory.
const TEXT_SHARE: u64 = 4;

/// How long its run of the program stands still elsewhere than the driver's before the job fails for that: until then
/// another worker may have done what this one cannot.
const GRACE: Duration = Duration::from_secs(30);

/// What the tasks of a worker share.
pub(super) struct Worker<R: Runtime> {
    pub(super) cluster: Arc<Cluster<R>>,
    pub(super) runs: Runs,
    world: Arc<dyn World>,
}

impl<R: Runtime> Worker<R> {
    pub(super) fn new(
        cluster: Arc<Cluster<R>>,
        engines: Engines,
        work_dir: &Path,
        slots: u32,
        memory_bytes: u64,
    ) -> Arc<Self> {
        let life = match &cluster.environment.role {
            ProcessRole::Worker { life, .. } => Some(*life),
            ProcessRole::Driver { .. } => None,
        };
        let scratch = DiskScratch { disk: cluster.runtime.disk().clone(), root: work_dir.to_owned(), life };
        if let Err(error) = scratch.forget_earlier() {
            tracing::warn!(%error, "what an earlier worker has spilled stays until the job ends");
        }
        let world = Arc::new(WorkerWorld {
            files: ClusterFiles(Arc::clone(&cluster)),
            scratch,
            task_memory_bytes: memory_bytes / TEXT_SHARE / u64::from(slots.max(1)),
            cluster: Arc::clone(&cluster),
        });
        let driver = ClusterDriver { cluster: Arc::clone(&cluster), files: ClusterFiles(Arc::clone(&cluster)) };
        let checked = cluster.environment.is_checked();
        let runs = Runs::new(Arc::new(driver), engines, MemoryLimits::of_worker(memory_bytes, slots), checked);
        Arc::new(Self { cluster, runs, world })
    }

    /// Runs one task. Blocks.
    pub(super) fn run(&self, spec: &TaskSpec, control: &Arc<TaskControl>) -> TaskOutcome {
        self.runs.run(spec, control, &self.world)
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

    fn create_result(&self, of: TaskAttemptId) -> Result<Box<dyn Output>, StorageError> {
        let unknown = |error: RpcError| {
            let later = error.retry() == Retry::Later;
            let code =
                error.remote().map_or(if later { ErrorCode::Unavailable } else { ErrorCode::Io }, |error| error.code);
            StorageError {
                code,
                message: format!("the scheduler does not say where the job's own directory is: {error}"),
            }
        };
        create_result(&self.files, &self.cluster.own_directory().map_err(unknown)?, of)
    }

    fn task_memory_bytes(&self) -> u64 {
        self.task_memory_bytes
    }

    fn fetch(
        &self,
        by: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
        window_bytes: usize,
    ) -> Result<Pieces, TaskFailure> {
        Ok(Box::new(Fetching::begin(Arc::clone(&self.cluster), by, shuffle, reduce, window_bytes)?))
    }
}

/// What a worker on a cluster learns of its driver.
struct ClusterDriver<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    files: ClusterFiles<R>,
}

impl<R: Runtime> ClusterDriver<R> {
    /// Asks what the driver has come to. Does not come back when the job has ended.
    fn ask(&self, request: &Request) -> Result<Response, RpcError> {
        let answer = self.cluster.ask(request);
        let ended = match &answer {
            Ok(Response::Action(ActionResult::Failed(error))) => Some(error),
            Ok(_) => None,
            Err(error) => error.remote().filter(|error| error.code == ErrorCode::JobFailed),
        };
        if let Some(error) = ended {
            // The executor ends the process. Until then there is nothing to do, and nothing to tell.
            tracing::debug!(%error, "the job has ended");
            self.cluster.handle.block_on(std::future::pending::<()>());
        }
        answer
    }
}

impl<R: Runtime> DriverSide for ClusterDriver<R> {
    fn results(
        &self,
        name: &str,
        action: ActionId,
        scope: &ScopePath,
        wanted: bool,
    ) -> Result<Vec<Bytes>, ProgramError> {
        let (job, secret, within) = (self.cluster.environment.job, self.cluster.environment.secret, scope.to_vec());
        let request = Request::ActionResult { job, secret, action, within, wait: true, results: wanted };
        results(name, self.ask(&request))
    }

    fn outcome(&self, name: &str, scope: &ScopePath, wait: bool) -> Result<Option<Bytes>, ProgramError> {
        let (job, secret, within) = (self.cluster.environment.job, self.cluster.environment.secret, scope.to_vec());
        known(name, self.ask(&Request::ScopeOutcome { job, secret, within, wait }))
    }

    fn is_unknown(&self, action: ActionId, scope: &ScopePath) -> bool {
        let (job, secret, within) = (self.cluster.environment.job, self.cluster.environment.secret, scope.to_vec());
        let request = Request::ActionResult { job, secret, action, within, wait: false, results: false };
        let is_unknown = matches!(self.ask(&request), Ok(Response::Action(ActionResult::Unknown)));
        is_unknown && matches!(self.plan(action), Ok(None))
    }

    fn grace(&self) -> Duration {
        GRACE
    }

    fn plan(&self, action: ActionId) -> Result<Option<Box<Plan>>, String> {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        match self.cluster.ask(&Request::Plan { job, secret, action }) {
            Ok(Response::Plan(plan)) => Ok(plan),
            Ok(other) => Err(wrong_answer("Plan", &other).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn stage_work(&self, stage: StageId) -> Result<Option<Box<StageWork>>, TaskFailure> {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        let failed = |error: RpcError| TaskFailure::Storage {
            message: format!("the scheduler does not give the work of {stage}: {error}"),
            transient: error.retry() == Retry::Later,
        };
        match self.cluster.ask(&Request::StageWork { job, secret, stage }) {
            Ok(Response::StageWork(work)) => Ok(work),
            Ok(other) => Err(failed(wrong_answer("StageWork", &other))),
            Err(error) => Err(failed(error)),
        }
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn own_directory(&self) -> Result<DfsPath, ProgramError> {
        Ok(self.cluster.own_directory()?)
    }

    fn now(&self) -> TimeMs {
        self.cluster.runtime.clock().now()
    }

    fn rest(&self, time: Duration) {
        self.cluster.rest(time);
    }

    fn job_name(&self) -> String {
        self.cluster.environment.job.to_string()
    }

    fn build(&self) -> Option<[u8; 32]> {
        self.cluster.environment.build
    }
}
