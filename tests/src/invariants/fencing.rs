//! Deleted data never comes back; no live block is deleted by a stale command.

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
