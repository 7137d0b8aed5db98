//! A namenode whose disk is almost full says so at once, keeps reading and deletes on, in every life.

use std::io::Write;

use serde_json::Value;
use situ_tests::harness::TestCluster;

use crate::SITU;

/// Starts the namenode again with so much of its disk kept.
async fn keep(situ: &mut TestCluster, reserve_bytes: u64) {
    situ.cluster.namenode.kill().await.unwrap();
    let path = situ.cluster.layout().config("namenode");
    let config = std::fs::read_to_string(&path).unwrap();
    let others = config.lines().filter(|line| !line.starts_with("log_reserve_bytes"));
    let config: String = others.map(|line| format!("{line}\n")).collect();
    std::fs::write(&path, format!("{config}log_reserve_bytes = {reserve_bytes}\n")).unwrap();
    situ.cluster.namenode.restart().await.unwrap();
    situ.wait_for("safe mode ends", |report| report.safe_mode.is_none()).await;
}

/// What `situ --json admin report` says of the namenode's disk.
fn disk(situ: &TestCluster) -> Value {
    let report = situ.situ(&["--json", "admin", "report"], b"").ok().text();
    serde_json::from_str::<Value>(&report).unwrap()["namenode_disk"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namenode_whose_disk_is_almost_full_refuses_at_once_and_deletes_on() {
    let mut situ = TestCluster::start(SITU, 1, 1).await;
    for path in ["/kept", "/old"] {
        let _ = situ.situ(&["fs", "put", "-", path], b"kept").ok();
    }
    let said = disk(&situ);
    assert_eq!(said["takes"], "everything");
    let directory = said["directory"].as_str().unwrap().to_owned();

    // What is free is below the reserve, and above the quarter of it that is kept from deletions too.
    keep(&mut situ, 2 * said["free_bytes"].as_u64().unwrap()).await;
    let put = situ.situ(&["fs", "put", "-", "/new"], b"new");
    assert!(!put.err.contains("waiting"), "{}", put.err);
    put.fails(1, &["/", "almost full", &directory, "deletions go on", "free space"]);
    situ.situ(&["fs", "mkdir", "/new"], b"").fails(1, &["/new", "almost full"]);
    assert_eq!(situ.situ(&["fs", "cat", "/kept"], b"").ok().out, b"kept");
    let _ = situ.situ(&["fs", "rm", "/old"], b"").ok();
    assert_eq!(disk(&situ)["takes"], "what frees");
    let report = situ.situ(&["admin", "report"], b"").ok().text();
    assert!(report.contains("NAMENODE'S DISK ALMOST FULL") && report.contains(&directory), "{report}");

    // Not even deletions have room now.
    keep(&mut situ, 1 << 62).await;
    situ.situ(&["fs", "rm", "/kept"], b"").fails(1, &["/kept", "disk is full", &directory, "nothing is changed"]);
    assert_eq!(situ.situ(&["fs", "cat", "/kept"], b"").ok().out, b"kept");
    assert_eq!(disk(&situ)["takes"], "nothing");

    keep(&mut situ, 0).await;
    let _ = situ.situ(&["fs", "rm", "/kept"], b"").ok();
    let _ = situ.situ(&["fs", "put", "-", "/new"], b"new").ok();
    assert_eq!(situ.situ(&["fs", "ls", "/"], b"").ok().text().lines().count(), 1);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_meets_a_full_disk_on_its_way_fails_and_leaves_nothing() {
    let mut situ = TestCluster::start(SITU, 1, 1).await;
    let free_bytes = disk(&situ)["free_bytes"].as_u64().unwrap();
    let mut put = situ.command(&["fs", "put", "-", "/new"]).spawn().unwrap();
    let mut input = put.stdin.take().unwrap();
    input.write_all(&[7; 1 << 20]).unwrap();
    situ.wait_for("a block", |report| report.blocks > 0).await;
    keep(&mut situ, 2 * free_bytes).await;
    // It may have failed before it has read all of this.
    let _ = input.write_all(&[7; 2 << 20]);
    drop(input);
    let output = put.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("almost full") && said.contains("/new"), "{said}");
    situ.wait_for("nothing", |report| report.files == 0).await;
    situ.stop().await;
}
