//! Checkpoints: which images there are, when the next is due, and the task that brings one forward.
//!
//! Two images are brought forward in turn, each to the state in which the namespace was when it was begun. The owner hands
//! the writer what the image lacks, a chunk at a time and between calls, and with the last chunk the transaction and
//! digest of that state; the writer marks the image *in progress* first, and *complete* only when the edit log is on the
//! disk up to that transaction, so that no image knows more than the log. An image that
//! failed, or that another run left behind, is not mended but made anew in a directory with a new number; what it
//! replaces stays until both images are good. Until then the good one is not touched, for it may be the only way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use situ_runtime::disk::{Disk, DiskError};
use situ_runtime::store::Store;
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::ids::{ClusterId, TxId};
use situ_wire::time::TimeMs;
use tokio::sync::{mpsc, oneshot, watch};

use super::image::{Header, encode_changes};
use super::log::Progress;
use crate::core::{ImageKey, ImageRecord, ImageSlot, NamespaceDigest, Namesystem};
use crate::error::ImageError;
use crate::metrics::Metrics;

/// How many records are read, and written, in one step: calls wait for the reading of so many. Tests have small images.
const CHUNK_RECORDS: usize = if cfg!(test) { 16 } else { 2048 };
/// After how many records what was written is synced, so that what waits to reach the disk stays bounded.
const SYNC_RECORDS: usize = 1 << 16;
/// Between two checkpoints passes so many times the time that the first of them took, so that a namenode under load does
/// not spend it all on images.
const PAUSE_FACTOR: u64 = 2;

/// A good image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Good {
    /// The number of its directory.
    pub(super) number: u64,
    /// Up to where it goes.
    pub(super) tx: TxId,
}

/// A part of what an image lacks.
pub(super) struct Chunk {
    changes: Vec<(ImageKey, Option<ImageRecord>)>,
    /// With the last part: which state the image then holds.
    end: Option<(TxId, NamespaceDigest)>,
}

/// What became of a checkpoint: up to where the image goes, or none if the log failed first.
type Outcome = Result<Option<TxId>, ImageError>;

/// What the owner is to do about images.
pub(super) enum ImageEvent {
    /// Hand the writer the next chunk.
    Feed,
    /// Take note of what became of the checkpoint.
    Ended(Outcome),
}

/// The images, as the owner knows them.
pub(super) struct Images {
    directory: PathBuf,
    cluster: ClusterId,
    /// The image of each slot; none if it must be made anew.
    slots: [Option<Good>; 2],
    /// Directories that no slot uses. They go when both slots are good.
    spare: Vec<u64>,
    next_number: u64,
    running: Option<Running>,
    /// After how many edits, and after how long, the next checkpoint is due.
    every_edits: u64,
    every_ms: u64,
    begun_tx: TxId,
    begun: TimeMs,
    not_before: TimeMs,
    metrics: Arc<Metrics>,
}

struct Running {
    slot: ImageSlot,
    number: u64,
    /// The state that the image will hold.
    target: (TxId, NamespaceDigest),
    /// Until the last chunk is handed over.
    chunks: Option<mpsc::Sender<Chunk>>,
    outcome: oneshot::Receiver<Outcome>,
    _task: AbortOnDrop<()>,
}

/// What [`Images`] starts from.
pub(super) struct Found {
    /// Where the images are.
    pub(super) directory: PathBuf,
    /// The image that the namespace was restored from.
    pub(super) loaded: Option<Good>,
    /// Every other directory there.
    pub(super) others: Vec<u64>,
}

