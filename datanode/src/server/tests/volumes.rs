use std::path::{Path, PathBuf};

use situ_runtime::clock::Clock;
use situ_runtime::disk::faulty::{Fault, Faults, FaultyDisk, Operation, Rule};
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_runtime::sim::{SimClock, SimRuntime, SimWorld};
use situ_runtime::store::{Store, StoreError};
use situ_runtime::transport::sim::SimTransport;
use situ_runtime::{Runtime, Task};
use situ_wire::block::Block;
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::{WriteAck, WriteStage};
use situ_wire::messages::namenode::{DatanodeCommand, ReplicaChange};

use super::harness::{Cluster, block, content, whole};
use crate::DatanodeConfig;

fn data_path(block: Block) -> PathBuf {
    PathBuf::from(format!("/v1/current/00/00/{block}.data"))
}

/// A simulated world with a disk that fails on script.
#[derive(Clone)]
struct FaultyRuntime {
    host: SimRuntime,
    disk: FaultyDisk<MemoryDisk>,
}

impl Runtime for FaultyRuntime {
    type Clock = SimClock;
    type Transport = SimTransport;
    type Disk = FaultyDisk<MemoryDisk>;

    fn clock(&self) -> &SimClock {
        self.host.clock()
    }

    fn transport(&self) -> &SimTransport {
        self.host.transport()
    }

    fn disk(&self) -> &FaultyDisk<MemoryDisk> {
        &self.disk
    }

    fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        self.host.open_store(path)
    }

    fn random(&self, bytes: &mut [u8]) {
        self.host.random(bytes);
    }

    fn spawn<F>(&self, name: &'static str, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.spawn(name, task)
    }

    fn blocking<F, O>(&self, work: F) -> impl Future<Output = O> + Send
    where
        F: FnOnce() -> O + Send + 'static,
        O: Send + 'static,
    {
        self.host.blocking(work)
    }
}

/// Starts the datanode `dn0` on a disk that fails on script.
async fn start_faulty(cluster: &mut Cluster, adapt: impl Fn(&mut DatanodeConfig)) -> FaultyDisk<MemoryDisk> {
    let host = cluster.world.host("dn0", &[Role::Datanode]);
    let disk = FaultyDisk::new(host.disk().clone(), Faults::new(5));
    let runtime = FaultyRuntime { host: host.clone(), disk: disk.clone() };
    let member = cluster.start_datanode_on(runtime, host, "dn0", adapt).await;
    cluster.nodes.push(member);
    disk
}

fn is_received((_, change): &(DatanodeId, ReplicaChange), block: Block) -> bool {
    matches!(change, ReplicaChange::Received { replica, .. } if replica.block == block)
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
        // A write under way does not hold it up.
        let open = cluster.open(block(2, 1), WriteStage::Create, &[0]);
        let mut stream = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
        stream.send(&bytes).await;
        let began = cluster.world.clock().now();
        handle.shutdown();
        assert_eq!(handle.stopped().await, Ok(()));
        let took = cluster.world.clock().now().since(began);
        assert!(took < std::time::Duration::from_secs(1), "it took {took:?}");
        cluster.nodes[0] = cluster.start_datanode("dn0", |_| {}).await;
        assert_eq!(cluster.nodes[0].handle.id(), handle.id());
        assert_eq!(cluster.read(0, block(1, 1), 0, 1).await.unwrap_err().code, ErrorCode::Unavailable);
        cluster.start_namenode().await;
        cluster.wait(|told| !told.holders(block(1, 1)).is_empty()).await;
        assert_eq!(cluster.read(0, block(1, 1), 0, u64::MAX).await, whole(&bytes));
    });
}

#[test]
fn a_replica_that_cannot_be_read_for_a_while_is_told_of_and_is_there_after_the_next_start() {
    SimWorld::run(6, async |world| {
        let mut cluster = Cluster::start(world, 0).await;
        let disk = start_faulty(&mut cluster, |_| {}).await;
        cluster.wait(|told| told.reports == 1).await;
        let (id, bytes) = (cluster.id(0), content(1, 1000));
        cluster.put(block(1, 1), &bytes, &[0]).await;
        // A reader meets it, and so does the verification that follows.
        for _ in 0..2 {
            let rule = Rule::new(Operation::Open, 0, Fault::Fail);
            disk.faults().add(Rule { under: data_path(block(1, 1)), ..rule });
        }
        assert!(cluster.read(0, block(1, 1), 0, 1).await.is_err());
        cluster.wait(|told| told.changes.contains(&(id, ReplicaChange::Corrupt { block: block(1, 1) }))).await;
        cluster.restart(0, false).await;
        cluster.wait(|told| !told.holders(block(1, 1)).is_empty()).await;
        assert_eq!(cluster.read(0, block(1, 1), 0, u64::MAX).await, whole(&bytes));
    });
}

