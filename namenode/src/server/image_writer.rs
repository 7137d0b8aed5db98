//! The task that brings one image forward: whether there is room, the records, what is left when it fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::{Disk, DiskError};
use situ_runtime::store::Store;
use situ_wire::ids::{ClusterId, TxId};
use tokio::sync::{mpsc, watch};

use super::image::{Header, Image, encode_changes};
use super::log::Progress;
use super::room::Reserve;
use crate::core::{ImageKey, ImageRecord, NamespaceDigest};
use crate::error::ImageError;
use crate::metrics::Metrics;

/// After how many records what was written is synced, so that what waits to reach the disk stays bounded.
const SYNC_RECORDS: usize = 1 << 16;
/// How often, and after how long, an image is opened again when it cannot be opened to be read back.
const REOPEN_TRIES: u32 = 50;
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// A part of what an image lacks.
pub(super) struct Chunk {
    /// Its records; none for what is gone.
    pub(super) changes: Vec<(ImageKey, Option<ImageRecord>)>,
    /// With the last part: which state the image then holds.
    pub(super) end: Option<(TxId, NamespaceDigest)>,
}

/// What became of a checkpoint.
pub(super) enum Outcome {
    /// The image is good up to there; it was read back.
    Good(TxId),
    /// The disk lacks room. Nothing was asked for and nothing touched.
    PutOff(ImageError),
    /// The image is none any more; what may be left of it can go.
    Failed(ImageError),
}

/// Brings one image forward. It asks for each chunk, for the first when the image is ready to take it.
pub(super) struct ImageWriter<R> {
    pub(super) runtime: R,
    pub(super) path: PathBuf,
    pub(super) cluster: ClusterId,
    /// Whether there is no such image yet.
    pub(super) anew: bool,
    /// What it leaves of the disk to the log.
    pub(super) reserve: Reserve,
    /// The other image if it is good: one that is made anew will be about as large.
    pub(super) other: Option<PathBuf>,
    pub(super) asks: mpsc::Sender<()>,
    pub(super) chunks: mpsc::Receiver<Chunk>,
    pub(super) log: watch::Receiver<Progress>,
    pub(super) metrics: Arc<Metrics>,
}

impl<R: Runtime> ImageWriter<R> {
    /// Does it all.
    pub(super) async fn run(mut self) -> Outcome {
        if let Err(error) = self.check_room().await {
            return Outcome::PutOff(error);
        }
        let failed = match self.open().await {
            Ok(store) => match self.write(store).await {
                Ok(tx) => return Outcome::Good(tx),
                Err(error) => error,
            },
            // It may be as it was, and worth a look.
            Err(error) if !self.anew => return Outcome::Failed(error),
            Err(error) => error,
        };
        // It can never be used, and the next one needs its room.
        let (disk, path) = (self.runtime.disk().clone(), self.path.clone());
        self.runtime.blocking(move || remove(&disk, &[path])).await;
        Outcome::Failed(failed)
    }

    /// Checks that the image can be written whole. One that is there takes only what changed, about as much as the log
    /// since then, for which what is asked beyond the reserve must do: to ask for more would let the log grow without an end.
    async fn check_room(&self) -> Result<(), ImageError> {
        let (disk, path, reserve) = (self.runtime.disk().clone(), self.path.clone(), self.reserve);
        let like = self.other.clone().filter(|_| self.anew);
        let check = move || {
            let image_len_bytes = like.map_or(Ok(0), |like| len_bytes(&disk, &like))?;
            // Twice what must stay, or an image that is begun with little room would rarely end well.
            check_room(&disk, &path, |capacity_bytes| {
                reserve.of(capacity_bytes).saturating_mul(2).saturating_add(image_len_bytes)
            })
        };
        self.runtime.blocking(check).await
    }

    /// Opens the store and marks the image as in progress.
    async fn open(&self) -> Result<Box<dyn Store>, ImageError> {
        let (runtime, path, cluster) = (self.runtime.clone(), self.path.clone(), self.cluster);
        let open = move || {
            let store = runtime.open_store(&path)?;
            store.write(vec![Header::in_progress(cluster).entry()])?;
            store.sync()?;
            // The log will be cut because this image is there: so must be its name.
            runtime.disk().sync_directory(parent(&path))?;
            Ok(store)
        };
        self.runtime.blocking(open).await
    }

