//! Copying a replica to other datanodes, through the same pipeline as a client's writes.

use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{FrameReceiver, FrameSender, RpcError};
use situ_runtime::transport::{ReceiveStream, SendStream};
use situ_wire::block::{Block, BlockToken, DatanodeLocation};
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::{Durability, PacketHeader, WriteAck, WriteBlock, WriteStage};

use super::node::Node;
use super::pipeline::{Downstream, FailedMember};
use crate::core::Event;
use crate::storage::{ReadError, Verdict, Verifier, Volume};

/// What is to be copied.
pub(super) struct Copy<R: Runtime> {
    pub(super) volume: Arc<Volume<R::Disk>>,
    pub(super) block: Block,
    pub(super) len_bytes: u64,
    pub(super) targets: Vec<DatanodeLocation>,
    pub(super) token: BlockToken,
}

/// Why a copy failed.
enum CopyError {
    /// The replica here cannot be read, or is damaged.
    Source(ReadError),
    /// A target failed.
    Target(String),
}

impl From<FailedMember> for CopyError {
    fn from(FailedMember { datanode, error }: FailedMember) -> Self {
        Self::Target(format!("datanode {datanode}: {error}"))
    }
}

impl From<RpcError> for CopyError {
    fn from(error: RpcError) -> Self {
        Self::Target(error.to_string())
    }
}

/// Copies a replica and says what came of it. What is sent was verified before.
pub(super) async fn replicate<R: Runtime>(node: &Node<R>, copy: Copy<R>) -> Event {
    let (storage, block) = (copy.volume.storage(), copy.block);
    let targets: Vec<DatanodeId> = copy.targets.iter().map(|target| target.id).collect();
    let (reason, verdict) = match push(node, copy).await {
        Ok(replicas) if targets.iter().all(|target| replicas.contains(target)) => (None, Verdict::Good),
        Ok(replicas) => (Some(format!("only {} of {} targets have it", replicas.len(), targets.len())), Verdict::Good),
        Err(CopyError::Source(error)) => (Some(error.to_string()), Verdict::from(&error)),
        Err(CopyError::Target(reason)) => (Some(reason), Verdict::Good),
    };
    if let Some(reason) = &reason {
        tracing::warn!(%block, reason, "a copy failed");
    }
    let failed = reason.map(|reason| targets.into_iter().map(|target| (target, reason.clone())).collect());
    Event::Replicated { storage, block, failed: failed.unwrap_or_default(), verdict }
}

async fn push<R: Runtime>(node: &Node<R>, copy: Copy<R>) -> Result<Vec<DatanodeId>, CopyError> {
    let Copy { volume, block, len_bytes, targets, token } = copy;
    let verifier = node.runtime.blocking(move || Verifier::open(&volume, block)).await.map_err(CopyError::Source)?;
    let open = WriteBlock {
        block,
        stage: WriteStage::Create,
        downstream: targets,
        limit_bytes: len_bytes,
        durability: Durability::Durable,
        token,
    };
    let Some(Downstream { mut send, receive, .. }) = Downstream::open(node, &open).await? else {
        return Ok(Vec::new());
    };
    let limit = STALL_PERIODS * node.config.stall_timeout();
    let mut acks = std::pin::pin!(take_acks(node, receive, limit));
    let sent = tokio::select! {
        ended = &mut acks => return ended,
        sent = send_all(node, verifier, &mut send) => sent,
    };
    match sent {
        // Dropping the stream makes the targets drop what they have.
        Err(CopyError::Source(error)) => Err(CopyError::Source(error)),
        // Who takes no more bytes says why, unless it is gone.
        Ok(()) | Err(CopyError::Target(_)) => acks.await,
    }
}

async fn send_all<R: Runtime, S: SendStream>(
    node: &Node<R>,
    verifier: Verifier<R::Disk>,
    send: &mut FrameSender<S>,
) -> Result<(), CopyError> {
    let read = |mut verifier: Verifier<R::Disk>| {
        node.runtime.blocking(move || {
            let offset = verifier.offset();
            let piece = verifier.next_piece();
            let sum = piece.as_ref().map_or(0, |piece| piece.as_ref().map_or(0, |piece| crc32c::crc32c(piece)));
            (verifier, offset, piece, sum)
        })
    };
    let mut next = read(verifier).await;
    let verifier = loop {
        let (verifier, offset, piece, crc32c) = next;
        let Some(piece) = piece.map_err(CopyError::Source)? else { break verifier };
        // A piece is as long as a packet at most.
        let len_bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        let header = PacketHeader::Data { offset, len_bytes, crc32c };
        // The disk reads the next piece while this one is on its way.
        let (sent, following) = tokio::join!(send.message_and_bytes(&header, vec![piece]), read(verifier));
        sent?;
        next = following;
    };
    let meta = verifier.meta();
    let finish = PacketHeader::Finish { len_bytes: meta.len_bytes, root: meta.root, leaves: meta.leaves.clone() };
    Ok(send.message(&finish).await?)
}

async fn take_acks<R: Runtime, T: ReceiveStream>(
    node: &Node<R>,
    mut receive: FrameReceiver<T>,
    limit: Duration,
) -> Result<Vec<DatanodeId>, CopyError> {
    loop {
        let ack = node.runtime.clock().timeout(limit, receive.expect("the copy was final")).await;
        match ack.unwrap_or(Err(RpcError::DeadlineExceeded { timeout: limit }))? {
            WriteAck::Received { .. } => {}
            WriteAck::Finished { replicas } => return Ok(replicas),
            WriteAck::Failed { datanode, error } => return Err(FailedMember { datanode, error }.into()),
            other @ WriteAck::Ready => {
                return Err(CopyError::Target(format!("an unexpected answer: {other:.100?}")));
            }
        }
    }
}

/// For how many stall timeouts a copy may stand still: its targets notice a stalled one before that.
const STALL_PERIODS: u32 = 5;
