//! The command: its phases, and the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::faults::{Faults, Tally};
use super::ledger::{Entries, Ledger, losses};
use super::schedule::{Fault, FaultKind, schedule};
use super::work;
use crate::admin::whole_again;
use crate::args::KillsArgs;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::Session;
use crate::show::{self, Progress, count};
use crate::up::{Cluster, ClusterOptions, Timings};
use crate::world::Interrupt;

/// How many nodes, in how many racks.
const NODES: u16 = 4;
const RACKS: u16 = 2;
/// How many writers store files.
const WRITERS: u64 = 2;

/// `situ chaos kills`.
///
/// # Errors
/// When anything acknowledged was lost, or the cluster does not become whole again.
pub async fn kills(args: &KillsArgs, json: bool) -> CliResult {
    let (kills, pauses) = (args.kills, args.pauses);
    if kills == 0 && pauses == 0 {
        return Err(CliError::usage("--kills 0 --pauses 0: expected something to happen"));
    }
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..) >> 16);
    let (directory, keep) = match &args.keep {
        Some(directory) => (directory.clone(), true),
        None => (std::env::temp_dir().join(format!("situ-chaos-{seed}-{}", std::process::id())), false),
    };
    if !json {
        show::line(format!(
            "seed {seed}; run it again with `situ chaos kills --kills {kills} --pauses {pauses} --seed {seed}`"
        ))?;
    }
    let interrupt = Interrupt::listen();
    let faults = schedule(seed, kills, pauses, NODES);
    let result = tokio::select! {
        result = run(directory.clone(), &interrupt, &faults, seed, json) => result,
        // Whoever stands still goes on, and then all of them are killed.
        () = interrupt.wait() => Err(CliError::failed("interrupted")),
    };
    if keep || result.is_err() {
        show::note(format!("the cluster's directory is {}", directory.display()));
    } else {
        std::fs::remove_dir_all(&directory).local("cannot remove", &directory)?;
    }
    result
}

async fn run(directory: PathBuf, interrupt: &Interrupt, faults: &[Fault], seed: u64, json: bool) -> CliResult {
    let options = ClusterOptions {
        program: std::env::current_exe()?,
        dir: directory,
        datanodes: Some(NODES),
        racks: Some(RACKS),
        slots: Some(1),
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
    for directory in ["/files", work::INPUT, work::OUTPUT, work::MOVED] {
        let path = situ_wire::path::DfsPath::parse(directory).map_err(CliError::failed)?;
        session.client.mkdir(&path, true, crate::session::DIRECTORY_MODE).await?;
    }
    let input = work::input(&session, seed).await?;
    let ledger = Arc::new(Ledger::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        // A client of its own each, so that each has its own lease.
        let session = client().await?;
        writers.push(tokio::spawn(work::files(session, Arc::clone(&ledger), Arc::clone(&stop), seed ^ (writer + 1))));
    }
    let jobs = tokio::spawn(work::jobs(Arc::clone(&session), Arc::clone(&ledger), input, Arc::clone(&stop)));

    let begun = Instant::now();
    let tally = under_fire(&mut cluster, faults, seed, json).await?;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }
    jobs.await??;
    let took = begun.elapsed();
    let entries = ledger.entries().clone();
    let progress = Progress::count("check", (entries.files.len() + entries.outputs.len()) as u64, !json);
    let found = losses(&session, &ledger, || progress.add(1)).await?;
    progress.clear();
    let whole = whole_again(&session, |_| true).await;
    let stopped = cluster.stop().await;
    verdict(&tally, &entries, &found, seed, took, json)?;
    whole?;
    stopped
}

/// One fault after the other, some of them while others still last.
async fn under_fire(cluster: &mut Cluster, schedule: &[Fault], seed: u64, json: bool) -> CliResult<Tally> {
    let progress = Progress::count("faults", schedule.len() as u64, !json);
    let mut faults = Faults::new(cluster);
    for (number, fault) in schedule.iter().enumerate() {
        let happened = faults.inflict(fault).await;
        happened.map_err(|error| CliError::failed(format!("seed {seed}, fault {}: {error}", number + 1)))?;
        progress.add(1);
    }
    faults.end().await.map_err(|error| CliError::failed(format!("seed {seed}: {error}")))
}

/// Who it befell: `namenode 3, scheduler 1, ...`.
fn by_name(tally: &Tally, kind: FaultKind) -> String {
    let names: Vec<String> = tally.of(kind).map(|(name, times)| format!("{name} {times}")).collect();
    names.join(", ")
}

fn verdict(tally: &Tally, entries: &Entries, found: &[String], seed: u64, took: Duration, as_json: bool) -> CliResult {
    let (kills, pauses) = (tally.total(FaultKind::Kill), tally.total(FaultKind::Pause));
    if as_json {
        let named = |kind| tally.of(kind).map(|(name, times)| (name.to_owned(), json!(times)));
        show::json(&json!({
            "seed": seed, "kills": kills, "pauses": pauses, "in_vain": tally.in_vain, "seconds": took.as_secs_f64(),
            "killed": named(FaultKind::Kill).collect::<serde_json::Map<_, _>>(),
            "paused": named(FaultKind::Pause).collect::<serde_json::Map<_, _>>(),
            "files_acknowledged": entries.files.len(), "files_deleted": entries.deleted.len(),
            "jobs_succeeded": entries.jobs.len(), "outputs": entries.outputs.len(),
            "outputs_moved": entries.moved.len(), "operations_failed": entries.failures, "losses": found,
        }))?;
    } else {
        let (killed, paused) = (by_name(tally, FaultKind::Kill), by_name(tally, FaultKind::Pause));
        show::line(format!(
            "{} and {} in {:.0} s",
            count(kills.into(), "kill"),
            count(pauses.into(), "pause"),
            took.as_secs_f64()
        ))?;
        show::line(format!("  killed: {killed}"))?;
        show::line(format!("  paused: {paused}"))?;
        if tally.in_vain > 0 {
            show::line(format!("  {} more for a driver or worker when there was none", tally.in_vain))?;
        }
        show::line(format!(
            "{} stored and {} deleted, {} succeeded, {} published and {} of them moved away; {} failed without an \
             acknowledgement",
            count(entries.files.len() as u64, "file"),
            entries.deleted.len(),
            count(entries.jobs.len() as u64, "job"),
            count(entries.outputs.len() as u64, "output"),
            entries.moved.len(),
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
        "seed {seed}: of what was promised is broken {}:\n  {}",
        count(found.len() as u64, "thing"),
        found.join("\n  ")
    )))
}