    /// Writes all chunks, closes the store and reads the image back.
    async fn write(&mut self, mut store: Box<dyn Store>) -> Result<TxId, ImageError> {
        // If the owner is gone, then no chunk comes either.
        let _ = self.asks.send(()).await;
        let mut unsynced = 0;
        let outcome = loop {
            let Some(chunk) = self.next_chunk().await else { break Err(ImageError::Abandoned) };
            self.metrics.image_records.add(chunk.changes.len() as u64);
            unsynced += chunk.changes.len();
            let end = chunk.end.map(|(tx, _)| tx);
            let sync = unsynced >= SYNC_RECORDS || end.is_some();
            if sync {
                unsynced = 0;
            }
            let (disk, path, cluster) = (self.runtime.disk().clone(), self.path.clone(), self.cluster);
            let reserve = self.reserve;
            let write = move || {
                let written = check_room(&disk, &path, |capacity_bytes| reserve.of(capacity_bytes))
                    .and_then(|()| write_chunk(&*store, cluster, &chunk, sync));
                (store, written)
            };
            let written = self.runtime.blocking(write).await;
            store = written.0;
            match (written.1, end) {
                (Err(error), _) => break Err(error),
                (Ok(()), Some(tx)) => break Ok(tx),
                (Ok(()), None) => {}
            }
        };
        // Closing may write; and whoever hears of the end may open or remove it.
        self.runtime.blocking(move || drop(store)).await;
        let tx = outcome?;
        self.read_back().await?;
        Ok(tx)
    }

    /// Opens the image as a start would and compares its digest. The log will be cut on its word, and while the other
    /// image is written to this one is the only way back: a store that lost keys in silence must show before that.
    async fn read_back(&self) -> Result<(), ImageError> {
        let mut tries_left = REOPEN_TRIES;
        loop {
            let (runtime, path, cluster) = (self.runtime.clone(), self.path.clone(), self.cluster);
            match self.runtime.blocking(move || Image::open(&runtime, &path, cluster)?.verify()).await {
                // Sled works on for a moment after it was closed, and has its lock as long.
                Err(ImageError::Store(error)) if error.operation == "open" && tries_left > 0 => tries_left -= 1,
                outcome => return outcome,
            }
            self.runtime.clock().sleep(REOPEN_PAUSE).await;
        }
    }

    /// The next chunk, the last one only when the log is on the disk up to where the image then goes; none if the owner is
    /// gone or the log failed.
    async fn next_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.recv().await?;
        match chunk.end {
            // The next one is read while this one is written.
            None => self.asks.send(()).await.ok()?,
            Some((tx, _)) if !reached(&mut self.log, tx).await => return None,
            Some(_) => {}
        }
        Some(chunk)
    }
}

/// Waits until the log is on the disk up to `tx`; false if it never will be.
async fn reached(log: &mut watch::Receiver<Progress>, tx: TxId) -> bool {
    let at_end = |progress: &Progress| match progress {
        Progress::Synced(synced) => *synced >= tx,
        Progress::Failed(_) => true,
    };
    matches!(log.wait_for(at_end).await.as_deref(), Ok(Progress::Synced(_)))
}

fn write_chunk(store: &dyn Store, cluster: ClusterId, chunk: &Chunk, sync: bool) -> Result<(), ImageError> {
    let mut batch = encode_changes(&chunk.changes)?;
    if let Some((tx, digest)) = chunk.end {
        batch.push(Header { complete: true, cluster, tx, digest }.entry());
    }
    store.write(batch)?;
    if sync { Ok(store.sync()?) } else { Ok(()) }
}

/// Checks that the disk of the image at `path` has the room that `needed` makes of its size.
fn check_room<D: Disk>(disk: &D, path: &Path, needed: impl FnOnce(u64) -> u64) -> Result<(), ImageError> {
    let space = disk.space(parent(path))?;
    let needed_bytes = needed(space.capacity_bytes);
    if space.free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(ImageError::NoRoom { free_bytes: space.free_bytes, needed_bytes })
}

/// How many bytes the files in `directory` have. Blocks.
fn len_bytes<D: Disk>(disk: &D, directory: &Path) -> Result<u64, DiskError> {
    let entries = disk.list(directory)?;
    entries
        .iter()
        .map(|entry| match entry.is_directory {
            true => len_bytes(disk, &directory.join(&entry.name)),
            false => Ok(entry.len_bytes),
        })
        .sum()
}

/// Removes images. Blocks.
pub(super) fn remove<D: Disk>(disk: &D, paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = disk.remove_directory(path) {
            tracing::warn!(%error, "an image that is not needed any more could not be removed; delete it by hand");
        }
    }
}

/// Where the image at `path` stands beside others.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
