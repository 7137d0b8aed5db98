//! Calls to the scheduler, and logs of jobs.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_wire::hello::Role;
use situ_wire::ids::JobId;
use situ_wire::limits::LOG_CHUNK_LEN_BYTES;
use situ_wire::messages::executor::{self, LogName};
use situ_wire::messages::scheduler::{
    Attachment, DriverPlace, ExecutorStatus, JobOptions, JobStatus, JobSummary, LogLocation, Program, Request, Response,
};

use super::client::Client;
use super::remote::{Asked, Remote, WaitObserver, answer, asked};
use crate::core::Patience;
use crate::error::ClientError;

/// How much longer than a long poll its call may take.
const POLL_MARGIN: Duration = Duration::from_secs(5);
/// How long one question waits for news of a job.
const NEWS: Duration = Duration::from_secs(20);

/// Jobs. Each call is made again while that can help.
#[derive(Debug)]
pub struct Scheduler<R: Runtime> {
    client: Client<R>,
    patience: Patience,
}

impl<R: Runtime> Clone for Scheduler<R> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), patience: self.patience }
    }
}

impl<R: Runtime> Client<R> {
    /// The scheduler of the cluster.
    #[must_use]
    pub fn scheduler(&self) -> Scheduler<R> {
        Scheduler { client: self.clone(), patience: self.config().patience() }
    }
}

impl<R: Runtime> Scheduler<R> {
    /// The same, for whoever decides alone whether to ask again: each call is made once.
    #[must_use]
    pub fn asked_once(self) -> Self {
        Self { patience: Patience { server: Duration::ZERO, datanodes: Duration::ZERO }, ..self }
    }

    /// Starts a job; a retry starts no second one.
    ///
    /// # Errors
    /// When the scheduler refuses or cannot be reached.
    pub async fn submit(&self, program: Program, arguments: Vec<String>) -> Result<JobId, ClientError> {
        self.submit_with(program, arguments, JobOptions::default()).await
    }

    /// As [`Scheduler::submit`], with a say in how the job runs.
    ///
    /// # Errors
    /// When the scheduler refuses or cannot be reached.
    pub async fn submit_with(
        &self,
        program: Program,
        arguments: Vec<String>,
        options: JobOptions,
    ) -> Result<JobId, ClientError> {
        let name = program.name().to_owned();
        let asked = asked("submit", &name);
        let (operation, driver) = (self.client.operation(), DriverPlace::Placed);
        let request = Request::Submit { program, arguments, operation, options, driver };
        answer!(asked, "Submit", self.ask(asked, &request).await?, Response::Submitted { job, .. } => job)
    }

    /// Starts a job whose driver the caller is, as the answer says: the job ends soon if that is not heard.
    ///
    /// # Errors
    /// When the scheduler refuses or cannot be reached.
    pub async fn submit_attached(
        &self,
        program: Program,
        arguments: Vec<String>,
        options: JobOptions,
    ) -> Result<(JobId, Attachment), ClientError> {
        let name = program.name().to_owned();
        let asked = asked("submit", &name);
        let (operation, driver) = (self.client.operation(), DriverPlace::Attached);
        let request = Request::Submit { program, arguments, operation, options, driver };
        answer!(
            asked,
            "Submit",
            self.ask(asked, &request).await?,
            Response::Submitted { job, attachment: Some(attachment) } => (job, attachment)
        )
    }

    /// All jobs that the scheduler remembers, newest first.
    ///
    /// # Errors
    /// When the scheduler refuses or cannot be reached.
    pub async fn list(&self) -> Result<Vec<JobSummary>, ClientError> {
        let asked = asked("list", &"jobs");
        let (mut all, mut before) = (Vec::new(), None);
        loop {
            let answered = self.ask(asked, &Request::List { before }).await?;
            let (jobs, next) = answer!(asked, "List", answered, Response::Jobs { jobs, next } => (jobs, next))?;
            all.extend(jobs);
            // Every page must lead on: a server that repeats itself would keep us for ever.
            before = next.filter(|next| before.is_none_or(|before| *next < before));
            if before.is_none() {
                return Ok(all);
            }
        }
    }

    /// The state of a job now.
    ///
    /// # Errors
    /// When there is no such job, or the scheduler refuses or cannot be reached.
    pub async fn status(&self, job: JobId) -> Result<JobStatus, ClientError> {
        self.changed_status(job, 0, Duration::ZERO).await
    }

