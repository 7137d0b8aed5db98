//! Writing a block, on this datanode and those behind it.
//!
//! ```text
//!   upstream ==packets==> receive ==> forward ==packets==> downstream
//!                            |
//!                            +======> disk (a task of its own; its writes block elsewhere)
//!                                       |
//!   upstream <--acks-- acks <-- Progress <-- acks from downstream
//! ```
//!
//! All of it runs at once, with short queues in between: while one packet is on its way down, the one before is being
//! written and the next one comes in. Bytes are checked once and handed on as they came.
//!
//! Whatever happens, the disk task is waited for before the replica is given back to the owner: nobody goes on with a
//! replica that a write is still under way for.

mod acks;
mod disk;
mod downstream;
mod packets;
mod run;

pub(super) use downstream::Downstream;
pub(super) use run::write_block;

use situ_runtime::disk::DiskError;
use situ_runtime::rpc::RpcError;
use situ_wire::error::RemoteError;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::WriteAck;

/// How far a write has come.
#[derive(Clone, Debug)]
struct Progress {
    /// What is written here.
    written_bytes: u64,
    /// What was sent down.
    forwarded_bytes: u64,
    /// What all behind have; all there is if there is nobody.
    behind_bytes: u64,
    /// Whether the end of the block was sent down.
    finishing: bool,
    /// Set once: what the upstream is told last.
    end: Option<WriteAck>,
}

/// Why a write failed.
#[derive(Debug)]
enum Failure {
    /// A member of the pipeline failed: the upstream is told.
    Member(FailedMember),
    /// The upstream is gone: there is nobody to tell.
    Upstream(RpcError),
    /// The disk failed: the [`DiskEnd`] says how.
    Disk,
}

/// The member of a pipeline that failed, and why.
#[derive(Debug)]
pub(super) struct FailedMember {
    pub(super) datanode: DatanodeId,
    pub(super) error: RemoteError,
}

impl From<FailedMember> for Failure {
    fn from(member: FailedMember) -> Self {
        Self::Member(member)
    }
}

impl From<FailedMember> for WriteAck {
    fn from(FailedMember { datanode, error }: FailedMember) -> Self {
        Self::Failed { datanode, error }
    }
}

/// How the disk task ended.
#[derive(Debug)]
enum DiskEnd {
    /// The replica is final.
    Final {
        /// Its length.
        len_bytes: u64,
    },
    /// It is not.
    Open {
        /// Its length.
        len_bytes: u64,
    },
    /// The disk failed.
    Failed(DiskError),
}

/// How many packets wait between two steps at most.
const QUEUE_PACKETS: usize = 4;
