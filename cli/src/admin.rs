//! `situ admin report` and `situ fsck`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use situ_client::ClientError;
use situ_wire::messages::namenode::{
    BlockHealth, ClusterReport, DatanodeStatus, FileHealth, Liveness, LogRoom, SafeModeAction, Taking,
};
use situ_wire::messages::scheduler::ExecutorStatus;
use situ_wire::time::CLOCKS_AGREE_MS;

use crate::args::{FsckArgs, SafeModeOrder};
use crate::error::{CliError, CliResult};
use crate::fs::parse_path;
use crate::session::Session;
use crate::show::{self, columns, count, escaped, escaped_on_terminal, human_size, local_time};

/// How long a report waits for the scheduler: files are looked after without one.
const SCHEDULER_LIMIT: Duration = Duration::from_secs(3);

/// `situ admin report`.
pub async fn report(session: &Session, as_json: bool) -> CliResult {
    let report = session.client.report().await?;
    let executors = executors(session).await;
    if as_json {
        let mut value = report_json(&report);
        value["executors"] =
            executors.ok().flatten().map_or(Value::Null, |all| all.iter().map(executor_json).collect());
        return show::json(&value);
    }
    print_report(&report)?;
    match executors {
        Ok(None) => Ok(()),
        Ok(Some(executors)) => print_executors(&executors),
        Err(why) => show::line(format!("executors: not known: {why}")),
    }
}

/// `situ admin safemode`.
pub async fn safe_mode(session: &Session, order: SafeModeOrder, as_json: bool) -> CliResult {
    let action = match order {
        SafeModeOrder::Get | SafeModeOrder::Wait => SafeModeAction::Get,
        SafeModeOrder::Enter => SafeModeAction::Enter,
        SafeModeOrder::Leave => SafeModeAction::Leave,
    };
    let mut reason = session.client.safe_mode(action).await?;
    while order == SafeModeOrder::Wait && reason.is_some() {
        // The namenode tells of no change by itself: it is asked again.
        tokio::time::sleep(ASK_AGAIN).await;
        reason = session.client.safe_mode(action).await?;
    }
    if as_json {
        return show::json(&json!({ "safe_mode": reason }));
    }
    show::line(reason.map_or("safe mode is off".to_owned(), |reason| format!("safe mode is on: {reason}")))
}

/// The executors that the scheduler knows, or in words why it does not say; none in a cluster without a scheduler.
async fn executors(session: &Session) -> Result<Option<Vec<ExecutorStatus>>, String> {
    match tokio::time::timeout(SCHEDULER_LIMIT, session.client.scheduler().executors()).await {
        Ok(Ok(mut executors)) => {
            executors.sort_by(|left, right| left.registration.node.0.cmp(&right.registration.node.0));
            Ok(Some(executors))
        }
        Ok(Err(ClientError::NoScheduler { .. })) => Ok(None),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the scheduler gave no answer within {SCHEDULER_LIMIT:?}; check that it runs")),
    }
}

/// The room that a cluster has, in bytes: on volumes in use, of datanodes that are not dead.
#[derive(Debug, Default)]
pub struct Space {
    /// All of it.
    pub capacity: u64,
    /// What replicas take.
    pub used: u64,
    /// What they could take.
    pub free: u64,
}

impl Space {
    /// As a report says.
    pub fn of(report: &ClusterReport) -> Self {
        let mut space = Self::default();
        let live = report.datanodes.iter().filter(|node| node.liveness != Liveness::Dead);
        for volume in live.flat_map(|node| &node.volumes).filter(|volume| volume.failed.is_none()) {
            space.capacity = space.capacity.saturating_add(volume.capacity_bytes);
            space.used = space.used.saturating_add(volume.used_bytes);
            space.free = space.free.saturating_add(volume.free_bytes);
        }
        space
    }
}

