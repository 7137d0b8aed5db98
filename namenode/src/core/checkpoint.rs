//! What an image lacks, handed out in slices.

use std::ops::Bound;

use situ_wire::ids::{BlockId, ClientId, INodeId, TxId};

use super::digest::{NamespaceDigest, RecordSum};
use super::epochs::Epoch;
use super::image::{ImageKey, ImageRecord, ImageSlot, MetaRecord};
use super::inode::INode;
use super::namespace::edge;
use super::namesystem::Namesystem;
use super::snapshot::{Cursor, Snapshot, Source, owned};

/// Records of an image by their keys; none for what is gone.
pub type ImageChanges = Vec<(ImageKey, Option<ImageRecord>)>;

/// The digest over the records of an image, which come one by one and in any order: what the digest of its namespace
/// must be, found without making that namespace.
#[derive(Debug, Default)]
pub struct ImageDigest {
    sum: RecordSum,
    meta: Option<MetaRecord>,
}

impl ImageDigest {
    /// Takes a record; each must come once.
    pub fn add(&mut self, record: &ImageRecord) {
        match record {
            ImageRecord::Meta(meta) => self.meta = Some(*meta),
            record => self.sum.add(&record.borrowed()),
        }
    }

    /// The digest over all that came; none without the counters.
    #[must_use]
    pub fn digest(&self) -> Option<NamespaceDigest> {
        Some(self.sum.digest(self.meta?))
    }
}

impl Namesystem {
    /// Begins to bring `image` forward to the present state, of which it gives the transaction and the digest. What it
    /// lacks then comes from [`next_changes`](Self::next_changes). One that was begun before and not finished ends: its
    /// image must be [reset](Self::reset_image).
    ///
    /// The image that the namespace was restored from stands, after the restore, where it stood; another one must be
    /// emptied and [reset](Self::reset_image) first.
    pub fn begin_changes(&mut self, image: ImageSlot) -> (TxId, NamespaceDigest) {
        self.ledger.begin(image, self.meta, self.last_tx);
        (self.last_tx, self.digest())
    }

    /// The next part of what the image lacks: about `limit` records as they were when it was begun, or none for what
    /// was gone, in any order; some may come twice. Second, whether there is more.
    pub fn next_changes(&mut self, limit: usize) -> (ImageChanges, bool) {
        let Some(mut snapshot) = self.ledger.take_snapshot() else { return (Vec::new(), false) };
        let mut changes = Vec::new();
        let more = match std::mem::replace(&mut snapshot.source, Source::everything()) {
            Source::Keys { mut segments, mut at } => {
                let mut room = limit.max(1);
                if at == 0 {
                    changes.push((ImageKey::Meta, snapshot.as_it_was(&ImageKey::Meta, None)));
                }
                while let Some(segment) = segments.front().filter(|_| room > 0) {
                    let keys = &segment[at..segment.len().min(at.saturating_add(room))];
                    changes
                        .extend(keys.iter().map(|key| (key.clone(), snapshot.as_it_was(key, self.image_record(key)))));
                    room -= keys.len();
                    at += keys.len();
                    if at == segment.len() {
                        segments.pop_front();
                        at = 0;
                    }
                }
                let more = !segments.is_empty();
                snapshot.source = Source::Keys { segments, at };
                more
            }
            Source::All(mut cursor) => {
                let mut room = limit.max(1);
                while room > 0 && !matches!(cursor, Cursor::End) {
                    cursor = self.read_on(&snapshot, cursor, &mut room, &mut changes);
                }
                let more = !matches!(cursor, Cursor::End);
                snapshot.source = Source::All(cursor);
                more
            }
        };
        if more {
            self.ledger.keep_snapshot(snapshot);
        }
        (changes, more)
    }

