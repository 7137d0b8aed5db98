use situ_runtime::disk::Space;
use situ_wire::block::{Block, BlockToken, DatanodeLocation};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, DatanodeId, StorageId};
use situ_wire::messages::datanode::WriteStage;
use situ_wire::messages::namenode::{Request, Response};

use super::tokens::TokenJudge;
use crate::storage::{IndexedReplica, Prior, Verdict};

/// Names a request to write until it is granted or refused; chosen by who asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestId(pub u64);

/// One writer of one replica; never reused within a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WriterId(pub u64);

/// What a call to the namenode is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CallKind {
    /// To register.
    Register,
    /// To live.
    Heartbeat,
    /// What has changed.
    Changes,
    /// A slice of a full report.
    Report,
}

/// Names a call to the namenode: at most one of each kind is under way in one session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId {
    /// Counts the registrations: answers to calls of an earlier one are late and do not count.
    pub session: u64,
    /// What it is about.
    pub kind: CallKind,
}

/// Why a call to the namenode failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallError {
    /// What the namenode says; none if it did not answer.
    pub code: Option<ErrorCode>,
    /// The whole sentence.
    pub message: String,
}

/// What happens to a datanode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Somebody asks to write a block. Answered by [`Effect::GrantWrite`] or [`Effect::RefuseWrite`].
    OpenWrite {
        /// Names the request.
        request: RequestId,
        /// The block in the life that is written.
        block: Block,
        /// Fresh, or going on.
        stage: WriteStage,
        /// How long it may become.
        limit_bytes: u64,
    },
    /// A writer has let go of its replica.
    WriterEnded {
        /// Which.
        writer: WriterId,
        /// In which state.
        end: WriterEnd,
    },
    /// A read of a final replica failed: it is to be verified.
    Suspect {
        /// Which.
        block: Block,
    },
    /// A replica was read from end to end, as [`Effect::Verify`] asked for.
    Verified {
        /// On which volume.
        storage: StorageId,
        /// Which.
        block: Block,
        /// What came of it.
        verdict: Verdict,
    },
    /// A replica was deleted, as [`Effect::Delete`] asked for, or its disk failed, which its server tells apart.
    Deleted {
        /// On which volume.
        storage: StorageId,
        /// Which.
        block: Block,
    },
    /// A volume's disk gave an error: it is to be probed.
    DiskTrouble {
        /// Which.
        storage: StorageId,
    },
    /// What [`Effect::Probe`] showed.
    Probed {
        /// Which volume.
        storage: StorageId,
        /// Why it does not work, if it does not.
        failed: Option<String>,
    },
    /// What [`Effect::Measure`] showed.
    Measured {
        /// The room of each volume.
        spaces: Vec<(StorageId, Space)>,
        /// How many reads are being served.
        reads: usize,
    },
    /// The namenode's answer to [`Effect::Call`].
    Answered {
        /// Which call.
        call: CallId,
        /// What it says.
        result: Result<Response, CallError>,
    },
    /// A copy that [`Effect::Replicate`] asked for has ended.
    Replicated {
        /// From which volume.
        storage: StorageId,
        /// Which replica.
        block: Block,
        /// The targets that did not get it, and why.
        failed: Vec<(DatanodeId, String)>,
        /// What reading the replica showed.
        verdict: Verdict,
    },
}

/// How a writer lets go of a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriterEnd {
    /// It is final.
    Final {
        /// How many bytes it has.
        len_bytes: u64,
    },
    /// It is not, and may be gone on with.
    Abandoned {
        /// How many bytes it has.
        len_bytes: u64,
    },
    /// The disk failed: it is of no use.
    Failed,
}

/// What a writer is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteGrant {
    /// Its name.
    pub writer: WriterId,
    /// The volume.
    pub storage: StorageId,
    /// What there is.
    pub prior: Prior,
    /// To where that is cut.
    pub len_bytes: u64,
}

/// What a datanode has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Let it write.
    GrantWrite {
        /// Who asked.
        request: RequestId,
        /// What it gets.
        grant: WriteGrant,
    },
    /// Do not.
    RefuseWrite {
        /// Who asked.
        request: RequestId,
        /// Why not.
        error: RemoteError,
    },
    /// Tell a writer to let go of its replica; answered by [`Event::WriterEnded`].
    StopWriter {
        /// Which.
        writer: WriterId,
    },
    /// Tell a writer whether its final replica counts: only then it may say so to others.
    ConfirmFinal {
        /// Which.
        writer: WriterId,
        /// Whether it counts.
        counts: bool,
    },
    /// Delete a replica's files, wherever on the volume they are; answered by [`Event::Deleted`].
    Delete {
        /// On which volume.
        storage: StorageId,
        /// Which.
        block: Block,
    },
    /// Move a damaged replica's files aside.
    MoveAside {
        /// On which volume.
        storage: StorageId,
        /// Which.
        block: Block,
    },
    /// Note in the volume's index what is final, or with none that it is not any more.
    Index {
        /// Which volume's.
        storage: StorageId,
        /// Which block.
        id: BlockId,
        /// What is final.
        replica: Option<IndexedReplica>,
    },
    /// Note in the volume's index up to where the scrubber has come.
    IndexScrubbed {
        /// Which volume's.
        storage: StorageId,
        /// Up to which block.
        id: BlockId,
    },
    /// Verify a final replica; answered by [`Event::Verified`].
    Verify {
        /// On which volume.
        storage: StorageId,
        /// Which.
        block: Block,
        /// At most so many bytes a second; none means as fast as can be.
        rate_bytes: Option<u64>,
    },
    /// Copy a final replica to other datanodes; answered by [`Event::Replicated`].
    Replicate {
        /// On which volume it is.
        storage: StorageId,
        /// Which.
        block: Block,
        /// How many bytes it has.
        len_bytes: u64,
        /// To where.
        targets: Vec<DatanodeLocation>,
        /// Opens the block there.
        token: BlockToken,
    },
    /// Measure the room of the volumes that work; answered by [`Event::Measured`].
    Measure,
    /// Try whether a volume works; answered by [`Event::Probed`].
    Probe {
        /// Which.
        storage: StorageId,
    },
    /// Close a volume that has failed: nothing of it is used any more.
    Eject {
        /// Which.
        storage: StorageId,
    },
    /// Call the namenode; answered by [`Event::Answered`].
    Call {
        /// Names it.
        call: CallId,
        /// What to say.
        request: Request,
    },
    /// Have block tokens judged by that from now on.
    Judge(TokenJudge),
    /// Stop.
    Stop(StopReason),
}

/// Why a datanode cannot go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// The namenode refuses it for good.
    Refused(String),
    /// No volume works.
    NoVolumes(String),
}
