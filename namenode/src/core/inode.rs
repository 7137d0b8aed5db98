//! A file or directory in memory.

use std::collections::BTreeMap;

use situ_wire::ids::{BlockId, ClientId, INodeId};
use situ_wire::time::WallTime;

use super::names::NameId;

/// The children of a directory. A name is kept here alone, not in the child.
pub(super) type Children = BTreeMap<Box<str>, INodeId>;

/// A file or directory.
#[derive(Debug)]
pub(super) struct INode {
    /// The directory that holds it; for the root itself.
    pub(super) parent: INodeId,
    pub(super) modified: WallTime,
    pub(super) owner: NameId,
    pub(super) group: NameId,
    pub(super) mode: u16,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Directory(Box<Children>),
    File(File),
}

#[derive(Debug)]
pub(super) struct File {
    pub(super) replication: u16,
    pub(super) block_len: BlockLen,
    pub(super) blocks: FileBlocks,
    /// Who writes it, while it is open.
    pub(super) writer: Option<Box<Writer>>,
}

/// The writer of an open file.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) client: ClientId,
    pub(super) user: NameId,
    /// Its blocks that are not committed yet, ascending.
    pub(super) uncommitted: Vec<BlockId>,
}

/// A block size from 1 byte to 4 GiB in four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BlockLen(u32);

impl BlockLen {
    pub(super) fn new(len_bytes: u64) -> Option<Self> {
        u32::try_from(len_bytes.checked_sub(1)?).ok().map(Self)
    }

    pub(super) fn bytes(self) -> u64 {
        u64::from(self.0) + 1
    }
}

/// The blocks of a file, ascending, which is their order in the file. Most files have one.
// The box keeps the common cases at two words.
#[expect(clippy::box_collection, reason = "a file takes 8 bytes less")]
#[derive(Debug, Default)]
pub(super) enum FileBlocks {
    #[default]
    None,
    One(BlockId),
    Many(Box<Vec<BlockId>>),
}

impl FileBlocks {
    pub(super) fn as_slice(&self) -> &[BlockId] {
        match self {
            Self::None => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(blocks) => blocks,
        }
    }

    pub(super) fn push(&mut self, block: BlockId) {
        debug_assert!(self.as_slice().last().is_none_or(|last| *last < block), "blocks ascend");
        match self {
            Self::None => *self = Self::One(block),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, block])),
            Self::Many(blocks) => blocks.push(block),
        }
    }

    /// Takes the last one out.
    pub(super) fn pop(&mut self) {
        match self {
            Self::None | Self::One(_) => *self = Self::None,
            Self::Many(blocks) => {
                blocks.pop();
                if let [only] = blocks[..] {
                    *self = Self::One(only);
                }
            }
        }
    }
}

impl INode {
    pub(super) fn file(&self) -> Option<&File> {
        match &self.content {
            Content::File(file) => Some(file),
            Content::Directory(_) => None,
        }
    }

    pub(super) fn file_mut(&mut self) -> Option<&mut File> {
        match &mut self.content {
            Content::File(file) => Some(file),
            Content::Directory(_) => None,
        }
    }

    pub(super) fn children(&self) -> Option<&Children> {
        match &self.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }

    pub(super) fn children_mut(&mut self) -> Option<&mut Children> {
        match &mut self.content {
            Content::Directory(children) => Some(children),
            Content::File(_) => None,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.content, Content::Directory(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_takes_64_bytes() {
        assert_eq!(size_of::<INode>(), 64);
    }

    #[test]
    fn blocks_come_and_go_at_the_end() {
        let mut blocks = FileBlocks::default();
        let ids = [1, 2, 3].map(BlockId);
        ids.into_iter().for_each(|id| blocks.push(id));
        for left in (0..3).rev() {
            blocks.pop();
            assert_eq!(blocks.as_slice(), &ids[..left]);
        }
        blocks.pop();
        assert!(matches!(blocks, FileBlocks::None));
    }

    #[test]
    fn block_sizes_reach_from_one_byte_to_four_gibibytes() {
        assert_eq!(BlockLen::new(0), None);
        assert_eq!(BlockLen::new(1).map(BlockLen::bytes), Some(1));
        assert_eq!(BlockLen::new(4 << 30).map(BlockLen::bytes), Some(4 << 30));
        assert_eq!(BlockLen::new((4 << 30) + 1), None);
    }
}