    /// Reads records of one kind, as long as there is `room`; gives back where to go on.
    fn read_on(&self, snapshot: &Snapshot, cursor: Cursor, room: &mut usize, changes: &mut ImageChanges) -> Cursor {
        let mut put = |key: ImageKey, now: Option<ImageRecord>| {
            if let Some(record) = snapshot.as_it_was(&key, now) {
                changes.push((key, Some(record)));
            }
        };
        match cursor {
            Cursor::Meta => {
                put(ImageKey::Meta, None);
                Cursor::INodes(INodeId(0))
            }
            Cursor::INodes(from) => {
                for (id, _) in self.namespace.iter_from(from) {
                    if !take_room(room) {
                        return Cursor::INodes(id);
                    }
                    put(ImageKey::INode(id), self.namespace.record(id).as_ref().map(owned));
                }
                Cursor::Edges(INodeId(0), None)
            }
            Cursor::Edges(from, behind) => self.read_edges(from, behind.as_deref(), room, &mut put),
            Cursor::Blocks(from) => {
                for (id, _) in self.blocks.iter_from(from) {
                    if !take_room(room) {
                        return Cursor::Blocks(id);
                    }
                    put(ImageKey::Block(id), self.blocks.record(id).as_ref().map(owned));
                }
                Cursor::Operations(ClientId(0), 0)
            }
            Cursor::Operations(client, sequence) => {
                for record in self.operations.iter_from(client, sequence) {
                    if !take_room(room) {
                        return Cursor::Operations(record.client, record.sequence);
                    }
                    let key = ImageKey::Operation(record.client, record.sequence);
                    put(key, Some(ImageRecord::Operation(*record)));
                }
                Cursor::Epochs(Epoch::default())
            }
            Cursor::Epochs(from) => {
                for record in self.epochs.iter_from(from) {
                    if !take_room(room) {
                        return Cursor::Epochs(record.epoch);
                    }
                    put(ImageKey::Epoch(record.epoch), Some(ImageRecord::Epoch(*record)));
                }
                Cursor::Old(ImageKey::Meta)
            }
            Cursor::Old(after) => {
                let old: Vec<ImageKey> = snapshot.old_after(&after).take(*room).map(|(key, _)| key.clone()).collect();
                *room -= old.len();
                let last = old.last().cloned();
                old.into_iter().for_each(|key| put(key, None));
                last.map_or(Cursor::End, Cursor::Old)
            }
            Cursor::End => Cursor::End,
        }
    }

    /// Reads the edges of directories from `from` on, in that one those behind a name.
    fn read_edges(
        &self,
        from: INodeId,
        behind: Option<&str>,
        room: &mut usize,
        put: &mut impl FnMut(ImageKey, Option<ImageRecord>),
    ) -> Cursor {
        for (parent, inode) in self.namespace.iter_from(from) {
            let mut behind = behind.filter(|_| parent == from);
            // To look at an inode without children costs time as well.
            if !take_room(room) {
                return Cursor::Edges(parent, behind.map(Into::into));
            }
            let Some(children) = inode.children() else { continue };
            let after = behind.map_or(Bound::Unbounded, Bound::Excluded);
            for (name, child) in children.range::<str, _>((after, Bound::Unbounded)) {
                if !take_room(room) {
                    return Cursor::Edges(parent, behind.map(Into::into));
                }
                put(ImageKey::Edge(parent, name.clone()), Some(owned(&edge(parent, name, *child))));
                behind = Some(name);
            }
        }
        Cursor::Blocks(BlockId(0))
    }

    /// Takes at once all that `image` lacks, each key once, ascending. The image then stands at
    /// [`last_tx`](Self::last_tx) with [`digest`](Self::digest).
    pub fn take_changes(&mut self, image: ImageSlot) -> ImageChanges {
        self.begin_changes(image);
        let (mut changes, more) = self.next_changes(usize::MAX);
        assert!(!more, "no limit was set");
        changes.sort_by(|one, two| one.0.cmp(&two.0));
        changes.dedup_by(|one, two| one.0 == two.0);
        changes
    }

    /// Makes what `image` lacks be everything, for an image that was emptied or whose last part may not have arrived.
    pub fn reset_image(&mut self, image: ImageSlot) {
        self.ledger.reset(image);
    }

    /// The record of a key, as an image holds it.
    fn image_record(&self, key: &ImageKey) -> Option<ImageRecord> {
        Some(match key {
            ImageKey::Meta => ImageRecord::Meta(self.meta),
            ImageKey::INode(id) => owned(&self.namespace.record(*id)?),
            ImageKey::Edge(parent, name) => {
                let child = self.namespace.get(*parent).and_then(INode::children)?.get(name).copied()?;
                owned(&edge(*parent, name, child))
            }
            ImageKey::Block(id) => owned(&self.blocks.record(*id)?),
            ImageKey::Operation(client, sequence) => ImageRecord::Operation(*self.operations.get(*client, *sequence)?),
            ImageKey::Epoch(epoch) => ImageRecord::Epoch(*self.epochs.get(*epoch)?),
        })
    }
}

/// Takes a place if there is room.
fn take_room(room: &mut usize) -> bool {
    let had = *room > 0;
    *room = room.saturating_sub(1);
    had
}
