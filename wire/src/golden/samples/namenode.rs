//! The calls of a namenode.

use super::super::book::{Book, sample, variants};
use super::values::{
    BLOCK, CLIENT, DATANODE, NOW, OPERATION, ROOT, WALL, address, committed, location, node, path, rack, text, token,
};
use crate::block::{BlockTokenKey, LocatedBlock, TokenMode};
use crate::ids::{ClusterId, INodeId, StorageId, TxId};
use crate::messages::namenode::{
    BlockHealth, ClusterReport, ContentSummary, DatanodeCommand, DatanodeRegistration, DatanodeStatus, FileHealth,
    FileKind, FileStatus, Liveness, LogRoom, ReplicaChange, ReportedReplica, Request, Response, SafeModeAction, Taking,
    VolumeStatus,
};

const INODE: INodeId = INodeId(5);
const STORAGE: StorageId = StorageId(0x51);
const REPLICA: ReportedReplica = ReportedReplica { block: BLOCK, len_bytes: 1 << 27 };

pub(super) fn add(book: &mut Book) {
    clients(book);
    datanodes(book);
}

fn clients(book: &mut Book) {
    variants!(book, "namenode", Request {
        Mkdir => Request::Mkdir { path: path("/a"), parents: true, mode: 0o755, operation: OPERATION },
        Create => Request::Create {
            path: path("/a/f"),
            overwrite: false,
            parents: true,
            replication: 3,
            block_len_bytes: 1 << 27,
            mode: 0o644,
            operation: OPERATION,
        },
        AddBlock => Request::AddBlock {
            inode: INODE,
            committed: vec![committed()],
            exclude: vec![DATANODE],
            node: Some(node()),
            operation: OPERATION,
        },
        AbandonBlock => Request::AbandonBlock { inode: INODE, block: BLOCK, operation: OPERATION },
        RecoverPipeline => Request::RecoverPipeline {
            inode: INODE,
            block: BLOCK,
            survivors: vec![DATANODE],
            operation: OPERATION,
        },
        Complete => Request::Complete { inode: INODE, committed: vec![committed()], operation: OPERATION },
        RenewLease => Request::RenewLease { client: CLIENT },
        Stat => Request::Stat { path: path("/a/f") },
        StatMany => Request::StatMany { paths: vec![path("/a/f"), path("/")] },
        List => Request::List { path: path("/a"), after: Some(text("f")), limit: 1000 },
        Blocks => Request::Blocks {
            path: path("/a/f"),
            offset: 1 << 27,
            len_bytes: 10,
            node: Some(node()),
            client: CLIENT,
        },
        Rename => Request::Rename { from: path("/a"), to: path("/b"), overwrite: true, operation: OPERATION },
        Delete => Request::Delete { path: path("/a"), recursive: true, operation: OPERATION },
        Publish => Request::Publish {
            moves: vec![(path("/out/_temp/0"), path("/out/part-0"))],
            remove: path("/out/_temp"),
            operation: OPERATION,
        },
        Summary => Request::Summary { path: path("/a") },
        Report => Request::Report,
        Fsck => Request::Fsck { path: path("/"), after: Some(path("/a")), limit: 100 },
        SafeMode => Request::SafeMode { action: SafeModeAction::Leave },
        ReportCorrupt => Request::ReportCorrupt { block: BLOCK, datanode: DATANODE },
        DatanodeRegister => Request::DatanodeRegister(registration()),
        DatanodeHeartbeat => Request::DatanodeHeartbeat { id: DATANODE, volumes: vec![volume()], transfers: 2, clock: WALL },
        DatanodeBlockReport => Request::DatanodeBlockReport {
            id: DATANODE,
            storage: STORAGE,
            slice: 1,
            last: true,
            replicas: vec![REPLICA],
        },
        DatanodeBlockChanges => Request::DatanodeBlockChanges {
            id: DATANODE,
            changes: vec![ReplicaChange::Deleted { block: BLOCK }],
        },
    });
}

fn datanodes(book: &mut Book) {
    sample!(book, "namenode", DatanodeRegistration, registration());
    let failed = VolumeStatus { failed: Some(text("/data/1: read-only")), ..volume() };
    sample!(book, "namenode", VolumeStatus, failed);
    sample!(book, "namenode", ReportedReplica, REPLICA);
    variants!(book, "namenode", ReplicaChange {
        Received => ReplicaChange::Received { storage: STORAGE, replica: REPLICA },
        Deleted => ReplicaChange::Deleted { block: BLOCK },
        Corrupt => ReplicaChange::Corrupt { block: BLOCK },
        ReplicationFailed => ReplicaChange::ReplicationFailed {
            block: BLOCK,
            target: DATANODE,
            reason: text("no room"),
        },
    });
    variants!(book, "namenode", DatanodeCommand {
        Replicate => DatanodeCommand::Replicate {
            block: BLOCK,
            targets: vec![location()],
            token: token(TokenMode::Write),
        },
        Invalidate => DatanodeCommand::Invalidate { blocks: vec![BLOCK] },
        Register => DatanodeCommand::Register,
        Report => DatanodeCommand::Report,
        Verify => DatanodeCommand::Verify { blocks: vec![BLOCK] },
    });
}

