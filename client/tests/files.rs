//! Files written and read through a simulated cluster, whose servers fail where it hurts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod fake;

use std::time::Duration;

use bytes::Bytes;
use fake::{Cluster, Kill, bytes, path};
use situ_client::{ClientError, CreateOptions};
use situ_runtime::clock::Clock;
use situ_runtime::sim::SimWorld;
use situ_wire::error::{ErrorCode, RemoteError};

/// Three blocks of the test's block length, the last one not full.
const LEN: usize = 600_000;

async fn put(cluster: &Cluster, name: &str, data: &[u8], piece: usize) -> Result<(), ClientError> {
    let mut writer = cluster.client.create(&path(name), CreateOptions::default()).await?;
    for piece in data.chunks(piece) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    let written = writer.close().await?;
    assert_eq!(written.len_bytes, data.len() as u64);
    Ok(())
}

async fn get(cluster: &Cluster, name: &str) -> Result<Vec<u8>, ClientError> {
    let reader = cluster.client.open(&path(name)).await?;
    let mut stream = reader.stream(0..u64::MAX);
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

/// Every replica that the namenode counts holds its block's bytes in its present life.
fn check_replicas(cluster: &Cluster, name: &str, expected: &[u8]) -> Vec<usize> {
    let state = cluster.namenode.state();
    let file = &state.files[&path(name)];
    assert!(!file.open);
    let mut at = 0;
    let mut counts = Vec::new();
    for block in &file.blocks {
        let committed = block.committed.as_ref().unwrap();
        let end = at + usize::try_from(committed.len_bytes).unwrap();
        for id in &committed.replicas {
            let datanode = cluster.datanodes.iter().find(|datanode| datanode.location.id == *id).unwrap();
            let replica = datanode.state().replicas[&block.block.id].clone();
            assert_eq!(replica.generation, block.block.generation);
            assert!(replica.bytes == expected[at..end], "a replica holds what was written");
        }
        counts.push(committed.replicas.len());
        at = end;
    }
    assert_eq!(at, expected.len());
    counts
}

#[test]
fn what_is_written_is_read_in_whole_and_in_part() {
    SimWorld::run(1, async |world| {
        let cluster = Cluster::start(&world).await;
        let data = bytes(LEN);
        for (name, piece) in [("/small-pieces", 777), ("/one-piece", LEN), ("/odd", 65_537)] {
            put(&cluster, name, &data, piece).await.unwrap();
            assert_eq!(check_replicas(&cluster, name, &data), [3, 3, 3]);
            assert!(get(&cluster, name).await.unwrap() == data);
        }
        let reader = cluster.client.open(&path("/odd")).await.unwrap();
        assert_eq!(reader.len_bytes(), LEN as u64);
        assert_eq!(reader.blocks().await.unwrap().len(), 3);
        for (from, len) in [(0, 1), (65_535, 2), (262_143, 2), (100, 500_000), (LEN - 1, 10), (LEN, 1), (LEN + 5, 1)] {
            let expected = &data[from.min(LEN)..(from + len).min(LEN)];
            assert_eq!(reader.read_at(from as u64, len).await.unwrap(), expected, "{len} bytes at {from}");
        }
        let statistics = reader.statistics();
        assert_eq!((statistics.remote_bytes, statistics.failovers), (0, 0), "the own node's replicas are good");
        put(&cluster, "/empty", &[], 1).await.unwrap();
        assert_eq!(get(&cluster, "/empty").await.unwrap(), []);
    });
}

#[test]
fn a_datanode_that_dies_anywhere_in_a_pipeline_does_not_show() {
    let points = [Kill::BeforeReady, Kill::AtLength(1), Kill::AtLength(200_000), Kill::AtFinish, Kill::AfterFinish];
    for victim in 0..3 {
        for point in points {
            SimWorld::run(7, async |world| {
                let cluster = Cluster::start(&world).await;
                cluster.datanodes[victim].state().kill = Some(point);
                let data = bytes(LEN);
                put(&cluster, "/f", &data, 50_000).await.unwrap();
                let counts = check_replicas(&cluster, "/f", &data);
                assert!(counts.iter().all(|count| *count == 2), "{point:?} of {victim}: {counts:?}");
                assert!(get(&cluster, "/f").await.unwrap() == data);
            });
        }
    }
}

#[test]
fn two_datanodes_that_die_one_after_the_other_do_not_show() {
    SimWorld::run(3, async |world| {
        let cluster = Cluster::start(&world).await;
        cluster.datanodes[0].state().kill = Some(Kill::AtLength(100_000));
        cluster.datanodes[1].state().kill = Some(Kill::AtFinish);
        let data = bytes(LEN);
        put(&cluster, "/f", &data, 10_000).await.unwrap();
        assert_eq!(check_replicas(&cluster, "/f", &data), [1, 1, 1]);
        assert!(get(&cluster, "/f").await.unwrap() == data);
    });
}

#[test]
fn a_datanode_that_hangs_or_refuses_is_replaced() {
    SimWorld::run(3, async |world| {
        let cluster = Cluster::start(&world).await;
        cluster.datanodes[0].state().mute = true;
        let full = RemoteError::new(ErrorCode::DiskFull, "dn2", "no room");
        cluster.datanodes[1].state().refuse = Some(full);
        let data = bytes(1000);
        put(&cluster, "/f", &data, 1000).await.unwrap();
        assert_eq!(check_replicas(&cluster, "/f", &data), [1]);
        assert_eq!(cluster.namenode.state().abandoned, 2);
    });
}

#[test]
fn when_no_datanode_is_left_the_error_says_what_was_tried() {
    SimWorld::run(3, async |world| {
        let cluster = Cluster::start(&world).await;
        for datanode in &cluster.datanodes {
            datanode.state().kill = Some(Kill::AtLength(150_000));
        }
        let error = put(&cluster, "/f", &bytes(LEN), 100_000).await.unwrap_err();
        let ClientError::Write(write) = &error else { panic!("{error}") };
        assert!(write.failures.len() >= 3, "{error}");
        assert!(error.to_string().starts_with("cannot write /f: no datanode is left"), "{error}");
        assert!(cluster.namenode.state().files[&path("/f")].open, "a file that failed is never seen as whole");
    });
}

#[test]
fn a_lost_answer_is_asked_for_again_and_applied_once() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(&world).await;
        let data = bytes(1000);
        // Create, AddBlock and Complete: the answer to each is lost once.
        cluster.namenode.state().lose_answers = 1;
        let mut writer = cluster.client.create(&path("/f"), CreateOptions::default()).await.unwrap();
        cluster.namenode.state().lose_answers = 2;
        writer.write(Bytes::from(data.clone())).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(cluster.namenode.state().lose_answers, 0);
        assert_eq!(cluster.namenode.state().applied, 3);
        assert!(get(&cluster, "/f").await.unwrap() == data);
    });
}

