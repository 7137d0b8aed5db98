//! The calls that a namenode answers: to clients ([`Request`]) and to datanodes (its variants that start with
//! `Datanode`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::block::{Block, BlockToken, BlockTokenKey, CommittedBlock, DatanodeLocation, LocatedBlock};
use crate::ids::{ClientId, ClusterId, DatanodeId, INodeId, NodeName, OperationId, RackName, StorageId, TxId};
use crate::path::DfsPath;
use crate::time::{TimeMs, WallTime};

/// A call to the namenode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Makes a directory. Answer: [`Response::Done`].
    Mkdir {
        /// Which.
        path: DfsPath,
        /// Whether missing parents are made too and an existing directory is fine.
        parents: bool,
        /// Its permission bits.
        mode: u16,
        /// Names the operation, so that a retry is applied once.
        operation: OperationId,
    },
    /// Makes an empty file, open for its client. Answer: [`Response::Created`].
    Create {
        /// Which.
        path: DfsPath,
        /// Whether an existing file is replaced.
        overwrite: bool,
        /// Whether missing parent directories are made.
        parents: bool,
        /// How many replicas its blocks shall have.
        replication: u16,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// Its permission bits.
        mode: u16,
        /// Names the operation; its client becomes the holder of the lease.
        operation: OperationId,
    },
    /// Adds a block to an open file. Blocks written earlier may be reported final with it. Answer: [`Response::Block`].
    AddBlock {
        /// The open file.
        inode: INodeId,
        /// Earlier blocks that are final since the last call.
        committed: Vec<CommittedBlock>,
        /// Datanodes that the client could not write to.
        exclude: Vec<DatanodeId>,
        /// The client's own node, where the first replica goes if it has a datanode.
        node: Option<NodeName>,
        /// Names the operation.
        operation: OperationId,
    },
    /// Gives an unfinished block back, because nothing of it could be written. Answer: [`Response::Done`].
    AbandonBlock {
        /// The open file.
        inode: INodeId,
        /// The block.
        block: Block,
        /// Names the operation.
        operation: OperationId,
    },
    /// Asks for a new generation stamp after members of the pipeline failed; from then on only the survivors' replicas
    /// count. Answer: [`Response::Block`] with the survivors as its pipeline.
    RecoverPipeline {
        /// The open file.
        inode: INodeId,
        /// The block in its present life.
        block: Block,
        /// The datanodes that go on.
        survivors: Vec<DatanodeId>,
        /// Names the operation.
        operation: OperationId,
    },
    /// Closes an open file. Answer: [`Response::Done`].
    Complete {
        /// The open file.
        inode: INodeId,
        /// Blocks that are final since the last call; with them all blocks of the file are.
        committed: Vec<CommittedBlock>,
        /// Names the operation.
        operation: OperationId,
    },
    /// Keeps all leases of a client alive. Answer: [`Response::Done`].
    RenewLease {
        /// Whose.
        client: ClientId,
    },
    /// What is at a path. Answer: [`Response::Status`], of none if nothing is there.
    Stat {
        /// Which.
        path: DfsPath,
    },
    /// What is at many paths. Answer: [`Response::Statuses`] in the same order.
    StatMany {
        /// Which.
        paths: Vec<DfsPath>,
    },
    /// What a directory holds, by name; of a file, itself. Answer: [`Response::Listing`].
    List {
        /// Which.
        path: DfsPath,
        /// Go on after this name.
        after: Option<String>,
        /// At most so many entries.
        limit: u32,
    },
    /// The blocks of a file. Answer: [`Response::Blocks`].
    Blocks {
        /// Which.
        path: DfsPath,
        /// From the block that holds this offset on.
        offset: u64,
        /// For so many bytes.
        len_bytes: u64,
        /// The asking node, for which replicas are sorted.
        node: Option<NodeName>,
        /// For whom the tokens are.
        client: ClientId,
    },
    /// Moves a file or directory. Answer: [`Response::Done`].
    Rename {
        /// What.
        from: DfsPath,
        /// To where: the new path itself, never a directory to move into.
        to: DfsPath,
        /// Whether an existing file at the target is replaced, in the same step.
        overwrite: bool,
        /// Names the operation.
        operation: OperationId,
    },
    /// Deletes a file or directory. Answer: [`Response::Deleted`].
    Delete {
        /// Which.
        path: DfsPath,
        /// Whether a directory goes with all that it holds.
        recursive: bool,
        /// Names the operation.
        operation: OperationId,
    },
    /// Publishes a job's output in one step: all moves happen, and `remove` goes; or nothing happens. Answer:
    /// [`Response::Done`].
    Publish {
        /// From where to where.
        moves: Vec<(DfsPath, DfsPath)>,
        /// What goes with all that it still holds.
        remove: DfsPath,
        /// Names the operation.
        operation: OperationId,
    },
    /// Sums up what lies below a path. Answer: [`Response::Summary`].
    Summary {
        /// Which.
        path: DfsPath,
    },
    /// The state of the cluster. Answer: [`Response::Report`].
    Report,
    /// The health of the files below a path, a page at a time. Answer: [`Response::Health`].
    Fsck {
        /// Which.
        path: DfsPath,
        /// Go on after this path.
        after: Option<DfsPath>,
        /// At most so many files.
        limit: u32,
    },
    /// A client tells of a replica whose bytes did not verify. Answer: [`Response::Done`].
    ReportCorrupt {
        /// The block in its life.
        block: Block,
        /// Where.
        datanode: DatanodeId,
    },
    /// What becomes of safe mode; only the superuser may change it. Answer: [`Response::SafeMode`].
    SafeMode {
        /// What to do.
        action: SafeModeAction,
    },
    /// A datanode joins or comes back. Answer: [`Response::Registered`].
    DatanodeRegister(DatanodeRegistration),
    /// A datanode lives. Answer: [`Response::Commands`].
    DatanodeHeartbeat {
        /// Which.
        id: DatanodeId,
        /// Its volumes.
        volumes: Vec<VolumeStatus>,
        /// How many bulk transfers it has under way.
        transfers: u32,
        /// What its wall clock says, to be compared with the namenode's.
        clock: WallTime,
    },
    /// One slice of all replicas of one volume. Answer: [`Response::Done`].
    DatanodeBlockReport {
        /// Which datanode.
        id: DatanodeId,
        /// Which volume.
        storage: StorageId,
        /// The slice's number from 0.
        slice: u32,
        /// Whether it is the last.
        last: bool,
        /// Its replicas, ascending by block id over all slices.
        replicas: Vec<ReportedReplica>,
    },
    /// What has changed since the last report. Answer: [`Response::Done`].
    DatanodeBlockChanges {
        /// Which datanode.
        id: DatanodeId,
        /// In the order in which it happened.
        changes: Vec<ReplicaChange>,
    },
}

