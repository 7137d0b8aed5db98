//! Namespace operations are linearizable, each applied at most once whatever is retried.
//!
//! The orders in which operations can meet are searched on simulated time; here real processes are killed.

use situ_tests::harness::TestCluster;
use situ_wire::path::DfsPath;

use crate::SITU;

#[tokio::test(flavor = "multi_thread")]
async fn operations_go_on_through_the_death_of_the_namenode_and_happen_once() {
    let mut situ = TestCluster::start(SITU, 0, 1).await;
    let client = situ.session.client.clone();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let work = tokio::spawn(async move {
        for number in 0..300 {
            let from = DfsPath::parse(&format!("/made-{number}")).unwrap();
            let to = DfsPath::parse(&format!("/moved-{number}")).unwrap();
            // Without `parents` a second application of either would fail.
            client.mkdir(&from, false, 0o755).await.unwrap();
            client.rename(&from, &to, false).await.unwrap();
            told.send(number).unwrap();
        }
    });
    for _ in 0..5 {
        // Some operations after the last start, in the middle of whichever comes next.
        for _ in 0..20 {
            heard.recv().await.unwrap();
        }
        situ.cluster.namenode.kill().await.unwrap();
        situ.cluster.namenode.restart().await.unwrap();
    }
    work.await.unwrap();
    let entries = situ.session.client.list_all(&DfsPath::root()).await.unwrap();
    let names: Vec<&str> =
        entries.iter().map(|status| status.path.name()).filter(|name| name.starts_with('m')).collect();
    let mut expected: Vec<String> = (0..300).map(|number| format!("moved-{number}")).collect();
    expected.sort();
    assert_eq!(names, expected);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_being_written_is_not_visible_as_complete() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let path = DfsPath::parse("/slow").unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let session = situ::session::Session::from_config(&situ.cluster.layout().client_config()).await.unwrap();
    let (target, options) = (path.clone(), situ::fs::PutOptions::default());
    let (begun, mut written) = tokio::sync::mpsc::unbounded_channel();
    let storing = tokio::spawn(async move {
        let told = move |_| begun.send(()).unwrap_or_default();
        situ::fs::put_reader(&session, Box::new(reader), "pipe", &target, &options, told).await
    });
    let feed = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &[7; 3 << 20]).unwrap();
        writer
    });
    written.recv().await.unwrap();
    assert_eq!(situ.session.client.stat(&path).await.unwrap(), None);
    drop(feed.join().unwrap());
    storing.await.unwrap().unwrap();
    assert!(situ.read("/slow").await.unwrap() == vec![7; 3 << 20]);
    situ.stop().await;
}
