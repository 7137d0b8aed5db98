//! Edits: what the journal holds.
//!
//! An edit names inodes and blocks by id and carries every decision: ids, generation stamps, times, owners, pipelines.
//! [`apply`](super::Namesystem::apply) uses nothing else.

use serde::{Deserialize, Serialize};
use situ_wire::block::{Block, CommittedBlock};
use situ_wire::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, INodeId, OperationId};
use situ_wire::time::WallTime;

use super::epochs::Epoch;

/// One record of the journal. Its variants are the changelog of the format: never renumber, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Edit {
    /// The first version.
    V1(EditV1),
}

/// One change of the namespace, in the first version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EditV1 {
    /// When it was decided, by the wall clock: what files' times come from. Nothing else does.
    pub time: WallTime,
    /// Which client's operation it is; none for what the namenode decides by itself.
    pub operation: Option<OperationId>,
    /// What changes.
    pub change: Change,
}

/// A directory that is made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewDirectory {
    /// Its id.
    pub inode: INodeId,
    /// The directory that holds it.
    pub parent: INodeId,
    /// Its name there.
    pub name: String,
    /// Who owns it.
    pub owner: String,
    /// Its group.
    pub group: String,
    /// Its permission bits.
    pub mode: u16,
}

/// A file that is made.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NewFile {
    /// Its id.
    pub inode: INodeId,
    /// The directory that holds it.
    pub parent: INodeId,
    /// Its name there.
    pub name: String,
    /// Who owns it.
    pub owner: String,
    /// Its group.
    pub group: String,
    /// Its permission bits.
    pub mode: u16,
    /// How many replicas its blocks shall have.
    pub replication: u16,
    /// How long its blocks are.
    pub block_len_bytes: u64,
    /// The client that writes it; none for a file that is made closed.
    pub writer: Option<ClientId>,
    /// What stood at its place and goes.
    pub replaced: Option<INodeId>,
}

/// A name in a directory and what it stands for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Edge {
    /// The directory.
    pub parent: INodeId,
    /// The name.
    pub name: String,
    /// What it stands for.
    pub child: INodeId,
}

/// A file or directory that changes its place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Move {
    /// Where it stood.
    pub from: Edge,
    /// The directory that takes it.
    pub parent: INodeId,
    /// Its name there.
    pub name: String,
    /// What stood at its place and goes.
    pub replaced: Option<INodeId>,
}

/// What changes. On disk as its number: never renumber, never reuse.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Change {
    /// Directories are made, parents first.
    Mkdir {
        /// Which; none if the directory was there already.
        directories: Vec<NewDirectory>,
    },
    /// A file is made and opened.
    Create {
        /// Missing parents, topmost first.
        directories: Vec<NewDirectory>,
        /// The file.
        file: NewFile,
    },
    /// A block joins an open file.
    AddBlock {
        /// The file.
        inode: INodeId,
        /// Earlier blocks that are final now.
        committed: Vec<CommittedBlock>,
        /// The new block in its first life.
        block: Block,
        /// Who shall hold it.
        pipeline: Vec<DatanodeId>,
    },
    /// An unfinished block leaves its open file.
    AbandonBlock {
        /// The file.
        inode: INodeId,
        /// The block.
        block: BlockId,
    },
    /// An unfinished block begins a new life on the survivors of its pipeline.
    RecoverPipeline {
        /// The file.
        inode: INodeId,
        /// The block.
        block: BlockId,
        /// Its new life.
        generation: GenerationStamp,
        /// The survivors.
        pipeline: Vec<DatanodeId>,
    },
    /// An open file is closed by its writer.
    Complete {
        /// The file.
        inode: INodeId,
        /// Blocks that are final now; with them all are.
        committed: Vec<CommittedBlock>,
    },
    /// A file or directory moves.
    Rename {
        /// From where to where.
        moved: Move,
    },
    /// A file or a directory with all that it holds goes.
    Delete {
        /// Which; none if nothing was there.
        removed: Option<Edge>,
    },
    /// A job's output appears.
    Publish {
        /// What moves, in this order.
        moves: Vec<Move>,
        /// What goes then.
        removed: Option<Edge>,
    },
    /// A file that its writer left is closed; blocks that were never committed are dropped.
    RecoverFile {
        /// The file.
        inode: INodeId,
        /// The blocks that are dropped.
        dropped: Vec<BlockId>,
    },
    /// Clients that have been silent for long: what they were answered is forgotten.
    ForgetClients {
        /// Which.
        clients: Vec<ClientId>,
    },
    /// From here on ids and generation stamps are those of an epoch.
    BeginEpoch {
        /// Which; later than all before.
        epoch: Epoch,
    },
}
