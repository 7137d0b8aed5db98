//! No job hangs, whoever stands still: what a worker that is stopped was to do is done elsewhere.

use std::time::Duration;

use situ::chaos::{Held, Part, Paused, of_jobs};
use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobState, Program};

use crate::SITU;
use crate::following::{LIMIT, follow, stored, until};

/// Shorter than what a cluster of quick timings takes as the end of a worker, and longer than any call stays open.
const SHORT: Duration = Duration::from_secs(3);
const LONG: Duration = Duration::from_secs(46);

/// The only process of a job of this kind, stopped.
async fn stop(situ: &TestCluster, part: Part, job: JobId) -> Paused {
    let process = until("it runs", async || of_jobs(situ.cluster.scheduler.address(), part, Some(job)).pop()).await;
    Held::pause(process).unwrap().expect("a process that has not ended")
}

/// Waits for a job's end, which must be its success.
async fn succeeds(situ: &TestCluster, job: JobId) {
    let ended = follow(situ, job, |status| status.summary.state.is_final());
    let status = tokio::time::timeout(LIMIT, ended).await.expect("the job ends");
    assert_eq!(status.summary.state, JobState::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_task_of_a_stage_runs_elsewhere_when_its_worker_stands_still() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let program = Program::BuiltIn { name: "pi".to_owned() };
    let arguments = ["1", "20000000"].map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    follow(&situ, job, |status| status.stages.iter().any(|stage| stage.running == 1)).await;
    let _paused = stop(&situ, Part::Worker, job).await;
    succeeds(&situ, job).await;
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_when_its_driver_stands_still() {
    let situ = TestCluster::start(SITU, 2, 1).await;
    let program = Program::BuiltIn { name: "pi".to_owned() };
    let arguments = ["4", "20000000"].map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    follow(&situ, job, |status| status.stages.iter().any(|stage| stage.running > 0)).await;
    let _paused = stop(&situ, Part::Driver, job).await;
    succeeds(&situ, job).await;
    situ.stop().await;
}

/// A worker that is idle is stopped, is given a task, and goes on so much later.
async fn idle_worker_stands_still(lasts: Duration) {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let program = stored(&situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    let (idle, go) = (situ.directory().join("idle"), situ.directory().join("go"));
    let arguments = ["idle-worker", idle.to_str().unwrap(), go.to_str().unwrap()].map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    until("the first action is done", async || idle.exists().then_some(())).await;
    let paused = stop(&situ, Part::Worker, job).await;
    std::fs::write(&go, "").unwrap();
    follow(&situ, job, |status| status.stages.len() == 2 && status.stages[1].running == 1).await;
    // Nothing tells that its call has expired: it is the one who would notice.
    tokio::time::sleep(lasts).await;
    drop(paused);
    succeeds(&situ, job).await;
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_for_a_moment_loses_no_task() {
    idle_worker_stands_still(SHORT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_for_longer_than_its_call_loses_no_task() {
    idle_worker_stands_still(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_its_standard_input_finds_it_empty() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let program = stored(&situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    let job = situ.session.client.scheduler().submit(program, vec!["standard-input".to_owned()]).await.unwrap();
    succeeds(&situ, job).await;
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_go_on_past_an_action_when_the_driver_does() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let program = stored(&situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    let place = situ.directory().join("rounds");
    std::fs::create_dir(&place).unwrap();
    let arguments = ["driver-waits", place.to_str().unwrap()].map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    succeeds(&situ, job).await;
    situ.stop().await;
}
