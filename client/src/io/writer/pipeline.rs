use std::future::pending;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Connector, FrameReceiver, FrameSender, RpcError};
use situ_runtime::transport::{ReceiveStream, SendStream};
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{PacketHeader, WriteAck, WriteBlock};
use tokio::sync::mpsc;

use crate::core::writer::{Event, Packet, PipelineId};

/// How long a datanode that takes no more bytes may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What goes down a pipeline.
pub(super) enum Down {
    /// Bytes.
    Packet(Packet),
    /// The block is whole.
    Finish(PacketHeader),
}

/// Why a pipeline ended before its block was final.
struct Broken {
    member: Option<(DatanodeId, ErrorCode)>,
    reason: String,
}

impl From<RpcError> for Broken {
    fn from(error: RpcError) -> Self {
        Self { member: None, reason: error.to_string() }
    }
}

/// Runs one pipeline to its end and tells of it.
pub(super) async fn run<R: Runtime>(
    connector: Connector<R>,
    id: PipelineId,
    address: std::net::SocketAddr,
    open: WriteBlock,
    down: mpsc::UnboundedReceiver<Down>,
    events: mpsc::UnboundedSender<Event>,
) {
    if let Err(Broken { member, reason }) = stream(&connector, id, address, open, down, &events).await {
        // Without a receiver the writer is gone.
        let _ = events.send(Event::Broken { pipeline: id, member, reason });
    }
}

async fn stream<R: Runtime>(
    connector: &Connector<R>,
    id: PipelineId,
    address: std::net::SocketAddr,
    open: WriteBlock,
    down: mpsc::UnboundedReceiver<Down>,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), Broken> {
    let open = StreamOpen::WriteBlock(Box::new(open));
    let (mut send, receive) = connector.stream(address, Role::Datanode, &open).await?;
    // Acknowledgements come while packets go; a message that is partly received must not be lost, so both run on.
    let mut acknowledged = std::pin::pin!(receive_acks(receive, id, events));
    let failed = tokio::select! {
        result = &mut acknowledged => {
            if result.is_ok() {
                // The block is final: how its stream ends does not matter any more.
                let _ = send.finish().await;
            }
            return result;
        }
        error = send_all(&mut send, down) => Broken::from(error),
    };
    // Who takes no more bytes has perhaps said why, and which member failed.
    connector.runtime().clock().timeout(LAST_WORDS, acknowledged).await.unwrap_or(Err(failed))
}

/// Sends what comes until the stream fails.
async fn send_all<S: SendStream>(send: &mut FrameSender<S>, mut down: mpsc::UnboundedReceiver<Down>) -> RpcError {
    while let Some(next) = down.recv().await {
        let sent = match next {
            Down::Packet(packet) => {
                let header = PacketHeader::Data {
                    offset: packet.offset,
                    // A packet is at most PACKET_LEN_BYTES long.
                    len_bytes: u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX),
                    crc32c: packet.crc32c,
                };
                send.message_and_bytes(&header, vec![packet.bytes]).await
            }
            Down::Finish(header) => send.message(&header).await,
        };
        if let Err(error) = sent {
            return error;
        }
    }
    // Nothing more comes: the acknowledgements tell how it ends.
    pending().await
}

/// Hands acknowledgements on until the block is final.
async fn receive_acks<T: ReceiveStream>(
    mut receive: FrameReceiver<T>,
    id: PipelineId,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<(), Broken> {
    loop {
        let event = match receive.expect::<WriteAck>("the block was final").await? {
            WriteAck::Ready => Event::Ready { pipeline: id },
            WriteAck::Received { len_bytes } => Event::Received { pipeline: id, len_bytes },
            WriteAck::Finished { replicas } => {
                let _ = events.send(Event::Finished { pipeline: id, replicas });
                return Ok(());
            }
            WriteAck::Failed { datanode, error } => {
                return Err(Broken { member: Some((datanode, error.code)), reason: error.to_string() });
            }
        };
        // Without a receiver the writer is gone, and this task with it.
        let _ = events.send(event);
    }
}