fn registration() -> DatanodeRegistration {
    DatanodeRegistration {
        id: DATANODE,
        cluster: Some(ClusterId(0xc1)),
        node: node(),
        rack: rack(),
        address: address(),
        volumes: vec![volume()],
        clock: WALL,
    }
}

fn volume() -> VolumeStatus {
    VolumeStatus { storage: STORAGE, capacity_bytes: 1 << 40, used_bytes: 1 << 30, free_bytes: 1 << 39, failed: None }
}

fn file() -> FileStatus {
    FileStatus {
        path: path("/a/f"),
        inode: INODE,
        kind: FileKind::File { len_bytes: 4096, replication: 3, block_len_bytes: 1 << 27, open: true },
        owner: text("alice"),
        group: text("staff"),
        mode: 0o644,
        modified: WALL,
    }
}

fn located() -> LocatedBlock {
    LocatedBlock {
        block: BLOCK,
        offset: 0,
        len_bytes: 4096,
        root: Some(ROOT),
        locations: vec![location()],
        token: token(TokenMode::Read),
    }
}

fn datanode() -> DatanodeStatus {
    DatanodeStatus {
        location: location(),
        liveness: Liveness::Suspect,
        last_heartbeat: WALL,
        volumes: vec![volume()],
        replicas: 12_345,
        unknown: 6,
        clock_ahead_ms: -60_000,
    }
}

fn room() -> LogRoom {
    LogRoom {
        directory: text("/nn"),
        free_bytes: 1000,
        reserve_bytes: 2000,
        last_bytes: 500,
        taking: Taking::WhatFrees,
    }
}

fn report() -> ClusterReport {
    ClusterReport {
        cluster: ClusterId(0xc1),
        tx: TxId(1_000_000),
        digest: [0xd1; 32],
        safe_mode: Some(text("9 of 10 blocks are reported")),
        room: Some(room()),
        directories: 1,
        files: 2,
        blocks: 3,
        under_replicated: 4,
        corrupt: 5,
        missing: 6,
        pending: 7,
        unknown: 8,
        datanodes: vec![datanode()],
    }
}

fn block_health() -> BlockHealth {
    BlockHealth { block: BLOCK, len_bytes: 4096, committed: true, replicas: vec![location()], corrupt: vec![DATANODE] }
}

fn health() -> FileHealth {
    FileHealth { path: path("/a/f"), len_bytes: 4096, replication: 3, open: false, blocks: vec![block_health()] }
}

pub(super) fn add_answers(book: &mut Book) {
    variants!(book, "namenode", FileKind {
        Directory => FileKind::Directory,
        File => FileKind::File { len_bytes: 4096, replication: 3, block_len_bytes: 1 << 27, open: true },
    });
    variants!(book, "namenode", SafeModeAction {
        Get => SafeModeAction::Get,
        Enter => SafeModeAction::Enter,
        Leave => SafeModeAction::Leave,
    });
    variants!(book, "namenode", Liveness {
        Live => Liveness::Live,
        Suspect => Liveness::Suspect,
        Dead => Liveness::Dead,
    });
    variants!(book, "namenode", Taking {
        Everything => Taking::Everything,
        WhatFrees => Taking::WhatFrees,
        Nothing => Taking::Nothing,
    });
    let summary = ContentSummary { directories: 1, files: 2, len_bytes: 3000, space_bytes: 9000 };
    sample!(book, "namenode", FileStatus, file());
    sample!(book, "namenode", ContentSummary, summary);
    sample!(book, "namenode", LogRoom, room());
    sample!(book, "namenode", ClusterReport, report());
    sample!(book, "namenode", DatanodeStatus, datanode());
    sample!(book, "namenode", FileHealth, health());
    sample!(book, "namenode", BlockHealth, block_health());
    let key = BlockTokenKey([0x11; 32]);
    variants!(book, "namenode", Response {
        Done => Response::Done,
        Created => Response::Created { inode: INODE, block_len_bytes: 1 << 27, replication: 3 },
        Block => Response::Block(located()),
        Status => Response::Status(Some(file())),
        Statuses => Response::Statuses(vec![Some(file()), None]),
        Listing => Response::Listing { entries: vec![file()], more: true },
        Blocks => Response::Blocks { status: file(), blocks: vec![located()] },
        Deleted => Response::Deleted(true),
        Summary => Response::Summary(summary),
        Report => Response::Report(Box::new(report())),
        SafeMode => Response::SafeMode(Some(text("9 of 10 blocks are reported"))),
        Health => Response::Health { files: vec![health()], more: false },
        Registered => Response::Registered { cluster: ClusterId(0xc1), key: key.clone(), heartbeat_ms: 1000, now: NOW },
        Commands => Response::Commands { commands: vec![DatanodeCommand::Report], key: key.clone(), now: NOW },
    });
}
