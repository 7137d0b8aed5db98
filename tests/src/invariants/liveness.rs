//! After faults end, every block returns to its target replication.

use situ_tests::harness::{TestCluster, bytes};
use situ_wire::messages::namenode::Liveness;

use crate::SITU;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_datanode_is_made_good_by_the_others() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    for number in 0..6 {
        situ.put(&format!("/file-{number}"), &bytes(number, 600_000)).await;
    }
    situ.cluster.nodes[2].datanode.take().unwrap().kill().await.unwrap();
    situ.wait_for("the loss is noticed", |report| report.datanodes.iter().any(|node| node.liveness == Liveness::Dead))
        .await;
    let report = situ.wait_whole().await;
    assert_eq!(report.blocks, 18);
    let live = report.datanodes.iter().filter(|node| node.liveness == Liveness::Live);
    assert_eq!(live.map(|node| node.replicas).sum::<u64>(), 3 * 18);
    for number in 0..6 {
        assert!(situ.read(&format!("/file-{number}")).await.unwrap() == bytes(number, 600_000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_datanodes_than_replicas_store_what_they_can_and_it_shows() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let expected = bytes(5, 300_000);
    situ.put("/file", &expected).await;
    situ.wait_for("it shows as under-replicated", |report| report.under_replicated == 2 && report.missing == 0).await;
    let said = situ.situ(&["fsck", "/file"], b"").ok();
    assert!(said.text().contains("under-replicated"), "{said:?}");
    assert!(situ.read("/file").await.unwrap() == expected);
    situ.stop().await;
}
