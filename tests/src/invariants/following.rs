//! Following jobs: what the tests of several promises share.

use std::time::{Duration, Instant};

use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobStatus, Program};

/// How long anything that must come about may take on a loaded machine. Reaching it is a failure, never a pass.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Looks again and again until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Follows a job until its status is as wanted.
pub(crate) async fn follow(situ: &TestCluster, job: JobId, wanted: impl Fn(&JobStatus) -> bool) -> JobStatus {
    let scheduler = situ.session.client.scheduler();
    let mut revision = 0;
    loop {
        let status = scheduler.changed_status(job, revision, Duration::from_secs(10)).await.unwrap();
        if wanted(&status) {
            return status;
        }
        assert!(!status.summary.state.is_final(), "{status:?}");
        revision = status.revision;
    }
}

/// Stores a program by running it once, with arguments with which it fails.
pub(crate) async fn stored(situ: &TestCluster, program: &str, arguments: &[&str]) -> Program {
    let said = situ.situ(&[&["job", "submit", program], arguments].concat(), b"");
    assert_eq!(said.code, Some(1), "{said:?}");
    situ.session.client.scheduler().list().await.unwrap()[0].program.clone()
}
