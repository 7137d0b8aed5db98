use std::time::Duration;

use bytes::Bytes;
use situ_runtime::clock::Clock;
use situ_runtime::sim::SimWorld;
use situ_wire::block::{DatanodeLocation, TokenMode};
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{PacketHeader, ReadBlock, ReadReply, WriteAck, WriteStage};
use situ_wire::messages::namenode::{DatanodeCommand, ReplicaChange};

use super::harness::{Blob, Cluster, block, content, whole};

fn failed(ack: WriteAck) -> (situ_wire::ids::DatanodeId, ErrorCode) {
    match ack {
        WriteAck::Failed { datanode, error } => (datanode, error.code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_block_goes_to_three_datanodes_and_comes_back_from_each() {
    SimWorld::run(1, async |world| {
        let mut cluster = Cluster::start(world, 3).await;
        for (id, len) in [(1, 0), (2, 1), (3, 64 << 10), (4, 3_000_001)] {
            let bytes = content(id, len);
            let ids = [cluster.id(2), cluster.id(0), cluster.id(1)];
            let ack = cluster.put(block(id, 7), &bytes, &[2, 0, 1]).await;
            assert_eq!(ack, WriteAck::Finished { replicas: ids.to_vec() });
            cluster.wait(|told| told.holders(block(id, 7)).len() == 3).await;
            for at in 0..3 {
                assert_eq!(cluster.read(at, block(id, 7), 0, u64::MAX).await, whole(&bytes));
            }
        }
        let bytes = content(4, 3_000_001);
        let expected = (1 << 20, Blob(bytes[1 << 20..(1 << 20) + (128 << 10)].to_vec()));
        assert_eq!(cluster.read(0, block(4, 7), (1 << 20) + 9, 64 << 10).await, Ok(expected));
        // A namenode that starts anew knows nothing, and is told all of it again.
        cluster.start_namenode().await;
        cluster.wait(|told| (1..5).all(|id| told.holders(block(id, 7)).len() == 3)).await;
        // A datanode that starts anew has what it had.
        let reports = cluster.told.borrow().reports;
        cluster.restart(1, true).await;
        cluster.wait(|told| told.reports > reports).await;
        assert_eq!(cluster.told.borrow().holders(block(4, 7)).len(), 3);
        assert_eq!(cluster.read(1, block(4, 7), 0, u64::MAX).await, whole(&bytes));
    });
}

#[test]
fn when_one_in_the_middle_dies_the_survivors_go_on_where_all_of_them_were() {
    for seed in 0..20 {
        SimWorld::run(seed, async |world| {
            let cluster = Cluster::start(world, 3).await;
            let bytes = content(seed, 3_000_000);
            let open = cluster.open(block(1, 1), WriteStage::Create, &[0, 1, 2]);
            let mut stream = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
            stream.send(&bytes.slice(..900_021)).await;
            stream.received(900_021).await;
            cluster.world.clock().sleep(Duration::from_millis(seed)).await;
            cluster.world.kill("dn1");
            stream.send(&bytes.slice(900_021..1_800_000)).await;
            let (who, _) = failed(stream.end().await);
            assert_eq!(who, cluster.id(1), "seed {seed}: the one that died is named");
            drop(stream);
            let resume = |len_bytes| WriteStage::Resume { len_bytes };
            let (who, code) =
                failed(cluster.write(cluster.open(block(1, 1), resume(900_021), &[0, 2]), 0).await.err().unwrap());
            assert_eq!((who, code), (cluster.id(0), ErrorCode::StaleGeneration));
            let open = cluster.open(block(1, 2), resume(900_021), &[0, 2]);
            let mut stream = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
            stream.offset = 900_021;
            stream.send(&bytes.slice(900_021..)).await;
            let replicas = vec![cluster.id(0), cluster.id(2)];
            assert_eq!(stream.finish(&bytes).await, WriteAck::Finished { replicas });
            for at in [0, 2] {
                assert_eq!(cluster.read(at, block(1, 2), 0, u64::MAX).await, whole(&bytes));
                let stale = cluster.read(at, block(1, 1), 0, u64::MAX).await.unwrap_err();
                assert_eq!(stale.code, ErrorCode::StaleGeneration);
            }
        });
    }
}

#[test]
fn a_writer_of_an_older_life_is_stopped_and_one_that_stands_still_is_named() {
    SimWorld::run(3, async |world| {
        let cluster = Cluster::start(world, 3).await;
        let bytes = content(1, 1_000_000);
        let open = cluster.open(block(1, 1), WriteStage::Create, &[0, 1]);
        let mut old = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
        old.send(&bytes.slice(..500_000)).await;
        old.received(500_000).await;
        let open = cluster.open(block(1, 2), WriteStage::Resume { len_bytes: 400_000 }, &[0, 1]);
        let mut new = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
        let (_, code) = failed(old.end().await);
        assert_eq!(code, ErrorCode::StaleGeneration);
        new.offset = 400_000;
        new.send(&bytes.slice(400_000..)).await;
        assert!(matches!(new.finish(&bytes).await, WriteAck::Finished { .. }));
        assert_eq!(cluster.read(1, block(1, 2), 0, u64::MAX).await, whole(&bytes));
        // A cut that nobody is told of: the datanode before it says who does not move.
        let open = cluster.open(block(2, 1), WriteStage::Create, &[0, 1, 2]);
        let mut stream = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
        let (one, two) = (cluster.world.ip("dn1").unwrap(), cluster.world.ip("dn2").unwrap());
        cluster.world.network().cut(one, two);
        stream.send(&bytes).await;
        let (who, code) = failed(stream.end().await);
        assert_eq!((who, code), (cluster.id(2), ErrorCode::Unavailable));
    });
}

#[test]
fn what_is_not_right_is_refused_with_who_and_why() {
    SimWorld::run(4, async |world| {
        let cluster = Cluster::start(world, 2).await;
        let bytes = content(1, 100_000);
        let begin = async |id| {
            let open = cluster.open(block(id, 1), WriteStage::Create, &[0, 1]);
            cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"))
        };
        let first = cluster.id(0);

        let mut stream = begin(1).await;
        stream.packet(bytes.clone(), crc32c::crc32c(&bytes) ^ 1).await.unwrap();
        assert_eq!(failed(stream.end().await), (first, ErrorCode::Corrupt), "a wrong checksum");

        let mut stream = begin(2).await;
        stream.offset = 5;
        stream.packet(bytes.clone(), crc32c::crc32c(&bytes)).await.unwrap();
        assert_eq!(failed(stream.end().await), (first, ErrorCode::Malformed), "a hole");

        let mut stream = begin(3).await;
        let header = PacketHeader::Data { offset: 0, len_bytes: u32::MAX, crc32c: 0 };
        stream.send.message(&header).await.unwrap();
        assert_eq!(failed(stream.end().await), (first, ErrorCode::Malformed), "a giant");

        let mut stream = begin(4).await;
        for _ in 0..5 {
            let full = content(0, 1 << 20);
            let sum = crc32c::crc32c(&full);
            // The stream may be gone before all of them are sent.
            let _ = stream.packet(full, sum).await;
        }
        assert_eq!(failed(stream.end().await), (first, ErrorCode::TooMuch), "more than the block may hold");

        let mut stream = begin(5).await;
        stream.send(&bytes).await;
        assert_eq!(failed(stream.finish(&bytes.slice(..50_000)).await), (first, ErrorCode::Malformed), "a wrong end");

        let mut stream = begin(6).await;
        stream.send(&bytes).await;
        let finish = PacketHeader::Finish {
            len_bytes: 100_000,
            root: situ_wire::block::BlockRoot([1; 32]),
            leaves: vec![[1; 32], [2; 32]],
        };
        stream.send.message(&finish).await.unwrap();
        assert_eq!(failed(stream.end().await), (first, ErrorCode::Corrupt), "a wrong tree");

        let mut stream = begin(7).await;
        stream.send.bytes(Bytes::from_static(b"\x04\0\0\0\xff\xff\xff\xff")).await.unwrap();
        assert_eq!(failed(stream.end().await), (first, ErrorCode::Malformed), "not a message");

        for id in 1..8 {
            assert_eq!(cluster.read(0, block(id, 1), 0, 1).await.unwrap_err().code, ErrorCode::Unavailable);
        }
    });
}

#[test]
fn without_a_good_token_nothing_is_opened() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(world, 2).await;
        let bytes = content(1, 1000);
        cluster.put(block(1, 1), &bytes, &[0, 1]).await;
        let mut open = cluster.open(block(2, 1), WriteStage::Create, &[0, 1]);
        open.token = cluster.token(block(1, 1), TokenMode::Write);
        let refused = cluster.write(open.clone(), 0).await.err().unwrap();
        assert_eq!(failed(refused), (cluster.id(0), ErrorCode::BadToken));
        open.token = cluster.token(block(2, 1), TokenMode::Read);
        let refused = cluster.write(open, 0).await.err().unwrap();
        assert_eq!(failed(refused), (cluster.id(0), ErrorCode::BadToken));
        let mut token = cluster.token(block(1, 1), TokenMode::Read);
        token.expires = situ_wire::time::TimeMs(1);
        let read = ReadBlock { block: block(1, 1), offset: 0, len_bytes: 1, leaves: true, token };
        assert_eq!(cluster.read_with(0, read).await.unwrap_err().code, ErrorCode::BadToken);
        let behind = cluster.read(0, block(1, 1), 1001, 1).await.unwrap_err();
        assert_eq!(behind.code, ErrorCode::InvalidArgument);
    });
}