/// What a datanode says when it joins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatanodeRegistration {
    /// Who.
    pub id: DatanodeId,
    /// Its cluster as its volumes know it; none if they are fresh.
    pub cluster: Option<ClusterId>,
    /// Its node.
    pub node: NodeName,
    /// Its rack.
    pub rack: RackName,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its volumes.
    pub volumes: Vec<VolumeStatus>,
    /// What its wall clock says, to be compared with the namenode's.
    pub clock: WallTime,
}

/// The state of one volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VolumeStatus {
    /// Which.
    pub storage: StorageId,
    /// How many bytes it can hold in all.
    pub capacity_bytes: u64,
    /// How many its replicas take.
    pub used_bytes: u64,
    /// How many more it can take.
    pub free_bytes: u64,
    /// Why it is out of use, if it is.
    pub failed: Option<String>,
}

/// One final replica in a block report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedReplica {
    /// The block in its life.
    pub block: Block,
    /// How many bytes the replica has.
    pub len_bytes: u64,
}

/// One change since the last report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaChange {
    /// A replica is final and on disk.
    Received {
        /// On which volume.
        storage: StorageId,
        /// Which.
        replica: ReportedReplica,
    },
    /// A replica is gone.
    Deleted {
        /// Which.
        block: Block,
    },
    /// A replica's bytes are not what they should be.
    Corrupt {
        /// Which.
        block: Block,
    },
    /// A copy that the namenode asked for did not come about.
    ReplicationFailed {
        /// Which.
        block: Block,
        /// To where.
        target: DatanodeId,
        /// Why.
        reason: String,
    },
}

