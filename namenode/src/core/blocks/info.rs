//! A block in memory.

use situ_wire::block::{Block, BlockRoot};
use situ_wire::ids::{BlockId, DatanodeId, GenerationStamp, INodeId};

use crate::core::datanodes::{DatanodeIndex, StorageIndex};

/// A block in memory.
///
/// ```text
/// UnderConstruction --commit--> Committed --a datanode confirms--> Complete
///        |                                                            |
///        +-- abandoned, or never committed when its writer is gone ---+-- its file is deleted --> gone
/// ```
///
/// Under construction it is in [`Building`] as well and has no root. Committed and Complete differ only in soft state:
/// whether a datanode itself has reported a replica, or the writer alone has told of them.
#[derive(Debug)]
pub(crate) struct BlockInfo {
    pub(crate) generation: GenerationStamp,
    pub(crate) inode: INodeId,
    pub(crate) len_bytes: u64,
    /// Where good replicas are: at most one a datanode.
    pub(crate) locations: Locations,
    /// All zeros while it is under construction.
    pub(crate) root: BlockRoot,
    pub(crate) replication: u16,
    pub(crate) committed: bool,
    /// The level of low redundancy that it waits at.
    pub(crate) level: Option<u8>,
}

impl BlockInfo {
    pub(crate) fn block(&self, id: BlockId) -> Block {
        Block { id, generation: self.generation }
    }
}

/// What is known about a block only while it is under construction.
#[derive(Debug, Default)]
pub(crate) struct Building {
    /// Who shall hold it, in the order of the pipeline.
    pub(crate) pipeline: Vec<DatanodeId>,
    /// Final replicas that datanodes have reported already; at most one a datanode.
    pub(crate) received: Vec<Received>,
    /// Replicas that their own datanodes have found to be damaged; at most one a datanode.
    pub(crate) damaged: Vec<Damaged>,
}

/// A replica of a block that is not committed yet whose datanode keeps it aside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Damaged {
    pub(crate) datanode: DatanodeIndex,
    pub(crate) generation: GenerationStamp,
}

/// A final replica, in the present life, of a block that its writer has not committed yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Received {
    pub(crate) storage: StorageIndex,
    pub(crate) len_bytes: u64,
}

/// A few storages; up to three without an allocation.
#[derive(Debug, Clone)]
pub(crate) enum Locations {
    Few(u8, [StorageIndex; 3]),
    #[expect(clippy::box_collection, reason = "a block takes 8 bytes less")]
    Many(Box<Vec<StorageIndex>>),
}

impl Default for Locations {
    fn default() -> Self {
        Self::Few(0, [StorageIndex(0); 3])
    }
}

impl Locations {
    pub(crate) fn as_slice(&self) -> &[StorageIndex] {
        match self {
            Self::Few(len, few) => &few[..usize::from(*len)],
            Self::Many(many) => many,
        }
    }

    pub(crate) fn push(&mut self, storage: StorageIndex) {
        match self {
            Self::Few(len, few) if usize::from(*len) < few.len() => {
                few[usize::from(*len)] = storage;
                *len += 1;
            }
            Self::Few(_, few) => {
                let mut many = few.to_vec();
                many.push(storage);
                *self = Self::Many(Box::new(many));
            }
            Self::Many(many) => many.push(storage),
        }
    }

    /// Takes a storage out; whether it was there.
    pub(crate) fn remove(&mut self, storage: StorageIndex) -> bool {
        let mut rest: Vec<StorageIndex> = self.as_slice().to_vec();
        let Some(at) = rest.iter().position(|other| *other == storage) else { return false };
        rest.remove(at);
        *self = Self::default();
        for storage in rest {
            self.push(storage);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_80_bytes() {
        assert_eq!(size_of::<BlockInfo>(), 80);
    }

    #[test]
    fn locations_grow_and_shrink_over_the_border() {
        let mut locations = Locations::default();
        for at in 0..5 {
            locations.push(StorageIndex(at));
        }
        assert!(locations.remove(StorageIndex(1)) && !locations.remove(StorageIndex(1)));
        assert!(locations.remove(StorageIndex(4)));
        assert_eq!(locations.as_slice(), [StorageIndex(0), StorageIndex(2), StorageIndex(3)]);
        assert!(matches!(locations, Locations::Few(3, _)));
    }
}
