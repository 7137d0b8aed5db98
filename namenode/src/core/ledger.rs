//! The one door through which every change of the namespace goes: it keeps the digest, what the images lack, and what a
//! snapshot needs.

use super::changes::Changes;
use super::digest::{NamespaceDigest, RecordRef, RecordSum};
use super::image::{ImageSlot, MetaRecord};
use super::snapshot::{Snapshot, Source};
use situ_wire::ids::TxId;

/// The digest over all records, which of them changed since each image was brought forward, and the snapshot from which
/// an image is being brought forward.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sum: RecordSum,
    changes: Changes,
    snapshot: Option<Snapshot>,
}

impl Ledger {
    /// A record that is there from now on. Before a record changes it is taken out, afterwards it is added.
    pub(super) fn add(&mut self, record: &RecordRef<'_>) {
        self.sum.add(record);
        self.changes.push(record);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.comes(record);
        }
    }

    /// A record that is there no longer.
    pub(super) fn subtract(&mut self, record: &RecordRef<'_>) {
        self.sum.subtract(record);
        self.changes.push(record);
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.goes(record);
        }
    }

    pub(super) fn digest(&self, meta: MetaRecord) -> NamespaceDigest {
        self.sum.digest(meta)
    }

    pub(super) fn sum(&self) -> &RecordSum {
        &self.sum
    }

    /// Forgets what changed: both images stand where the namespace stands.
    pub(super) fn settle_all(&mut self) {
        self.changes = Changes::default();
        self.snapshot = None;
    }

    /// Begins a snapshot of the present state, from which `image` is brought forward.
    pub(super) fn begin(&mut self, image: ImageSlot, meta: MetaRecord, tx: TxId) {
        let source = match self.changes.take(image) {
            None => Source::everything(),
            Some(segments) => Source::Keys { segments, at: 0 },
        };
        self.snapshot = Some(Snapshot::new(image, meta, tx, source));
    }

    /// The snapshot, while it is read.
    pub(super) fn take_snapshot(&mut self) -> Option<Snapshot> {
        self.snapshot.take()
    }

    /// Puts the snapshot back when there is more to read.
    pub(super) fn keep_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot = Some(snapshot);
    }

    /// Says that `image` lacks everything; a snapshot for it ends.
    pub(super) fn reset(&mut self, image: ImageSlot) {
        self.changes.reset(image);
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.image() == image) {
            self.snapshot = None;
        }
    }
}
