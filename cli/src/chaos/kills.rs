//! The command: who is killed when, and the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::ledger::{Ledger, losses};
use super::work;
use crate::admin::whole_again;
use crate::args::KillsArgs;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::Session;
use crate::show::{self, Progress, count};
use crate::up::process::RoleProcess;
use crate::up::{Cluster, ClusterOptions, Member, Timings};
use crate::world::Interrupt;

/// How many nodes, in how many racks.
const NODES: u16 = 4;
const RACKS: u16 = 2;
/// How many writers store files.
const WRITERS: u64 = 2;

/// How often each role was killed.
#[derive(Debug, Default)]
struct Tally {
    namenode: u32,
    scheduler: u32,
    datanode: u32,
    executor: u32,
}

/// `situ chaos kills`.
///
/// # Errors
/// When anything acknowledged was lost, or the cluster does not become whole again.
pub async fn kills(args: &KillsArgs, json: bool) -> CliResult {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..) >> 16);
    let (directory, keep) = match &args.keep {
        Some(directory) => (directory.clone(), true),
        None => (std::env::temp_dir().join(format!("situ-chaos-{seed}-{}", std::process::id())), false),
    };
    if !json {
        show::line(format!("seed {seed}; run it again with `situ chaos kills --kills {} --seed {seed}`", args.kills))?;
    }
    let interrupt = Interrupt::listen();
    let result = tokio::select! {
        result = run(directory.clone(), &interrupt, args.kills, seed, json) => result,
        () = interrupt.wait() => Err(CliError::failed("interrupted")),
    };
    if keep || result.is_err() {
        show::note(format!("the cluster's directory is {}", directory.display()));
    } else {
        std::fs::remove_dir_all(&directory).local("cannot remove", &directory)?;
    }
    result
}

async fn run(directory: PathBuf, interrupt: &Interrupt, kills: u32, seed: u64, json: bool) -> CliResult {
    let options = ClusterOptions {
        program: std::env::current_exe()?,
        dir: directory,
        datanodes: Some(NODES),
        racks: Some(RACKS),
        slots: 1,
        timings: Timings::Quick,
        block_len_bytes: None,
    };
    let mut cluster = Cluster::start(options).await?;
    let config = cluster.layout().client_config();
    let client = async || {
        let session = Session::from_config(&config).await?;
        CliResult::Ok(Arc::new(Session { interrupt: interrupt.clone(), ..session }))
    };
    let session = client().await?;
    for directory in ["/files", "/counts"] {
        let path = situ_wire::path::DfsPath::parse(directory).map_err(CliError::failed)?;
        session.client.mkdir(&path, true, crate::session::DIRECTORY_MODE).await?;
    }
    let ledger = Arc::new(Ledger::new(work::input(&session, seed).await?));
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        // A client of its own each, so that each has its own lease.
        let session = client().await?;
        writers.push(tokio::spawn(work::files(session, Arc::clone(&ledger), Arc::clone(&stop), seed ^ (writer + 1))));
    }
    let jobs = tokio::spawn(work::jobs(Arc::clone(&session), Arc::clone(&ledger), Arc::clone(&stop)));

    let begun = Instant::now();
    let tally = under_fire(&mut cluster, kills, seed, json).await?;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    jobs.await??;
    let took = begun.elapsed();
    let entries = ledger.entries().clone();
    let progress = Progress::count("check", (entries.files.len() + entries.jobs.len()) as u64, !json);
    let found = losses(&session, &ledger, || progress.add(1)).await?;
    progress.clear();
    let whole = whole_again(&session, |_| true).await;
    let stopped = cluster.stop().await;
    verdict(&tally, &entries, &found, seed, took, json)?;
    whole?;
    stopped
}

/// Kills and restarts, one process after the other, some of them while others are still down.
async fn under_fire(cluster: &mut Cluster, kills: u32, seed: u64, json: bool) -> CliResult<Tally> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let progress = Progress::count("kills", u64::from(kills), !json);
    let mut tally = Tally::default();
    for number in 0..kills {
        tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
        // Sometimes two at once: replicas are three, so no block loses its last one.
        let mut victims = vec![draw(&mut rng)];
        if rng.u8(0..6) == 0 {
            let second = draw(&mut rng);
            if !victims.contains(&second) {
                victims.push(second);
            }
        }
        for victim in &victims {
            process(cluster, *victim)?.kill().await?;
            match victim {
                Member::Namenode => tally.namenode += 1,
                Member::Scheduler => tally.scheduler += 1,
                Member::Datanode(_) => tally.datanode += 1,
                Member::Executor(_) => tally.executor += 1,
            }
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..600))).await;
        for victim in victims {
            process(cluster, victim)?.restart().await.map_err(|error| {
                CliError::failed(format!(
                    "after kill {} of seed {seed}, {victim:?} does not start: {error}",
                    number + 1
                ))
            })?;
        }
        progress.add(1);
    }
    Ok(tally)
}

fn draw(rng: &mut fastrand::Rng) -> Member {
    match rng.u8(0..8) {
        0 | 1 => Member::Namenode,
        2 => Member::Scheduler,
        3..=5 => Member::Datanode(rng.usize(..usize::from(NODES))),
        _ => Member::Executor(rng.usize(..usize::from(NODES))),
    }
}

fn process(cluster: &mut Cluster, member: Member) -> CliResult<&mut RoleProcess> {
    cluster.process(member).ok_or_else(|| CliError::failed(format!("{member:?} is not there")))
}

fn verdict(
    tally: &Tally,
    entries: &super::ledger::Entries,
    found: &[String],
    seed: u64,
    took: Duration,
    as_json: bool,
) -> CliResult {
    let kills = tally.namenode + tally.scheduler + tally.datanode + tally.executor;
    if as_json {
        show::json(&json!({
            "seed": seed, "kills": kills, "seconds": took.as_secs_f64(),
            "killed": {
                "namenode": tally.namenode, "scheduler": tally.scheduler,
                "datanode": tally.datanode, "executor": tally.executor,
            },
            "files_acknowledged": entries.files.len(), "files_deleted": entries.deleted.len(),
            "jobs_succeeded": entries.jobs.len(), "operations_failed": entries.failures, "losses": found,
        }))?;
    } else {
        show::line(format!(
            "{} in {:.0} s: namenode {}, scheduler {}, datanodes {}, executors {}",
            count(kills.into(), "kill"),
            took.as_secs_f64(),
            tally.namenode,
            tally.scheduler,
            tally.datanode,
            tally.executor
        ))?;
        show::line(format!(
            "{} stored and {} deleted, {} succeeded; {} failed without an acknowledgement",
            count(entries.files.len() as u64, "file"),
            entries.deleted.len(),
            count(entries.jobs.len() as u64, "job"),
            count(entries.failures, "operation")
        ))?;
        if let Some(last) = &entries.last_failure {
            show::line(format!("  the last failure: {last}"))?;
        }
        show::line(match found.len() {
            1 => "1 loss".to_owned(),
            losses => format!("{losses} losses"),
        })?;
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "seed {seed}: of what was acknowledged is lost {}:\n  {}",
        count(found.len() as u64, "thing"),
        found.join("\n  ")
    )))
}
