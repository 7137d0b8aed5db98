//! Calls to the namenode.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::rpc::{Caller, Connector, RpcError};
use situ_wire::hello::Role;
use situ_wire::messages::namenode::{Request, Response};
use tokio::sync::Mutex;

use crate::core::CallError;

/// The namenode, as a datanode calls it. Cheap to clone.
pub(super) struct Namenode<R: Runtime> {
    connector: Connector<R>,
    address: SocketAddr,
    caller: Arc<Mutex<Option<Caller<R, Request, Response>>>>,
}

impl<R: Runtime> Clone for Namenode<R> {
    fn clone(&self) -> Self {
        Self { connector: self.connector.clone(), address: self.address, caller: Arc::clone(&self.caller) }
    }
}

impl<R: Runtime> Namenode<R> {
    pub(super) fn new(connector: Connector<R>, address: SocketAddr) -> Self {
        Self { connector, address, caller: Arc::default() }
    }

    /// Makes one call.
    pub(super) async fn call(&self, request: &Request) -> Result<Response, CallError> {
        let result = match self.caller().await {
            Ok(caller) => caller.call(request, TIMEOUT).await,
            Err(error) => Err(error),
        };
        if let Err(RpcError::DeadlineExceeded { .. }) = &result {
            // A peer that vanished without a word: the next call tries a new connection.
            self.connector.disconnect(self.address, Role::Namenode).await;
        }
        result.map_err(|error| CallError {
            code: error.remote().map(|error| error.code),
            message: format!("the namenode at {}: {error}", self.address),
        })
    }

    async fn caller(&self) -> Result<Caller<R, Request, Response>, RpcError> {
        let mut slot = self.caller.lock().await;
        if let Some(caller) = slot.as_ref().filter(|caller| !caller.is_closed()) {
            return Ok(caller.clone());
        }
        let caller = self.connector.caller(self.address, Role::Namenode).await?;
        *slot = Some(caller.clone());
        Ok(caller)
    }
}

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);
