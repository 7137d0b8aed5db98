//! What tasks have left outlives the scheduler, and an executor whose directory stays: no finished task runs again.

use std::collections::BTreeSet;
use std::path::Path;

use situ_tests::harness::TestCluster;
use situ_wire::ids::JobId;
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::JobState;

use crate::SITU;
use crate::following::{follow, stored};

const NODES: u16 = 3;
const MAPS: usize = 24;
const REDUCERS: usize = 3;
/// How often a task's function is run for one attempt: a debug build compares two runs of the program.
const RUNS: usize = if cfg!(debug_assertions) { 2 } else { 1 };

/// A job whose tasks leave a file in the directory for each run, when a third of its map tasks is done.
async fn in_the_middle(situ: &TestCluster, runs: &Path) -> JobId {
    let program = stored(situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    std::fs::create_dir(runs).unwrap();
    let arguments = ["counted-runs", runs.to_str().unwrap(), &MAPS.to_string(), "300"].map(str::to_owned).to_vec();
    let job = situ.session.client.scheduler().submit(program, arguments).await.unwrap();
    follow(situ, job, |status| status.stages.first().is_some_and(|stage| stage.done >= 8 && stage.done < 20)).await;
    job
}

/// Waits for the job's success, which `situ job wait` tells, and counts the attempts at its map tasks beyond one for each.
async fn runs_again(situ: &TestCluster, job: JobId, runs: &Path) -> usize {
    let _ = situ.situ(&["job", "wait", &job.to_string()], b"").ok();
    let status = situ.session.client.scheduler().wait(job).await.unwrap();
    assert_eq!(status.summary.state, JobState::Succeeded);
    let entries = std::fs::read_dir(runs).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("map"));
    let tasks: BTreeSet<&str> = names.iter().map(|name| name.rsplit_once('-').unwrap().0).collect();
    assert_eq!(tasks.len(), MAPS, "{names:?}");
    (names.len() - MAPS * RUNS).div_ceil(RUNS)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_runs_again_because_the_scheduler_was_killed() {
    let mut situ = TestCluster::start(SITU, NODES, 1).await;
    let runs = situ.directory().join("runs");
    let job = in_the_middle(&situ, &runs).await;
    situ.cluster.scheduler.kill().await.unwrap();
    situ.cluster.scheduler.restart().await.unwrap();
    // Those that ran then go on.
    assert_eq!(runs_again(&situ, job, &runs).await, 0);
    let status = situ.session.client.scheduler().status(job).await.unwrap();
    let started: u32 = status.stages.iter().flat_map(|stage| stage.localities).sum();
    assert!(started as usize <= MAPS + REDUCERS - 8, "its new life started {started} tasks");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_finished_task_runs_again_because_its_executor_was_killed_and_came_back() {
    let mut situ = TestCluster::start(SITU, NODES, 1).await;
    let runs = situ.directory().join("runs");
    let job = in_the_middle(&situ, &runs).await;
    let logs = situ.session.client.scheduler().logs(job).await.unwrap();
    let driver = logs.iter().find(|log| matches!(log.log, LogName::DriverOut(_))).unwrap().address;
    let executors = situ.cluster.nodes.iter_mut().filter_map(|node| node.executor.as_mut());
    let executor = { executors }.find(|executor| executor.address() != driver).unwrap();
    executor.kill().await.unwrap();
    executor.restart().await.unwrap();
    // One task ran there.
    let again = runs_again(&situ, job, &runs).await;
    assert!(again <= 1, "{again} tasks ran again");
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_job_ends_as_the_job_does() {
    let situ = TestCluster::start(SITU, 1, 1).await;
    let _ = stored(&situ, env!("CARGO_BIN_EXE_hard-cases"), &["no case"]).await;
    situ.situ(&["job", "wait", "1"], b"").fails(1, &["no such case"]);
    let said = situ.situ(&["--json", "job", "wait", "job-1"], b"");
    assert!(said.code == Some(1) && said.text().contains("failed"), "{said:?}");
    situ.situ(&["job", "wait", "7"], b"").fails(1, &["no such job"]);
    situ.stop().await;
}