impl Images {
    /// The image that was loaded is in slot A; B is to be made anew, and A too if none was loaded: the caller resets
    /// those in the namesystem.
    pub(super) fn new(found: Found, cluster: ClusterId, every: (u64, u64), now: TimeMs, metrics: Arc<Metrics>) -> Self {
        let numbers = found.others.iter().copied().chain(found.loaded.map(|good| good.number));
        Self {
            directory: found.directory,
            cluster,
            slots: [found.loaded, None],
            next_number: numbers.max().unwrap_or(0) + 1,
            spare: found.others,
            running: None,
            every_edits: every.0,
            every_ms: every.1,
            begun_tx: found.loaded.map_or(TxId(0), |good| good.tx),
            begun: now,
            not_before: now,
            metrics,
        }
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether an image holds everything up to `last`.
    pub(super) fn is_current(&self, last: TxId) -> bool {
        last == TxId(0) || self.slots.iter().flatten().any(|good| good.tx == last)
    }

    /// When the next checkpoint is due, if the namespace stands at `last`.
    pub(super) fn poll_timeout(&self, last: TxId) -> TimeMs {
        let all_good = self.slots.iter().all(Option::is_some);
        if self.is_running() || last == TxId(0) || (all_good && self.is_current(last)) {
            TimeMs::NEVER
        } else if last.0 - self.begun_tx.0 >= self.every_edits {
            self.not_before
        } else {
            self.not_before.max(TimeMs(self.begun.0.saturating_add(self.every_ms)))
        }
    }

    /// Which image the next checkpoint writes: one that is missing, anew; of two good ones that which lacks most or, with
    /// `least`, that which lacks least, in place.
    fn choose(&self, least: bool) -> (ImageSlot, Option<Good>) {
        let chosen = match self.slots {
            [None, _] => (ImageSlot::A, None),
            [_, None] => (ImageSlot::B, None),
            [Some(a), Some(b)] if (a.tx <= b.tx) != least => (ImageSlot::A, Some(a)),
            [_, good] => (ImageSlot::B, good),
        };
        // An image in progress is none, and the log reaches back only to one that was good.
        assert!(
            chosen.1.is_none() || self.slots.iter().all(Option::is_some),
            "the only good image is never written to"
        );
        chosen
    }

    /// Begins a checkpoint of the image that lacks most; at a shutdown, of the one that lacks least.
    pub(super) fn begin<R: Runtime>(
        &mut self,
        runtime: &R,
        namesystem: &mut Namesystem,
        log: watch::Receiver<Progress>,
        now: TimeMs,
        least: bool,
    ) {
        assert!(self.running.is_none(), "one checkpoint at a time");
        let (slot, good) = self.choose(least);
        let (number, fresh) = match good {
            Some(good) => (good.number, false),
            None => {
                self.next_number += 1;
                (self.next_number - 1, true)
            }
        };
        let target = namesystem.begin_changes(slot);
        (self.begun, self.begun_tx) = (now, target.0);
        tracing::info!(image = number, anew = fresh, to = %target.0, "bringing an image forward");
        let (chunks, queue) = mpsc::channel(1);
        let (report, outcome) = oneshot::channel();
        let path = image_path(&self.directory, number);
        let (runtime_, cluster, metrics) = (runtime.clone(), self.cluster, Arc::clone(&self.metrics));
        let task = runtime.spawn("image", async move {
            // Nobody listens any more when the namenode is gone.
            let _ = report.send(write(&runtime_, path, cluster, queue, log, &metrics).await);
        });
        // While it is under way it is no image to start from.
        self.slots[index(slot)] = None;
        self.running =
            Some(Running { slot, number, target, chunks: Some(chunks), outcome, _task: task.abort_on_drop() });
    }

    /// Waits for something to do. Safe to drop and call again.
    pub(super) async fn event(&mut self) -> ImageEvent {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let lost = |_| Err(ImageError::Record { reason: "its writer ended unexpectedly".to_owned() });
        let Some(chunks) = &running.chunks else {
            return ImageEvent::Ended((&mut running.outcome).await.unwrap_or_else(lost));
        };
        tokio::select! {
            biased;
            outcome = &mut running.outcome => ImageEvent::Ended(outcome.unwrap_or_else(lost)),
            Ok(_) = chunks.reserve() => ImageEvent::Feed,
        }
    }

    /// Hands the writer more of what it lacks.
    pub(super) fn feed(&mut self, namesystem: &mut Namesystem) {
        let Some(Running { target, chunks, .. }) = &mut self.running else { return };
        let (changes, more) = namesystem.next_changes(CHUNK_RECORDS);
        let chunk = Chunk { changes, end: (!more).then_some(*target) };
        // There is room, and if the writer is gone then its outcome says why.
        let _ = chunks.as_ref().map(|writer| writer.try_send(chunk));
        if !more {
            *chunks = None;
        }
    }

    /// Takes note of what became of the checkpoint. Returns what the log needs no more.
    pub(super) fn ended<R: Runtime>(
        &mut self,
        runtime: &R,
        namesystem: &mut Namesystem,
        outcome: Outcome,
        now: TimeMs,
    ) -> Option<TxId> {
        let running = self.running.take()?;
        self.not_before = TimeMs(now.0.saturating_add(now.0.saturating_sub(self.begun.0).saturating_mul(PAUSE_FACTOR)));
        match outcome {
            Ok(Some(tx)) => {
                self.slots[index(running.slot)] = Some(Good { number: running.number, tx });
                self.metrics.checkpoints.add(1);
                tracing::info!(image = running.number, %tx, "brought an image forward");
            }
            Ok(None) => {
                self.spare.push(running.number);
                namesystem.reset_image(running.slot);
            }
            Err(error) => {
                tracing::warn!(image = running.number, %error, "an image failed; it will be made anew");
                self.metrics.image_failures.add(1);
                self.spare.push(running.number);
                namesystem.reset_image(running.slot);
            }
        }
        let [Some(a), Some(b)] = self.slots else { return None };
        if !self.spare.is_empty() {
            let paths: Vec<_> = self.spare.drain(..).map(|number| image_path(&self.directory, number)).collect();
            let (runtime_, disk) = (runtime.clone(), runtime.disk().clone());
            runtime.spawn("remove-images", async move {
                runtime_.blocking(move || remove(&disk, &paths)).await;
            });
        }
        Some(a.tx.min(b.tx).next())
    }
}

fn remove<D: Disk>(disk: &D, paths: &[PathBuf]) {
    for path in paths {
        if let Err(error) = disk.remove_directory(path) {
            tracing::warn!(%error, "an image that is not needed any more could not be removed; delete it by hand");
        }
    }
}

/// Where image `number` is.
pub(super) fn image_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(number.to_string())
}

