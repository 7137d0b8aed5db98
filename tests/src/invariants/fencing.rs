//! Deleted data never comes back; no live block is deleted by a stale command.

use std::path::Path;

use situ_tests::harness::{TestCluster, bytes};
use situ_wire::messages::namenode::Liveness;

use crate::SITU;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_a_datanode_was_away_does_not_come_back_with_it() {
    let mut situ = TestCluster::start(SITU, 3, 1).await;
    let kept = bytes(1, 100_000);
    situ.put("/kept", &kept).await;
    situ.put("/gone", &bytes(2, 100_000)).await;
    situ.cluster.nodes[0].datanode.as_mut().unwrap().kill().await.unwrap();
    let _ = situ.situ(&["fs", "rm", "/gone"], b"").ok();
    situ.cluster.nodes[0].datanode.as_mut().unwrap().restart().await.unwrap();
    let report = situ
        .wait_for("only what is kept has replicas", |report| {
            report.under_replicated == 0
                && report.datanodes.len() == 3
                && report.datanodes.iter().all(|node| node.replicas == 1)
        })
        .await;
    assert_eq!((report.files, report.blocks, report.missing), (1, 1, 0));
    situ.situ(&["fs", "cat", "/gone"], b"").fails(1, &["/gone"]);
    assert!(situ.read("/kept").await.unwrap() == kept);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_that_are_too_many_go_and_enough_stay() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    let expected = bytes(3, 300_000);
    situ.put("/file", &expected).await;
    // A node that has a replica goes away until copies are made, and comes back with it.
    let fsck = situ.situ(&["--json", "fsck", "/file"], b"").ok();
    let health: serde_json::Value = serde_json::from_slice(&fsck.out).unwrap();
    let name = health["blocks"][0]["replicas"][0]["node"].as_str().unwrap().to_owned();
    let away = situ.cluster.nodes.iter().position(|node| node.name == name).unwrap();
    situ.cluster.nodes[away].datanode.as_mut().unwrap().kill().await.unwrap();
    situ.wait_for("the loss is noticed", |report| report.datanodes.iter().any(|node| node.liveness == Liveness::Dead))
        .await;
    situ.wait_whole().await;
    situ.cluster.nodes[away].datanode.as_mut().unwrap().restart().await.unwrap();
    situ.wait_for("three replicas of each block, no more", |report| {
        report.datanodes.iter().all(|node| node.liveness == Liveness::Live)
            && report.datanodes.iter().map(|node| node.replicas).sum::<u64>() == 3 * report.blocks
            && report.under_replicated == 0
    })
    .await;
    assert!(situ.read("/file").await.unwrap() == expected);
    situ.stop().await;
}

/// Copies a directory with all that it holds.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What `situ admin safemode get` says.
fn safe_mode(situ: &TestCluster) -> String {
    situ.situ(&["admin", "safemode", "get"], b"").ok().text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namenode_that_is_started_from_an_older_copy_of_its_directory_destroys_nothing() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let [old, new, other] = [1, 2, 3].map(|seed| bytes(seed, 300_000));
    situ.put("/old", &old).await;
    let stopped = situ.stop_for_now().await;
    let (namenode, backup, aside) =
        (stopped.root().join("namenode"), stopped.root().join("backup"), stopped.root().join("aside"));
    copy(&namenode, &backup);
    let situ = stopped.start().await.map_err(|(_, error)| error).unwrap();
    situ.wait_whole().await;
    situ.put("/new", &new).await;
    situ.wait_whole().await;
    let stopped = situ.stop_for_now().await;

    std::fs::rename(&namenode, &aside).unwrap();
    std::fs::rename(&backup, &namenode).unwrap();
    let situ = stopped.start().await.map_err(|(_, error)| error).unwrap();
    let report = situ.wait_for("all is reported", |report| report.unknown == 6).await;
    assert_eq!((report.files, report.missing), (1, 0));
    assert!(safe_mode(&situ).contains("6 replicas that this namespace never gave out"), "{}", safe_mode(&situ));
    assert!(situ.read("/old").await.unwrap() == old);
    let said = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(said.contains("SAFE MODE") && said.contains("never given out   6 replicas"), "{said}");
    let left = situ.situ(&["admin", "safemode", "leave"], b"").ok().text();
    assert_eq!(left, "safe mode is off\n");
    situ.put("/new", &other).await;
    situ.put("/gone", &other).await;
    let _ = situ.situ(&["fs", "rm", "/gone"], b"").ok();
    let report = situ
        .wait_for("what was deleted is gone, and nothing else", |report| {
            report.under_replicated == 0
                && report.datanodes.iter().all(|node| node.volumes[0].used_bytes == 3 * 300_000)
        })
        .await;
    assert_eq!(report.unknown, 6);
    let stopped = situ.stop_for_now().await;

    std::fs::rename(&namenode, &backup).unwrap();
    std::fs::rename(&aside, &namenode).unwrap();
    let situ = stopped.start().await.map_err(|(_, error)| error).unwrap();
    situ.wait_for("all is reported", |report| report.unknown == 6 && report.under_replicated == 0).await;
    let _ = situ.situ(&["admin", "safemode", "leave"], b"").ok();
    situ.put("/more", &other).await;
    situ.wait_whole().await;
    assert!(situ.read("/old").await.unwrap() == old && situ.read("/new").await.unwrap() == new);
    situ.stop().await;
}
