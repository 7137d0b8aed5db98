//! Every byte acknowledged by `close` is read back equal after any loss of up to r-1 replicas, and after every process
//! died at once.
//!
//! A kill spares the page cache, so this says nothing of power cuts: those are simulated on disks whose unsynced bytes
//! are dropped (`datanode`, `namenode` and `runtime` have such tests beside their code).

use situ_tests::harness::{TestCluster, bytes};
use situ_wire::messages::namenode::Liveness;

use crate::SITU;

/// Lengths around the edges: none, one, a block less one, a block, a block and one, several.
const LENGTHS: [usize; 6] = [0, 1, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, (1 << 20) + 77];

#[tokio::test(flavor = "multi_thread")]
async fn files_survive_the_death_of_every_process() {
    let mut situ = TestCluster::start(SITU, 3, 1).await;
    for (seed, len) in (0..).zip(LENGTHS) {
        situ.put(&format!("/file-{len}"), &bytes(seed, len)).await;
    }
    for _ in 0..2 {
        situ = situ.kill_all_and_restart().await;
        situ.wait_for("safe mode ends", |report| report.safe_mode.is_none()).await;
        for (seed, len) in (0..).zip(LENGTHS) {
            assert!(situ.read(&format!("/file-{len}")).await.unwrap() == bytes(seed, len), "file of {len} bytes");
        }
    }
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_survive_the_loss_of_two_of_three_replicas() {
    let mut situ = TestCluster::start(SITU, 3, 2).await;
    let expected = bytes(7, 1_300_000);
    situ.put("/file", &expected).await;
    for index in [0, 1] {
        situ.cluster.nodes[index].datanode.take().unwrap().kill().await.unwrap();
        // Reading does not wait until the loss is known.
        assert!(situ.read("/file").await.unwrap() == expected);
    }
    let report = situ
        .wait_for("two dead datanodes", |report| {
            report.datanodes.iter().filter(|node| node.liveness == Liveness::Dead).count() == 2
        })
        .await;
    assert_eq!(report.missing, 0);
    assert!(situ.read("/file").await.unwrap() == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_written_through_the_death_of_datanodes() {
    let mut situ = TestCluster::start(SITU, 4, 2).await;
    let expected = bytes(8, 24 << 20);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = situ_wire::path::DfsPath::parse("/file").unwrap();
    let options = situ::fs::PutOptions { block_len_bytes: Some(8 << 20), ..Default::default() };
    let (half, rest) = expected.split_at(13 << 20);
    let (half, rest) = (half.to_vec(), rest.to_vec());
    let (told, halfway) = tokio::sync::oneshot::channel();
    let (go_on, gone_on) = std::sync::mpsc::channel();
    let feed = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &half).unwrap();
        told.send(()).unwrap();
        gone_on.recv().unwrap();
        std::io::Write::write_all(&mut writer, &rest).unwrap();
    });
    let session = situ::session::Session::from_config(&situ.cluster.layout().client_config()).await.unwrap();
    let storing =
        tokio::spawn(
            async move { situ::fs::put_reader(&session, Box::new(reader), "pipe", &path, &options, |_| ()).await },
        );
    halfway.await.unwrap();
    // In the middle of the second block; whichever three of the four datanodes are in its pipeline, one of these two is.
    for index in [0, 1] {
        situ.cluster.nodes[index].datanode.take().unwrap().kill().await.unwrap();
    }
    go_on.send(()).unwrap();
    assert_eq!(storing.await.unwrap().unwrap(), expected.len() as u64);
    feed.join().unwrap();
    assert!(situ.read("/file").await.unwrap() == expected);
}

#[tokio::test]
async fn a_namenode_whose_directory_is_gone_is_not_replaced_by_an_empty_one() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let content = bytes(11, 700_000);
    situ.put("/kept", &content).await;
    let mut stopped = situ.stop_for_now().await;
    for role in ["namenode", "scheduler"] {
        let (directory, elsewhere) = (stopped.root().join(role), stopped.root().join("not mounted"));
        std::fs::rename(&directory, &elsewhere).unwrap();
        let Err((again, error)) = stopped.start().await else { panic!("it began with an empty {role}") };
        let expected = format!("{role} is not a {role}'s directory: expected its VERSION file");
        assert!(error.contains(&expected) && error.contains("did not start"), "{error}");
        assert!(!directory.exists());
        std::fs::rename(&elsewhere, &directory).unwrap();
        stopped = again;
    }
    let situ = stopped.start().await.map_err(|(_, error)| error).expect("it has all that it had");
    assert_eq!(situ.read("/kept").await.unwrap(), content);
    situ.stop().await;
}
