//! One volume of a datanode.

use std::collections::BTreeMap;

use situ_wire::ids::{BlockId, GenerationStamp, StorageId};

use super::manager::DatanodeIndex;
use crate::core::sparse::IdSet;

/// A volume, by its place in the manager. Means nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StorageIndex(pub(crate) u32);

/// One volume of a datanode; or the place of the replicas of which it is not yet known on which volume they are,
/// because the writer alone has told of them.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) datanode: DatanodeIndex,
    /// Which volume; none for replicas that only a writer has told of.
    pub(crate) id: Option<StorageId>,
    /// The blocks of which it has a replica, good or not.
    pub(crate) blocks: IdSet,
    /// Replicas of blocks, or of lives of blocks, that this namespace never gave out. Nothing is done about them.
    pub(crate) unknown: BTreeMap<BlockId, GenerationStamp>,
    /// Whether its content is unknown: no full report has come since it (or the namenode) started. As long as a
    /// replica of a block is on such a storage, none of the block's replicas is deleted: the same deletion may have
    /// been ordered already, elsewhere, before.
    pub(crate) stale: bool,
    pub(crate) failed: bool,
    /// How far its full report has come.
    pub(crate) report: Option<ReportProgress>,
}

/// A full report that comes in slices.
#[derive(Debug)]
pub(crate) struct ReportProgress {
    pub(crate) next_slice: u32,
    /// The last block that was reported.
    pub(crate) last: Option<BlockId>,
    /// Blocks that arrived since the report began: it need not hold them.
    pub(crate) recent: IdSet,
}

impl Storage {
    pub(crate) fn new(datanode: DatanodeIndex, id: Option<StorageId>) -> Self {
        let stale = id.is_some();
        Self { datanode, id, blocks: IdSet::default(), unknown: BTreeMap::new(), stale, failed: false, report: None }
    }

    /// Whether the datanode itself has reported what is here.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.id.is_some()
    }
}
