//! The driver: runs the program from its start to its end, and its actions on the cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::RpcError;
use situ_wire::ids::{ActionId, ClientId, DatasetId, OperationId, ScopeId, ShuffleId};
use situ_wire::messages::scheduler::{ActionResult, Request, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::calls::wrong_answer;
use super::cluster::{Cluster, ClusterFiles};
use super::error::{ProgramError, StorageError};
use super::patience::{PatientFiles, Waiting};
use super::world::{Backend, Files, Released, ScopePath};
use crate::dataset::Graph;
use crate::shortened::shortened;

/// How long a driver bears with a file system that is away; as long as its tasks do by default.
const FILE_SYSTEM_PATIENCE: Duration = Duration::from_secs(600);
/// Of how many shuffles or datasets one call says that they are released.
const RELEASED_PER_CALL: usize = 100_000;

/// Runs actions by asking the scheduler. A driver that was started anew asks for the same actions and gets the results
/// that there are.
pub(super) struct DriverBackend<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    files: PatientFiles<DriverFiles<R>>,
    attempt: u32,
    publisher: ClientId,
    /// What the program has let go of since the last action.
    released: Mutex<(Vec<ShuffleId>, Vec<DatasetId>)>,
    /// Why the scheduler does not know what the program did, if once it could not be told.
    untold: Arc<Mutex<Option<String>>>,
}

/// What a driver hears when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// Within which time it must always be heard again.
    pub(super) silence: Duration,
    /// Whether it is its client that drives the job.
    pub(super) attached: bool,
}

impl<R: Runtime> DriverBackend<R> {
    /// Tells the scheduler that the driver begins.
    pub(super) fn begin(cluster: Arc<Cluster<R>>, attempt: u32) -> Result<(Self, Begun), RpcError> {
        let (job, secret) = (cluster.environment.job, cluster.environment.secret);
        match cluster.ask(&Request::DriverBegin { job, secret, attempt })? {
            Response::Begun { publisher, session_ms, attached } => {
                let files = DriverFiles { files: ClusterFiles(Arc::clone(&cluster)), gave_up: Mutex::default() };
                let files = PatientFiles(Arc::new(files));
                let (released, untold) = (Mutex::default(), Arc::default());
                let backend = Self { files, cluster, attempt, publisher, released, untold };
                Ok((backend, Begun { silence: Duration::from_millis(session_ms.into()), attached }))
            }
            other => Err(wrong_answer("DriverBegin", &other)),
        }
    }

    /// Where it stands that the scheduler could not be told something, once that is so.
    pub(super) fn untold(&self) -> Arc<Mutex<Option<String>>> {
        Arc::clone(&self.untold)
    }