/// What a namenode tells a datanode to do, in the answer to its heartbeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DatanodeCommand {
    /// Copy a replica to other datanodes.
    Replicate {
        /// Which.
        block: Block,
        /// To where.
        targets: Vec<DatanodeLocation>,
        /// Opens the block for writing at the targets.
        token: BlockToken,
    },
    /// Delete replicas, each in that life of its block or an older one: a newer one stays.
    Invalidate {
        /// Which.
        blocks: Vec<Block>,
    },
    /// Register anew: the namenode does not know the sender.
    Register,
    /// Send a full block report of every volume.
    Report,
    /// Read replicas again, each in that life of its block: a reader found them corrupt. Each is then told of as a change:
    /// received if it is good, corrupt if it is not, deleted if it is not there.
    Verify {
        /// Which.
        blocks: Vec<Block>,
    },
}

/// An answer of the namenode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// It is done and durable.
    Done,
    /// The file is open.
    Created {
        /// Its id.
        inode: INodeId,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// How many replicas they shall have.
        replication: u16,
    },
    /// The block to write.
    Block(LocatedBlock),
    /// What is there.
    Status(Option<FileStatus>),
    /// What is there, path by path.
    Statuses(Vec<Option<FileStatus>>),
    /// A page of a directory.
    Listing {
        /// By name.
        entries: Vec<FileStatus>,
        /// Whether there is more.
        more: bool,
    },
    /// A file's blocks.
    Blocks {
        /// The file.
        status: FileStatus,
        /// Its blocks, in order.
        blocks: Vec<LocatedBlock>,
    },
    /// Whether anything was there to delete.
    Deleted(bool),
    /// What lies below a path.
    Summary(ContentSummary),
    /// The state of the cluster.
    Report(Box<ClusterReport>),
    /// Why the namenode is in safe mode, if it is.
    SafeMode(Option<String>),
    /// A page of files' health.
    Health {
        /// By path.
        files: Vec<FileHealth>,
        /// Whether there is more.
        more: bool,
    },
    /// The datanode is known now and shall report its blocks.
    Registered {
        /// The cluster; a fresh volume keeps it.
        cluster: ClusterId,
        /// Checks block tokens.
        key: BlockTokenKey,
        /// How often to send a heartbeat.
        heartbeat_ms: u32,
        /// The namenode's time, by which tokens expire.
        now: TimeMs,
    },
    /// What the datanode shall do.
    Commands {
        /// In this order.
        commands: Vec<DatanodeCommand>,
        /// Checks block tokens.
        key: BlockTokenKey,
        /// The namenode's time, by which tokens expire.
        now: TimeMs,
    },
}

/// Whether it is a file or a directory, and what only one of them has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A file.
    File {
        /// How many bytes it holds; while it is open, those of its final blocks.
        len_bytes: u64,
        /// How many replicas its blocks shall have.
        replication: u16,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// Whether it is being written.
        open: bool,
    },
}

/// What is at a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileStatus {
    /// Its full path.
    pub path: DfsPath,
    /// Its id.
    pub inode: INodeId,
    /// File or directory.
    pub kind: FileKind,
    /// Who owns it.
    pub owner: String,
    /// Its group.
    pub group: String,
    /// Its permission bits.
    pub mode: u16,
    /// When its content last changed, by the namenode's wall clock. Of one file it never goes back.
    pub modified: WallTime,
}

