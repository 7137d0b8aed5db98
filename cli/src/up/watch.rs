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

/// Starts again whatever ends or has not started.
async fn keep_up(cluster: &mut Cluster) -> Infallible {
    let mut rests = Rests::default();
    for (index, node) in cluster.nodes.iter().enumerate() {
        let members = [(Member::Datanode(index), &node.datanode), (Member::Executor(index), &node.executor)];
        for (member, process) in members {
            if process.as_ref().is_some_and(|process| !process.is_running()) {
                rests.begin(member);
            }
        }
    }
    loop {
        tokio::select! {
            biased;
            member = rests.next() => {
                rests.due.remove(&member);
                let Some(process) = cluster.process(member) else { continue };
                match process.restart().await {
                    Ok(()) => show::note(format!("{} is back", process.name())),
                    Err(error) => {
                        let rest = rests.begin(member);
                        show::note(format!("{error}\nstarting it again in {rest:?}"));
                    }
                }
            }
            (member, how) = first_end(cluster) => {
                let Some(process) = cluster.process(member) else { continue };
                let rest = rests.begin(member);
                show::note(format!("{} ended with {how}; starting it again in {rest:?}", process.name()));
            }
        }
    }
}

/// What has ended, or not started, and is left alone for a while.
#[derive(Debug, Default)]
struct Rests {
    /// When each is started again.
    due: BTreeMap<Member, Instant>,
    /// How long each rested that ended lately, and until when.
    last: BTreeMap<Member, (Duration, Instant)>,
}

impl Rests {
    /// One has ended, or has not started: how long it rests.
    fn begin(&mut self, member: Member) -> Duration {
        let [shortest, longest] = RESTART_AFTER;
        let now = Instant::now();
        let again = self.last.get(&member).filter(|(_, last)| now.duration_since(*last) < CALM);
        let rest = again.map_or(shortest, |(rest, _)| (*rest * 2).min(longest));
        self.due.insert(member, now + rest);
        self.last.insert(member, (rest, now + rest));
        rest
    }

    /// Waits for the next one that has rested.
    async fn next(&self) -> Member {
        let next = self.due.iter().map(|(member, at)| (*at, *member)).min();
        let Some((at, member)) = next else { return std::future::pending().await };
        tokio::time::sleep_until(at).await;
        member
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
        let later = if process.is_running() { "" } else { "  (does not run yet)" };
        show::line(format!("  {:18} {}{later}", process.name(), process.address()))?;
    }
    show::line("ready; try `situ fs ls /` in another window; stop with Ctrl-C")
}

/// Waits for one process to end.
type EndOf<'a> = std::pin::Pin<Box<dyn Future<Output = (Member, String)> + Send + 'a>>;

/// Waits until some process ends by itself, of those that run.
async fn first_end(cluster: &mut Cluster) -> (Member, String) {
    let mut processes = vec![(Member::Namenode, &mut cluster.namenode), (Member::Scheduler, &mut cluster.scheduler)];
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        processes.extend(node.datanode.as_mut().map(|process| (Member::Datanode(index), process)));
        processes.extend(node.executor.as_mut().map(|process| (Member::Executor(index), process)));
    }
    let end = |(member, process): (Member, _)| -> EndOf<'_> { Box::pin(end_of(member, process)) };
    let ends: Vec<EndOf<'_>> = processes.into_iter().map(end).collect();
    futures_util::future::select_all(ends).await.0
}

async fn end_of(member: Member, process: &mut RoleProcess) -> (Member, String) {
    (member, process.ended().await)
}
