//! A program's values are the driver's in every process of its job; where they cannot be, the job fails and says why.

use situ_tests::harness::TestCluster;
use situ_wire::path::DfsPath;

use crate::SITU;

#[tokio::test(flavor = "multi_thread")]
async fn what_varies_between_the_runs_of_a_program_is_the_driver_s_or_is_named() {
    let situ = TestCluster::start(SITU, 3, 1).await;
    let program = env!("CARGO_BIN_EXE_replaying");
    let counted = |kind: &str, count: &str| {
        let said = situ.situ(&["job", "submit", "--check-replay", program, kind], b"").ok().text();
        assert!(said.lines().any(|line| line == count), "{kind}: {said}");
    };
    counted("parallelize", "1000");
    counted("large", "1000");
    counted("shared", "1000");
    counted("loop", "2200");
    let captured = situ.situ(&["job", "submit", "--check-replay", program, "captured"], b"");
    captured.fails(1, &["computed with two runs", "map at replaying.rs", "context.share", "--check-replay"]);
    // What the driver stored for its workers goes with the job.
    let jobs = DfsPath::parse("/.situ/jobs").unwrap();
    let begun = std::time::Instant::now();
    while !situ.session.client.list_all(&jobs).await.unwrap().is_empty() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(90), "the values of ended jobs stay");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    situ.stop().await;
}
