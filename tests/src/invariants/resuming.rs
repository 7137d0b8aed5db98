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

/// Follows the standard error of `situ job wait` until it says what is wanted.
async fn says(lines: &mut tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStderr>>, words: &str) {
    let heard = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return;
            }
        }
        panic!("it ended and did not say {words:?}");
    };
    tokio::time::timeout(crate::following::LIMIT, heard).await.expect(words);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_job_waits_for_its_scheduler_too_wherever_that_comes_back() {
    let mut situ = TestCluster::start(SITU, NODES, 1).await;
    let runs = situ.directory().join("runs");
    let job = in_the_middle(&situ, &runs).await;
    let mut command = situ.command(&["job", "wait", &job.to_string()]);
    command.stdin(std::process::Stdio::null());
    let mut waiting = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut said = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(waiting.stderr.take().unwrap()));
    says(&mut said, &job.to_string()).await;
    situ.cluster.scheduler.kill().await.unwrap();
    let before = situ.cluster.scheduler.address();
    says(&mut said, &format!("{job} goes on and is asked for until the scheduler is back")).await;
    let namenode = situ.cluster.namenode.address();
    // Somebody else has its port by then.
    let stopped = situ.kill_for_now().await;
    let taken = std::net::UdpSocket::bind(before).unwrap();
    let file = stopped.root().join("config/executor-node-1.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# `situ up` sets anew: credentials, directory, "), "{text}");
    std::fs::write(&file, text.replace("logs_kept = 1000", "logs_kept = 7 # fewer")).unwrap();
    let situ = stopped.start().await.map_err(|(_, error)| error).expect("a cluster that comes back");
    assert_ne!(situ.cluster.scheduler.address(), before);
    assert_eq!(situ.cluster.namenode.address(), namenode, "the others have the ports that they had");
    says(&mut said, "the scheduler is back after").await;
    says(&mut said, &format!("{job} succeeded")).await;
    assert_eq!(waiting.wait().await.unwrap().code(), Some(0));
    drop(taken);
    assert!(std::fs::read_to_string(&file).unwrap().contains("logs_kept = 7 # fewer"), "what was edited stays");

    // Of a job that is not there nothing else is said.
    let said = situ.situ(&["job", "wait", "999"], b"");
    assert!(!said.err.contains("job-999\n"), "{said:?}");
    said.fails(1, &["job-999"]);
    situ.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_wait_any_longer_is_told_that_the_job_goes_on() {
    let situ = TestCluster::start(SITU, NODES, 1).await;
    let runs = situ.directory().join("runs");
    let job = in_the_middle(&situ, &runs).await;
    let mut command = situ.command(&["job", "wait", &job.to_string()]);
    command.stdin(std::process::Stdio::null());
    let mut waiting = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut said = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(waiting.stderr.take().unwrap()));
    says(&mut said, &job.to_string()).await;
    let pid = waiting.id().and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().unwrap())).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    says(&mut said, &format!("{job} goes on: `situ job wait {}` waits for it", job.0)).await;
    assert_eq!(waiting.wait().await.unwrap().code(), Some(130), "1 would mean that the job has failed");
    assert_eq!(runs_again(&situ, job, &runs).await, 0);
    situ.stop().await;
}
