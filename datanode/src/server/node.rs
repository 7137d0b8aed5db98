use std::sync::Arc;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::Disk;
use situ_runtime::rpc::Connector;
use situ_runtime::transport::{Connection, Transport};
use situ_wire::block::{Block, BlockToken, TokenMode};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{DatanodeId, StorageId};
use situ_wire::messages::datanode::WriteStage;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::config::DatanodeConfig;
use crate::core::tokens::TokenJudge;
use crate::core::{Event, WriteGrant, WriterEnd, WriterId};
use crate::storage::{Prior, Volume};

pub(super) type ConnectionOf<R> = <<R as Runtime>::Transport as Transport>::Connection;
pub(super) type SendOf<R> = <ConnectionOf<R> as Connection>::Send;
pub(super) type ReceiveOf<R> = <ConnectionOf<R> as Connection>::Receive;

/// Where an answer of the owner goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, RemoteError>>;

/// One copy of a replica to other datanodes; never reused within a run. A block does not name it: several copies of one
/// may be under way at once, each to other targets.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct CopyId(pub(super) u64);

/// What the owner is told and asked.
pub(super) enum Message<D: Disk> {
    /// Something happened.
    Event(Event),
    /// A copy has ended with [`Event::Replicated`].
    Copied { copy: CopyId, event: Event },
    /// Somebody wants to write.
    OpenWrite { block: Block, stage: WriteStage, limit_bytes: u64, reply: Answer<WriteTicket<D>> },
    /// Somebody wants to read.
    OpenRead { block: Block, reply: Answer<(Arc<Volume<D>>, u64)> },
    /// A writer has let go of its replica; whoever wrote a final one hears whether it counts.
    WriterEnded { writer: WriterId, end: WriterEnd, confirm: oneshot::Sender<bool> },
}

/// What the streams of a datanode share. Cheap to clone.
pub(super) struct Node<R: Runtime> {
    pub(super) runtime: R,
    pub(super) connector: Connector<R>,
    pub(super) id: DatanodeId,
    pub(super) config: Arc<DatanodeConfig>,
    pub(super) limits: Arc<Limits>,
    pub(super) mailbox: mpsc::UnboundedSender<Message<R::Disk>>,
    /// None until the namenode has told its key and its time.
    pub(super) judge: watch::Receiver<Option<TokenJudge>>,
}

/// How much is served at once.
pub(super) struct Limits {
    pub(super) writes: Semaphore,
    pub(super) reads: Semaphore,
}

impl<R: Runtime> Clone for Node<R> {
    fn clone(&self) -> Self {
        Self {
            runtime: self.runtime.clone(),
            connector: self.connector.clone(),
            id: self.id,
            config: Arc::clone(&self.config),
            limits: Arc::clone(&self.limits),
            mailbox: self.mailbox.clone(),
            judge: self.judge.clone(),
        }
    }
}

impl<R: Runtime> Node<R> {
    /// Tells the owner; one that is gone does not need to know.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.mailbox.send(Message::Event(event));
    }

    /// Checks that `token` opens `block`.
    pub(super) fn check_token(&self, token: &BlockToken, block: Block, mode: TokenMode) -> Result<(), RemoteError> {
        match &*self.judge.borrow() {
            Some(judge) => judge
                .check(token, block, mode, self.runtime.clock().now())
                .map_err(|error| RemoteError::new(ErrorCode::BadToken, block, error.to_string())),
            None => Err(RemoteError::new(
                ErrorCode::Unavailable,
                block,
                "this datanode has not reached its namenode yet and cannot check tokens; try again",
            )),
        }
    }

    /// Asks the owner for the right to write `block`.
    pub(super) async fn open_write(
        &self,
        block: Block,
        stage: WriteStage,
        limit_bytes: u64,
    ) -> Result<WriteTicket<R::Disk>, RemoteError> {
        let (reply, answer) = oneshot::channel();
        // A message that cannot be sent drops its reply, which shows below.
        let _ = self.mailbox.send(Message::OpenWrite { block, stage, limit_bytes, reply });
        answer.await.unwrap_or_else(|_| Err(shutting_down(block)))
    }

    /// Asks the owner where the final replica of `block` is and how long.
    pub(super) async fn open_read(&self, block: Block) -> Result<(Arc<Volume<R::Disk>>, u64), RemoteError> {
        let (reply, answer) = oneshot::channel();
        let _ = self.mailbox.send(Message::OpenRead { block, reply });
        answer.await.unwrap_or_else(|_| Err(shutting_down(block)))
    }
}

pub(super) fn shutting_down(block: Block) -> RemoteError {
    RemoteError::new(ErrorCode::Unavailable, block, "this datanode is shutting down; use another one")
}

/// The right to write one replica. Dropped without [`WriteTicket::end`], it says that the replica is of no use.
pub(super) struct WriteTicket<D: Disk> {
    pub(super) volume: Arc<Volume<D>>,
    pub(super) prior: Prior,
    pub(super) len_bytes: u64,
    /// Sent or dropped when the writer is to let go.
    pub(super) stop: oneshot::Receiver<()>,
    writer: WriterId,
    mailbox: mpsc::UnboundedSender<Message<D>>,
    ended: bool,
}

impl<D: Disk> WriteTicket<D> {
    pub(super) fn new(
        grant: &WriteGrant,
        volume: Arc<Volume<D>>,
        stop: oneshot::Receiver<()>,
        mailbox: mpsc::UnboundedSender<Message<D>>,
    ) -> Self {
        let WriteGrant { writer, prior, len_bytes, .. } = *grant;
        Self { volume, prior, len_bytes, stop, writer, mailbox, ended: false }
    }

    /// The volume.
    pub(super) fn storage(&self) -> StorageId {
        self.volume.storage()
    }

    /// Gives the right back. Returns whether a final replica counts: only then it may be acknowledged.
    pub(super) async fn end(mut self, end: WriterEnd) -> bool {
        self.ended = true;
        let (confirm, confirmed) = oneshot::channel();
        let _ = self.mailbox.send(Message::WriterEnded { writer: self.writer, end, confirm });
        confirmed.await.unwrap_or(false)
    }
}

impl<D: Disk> Drop for WriteTicket<D> {
    fn drop(&mut self) {
        if !self.ended {
            let (confirm, _) = oneshot::channel();
            let end = WriterEnd::Failed;
            let _ = self.mailbox.send(Message::WriterEnded { writer: self.writer, end, confirm });
        }
    }
}
