use bytes::Bytes;
use situ_runtime::Runtime;
use situ_wire::block::BlockRoot;
use situ_wire::tree::Leaf;
use tokio::sync::{mpsc, oneshot, watch};

use super::{DiskEnd, Progress, QUEUE_PACKETS};
use crate::storage::ReplicaWriter;

/// What the disk task is given.
pub(super) enum ToDisk {
    /// The next bytes.
    Bytes(Vec<Bytes>),
    /// They were the last.
    Finish {
        /// What they hash to.
        root: BlockRoot,
        /// What merges into the root.
        leaves: Vec<Leaf>,
    },
}

/// Writes what comes, all that waits at once, until nothing more comes or the replica is final, and says how it ended.
pub(super) async fn write_out<R: Runtime>(
    runtime: R,
    mut writer: ReplicaWriter<R::Disk>,
    mut queue: mpsc::Receiver<ToDisk>,
    progress: watch::Sender<Progress>,
    ended: oneshot::Sender<DiskEnd>,
) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, QUEUE_PACKETS).await > 0 {
        let mut pieces = Vec::new();
        let mut finish = None;
        for item in batch.drain(..) {
            match item {
                ToDisk::Bytes(bytes) => pieces.extend(bytes),
                ToDisk::Finish { root, leaves } => finish = Some((root, leaves)),
            }
        }
        let work = move || {
            let result = writer.append(&pieces);
            (writer, result)
        };
        let (back, result) = runtime.blocking(work).await;
        writer = back;
        if let Err(error) = result {
            let _ = ended.send(DiskEnd::Failed(error));
            return;
        }
        let len_bytes = writer.len_bytes();
        progress.send_modify(|progress| progress.written_bytes = len_bytes);
        if let Some((root, leaves)) = finish {
            let end = match runtime.blocking(move || writer.finalize(root, leaves)).await {
                Ok(()) => DiskEnd::Final { len_bytes },
                Err(error) => DiskEnd::Failed(error),
            };
            let _ = ended.send(end);
            return;
        }
    }
    let _ = ended.send(DiskEnd::Open { len_bytes: writer.len_bytes() });
}
