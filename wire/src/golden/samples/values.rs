//! Values that many samples hold.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::block::{Block, BlockRoot, BlockToken, CommittedBlock, DatanodeLocation, TokenMode};
use crate::error::{ErrorCode, RemoteError};
use crate::ids::{
    BlockId, ClientId, DatanodeId, GenerationStamp, JobId, NodeName, OperationId, PartitionId, RackName, ScopeId,
    StageId, TaskAttemptId,
};
use crate::messages::executor::{JobSecret, ShufflePiece};
use crate::path::DfsPath;
use crate::time::{TimeMs, WallTime};

pub(super) const CLIENT: ClientId = ClientId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
pub(super) const DATANODE: DatanodeId = DatanodeId(0xd1);
pub(super) const BLOCK: Block = Block { id: BlockId(1001), generation: GenerationStamp(77) };
pub(super) const OPERATION: OperationId = OperationId { client: CLIENT, sequence: 300 };
pub(super) const SECRET: JobSecret = JobSecret([0x5e; 16]);
pub(super) const ROOT: BlockRoot = BlockRoot([0xb3; 32]);
pub(super) const NOW: TimeMs = TimeMs(1_750_000_000_123);
pub(super) const WALL: WallTime = WallTime(NOW.0);
pub(super) const ATTEMPT: TaskAttemptId =
    TaskAttemptId { job: JobId(9), stage: StageId(ScopeId::ROOT, 4), partition: PartitionId(200), attempt: 2 };
pub(super) const PIECE: ShufflePiece = ShufflePiece { len_bytes: 5000, crc32c: 0xdead_beef, records: 12 };

pub(super) fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

pub(super) fn text(text: &str) -> String {
    text.to_owned()
}

pub(super) fn bytes() -> Bytes {
    Bytes::from_static(b"\x00raw\xff")
}

pub(super) fn node() -> NodeName {
    NodeName(text("node-1"))
}

pub(super) fn rack() -> RackName {
    RackName(text("/rack-1"))
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4711))
}

pub(super) fn location() -> DatanodeLocation {
    let address = SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 4712));
    DatanodeLocation { id: DATANODE, node: node(), rack: rack(), address }
}

pub(super) fn token(mode: TokenMode) -> BlockToken {
    BlockToken { mode, client: CLIENT, expires: NOW, tag: [0x7a; 32] }
}

pub(super) fn committed() -> CommittedBlock {
    CommittedBlock { block: BLOCK, len_bytes: 1 << 27, root: ROOT, replicas: vec![DATANODE] }
}

pub(super) fn error() -> RemoteError {
    RemoteError::new(ErrorCode::NotFound, "/a", "expected a file")
}
