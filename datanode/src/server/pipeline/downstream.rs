use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{FrameReceiver, FrameSender, RpcError};
use situ_runtime::transport::{ReceiveStream, SendStream, TransportError};
use situ_wire::block::DatanodeLocation;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{PacketHeader, WriteAck, WriteBlock};
use tokio::sync::{mpsc, watch};

use super::packets::Packet;
use super::{FailedMember, Failure, Progress};
use crate::server::node::{Node, ReceiveOf, SendOf};

/// The next datanode of the pipeline, which is ready, and those behind it.
pub(in crate::server) struct Downstream<R: Runtime> {
    pub(super) id: DatanodeId,
    pub(in crate::server) send: FrameSender<SendOf<R>>,
    pub(in crate::server) receive: FrameReceiver<ReceiveOf<R>>,
}

impl<R: Runtime> Downstream<R> {
    /// Opens the block at the next datanode and waits, for a limited time, until all behind are ready; none at the end of
    /// the pipeline.
    pub(in crate::server) async fn open(node: &Node<R>, open: &WriteBlock) -> Result<Option<Self>, FailedMember> {
        let Some((next, behind)) = open.downstream.split_first() else { return Ok(None) };
        let members = u32::try_from(open.downstream.len()).unwrap_or(u32::MAX);
        let limit = READY_TIMEOUT.saturating_mul(members);
        let ready = node.runtime.clock().timeout(limit, Self::connect(node, open, next, behind)).await;
        if ready.is_none() {
            // Perhaps its process is a new one, which knows nothing of the old connection: the next write makes another.
            node.connector.disconnect(next.address, Role::Datanode).await;
        }
        match ready.unwrap_or(Err(Refusal::Lost(RpcError::DeadlineExceeded { timeout: limit }))) {
            Ok(downstream) => Ok(Some(downstream)),
            Err(Refusal::Member(member)) => Err(member),
            Err(Refusal::Lost(error)) => Err(failed(next.id, open, &error)),
        }
    }

    async fn connect(
        node: &Node<R>,
        open: &WriteBlock,
        next: &DatanodeLocation,
        behind: &[DatanodeLocation],
    ) -> Result<Self, Refusal> {
        let open = StreamOpen::WriteBlock(Box::new(WriteBlock { downstream: behind.to_vec(), ..open.clone() }));
        let stream = || node.connector.stream(next.address, Role::Datanode, &open);
        let (send, mut receive) = match stream().await {
            // A connection that was lost may show only now; a new one may do.
            Err(RpcError::Transport(TransportError::Closed { .. })) => stream().await?,
            opened => opened?,
        };
        match receive.expect("the next datanode was ready").await? {
            WriteAck::Ready => Ok(Self { id: next.id, send, receive }),
            WriteAck::Failed { datanode, error } => Err(Refusal::Member(FailedMember { datanode, error })),
            other => Err(Refusal::Lost(unexpected(&other))),
        }
    }

    /// Sends packets down as they come and takes the acknowledgements, until all behind have the final replica.
    pub(super) async fn run(
        self,
        node: &Node<R>,
        open: &WriteBlock,
        queue: mpsc::Receiver<Packet>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Vec<DatanodeId>, Failure> {
        let Self { id, mut send, receive } = self;
        let mut acks = std::pin::pin!(take_acks(receive, progress));
        let ended = tokio::select! {
            ended = &mut acks => ended,
            error = forward(&mut send, queue, progress) => {
                // Who takes no more bytes has perhaps said why.
                let last_words = node.runtime.clock().timeout(LAST_WORDS, acks).await;
                last_words.unwrap_or(Err(Refusal::Lost(error)))
            }
        };
        ended.map_err(|refusal| match refusal {
            Refusal::Member(member) => member.into(),
            Refusal::Lost(error) => failed(id, open, &error).into(),
        })
    }
}

/// Why those behind do not go on.
enum Refusal {
    /// One of them says so.
    Member(FailedMember),
    /// The next one is lost.
    Lost(RpcError),
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self::Lost(error)
    }
}

/// Sends packets down until the stream fails.
async fn forward<S: SendStream>(
    send: &mut FrameSender<S>,
    mut queue: mpsc::Receiver<Packet>,
    progress: &watch::Sender<Progress>,
) -> RpcError {
    while let Some(Packet { header, bytes }) = queue.recv().await {
        if let Err(error) = send.message_and_bytes(&header, bytes).await {
            return error;
        }
        // Nobody needs to wake up for that.
        progress.send_if_modified(|progress| {
            match header {
                PacketHeader::Data { offset, len_bytes, .. } => {
                    progress.forwarded_bytes = offset + u64::from(len_bytes);
                }
                PacketHeader::Finish { .. } => progress.finishing = true,
            }
            false
        });
    }
    // Nothing more comes: the acknowledgements tell how it ends.
    std::future::pending().await
}

/// Takes acknowledgements until all behind have the final replica.
async fn take_acks<T: ReceiveStream>(
    mut receive: FrameReceiver<T>,
    progress: &watch::Sender<Progress>,
) -> Result<Vec<DatanodeId>, Refusal> {
    loop {
        match receive.expect("those behind had the final replica").await? {
            WriteAck::Received { len_bytes } => progress.send_modify(|progress| progress.behind_bytes = len_bytes),
            WriteAck::Finished { replicas } => return Ok(replicas),
            WriteAck::Failed { datanode, error } => return Err(Refusal::Member(FailedMember { datanode, error })),
            other @ WriteAck::Ready => return Err(Refusal::Lost(unexpected(&other))),
        }
    }
}

fn unexpected(found: &WriteAck) -> RpcError {
    RpcError::WrongAnswer { request: "WriteBlock", found: format!("{found:.100?}") }
}

/// The next datanode failed without a word of its own.
fn failed(datanode: DatanodeId, open: &WriteBlock, error: &RpcError) -> FailedMember {
    let address = open.downstream.first().map(|next| next.address.to_string()).unwrap_or_default();
    let message = format!("the datanode at {address}, next in the pipeline: {error}");
    FailedMember { datanode, error: RemoteError::new(ErrorCode::Unavailable, open.block, message) }
}

/// How long each member may take until it and those behind it are ready.
const READY_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a datanode that takes no more bytes may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
