//! After faults end, every block returns to its target replication, worst off first, within a bound and without
//! starving clients.

use situ_wire::block::Block;
use situ_wire::ids::DatanodeId;
use situ_wire::path::DfsPath;

/// What has not come about within the bound after faults ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// The namenode does not leave safe mode.
    #[error("still in safe mode after {waited_ms} ms: {reason}")]
    SafeMode {
        /// For how long faults have been over.
        waited_ms: u64,
        /// What the namenode says.
        reason: String,
    },
    /// A file whose writer is gone is still open.
    #[error("{path} is still open after {waited_ms} ms")]
    Open {
        /// For how long faults have been over.
        waited_ms: u64,
        /// Which file.
        path: String,
    },
    /// A block has too few good replicas, or too many.
    #[error("{block} of {path} has {found} good replicas after {waited_ms} ms; expected {expected}")]
    Replicas {
        /// For how long faults have been over.
        waited_ms: u64,
        /// Of which file.
        path: String,
        /// Which block.
        block: Block,
        /// How many there are.
        found: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A replica of a block that is gone, or in a life that is over, still takes room.
    #[error("datanode {datanode} still holds {block} after {waited_ms} ms, which no file has")]
    Leftover {
        /// For how long faults have been over.
        waited_ms: u64,
        /// Where.
        datanode: DatanodeId,
        /// Which block.
        block: Block,
    },
    /// A datanode that is up is not counted as live.
    #[error("datanode {datanode} is up but not live after {waited_ms} ms")]
    NotLive {
        /// For how long faults have been over.
        waited_ms: u64,
        /// Which.
        datanode: DatanodeId,
    },
    /// A client has not been answered.
    #[error("a client still waits after {waited_ms} ms: {request}")]
    Unanswered {
        /// For how long faults have been over.
        waited_ms: u64,
        /// For what.
        request: String,
    },
    /// All is as it should be, and yet datanodes are told to copy or delete.
    #[error("all is settled, and yet the namenode gave {commands} commands within {window_ms} ms, the last: {last}")]
    Storm {
        /// Within which time.
        window_ms: u64,
        /// How many.
        commands: u64,
        /// The last of them.
        last: String,
    },
    /// What a path holds cannot be looked up.
    #[error("{path} cannot be looked up although all is settled: {reason}")]
    Unreachable {
        /// Which path.
        path: DfsPath,
        /// What the namenode says.
        reason: String,
    },
}