    /// The state of a job as soon as its revision differs from `seen`, or after `wait`, whichever is first.
    ///
    /// # Errors
    /// When there is no such job, or the scheduler refuses or cannot be reached.
    pub async fn changed_status(&self, job: JobId, seen: u64, wait: Duration) -> Result<JobStatus, ClientError> {
        let asked = asked("ask for the state of", &job);
        let remote = self.remote(asked)?;
        let timeout = (wait + POLL_MARGIN).max(self.client.config().call_timeout());
        let request = Request::Status { job, seen };
        let answered = remote.call_within(asked, &request, timeout, self.patience).await?;
        answer!(asked, "Status", answered, Response::Status(status) => *status)
    }

    /// Waits until a job has ended; its state then.
    ///
    /// # Errors
    /// When there is no such job, or the scheduler refuses or cannot be reached.
    pub async fn wait(&self, job: JobId) -> Result<JobStatus, ClientError> {
        let mut status = self.status(job).await?;
        while !status.summary.state.is_final() {
            status = self.changed_status(job, status.revision, NEWS).await?;
        }
        Ok(status)
    }

    /// Ends a job; `reason` goes into its status.
    ///
    /// # Errors
    /// When there is no such job, or the scheduler refuses or cannot be reached.
    pub async fn kill(&self, job: JobId, reason: impl Into<String>) -> Result<(), ClientError> {
        let asked = asked("kill", &job);
        let request = Request::Kill { job, reason: reason.into() };
        answer!(asked, "Kill", self.ask(asked, &request).await?, Response::Done => ())
    }

    /// Where the logs of a job are.
    ///
    /// # Errors
    /// When there is no such job, or the scheduler refuses or cannot be reached.
    pub async fn logs(&self, job: JobId) -> Result<Vec<LogLocation>, ClientError> {
        let asked = asked("find the logs of", &job);
        answer!(asked, "Logs", self.ask(asked, &Request::Logs { job }).await?, Response::Logs(logs) => logs)
    }

    /// The executors.
    ///
    /// # Errors
    /// When the scheduler refuses or cannot be reached.
    pub async fn executors(&self) -> Result<Vec<ExecutorStatus>, ClientError> {
        let asked = asked("list", &"executors");
        answer!(asked, "Executors", self.ask(asked, &Request::Executors).await?, Response::Executors(all) => all)
    }

    /// Reads logs from the executor at `address`.
    #[must_use]
    pub fn log_reader(&self, address: SocketAddr) -> LogReader<R> {
        let config = self.client.config();
        // An executor that is gone keeps its logs to itself: waiting for it long does not help.
        let patience = Patience { server: config.call_timeout(), datanodes: Duration::ZERO };
        let observer: WaitObserver = std::sync::Arc::new(|_| {});
        let remote = Remote::new(
            self.client.connector().clone(),
            Role::Executor,
            address,
            patience,
            config.call_timeout(),
            observer,
        );
        LogReader { remote }
    }

    async fn ask(&self, asked: Asked<'_>, request: &Request) -> Result<Response, ClientError> {
        self.remote(asked)?.call_within(asked, request, self.client.config().call_timeout(), self.patience).await
    }

    fn remote(&self, asked: Asked<'_>) -> Result<&Remote<R, Request, Response>, ClientError> {
        self.client.shared.scheduler.as_ref().ok_or(ClientError::NoScheduler { operation: asked.operation })
    }
}

/// Reads the logs that one executor keeps.
pub struct LogReader<R: Runtime> {
    remote: Remote<R, executor::Request, executor::Response>,
}

impl<R: Runtime> std::fmt::Debug for LogReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl<R: Runtime> LogReader<R> {
    /// The next bytes of a log from `offset` on; empty at its present end.
    ///
    /// # Errors
    /// When there is no such log, or the executor refuses or cannot be reached.
    pub async fn read(&self, job: JobId, log: LogName, offset: u64) -> Result<Bytes, ClientError> {
        let asked = asked("read a log of", &job);
        let request = executor::Request::ReadLog { job, log, offset, limit_bytes: LOG_CHUNK_LEN_BYTES };
        answer!(asked, "ReadLog", self.remote.call(asked, &request).await?, executor::Response::Log(bytes) => bytes)
    }
}