/// How often the namenode is asked for what is waited for.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// How long a cluster in peace may take to make every block whole again.
const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// Waits until every block has all its replicas and a report is `ready` otherwise, which is asked of each.
///
/// # Errors
/// When that takes too long, or the namenode cannot say.
pub async fn whole_again(session: &Session, ready: impl Fn(&ClusterReport) -> bool) -> CliResult<ClusterReport> {
    let begun = Instant::now();
    loop {
        let report = session.client.report().await?;
        let blocks = [report.under_replicated, report.missing, report.pending];
        if ready(&report) && report.safe_mode.is_none() && blocks == [0; 3] {
            return Ok(report);
        }
        if begun.elapsed() > HEAL_LIMIT {
            return Err(CliError::failed(format!(
                "after {HEAL_LIMIT:?} there are still {} under-replicated, {} missing, {} being copied",
                count(report.under_replicated, "block"),
                report.missing,
                report.pending
            )));
        }
        // The namenode tells of no change by itself: it is asked again.
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn print_report(report: &ClusterReport) -> CliResult {
    let Space { capacity, used, free } = Space::of(report);
    show::line(format!("cluster {}", report.cluster))?;
    if let Some(reason) = &report.safe_mode {
        show::line(format!("  SAFE MODE: {reason}"))?;
    }
    if let Some(warning) = report.room.as_ref().and_then(room_warning) {
        show::line(format!("  {warning}"))?;
    }
    show::line(format!("  capacity          {}", human_size(capacity)))?;
    show::line(format!("  used              {}", human_size(used)))?;
    show::line(format!("  free              {}", human_size(free)))?;
    show::line(format!("  files             {} in {}", report.files, count(report.directories, "directory")))?;
    show::line(format!("  blocks            {}", report.blocks))?;
    show::line(format!("  under-replicated  {}{}", report.under_replicated, among(report.missing)))?;
    show::line(format!("  being copied      {}", report.pending))?;
    show::line(format!("  corrupt           {}", report.corrupt))?;
    show::line(format!("  missing           {}", report.missing))?;
    if report.unknown > 0 {
        show::line(format!(
            "  never given out   {} (kept; see `situ admin safemode --help`)",
            count(report.unknown, "replica")
        ))?;
    }
    if let Some(room) = &report.room {
        let (free, directory) = (human_size(room.free_bytes), escaped(&room.directory));
        show::line(format!("  namenode's disk   {free} free under {directory}"))?;
    }
    show::line(format!("  transaction       {}", report.tx.0))?;
    show::line(format!("  namespace digest  {}", hex(&report.digest[..8])))?;
    let dead = report.datanodes.iter().filter(|node| node.liveness == Liveness::Dead).count();
    show::line(format!("datanodes: {} live, {dead} dead", report.datanodes.len() - dead))?;
    let rows: Vec<_> = report.datanodes.iter().map(datanode_row).collect();
    let right = [false, false, false, false, true, false, true, true, false];
    for (node, row) in report.datanodes.iter().zip(columns(&rows, right)) {
        show::line(format!("  {row}"))?;
        for volume in &node.volumes {
            if let Some(reason) = &volume.failed {
                show::line(format!("    volume {} is out of use: {reason}", volume.storage))?;
            }
        }
    }
    Ok(())
}

/// What the namenode does not do, if its disk has too little room.
fn room_warning(room: &LogRoom) -> Option<String> {
    let (state, kept_bytes, refuses) = match room.taking {
        Taking::Everything => return None,
        Taking::WhatFrees => ("ALMOST FULL", room.reserve_bytes, "nothing is added, deletions go on"),
        Taking::Nothing => ("FULL", room.last_bytes, "nothing is changed, not even deleted"),
    };
    let (free, kept) = (human_size(room.free_bytes), human_size(kept_bytes));
    let directory = escaped(&room.directory);
    Some(format!(
        "NAMENODE'S DISK {state}: {free} free, of which {kept} are kept: {refuses}; free space on the disk of {directory} \
         on the namenode's host"
    ))
}

/// What a report says of the room of the namenode's log.
fn room_json(room: &LogRoom) -> Value {
    json!({
        "directory": room.directory, "free_bytes": room.free_bytes, "reserve_bytes": room.reserve_bytes,
        "last_bytes": room.last_bytes,
        "takes": match room.taking {
            Taking::Everything => "everything",
            Taking::WhatFrees => "what frees",
            Taking::Nothing => "nothing",
        },
    })
}

fn print_executors(executors: &[ExecutorStatus]) -> CliResult {
    let dead = executors.iter().filter(|executor| executor.liveness == Liveness::Dead).count();
    show::line(format!("executors: {} live, {dead} dead", executors.len() - dead))?;
    let row = |executor: &ExecutorStatus| {
        let registration = &executor.registration;
        [
            escaped(&registration.node.0).into_owned(),
            escaped(&registration.rack.0).into_owned(),
            registration.address.to_string(),
            liveness(executor.liveness).to_owned(),
            format!("{} of {} taken", executor.running, count(registration.slots.into(), "slot")),
        ]
    };
    let rows: Vec<_> = executors.iter().map(row).collect();
    columns(&rows, [false; 5]).into_iter().try_for_each(|row| show::line(format!("  {row}")))
}

/// How many of the under-replicated blocks have no replica at all.
fn among(missing: u64) -> String {
    if missing == 0 { String::new() } else { format!("  (the {missing} missing among them)") }
}

fn datanode_row(node: &DatanodeStatus) -> [String; 9] {
    let used: u64 = node.volumes.iter().map(|volume| volume.used_bytes).sum();
    let free: u64 = node.volumes.iter().map(|volume| volume.free_bytes).sum();
    let mut notes = Vec::new();
    if node.liveness != Liveness::Live {
        notes.push(format!("last heard {}", local_time(node.last_heartbeat)));
    }
    notes.extend(clock_note(node.clock_ahead_ms));
    [
        escaped(&node.location.node.0).into_owned(),
        escaped(&node.location.rack.0).into_owned(),
        node.location.address.to_string(),
        liveness(node.liveness).to_owned(),
        node.replicas.to_string(),
        if node.replicas == 1 { "replica" } else { "replicas" }.to_owned(),
        format!("{} used", human_size(used)),
        format!("{} free", human_size(free)),
        notes.join("; "),
    ]
}

/// What is to be said of a datanode's clock, if it does not agree with the namenode's.
fn clock_note(ahead_ms: i64) -> Option<String> {
    let away_ms = ahead_ms.unsigned_abs();
    let way = if ahead_ms > 0 { "ahead" } else { "behind" };
    (away_ms > CLOCKS_AGREE_MS).then(|| format!("its clock is {} s {way}", (away_ms + 500) / 1000))
}

fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "live",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn executor_json(executor: &ExecutorStatus) -> Value {
    let registration = &executor.registration;
    json!({
        "id": registration.id.to_string(), "node": registration.node.0, "rack": registration.rack.0,
        "address": registration.address, "state": liveness(executor.liveness), "running": executor.running,
        "slots": registration.slots, "workers": registration.workers,
        "worker_memory_bytes": registration.worker_memory_bytes, "last_poll_ms": executor.last_poll.0,
    })
}

fn report_json(report: &ClusterReport) -> Value {
    let datanodes: Vec<_> = report
        .datanodes
        .iter()
        .map(|node| {
            let volumes: Vec<_> = node
                .volumes
                .iter()
                .map(|volume| {
                    json!({
                        "storage": volume.storage.to_string(), "capacity_bytes": volume.capacity_bytes,
                        "used_bytes": volume.used_bytes, "free_bytes": volume.free_bytes, "failed": volume.failed,
                    })
                })
                .collect();
            json!({
                "id": node.location.id.to_string(), "node": node.location.node.0, "rack": node.location.rack.0,
                "address": node.location.address, "state": liveness(node.liveness), "replicas": node.replicas,
                "unknown": node.unknown, "last_heartbeat_ms": node.last_heartbeat.0,
                "clock_ahead_ms": node.clock_ahead_ms, "volumes": volumes,
            })
        })
        .collect();
    json!({
        "cluster": report.cluster.to_string(), "transaction": report.tx.0, "digest": hex(&report.digest),
        "safe_mode": report.safe_mode, "namenode_disk": report.room.as_ref().map(room_json), "directories": report.directories, "files": report.files,
        "blocks": report.blocks, "under_replicated": report.under_replicated, "pending": report.pending,
        "corrupt": report.corrupt, "missing": report.missing, "unknown": report.unknown, "datanodes": datanodes,
    })
}

/// How many damaged files are named in the end.
const NAMED: usize = 10;

/// What `situ fsck` has seen. Blocks count as the cluster's report counts them: one that is missing is under-replicated
/// too.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    files: u64,
    blocks: u64,
    bytes: u64,
    open: u64,
    under_replicated: u64,
    corrupt: u64,
    missing: u64,
    damaged: u64,
    /// How many of the missing blocks have a corrupt replica.
    rotten: u64,
    /// The first damaged files.
    names: Vec<String>,
}

/// `situ fsck`.
///
/// # Errors
/// When a file is damaged: a block of it has no good replica.
pub async fn fsck(session: &Session, args: &FsckArgs, as_json: bool) -> CliResult {
    let path = parse_path(&args.path)?;
    if session.client.stat(&path).await?.is_none() {
        return Err(CliError::failed(format!("{path}: there is no such file or directory")));
    }
    let mut pages = session.client.fsck(&path);
    let mut tally = Tally::default();
    while let Some(files) = pages.next_page().await? {
        for file in &files {
            let verdict = add(&mut tally, file);
            if as_json {
                show::json(&file_json(file, verdict))?;
            } else {
                print_file(file, verdict)?;
            }
        }
    }
    if !as_json {
        show::line(format!(
            "{}: {} ({} being written), {}, {}; {} under-replicated, {} of them missing, {} with a corrupt replica; {}",
            escaped_on_terminal(path.as_str()),
            count(tally.files, "file"),
            tally.open,
            count(tally.blocks, "block"),
            human_size(tally.bytes),
            count(tally.under_replicated, "block"),
            tally.missing,
            tally.corrupt,
            if tally.damaged == 0 { "healthy".to_owned() } else { format!("{} DAMAGED", count(tally.damaged, "file")) }
        ))?;
    }
    match tally.damaged {
        0 => Ok(()),
        damaged => Err(CliError::failed(format!(
            "{path}: {} damaged: {}{}: no good replica of some block is known; {}",
            count(damaged, "file"),
            tally.names.join(", "),
            if tally.names.len() as u64 == damaged { "" } else { ", ..." },
            tally.advice()
        ))),
    }
}

impl Tally {
    /// What to do about the blocks that have no good replica.
    fn advice(&self) -> &'static str {
        if self.missing == self.rotten {
            "those that there are, are corrupt: delete the files and store them again"
        } else {
            "start the datanodes that hold it (`situ admin report` shows which are away), or delete the files and store them \
             again"
        }
    }
}

