//! Keeps a cluster running until Ctrl-C.

use std::convert::Infallible;
use std::time::Duration;

use super::{Cluster, ClusterOptions, Member, Timings};
use crate::args::UpArgs;
use crate::error::CliResult;
use crate::show;
use crate::world::Interrupt;

/// How long a role that ended is left alone before it is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

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
    loop {
        let (member, how) = first_end(cluster).await;
        let Some(process) = cluster.process(member) else { continue };
        show::note(format!("{} ended with {how}; starting it again", process.name()));
        tokio::time::sleep(RESTART_AFTER).await;
        if let Err(error) = process.restart().await {
            show::note(format!("{error}"));
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
