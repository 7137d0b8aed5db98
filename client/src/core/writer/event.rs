use std::sync::Arc;

use bytes::Bytes;
use situ_wire::block::{Block, CommittedBlock, LocatedBlock};
use situ_wire::error::ErrorCode;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::WriteStage;
use situ_wire::tree::Tree;

use crate::error::ClientError;

/// A block of the file, by its order from 0.
pub(crate) type Slot = u64;

/// One attempt at a pipeline for a block. What an earlier attempt still says does not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PipelineId {
    /// Of which block.
    pub(crate) slot: Slot,
    /// Which attempt.
    pub(crate) attempt: u32,
}

/// Bytes of a block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Packet {
    /// Where in the block.
    pub(crate) offset: u64,
    /// Which.
    pub(crate) bytes: Bytes,
    /// Their CRC32C.
    pub(crate) crc32c: u32,
}

impl Packet {
    /// Where in the block the next packet starts.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// The application wrote bytes, cut so that they lie within one block. Only while there is
    /// [room](super::FileWrite::has_room).
    Written {
        /// Which.
        bytes: Bytes,
        /// Their CRC32C.
        crc32c: u32,
    },
    /// The application writes no more.
    Close,
    /// The namenode has answered [`Effect::AddBlock`].
    Added {
        /// For which block.
        slot: Slot,
        /// The block and its pipeline.
        result: Result<LocatedBlock, ClientError>,
    },
    /// The namenode has answered [`Effect::AbandonBlock`].
    Abandoned {
        /// For which block.
        slot: Slot,
        /// Whether it is gone.
        result: Result<(), ClientError>,
    },
    /// The namenode has answered [`Effect::RecoverPipeline`].
    Recovered {
        /// For which block.
        slot: Slot,
        /// The block in its new life, with the survivors.
        result: Result<LocatedBlock, ClientError>,
    },
    /// The namenode has answered [`Effect::Complete`].
    Completed {
        /// Whether the file is closed.
        result: Result<(), ClientError>,
    },
    /// All members of a pipeline are ready for packets.
    Ready {
        /// Which pipeline.
        pipeline: PipelineId,
    },
    /// All members have the bytes up to this length.
    Received {
        /// Which pipeline.
        pipeline: PipelineId,
        /// How many.
        len_bytes: u64,
    },
    /// The replica is final on these.
    Finished {
        /// Which pipeline.
        pipeline: PipelineId,
        /// On whom.
        replicas: Vec<DatanodeId>,
    },
    /// A pipeline is broken.
    Broken {
        /// Which pipeline.
        pipeline: PipelineId,
        /// Who failed and with what, if a member said so.
        member: Option<(DatanodeId, ErrorCode)>,
        /// What is known.
        reason: String,
    },
    /// Bytes of a block are hashed, up to this length.
    Hashed {
        /// Of which block.
        slot: Slot,
        /// How many.
        len_bytes: u64,
    },
    /// All bytes of a block are hashed.
    Tree {
        /// Of which block.
        slot: Slot,
        /// What they hash to.
        tree: Arc<Tree>,
    },
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// Ask the namenode for a block. Answer with [`Event::Added`].
    AddBlock {
        /// For which block.
        slot: Slot,
        /// Earlier blocks that are final.
        committed: Vec<CommittedBlock>,
        /// Who failed lately.
        exclude: Vec<DatanodeId>,
    },
    /// Give a block back. Answer with [`Event::Abandoned`].
    AbandonBlock {
        /// Which.
        slot: Slot,
        /// In this life.
        block: Block,
    },
    /// Ask the namenode for a new life of a block. Answer with [`Event::Recovered`].
    RecoverPipeline {
        /// Which.
        slot: Slot,
        /// In its present life.
        block: Block,
        /// Who goes on.
        survivors: Vec<DatanodeId>,
    },
    /// Open a pipeline. Answer with [`Event::Ready`] or [`Event::Broken`].
    Open {
        /// Names it.
        pipeline: PipelineId,
        /// The block and its members.
        located: LocatedBlock,
        /// Fresh or going on.
        stage: WriteStage,
    },
    /// Send a packet, behind those before it.
    Send {
        /// Through which pipeline.
        pipeline: PipelineId,
        /// Which.
        packet: Packet,
    },
    /// Say that the block is whole, behind its packets.
    Finish {
        /// Through which pipeline.
        pipeline: PipelineId,
        /// What it hashes to.
        tree: Arc<Tree>,
    },
    /// Give a pipeline's stream up.
    Drop {
        /// Which pipeline.
        pipeline: PipelineId,
    },
    /// Hash bytes, behind those of the block before them. Answer with [`Event::Hashed`].
    Hash {
        /// Of which block.
        slot: Slot,
        /// Which.
        bytes: Bytes,
    },
    /// No more bytes of this block come. Answer with [`Event::Tree`].
    EndHash {
        /// Of which block.
        slot: Slot,
    },
    /// Close the file. Answer with [`Event::Completed`].
    Complete {
        /// Blocks that are final and not yet reported.
        committed: Vec<CommittedBlock>,
    },
    /// It is over: the file is closed and has so many bytes, or it failed.
    End {
        /// How.
        result: Result<u64, ClientError>,
    },
}
