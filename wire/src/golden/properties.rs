//! What holds for any bytes: nothing that a peer sends makes a decoder panic, and what decodes is a message like any
//! other.

use bytes::BytesMut;
use proptest::prelude::{Strategy, any, prop};
use proptest::test_runner::{Config, TestRunner};

use super::samples;
use crate::codec::take_frame;

/// How bytes are spoilt.
#[derive(Clone, Debug)]
enum Damage {
    Set(u8),
    Insert(u8),
    Remove,
    Cut,
    Repeat,
}

fn damage() -> impl Strategy<Value = Vec<(usize, Damage)>> {
    let one = (0..5_u8, any::<u8>()).prop_map(|(kind, byte)| match kind {
        0 => Damage::Set(byte),
        1 => Damage::Insert(byte),
        2 => Damage::Remove,
        3 => Damage::Cut,
        _ => Damage::Repeat,
    });
    prop::collection::vec((any::<usize>(), one), 1..4)
}

fn spoil(bytes: &mut Vec<u8>, damages: &[(usize, Damage)]) {
    for (at, damage) in damages {
        let at = at % (bytes.len() + 1);
        match damage {
            Damage::Insert(byte) => bytes.insert(at, *byte),
            Damage::Cut => bytes.truncate(at),
            Damage::Repeat => bytes.extend_from_within(at..),
            Damage::Set(byte) => bytes.get_mut(at).into_iter().for_each(|place| *place = *byte),
            Damage::Remove if at < bytes.len() => _ = bytes.remove(at),
            Damage::Remove => {}
        }
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

#[test]
fn any_bytes_decode_to_a_message_that_survives_or_to_an_error() {
    let book = samples::all();
    let strategy = prop::collection::vec(any::<u8>(), 0..64);
    runner(256)
        .run(&strategy, |bytes| {
            book.samples.iter().for_each(|sample| _ = (sample.kind.survives)(&bytes));
            Ok(())
        })
        .unwrap();
}

#[test]
fn spoilt_messages_decode_to_messages_that_survive_or_to_errors() {
    let book = samples::all();
    let decoded = std::cell::Cell::new(0_u32);
    runner(256)
        .run(&damage(), |damages| {
            for sample in &book.samples {
                let mut bytes = sample.bytes.clone();
                spoil(&mut bytes, &damages);
                decoded.set(decoded.get() + u32::from((sample.kind.survives)(&bytes)));
            }
            Ok(())
        })
        .unwrap();
    assert!(decoded.get() > 100, "some of what was spoilt still decodes, else nothing was shown");
}

#[test]
fn any_bytes_are_frames_or_errors() {
    let strategy = (prop::collection::vec(any::<u8>(), 0..64), 0_usize..100);
    runner(1024)
        .run(&strategy, |(bytes, limit_bytes)| {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(frame)) = take_frame(&mut buffer, limit_bytes) {
                assert!(frame.len() <= limit_bytes, "no frame is longer than allowed");
            }
            Ok(())
        })
        .unwrap();
}
