//! What the model holds.

use situ_wire::block::{Block, BlockRoot};
use situ_wire::ids::{BlockId, ClientId, GenerationStamp, INodeId};
use situ_wire::messages::namenode::FileKind;

/// What stands at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A directory.
    Directory {
        /// Its id.
        inode: INodeId,
    },
    /// A file.
    File(FileEntry),
}

/// A file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileEntry {
    /// Its id.
    pub inode: INodeId,
    /// How many replicas its blocks shall have.
    pub replication: u16,
    /// How long its blocks are.
    pub block_len_bytes: u64,
    /// Who writes it, while it is open.
    pub writer: Option<ClientId>,
    /// Its blocks, in order.
    pub blocks: Vec<BlockEntry>,
}

/// A block of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockEntry {
    /// Which.
    pub id: BlockId,
    /// Its present life.
    pub generation: GenerationStamp,
    /// Its length and root, once it is committed.
    pub committed: Option<(u64, BlockRoot)>,
}

impl BlockEntry {
    /// The block in its present life.
    #[must_use]
    pub fn block(&self) -> Block {
        Block { id: self.id, generation: self.generation }
    }
}

impl FileEntry {
    /// The blocks that a reader may see: those before the first that is not committed.
    #[must_use]
    pub fn final_blocks(&self) -> &[BlockEntry] {
        let first = self.blocks.iter().position(|block| block.committed.is_none());
        &self.blocks[..first.unwrap_or(self.blocks.len())]
    }

    /// How many bytes a reader may see.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.final_blocks().iter().filter_map(|block| block.committed).map(|(len_bytes, _)| len_bytes).sum()
    }

    pub(super) fn block_mut(&mut self, id: BlockId) -> Option<&mut BlockEntry> {
        self.blocks.iter_mut().find(|block| block.id == id)
    }
}

impl Entry {
    /// Its id.
    #[must_use]
    pub fn inode(&self) -> INodeId {
        match self {
            Self::Directory { inode } => *inode,
            Self::File(file) => file.inode,
        }
    }

    /// The file, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&FileEntry> {
        match self {
            Self::File(file) => Some(file),
            Self::Directory { .. } => None,
        }
    }

    /// Its kind, as a status says it.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        match self {
            Self::Directory { .. } => FileKind::Directory,
            Self::File(file) => FileKind::File {
                len_bytes: file.len_bytes(),
                replication: file.replication,
                block_len_bytes: file.block_len_bytes,
                open: file.writer.is_some(),
            },
        }
    }
}
