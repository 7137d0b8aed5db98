use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{FrameReceiver, RpcError};
use situ_runtime::transport::{Connection, Transport};
use situ_wire::block::{DatanodeLocation, LocatedBlock};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{ReadBlock, ReadReply};
use situ_wire::messages::namenode::FileKind;
use situ_wire::tree::{Leaf, root_of};

use super::file_reader::Shared;
use crate::core::{Verifier, widened};
use crate::error::{ClientError, ReplicaFailure, Unreadable};

/// How often the namenode is asked again where a block is when no replica could be read.
const ROUNDS: u32 = 5;
/// The rest before that; it doubles.
const FIRST_REST: Duration = Duration::from_millis(200);
/// How much is received at once.
const PIECE_LEN_BYTES: usize = 1 << 20;

type ReceiveOf<R> = <<<R as Runtime>::Transport as Transport>::Connection as Connection>::Receive;

/// Reads a range of one block: from the nearest replica, and from the others where that one fails.
pub(super) struct Segment<R: Runtime> {
    shared: Arc<Shared<R>>,
    block: LocatedBlock,
    /// What is still to be received, within the block.
    left: Range<u64>,
    open: Option<OpenReplica<R>>,
    /// Verified, not yet given.
    ready: VecDeque<Bytes>,
    /// Who was tried since the namenode was asked last.
    tried: Vec<DatanodeId>,
    /// Whose bytes were wrong.
    wrong: Vec<DatanodeId>,
    failures: Vec<ReplicaFailure>,
    rounds: u32,
}

struct OpenReplica<R: Runtime> {
    location: DatanodeLocation,
    receive: FrameReceiver<ReceiveOf<R>>,
    verifier: Verifier,
}

/// What a replica could not do.
enum Failed {
    /// It is away or slow: its datanode is tried last for a while.
    Away(String),
    /// It cannot serve this block.
    Refused(RemoteError),
    /// Its bytes are wrong.
    Wrong(String),
}

impl From<RpcError> for Failed {
    fn from(error: RpcError) -> Self {
        Self::Away(error.to_string())
    }
}

impl<R: Runtime> Segment<R> {
    /// Reads `range` of the file, which lies within `block`.
    pub(super) fn new(shared: Arc<Shared<R>>, block: LocatedBlock, range: &Range<u64>) -> Self {
        assert!(
            block.offset <= range.start && range.end <= block.offset + block.len_bytes,
            "a segment is in its block"
        );
        let left = range.start - block.offset..range.end - block.offset;
        Self {
            shared,
            block,
            left,
            open: None,
            ready: VecDeque::new(),
            tried: Vec::new(),
            wrong: Vec::new(),
            failures: Vec::new(),
            rounds: 0,
        }
    }

