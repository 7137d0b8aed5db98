//! What a checkpoint holds: one record a thing, each of which stands for itself.
//!
//! A directory's children and a file's blocks are not lists in one record but records of their own ([`EdgeRecord`],
//! [`BlockRecord`]), so that no change ever rewrites a large record.

use serde::{Deserialize, Serialize};
use situ_wire::block::BlockRoot;
use situ_wire::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, INodeId, TxId};
use situ_wire::time::WallTime;

use super::digest::RecordRef;
use super::epochs::Epoch;

/// Which of the two images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ImageSlot {
    /// The first.
    A,
    /// The second.
    B,
}

/// Names a record within an image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ImageKey {
    /// The only [`MetaRecord`].
    Meta,
    /// An inode.
    INode(INodeId),
    /// A name in a directory.
    Edge(INodeId, Box<str>),
    /// A block.
    Block(BlockId),
    /// An operation of a client.
    Operation(ClientId, u64),
    /// An epoch that is over.
    Epoch(Epoch),
}

/// One thing of the namespace. Generic over who holds its texts and lists, so that it can be hashed in place. On disk as
/// its number: never renumber, never reuse; a changed record gets a new variant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ImageRecord<S = Box<str>, P = Vec<DatanodeId>> {
    /// The counters.
    Meta(MetaRecord),
    /// A file or directory.
    INode(INodeRecord<S>),
    /// A name in a directory.
    Edge(EdgeRecord<S>),
    /// A block of a file.
    Block(BlockRecord<P>),
    /// What a client was answered.
    Operation(OperationRecord),
    /// An epoch that is over.
    Epoch(EpochRecord),
}

impl ImageRecord {
    /// What names this record.
    #[must_use]
    pub fn key(&self) -> ImageKey {
        match self {
            Self::Meta(_) => ImageKey::Meta,
            Self::INode(inode) => ImageKey::INode(inode.id),
            Self::Edge(edge) => ImageKey::Edge(edge.parent, edge.name.clone()),
            Self::Block(block) => ImageKey::Block(block.id),
            Self::Operation(operation) => ImageKey::Operation(operation.client, operation.sequence),
            Self::Epoch(epoch) => ImageKey::Epoch(epoch.epoch),
        }
    }

    /// The record as it is hashed.
    pub(super) fn borrowed(&self) -> RecordRef<'_> {
        match self {
            Self::Meta(meta) => ImageRecord::Meta(*meta),
            Self::INode(INodeRecord { id, owner, group, mode, modified, kind }) => {
                let kind = match kind {
                    INodeKind::Directory => INodeKind::Directory,
                    INodeKind::File { replication, block_len_bytes, writer } => INodeKind::File {
                        replication: *replication,
                        block_len_bytes: *block_len_bytes,
                        writer: writer
                            .as_ref()
                            .map(|WriterRecord { client, user }| WriterRecord { client: *client, user: &**user }),
                    },
                };
                ImageRecord::INode(INodeRecord { id: *id, owner, group, mode: *mode, modified: *modified, kind })
            }
            Self::Edge(EdgeRecord { parent, name, child }) => {
                ImageRecord::Edge(EdgeRecord { parent: *parent, name, child: *child })
            }
            Self::Block(BlockRecord { id, generation, inode, len_bytes, root, pipeline }) => {
                ImageRecord::Block(BlockRecord {
                    id: *id,
                    generation: *generation,
                    inode: *inode,
                    len_bytes: *len_bytes,
                    root: *root,
                    pipeline,
                })
            }
            Self::Operation(operation) => ImageRecord::Operation(*operation),
            Self::Epoch(epoch) => ImageRecord::Epoch(*epoch),
        }
    }
}

/// The counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MetaRecord {
    /// The id of the next file or directory.
    pub next_inode: INodeId,
    /// The id of the next block.
    pub next_block: BlockId,
    /// The next generation stamp.
    pub next_generation: GenerationStamp,
}

/// A file or directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct INodeRecord<S = Box<str>> {
    /// Its id.
    pub id: INodeId,
    /// Who owns it.
    pub owner: S,
    /// Its group.
    pub group: S,
    /// Its permission bits.
    pub mode: u16,
    /// When its content last changed.
    pub modified: WallTime,
    /// What only a file or only a directory has.
    pub kind: INodeKind<S>,
}

/// What only a file or only a directory has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum INodeKind<S = Box<str>> {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// How many replicas its blocks shall have.
        replication: u16,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// Who writes it, while it is open.
        writer: Option<WriterRecord<S>>,
    },
}

/// Who writes an open file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriterRecord<S = Box<str>> {
    /// The client that holds the lease.
    pub client: ClientId,
    /// Its user.
    pub user: S,
}

/// A name in a directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EdgeRecord<S = Box<str>> {
    /// The directory.
    pub parent: INodeId,
    /// The name.
    pub name: S,
    /// What it stands for.
    pub child: INodeId,
}

/// A block of a file. The blocks of a file are in the order of their ids.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockRecord<P = Vec<DatanodeId>> {
    /// Which block.
    pub id: BlockId,
    /// In which life.
    pub generation: GenerationStamp,
    /// The file.
    pub inode: INodeId,
    /// How many bytes it holds; 0 while it is being written.
    pub len_bytes: u64,
    /// What they hash to; none while it is being written.
    pub root: Option<BlockRoot>,
    /// Who shall hold it; empty once it is committed.
    pub pipeline: P,
}

/// What a client was answered, for a retry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperationRecord {
    /// Which client.
    pub client: ClientId,
    /// Which of its operations.
    pub sequence: u64,
    /// The transaction that carried it out.
    pub tx: TxId,
    /// When that was.
    pub time: WallTime,
    /// What came of it.
    pub outcome: Outcome,
}

/// An epoch that is over: what it gave out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Which.
    pub epoch: Epoch,
    /// The first block id that it did not give out.
    pub next_block: BlockId,
    /// The first generation stamp that it did not give out.
    pub next_generation: GenerationStamp,
}

/// What came of an operation: as much as the answer needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// It was done.
    Done,
    /// A file was made.
    Created {
        /// Its id.
        inode: INodeId,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// How many replicas they shall have.
        replication: u16,
    },
    /// A block was added or given a new life.
    Block {
        /// Which.
        block: BlockId,
    },
    /// Something was deleted, or nothing was there.
    Deleted(bool),
}
