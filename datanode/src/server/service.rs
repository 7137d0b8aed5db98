use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, Service};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::messages::StreamOpen;

use super::node::{Node, ReceiveOf, SendOf};
use super::pipeline::write_block;
use super::read::read_block;

impl<R: Runtime> Service<R> for Node<R> {
    fn call(&self, caller: &Arc<CallerIdentity>, _request: Bytes, reply: Reply) {
        reply.send::<()>(Err(RemoteError::new(
            ErrorCode::InvalidArgument,
            format!("{} {}", caller.role, caller.name),
            "a datanode answers no calls, only streams of blocks; check the address",
        )));
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        open: StreamOpen,
        send: FrameSender<SendOf<R>>,
        receive: FrameReceiver<ReceiveOf<R>>,
    ) -> Result<(), RpcError> {
        match open {
            StreamOpen::WriteBlock(open) => write_block(self, *open, send, receive).await,
            StreamOpen::ReadBlock(open) => read_block(self, *open, send).await,
            StreamOpen::Calls | StreamOpen::FetchShuffle(_) => Err(RemoteError::new(
                ErrorCode::InvalidArgument,
                "a stream",
                "a datanode takes only streams that write or read blocks; check the address",
            )
            .into()),
        }
    }
}