    /// The next verified bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.left.is_empty() {
                return Ok(None);
            }
            let Some(mut open) = self.open.take() else {
                self.open_next().await?;
                continue;
            };
            match self.receive(&mut open).await {
                Ok(()) => self.open = Some(open),
                Err(failed) => self.failed(&open.location, failed),
            }
        }
    }

    /// Receives and verifies some bytes.
    async fn receive(&mut self, open: &mut OpenReplica<R>) -> Result<(), Failed> {
        let limit = self.shared.read_timeout();
        let received = self.shared.runtime().clock().timeout(limit, open.receive.bytes(PIECE_LEN_BYTES)).await;
        let piece = match received {
            Some(Ok(Some(piece))) => piece,
            Some(Ok(None)) => return Err(Failed::Away("it ended the stream before all bytes had come".to_owned())),
            Some(Err(error)) => return Err(error.into()),
            None => return Err(Failed::Away(format!("it sent nothing for {limit:?}"))),
        };
        let before = self.ready.len();
        let verified = open.verifier.push(piece, &mut self.ready);
        // What was verified before wrong bytes is good.
        let bytes: u64 = self.ready.range(before..).map(|piece| piece.len() as u64).sum();
        self.left.start += bytes;
        if bytes > 0 {
            self.rounds = 0;
        }
        self.shared.count(&open.location, bytes);
        verified.map_err(|wrong| Failed::Wrong(wrong.to_string()))
    }

    /// Opens the next replica; when all have failed, asks the namenode again where they are.
    async fn open_next(&mut self) -> Result<(), ClientError> {
        let chosen = self.shared.choose(&self.block.locations, &self.tried);
        let Some(location) = chosen else {
            return self.locate_again().await;
        };
        self.tried.push(location.id);
        let limit = self.shared.read_timeout();
        let opening = open_at(&self.shared, &self.block, &self.left, &location);
        let opened = self.shared.runtime().clock().timeout(limit, opening).await;
        match opened.unwrap_or_else(|| Err(Failed::Away(format!("it did not answer within {limit:?}")))) {
            Ok((receive, leaves)) => {
                let verifier = Verifier::new(leaves, self.block.len_bytes, self.left.clone());
                self.open = Some(OpenReplica { location, receive, verifier });
            }
            Err(failed) => self.failed(&location, failed),
        }
        Ok(())
    }

    /// Notes that a replica failed.
    fn failed(&mut self, location: &DatanodeLocation, failed: Failed) {
        let reason = match failed {
            Failed::Away(reason) => {
                self.shared.suspect(location.id);
                reason
            }
            Failed::Wrong(reason) => {
                self.shared.report_corrupt(self.block.block, location, &reason);
                self.wrong.push(location.id);
                reason
            }
            Failed::Refused(error) => {
                if error.code == ErrorCode::BadToken {
                    // The others would say the same: a new token is needed.
                    self.tried = self.block.locations.iter().map(|location| location.id).collect();
                } else if error.code == ErrorCode::Corrupt {
                    self.wrong.push(location.id);
                }
                error.to_string()
            }
        };
        tracing::info!(block = %self.block.block, node = %location.node, reason, "reading on from another replica");
        self.failures.push(ReplicaFailure { datanode: location.clone(), reason });
        self.shared.count_failover();
    }

    /// Asks the namenode again where the block is.
    async fn locate_again(&mut self) -> Result<(), ClientError> {
        // All that there should be: fewer may be known than there are, while datanodes are away or have not reported.
        let all_known = match self.shared.locations.status.kind {
            FileKind::File { replication, .. } => self.block.locations.len() >= usize::from(replication),
            FileKind::Directory => false,
        };
        let damaged = all_known && self.block.locations.iter().all(|location| self.wrong.contains(&location.id));
        // Wrong bytes stay wrong: who has only them is asked once more, for another replica may be known by now.
        if self.rounds >= if damaged { 1 } else { ROUNDS } {
            return Err(ClientError::Unreadable(Box::new(Unreadable {
                path: self.shared.locations.status.path.clone(),
                block: self.block.block,
                offset: self.block.offset + self.left.start,
                damaged,
                failures: std::mem::take(&mut self.failures),
            })));
        }
        self.shared.runtime().clock().sleep(FIRST_REST * (1 << self.rounds)).await;
        self.rounds += 1;
        let now = self.shared.locations.again(self.block.offset).await?;
        if (now.block.id, now.offset, now.len_bytes, now.root)
            != (self.block.block.id, self.block.offset, self.block.len_bytes, self.block.root)
        {
            return Err(ClientError::Changed { path: self.shared.locations.status.path.clone() });
        }
        self.block = now;
        self.tried.clear();
        Ok(())
    }
}

/// Opens a replica: it answers, and the leaves are those of the block.
async fn open_at<R: Runtime>(
    shared: &Shared<R>,
    block: &LocatedBlock,
    left: &Range<u64>,
    location: &DatanodeLocation,
) -> Result<(FrameReceiver<ReceiveOf<R>>, Arc<[Leaf]>), Failed> {
    let known = shared.locations.leaves(block.block);
    let open = StreamOpen::ReadBlock(Box::new(ReadBlock {
        block: block.block,
        offset: left.start,
        len_bytes: left.end - left.start,
        leaves: known.is_none(),
        token: block.token.clone(),
    }));
    let connector = shared.client.connector();
    let (mut send, mut receive) = connector.stream(location.address, Role::Datanode, &open).await?;
    // The request is all that goes this way.
    send.finish().await?;
    let (offset, len_bytes, block_len_bytes, leaves) = match receive.expect("its answer").await? {
        ReadReply::Bytes { offset, len_bytes, block_len_bytes, leaves } => (offset, len_bytes, block_len_bytes, leaves),
        ReadReply::Refused(error) => return Err(Failed::Refused(error)),
    };
    if block_len_bytes != block.len_bytes {
        return Err(Failed::Wrong(format!("it has {block_len_bytes} bytes instead of {}", block.len_bytes)));
    }
    let wide = widened(left, block.len_bytes);
    if (offset, len_bytes) != (wide.start, wide.end - wide.start) {
        return Err(Failed::Away(format!("it sends {len_bytes} bytes from {offset} on instead of {wide:?}")));
    }
    let leaves = match known {
        Some(known) => known,
        None if root_of(&leaves, block.len_bytes) == block.root => {
            let leaves: Arc<[Leaf]> = leaves.into();
            shared.locations.keep_leaves(block.block, Arc::clone(&leaves));
            leaves
        }
        None => return Err(Failed::Wrong("its leaves do not merge into the block's root".to_owned())),
    };
    Ok((receive, leaves))
}
