//! A client, a namenode and three datanodes, all of them the real ones, in a simulated world: what is written is read,
//! whoever dies meanwhile.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use situ_client::{Client, ClientConfig, ClientError, CreateOptions};
use situ_datanode::{Datanode, DatanodeConfig};
use situ_namenode::{Namenode, NamenodeConfig};
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_runtime::transport::Transport;
use situ_wire::hello::Role;
use situ_wire::ids::NodeName;
use situ_wire::messages::namenode::{ClusterReport, Liveness};
use situ_wire::path::DfsPath;
use situ_wire::time::CLOCKS_AGREE_MS;

const LEN: usize = 3_000_000;

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

fn bytes(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 7 + at / 251 + salt) % 256).unwrap()).collect()
}

/// Starts the namenode; it runs until its host is killed.
async fn start_namenode(world: &SimWorld) -> SocketAddr {
    let runtime = world.host("nn", &[Role::Namenode]);
    let config: NamenodeConfig = serde_json::from_str(
        r#"{"directory": "/nn", "reserve_bytes": 0, "superuser": "ann", "safe_mode_extension_ms": 100}"#,
    )
    .unwrap();
    if situ_namenode::formatted_cluster(runtime.disk(), &config.directory).unwrap().is_none() {
        situ_namenode::format(runtime.disk(), &config.directory, world.cluster()).unwrap();
    }
    let listener = runtime.transport().listen(any(7400)).await.unwrap();
    let handle = Namenode::start(runtime.clone(), config, world.cluster(), listener).await.unwrap();
    let address = SocketAddr::new(world.ip("nn").unwrap(), handle.address().port());
    runtime.spawn("namenode-handle", async move { handle.stopped().await });
    address
}

async fn start_datanode(world: &SimWorld, name: &str, namenode: SocketAddr) {
    let runtime = world.host(name, &[Role::Datanode]);
    let mut config = DatanodeConfig::new(name, namenode, vec![PathBuf::from("/volume")]);
    config.reserved_bytes = 0;
    config.advertise = Some(SocketAddr::new(world.ip(name).unwrap(), 7500));
    situ_datanode::format(runtime.disk(), &config.volumes, world.cluster(), || runtime.random_u128()).unwrap();
    let listener = runtime.transport().listen(any(7500)).await.unwrap();
    Datanode::start(runtime, config, world.cluster(), listener).await.unwrap();
}

async fn start(world: &SimWorld) -> Client<SimRuntime> {
    let namenode = start_namenode(world).await;
    for name in ["dn1", "dn2", "dn3"] {
        start_datanode(world, name, namenode).await;
    }
    let mut config = ClientConfig::new(world.cluster(), namenode);
    config.node = Some(NodeName("dn1".into()));
    config.block_len_bytes = 1 << 20;
    let client = Client::new(world.host("ann", &[Role::User]), config.clone(), config.user("ann"));
    let mut tries = 0;
    while client.report().await.unwrap().datanodes.len() < 3 {
        world.clock().sleep(Duration::from_millis(50)).await;
        tries += 1;
        assert!(tries < 1000, "datanodes register");
    }
    client
}

async fn put(client: &Client<SimRuntime>, name: &str, data: &[u8]) -> Result<(), ClientError> {
    let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
    let mut writer = client.create(&path(name), options).await?;
    for piece in data.chunks(100_000) {
        writer.write(Bytes::copy_from_slice(piece)).await?;
    }
    writer.close().await.map(drop)
}