#[test]
fn a_namenode_that_is_not_ready_is_waited_for_and_a_refusal_is_final() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(&world).await;
        let safe_mode = RemoteError::new(ErrorCode::SafeMode, "/d", "it waits for reports");
        cluster.namenode.state().refuse = Some((5, safe_mode));
        cluster.client.mkdir(&path("/d"), false, 0o755).await.unwrap();
        assert_eq!(cluster.namenode.state().applied, 1);

        let denied = RemoteError::new(ErrorCode::PermissionDenied, "/d", "it belongs to bob");
        cluster.namenode.state().refuse = Some((1, denied));
        let error = cluster.client.mkdir(&path("/d"), false, 0o755).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot make directory /d: it belongs to bob");

        world.kill("nn");
        let before = world.clock().now();
        let error = cluster.client.stat(&path("/d")).await.unwrap_err();
        let waited = world.clock().now().since(before);
        assert!(waited >= Duration::from_secs(60) && waited < Duration::from_secs(80), "{waited:?}");
        assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
    });
}

#[test]
fn leases_are_renewed_while_a_file_is_open_and_an_aborted_file_is_gone() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(&world).await;
        let mut writer = cluster.client.create(&path("/f"), CreateOptions::default()).await.unwrap();
        writer.write(Bytes::from(bytes(10))).await.unwrap();
        world.clock().sleep(Duration::from_secs(35)).await;
        assert_eq!(cluster.namenode.state().renewals, 3);
        writer.abort().await.unwrap();
        assert!(cluster.namenode.state().files.is_empty());
        world.clock().sleep(Duration::from_secs(60)).await;
        assert_eq!(cluster.namenode.state().renewals, 3);

        let writer = cluster.client.create(&path("/g"), CreateOptions::default()).await.unwrap();
        drop(writer);
        world.clock().sleep(Duration::from_secs(60)).await;
        assert!(cluster.namenode.state().files[&path("/g")].open, "a writer that is dropped closes nothing");
    });
}

