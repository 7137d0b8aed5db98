//! One job of thousands of actions: whether they become slower, and processes larger.

use std::time::{Duration, Instant};

use serde_json::json;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobState, JobStatus, Program};

use super::processes::{Part, of_jobs, resident_bytes};
use super::programs;
use crate::args::RoundsArgs;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::Session;
use crate::show::{self, human_size};
use crate::up::{Cluster, ClusterOptions, Timings};
use crate::world::Interrupt;

/// How many nodes.
const NODES: u16 = 2;
/// How many points there are to find the centers of.
const POINTS: &str = "3000";
/// How many lines there are, each after as many rounds.
const LINES: u64 = 10;
/// How long one look waits for news.
const LOOK: Duration = Duration::from_secs(5);
/// Without a round for so long the job hangs.
const HANGS: Duration = Duration::from_secs(180);
/// Each round is a stage that shuffles and one that collects.
const STAGES_PER_ROUND: u64 = 2;

/// How things stand after some rounds.
#[derive(Debug, Clone, Copy)]
struct Sample {
    rounds: u64,
    at: Instant,
    scheduler_bytes: u64,
    driver_bytes: u64,
    /// Of the largest.
    worker_bytes: u64,
}

/// `situ chaos rounds`.
///
/// # Errors
/// When the job fails or hangs.
pub async fn rounds(args: &RoundsArgs, json: bool) -> CliResult {
    let directory = std::env::temp_dir().join(format!("situ-rounds-{}", std::process::id()));
    let options = ClusterOptions {
        program: std::env::current_exe()?,
        dir: directory.clone(),
        datanodes: Some(NODES),
        racks: Some(1),
        slots: Some(1),
        timings: Timings::Usual,
        block_len_bytes: None,
    };
    let interrupt = Interrupt::listen();
    let result = tokio::select! {
        result = run(options, args, json) => result,
        () = interrupt.wait() => Err(CliError::failed("interrupted")),
    };
    if result.is_err() {
        show::note(format!("the cluster's directory is {}", directory.display()));
        return result;
    }
    std::fs::remove_dir_all(&directory).local("cannot remove", &directory)
}

async fn run(options: ClusterOptions, args: &RoundsArgs, json: bool) -> CliResult {
    let rounds = args.rounds;
    let cluster = Cluster::start(options).await?;
    let session = Session::from_config(&cluster.layout().client_config()).await?;
    let scheduler = session.client.scheduler();
    let program = Program::BuiltIn { name: programs::ROUNDS.to_owned() };
    let mut arguments = vec![POINTS.to_owned(), rounds.to_string()];
    arguments.extend(args.scopes.then(|| programs::SCOPES.to_owned()));
    let job = scheduler.submit(program, arguments).await?;
    let mut samples = vec![sample(&cluster, job, 0, None)];
    if !json {
        show::line(format!(
            "{:>7}  {:>12}  {:>10}  {:>10}  {:>10}",
            "rounds", "ms a round", "scheduler", "driver", "worker"
        ))?;
    }
    let (mut revision, mut moved) = (0, Instant::now());
    loop {
        let status = scheduler.changed_status(job, revision, LOOK).await?;
        if status.revision != revision {
            (revision, moved) = (status.revision, Instant::now());
        }
        let done = rounds_done(&status);
        let last = samples[samples.len() - 1];
        let ended = status.summary.state.is_final();
        if done >= last.rounds + u64::from(rounds) / LINES || (ended && done > last.rounds) {
            let next = sample(&cluster, job, done, Some(&last));
            say(&last, &next, json)?;
            samples.push(next);
        }
        match status.summary.state {
            JobState::Succeeded => break,
            JobState::Failed { reason } | JobState::Killed { reason } => {
                return Err(CliError::failed(format!("{job} failed after {done} rounds: {reason}")));
            }
            JobState::Waiting | JobState::Running if moved.elapsed() > HANGS => {
                return Err(CliError::failed(format!(
                    "{job} hangs after {done} rounds: nothing has moved for {HANGS:?}"
                )));
            }
            JobState::Waiting | JobState::Running => {}
        }
    }
    verdict(&samples, json)?;
    cluster.stop().await
}

/// How many rounds are done.
fn rounds_done(status: &JobStatus) -> u64 {
    let done = status.stages.iter().filter(|stage| stage.done == stage.tasks).count() as u64;
    (status.stages_dropped + done) / STAGES_PER_ROUND
}

/// How things stand now; those who have ended already are as they were.
fn sample(cluster: &Cluster, job: JobId, rounds: u64, before: Option<&Sample>) -> Sample {
    let address = cluster.scheduler.address();
    let largest = |part| of_jobs(address, part, Some(job)).iter().filter_map(|held| resident_bytes(held.pid())).max();
    let scheduler = cluster.scheduler.pid().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
    let or_before = |now: Option<u64>, of: fn(&Sample) -> u64| now.or(before.map(of)).unwrap_or(0);
    Sample {
        rounds,
        at: Instant::now(),
        scheduler_bytes: or_before(scheduler.and_then(resident_bytes), |before| before.scheduler_bytes),
        driver_bytes: or_before(largest(Part::Driver), |before| before.driver_bytes),
        worker_bytes: or_before(largest(Part::Worker), |before| before.worker_bytes),
    }
}

/// How long a round took between two samples, in ms.
fn ms_a_round(from: &Sample, to: &Sample) -> f64 {
    to.at.duration_since(from.at).as_secs_f64() * 1e3 / to.rounds.saturating_sub(from.rounds).max(1) as f64
}

fn say(last: &Sample, next: &Sample, as_json: bool) -> CliResult {
    if as_json {
        return show::json(&json!({
            "rounds": next.rounds, "ms_a_round": ms_a_round(last, next), "scheduler_bytes": next.scheduler_bytes,
            "driver_bytes": next.driver_bytes, "worker_bytes": next.worker_bytes,
        }));
    }
    show::line(format!(
        "{:>7}  {:>12.2}  {:>10}  {:>10}  {:>10}",
        next.rounds,
        ms_a_round(last, next),
        human_size(next.scheduler_bytes),
        human_size(next.driver_bytes),
        human_size(next.worker_bytes)
    ))
}

/// Compares the first and the last fifth.
fn verdict(samples: &[Sample], as_json: bool) -> CliResult {
    let last = &samples[samples.len() - 1];
    let fifth = last.rounds / 5;
    let (Some(begin), Some(end)) = (
        samples.iter().find(|sample| sample.rounds >= fifth),
        samples.iter().rev().find(|sample| sample.rounds + fifth <= last.rounds),
    ) else {
        return Ok(());
    };
    let (first, final_) = (ms_a_round(&samples[0], begin), ms_a_round(end, last));
    if as_json {
        return show::json(&json!({ "first_ms_a_round": first, "last_ms_a_round": final_ }));
    }
    show::line(format!(
        "a round took {first:.2} ms in the first {} and {final_:.2} ms in the last {}: {:.2} times",
        begin.rounds,
        last.rounds - end.rounds,
        final_ / first
    ))
}