async fn get(client: &Client<SimRuntime>, name: &str) -> Result<Vec<u8>, ClientError> {
    let mut stream = client.open(&path(name)).await?.stream(0..u64::MAX);
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[test]
fn what_is_written_is_read_and_the_namespace_answers() {
    SimWorld::run(1, async |world| {
        let client = start(&world).await;
        let data = bytes(LEN, 0);
        client.mkdir(&path("/d/e"), true, 0o755).await.unwrap();
        put(&client, "/d/f", &data).await.unwrap();
        assert!(get(&client, "/d/f").await.unwrap() == data);
        let (status, blocks) = client.blocks(&path("/d/f")).await.unwrap();
        assert_eq!((status.len_bytes(), blocks.len()), (LEN as u64, 3));
        assert!(blocks.iter().all(|block| block.locations.len() == 3 && block.locations[0].node.0 == "dn1"));
        let reader = client.open(&path("/d/f")).await.unwrap();
        assert_eq!(reader.read_at(1_048_570, 12).await.unwrap(), data[1_048_570..1_048_582]);
        assert_eq!((reader.statistics().local_bytes, reader.statistics().remote_bytes), (12, 0));
        client.rename(&path("/d/f"), &path("/d/g"), false).await.unwrap();
        let names: Vec<_> = client.list_all(&path("/d")).await.unwrap();
        assert_eq!(names.iter().map(|status| status.path.name()).collect::<Vec<_>>(), ["e", "g"]);
        assert_eq!(client.summary(&path("/d")).await.unwrap().len_bytes, LEN as u64);
        let health = client.fsck(&path("/")).next_page().await.unwrap().unwrap();
        assert_eq!(health[0].blocks.len(), 3);
        assert!(client.delete(&path("/d"), true).await.unwrap());
        assert!(!client.exists(&path("/d/g")).await.unwrap());
    });
}

#[test]
fn a_datanode_that_dies_while_files_are_written_and_read_does_not_show() {
    for (seed, victim) in [(1, "dn1"), (2, "dn2"), (3, "dn3")] {
        for after_ms in [0, 1, 3, 10, 30] {
            SimWorld::run(seed, async |world| {
                let client = start(&world).await;
                let data = bytes(LEN, 0);
                let (written, ()) = tokio::join!(put(&client, "/f", &data), async {
                    world.clock().sleep(Duration::from_millis(after_ms)).await;
                    world.kill(victim);
                });
                written.unwrap();
                assert!(get(&client, "/f").await.unwrap() == data, "{victim} after {after_ms} ms");
            });
        }
    }
}

#[test]
fn what_was_closed_is_there_after_a_power_cut_of_all() {
    SimWorld::run(4, async |world| {
        let client = start(&world).await;
        let data = bytes(LEN, 0);
        put(&client, "/f", &data).await.unwrap();
        for name in ["nn", "dn1", "dn2", "dn3"] {
            world.crash(name);
        }
        let namenode = start_namenode(&world).await;
        for name in ["dn1", "dn2", "dn3"] {
            start_datanode(&world, name, namenode).await;
        }
        assert!(get(&client, "/f").await.unwrap() == data);
        put(&client, "/g", &data).await.unwrap();
        assert!(get(&client, "/g").await.unwrap() == data);
    });
}

#[test]
fn a_namenode_that_is_away_is_waited_for_in_the_middle_of_a_file() {
    SimWorld::run(5, async |world| {
        let client = start(&world).await;
        let data = bytes(LEN, 0);
        let (written, ()) = tokio::join!(put(&client, "/f", &data), async {
            world.clock().sleep(Duration::from_millis(5)).await;
            world.kill("nn");
            world.clock().sleep(Duration::from_secs(5)).await;
            start_namenode(&world).await;
        });
        written.unwrap();
        assert!(get(&client, "/f").await.unwrap() == data);
    });
}

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;
const STEPS_MS: [i64; 4] = [HOUR_MS, -HOUR_MS, YEAR_MS, -YEAR_MS];

/// Kills a host of the cluster and starts what ran there.
async fn restart(world: &SimWorld, name: &str, namenode: SocketAddr) {
    match name {
        "nn" => assert_eq!(start_namenode(world).await, namenode),
        name => start_datanode(world, name, namenode).await,
    }
}

/// Waits until all datanodes are registered with a namenode that is in no safe mode.
async fn settled(world: &SimWorld, client: &Client<SimRuntime>) -> ClusterReport {
    for _ in 0..1000 {
        let report = client.report().await.unwrap();
        let live = report.datanodes.iter().filter(|node| node.liveness == Liveness::Live);
        if live.count() == 3 && report.safe_mode.is_none() {
            return report;
        }
        world.clock().sleep(Duration::from_millis(50)).await;
    }
    panic!("the cluster does not settle")
}

/// Whether no datanode has refused a part of a file that was just written.
async fn whole(client: &Client<SimRuntime>, name: &str) -> bool {
    let (_, blocks) = client.blocks(&path(name)).await.unwrap();
    blocks.iter().all(|block| block.locations.len() == 3)
}

#[test]
fn clocks_that_are_set_stop_nobody_and_neither_do_restarts_afterwards() {
    for (seed, ahead_ms) in (10..).zip(STEPS_MS) {
        for host in ["nn", "dn1", "dn3"] {
            SimWorld::run(seed, async |world| {
                let client = start(&world).await;
                let namenode = SocketAddr::new(world.ip("nn").unwrap(), 7400);
                let data = bytes(LEN, 0);
                put(&client, "/before", &data).await.unwrap();
                let all = async |what: &str| {
                    assert!(get(&client, "/before").await.unwrap() == data, "{what}: {host} by {ahead_ms} ms");
                    put(&client, "/now", &data).await.unwrap();
                    let reader = client.open(&path("/now")).await.unwrap();
                    assert_eq!(reader.read_at(0, 12).await.unwrap(), data[..12], "{what}");
                    assert_eq!(reader.statistics().failovers, 0, "{what}: {host} by {ahead_ms} ms");
                    assert!(whole(&client, "/now").await, "{what}: {host} by {ahead_ms} ms");
                };
                world.set_wall_clock(host, ahead_ms);
                all("after the step").await;
                for again in ["nn", "dn1", "dn2", "dn3"] {
                    restart(&world, again, namenode).await;
                    settled(&world, &client).await;
                    all(&format!("after {again} was started anew")).await;
                }
                world.set_wall_clock(host, 0);
                restart(&world, host, namenode).await;
                settled(&world, &client).await;
                all("after the clock was set right").await;
            });
        }
    }
}

#[test]
fn hosts_whose_clocks_differ_from_the_start_work_together() {
    SimWorld::run(20, async |world| {
        for (host, ahead_ms) in ["nn", "dn1", "dn2", "dn3"].into_iter().zip(STEPS_MS) {
            world.set_wall_clock(host, ahead_ms);
        }
        let client = start(&world).await;
        let data = bytes(LEN, 0);
        put(&client, "/f", &data).await.unwrap();
        let reader = client.open(&path("/f")).await.unwrap();
        assert_eq!(reader.read_at(0, 12).await.unwrap(), data[..12]);
        assert_eq!(reader.statistics().failovers, 0);
        assert!(whole(&client, "/f").await);
    });
}

#[test]
fn a_writer_goes_on_over_a_namenode_that_starts_anew_by_another_clock() {
    for (seed, ahead_ms) in (30..).zip(STEPS_MS) {
        SimWorld::run(seed, async |world| {
            let client = start(&world).await;
            let data = bytes(LEN, 0);
            let options = CreateOptions { overwrite: true, ..CreateOptions::default() };
            let mut writer = client.create(&path("/f"), options).await.unwrap();
            writer.write(Bytes::copy_from_slice(&data[..1_500_000])).await.unwrap();
            world.set_wall_clock("nn", ahead_ms);
            start_namenode(&world).await;
            let begun = world.clock().now();
            writer.write(Bytes::copy_from_slice(&data[1_500_000..])).await.unwrap();
            writer.close().await.unwrap();
            let waited = world.clock().now().since(begun);
            assert!(waited < Duration::from_secs(30), "it was held up for {waited:?}");
            assert!(get(&client, "/f").await.unwrap() == data);
        });
    }
}

#[test]
fn leases_and_datanodes_live_on_when_clocks_are_set_and_times_of_files_follow() {
    for (seed, ahead_ms) in (40..).zip(STEPS_MS) {
        SimWorld::run(seed, async |world| {
            let client = start(&world).await;
            let data = bytes(100_000, 0);
            let mut writer = client.create(&path("/open"), CreateOptions::default()).await.unwrap();
            writer.write(Bytes::copy_from_slice(&data)).await.unwrap();
            for host in ["nn", "dn1", "ann"] {
                world.set_wall_clock(host, ahead_ms);
            }
            world.clock().sleep(Duration::from_secs(1)).await;
            let report = client.report().await.unwrap();
            assert!(report.datanodes.iter().all(|node| node.liveness == Liveness::Live), "{report:?}");
            assert_eq!((report.safe_mode, report.under_replicated), (None, 0));
            put(&client, "/now", &data).await.unwrap();
            let modified = client.stat(&path("/now")).await.unwrap().unwrap().modified;
            let wall = world.clock().wall().0.saturating_add_signed(ahead_ms);
            assert!(modified.0.abs_diff(wall) < 1_000, "{modified:?} by a clock that says {wall}");
            writer.close().await.unwrap();
            assert!(get(&client, "/open").await.unwrap() == data);
        });
    }
}

#[test]
fn a_datanode_whose_clock_differs_shows_in_the_report() {
    SimWorld::run(50, async |world| {
        let client = start(&world).await;
        let differing = async |expected: &[(&str, i64)]| {
            world.clock().sleep(Duration::from_secs(10)).await;
            let report = client.report().await.unwrap();
            let large = report.datanodes.iter().filter(|node| node.clock_ahead_ms.unsigned_abs() > CLOCKS_AGREE_MS);
            let mut found: Vec<_> = large.map(|node| (node.location.node.0.clone(), node.clock_ahead_ms)).collect();
            found.sort();
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for ((node, ahead_ms), (expected, expected_ms)) in found.iter().zip(expected) {
                assert!(node == expected && ahead_ms.abs_diff(*expected_ms) < 1_000, "{node}: {ahead_ms}");
            }
        };
        differing(&[]).await;
        world.set_wall_clock("dn2", HOUR_MS);
        differing(&[("dn2", HOUR_MS)]).await;
        world.set_wall_clock("nn", HOUR_MS);
        differing(&[("dn1", -HOUR_MS), ("dn3", -HOUR_MS)]).await;
        world.set_wall_clock("nn", 0);
        world.set_wall_clock("dn2", 0);
        differing(&[]).await;
    });
}