impl FileStatus {
    /// How many bytes it holds; 0 for a directory.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match self.kind {
            FileKind::Directory => 0,
            FileKind::File { len_bytes, .. } => len_bytes,
        }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, FileKind::Directory)
    }
}

/// What lies below a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ContentSummary {
    /// Directories, the path itself included if it is one.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub len_bytes: u64,
    /// Their bytes times their replication.
    pub space_bytes: u64,
}

/// What to do about safe mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SafeModeAction {
    /// Nothing: only tell.
    Get,
    /// Enter it, until it is left by an order.
    Enter,
    /// Leave it, whatever it waits for.
    Leave,
}

/// The state of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Which cluster.
    pub cluster: ClusterId,
    /// The last transaction.
    pub tx: TxId,
    /// The digest over the whole namespace at that transaction: equal digests, equal namespaces.
    pub digest: [u8; 32],
    /// Why the namenode is in safe mode, if it is.
    pub safe_mode: Option<String>,
    /// The room of its log; none before it was measured.
    pub room: Option<LogRoom>,
    /// Directories.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Blocks.
    pub blocks: u64,
    /// Blocks with fewer good replicas than they should have, those without any included.
    pub under_replicated: u64,
    /// Blocks that have a corrupt replica.
    pub corrupt: u64,
    /// Blocks without any good replica.
    pub missing: u64,
    /// Copies under way.
    pub pending: u64,
    /// Replicas of what this namespace never gave out: another life of it did, or another namespace.
    pub unknown: u64,
    /// Every datanode that has registered since the namenode started.
    pub datanodes: Vec<DatanodeStatus>,
}

/// The room on the disk of the namenode's log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogRoom {
    /// The namenode's directory on its host.
    pub directory: String,
    /// How many more bytes the log can take.
    pub free_bytes: u64,
    /// With less nothing is added to the namespace any more.
    pub reserve_bytes: u64,
    /// With less nothing is changed any more.
    pub last_bytes: u64,
    /// Which changes are taken.
    pub taking: Taking,
}

/// Which changes a namenode takes, by the room that its log has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Taking {
    /// Every change.
    Everything,
    /// Only deletions, and what finishes a file that is open.
    WhatFrees,
    /// None.
    Nothing,
}

/// The state of one datanode.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatanodeStatus {
    /// Who and where.
    pub location: DatanodeLocation,
    /// Alive, suspect or dead.
    pub liveness: Liveness,
    /// When it was last heard, by the namenode's wall clock.
    pub last_heartbeat: WallTime,
    /// Its volumes.
    pub volumes: Vec<VolumeStatus>,
    /// How many replicas it holds.
    pub replicas: u64,
    /// How many replicas it holds of what this namespace never gave out.
    pub unknown: u64,
    /// By how many milliseconds its wall clock is ahead of the namenode's; negative if it is behind. They agree up to
    /// [`CLOCKS_AGREE_MS`](crate::time::CLOCKS_AGREE_MS).
    pub clock_ahead_ms: i64,
}

/// Whether a datanode or executor is there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Liveness {
    /// Heard lately.
    Live,
    /// Not heard for a while: nothing new is placed there.
    Suspect,
    /// Not heard for so long that its replicas are made anew elsewhere.
    Dead,
}

/// The health of one file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileHealth {
    /// Its path.
    pub path: DfsPath,
    /// How many bytes it holds.
    pub len_bytes: u64,
    /// How many replicas its blocks shall have.
    pub replication: u16,
    /// Whether it is being written.
    pub open: bool,
    /// Its blocks, in order.
    pub blocks: Vec<BlockHealth>,
}

/// The health of one block.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BlockHealth {
    /// Which.
    pub block: Block,
    /// How many bytes it holds.
    pub len_bytes: u64,
    /// Whether its bytes are final.
    pub committed: bool,
    /// Where good replicas are.
    pub replicas: Vec<DatanodeLocation>,
    /// Where corrupt replicas are.
    pub corrupt: Vec<DatanodeId>,
}
