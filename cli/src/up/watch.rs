//! Keeps a cluster running until Ctrl-C.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::process::RoleProcess;
use super::{Cluster, ClusterOptions, Member, Timings};
use crate::args::UpArgs;
use crate::error::CliResult;
use crate::show;
use crate::world::Interrupt;

/// How long a role that ended is left alone before it is started again: the shortest, and the longest if it ends again and
/// again.
const RESTART_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// After so long without an end the next one is the first again.
const CALM: Duration = Duration::from_secs(60);

/// `situ up`.
pub async fn up(args: &UpArgs, json: bool) -> CliResult {
    let interrupt = Interrupt::listen();
    let options = ClusterOptions {
        program: std::env::current_exe()?,
        dir: args.dir.clone(),
        datanodes: args.datanodes,
        racks: args.racks,
        slots: args.slots,
        timings: Timings::Usual,
        block_len_bytes: None,
    };
    let mut cluster = tokio::select! {
        cluster = Cluster::start(options) => cluster?,
        () = interrupt.wait() => return Ok(()),
    };
    say_where(&cluster, json)?;
    // What is being started again meanwhile ends with that.
    tokio::select! {
        () = interrupt.wait() => {}
        never = keep_up(&mut cluster) => match never {},
    }
    if !json {
        show::note("stopping");
    }
    cluster.stop().await
}

/// Starts again whatever ends.
async fn keep_up(cluster: &mut Cluster) -> Infallible {
    let [shortest, longest] = RESTART_AFTER;
    // When each that has ended is started again, and how long each that ended lately rested.
    let mut due: BTreeMap<Member, Instant> = BTreeMap::new();
    let mut rests: BTreeMap<Member, (Duration, Instant)> = BTreeMap::new();
    loop {
        let next = due.iter().map(|(member, at)| (*at, *member)).min();
        let rested = async {
            match next {
                Some((at, member)) => {
                    tokio::time::sleep_until(at).await;
                    member
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            member = rested => {
                due.remove(&member);
                let Some(process) = cluster.process(member) else { continue };
                match process.restart().await {
                    Ok(()) => show::note(format!("{} is back", process.name())),
                    Err(error) => show::note(format!("{error}")),
                }
            }
            (member, how) = first_end(cluster, &due) => {
                let Some(process) = cluster.process(member) else { continue };
                let now = Instant::now();
                let again = rests.get(&member).filter(|(_, last)| now.duration_since(*last) < CALM);
                let rest = again.map_or(shortest, |(rest, _)| (*rest * 2).min(longest));
                show::note(format!("{} ended with {how}; starting it again in {rest:?}", process.name()));
                due.insert(member, now + rest);
                rests.insert(member, (rest, now + rest));
            }
        }
    }
}

fn say_where(cluster: &Cluster, json: bool) -> CliResult {
    if json {
        let processes: Vec<_> = cluster
            .processes()
            .map(|process| {
                serde_json::json!({
                    "name": process.name(), "address": process.address(), "pid": process.pid(),
                })
            })
            .collect();
        return show::json(&serde_json::json!({
            "cluster": cluster.id().to_string(),
            "directory": cluster.layout().root().to_string_lossy(),
            "processes": processes,
        }));
    }
    show::line(format!("cluster {} in {}", cluster.id(), cluster.layout().root().display()))?;
    for process in cluster.processes() {
        show::line(format!("  {:18} {}", process.name(), process.address()))?;
    }
    show::line("ready; try `situ fs ls /` in another window; stop with Ctrl-C")
}

/// Waits for one process to end.
type EndOf<'a> = std::pin::Pin<Box<dyn Future<Output = (Member, String)> + Send + 'a>>;

/// Waits until some process ends by itself, of those that have not ended already.
async fn first_end(cluster: &mut Cluster, ended: &BTreeMap<Member, Instant>) -> (Member, String) {
    let mut processes = vec![(Member::Namenode, &mut cluster.namenode), (Member::Scheduler, &mut cluster.scheduler)];
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        processes.extend(node.datanode.as_mut().map(|process| (Member::Datanode(index), process)));
        processes.extend(node.executor.as_mut().map(|process| (Member::Executor(index), process)));
    }
    processes.retain(|(member, _)| !ended.contains_key(member));
    let end = |(member, process): (Member, _)| -> EndOf<'_> { Box::pin(end_of(member, process)) };
    let ends: Vec<EndOf<'_>> = processes.into_iter().map(end).collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(ends).await.0
}

async fn end_of(member: Member, process: &mut RoleProcess) -> (Member, String) {
    (member, process.ended().await)
}
