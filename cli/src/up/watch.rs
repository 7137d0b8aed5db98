//! Keeps a cluster running until Ctrl-C.

use std::convert::Infallible;
use std::time::{Duration, Instant};

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
    let mut rest = shortest;
    loop {
        let calm = Instant::now() + CALM;
        let (member, how) = first_end(cluster).await;
        if Instant::now() > calm {
            rest = shortest;
        }
        let Some(process) = cluster.process(member) else { continue };
        show::note(format!("{} ended with {how}; starting it again in {rest:?}", process.name()));
        tokio::time::sleep(rest).await;
        match process.restart().await {
            Ok(()) => show::note(format!("{} is back", process.name())),
            Err(error) => show::note(format!("{error}")),
        }
        rest = (rest * 2).min(longest);
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

/// Waits until some process ends by itself.
async fn first_end(cluster: &mut Cluster) -> (Member, String) {
    let mut ends: Vec<EndOf<'_>> = Vec::new();
    ends.push(Box::pin(async { (Member::Namenode, cluster.namenode.ended().await) }));
    ends.push(Box::pin(async { (Member::Scheduler, cluster.scheduler.ended().await) }));
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        if let Some(datanode) = &mut node.datanode {
            ends.push(Box::pin(async move { (Member::Datanode(index), datanode.ended().await) }));
        }
        if let Some(executor) = &mut node.executor {
            ends.push(Box::pin(async move { (Member::Executor(index), executor.ended().await) }));
        }
    }
    futures_util::future::select_all(ends).await.0
}
