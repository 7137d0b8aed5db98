use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Caller, Connector, RpcError};
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;

use crate::core::{Patience, Retries};
use crate::error::{ClientError, Unreachable};

/// A call that is being made again, for whoever watches.
#[derive(Debug)]
pub struct Waiting<'a> {
    /// Who is asked.
    pub role: Role,
    /// Where.
    pub address: SocketAddr,
    /// What is asked.
    pub operation: &'static str,
    /// Why it is not done yet.
    pub error: &'a RpcError,
    /// For how long it has been tried.
    pub waited: Duration,
    /// For how long it will be.
    pub limit: Duration,
}

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waiting up to {:?} for ", self.limit)?;
        match self.error.remote() {
            // What it is about, the one who asked knows; why it waits, they do not.
            Some(error) if error.code == ErrorCode::NoDatanodes => write!(f, "datanodes: {}", error.message),
            Some(error) => write!(f, "the {} at {}: {}", self.role, self.address, error.message),
            None => write!(f, "the {} at {}: {}", self.role, self.address, self.error),
        }
    }
}

/// Is told before each wait, to show people what is waited for.
pub type WaitObserver = Arc<dyn Fn(&Waiting<'_>) + Send + Sync>;

/// What is asked, for errors.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// As in `delete`.
    pub(super) operation: &'static str,
    /// The path, block or job it is about.
    pub(super) subject: &'a (dyn fmt::Display + Sync),
}

/// Shortens `Asked`.
pub(super) fn asked<'a>(operation: &'static str, subject: &'a (dyn fmt::Display + Sync)) -> Asked<'a> {
    Asked { operation, subject }
}

/// A server that calls are made to, again and again where that can help.
pub(super) struct Remote<R: Runtime, Q, A> {
    connector: Connector<R>,
    role: Role,
    address: Mutex<SocketAddr>,
    patience: Patience,
    timeout: Duration,
    observer: WaitObserver,
    /// None before the first call and after it was lost.
    stream: tokio::sync::Mutex<Option<Stream<R, Q, A>>>,
}

/// A stream of calls, and where it leads.
struct Stream<R: Runtime, Q, A> {
    to: SocketAddr,
    caller: Caller<R, Q, A>,
}

impl<R: Runtime, Q: Serialize + Sync, A: DeserializeOwned + Send> Remote<R, Q, A> {
    pub(super) fn new(
        connector: Connector<R>,
        role: Role,
        address: SocketAddr,
        patience: Patience,
        timeout: Duration,
        observer: WaitObserver,
    ) -> Self {
        let address = Mutex::new(address);
        Self { connector, role, address, patience, timeout, observer, stream: tokio::sync::Mutex::new(None) }
    }

    /// Where it is.
    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is at `address` from now on; whether it was elsewhere before.
    pub(super) fn moved_to(&self, address: SocketAddr) -> bool {
        let mut current = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, address) != address
    }

    /// Makes a call until it is answered or trying again cannot help. The same request is sent each time: what changes
    /// something carries its operation id.
    pub(super) async fn call(&self, asked: Asked<'_>, request: &Q) -> Result<A, ClientError> {
        self.call_within(asked, request, self.timeout, self.patience).await
    }

    /// As [`Remote::call`], with a time limit for each try and a patience of its own.
    pub(super) async fn call_within(
        &self,
        asked: Asked<'_>,
        request: &Q,
        timeout: Duration,
        patience: Patience,
    ) -> Result<A, ClientError> {
        let clock = self.connector.runtime().clock();
        let mut retries = Retries::new(patience, clock.now());
        loop {
            let error = match self.try_once(request, timeout).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let random = self.connector.runtime().random_u64();
            let Some(wait) = retries.after(clock.now(), &error, random) else {
                return Err(self.give_up(asked, &retries, error));
            };
            (self.observer)(&Waiting {
                role: self.role,
                address: self.address(),
                operation: asked.operation,
                error: &error,
                waited: retries.waited(clock.now()),
                limit: retries.limit(&error).unwrap_or_default(),
            });
            clock.sleep(wait).await;
        }
    }

    /// Makes a call once.
    pub(super) async fn try_once(&self, request: &Q, timeout: Duration) -> Result<A, RpcError> {
        self.caller().await?.call(request, timeout).await
    }

    /// The stream of calls, made anew if it is lost. Others wait while it is made, and then use it.
    async fn caller(&self) -> Result<Caller<R, Q, A>, RpcError> {
        let mut slot = self.stream.lock().await;
        let address = self.address();
        if let Some(stream) = slot.as_ref().filter(|stream| stream.to == address && !stream.caller.is_closed()) {
            return Ok(stream.caller.clone());
        }
        *slot = None;
        let caller = self.connector.caller(address, self.role).await?;
        *slot = Some(Stream { to: address, caller: caller.clone() });
        Ok(caller)
    }

    fn give_up(&self, asked: Asked<'_>, retries: &Retries, error: RpcError) -> ClientError {
        let Asked { operation, subject } = asked;
        let now = self.connector.runtime().clock().now();
        match error {
            RpcError::Remote(error) => ClientError::Refused { operation, error },
            last if retries.limit(&last).is_some() => ClientError::Unreachable(Box::new(Unreachable {
                operation,
                subject: subject.to_string(),
                role: self.role,
                address: self.address(),
                waited: retries.waited(now),
                last,
            })),
            error => ClientError::Rpc { operation, subject: subject.to_string(), error },
        }
    }
}

/// An answer of another kind than was asked for.
pub(super) fn wrong_answer(asked: Asked<'_>, request: &'static str, answer: &dyn fmt::Debug) -> ClientError {
    let found: String = format!("{answer:?}").chars().take(80).collect();
    ClientError::Rpc {
        operation: asked.operation,
        subject: asked.subject.to_string(),
        error: RpcError::WrongAnswer { request, found },
    }
}

/// Takes the answer apart; another kind of answer is an error of the caller.
macro_rules! answer {
    ($asked:expr, $request:literal, $answer:expr, $pattern:pat $(if $guard:expr)? => $value:expr) => {
        match $answer {
            $pattern $(if $guard)? => Ok($value),
            other => Err($crate::io::remote::wrong_answer($asked, $request, &other)),
        }
    };
}
pub(super) use answer;