/// Counts a file; says what is wrong with it.
fn add(tally: &mut Tally, file: &FileHealth) -> &'static str {
    tally.files += 1;
    tally.open += u64::from(file.open);
    tally.bytes += file.len_bytes;
    let (mut missing, mut short) = (false, false);
    for block in &file.blocks {
        tally.blocks += 1;
        tally.corrupt += u64::from(!block.corrupt.is_empty());
        if block.committed && block.replicas.len() < usize::from(file.replication) {
            tally.under_replicated += 1;
            tally.missing += u64::from(block.replicas.is_empty());
            tally.rotten += u64::from(block.replicas.is_empty() && !block.corrupt.is_empty());
            (missing, short) = (missing || block.replicas.is_empty(), true);
        }
    }
    tally.damaged += u64::from(missing);
    if missing && tally.names.len() < NAMED {
        tally.names.push(file.path.to_string());
    }
    match (missing, short, file.open) {
        (true, _, _) => "DAMAGED",
        (false, true, _) => "under-replicated",
        (false, false, true) => "being written",
        (false, false, false) => "healthy",
    }
}

fn print_file(file: &FileHealth, verdict: &str) -> CliResult {
    show::line(format!(
        "{}  {}, {}: {verdict}",
        escaped_on_terminal(file.path.as_str()),
        human_size(file.len_bytes),
        count(file.blocks.len() as u64, "block")
    ))?;
    let row = |block: &BlockHealth| {
        let places: Vec<String> = block.replicas.iter().map(|place| format!("{}{}", place.node, place.rack)).collect();
        let mut text = if places.is_empty() { "MISSING".to_owned() } else { escaped(&places.join(" ")).into_owned() };
        if !block.committed {
            text += "  (being written)";
        }
        if !block.corrupt.is_empty() {
            text += &format!("  ({} corrupt)", block.corrupt.len());
        }
        let replicas = format!("{} of {}", places.len(), file.replication);
        [block.block.to_string(), human_size(block.len_bytes), replicas, text]
    };
    let rows: Vec<_> = file.blocks.iter().map(row).collect();
    columns(&rows, [false, true, false, false]).into_iter().try_for_each(|row| show::line(format!("  {row}")))
}