#[test]
fn a_replica_is_copied_deleted_and_a_damaged_one_told_instead_of_copied() {
    SimWorld::run(6, async |world| {
        let cluster = Cluster::start(world, 3).await;
        let bytes = content(1, 2_500_000);
        cluster.put(block(1, 5), &bytes, &[0]).await;
        let replicate = |id, targets: &[usize]| DatanodeCommand::Replicate {
            block: block(id, 5),
            targets: targets.iter().map(|at| cluster.nodes[*at].location.clone()).collect(),
            token: cluster.token(block(id, 5), TokenMode::Write),
        };
        cluster.command(0, replicate(1, &[1, 2]));
        cluster.wait(|told| told.holders(block(1, 5)).len() == 3).await;
        for at in 0..3 {
            assert_eq!(cluster.read(at, block(1, 5), 0, u64::MAX).await, whole(&bytes));
        }
        // There already: said, and nothing breaks.
        cluster.command(0, replicate(1, &[1]));
        let (source, target) = (cluster.id(0), cluster.id(1));
        let said = |told: &super::harness::Told, wanted: (u64, situ_wire::ids::DatanodeId)| {
            told.changes.iter().any(|(from, change)| {
                *from == source
                    && matches!(change, ReplicaChange::ReplicationFailed { block, target, .. }
                        if (block.id.0, *target) == wanted)
            })
        };
        cluster.wait(|told| said(told, (1, target))).await;
        cluster.command(0, DatanodeCommand::Invalidate { blocks: vec![block(1, 4), block(1, 5)] });
        cluster.wait(|told| told.holders(block(1, 5)).len() == 2).await;
        assert_eq!(cluster.read(0, block(1, 5), 0, 1).await.unwrap_err().code, ErrorCode::NotFound);
        // A flipped bit.
        cluster.put(block(2, 5), &bytes, &[0]).await;
        super::volumes::flip(&cluster.nodes[0].runtime, block(2, 5), 1_500_000);
        cluster.command(0, replicate(2, &[1]));
        cluster.wait(|told| said(told, (2, target))).await;
        cluster.wait(|told| told.changes.contains(&(source, ReplicaChange::Corrupt { block: block(2, 5) }))).await;
        assert_eq!(cluster.read(0, block(2, 5), 0, 1).await.unwrap_err().code, ErrorCode::Corrupt);
        assert_ne!(cluster.told.borrow().holders(block(2, 5)), [target]);
    });
}

