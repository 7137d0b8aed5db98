//! Handshake, frames of calls, blocks, errors.

use super::super::book::{Book, sample, variants};
use super::values::{
    BLOCK, CLIENT, DATANODE, NOW, OPERATION, ROOT, SECRET, WALL, address, bytes, committed, error, location, path,
    token,
};
use crate::block::{
    Block, BlockRoot, BlockToken, BlockTokenKey, CommittedBlock, DatanodeLocation, LocatedBlock, TokenMode,
};
use crate::error::{ErrorCode, RemoteError};
use crate::hello::{Hello, HelloReply, MAGIC, ProtocolVersion, Role};
use crate::ids::{ClientId, ClusterId, DatanodeId, JobId, OperationId, PartitionId, ScopeId, ShuffleId};
use crate::messages::datanode::{Durability, ReadBlock, WriteBlock, WriteStage};
use crate::messages::executor::FetchShuffle;
use crate::messages::{Answer, Call, StreamOpen};
use crate::path::DfsPath;
use crate::time::{TimeMs, WallTime};

pub(super) fn add(book: &mut Book) {
    handshake(book);
    calls(book);
    blocks(book);
    codes(book);
}

fn handshake(book: &mut Book) {
    variants!(book, "hello", Role {
        Namenode => Role::Namenode,
        Datanode => Role::Datanode,
        Scheduler => Role::Scheduler,
        Executor => Role::Executor,
        User => Role::User,
    });
    let hello = Hello {
        magic: MAGIC,
        version: ProtocolVersion::V1,
        cluster: ClusterId(0xc1),
        to: Role::Namenode,
        role: Role::User,
        name: "alice".to_owned(),
    };
    sample!(book, "hello", Hello, hello);
    variants!(book, "hello", HelloReply {
        Welcome => HelloReply::Welcome { version: ProtocolVersion::V1 },
        Refused => HelloReply::Refused(error()),
    });
}

fn calls(book: &mut Book) {
    let write = WriteBlock {
        block: BLOCK,
        stage: WriteStage::Create,
        downstream: vec![location()],
        limit_bytes: 1 << 27,
        durability: Durability::Durable,
        token: token(TokenMode::Write),
    };
    let read = ReadBlock { block: BLOCK, offset: 65_536, len_bytes: 100, leaves: true, token: token(TokenMode::Read) };
    let fetch = FetchShuffle {
        job: JobId(9),
        secret: SECRET,
        shuffle: ShuffleId(ScopeId::ROOT, 3),
        map: super::values::ATTEMPT,
        reduce: (PartitionId(1), PartitionId(4)),
    };
    variants!(book, "messages", StreamOpen {
        Calls => StreamOpen::Calls,
        WriteBlock => StreamOpen::WriteBlock(Box::new(write.clone())),
        ReadBlock => StreamOpen::ReadBlock(Box::new(read.clone())),
        FetchShuffle => StreamOpen::FetchShuffle(fetch.clone()),
    });
    sample!(book, "messages", Call, Call { number: 1, timeout_ms: 30_000, request: bytes() });
    sample!(book, "messages", Answer, Answer { number: 1, result: Ok(bytes()) });
    book.add("messages::Answer of an error", &Answer { number: 2, result: Err(error()) });
}

fn blocks(book: &mut Book) {
    variants!(book, "block", TokenMode {
        Read => TokenMode::Read,
        Write => TokenMode::Write,
    });
    sample!(book, "block", Block, BLOCK);
    sample!(book, "block", BlockRoot, ROOT);
    sample!(book, "block", BlockToken, token(TokenMode::Read));
    sample!(book, "block", BlockTokenKey, BlockTokenKey([0x11; 32]));
    sample!(book, "block", CommittedBlock, committed());
    sample!(book, "block", DatanodeLocation, location());
    book.add("block::DatanodeLocation at an IPv4 address", &DatanodeLocation { address: address(), ..location() });
    let located = LocatedBlock {
        block: BLOCK,
        offset: 1 << 27,
        len_bytes: 4096,
        root: Some(ROOT),
        locations: vec![location()],
        token: token(TokenMode::Read),
    };
    sample!(book, "block", LocatedBlock, located.clone());
    book.add("block::LocatedBlock without root", &LocatedBlock { root: None, ..located });
    sample!(book, "ids", ClientId, CLIENT);
    sample!(book, "ids", DatanodeId, DATANODE);
    sample!(book, "ids", OperationId, OPERATION);
    sample!(book, "time", TimeMs, NOW);
    sample!(book, "time", WallTime, WALL);
    sample!(book, "path", DfsPath, path("/data/été"));
}

fn codes(book: &mut Book) {
    sample!(book, "error", RemoteError, error());
    variants!(book, "error", ErrorCode {
        NotFound => ErrorCode::NotFound,
        AlreadyExists => ErrorCode::AlreadyExists,
        NotADirectory => ErrorCode::NotADirectory,
        IsADirectory => ErrorCode::IsADirectory,
        NotEmpty => ErrorCode::NotEmpty,
        PermissionDenied => ErrorCode::PermissionDenied,
        InvalidArgument => ErrorCode::InvalidArgument,
        BeingWritten => ErrorCode::BeingWritten,
        LeaseLost => ErrorCode::LeaseLost,
        StaleGeneration => ErrorCode::StaleGeneration,
        SafeMode => ErrorCode::SafeMode,
        NoDatanodes => ErrorCode::NoDatanodes,
        DiskFull => ErrorCode::DiskFull,
        Corrupt => ErrorCode::Corrupt,
        BadToken => ErrorCode::BadToken,
        WrongCluster => ErrorCode::WrongCluster,
        WrongVersion => ErrorCode::WrongVersion,
        WrongIdentity => ErrorCode::WrongIdentity,
        NotRegistered => ErrorCode::NotRegistered,
        TooMuch => ErrorCode::TooMuch,
        Unavailable => ErrorCode::Unavailable,
        DeadlineExceeded => ErrorCode::DeadlineExceeded,
        Malformed => ErrorCode::Malformed,
        JobFailed => ErrorCode::JobFailed,
        Io => ErrorCode::Io,
        Internal => ErrorCode::Internal,
        OutputsLost => ErrorCode::OutputsLost,
        NamenodeFull => ErrorCode::NamenodeFull,
    });
}
