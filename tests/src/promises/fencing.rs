//! Deleted data never comes back; no live block is deleted by a stale command.

use situ_wire::block::Block;
use situ_wire::ids::{BlockId, DatanodeId};

/// Something was deleted that should not have been, or came back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfenced {
    /// The last good replica of a block was deleted.
    #[error("{block}: datanode {datanode} deletes the last good replica of a block of {path}")]
    LastReplica {
        /// Of which file.
        path: String,
        /// Which block.
        block: Block,
        /// Where.
        datanode: DatanodeId,
    },
    /// A good replica was deleted that nobody wanted deleted in that life.
    #[error("{block}: datanode {datanode} deletes a good replica of a block of {path} that it was not told to delete")]
    Unordered {
        /// Of which file.
        path: String,
        /// Which block.
        block: Block,
        /// Where.
        datanode: DatanodeId,
    },
    /// A block of a file that was deleted is in the namespace again.
    #[error("{block} was deleted with its file and is back in {path}")]
    Resurrected {
        /// In which file.
        path: String,
        /// Which block.
        block: BlockId,
    },
    /// A replica that is not good counts as good.
    #[error("{block}: the namenode counts the replica of datanode {datanode}, which is not a good one")]
    Counted {
        /// Which block.
        block: Block,
        /// Where.
        datanode: DatanodeId,
    },
}

/// Checks that a datanode may delete a good replica of a block that a file still has: when `others` more good replicas
/// are there, and it was `ordered` to delete this one in this life.
///
/// # Errors
/// When it is the last one, or nobody wanted it deleted.
pub fn check_deletion(
    path: &str,
    block: Block,
    datanode: DatanodeId,
    others: usize,
    ordered: bool,
) -> Result<(), Unfenced> {
    let path = path.to_owned();
    if others == 0 {
        Err(Unfenced::LastReplica { path, block, datanode })
    } else if !ordered {
        Err(Unfenced::Unordered { path, block, datanode })
    } else {
        Ok(())
    }
}