#[test]
fn two_copies_of_one_block_at_once_both_come_to_their_end() {
    SimWorld::run(7, async |world| {
        let cluster = Cluster::start_with(world, 3, |config| config.replications = 2).await;
        let bytes = content(1, 2_500_000);
        cluster.put(block(1, 5), &bytes, &[0]).await;
        cluster.put(block(2, 5), &bytes, &[0]).await;
        let replicate = |id, at: usize| DatanodeCommand::Replicate {
            block: block(id, 5),
            targets: vec![cluster.nodes[at].location.clone()],
            token: cluster.token(block(id, 5), TokenMode::Write),
        };
        // The second one begins while the first is under way; the others wait until both have ended.
        for (id, at) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            cluster.command(0, replicate(id, at));
        }
        for id in [1, 2] {
            cluster.wait(|told| told.holders(block(id, 5)).len() == 3).await;
        }
    });
}

#[test]
fn a_copy_to_a_target_that_never_gets_ready_ends() {
    SimWorld::run(8, async |world| {
        let cluster = Cluster::start_with(world, 2, |config| config.replications = 1).await;
        let bytes = content(1, 1000);
        cluster.put(block(1, 5), &bytes, &[0]).await;
        let mute = cluster.start_mute("mute").await;
        let replicate = |target: &DatanodeLocation| DatanodeCommand::Replicate {
            block: block(1, 5),
            targets: vec![target.clone()],
            token: cluster.token(block(1, 5), TokenMode::Write),
        };
        cluster.command(0, replicate(&mute));
        cluster.command(0, replicate(&cluster.nodes[1].location));
        cluster.wait(|told| told.holders(block(1, 5)).len() == 2).await;
        let changes = cluster.told.borrow().changes.clone();
        let failed = |(_, change): &(_, ReplicaChange)| matches!(change, ReplicaChange::ReplicationFailed { target, .. } if *target == mute.id);
        assert!(changes.iter().any(failed), "{changes:?}");
    });
}