#[test]
fn a_datanode_without_open_files_keeps_its_replicas_and_its_volumes() {
    SimWorld::run(7, async |world| {
        let mut cluster = Cluster::start(world, 0).await;
        let disk = start_faulty(&mut cluster, |_| {}).await;
        cluster.wait(|told| told.reports == 1).await;
        let (id, bytes) = (cluster.id(0), content(1, 1000));
        cluster.put(block(1, 1), &bytes, &[0]).await;
        let exhaust = || disk.faults().add(Rule::new(Operation::Open, 0, Fault::Exhaust));
        exhaust();
        assert_eq!(cluster.read(0, block(1, 1), 0, 1).await.unwrap_err().code, ErrorCode::Unavailable);
        assert_eq!(cluster.read(0, block(1, 1), 0, u64::MAX).await, whole(&bytes));
        // A write meets it, and so does the probe of its volume.
        exhaust();
        exhaust();
        let refused = cluster.put(block(2, 1), &bytes, &[0]).await;
        assert!(matches!(refused, WriteAck::Failed { .. }), "{refused:?}");
        // The namenode doubts the replica; the first verification comes to nothing.
        exhaust();
        cluster.command(0, DatanodeCommand::Verify { blocks: vec![block(1, 1)] });
        cluster.wait(|told| told.changes.iter().filter(|change| is_received(change, block(1, 1))).count() == 2).await;
        let ack = cluster.put(block(3, 1), &bytes, &[0]).await;
        assert_eq!(ack, WriteAck::Finished { replicas: vec![id] });
    });
}

#[test]
fn a_volume_whose_disk_fails_is_ejected_and_the_datanode_lives_until_the_last_one_fails() {
    SimWorld::run(5, async |world| {
        let mut cluster = Cluster::start(world, 0).await;
        let two_volumes = |config: &mut DatanodeConfig| {
            config.volumes = vec![PathBuf::from("/v1"), PathBuf::from("/v2")];
        };
        let disk = start_faulty(&mut cluster, two_volumes).await;
        cluster.wait(|told| told.reports == 2).await;
        let (id, bytes) = (cluster.id(0), content(1, 100_000));
        for number in 1..5 {
            let ack = cluster.put(block(number, 1), &bytes, &[0]).await;
            assert!(matches!(ack, WriteAck::Finished { .. }), "{ack:?}");
        }
        let on_one = |number: u64| disk.inner().exists(&data_path(block(number, 1))).unwrap();
        let (lost, kept): (Vec<u64>, Vec<u64>) = (1..5).partition(|number| on_one(*number));
        assert_eq!((lost.len(), kept.len()), (2, 2), "volumes take turns");
        let die = |under: &str| {
            let rule = Rule::new(Operation::Write, 0, Fault::Die);
            disk.faults().add(Rule { under: PathBuf::from(under), ..rule });
        };
        die("/v1");
        // One of two writes meets the failing disk; its client is told who and why.
        let mut failures = Vec::new();
        for number in 5..7 {
            if let WriteAck::Failed { datanode, error } = cluster.put(block(number, 1), &bytes, &[0]).await {
                failures.push((datanode, error.code));
            }
        }
        assert_eq!(failures, [(id, ErrorCode::Io)]);
        cluster.wait(|told| told.failed_volumes.get(&id) == Some(&1)).await;
        cluster.wait(|told| lost.iter().all(|number| told.holders(block(*number, 1)).is_empty())).await;
        for number in lost {
            assert_eq!(cluster.read(0, block(number, 1), 0, 1).await.unwrap_err().code, ErrorCode::NotFound);
        }
        for number in kept {
            assert_eq!(cluster.read(0, block(number, 1), 0, u64::MAX).await, whole(&bytes));
        }
        let ack = cluster.put(block(7, 1), &bytes, &[0]).await;
        assert!(matches!(ack, WriteAck::Finished { .. }), "{ack:?}");
        die("/v2");
        let open = cluster.open(block(8, 1), WriteStage::Create, &[0]);
        let mut stream = cluster.write(open, 0).await.unwrap_or_else(|ack| panic!("{ack:?}"));
        stream.send(&bytes).await;
        let stopped = cluster.nodes[0].handle.stopped().await;
        assert!(matches!(stopped, Err(crate::DatanodeError::NoVolumes(_))), "{stopped:?}");
    });
}

