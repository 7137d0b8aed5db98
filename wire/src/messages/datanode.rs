//! The bulk streams of a datanode.
//!
//! # Writing
//!
//! The writer opens a stream with [`WriteBlock`]; the datanode opens the next one of the pipeline likewise and answers
//! [`WriteAck::Ready`] when all behind it are ready. Then packets flow down and acknowledgements up:
//!
//! ```text
//! down: frame(PacketHeader::Data { .. }) len_bytes raw bytes ... frame(PacketHeader::Finish { .. })
//! up:   frame(WriteAck::Ready) frame(WriteAck::Received { .. }) ... frame(WriteAck::Finished { .. })
//! ```
//!
//! `Received` says that this datanode and all behind it have taken the bytes up to that length; `Finished` says that
//! the replica is final on all of them and, unless the writer asked for less, on their disks. `Failed` names the member
//! that failed and ends the stream.
//!
//! # Reading
//!
//! The reader opens a stream with [`ReadBlock`]; the datanode answers one frame of [`ReadReply`], then the raw bytes of
//! the range, widened to whole leaves, and ends the stream. The reader checks that the leaves merge into the root that
//! the namenode gave and that the bytes hash to their leaves.

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockRoot, BlockToken, DatanodeLocation};
use crate::error::RemoteError;
use crate::ids::DatanodeId;
use crate::tree::Leaf;

/// What an acknowledged close means.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Durability {
    /// The replica is on disk on every datanode of the pipeline.
    #[default]
    Durable,
    /// Every datanode of the pipeline has the bytes; a simultaneous power cut may take them.
    Visible,
}

/// Opens a replica for writing on a datanode and on those behind it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WriteBlock {
    /// The block in the life that is written.
    pub block: Block,
    /// Fresh, or going on after a failure of the pipeline.
    pub stage: WriteStage,
    /// The datanodes behind the addressed one, next first.
    pub downstream: Vec<DatanodeLocation>,
    /// How much the block may hold at most.
    pub limit_bytes: u64,
    /// What `Finished` promises.
    pub durability: Durability,
    /// Allows all of it.
    pub token: BlockToken,
}

/// How a write of a replica begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WriteStage {
    /// An empty replica is made; it must not be there yet in this or a newer life.
    Create,
    /// A replica that is being written in an older life goes on in the new one from this length; what it has beyond is
    /// cut off, and one that is shorter refuses. A final replica is opened again.
    Resume {
        /// The length that every survivor has acknowledged.
        len_bytes: u64,
    },
}

/// What goes down a pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PacketHeader {
    /// `len_bytes` raw bytes follow this frame, to be written at `offset`.
    Data {
        /// Where in the block: always where the bytes before it end.
        offset: u64,
        /// How many follow; at most [`PACKET_LEN_BYTES`](crate::limits::PACKET_LEN_BYTES).
        len_bytes: u32,
        /// Their CRC32C, checked by every datanode.
        crc32c: u32,
    },
    /// The block is whole.
    Finish {
        /// Its length.
        len_bytes: u64,
        /// What it hashes to.
        root: BlockRoot,
        /// The leaves that merge into the root, stored beside the bytes.
        leaves: Vec<Leaf>,
    },
}

/// What comes up a pipeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WriteAck {
    /// This datanode and all behind it are ready for packets.
    Ready,
    /// This datanode and all behind it have the bytes up to this length.
    Received {
        /// How many bytes.
        len_bytes: u64,
    },
    /// The replica is final here and on all behind.
    Finished {
        /// The members that have it, this one first.
        replicas: Vec<DatanodeId>,
    },
    /// A member failed; the stream ends.
    Failed {
        /// Which.
        datanode: DatanodeId,
        /// Why.
        error: RemoteError,
    },
}

/// Opens a replica for reading.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReadBlock {
    /// The block in its life.
    pub block: Block,
    /// From where.
    pub offset: u64,
    /// How many bytes.
    pub len_bytes: u64,
    /// Whether the answer shall carry the leaves; not needed when the reader has them already.
    pub leaves: bool,
    /// Allows it.
    pub token: BlockToken,
}

/// What a datanode answers to [`ReadBlock`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReadReply {
    /// The bytes follow.
    Bytes {
        /// Where the bytes start: the range's start, rounded down to a leaf.
        offset: u64,
        /// How many follow: the range, widened to whole leaves, within the block.
        len_bytes: u64,
        /// The length of the whole block.
        block_len_bytes: u64,
        /// All leaves of the block, if they were asked for.
        leaves: Vec<Leaf>,
    },
    /// They do not.
    Refused(RemoteError),
}
