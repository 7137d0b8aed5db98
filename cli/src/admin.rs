//! `situ admin report` and `situ fsck`.

use serde_json::json;
use situ_wire::messages::namenode::{ClusterReport, DatanodeStatus, FileHealth, Liveness};
use situ_wire::time::TimeMs;

use crate::args::FsckArgs;
use crate::error::{CliError, CliResult};
use crate::fs::parse_path;
use crate::session::Session;
use crate::show::{self, human_size};

/// `situ admin report`.
pub async fn report(session: &Session, as_json: bool) -> CliResult {
    let report = session.client.report().await?;
    if as_json {
        return show::json(&report_json(&report));
    }
    let live = report.datanodes.iter().filter(|node| node.liveness != Liveness::Dead);
    let (mut capacity, mut used, mut free) = (0_u64, 0_u64, 0_u64);
    for volume in live.clone().flat_map(|node| &node.volumes).filter(|volume| volume.failed.is_none()) {
        capacity = capacity.saturating_add(volume.capacity_bytes);
        used = used.saturating_add(volume.used_bytes);
        free = free.saturating_add(volume.free_bytes);
    }
    show::line(format!("cluster {}", report.cluster))?;
    if let Some(reason) = &report.safe_mode {
        show::line(format!("  SAFE MODE: {reason}"))?;
    }
    show::line(format!("  capacity          {}", human_size(capacity)))?;
    show::line(format!("  used              {}", human_size(used)))?;
    show::line(format!("  free              {}", human_size(free)))?;
    show::line(format!("  files             {} in {} directories", report.files, report.directories))?;
    show::line(format!("  blocks            {}", report.blocks))?;
    show::line(format!("  under-replicated  {}", report.under_replicated))?;
    show::line(format!("  being copied      {}", report.pending))?;
    show::line(format!("  corrupt           {}", report.corrupt))?;
    show::line(format!("  missing           {}", report.missing))?;
    show::line(format!("  transaction       {}", report.tx.0))?;
    show::line(format!("  namespace digest  {}", hex(&report.digest[..8])))?;
    show::line(format!("datanodes: {} live, {} dead", live.count(), count(&report, Liveness::Dead)))?;
    let now = report.datanodes.iter().map(|node| node.last_heartbeat).max().unwrap_or_default();
    report.datanodes.iter().try_for_each(|node| show::line(datanode_text(node, now)))
}

fn count(report: &ClusterReport, liveness: Liveness) -> usize {
    report.datanodes.iter().filter(|node| node.liveness == liveness).count()
}

fn datanode_text(node: &DatanodeStatus, newest: TimeMs) -> String {
    let used: u64 = node.volumes.iter().map(|volume| volume.used_bytes).sum();
    let free: u64 = node.volumes.iter().map(|volume| volume.free_bytes).sum();
    let mut text = format!(
        "  {:10} {:10} {:21} {:7} {:>6} replicas  {:>10} used  {:>10} free",
        node.location.node.0,
        node.location.rack.0,
        node.location.address.to_string(),
        liveness(node.liveness),
        node.replicas,
        human_size(used),
        human_size(free)
    );
    if node.liveness != Liveness::Live {
        text += &format!("  last heard {:.0} s before the others", newest.since(node.last_heartbeat).as_secs_f64());
    }
    for volume in &node.volumes {
        if let Some(reason) = &volume.failed {
            text += &format!("\n    volume {} is out of use: {reason}", volume.storage);
        }
    }
    text
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

fn report_json(report: &ClusterReport) -> serde_json::Value {
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
                "last_heartbeat_ms": node.last_heartbeat.0, "volumes": volumes,
            })
        })
        .collect();
    json!({
        "cluster": report.cluster.to_string(), "transaction": report.tx.0, "digest": hex(&report.digest),
        "safe_mode": report.safe_mode, "directories": report.directories, "files": report.files,
        "blocks": report.blocks, "under_replicated": report.under_replicated, "pending": report.pending,
        "corrupt": report.corrupt, "missing": report.missing, "datanodes": datanodes,
    })
}

/// What `situ fsck` has seen.
#[derive(Debug, Default)]
struct Tally {
    files: u64,
    blocks: u64,
    bytes: u64,
    open: u64,
    under_replicated: u64,
    corrupt: u64,
    damaged: u64,
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
            "{}: {} files ({} being written), {} blocks, {}; {} blocks under-replicated, {} with a corrupt replica; {}",
            path,
            tally.files,
            tally.open,
            tally.blocks,
            human_size(tally.bytes),
            tally.under_replicated,
            tally.corrupt,
            if tally.damaged == 0 { "healthy".to_owned() } else { format!("{} FILES DAMAGED", tally.damaged) }
        ))?;
    }
    match tally.damaged {
        0 => Ok(()),
        damaged => Err(CliError::failed(format!(
            "{path}: {damaged} damaged files: no good replica of some block is known; bring its datanodes back, or \
             delete the files and store them again"
        ))),
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
        if block.committed && block.replicas.is_empty() {
            missing = true;
        } else if block.committed && block.replicas.len() < usize::from(file.replication) {
            tally.under_replicated += 1;
            short = true;
        }
    }
    tally.damaged += u64::from(missing);
    match (missing, short, file.open) {
        (true, _, _) => "DAMAGED",
        (false, true, _) => "under-replicated",
        (false, false, true) => "being written",
        (false, false, false) => "healthy",
    }
}

fn print_file(file: &FileHealth, verdict: &str) -> CliResult {
    show::line(format!("{}  {}, {} blocks: {verdict}", file.path, human_size(file.len_bytes), file.blocks.len()))?;
    for block in &file.blocks {
        let places: Vec<String> = block.replicas.iter().map(|place| format!("{}{}", place.node, place.rack)).collect();
        let mut text = format!(
            "  {}  {:>10}  {} of {}  ",
            block.block,
            human_size(block.len_bytes),
            places.len(),
            file.replication
        );
        text += &if places.is_empty() { "MISSING".to_owned() } else { places.join(" ") };
        if !block.committed {
            text += "  (being written)";
        }
        if !block.corrupt.is_empty() {
            text += &format!("  ({} corrupt)", block.corrupt.len());
        }
        show::line(text)?;
    }
    Ok(())
}

fn file_json(file: &FileHealth, verdict: &str) -> serde_json::Value {
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
        "verdict": verdict, "blocks": blocks,
    })
}
