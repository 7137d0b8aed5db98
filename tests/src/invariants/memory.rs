//! What does not fit into a worker's memory goes over its disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use situ::chaos::{Part, of_jobs};
use situ_tests::harness::TestCluster;
use situ_wire::messages::scheduler::{JobState, Program};

use crate::SITU;
use crate::following::follow;

/// A cluster whose executors are configured so.
async fn configured(nodes: u16, settings: &[(&str, u64)]) -> TestCluster {
    let mut situ = TestCluster::start(SITU, nodes, 1).await;
    let configs = situ.directory().join("cluster/config");
    for node in &mut situ.cluster.nodes {
        let executor = node.executor.as_mut().unwrap();
        executor.kill().await.unwrap();
        let path = configs.join(format!("{}.toml", executor.name()));
        let mut config = std::fs::read_to_string(&path).unwrap();
        for (key, value) in settings {
            let is_set = |line: &str| line.split_once(" = ").is_some_and(|(found, _)| found == *key);
            assert_eq!(config.lines().filter(|line| is_set(line)).count(), 1, "{key} in {}", path.display());
            let line = |line| if is_set(line) { format!("{key} = {value}\n") } else { format!("{line}\n") };
            config = config.lines().map(line).collect();
        }
        std::fs::write(path, config).unwrap();
        executor.restart().await.unwrap();
    }
    situ
}

/// A cluster whose jobs have little memory.
async fn cluster(nodes: u16) -> TestCluster {
    configured(nodes, &[("worker_memory_bytes", 256 << 20)]).await
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

/// Three jobs at once on an executor with two slots that holds one worker.
#[tokio::test(flavor = "multi_thread")]
async fn no_more_workers_run_at_once_than_the_memory_of_an_executor_holds() {
    const WORKER: u64 = 256 << 20;
    let settings = [("slots", 2), ("worker_memory_bytes", WORKER), ("memory_bytes", 2 * WORKER - 1)];
    let situ = configured(1, &settings).await;
    let scheduler = situ.cluster.scheduler.address();
    let client = situ.session.client.scheduler();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        let program = Program::BuiltIn { name: "pi".to_owned() };
        let arguments = ["24", "300000"].map(str::to_owned).to_vec();
        jobs.push(client.submit(program, arguments).await.unwrap());
    }
    let done = Arc::new(AtomicBool::new(false));
    let watching = Arc::clone(&done);
    let watch = std::thread::spawn(move || {
        let (mut most, mut looks) = (0, 0);
        while !watching.load(Ordering::Relaxed) {
            most = most.max(of_jobs(scheduler, Part::Worker, None).len());
            looks += 1;
        }
        (most, looks)
    });
    for job in jobs {
        let status = follow(&situ, job, |status| status.summary.state.is_final()).await;
        assert_eq!(status.summary.state, JobState::Succeeded);
    }
    done.store(true, Ordering::Relaxed);
    let (most, looks) = watch.join().unwrap();
    assert_eq!(most, 1, "of {looks} looks");
    situ.stop().await;
}
