use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::block::LocatedBlock;
use tokio::sync::mpsc;

use super::file_reader::Shared;
use super::segment::Segment;
use crate::error::ClientError;

/// How far ahead of the application the next block is begun.
const READ_AHEAD_BYTES: u64 = 8 << 20;
/// How many blocks are read at once, at most.
const BLOCKS_AT_ONCE: usize = 4;
/// How many pieces of one block wait for the application, at most.
const WAITING_PIECES: usize = 8;

/// The bytes of a range of a file, in order, verified, read ahead: within a block by a task of its own, and across blocks
/// by beginning the next ones before the present one ends.
pub struct FileStream<R: Runtime> {
    shared: Arc<Shared<R>>,
    /// What is still to be given.
    left: Range<u64>,
    /// Up to where segments have been begun.
    begun: u64,
    segments: VecDeque<Reading>,
    failed: Option<ClientError>,
}

/// A segment that is being read.
struct Reading {
    end: u64,
    pieces: mpsc::Receiver<Result<Bytes, ClientError>>,
    _task: AbortOnDrop<()>,
}

impl<R: Runtime> std::fmt::Debug for FileStream<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileStream").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<R: Runtime> FileStream<R> {
    pub(super) fn new(shared: Arc<Shared<R>>, range: Range<u64>) -> Self {
        Self { shared, begun: range.start, left: range, segments: VecDeque::new(), failed: None }
    }

    /// Where in the file the next bytes stand.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.left.start
    }

    /// The next bytes; none at the end of the range.
    ///
    /// # Errors
    /// When no replica of a block can be read, the file has changed, or the namenode refuses or cannot be reached; then
    /// every later call says the same.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.next_piece().await;
        if let Err(error) = &result {
            self.failed = Some(error.clone());
            self.segments.clear();
        }
        result
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        while !self.left.is_empty() {
            self.read_ahead().await?;
            let Some(reading) = self.segments.front_mut() else { continue };
            match reading.pieces.recv().await {
                Some(piece) => {
                    let piece = piece?;
                    self.left.start += piece.len() as u64;
                    return Ok(Some(piece));
                }
                None if reading.end == self.left.start => drop(self.segments.pop_front()),
                None => return Err(ClientError::Stopped { path: self.shared.locations.status.path.clone() }),
            }
        }
        Ok(None)
    }

    /// Begins the segments that are due.
    async fn read_ahead(&mut self) -> Result<(), ClientError> {
        while self.begun < self.left.end
            && (self.segments.is_empty()
                || (self.begun - self.left.start < READ_AHEAD_BYTES && self.segments.len() < BLOCKS_AT_ONCE))
        {
            let block = self.shared.locations.at(self.begun).await?;
            let range = self.begun..self.left.end.min(block.offset + block.len_bytes);
            self.begun = range.end;
            self.segments.push_back(self.begin(block, &range));
        }
        Ok(())
    }

    fn begin(&self, block: LocatedBlock, range: &Range<u64>) -> Reading {
        let mut segment = Segment::new(Arc::clone(&self.shared), block, range);
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        let task = self.shared.runtime().spawn("read-ahead", async move {
            loop {
                let piece = match segment.next().await {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                // Without a receiver the application has let go of the stream.
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        Reading { end: range.end, pieces, _task: task.abort_on_drop() }
    }
}