/// Flips a bit of each replica on these datanodes.
fn corrupt(cluster: &Cluster, datanodes: &[usize]) {
    for datanode in datanodes {
        for replica in cluster.datanodes[*datanode].state().replicas.values_mut() {
            replica.bytes[70_000] ^= 1;
        }
    }
}

#[test]
fn wrong_bytes_are_never_given_and_are_reported() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(&world).await;
        let data = bytes(200_000);
        put(&cluster, "/f", &data, 50_000).await.unwrap();
        corrupt(&cluster, &[0, 1]);
        let reader = cluster.client.open(&path("/f")).await.unwrap();
        assert!(reader.read_at(0, data.len()).await.unwrap() == data);
        let statistics = reader.statistics();
        assert_eq!((statistics.failovers, statistics.corrupt), (2, 2));
        world.clock().sleep(Duration::from_secs(1)).await;
        let reported: Vec<_> = cluster.namenode.state().corrupt.iter().map(|(_, datanode)| datanode.0).collect();
        assert_eq!(reported, [1, 2]);

        corrupt(&cluster, &[2]);
        let before = world.clock().now();
        let error = reader.read_at(0, data.len()).await.unwrap_err();
        assert!(world.clock().now().since(before) < Duration::from_secs(1), "wrong bytes are not waited for");
        let ClientError::Unreadable(unreadable) = &error else { panic!("{error}") };
        assert_eq!((unreadable.damaged, unreadable.offset), (true, 65_536));
        assert!(unreadable.failures.len() >= 3, "{error}");
        let text = error.to_string();
        for node in ["dn1 at", "dn2 at", "dn3 at", "not those that were written"] {
            assert!(text.contains(node), "{text}");
        }
        // What lies before the flipped bit is still read.
        assert!(reader.read_at(0, 60_000).await.unwrap() == data[..60_000]);
    });
}

#[test]
fn a_datanode_that_dies_while_it_is_read_is_replaced_and_then_tried_last() {
    SimWorld::run(5, async |world| {
        let cluster = Cluster::start(&world).await;
        let data = bytes(5 * LEN);
        put(&cluster, "/f", &data, 50_000).await.unwrap();
        let reader = cluster.client.open(&path("/f")).await.unwrap();
        let mut stream = reader.stream(0..u64::MAX);
        let first = stream.next().await.unwrap().unwrap();
        world.kill("dn1");
        let mut all = first.to_vec();
        while let Some(piece) = stream.next().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        assert!(all == data);
        assert!(reader.statistics().remote_bytes > 0);
        let failovers = reader.statistics().failovers;
        assert!(reader.read_at(0, data.len()).await.unwrap() == data);
        assert_eq!(reader.statistics().failovers, failovers, "who failed lately is not tried first");
    });
}
