//! Whatever a peer sends, decoding ends with a message or an error, and what was decoded encodes to something that
//! decodes to the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::codec::{decode, encode, take_frame};
use situ_wire::limits::MESSAGE_LEN_BYTES;
use situ_wire::messages::{Answer, Call, StreamOpen, datanode, executor, namenode, scheduler};

fn round<M: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) {
    if let Ok(message) = decode::<M>(bytes) {
        let again = encode(&message).expect("what was decoded can be encoded");
        assert!(decode::<M>(&again).expect("what was encoded can be decoded") == message);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 12 {
        0 => round::<StreamOpen>(bytes),
        1 => round::<Call>(bytes),
        2 => round::<Answer>(bytes),
        3 => round::<namenode::Request>(bytes),
        4 => round::<namenode::Response>(bytes),
        5 => round::<datanode::PacketHeader>(bytes),
        6 => round::<datanode::WriteAck>(bytes),
        7 => round::<datanode::ReadReply>(bytes),
        8 => round::<scheduler::Request>(bytes),
        9 => round::<scheduler::Response>(bytes),
        10 => round::<executor::Request>(bytes),
        _ => {
            let mut buffer = BytesMut::from(bytes);
            while let Ok(Some(frame)) = take_frame(&mut buffer, MESSAGE_LEN_BYTES) {
                round::<Call>(&frame);
            }
        }
    }
});
