//! Reading a range of a replica.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::File;
use situ_runtime::rpc::{FrameSender, RpcError};
use situ_wire::block::{Block, TokenMode};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::limits::{LEAF_LEN_BYTES, PACKET_LEN_BYTES};
use situ_wire::messages::datanode::{ReadBlock, ReadReply};

use super::node::{Node, SendOf};
use crate::core::Event;
use crate::storage::{FinalReplica, ReadError, Verdict};

/// Whole leaves of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    offset: u64,
    end: u64,
}

/// Serves one read.
pub(super) async fn read_block<R: Runtime>(
    node: &Node<R>,
    open: ReadBlock,
    mut send: FrameSender<SendOf<R>>,
) -> Result<(), RpcError> {
    let _permit = node.limits.reads.acquire().await;
    let (replica, range, first) = match begin(node, &open).await {
        Ok(begun) => begun,
        Err(error) => {
            within(node, send.message(&ReadReply::Refused(error))).await?;
            return send.finish().await;
        }
    };
    let reply = ReadReply::Bytes {
        offset: range.offset,
        len_bytes: range.end - range.offset,
        block_len_bytes: replica.meta.len_bytes,
        leaves: if open.leaves { replica.meta.leaves.clone() } else { Vec::new() },
    };
    let replica = Arc::new(replica);
    let mut at = range.offset + first.len() as u64;
    // The disk reads the next piece while one is on its way.
    let ahead = read_piece(node, &replica, Range { offset: at, ..range });
    let (sent, mut next) = tokio::join!(within(node, send.message_and_bytes(&reply, vec![first])), ahead);
    sent?;
    loop {
        let piece = match next {
            Ok(piece) if piece.is_empty() => return send.finish().await,
            Ok(piece) => piece,
            Err(error) => {
                tracing::warn!(block = %open.block, %error, "a read failed; the replica will be verified");
                node.tell(Event::Suspect { block: open.block });
                send.reset();
                return Err(error.into());
            }
        };
        at += piece.len() as u64;
        let ahead = read_piece(node, &replica, Range { offset: at, ..range });
        let (sent, following) = tokio::join!(within(node, send.bytes(piece)), ahead);
        sent?;
        next = following;
    }
}

/// Gives up on a reader that takes nothing for too long: it holds a place among the reads, an open file and what was read
/// ahead. A client that comes back later opens the block again where it stood.
async fn within<R: Runtime>(
    node: &Node<R>,
    sending: impl Future<Output = Result<(), RpcError>> + Send,
) -> Result<(), RpcError> {
    let sent = node.runtime.clock().timeout(SEND_TIMEOUT, sending).await;
    sent.unwrap_or(Err(RpcError::DeadlineExceeded { timeout: SEND_TIMEOUT }))
}

/// Checks what is asked, opens the replica and reads its first piece.
async fn begin<R: Runtime>(
    node: &Node<R>,
    open: &ReadBlock,
) -> Result<(FinalReplica<R::Disk>, Range, Bytes), RemoteError> {
    let block = open.block;
    node.check_token(&open.token, block, TokenMode::Read)?;
    let (volume, len_bytes) = node.open_read(block).await?;
    let range = widen(open.offset, open.len_bytes, len_bytes).ok_or_else(|| {
        let found = format!("a read from offset {} was asked, but the block has {len_bytes} bytes", open.offset);
        RemoteError::new(ErrorCode::InvalidArgument, block, found)
    })?;
    let opened = node.runtime.blocking(move || {
        let replica = volume.open_final(block)?;
        let first = replica.file.read_at(range.offset, range.piece_len())?;
        Ok((replica, first))
    });
    let (replica, first) = opened.await.map_err(|error| cannot_open(node, block, &error))?;
    check_piece(&first, range, block)?;
    Ok((replica, range, first))
}

/// What a reader is told of a replica that cannot be opened.
fn cannot_open<R: Runtime>(node: &Node<R>, block: Block, error: &ReadError) -> RemoteError {
    let code = if let Verdict::Undecided(_) = Verdict::from(error) {
        tracing::warn!(%block, %error, "a replica cannot be opened now");
        ErrorCode::Unavailable
    } else {
        tracing::warn!(%block, %error, "a replica cannot be opened; it will be verified");
        node.tell(Event::Suspect { block });
        ErrorCode::Corrupt
    };
    RemoteError::new(code, block, format!("{error}; read another replica"))
}

/// Reads the piece at the beginning of `range`; an empty one if the range is.
async fn read_piece<R: Runtime>(
    node: &Node<R>,
    replica: &Arc<FinalReplica<R::Disk>>,
    range: Range,
) -> Result<Bytes, RemoteError> {
    if range.offset == range.end {
        return Ok(Bytes::new());
    }
    let (replica, block) = (Arc::clone(replica), replica.meta.block);
    let piece = node.runtime.blocking(move || replica.file.read_at(range.offset, range.piece_len())).await;
    let piece = piece.map_err(|error| RemoteError::new(ErrorCode::Io, block, error.to_string()))?;
    check_piece(&piece, range, block)?;
    Ok(piece)
}

/// A file that became shorter must not look like the end of a range.
fn check_piece(piece: &Bytes, range: Range, block: Block) -> Result<(), RemoteError> {
    if piece.len() == range.piece_len() {
        return Ok(());
    }
    let message = format!("its file ends {} bytes after offset {}", piece.len(), range.offset);
    Err(RemoteError::new(ErrorCode::Corrupt, block, message))
}

impl Range {
    /// How much is read at once.
    fn piece_len(self) -> usize {
        usize::try_from(self.end - self.offset).unwrap_or(usize::MAX).min(PACKET_LEN_BYTES)
    }
}

/// The whole leaves that `len_bytes` bytes from `offset` on touch, within a block of `block_len_bytes`; none if the range
/// begins behind its end.
fn widen(offset: u64, len_bytes: u64, block_len_bytes: u64) -> Option<Range> {
    if offset > block_len_bytes {
        return None;
    }
    let leaf = LEAF_LEN_BYTES as u64;
    let begin = offset - offset % leaf;
    let end = offset.saturating_add(len_bytes).min(block_len_bytes);
    let end = if end == offset { begin } else { end.next_multiple_of(leaf).min(block_len_bytes) };
    Some(Range { offset: begin, end })
}

/// How long a reader may take for one packet. People read in pagers: far longer than a network needs.
const SEND_TIMEOUT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_widen_to_whole_leaves_within_the_block() {
        let leaf = LEAF_LEN_BYTES as u64;
        let range = |offset, end| Some(Range { offset, end });
        assert_eq!(widen(0, 0, 0), range(0, 0));
        assert_eq!(widen(0, u64::MAX, 5), range(0, 5));
        assert_eq!(widen(1, 1, 3 * leaf), range(0, leaf));
        assert_eq!(widen(leaf - 1, 2, 3 * leaf), range(0, 2 * leaf));
        assert_eq!(widen(2 * leaf + 7, 1, 2 * leaf + 9), range(2 * leaf, 2 * leaf + 9));
        assert_eq!(widen(5, 0, 9), range(0, 0));
        assert_eq!(widen(leaf + 9, 1, leaf + 9), range(leaf, leaf));
        assert_eq!(widen(10, 0, 9), None);
    }
}
