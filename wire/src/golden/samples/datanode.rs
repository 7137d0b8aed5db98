//! The bulk streams of a datanode.

use super::super::book::{Book, sample, variants};
use super::values::{BLOCK, DATANODE, ROOT, error, location, token};
use crate::block::TokenMode;
use crate::messages::datanode::{Durability, PacketHeader, ReadBlock, ReadReply, WriteAck, WriteBlock, WriteStage};

pub(super) fn add(book: &mut Book) {
    variants!(book, "datanode", Durability {
        Durable => Durability::Durable,
        Visible => Durability::Visible,
    });
    variants!(book, "datanode", WriteStage {
        Create => WriteStage::Create,
        Resume => WriteStage::Resume { len_bytes: 70_000 },
    });
    let write = WriteBlock {
        block: BLOCK,
        stage: WriteStage::Resume { len_bytes: 70_000 },
        downstream: vec![location()],
        limit_bytes: 1 << 27,
        durability: Durability::Visible,
        token: token(TokenMode::Write),
    };
    sample!(book, "datanode", WriteBlock, write);
    variants!(book, "datanode", PacketHeader {
        Data => PacketHeader::Data { offset: 65_536, len_bytes: 1 << 20, crc32c: 0xdead_beef },
        Finish => PacketHeader::Finish { len_bytes: 70_000, root: ROOT, leaves: vec![[1; 32], [2; 32]] },
    });
    variants!(book, "datanode", WriteAck {
        Ready => WriteAck::Ready,
        Received => WriteAck::Received { len_bytes: 70_000 },
        Finished => WriteAck::Finished { replicas: vec![DATANODE] },
        Failed => WriteAck::Failed { datanode: DATANODE, error: error() },
    });
    let read = ReadBlock { block: BLOCK, offset: 65_536, len_bytes: 9, leaves: false, token: token(TokenMode::Read) };
    sample!(book, "datanode", ReadBlock, read);
    variants!(book, "datanode", ReadReply {
        Bytes => ReadReply::Bytes {
            offset: 65_536,
            len_bytes: 65_536,
            block_len_bytes: 1 << 27,
            leaves: vec![[3; 32]],
        },
        Refused => ReadReply::Refused(error()),
    });
}
