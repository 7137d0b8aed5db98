//! The namenode's journal: a list with a mark up to where it is on disk.

use situ_namenode::core::{Edit, NamespaceDigest};
use situ_wire::ids::TxId;

/// A list of edits with a mark up to where it is on disk.
#[derive(Default)]
pub(super) struct Journal {
    edits: Vec<Edit>,
    /// The digest after each edit when it was first applied; none after one that another followed at once.
    digests: Vec<Option<NamespaceDigest>>,
    synced: usize,
}

impl Journal {
    pub(super) fn append(&mut self, tx: TxId, edit: Edit) {
        assert_eq!(tx, self.last().next(), "the journal has no holes");
        self.edits.push(edit);
    }

    /// Whether edits were appended since the last digest was noted.
    pub(super) fn lacks_digest(&self) -> bool {
        self.digests.len() < self.edits.len()
    }

    /// Notes the digest at the end of the journal.
    pub(super) fn note_digest(&mut self, digest: NamespaceDigest) {
        assert!(self.lacks_digest(), "a digest is noted once");
        self.digests.resize(self.edits.len() - 1, None);
        self.digests.push(Some(digest));
    }

    pub(super) fn digest(&self, tx: TxId) -> Option<NamespaceDigest> {
        self.digests.get(index_of(tx).checked_sub(1)?).copied().flatten()
    }

    /// The last transaction.
    pub(super) fn last(&self) -> TxId {
        TxId(self.edits.len() as u64)
    }

    pub(super) fn synced(&self) -> TxId {
        TxId(self.synced as u64)
    }

    /// All up to `tx` is on disk. Gives back what is so since.
    pub(super) fn sync(&mut self, tx: TxId) -> Vec<(TxId, Edit)> {
        let from = self.synced;
        self.synced = self.synced.max(index_of(tx));
        self.after(TxId(from as u64)).take(self.synced - from).map(|(tx, edit)| (tx, edit.clone())).collect()
    }

    /// The power goes: of what was not synced `kept` edits are there by luck. Gives those back, which are durable now.
    pub(super) fn crash(&mut self, kept: usize) -> Vec<(TxId, Edit)> {
        let kept = (self.synced + kept).min(self.edits.len());
        self.edits.truncate(kept);
        self.digests.truncate(kept);
        self.sync(TxId(kept as u64))
    }

    /// Loses synced edits: what no disk may do.
    pub(super) fn lose(&mut self, count: usize) {
        self.edits.truncate(self.edits.len().saturating_sub(count));
        self.digests.truncate(self.edits.len());
        self.synced = self.synced.min(self.edits.len());
    }

    /// The edits after `tx`; none if the journal ends before it.
    pub(super) fn after(&self, tx: TxId) -> impl Iterator<Item = (TxId, &Edit)> {
        let from = index_of(tx);
        (tx.0 + 1..).map(TxId).zip(self.edits.get(from..).unwrap_or_default())
    }
}

fn index_of(tx: TxId) -> usize {
    usize::try_from(tx.0).expect("a test's journal is short")
}
