//! A snapshot of the namespace that is read in slices while the namespace goes on.
//!
//! Nothing is copied when it begins. A record that changes or goes while the snapshot is read is kept as it was; what is
//! newer than the snapshot shows by its id, which is beyond the counters of then, or by its transaction.

use std::collections::{BTreeMap, VecDeque};

use situ_wire::ids::{BlockId, ClientId, INodeId, TxId};

use super::changes::{Segment, key_of};
use super::digest::RecordRef;
use super::epochs::Epoch;
use super::image::{
    BlockRecord, EdgeRecord, INodeKind, INodeRecord, ImageKey, ImageRecord, ImageSlot, MetaRecord, WriterRecord,
};

/// A snapshot that is being read.
#[derive(Debug)]
pub(super) struct Snapshot {
    image: ImageSlot,
    pub(super) meta: MetaRecord,
    tx: TxId,
    pub(super) source: Source,
    /// Records that changed since, as they were; none for those that were not there.
    old: BTreeMap<ImageKey, Option<ImageRecord>>,
}

/// Which records are read.
#[derive(Debug)]
pub(super) enum Source {
    /// Those of these keys.
    Keys {
        /// The keys.
        segments: VecDeque<Segment>,
        /// How far the first segment is read.
        at: usize,
    },
    /// All, one kind after the other.
    All(Cursor),
}

/// How far a reading of all records has come: up to the next of its kind.
#[derive(Debug, Clone)]
pub(super) enum Cursor {
    Meta,
    INodes(INodeId),
    /// In this directory, behind this name.
    Edges(INodeId, Option<Box<str>>),
    Blocks(BlockId),
    Operations(ClientId, u64),
    Epochs(Epoch),
    /// Records that went while the others were read, after this key.
    Old(ImageKey),
    End,
}

impl Source {
    pub(super) fn everything() -> Self {
        Self::All(Cursor::Meta)
    }
}

impl Snapshot {
    pub(super) fn new(image: ImageSlot, meta: MetaRecord, tx: TxId, source: Source) -> Self {
        Self { image, meta, tx, source, old: BTreeMap::new() }
    }

    pub(super) fn image(&self) -> ImageSlot {
        self.image
    }

    /// Whether a record may be as old as the snapshot.
    fn is_old<S, P>(&self, record: &ImageRecord<S, P>) -> bool {
        match record {
            ImageRecord::Meta(_) => true,
            ImageRecord::INode(inode) => inode.id < self.meta.next_inode,
            ImageRecord::Edge(edge) => edge.child < self.meta.next_inode,
            ImageRecord::Block(block) => block.id < self.meta.next_block,
            ImageRecord::Operation(operation) => operation.tx <= self.tx,
            // Those that end later are of the present one then, or of one that was not there.
            ImageRecord::Epoch(epoch) => epoch.epoch < self.meta.epoch(),
        }
    }

    /// Keeps a record that goes or changes, as it was.
    pub(super) fn goes(&mut self, record: &RecordRef<'_>) {
        if self.is_old(record) {
            self.old.entry(key_of(record)).or_insert_with(|| Some(owned(record)));
        }
    }

    /// Notes that a record was not there; one that changed has gone before.
    pub(super) fn comes(&mut self, record: &RecordRef<'_>) {
        if self.is_old(record) {
            self.old.entry(key_of(record)).or_insert(None);
        }
    }

    /// A record as it was, if `now` it is so.
    pub(super) fn as_it_was(&self, key: &ImageKey, now: Option<ImageRecord>) -> Option<ImageRecord> {
        match (key, self.old.get(key)) {
            (ImageKey::Meta, _) => Some(ImageRecord::Meta(self.meta)),
            (_, Some(old)) => old.clone(),
            (_, None) => now.filter(|record| self.is_old(record)),
        }
    }

    /// Records that went or changed since, after a key.
    pub(super) fn old_after(&self, key: &ImageKey) -> impl Iterator<Item = (&ImageKey, &ImageRecord)> {
        let after = (std::ops::Bound::Excluded(key), std::ops::Bound::Unbounded);
        self.old.range::<ImageKey, _>(after).filter_map(|(key, old)| Some((key, old.as_ref()?)))
    }
}

/// A record that owns what it holds.
pub(super) fn owned(record: &RecordRef<'_>) -> ImageRecord {
    match record {
        ImageRecord::Meta(meta) => ImageRecord::Meta(*meta),
        ImageRecord::INode(INodeRecord { id, owner, group, mode, modified, kind }) => {
            let kind = match kind {
                INodeKind::Directory => INodeKind::Directory,
                INodeKind::File { replication, block_len_bytes, writer } => INodeKind::File {
                    replication: *replication,
                    block_len_bytes: *block_len_bytes,
                    writer: writer
                        .as_ref()
                        .map(|writer| WriterRecord { client: writer.client, user: writer.user.into() }),
                },
            };
            ImageRecord::INode(INodeRecord {
                id: *id,
                owner: (*owner).into(),
                group: (*group).into(),
                mode: *mode,
                modified: *modified,
                kind,
            })
        }
        ImageRecord::Edge(EdgeRecord { parent, name, child }) => {
            ImageRecord::Edge(EdgeRecord { parent: *parent, name: (*name).into(), child: *child })
        }
        ImageRecord::Block(BlockRecord { id, generation, inode, len_bytes, root, pipeline }) => {
            ImageRecord::Block(BlockRecord {
                id: *id,
                generation: *generation,
                inode: *inode,
                len_bytes: *len_bytes,
                root: *root,
                pipeline: pipeline.to_vec(),
            })
        }
        ImageRecord::Operation(record) => ImageRecord::Operation(*record),
        ImageRecord::Epoch(record) => ImageRecord::Epoch(*record),
    }
}
