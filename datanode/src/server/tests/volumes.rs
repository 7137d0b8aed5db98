use std::path::{Path, PathBuf};

use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_wire::block::Block;
use situ_wire::error::ErrorCode;
use situ_wire::messages::datanode::WriteAck;
use situ_wire::messages::namenode::ReplicaChange;

use super::harness::{Cluster, block, content, whole};

fn data_path(block: Block) -> PathBuf {
    PathBuf::from(format!("/v1/current/00/00/{block}.data"))
}

/// Flips one bit of a replica.
pub(super) fn flip(runtime: &SimRuntime, block: Block, at: u64) {
    let file = runtime.disk().open(&data_path(block), OpenMode::Write).unwrap();
    let byte = file.read_at(at, 1).unwrap()[0] ^ 4;
    file.write_at(at, &[byte]).unwrap();
}

#[test]
fn the_scrubber_finds_a_flipped_bit_and_the_replica_is_served_no_more() {
    SimWorld::run(1, async |world| {
        let mut cluster = Cluster::start_with(world, 1, |config| config.scrub_period_s = 3600).await;
        for id in 1..4 {
            cluster.put(block(id, 1), &content(id, 1_000_000), &[0]).await;
        }
        flip(&cluster.nodes[0].runtime, block(2, 1), 999_999);
        let corrupt = (cluster.id(0), ReplicaChange::Corrupt { block: block(2, 1) });
        cluster.wait(|told| told.changes.contains(&corrupt)).await;
        assert_eq!(cluster.read(0, block(2, 1), 0, 1).await.unwrap_err().code, ErrorCode::Corrupt);
        assert!(cluster.read(0, block(1, 1), 0, 1).await.is_ok());
        // It is remembered, and told to a namenode that has not heard of it.
        cluster.restart(0, true).await;
        cluster.start_namenode().await;
        cluster.wait(|told| told.changes.contains(&corrupt)).await;
        assert_eq!(cluster.told.borrow().holders(block(1, 1)), [cluster.id(0)]);
        assert_eq!(cluster.told.borrow().holders(block(2, 1)), []);
    });
}

#[test]
fn a_replica_that_is_gone_or_cannot_be_opened_is_found_by_its_reader() {
    SimWorld::run(2, async |world| {
        let cluster = Cluster::start(world, 1).await;
        cluster.put(block(1, 1), &content(1, 1000), &[0]).await;
        cluster.put(block(2, 1), &content(2, 1000), &[0]).await;
        let disk = cluster.nodes[0].runtime.disk();
        disk.remove_file(&data_path(block(1, 1))).unwrap();
        disk.open(&data_path(block(2, 1)), OpenMode::Write).unwrap().set_len(10).unwrap();
        assert_eq!(cluster.read(0, block(1, 1), 0, 1).await.unwrap_err().code, ErrorCode::Corrupt);
        assert_eq!(cluster.read(0, block(2, 1), 0, 1).await.unwrap_err().code, ErrorCode::Corrupt);
        let id = cluster.id(0);
        cluster.wait(|told| told.changes.contains(&(id, ReplicaChange::Deleted { block: block(1, 1) }))).await;
        cluster.wait(|told| told.changes.contains(&(id, ReplicaChange::Corrupt { block: block(2, 1) }))).await;
    });
}

#[test]
fn the_index_may_be_deleted_or_wrong() {
    SimWorld::run(3, async |world| {
        let mut cluster = Cluster::start(world, 1).await;
        for id in 1..4 {
            let ack = cluster.put(block(id, 1), &content(id, 1000), &[0]).await;
            assert!(matches!(ack, WriteAck::Finished { .. }));
        }
        cluster.nodes[0].handle.shutdown();
        cluster.nodes[0].handle.stopped().await.unwrap();
        let disk = cluster.nodes[0].runtime.disk().clone();
        assert!(disk.exists(Path::new("/v1/index")).unwrap(), "there is an index");
        disk.remove_directory(Path::new("/v1/index")).unwrap();
        // One file goes while nobody looks.
        disk.remove_file(&data_path(block(3, 1))).unwrap();
        for _ in 0..2 {
            cluster.restart(0, false).await;
            cluster.start_namenode().await;
            cluster.wait(|told| told.reports == 1).await;
            let id = cluster.id(0);
            let holders = |number| cluster.told.borrow().holders(block(number, 1));
            assert_eq!((holders(1), holders(2), holders(3)), (vec![id], vec![id], vec![]));
            assert!(cluster.read(0, block(2, 1), 0, 1).await.is_ok());
        }
    });
}

#[test]
fn a_datanode_that_shuts_down_frees_its_volumes_and_one_without_a_namenode_waits() {
    SimWorld::run(4, async |world| {
        let mut cluster = Cluster::start(world, 1).await;
        let bytes = content(1, 1000);
        cluster.put(block(1, 1), &bytes, &[0]).await;
        cluster.world.kill("namenode");
        let handle = cluster.nodes[0].handle.clone();
        handle.shutdown();
        assert_eq!(handle.stopped().await, Ok(()));
        cluster.nodes[0] = cluster.start_datanode("dn0", |_| {}).await;
        assert_eq!(cluster.nodes[0].handle.id(), handle.id());
        assert_eq!(cluster.read(0, block(1, 1), 0, 1).await.unwrap_err().code, ErrorCode::Unavailable);
        cluster.start_namenode().await;
        cluster.wait(|told| !told.holders(block(1, 1)).is_empty()).await;
        assert_eq!(cluster.read(0, block(1, 1), 0, u64::MAX).await, whole(&bytes));
    });
}
