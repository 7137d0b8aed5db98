//! Checkpoints: which images there are, and when one is brought forward.
//!
//! Two images are brought forward in turn, each to the state in which the namespace was when it was begun. The owner hands
//! the writer what the image lacks, a chunk whenever it asks and between calls, and with the last chunk the transaction and
//! digest of that state; the writer marks the image *in progress* first, and *complete* only when the edit log is on the
//! disk up to that transaction, so that no image knows more than the log. Then it is read back: only an image whose digest
//! was found right, here or at the start, counts as good, and the log is cut when both are. An image that
//! failed, or that another run left behind, is not mended but made anew in a directory with a new number; what it
//! replaces stays until both images are good, unless it was never finished. Until then the good one is not touched, for it
//! may be the only way back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use situ_runtime::disk::{Disk, DiskError};
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::ids::{ClusterId, TxId};
use situ_wire::time::TimeMs;
use tokio::sync::{mpsc, oneshot, watch};

use super::image_writer::{Chunk, ImageWriter, Outcome, remove};
use super::log::Progress;
use super::room::Reserve;
use crate::core::{ImageSlot, NamespaceDigest, Namesystem};
use crate::error::ImageError;
use crate::metrics::Metrics;

/// How many records are read, and written, in one step: calls wait for the reading of so many. Tests have small images.
const CHUNK_RECORDS: usize = if cfg!(test) { 16 } else { 2048 };
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
    /// What they leave of the disk to the log.
    reserve: Reserve,
    begun_tx: TxId,
    begun: TimeMs,
    not_before: TimeMs,
    metrics: Arc<Metrics>,
}

struct Running {
    slot: ImageSlot,
    number: u64,
    /// The state that the image will hold; none until its writer has asked for the first chunk.
    target: Option<(TxId, NamespaceDigest)>,
    asks: mpsc::Receiver<()>,
    chunks: mpsc::Sender<Chunk>,
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
    /// Those of them that hold an image which was never finished.
    pub(super) unfinished: Vec<PathBuf>,
}

impl Images {
    /// The image that was loaded is in slot A; B is to be made anew, and A too if none was loaded: the caller resets
    /// those in the namesystem.
    pub(super) fn new(
        found: Found,
        cluster: ClusterId,
        every: (u64, u64),
        reserve: Reserve,
        now: TimeMs,
        metrics: Arc<Metrics>,
    ) -> Self {
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
            reserve,
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

    /// Begins a checkpoint, while the namespace stands at `last`: of the image that lacks most; at a shutdown, of the one
    /// that lacks least.
    pub(super) fn begin<R: Runtime>(
        &mut self,
        runtime: &R,
        log: watch::Receiver<Progress>,
        last: TxId,
        now: TimeMs,
        least: bool,
    ) {
        assert!(self.running.is_none(), "one checkpoint at a time");
        let (slot, good) = self.choose(least);
        let number = good.map_or(self.next_number, |good| good.number);
        self.next_number = self.next_number.max(number + 1);
        (self.begun, self.begun_tx) = (now, last);
        let other = self.slots[1 - index(slot)];
        let (asks_in, asks) = mpsc::channel(1);
        let (chunks, chunks_out) = mpsc::channel(1);
        let (report, outcome) = oneshot::channel();
        let writer = ImageWriter {
            runtime: runtime.clone(),
            path: image_path(&self.directory, number),
            cluster: self.cluster,
            anew: good.is_none(),
            reserve: self.reserve,
            other: other.map(|other| image_path(&self.directory, other.number)),
            asks: asks_in,
            chunks: chunks_out,
            log,
            metrics: Arc::clone(&self.metrics),
        };
        let task = runtime.spawn("image", async move {
            // Nobody listens any more when the namenode is gone.
            let _ = report.send(writer.run().await);
        });
        self.running = Some(Running { slot, number, target: None, asks, chunks, outcome, _task: task.abort_on_drop() });
    }

    /// Waits for something to do. Safe to drop and call again.
    pub(super) async fn event(&mut self) -> ImageEvent {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let lost = |_| Outcome::Failed(ImageError::Record { reason: "its writer ended unexpectedly".to_owned() });
        tokio::select! {
            biased;
            outcome = &mut running.outcome => ImageEvent::Ended(outcome.unwrap_or_else(lost)),
            Some(()) = running.asks.recv() => ImageEvent::Feed,
        }
    }

    /// Hands the writer more of what it lacks. What it will hold is settled with the first chunk.
    pub(super) fn feed(&mut self, namesystem: &mut Namesystem) {
        let Some(Running { slot, number, target, chunks, .. }) = &mut self.running else { return };
        let target = *target.get_or_insert_with(|| {
            let target = namesystem.begin_changes(*slot);
            tracing::info!(image = number, to = %target.0, "bringing an image forward");
            target
        });
        let (changes, more) = namesystem.next_changes(CHUNK_RECORDS);
        // There is room, and if the writer is gone then its outcome says why.
        let _ = chunks.try_send(Chunk { changes, end: (!more).then_some(target) });
    }

    /// Takes note of what became of the checkpoint. Returns what the log needs no more.
    pub(super) fn ended<R: Runtime>(
        &mut self,
        runtime: &R,
        namesystem: &mut Namesystem,
        outcome: Outcome,
        now: TimeMs,
    ) -> Option<TxId> {
        let Running { slot, number, target, .. } = self.running.take()?;
        self.not_before = TimeMs(now.0.saturating_add(now.0.saturating_sub(self.begun.0).saturating_mul(PAUSE_FACTOR)));
        match outcome {
            Outcome::Good(tx) => {
                self.slots[index(slot)] = Some(Good { number, tx });
                self.metrics.checkpoints.add(1);
                tracing::info!(image = number, %tx, "brought an image forward");
            }
            Outcome::PutOff(error) => {
                assert!(target.is_none(), "an image that is put off has not been begun");
                let images = self.directory.display();
                tracing::warn!(%images, %error, "a checkpoint is put off to when the next is due; the edit log grows meanwhile");
                // The image that was loaded has been read whole: what was there beside it makes room for the next one.
                if self.slots.iter().any(Option::is_some) {
                    self.remove_spares(runtime);
                }
                return None;
            }
            Outcome::Failed(error) => {
                tracing::warn!(image = number, %error, "an image failed; it will be made anew");
                self.metrics.image_failures.add(1);
                self.slots[index(slot)] = None;
                self.spare.push(number);
                namesystem.reset_image(slot);
            }
        }
        let [Some(a), Some(b)] = self.slots else { return None };
        self.remove_spares(runtime);
        Some(a.tx.min(b.tx).next())
    }

    /// Deletes all that is there beside the images.
    fn remove_spares<R: Runtime>(&mut self, runtime: &R) {
        if self.spare.is_empty() {
            return;
        }
        let paths: Vec<_> = self.spare.drain(..).map(|number| image_path(&self.directory, number)).collect();
        let (runtime_, disk) = (runtime.clone(), runtime.disk().clone());
        runtime.spawn("remove-images", async move {
            runtime_.blocking(move || remove(&disk, &paths)).await;
        });
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
