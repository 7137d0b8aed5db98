//! The formats on disk, pinned.

use situ_wire::block::{Block, BlockRoot, CommittedBlock};
use situ_wire::codec::{decode, encode};
use situ_wire::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, INodeId, OperationId, TxId};
use situ_wire::time::WallTime;

use crate::core::{
    BlockRecord, Change, Edge, EdgeRecord, Edit, EditV1, Epoch, EpochRecord, INodeKind, INodeRecord, ImageKey,
    ImageRecord, MetaRecord, Move, NewDirectory, NewFile, OperationRecord, Outcome, WriterRecord,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn edit(change: Change) -> Edit {
    let operation = Some(OperationId { client: ClientId(0x0a), sequence: 3 });
    Edit::V1(EditV1 { time: WallTime(1000), operation, change })
}

fn edge(child: u64) -> Edge {
    Edge { parent: INodeId(1), name: "e".to_owned(), child: INodeId(child) }
}

fn directory() -> NewDirectory {
    NewDirectory {
        inode: INodeId(2),
        parent: INodeId(1),
        name: "d".to_owned(),
        owner: "o".to_owned(),
        group: "g".to_owned(),
        mode: 0o755,
    }
}

fn file(writer: Option<ClientId>) -> NewFile {
    NewFile {
        inode: INodeId(3),
        parent: INodeId(2),
        name: "f".to_owned(),
        owner: "o".to_owned(),
        group: "g".to_owned(),
        mode: 0o644,
        replication: 3,
        block_len_bytes: 1 << 16,
        writer,
        replaced: Some(INodeId(9)),
    }
}

fn committed() -> CommittedBlock {
    CommittedBlock {
        block: Block { id: BlockId(5), generation: GenerationStamp(6) },
        len_bytes: 7,
        root: BlockRoot([1; 32]),
        replicas: vec![DatanodeId(8)],
    }
}

#[test]
fn edits_are_written_as_they_always_were() {
    let (inode, block) = (INodeId(3), Block { id: BlockId(5), generation: GenerationStamp(6) });
    let moved = || Move { from: edge(4), parent: INodeId(2), name: "m".to_owned(), replaced: None };
    let root = "01".repeat(32);
    let head = "00e807010a03";
    let directory_hex = "0201016401 6f01 67ed03".replace(' ', "");
    let file_hex = |writer: &str| format!("0302 0166 016f 0167 a403 03 808004 {writer} 0109").replace(' ', "");
    let golden = [
        (Change::Mkdir { directories: vec![directory()] }, format!("0001{directory_hex}")),
        (
            Change::Create { directories: vec![directory()], file: file(Some(ClientId(10))) },
            format!("0101{directory_hex}{}", file_hex("010a")),
        ),
        (
            Change::AddBlock { inode, committed: vec![committed()], block, pipeline: vec![DatanodeId(8)] },
            format!("0203010506 07{root}0108 0506 0108").replace(' ', ""),
        ),
        (Change::AbandonBlock { inode, block: BlockId(5) }, "030305".to_owned()),
        (
            Change::RecoverPipeline {
                inode,
                block: BlockId(5),
                generation: GenerationStamp(9),
                pipeline: vec![DatanodeId(8)],
            },
            "040305090108".to_owned(),
        ),
        (Change::Complete { inode, committed: Vec::new() }, "050300".to_owned()),
        (Change::Rename { moved: moved() }, "0601016504 02016d00".replace(' ', "")),
        (Change::Delete { removed: Some(edge(4)) }, "070101016504".to_owned()),
        (
            Change::Publish { moves: vec![moved()], removed: Some(edge(4)) },
            "0801010165 0402016d00 0101016504".replace(' ', ""),
        ),
        (Change::RecoverFile { inode, dropped: vec![BlockId(5)] }, "09030105".to_owned()),
        (Change::ForgetClients { clients: vec![ClientId(10)] }, "0a010a".to_owned()),
        (Change::BeginEpoch { epoch: Epoch(300) }, "0bac02".to_owned()),
    ];
    for (change, expected) in golden {
        let edit = edit(change);
        let bytes = encode(&edit).unwrap();
        assert_eq!(hex(&bytes), format!("{head}{expected}"), "{edit:?}");
        assert_eq!(decode::<Edit>(&bytes).unwrap(), edit);
    }
    assert!(decode::<Edit>(&[1, 0, 0, 0]).is_err(), "another version is refused");
}

#[test]
fn image_records_are_written_as_they_always_were() {
    let writer = WriterRecord { client: ClientId(10), user: "o".into() };
    let inode = |kind| {
        let (owner, group) = ("o".into(), "g".into());
        ImageRecord::INode(INodeRecord { id: INodeId(3), owner, group, mode: 0o644, modified: WallTime(1000), kind })
    };
    let golden: [(ImageRecord, String); 8] = [
        (
            ImageRecord::Meta(MetaRecord {
                next_inode: INodeId(1),
                next_block: BlockId(2),
                next_generation: GenerationStamp(3),
            }),
            "00010203".to_owned(),
        ),
        (inode(INodeKind::Directory), "0103016f0167a403e80700".to_owned()),
        (
            inode(INodeKind::File { replication: 3, block_len_bytes: 1 << 16, writer: None }),
            "0103016f0167a403e807010380800400".to_owned(),
        ),
        (
            inode(INodeKind::File { replication: 3, block_len_bytes: 1 << 16, writer: Some(writer) }),
            "0103016f0167a403e8070103808004010a016f".to_owned(),
        ),
        (
            ImageRecord::Edge(EdgeRecord { parent: INodeId(1), name: "f".into(), child: INodeId(3) }),
            "0201016603".to_owned(),
        ),
        (
            ImageRecord::Block(BlockRecord {
                id: BlockId(5),
                generation: GenerationStamp(6),
                inode: INodeId(3),
                len_bytes: 7,
                root: Some(BlockRoot([1; 32])),
                pipeline: vec![DatanodeId(8)],
            }),
            format!("030506030701{}0108", "01".repeat(32)),
        ),
        (
            ImageRecord::Operation(OperationRecord {
                client: ClientId(10),
                sequence: 3,
                tx: TxId(4),
                time: WallTime(1000),
                outcome: Outcome::Deleted(true),
            }),
            "040a0304e8070301".to_owned(),
        ),
        (
            ImageRecord::Epoch(EpochRecord {
                epoch: Epoch(300),
                next_block: BlockId(5),
                next_generation: GenerationStamp(6),
            }),
            "05ac020506".to_owned(),
        ),
    ];
    for (record, expected) in golden {
        let bytes = encode(&record).unwrap();
        assert_eq!(hex(&bytes), expected, "{record:?}");
        assert_eq!(decode::<ImageRecord>(&bytes).unwrap(), record);
        let key = encode(&record.key()).unwrap();
        assert_eq!(decode::<ImageKey>(&key).unwrap(), record.key());
    }
}
