//! The door: calls are decoded where they arrive, and only then queue for the owner.

use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, Service};
use situ_runtime::transport::{Connection, Transport};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::namenode::{Request, Response};
use tokio::sync::mpsc;

use crate::core::Caller;
use crate::metrics::Metrics;

/// A call on its way to the owner.
pub(super) struct Incoming {
    pub(super) caller: Caller,
    pub(super) request: Request,
    pub(super) reply: Reply,
}

/// Takes calls for the owner.
#[derive(Clone)]
pub(super) struct Door {
    calls: mpsc::Sender<Incoming>,
    metrics: Arc<Metrics>,
}

impl Door {
    pub(super) fn new(calls: mpsc::Sender<Incoming>, metrics: Arc<Metrics>) -> Self {
        Self { calls, metrics }
    }

    fn admit(&self, caller: &CallerIdentity, request: &Bytes, reply: Reply) {
        let request = match codec::decode(request) {
            Ok(request) => request,
            Err(error) => {
                let error = RemoteError::new(ErrorCode::Malformed, "a call to the namenode", error.to_string());
                return reply.send::<Response>(Err(error));
            }
        };
        let refused = match self.calls.try_send(Incoming { caller: caller_of(caller), request, reply }) {
            Ok(()) => return,
            Err(refused) => refused,
        };
        let (incoming, reason) = match refused {
            mpsc::error::TrySendError::Full(incoming) => {
                (incoming, "it has more calls waiting than it takes; try again in a moment")
            }
            mpsc::error::TrySendError::Closed(incoming) => (incoming, "it is shutting down; try again when it is back"),
        };
        self.metrics.refused.add(1);
        incoming.reply.send::<Response>(Err(RemoteError::new(ErrorCode::Unavailable, "the namenode", reason)));
    }
}

/// Who calls, in the core's words. A server is a user named after its role.
fn caller_of(identity: &CallerIdentity) -> Caller {
    let user = match identity.role {
        Role::User => identity.name.clone(),
        role => role.name().to_owned(),
    };
    Caller { user, role: identity.role, name: identity.name.clone() }
}

impl<R: Runtime> Service<R> for Door {
    fn call(&self, caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        self.admit(caller, &request, reply);
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        open: StreamOpen,
        _send: FrameSender<<<R::Transport as Transport>::Connection as Connection>::Send>,
        _receive: FrameReceiver<<<R::Transport as Transport>::Connection as Connection>::Receive>,
    ) -> Result<(), RpcError> {
        Err(RemoteError::new(
            ErrorCode::InvalidArgument,
            "the namenode",
            format!("it takes calls only, and holds no bytes for {open:?}"),
        )
        .into())
    }
}
