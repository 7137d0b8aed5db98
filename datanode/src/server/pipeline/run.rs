use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::{DiskError, DiskErrorKind};
use situ_runtime::rpc::{FrameReceiver, FrameSender, RpcError};
use situ_wire::block::TokenMode;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::DatanodeId;
use situ_wire::limits::{BLOCK_LEN_MAX_BYTES, REPLICATION_MAX};
use situ_wire::messages::datanode::{WriteAck, WriteBlock};
use tokio::sync::{mpsc, oneshot, watch};

use super::acks::send_acks;
use super::disk::write_out;
use super::downstream::Downstream;
use super::packets::PacketReceiver;
use super::{DiskEnd, FailedMember, Failure, Progress, QUEUE_PACKETS};
use crate::core::{Event, WriterEnd};
use crate::server::node::{Node, ReceiveOf, SendOf, WriteTicket};
use crate::storage::ReplicaWriter;

/// Serves one write.
pub(in crate::server) async fn write_block<R: Runtime>(
    node: &Node<R>,
    open: WriteBlock,
    mut send: FrameSender<SendOf<R>>,
    receive: FrameReceiver<ReceiveOf<R>>,
) -> Result<(), RpcError> {
    // Refused rather than made to wait: datanodes that wait for each other's places would wait forever.
    let begun = match node.limits.writes.try_acquire() {
        Ok(permit) => begin(node, &open).await.map(|pipeline| (pipeline, permit)),
        Err(_) => Err(failure(
            node.id,
            &open,
            ErrorCode::Unavailable,
            format!("this datanode writes {} blocks already; use another one", node.config.writes),
        )),
    };
    match begun {
        Ok((pipeline, _permit)) => pipeline.run(node, &open, send, receive).await,
        Err(member) => {
            tracing::debug!(block = %open.block, ?member, "refused a write");
            send.message(&WriteAck::from(member)).await?;
            send.finish().await
        }
    }
}

/// A write that may begin: the replica is open, those behind are ready.
struct Pipeline<R: Runtime> {
    ticket: WriteTicket<R::Disk>,
    writer: ReplicaWriter<R::Disk>,
    downstream: Option<Downstream<R>>,
}

/// Checks what is asked, takes the replica and opens it, here and on those behind.
async fn begin<R: Runtime>(node: &Node<R>, open: &WriteBlock) -> Result<Pipeline<R>, FailedMember> {
    let mine = |error| FailedMember { datanode: node.id, error };
    node.check_token(&open.token, open.block, TokenMode::Write).map_err(mine)?;
    if open.limit_bytes > BLOCK_LEN_MAX_BYTES || open.downstream.len() >= usize::from(REPLICATION_MAX) {
        let message = format!(
            "a block of up to {} bytes on {} more datanodes was asked; at most {BLOCK_LEN_MAX_BYTES} and {} are allowed",
            open.limit_bytes,
            open.downstream.len(),
            REPLICATION_MAX - 1
        );
        return Err(failure(node.id, open, ErrorCode::InvalidArgument, message));
    }
    let ticket = node.open_write(open.block, open.stage, open.limit_bytes).await.map_err(mine)?;
    let (volume, prior, len_bytes) = (ticket.volume.clone(), ticket.prior, ticket.len_bytes);
    let (block, durability) = (open.block, open.durability);
    let opened = node.runtime.blocking(move || ReplicaWriter::open(volume, block, prior, len_bytes, durability));
    let (writer, downstream) = tokio::join!(opened, Downstream::open(node, open));
    match (writer, downstream) {
        (Ok(writer), Ok(downstream)) => Ok(Pipeline { ticket, writer, downstream }),
        (Ok(writer), Err(failure)) => {
            ticket.end(WriterEnd::Abandoned { len_bytes: writer.len_bytes() }).await;
            Err(failure)
        }
        (Err(error), _) => {
            let failure = disk_failed(node, open, &ticket, &error);
            ticket.end(WriterEnd::Failed).await;
            Err(failure)
        }
    }
}

impl<R: Runtime> Pipeline<R> {
    async fn run(
        self,
        node: &Node<R>,
        open: &WriteBlock,
        send: FrameSender<SendOf<R>>,
        receive: FrameReceiver<ReceiveOf<R>>,
    ) -> Result<(), RpcError> {
        let Self { mut ticket, writer, downstream } = self;
        let begun_bytes = writer.len_bytes();
        let (progress, watching) = watch::channel(Progress {
            written_bytes: begun_bytes,
            forwarded_bytes: begun_bytes,
            behind_bytes: if downstream.is_some() { begun_bytes } else { u64::MAX },
            finishing: false,
            end: None,
        });
        let (to_disk, disk_queue) = mpsc::channel(QUEUE_PACKETS);
        let (to_next, next_queue) = mpsc::channel(QUEUE_PACKETS);
        let (disk_ended, mut disk_end) = oneshot::channel();
        let disk = write_out(node.runtime.clone(), writer, disk_queue, progress.clone(), disk_ended);
        node.runtime.spawn("replica-writer", disk);
        let packets = PacketReceiver {
            receive,
            me: node.id,
            block: open.block,
            len_bytes: begun_bytes,
            limit_bytes: open.limit_bytes,
            to_disk,
            to_next: downstream.is_some().then_some(to_next),
        };
        let mut acks = std::pin::pin!(send_acks(send, begun_bytes, watching.clone()));
        let mut end = None;
        let here = async {
            let received = tokio::select! {
                received = packets.run() => received,
                // Before all packets are there the disk ends only if it fails.
                ended = &mut disk_end => {
                    end = Some(ended);
                    Err(Failure::Disk)
                }
            };
            received?;
            match end.insert((&mut disk_end).await) {
                Ok(DiskEnd::Final { .. }) => Ok(()),
                _ => Err(Failure::Disk),
            }
        };
        let behind = async {
            match downstream {
                Some(downstream) => downstream.run(node, open, next_queue, &progress).await,
                None => Ok(Vec::new()),
            }
        };
        let outcome = tokio::select! {
            // What is ready is taken in this order, so that a simulation takes the same way again.
            biased;
            outcome = async { tokio::try_join!(here, behind) } => outcome.map(|((), behind)| behind),
            ended = &mut acks => {
                Err(Failure::Upstream(ended.err().unwrap_or(RpcError::Ended { expected: "a write had ended" })))
            }
            _ = &mut ticket.stop => Err(stopped(node, open).into()),
            member = stalled(node, open, watching) => Err(member.into()),
        };
        // The queues are gone now, and the disk task ends when it has written what it has.
        let end = match end {
            Some(end) => end,
            None => disk_end.await,
        };
        let last = conclude(node, open, ticket, outcome, end.ok()).await?;
        progress.send_modify(|progress| progress.end = Some(last));
        // An upstream that does not take its answer is gone.
        let told = node.runtime.clock().timeout(node.config.stall_timeout(), acks).await;
        told.unwrap_or(Err(RpcError::DeadlineExceeded { timeout: node.config.stall_timeout() }))
    }
}

