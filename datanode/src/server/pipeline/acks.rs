use situ_runtime::rpc::{FrameSender, RpcError};
use situ_runtime::transport::SendStream;
use situ_wire::messages::datanode::WriteAck;
use tokio::sync::watch;

use super::Progress;

/// Tells the upstream how far the write has come, the newest state at a time, until it has been told the end.
pub(super) async fn send_acks<S: SendStream>(
    mut send: FrameSender<S>,
    begun_bytes: u64,
    mut progress: watch::Receiver<Progress>,
) -> Result<(), RpcError> {
    send.message(&WriteAck::Ready).await?;
    let mut acked_bytes = begun_bytes;
    loop {
        let (len_bytes, end) = {
            let now = progress.borrow_and_update();
            (now.written_bytes.min(now.behind_bytes), now.end.clone())
        };
        if len_bytes > acked_bytes {
            acked_bytes = len_bytes;
            send.message(&WriteAck::Received { len_bytes }).await?;
        }
        if let Some(end) = end {
            send.message(&end).await?;
            return send.finish().await;
        }
        // The other side lives as long as this does: it sets the end.
        if progress.changed().await.is_err() {
            return Err(RpcError::Ended { expected: "the end of a write was known" });
        }
    }
}