    /// Tells the scheduler what the program does next, for which its other runs wait. Should that not be possible, they would
    /// wait for ever: then nothing that comes behind it is done, and the job fails.
    fn tell(&self, what: &str, request: &Request) -> Result<Vec<Bytes>, ProgramError> {
        if let Some(message) = self.untold.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(ProgramError::Scheduler { message });
        }
        let answer = self.cluster.ask(request).inspect_err(|error| {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            untold.get_or_insert_with(|| {
                format!("the scheduler does not know of {what}, without which the program cannot go on: {error}")
            });
        });
        results(what, answer)
    }

    /// Tells the scheduler what the program has let go of.
    fn release_all(&self) -> Result<(), ProgramError> {
        let (shuffles, datasets) = std::mem::take(&mut *self.released.lock().unwrap_or_else(PoisonError::into_inner));
        let (job, secret, attempt) = (self.cluster.environment.job, self.cluster.environment.secret, self.attempt);
        let release =
            |shuffles, datasets| self.done("Release", &Request::Release { job, secret, attempt, shuffles, datasets });
        for shuffles in shuffles.chunks(RELEASED_PER_CALL) {
            release(shuffles.to_vec(), Vec::new())?;
        }
        for datasets in datasets.chunks(RELEASED_PER_CALL) {
            release(Vec::new(), datasets.to_vec())?;
        }
        Ok(())
    }

    /// What an earlier attempt has left under a number.
    fn recorded(&self, action: ActionId, within: Vec<ScopeId>) -> Result<Option<Bytes>, ProgramError> {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        known(
            "a record",
            self.cluster.ask(&Request::ActionResult { job, secret, action, within, wait: false, results: true }),
        )
    }

    /// Asks for what is only to be noted.
    fn done(&self, name: &'static str, request: &Request) -> Result<(), ProgramError> {
        match self.cluster.ask(request) {
            Ok(Response::Done) => Ok(()),
            Ok(other) => Err(wrong_answer(name, &other).into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file system as the program sees it in its driver.
struct DriverFiles<R: Runtime> {
    files: ClusterFiles<R>,
    /// The last error that was not borne any longer.
    gave_up: Mutex<Option<StorageError>>,
}

impl<R: Runtime> DriverFiles<R> {
    fn take_gave_up(&self) -> Option<StorageError> {
        self.gave_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Runtime> Waiting for DriverFiles<R> {
    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn now(&self) -> TimeMs {
        self.files.0.runtime.clock().now()
    }

    fn rest(&self, time: Duration) {
        self.files.0.rest(time);
    }

    fn patience(&self) -> Duration {
        FILE_SYSTEM_PATIENCE
    }

    fn give_up(&self, error: &StorageError) {
        *self.gave_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
    }
}

/// Tells the scheduler how the program ended.
pub(super) fn end<R: Runtime>(cluster: &Cluster<R>, attempt: u32, error: Option<String>) -> Result<(), RpcError> {
    let (job, secret) = (cluster.environment.job, cluster.environment.secret);
    let error = error.map(|error| shortened(&error).into_owned());
    match cluster.ask(&Request::DriverEnd { job, secret, attempt, error })? {
        Response::Done => Ok(()),
        other => Err(wrong_answer("DriverEnd", &other)),
    }
}

/// Takes the result of an action out of an answer.
pub(super) fn results(action: &str, answer: Result<Response, RpcError>) -> Result<Vec<Bytes>, ProgramError> {
    match answer {
        Ok(Response::Action(ActionResult::Done(results))) => Ok(results),
        Ok(Response::Action(ActionResult::Failed(error))) => {
            Err(ProgramError::Action { action: action.to_owned(), message: error.message })
        }
        Ok(Response::Action(ActionResult::ScopeEnded)) => {
            Err(ProgramError::ScopeEnded { scope: format!("the scope of {action}") })
        }
        Ok(other) => Err(wrong_answer("an action", &other).into()),
        Err(error) => Err(error.into()),
    }
}

/// The only piece of what may not be there yet.
pub(super) fn known(what: &str, answer: Result<Response, RpcError>) -> Result<Option<Bytes>, ProgramError> {
    match answer {
        Ok(Response::Action(ActionResult::Unknown)) => Ok(None),
        answer => one_result(results(what, answer)?).map(Some),
    }
}

impl<R: Runtime> Backend for DriverBackend<R> {
    fn run_action(&self, action: ActionId, _: &ScopePath, graph: Arc<Graph>) -> Result<Vec<Bytes>, ProgramError> {
        self.release_all()?;
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        let plan = graph.plan(self.cluster.environment.build);
        let name = plan.name.clone();
        // What engines compute no run of the program waits for.
        let is_awaited = plan.stages.iter().any(|stage| stage.work.is_none());
        let request = Request::RunAction { job, secret, attempt: self.attempt, action, plan: Box::new(plan) };
        if is_awaited { self.tell(&name, &request) } else { results(&name, self.cluster.ask(&request)) }
    }

    fn wait_for_need(&self) -> Result<(), ProgramError> {
        Ok(())
    }

    fn record(
        &self,
        action: ActionId,
        scope: &ScopePath,
        compute: &mut dyn FnMut(&dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        let (job, secret) = (self.cluster.environment.job, self.cluster.environment.secret);
        // Another attempt may have recorded it: what that computed counts, and is not computed again. It is sent again all
        // the same, and refused should an action have had the number.
        let recorded = if self.attempt > 0 { self.recorded(action, scope.to_vec())? } else { None };
        let value = recorded.unwrap_or_else(|| compute(&self.files));
        // What it came to then is not what there is: a driver that is started anew must not get it again.
        if let Some(error) = self.files.0.take_gave_up() {
            return Err(ProgramError::FileSystemAway { message: error.message });
        }
        one_result(self.tell("a record", &Request::Record { job, secret, attempt: self.attempt, action, value })?)
    }

    fn scope_outcome(&self, scope: &ScopePath, name: &str) -> Result<Option<Bytes>, ProgramError> {
        // Nobody has been here before the first attempt.
        if self.attempt == 0 {
            return Ok(None);
        }
        let (job, secret, within) = (self.cluster.environment.job, self.cluster.environment.secret, scope.to_vec());
        known(name, self.cluster.ask(&Request::ScopeOutcome { job, secret, within, wait: false }))
    }

    fn end_scope(&self, scope: &ScopePath, name: &str, _: Option<&str>, outcome: Bytes) -> Result<Bytes, ProgramError> {
        self.release_all()?;
        let (job, secret, attempt) = (self.cluster.environment.job, self.cluster.environment.secret, self.attempt);
        let request = Request::EndScope { job, secret, attempt, within: scope.to_vec(), outcome };
        one_result(self.tell(&format!("the end of {name}"), &request)?)
    }

    fn release(&self, what: Released) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        match what {
            Released::Shuffle(shuffle) => released.0.push(shuffle),
            Released::Dataset(dataset) => released.1.push(dataset),
        }
    }

    fn files(&self) -> &dyn Files {
        &self.files
    }

    fn driver_files(&self) -> Option<&dyn Files> {
        Some(&self.files)
    }

    fn own_directory(&self) -> Result<DfsPath, ProgramError> {
        Ok(self.cluster.own_directory()?)
    }

    fn publishing(&self, action: ActionId, output: &DfsPath) -> Result<bool, ProgramError> {
        let (job, secret, attempt) = (self.cluster.environment.job, self.cluster.environment.secret, self.attempt);
        match self.cluster.ask(&Request::Publishing { job, secret, attempt, action, output: output.clone() }) {
            Ok(Response::Publication { published }) => Ok(published),
            Ok(other) => Err(wrong_answer("Publishing", &other).into()),
            Err(error) => Err(error.into()),
        }
    }

    fn published(&self, action: ActionId) -> Result<(), ProgramError> {
        let (job, secret, attempt) = (self.cluster.environment.job, self.cluster.environment.secret, self.attempt);
        self.done("Published", &Request::Published { job, secret, attempt, action })
    }

    fn take_away(&self, _: &DfsPath) -> Result<(), StorageError> {
        // The scheduler has it done when the job has ended: another driver may have taken this one's place by now.
        Ok(())
    }

    fn publication(&self, action: ActionId) -> OperationId {
        publication(self.publisher, action)
    }

    fn job_name(&self) -> String {
        self.cluster.environment.job.to_string()
    }

    fn attempt(&self) -> u32 {
        self.attempt
    }

    fn is_checked(&self) -> bool {
        self.cluster.environment.is_checked()
    }
}

/// The publication that belongs to an action: those of each scope are numbered by themselves, as of a client of its own.
pub(super) fn publication(publisher: ClientId, action: ActionId) -> OperationId {
    let ActionId(ScopeId(scope), number) = action;
    OperationId { client: ClientId(publisher.0 ^ u128::from(scope)), sequence: u64::from(number) + 1 }
}

/// The only piece of a recorded value.
pub(super) fn one_result(results: Vec<Bytes>) -> Result<Bytes, ProgramError> {
    match <[Bytes; 1]>::try_from(results) {
        Ok([value]) => Ok(value),
        Err(results) => Err(ProgramError::Scheduler {
            message: format!("the scheduler gave {} pieces of one value", results.len()),
        }),
    }
}