/// Gives the replica back to the owner and says what the upstream is told; an error if there is nobody to tell.
async fn conclude<R: Runtime>(
    node: &Node<R>,
    open: &WriteBlock,
    ticket: WriteTicket<R::Disk>,
    outcome: Result<Vec<DatanodeId>, Failure>,
    end: Option<DiskEnd>,
) -> Result<WriteAck, RpcError> {
    let (end, outcome) = match end {
        Some(DiskEnd::Final { len_bytes }) => (WriterEnd::Final { len_bytes }, outcome),
        Some(DiskEnd::Open { len_bytes }) => (WriterEnd::Abandoned { len_bytes }, outcome),
        Some(DiskEnd::Failed(error)) => (WriterEnd::Failed, Err(disk_failed(node, open, &ticket, &error).into())),
        // The disk task is gone without a word.
        None => (WriterEnd::Failed, Err(stopped(node, open).into())),
    };
    let counts = ticket.end(end).await;
    let failure = match outcome {
        Ok(behind) if counts => {
            let replicas = std::iter::once(node.id).chain(behind).collect();
            return Ok(WriteAck::Finished { replicas });
        }
        Ok(_) => stopped(node, open).into(),
        Err(failure) => failure,
    };
    match failure {
        Failure::Member(member) => {
            tracing::info!(block = %open.block, ?member, "a write failed");
            Ok(member.into())
        }
        Failure::Upstream(error) => Err(error),
        Failure::Disk => Err(RpcError::Ended { expected: "the disk was done" }),
    }
}

/// Waits until those behind have stood still for too long while something was to be done.
async fn stalled<R: Runtime>(node: &Node<R>, open: &WriteBlock, progress: watch::Receiver<Progress>) -> FailedMember {
    // Who is nearest to the one that stands still says so first.
    let behind = u64::try_from(open.downstream.len()).unwrap_or(u64::MAX);
    let limit = node.config.stall_timeout() + PATIENCE_PER_MEMBER.saturating_mul(u32::try_from(behind).unwrap_or(0));
    let mut before = None;
    let mut still = 0;
    loop {
        node.runtime.clock().sleep(limit).await;
        let now = progress.borrow().clone();
        let due = now.finishing || now.behind_bytes < now.forwarded_bytes;
        still = if due && before == Some(now.behind_bytes) { still + 1 } else { 0 };
        before = due.then_some(now.behind_bytes);
        // A sync may take long on a busy disk.
        if still > if now.finishing { FINISH_PATIENCE } else { 0 } {
            let next = open.downstream.first().map_or(node.id, |next| next.id);
            let message = format!("the next datanode of the pipeline has not moved for {limit:?}");
            return failure(next, open, ErrorCode::Unavailable, message);
        }
    }
}

/// The owner wants the replica back.
fn stopped<R: Runtime>(node: &Node<R>, open: &WriteBlock) -> FailedMember {
    let message = "this write was stopped: the block goes on in a newer life, or is not wanted any more".to_owned();
    failure(node.id, open, ErrorCode::StaleGeneration, message)
}

/// The disk failed: says so, and has the volume looked at unless it is only full.
fn disk_failed<R: Runtime>(
    node: &Node<R>,
    open: &WriteBlock,
    ticket: &WriteTicket<R::Disk>,
    error: &DiskError,
) -> FailedMember {
    tracing::warn!(block = %open.block, %error, "a replica cannot be written");
    let code = if error.kind == DiskErrorKind::Full {
        ErrorCode::DiskFull
    } else {
        node.tell(Event::DiskTrouble { storage: ticket.storage() });
        ErrorCode::Io
    };
    failure(node.id, open, code, error.to_string())
}

fn failure(datanode: DatanodeId, open: &WriteBlock, code: ErrorCode, message: String) -> FailedMember {
    FailedMember { datanode, error: RemoteError::new(code, open.block, message) }
}

/// How much longer a datanode waits for each one behind it.
const PATIENCE_PER_MEMBER: Duration = Duration::from_secs(1);
/// How many times as long for the final syncs.
const FINISH_PATIENCE: u32 = 3;
