//! The one door through which every change of the namespace goes: it keeps the digest and what the images lack.

use super::digest::{NamespaceDigest, RecordRef, RecordSum};
use super::image::{ImageKey, ImageRecord, ImageSlot, MetaRecord};

/// How many keys may pile up before the first look for repeated ones.
const SETTLE_MIN: usize = 1 << 16;

/// The digest over all records, and which of them changed since each image was brought forward.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sum: RecordSum,
    /// What both images lack.
    both: Pile,
    /// What one image lacks beside that.
    only: [Pile; 2],
}

impl Ledger {
    /// A record that is there from now on. Before a record changes it is taken out, afterwards it is added.
    pub(super) fn add(&mut self, record: &RecordRef<'_>) {
        self.sum.add(record);
        self.both.push(key_of(record));
    }

    /// A record that is there no longer.
    pub(super) fn subtract(&mut self, record: &RecordRef<'_>) {
        self.sum.subtract(record);
        self.both.push(key_of(record));
    }

    pub(super) fn digest(&self, meta: MetaRecord) -> NamespaceDigest {
        self.sum.digest(meta)
    }

    pub(super) fn sum(&self) -> &RecordSum {
        &self.sum
    }

    /// Forgets what changed: both images stand where the namespace stands.
    pub(super) fn settle_all(&mut self) {
        self.both.0.clear();
        self.only.iter_mut().for_each(|pile| pile.0.clear());
    }

    /// The keys that changed since `image` was last brought forward, ascending, each once.
    pub(super) fn take(&mut self, image: ImageSlot) -> Vec<ImageKey> {
        self.both.settle();
        let (this, other) = match image {
            ImageSlot::A => (0, 1),
            ImageSlot::B => (1, 0),
        };
        let mut keys = std::mem::take(&mut self.only[this]);
        keys.0.extend(self.both.0.iter().cloned());
        keys.settle();
        self.only[other].0.append(&mut self.both.0);
        self.only[other].settle();
        keys.0
    }

    /// Says that `image` lacks these as well.
    pub(super) fn lacks(&mut self, image: ImageSlot, keys: Vec<ImageKey>) {
        let pile = &mut self.only[usize::from(image == ImageSlot::B)];
        pile.0.extend(keys);
        pile.settle();
    }
}

/// Keys that changed, now and then rid of repeated ones, so that it grows with the namespace and not with time.
#[derive(Debug, Default)]
struct Pile(Vec<ImageKey>, usize);

impl Pile {
    fn push(&mut self, key: ImageKey) {
        if self.0.last() == Some(&key) {
            return;
        }
        self.0.push(key);
        if self.0.len() > SETTLE_MIN.max(self.1.saturating_mul(2)) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
        self.1 = self.0.len();
    }
}

fn key_of(record: &RecordRef<'_>) -> ImageKey {
    match record {
        ImageRecord::Meta(_) => ImageKey::Meta,
        ImageRecord::INode(inode) => ImageKey::INode(inode.id),
        ImageRecord::Edge(edge) => ImageKey::Edge(edge.parent, edge.name.into()),
        ImageRecord::Block(block) => ImageKey::Block(block.id),
        ImageRecord::Operation(operation) => ImageKey::Operation(operation.client, operation.sequence),
    }
}