#[test]
fn a_datanode_serves_its_good_volumes_and_tells_of_those_that_are_not_mounted() {
    SimWorld::run(8, async |world| {
        let mut cluster = Cluster::start_with(world, 1, |config| {
            config.volumes = vec![PathBuf::from("/v1"), PathBuf::from("/v2")];
        })
        .await;
        cluster.wait(|told| told.reports == 2).await;
        let (id, bytes) = (cluster.id(0), content(1, 1000));
        for number in [1, 2] {
            cluster.put(block(number, 1), &bytes, &[0]).await;
        }
        let host = cluster.nodes[0].runtime.clone();
        let disk = host.disk().clone();
        let on_two = if disk.exists(&data_path(block(1, 1))).unwrap() { 2 } else { 1 };
        let mut config = DatanodeConfig::new("dn0", cluster.namenode(), vec!["/v1".into(), "/v2".into()]);
        let stop = async |cluster: &Cluster| {
            cluster.nodes[0].handle.shutdown();
            cluster.nodes[0].handle.stopped().await.unwrap();
        };
        stop(&cluster).await;
        // The disk of one volume is not mounted: only its mount point is there.
        disk.rename(Path::new("/v2"), Path::new("/elsewhere")).unwrap();
        disk.create_directory(Path::new("/v2/lost+found")).unwrap();
        cluster.start_namenode().await;
        cluster.nodes[0] = cluster.try_start_datanode_on(host.clone(), host.clone(), config.clone()).await.unwrap();
        cluster.wait(|told| told.failed_volumes.get(&id) == Some(&1)).await;
        let registered = cluster.told.borrow().registered[&id].clone();
        let reasons: Vec<_> = registered.volumes.iter().filter_map(|volume| volume.failed.as_deref()).collect();
        assert!(reasons.len() == 1 && reasons[0].contains("/v2: expected its VERSION file"), "{reasons:?}");
        assert!(cluster.read(0, block(on_two, 1), 0, 1).await.is_err());
        assert_eq!(cluster.read(0, block(3 - on_two, 1), 0, u64::MAX).await, whole(&bytes));
        let ack = cluster.put(block(3, 1), &bytes, &[0]).await;
        assert_eq!(ack, WriteAck::Finished { replicas: vec![id] });
        assert!(!disk.exists(Path::new("/v2/VERSION")).unwrap(), "nothing is made of it");
        // With that volume alone it does not start.
        stop(&cluster).await;
        config.volumes = vec!["/v2".into()];
        let Err(error) = cluster.try_start_datanode_on(host.clone(), host.clone(), config.clone()).await else {
            panic!("it started without a volume")
        };
        assert!(error.to_string().contains("/v2: expected its VERSION file, found an empty directory"), "{error}");
        // The disk is back.
        disk.remove_directory(Path::new("/v2")).unwrap();
        disk.rename(Path::new("/elsewhere"), Path::new("/v2")).unwrap();
        config.volumes = vec!["/v1".into(), "/v2".into()];
        cluster.start_namenode().await;
        cluster.nodes[0] = cluster.try_start_datanode_on(host.clone(), host, config).await.unwrap();
        cluster.wait(|told| told.reports == 2).await;
        for number in 1..4 {
            assert_eq!(cluster.told.borrow().holders(block(number, 1)), [id]);
        }
    });
}

#[test]
fn a_volume_that_is_unmounted_under_a_running_datanode_is_out_of_use() {
    SimWorld::run(9, async |world| {
        let cluster = Cluster::start_with(world, 1, |config| {
            config.volumes = vec![PathBuf::from("/v1"), PathBuf::from("/v2")];
        })
        .await;
        let disk = cluster.nodes[0].runtime.disk();
        disk.rename(Path::new("/v2"), Path::new("/elsewhere")).unwrap();
        disk.create_directory(Path::new("/v2")).unwrap();
        let id = cluster.id(0);
        cluster.wait(|told| told.failed_volumes.get(&id) == Some(&1)).await;
        for number in 1..4 {
            let ack = cluster.put(block(number, 1), &content(number, 1000), &[0]).await;
            assert_eq!(ack, WriteAck::Finished { replicas: vec![id] });
        }
    });
}
