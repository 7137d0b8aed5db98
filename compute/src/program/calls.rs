use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Caller, Connector, RpcError};
use situ_wire::error::Retry;
use situ_wire::hello::Role;
use situ_wire::time::TimeMs;

/// How long a server may be away before a process of a job gives up: long enough for a scheduler to be started anew.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long to wait before a server that is away, or asks to come later, is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one call waits at the server for what is not there yet.
const WAIT: Duration = Duration::from_secs(30);

/// A server that a process of a job asks again until there is an answer.
pub(super) struct Server<R: Runtime, Q, A> {
    connector: Connector<R>,
    role: Role,
    address: SocketAddr,
    /// The stream of calls; none before the first call and after it was lost.
    caller: tokio::sync::Mutex<Option<Caller<R, Q, A>>>,
}

impl<R: Runtime, Q: Serialize + Sync, A: DeserializeOwned + Send + fmt::Debug> Server<R, Q, A> {
    pub(super) fn new(connector: Connector<R>, role: Role, address: SocketAddr) -> Self {
        Self { connector, role, address, caller: tokio::sync::Mutex::new(None) }
    }

    /// Asks until there is an answer: for as long as it takes while the server is there, for [`PATIENCE`] while it is
    /// away. All these calls may be made twice: the server knows an action, an attempt by its number.
    ///
    /// # Errors
    /// When the server refuses for good, or is away for too long.
    pub(super) async fn ask(&self, request: &Q) -> Result<A, RpcError> {
        let mut patience = self.patience();
        loop {
            match self.ask_once(request, WAIT).await {
                Ok(answer) => return Ok(answer),
                Err(error) => patience.bear(error).await?,
            }
        }
    }

    /// Asks once and waits for the answer, at most `limit`.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub(super) async fn ask_once(&self, request: &Q, limit: Duration) -> Result<A, RpcError> {
        let caller = {
            let mut slot = self.caller.lock().await;
            match slot.as_ref().filter(|caller| !caller.is_closed()) {
                Some(caller) => caller.clone(),
                None => {
                    *slot = None;
                    slot.insert(self.connector.caller(self.address, self.role).await?).clone()
                }
            }
        };
        caller.call(request, limit).await
    }

    /// Patience with this server, which begins now.
    pub(super) fn patience(&self) -> Patience<'_, R> {
        let clock = self.connector.runtime().clock();
        let now = clock.now();
        Patience { clock, role: self.role, address: self.address, heard: now, asked: now }
    }
}

/// How long a process bears with a server that does not answer.
pub(super) struct Patience<'a, R: Runtime> {
    clock: &'a R::Clock,
    role: Role,
    address: SocketAddr,
    /// When the server was last heard.
    heard: TimeMs,
    /// When it was last asked.
    asked: TimeMs,
}

impl<R: Runtime> Patience<'_, R> {
    /// The server has answered; it is asked again now.
    pub(super) fn heard(&mut self) {
        self.heard = self.clock.now();
        self.asked = self.heard;
    }

    /// Waits after a failed call until it is time to ask again, which is now when this returns.
    ///
    /// # Errors
    /// The same error when there is no use in asking again.
    pub(super) async fn bear(&mut self, error: RpcError) -> Result<(), RpcError> {
        if error.retry() == Retry::Never {
            return Err(error);
        }
        let now = self.clock.now();
        match &error {
            // It is there: it says that the time was up, or to come later.
            RpcError::Remote(_) => self.heard = now,
            // Its answer to a call that waited for long may have crossed with the end of that wait.
            RpcError::DeadlineExceeded { .. } => {}
            _ if now.since(self.heard) > PATIENCE => return Err(error),
            _ => tracing::warn!(server = %self.role, address = %self.address, %error, "asking again"),
        }
        if now.since(self.asked) < PAUSE {
            self.clock.sleep(PAUSE).await;
        }
        self.asked = self.clock.now();
        Ok(())
    }
}

/// An answer of another kind than was asked for.
pub(super) fn wrong_answer(request: &'static str, answer: &dyn fmt::Debug) -> RpcError {
    RpcError::WrongAnswer { request, found: format!("{answer:?}").chars().take(80).collect() }
}
