//! The writer of the edit log: a task that puts down whatever has queued as one frame with one sync.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::disk::{Disk, DiskError, Space};
use situ_runtime::journal::{FRAME_LEN_BYTES, Journal, JournalError, RECORD_LEN_BYTES};
use situ_runtime::{Runtime, Task};
use situ_wire::ids::TxId;
use situ_wire::limits::MESSAGE_LEN_BYTES;
use tokio::sync::{mpsc, oneshot, watch};

/// The most edits in one frame.
const FRAME_EDITS: usize = 4096;
/// How many bytes of edits make a frame full.
const FRAME_BYTES: usize = 8 << 20;

const _: () =
    assert!(FRAME_BYTES + MESSAGE_LEN_BYTES + 4 * FRAME_EDITS <= FRAME_LEN_BYTES, "a full frame fits the journal");
const _: () = assert!(MESSAGE_LEN_BYTES <= RECORD_LEN_BYTES, "an encoded edit fits the journal");

/// How far the log has come.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    /// Everything up to this transaction is on the disk.
    Synced(TxId),
    /// It failed: what came after the last synced transaction is neither there nor not there.
    Failed(JournalError),
}

/// What the writer is told to do.
enum Order {
    /// Write an edit; they come in the order of their transactions.
    Append(TxId, Bytes),
    /// Forget the edits before this one: every image has them.
    DropBefore(TxId),
    /// Say how much room there is.
    Look(oneshot::Sender<Result<Space, DiskError>>),
}

/// The owner's end of the log.
///
/// ```text
/// append ---> queue ---> one frame, one sync ---> progress ---> replies that waited
///   (unsynced: what is between the two ends, bounded by the owner)
/// ```
pub(super) struct Log {
    writer: Task<()>,
    orders: mpsc::UnboundedSender<Order>,
    progress: watch::Receiver<Progress>,
    last: TxId,
    synced: TxId,
    /// Encoded lengths of the edits that are not synced yet, oldest first.
    unsynced: VecDeque<usize>,
    unsynced_bytes: usize,
}

impl Log {
    /// Starts the writer on `journal`, whose last record is `last`. `lock` is held until the writer has ended.
    pub(super) fn start<R: Runtime>(
        runtime: &R,
        journal: Journal<R::Disk>,
        last: TxId,
        lock: Arc<<R::Disk as Disk>::Lock>,
    ) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let (report, progress) = watch::channel(Progress::Synced(last));
        let runtime_ = runtime.clone();
        let writer = runtime.spawn("edit-log", async move {
            write(runtime_, journal, queue, report).await;
            drop(lock);
        });
        Self { writer, orders, progress, last, synced: last, unsynced: VecDeque::new(), unsynced_bytes: 0 }
    }

    /// Hands an edit to the writer.
    pub(super) fn append(&mut self, tx: TxId, edit: Bytes) {
        assert_eq!(tx, self.last.next(), "edits are numbered without a gap");
        self.last = tx;
        self.unsynced.push_back(edit.len());
        self.unsynced_bytes += edit.len();
        // The writer goes only after it has reported a failure, which the owner is about to see.
        let _ = self.orders.send(Order::Append(tx, edit));
    }

    /// Lets the writer forget what lies before `tx`.
    pub(super) fn drop_before(&self, tx: TxId) {
        let _ = self.orders.send(Order::DropBefore(tx));
    }

    /// Has the writer measure how much room there is, after all that was appended before.
    pub(super) fn look(&self) -> oneshot::Receiver<Result<Space, DiskError>> {
        let (answer, looked) = oneshot::channel();
        let _ = self.orders.send(Order::Look(answer));
        looked
    }

    /// Up to where everything is on the disk, as far as the owner has noticed.
    pub(super) fn synced(&self) -> TxId {
        self.synced
    }

    /// Whether everything is on the disk.
    pub(super) fn is_synced(&self) -> bool {
        self.synced == self.last
    }

    /// How many edits, and how many bytes of them, are not on the disk yet.
    pub(super) fn unsynced(&self) -> (usize, usize) {
        (self.unsynced.len(), self.unsynced_bytes)
    }

    /// How far the log has come, for those who wait for it beside the owner.
    pub(super) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Lets the writer end, and waits until it has let go of the files.
    pub(super) async fn close(self) {
        drop(self.orders);
        self.writer.join().await;
    }

    /// Waits for the writer to get on. Safe to drop and call again.
    ///
    /// # Errors
    /// When the log failed. None if the writer is gone without a word.
    pub(super) async fn progress(&mut self) -> Result<(), Option<JournalError>> {
        self.progress.changed().await.map_err(|_| None)?;
        match self.progress.borrow_and_update().clone() {
            Progress::Failed(error) => Err(Some(error)),
            Progress::Synced(tx) => {
                assert!(self.synced <= tx && tx <= self.last, "only what was appended is synced, and stays so");
                while self.synced < tx {
                    self.synced = self.synced.next();
                    self.unsynced_bytes -= self.unsynced.pop_front().unwrap_or(0);
                }
                Ok(())
            }
        }
    }
}

async fn write<R: Runtime>(
    runtime: R,
    mut journal: Journal<R::Disk>,
    mut queue: mpsc::UnboundedReceiver<Order>,
    report: watch::Sender<Progress>,
) {
    let mut orders = Vec::new();
    while queue.recv_many(&mut orders, FRAME_EDITS).await > 0 {
        let taken = std::mem::take(&mut orders);
        let (back, outcome) = runtime
            .blocking(move || {
                let outcome = obey(&mut journal, taken);
                (journal, outcome)
            })
            .await;
        journal = back;
        match outcome {
            Ok(Some(tx)) => {
                report.send_replace(Progress::Synced(tx));
            }
            Ok(None) => {}
            Err(error) => {
                report.send_replace(Progress::Failed(error));
                // After a failed sync nothing is known of the file: nothing more is ever written to it.
                return;
            }
        }
    }
}

/// Writes the edits among `orders`, then drops what may go and looks at the room that is left. Says what is on the disk now, if there was an edit.
fn obey<D: Disk>(journal: &mut Journal<D>, orders: Vec<Order>) -> Result<Option<TxId>, JournalError> {
    let mut frame = Vec::with_capacity(orders.len());
    let mut frame_bytes = 0;
    let mut last = None;
    let (mut drop_before, mut look) = (None, None);
    for order in orders {
        match order {
            Order::Append(tx, edit) => {
                if frame_bytes + edit.len() > FRAME_BYTES && !frame.is_empty() {
                    journal.append(&frame)?;
                    frame.clear();
                    frame_bytes = 0;
                }
                frame_bytes += edit.len();
                frame.push(edit);
                last = Some(tx);
            }
            Order::DropBefore(tx) => drop_before = Some(tx),
            Order::Look(answer) => look = Some(answer),
        }
    }
    if let Some(last) = last {
        let written = journal.append(&frame)?;
        assert_eq!(written, last.0, "a record's number in the journal is its transaction");
    }
    if let Some(tx) = drop_before
        && let Err(error) = journal.drop_before(tx.0)
    {
        tracing::warn!(%error, "the part of the edit log that every image has could not be dropped; it will be tried again");
    }
    if let Some(answer) = look {
        // If nobody waits for it any more, nobody needs it.
        let _ = answer.send(journal.room());
    }
    Ok(last)
}
