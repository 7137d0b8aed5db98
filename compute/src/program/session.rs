use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use situ_runtime::clock::Clock;
use situ_runtime::real::RealRuntime;
use situ_runtime::rpc::RpcError;
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::error::Retry;
use situ_wire::messages::scheduler::{Request, Response};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::calls::wrong_answer;
use super::cluster::Cluster;
use super::driver::{self, Begun, DriverBackend};
use super::entry::connect;
use super::environment::{Environment, ProcessRole};
use crate::dataset::Context;

/// A driver says so many times that it lives in the time for which it may be silent.
const HEARTBEATS: u32 = 6;

/// A job that this process drives.
///
/// Programs have one made for them by [`run`](super::run). What is no program but drives jobs, as a server that many
/// people ask, attaches itself: it submits a job whose driver is attached (`situ_client::Scheduler::submit_attached`), and
/// runs actions through the [`Context`] of a session with it. The job lives as long as its session: that says every few
/// seconds that it is there, and when it is not heard for as long as the scheduler's `session_ms` the job fails.
///
/// The job's workers run the program that was submitted, from its `main`; it must build the same graph as whoever is
/// attached. What comes from outside, as a question, they learn through [`Context::once`].
pub struct Session {
    cluster: Arc<Cluster<RealRuntime>>,
    context: Context,
    attempt: u32,
    attached: bool,
    untold: Arc<Mutex<Option<String>>>,
    /// Why it is lost, once it is.
    lost: watch::Receiver<Option<Lost>>,
    _heartbeat: AbortOnDrop<()>,
}

/// Why a session is its job's driver no more.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) why: String,
    /// Whether the scheduler did not answer, and has not refused.
    pub(super) is_cut_off: bool,
}

/// Why a session does not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// It was told to be a worker.
    #[error("a session is a driver's; the environment says that this process is a worker")]
    NotADriver,
    /// The certificate cannot be used, or this host cannot connect.
    #[error("the cluster cannot be reached: {reason}")]
    Connect {
        /// Why.
        reason: String,
    },
    /// The scheduler refuses, or is away for too long.
    #[error(transparent)]
    Scheduler(#[from] RpcError),
}

impl Session {
    /// Attaches this process to the job that `environment` says, whose tasks of the network run on `handle`'s runtime.
    /// Blocks, as actions do: neither may be on a thread of that runtime.
    ///
    /// # Errors
    /// When the scheduler refuses, or the cluster cannot be reached.
    pub fn attach(environment: Environment, handle: &Handle) -> Result<Self, SessionError> {
        let ProcessRole::Driver { attempt } = environment.role else { return Err(SessionError::NotADriver) };
        let _inside = handle.enter();
        let cluster = connect(environment).map_err(|reason| SessionError::Connect { reason })?;
        Ok(Self::begin(cluster, attempt)?)
    }

    /// Begins as the driver of the job.
    pub(super) fn begin(cluster: Arc<Cluster<RealRuntime>>, attempt: u32) -> Result<Self, RpcError> {
        let (backend, Begun { silence, attached }) = DriverBackend::begin(Arc::clone(&cluster), attempt)?;
        let untold = backend.untold();
        let context = Context::new(Arc::new(backend));
        let (tell, lost) = watch::channel(None);
        let held = hold(Arc::clone(&cluster), attempt, silence / HEARTBEATS);
        let task = cluster.runtime.spawn("session", async move {
            let error = held.await;
            let is_cut_off = error.retry() != Retry::Never;
            tell.send_replace(Some(Lost { why: error.to_string(), is_cut_off }));
        });
        let heartbeat = task.abort_on_drop();
        Ok(Self { cluster, context, attempt, attached, untold, lost, _heartbeat: heartbeat })
    }

    /// Through which the job is given work.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Why it is the job's driver no more, once that is so.
    pub(super) fn lost(&self) -> watch::Receiver<Option<Lost>> {
        self.lost.clone()
    }

    /// Whether it is the client that drives the job.
    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Why nothing more can be done, if the scheduler could not be told what the program did.
    pub(super) fn untold(&self) -> Option<String> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the job: it has succeeded, or failed with this error, or because the scheduler could not be told of an action
    /// that the workers' runs of the program wait for. A session that is dropped instead is not heard any more,
    /// and so its job fails.
    ///
    /// # Errors
    /// When the scheduler cannot be told.
    pub fn end(self, error: Option<String>) -> Result<(), SessionError> {
        let error = error.or_else(|| self.untold());
        Ok(driver::end(&self.cluster, self.attempt, error)?)
    }
}

/// Says now and then that the driver lives, until that is refused for good; why.
async fn hold<R: Runtime>(cluster: Arc<Cluster<R>>, attempt: u32, pause: Duration) -> RpcError {
    let (job, secret) = (cluster.environment.job, cluster.environment.secret);
    let mut patience = cluster.scheduler.patience();
    loop {
        match cluster.scheduler.ask_once(&Request::DriverLives { job, secret, attempt }, pause).await {
            Ok(Response::Done) => {
                cluster.runtime.clock().sleep(pause).await;
                patience.heard();
            }
            Ok(other) => return wrong_answer("DriverLives", &other),
            Err(error) => {
                if let Err(error) = patience.bear(error).await {
                    return error;
                }
            }
        }
    }
}