#[test]
fn a_reader_that_takes_nothing_gives_its_place_to_the_next_one() {
    SimWorld::run(9, async |world| {
        let cluster = Cluster::start_with(world, 1, |config| config.reads = 1).await;
        let bytes = content(1, 3_000_000);
        cluster.put(block(1, 1), &bytes, &[0]).await;
        let token = cluster.token(block(1, 1), TokenMode::Read);
        let open = ReadBlock { block: block(1, 1), offset: 0, len_bytes: u64::MAX, leaves: true, token };
        let open = StreamOpen::ReadBlock(Box::new(open));
        let address = cluster.nodes[0].location.address;
        let (_send, mut receive) = cluster.client.stream(address, Role::Datanode, &open).await.unwrap();
        assert!(matches!(receive.expect("a reply").await, Ok(ReadReply::Bytes { .. })));
        let clock = cluster.world.clock();
        // A reader that is slow is not cut off.
        clock.sleep(Duration::from_secs(200)).await;
        let mut left = receive.exactly(1_500_000).await.unwrap().concat();
        assert_eq!(left, bytes[..1_500_000]);
        let next = clock.timeout(Duration::from_secs(600), cluster.read(0, block(1, 1), 0, u64::MAX)).await;
        assert_eq!(next, Some(whole(&bytes)));
        // The first one sees that its stream is over, and goes on with another.
        let rest = loop {
            match receive.bytes(1 << 20).await {
                Ok(Some(piece)) => left.extend_from_slice(&piece),
                ended => break ended,
            }
        };
        assert!(rest.is_err() && left.len() < bytes.len(), "{rest:?} after {} bytes", left.len());
    });
}
