//! What does not fit into a worker's memory goes over its disk.

use situ_tests::harness::TestCluster;

use crate::SITU;

/// How much memory the processes of jobs get.
const MEMORY_BYTES: u64 = 256 << 20;

/// A cluster whose jobs have little memory.
async fn cluster(nodes: u16) -> TestCluster {
    let mut situ = TestCluster::start(SITU, nodes, 1).await;
    let configs = situ.directory().join("cluster/config");
    for node in &mut situ.cluster.nodes {
        let executor = node.executor.as_mut().unwrap();
        executor.kill().await.unwrap();
        let path = configs.join(format!("{}.toml", executor.name()));
        let config = std::fs::read_to_string(&path).unwrap();
        let changed = config
            .lines()
            .map(|line| match line.starts_with("worker_memory_bytes") {
                true => format!("worker_memory_bytes = {MEMORY_BYTES}\n"),
                false => format!("{line}\n"),
            })
            .collect::<String>();
        assert_ne!(config, changed, "{}", path.display());
        std::fs::write(path, changed).unwrap();
        executor.restart().await.unwrap();
    }
    situ
}

#[tokio::test(flavor = "multi_thread")]
async fn one_piece_may_be_larger_than_what_fits_into_memory_twice() {
    let situ = cluster(2).await;
    let _ = situ.situ(&["job", "submit", env!("CARGO_BIN_EXE_hard-cases"), "large-piece", "160"], b"").ok();
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_which_few_are_large_are_sorted() {
    let situ = cluster(2).await;
    let _ = situ.situ(&["job", "submit", env!("CARGO_BIN_EXE_hard-cases"), "uneven-sort", "20000"], b"").ok();
    situ.stop().await;
}