fn file_json(file: &FileHealth, verdict: &str) -> Value {
    let blocks: Vec<_> = file
        .blocks
        .iter()
        .map(|block| {
            json!({
                "block": block.block.to_string(), "bytes": block.len_bytes, "committed": block.committed,
                "replicas": block.replicas.iter().map(|place| json!({
                    "node": place.node.0, "rack": place.rack.0, "address": place.address,
                })).collect::<Vec<_>>(),
                "corrupt": block.corrupt.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "path": file.path.as_str(), "bytes": file.len_bytes, "replication": file.replication, "open": file.open,
        "verdict": verdict.to_lowercase(), "blocks": blocks,
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use situ_wire::block::{Block, DatanodeLocation};
    use situ_wire::ids::{BlockId, DatanodeId, GenerationStamp, NodeName, RackName};
    use situ_wire::path::DfsPath;
    use situ_wire::time::WallTime;

    use super::*;

    fn block(replicas: u128, corrupt: u128) -> BlockHealth {
        let place = |id| DatanodeLocation {
            id: DatanodeId(id),
            node: NodeName(format!("node-{id}")),
            rack: RackName("/rack".to_owned()),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
        };
        BlockHealth {
            block: Block { id: BlockId(1), generation: GenerationStamp(1) },
            len_bytes: 5,
            committed: true,
            replicas: (0..replicas).map(place).collect(),
            corrupt: (0..corrupt).map(DatanodeId).collect(),
        }
    }

    #[test]
    fn a_datanode_whose_clock_differs_is_shown() {
        let location = block(1, 0).replicas.remove(0);
        let node = |liveness, clock_ahead_ms| DatanodeStatus {
            location: location.clone(),
            liveness,
            last_heartbeat: WallTime(0),
            volumes: Vec::new(),
            replicas: 0,
            unknown: 0,
            clock_ahead_ms,
        };
        let said = |liveness, ahead_ms| datanode_row(&node(liveness, ahead_ms))[8].clone();
        assert_eq!(said(Liveness::Live, 5_000), "");
        assert_eq!(said(Liveness::Live, 3_600_999), "its clock is 3601 s ahead");
        let dead = said(Liveness::Dead, -7_000);
        assert!(dead.starts_with("last heard 19") && dead.ends_with("; its clock is 7 s behind"), "{dead}");
    }

    #[test]
    fn a_missing_block_is_under_replicated_too_as_in_the_cluster_report() {
        let mut tally = Tally::default();
        let blocks = vec![block(3, 0), block(1, 1), block(0, 3), block(0, 0)];
        let path = DfsPath::parse("/file").unwrap();
        let file = FileHealth { path, len_bytes: 20, replication: 3, open: false, blocks };
        assert_eq!(add(&mut tally, &file), "DAMAGED");
        let short = FileHealth { blocks: vec![block(2, 0)], ..file.clone() };
        assert_eq!(add(&mut tally, &short), "under-replicated");
        let whole = FileHealth { blocks: vec![block(3, 1)], ..file };
        assert_eq!(add(&mut tally, &whole), "healthy");
        let expected = Tally {
            files: 3,
            blocks: 6,
            bytes: 60,
            open: 0,
            under_replicated: 4,
            corrupt: 3,
            missing: 2,
            damaged: 1,
            rotten: 1,
            names: vec!["/file".to_owned()],
        };
        assert_eq!(tally, expected);
    }
}
