//! Takes calls from connections to the owner.

use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, Service};
use situ_runtime::transport::{Connection, Transport};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::scheduler::{Request, Response};
use tokio::sync::mpsc;

use super::server::ToOwner;

type SendOf<R> = <<<R as Runtime>::Transport as Transport>::Connection as Connection>::Send;
type ReceiveOf<R> = <<<R as Runtime>::Transport as Transport>::Connection as Connection>::Receive;

/// Hands calls to the owner.
#[derive(Clone)]
pub(super) struct SchedulerService {
    pub(super) owner: mpsc::Sender<ToOwner>,
    pub(super) disconnected: mpsc::UnboundedSender<Arc<CallerIdentity>>,
}

impl<R: Runtime> Service<R> for SchedulerService {
    fn call(&self, caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let request: Request = match codec::decode(&request) {
            Ok(request) => request,
            Err(error) => {
                let error = RemoteError::new(ErrorCode::Malformed, "a call to the scheduler", error.to_string());
                return reply.send::<Response>(Err(error));
            }
        };
        // When the queue is full the reply is dropped, which tells the caller to come again.
        let _ = self.owner.try_send(ToOwner::Call { caller: Arc::clone(caller), request: Box::new(request), reply });
    }

    fn disconnected(&self, caller: &Arc<CallerIdentity>) {
        // There are at most as many of these as there were connections. The owner may be gone.
        let _ = self.disconnected.send(Arc::clone(caller));
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        _open: StreamOpen,
        _send: FrameSender<SendOf<R>>,
        _receive: FrameReceiver<ReceiveOf<R>>,
    ) -> Result<(), RpcError> {
        Err(RemoteError::new(ErrorCode::InvalidArgument, "a stream", "a scheduler takes calls only").into())
    }
}
