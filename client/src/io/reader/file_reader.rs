use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::block::{Block, DatanodeLocation, LocatedBlock};
use situ_wire::ids::DatanodeId;
use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;

use super::file_stream::FileStream;
use super::locations::Locations;
use super::segment::Segment;
use crate::error::ClientError;
use crate::io::client::Client;

impl<R: Runtime> Client<R> {
    /// Opens a file for reading: its final blocks, as they are now.
    ///
    /// # Errors
    /// When it is not a file, or the namenode refuses or cannot be reached.
    pub async fn open(&self, path: &DfsPath) -> Result<FileReader<R>, ClientError> {
        let locations = Locations::open(self.clone(), path).await?;
        let shared = Shared { client: self.clone(), locations, counts: Counts::default() };
        Ok(FileReader { shared: Arc::new(shared) })
    }
}

/// Reads a file. Every byte is verified against what its writer wrote; what one replica cannot give comes from another.
/// Cheap to clone; every clone reads the same file and counts together.
pub struct FileReader<R: Runtime> {
    pub(super) shared: Arc<Shared<R>>,
}

impl<R: Runtime> Clone for FileReader<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Runtime> std::fmt::Debug for FileReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("status", &self.shared.locations.status).finish_non_exhaustive()
    }
}

/// Where the bytes of a reader came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReadStatistics {
    /// Bytes from replicas of this client's own node.
    pub local_bytes: u64,
    /// Bytes from other nodes.
    pub remote_bytes: u64,
    /// How often a replica failed and another one was read instead.
    pub failovers: u64,
    /// How often a replica's bytes were not those that were written.
    pub corrupt: u64,
}

#[derive(Debug, Default)]
struct Counts {
    local_bytes: AtomicU64,
    remote_bytes: AtomicU64,
    failovers: AtomicU64,
    corrupt: AtomicU64,
}

impl<R: Runtime> FileReader<R> {
    /// The file as it was when it was opened.
    #[must_use]
    pub fn status(&self) -> &FileStatus {
        &self.shared.locations.status
    }

    /// How many bytes can be read.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.status().len_bytes()
    }

    /// Where its bytes came from so far.
    #[must_use]
    pub fn statistics(&self) -> ReadStatistics {
        let counts = &self.shared.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReadStatistics {
            local_bytes: get(&counts.local_bytes),
            remote_bytes: get(&counts.remote_bytes),
            failovers: get(&counts.failovers),
            corrupt: get(&counts.corrupt),
        }
    }

    /// All its blocks, in order, replicas nearest to this client first.
    ///
    /// # Errors
    /// When the file has changed, or the namenode refuses or cannot be reached.
    pub async fn blocks(&self) -> Result<Vec<LocatedBlock>, ClientError> {
        let mut all = Vec::new();
        let mut at = 0;
        while at < self.len_bytes() {
            let block = self.shared.locations.at(at).await?;
            at = block.offset + block.len_bytes;
            all.push(block);
        }
        Ok(all)
    }

    /// The bytes from `offset` on: `len_bytes` of them, or fewer at the end of the file.
    ///
    /// # Errors
    /// When no replica of a block can be read, the file has changed, or the namenode refuses or cannot be reached.
    pub async fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, ClientError> {
        let end = offset.saturating_add(len_bytes as u64).min(self.len_bytes());
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut at = offset;
        while at < end {
            let block = self.shared.locations.at(at).await?;
            let range = at..end.min(block.offset + block.len_bytes);
            at = range.end;
            let mut segment = Segment::new(Arc::clone(&self.shared), block, &range);
            while let Some(piece) = segment.next().await? {
                pieces.push(piece);
            }
        }
        if pieces.len() == 1 {
            return Ok(pieces.swap_remove(0));
        }
        let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }

    /// The bytes of `range` (cut to the file) in order, read ahead as far as a bounded amount of memory allows.
    #[must_use]
    pub fn stream(&self, range: Range<u64>) -> FileStream<R> {
        let end = range.end.min(self.len_bytes());
        FileStream::new(Arc::clone(&self.shared), range.start.min(end)..end)
    }
}

/// What the readers and streams of one open file share.
pub(super) struct Shared<R: Runtime> {
    pub(super) client: Client<R>,
    pub(super) locations: Locations<R>,
    counts: Counts,
}

impl<R: Runtime> Shared<R> {
    pub(super) fn runtime(&self) -> &R {
        self.client.runtime()
    }

    pub(super) fn read_timeout(&self) -> Duration {
        Duration::from_millis(self.client.config().read_timeout_ms)
    }

    /// The replica to try next.
    pub(super) fn choose(&self, locations: &[DatanodeLocation], tried: &[DatanodeId]) -> Option<DatanodeLocation> {
        let now = self.runtime().clock().now();
        self.client.suspects().choose(now, locations, tried).cloned()
    }

    pub(super) fn suspect(&self, datanode: DatanodeId) {
        let now = self.runtime().clock().now();
        self.client.suspects().add(now, datanode);
    }

    pub(super) fn count(&self, from: &DatanodeLocation, bytes: u64) {
        let local = self.client.config().node.as_ref() == Some(&from.node);
        let count = if local { &self.counts.local_bytes } else { &self.counts.remote_bytes };
        count.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_failover(&self) {
        self.counts.failovers.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells the namenode of wrong bytes, beside the reading.
    pub(super) fn report_corrupt(&self, block: Block, location: &DatanodeLocation, reason: &str) {
        tracing::warn!(%block, node = %location.node, reason, "a replica is corrupt");
        self.counts.corrupt.fetch_add(1, Ordering::Relaxed);
        let (client, datanode) = (self.client.clone(), location.id);
        self.runtime().spawn("report-corrupt", async move {
            if let Err(error) = client.report_corrupt(block, datanode).await {
                tracing::warn!(%block, %datanode, %error, "could not report a corrupt replica");
            }
        });
    }
}