/// The numbers of the images in `directory`. Blocks.
pub(super) fn image_numbers<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<u64>, DiskError> {
    let entries = disk.list(directory)?;
    Ok(entries.iter().filter_map(|entry| entry.name.parse().ok()).collect())
}

fn index(slot: ImageSlot) -> usize {
    match slot {
        ImageSlot::A => 0,
        ImageSlot::B => 1,
    }
}

/// Brings the image at `path` forward by all chunks.
async fn write<R: Runtime>(
    runtime: &R,
    path: PathBuf,
    cluster: ClusterId,
    mut chunks: mpsc::Receiver<Chunk>,
    mut log: watch::Receiver<Progress>,
    metrics: &Metrics,
) -> Outcome {
    let opener = runtime.clone();
    let mut store = runtime
        .blocking(move || -> Result<_, ImageError> {
            let store = opener.open_store(&path)?;
            store.write(vec![Header::in_progress(cluster).entry()])?;
            store.sync()?;
            // The log will be cut because this image is there: so must be its name.
            opener.disk().sync_directory(path.parent().unwrap_or(&path))?;
            Ok(store)
        })
        .await?;
    let mut outcome = Ok(None);
    let mut unsynced = 0;
    while let (Ok(None), Some(chunk)) = (&outcome, chunks.recv().await) {
        metrics.image_records.add(chunk.changes.len() as u64);
        let end = chunk.end.map(|(tx, _)| tx);
        if let Some(tx) = end
            && !reached(&mut log, tx).await
        {
            break;
        }
        unsynced += chunk.changes.len();
        let sync = unsynced >= SYNC_RECORDS || end.is_some();
        if sync {
            unsynced = 0;
        }
        let written = runtime
            .blocking(move || {
                let written = write_chunk(&*store, cluster, &chunk, sync);
                (store, written)
            })
            .await;
        store = written.0;
        outcome = written.1.map(|()| end);
    }
    // Closing may write; and whoever hears of the end may open or remove it.
    runtime.blocking(move || drop(store)).await;
    outcome
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
