//! Keeps a cluster running until Ctrl-C.

use std::convert::Infallible;
use std::time::Duration;

use super::{Cluster, ClusterOptions, Timings};
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
        let (which, how) = first_end(cluster).await;
        show::note(format!("{} ended with {how}; starting it again", name(cluster, which)));
        tokio::time::sleep(RESTART_AFTER).await;
        if let Err(error) = restart(cluster, which).await {
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

/// One process of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Namenode,
    Scheduler,
    Datanode(usize),
    Executor(usize),
}

fn name(cluster: &Cluster, which: Which) -> String {
    match which {
        Which::Namenode => "namenode".to_owned(),
        Which::Scheduler => "scheduler".to_owned(),
        Which::Datanode(index) => format!("datanode-{}", cluster.nodes[index].name),
        Which::Executor(index) => format!("executor-{}", cluster.nodes[index].name),
    }
}

/// Waits for one process to end.
type EndOf<'a> = std::pin::Pin<Box<dyn Future<Output = (Which, String)> + Send + 'a>>;

/// Waits until some process ends by itself.
async fn first_end(cluster: &mut Cluster) -> (Which, String) {
    let mut ends: Vec<EndOf<'_>> = Vec::new();
    ends.push(Box::pin(async { (Which::Namenode, cluster.namenode.ended().await) }));
    ends.push(Box::pin(async { (Which::Scheduler, cluster.scheduler.ended().await) }));
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        if let Some(datanode) = &mut node.datanode {
            ends.push(Box::pin(async move { (Which::Datanode(index), datanode.ended().await) }));
        }
        if let Some(executor) = &mut node.executor {
            ends.push(Box::pin(async move { (Which::Executor(index), executor.ended().await) }));
        }
    }
    futures_util::future::select_all(ends).await.0
}

async fn restart(cluster: &mut Cluster, which: Which) -> CliResult {
    let process = match which {
        Which::Namenode => Some(&mut cluster.namenode),
        Which::Scheduler => Some(&mut cluster.scheduler),
        Which::Datanode(index) => cluster.nodes[index].datanode.as_mut(),
        Which::Executor(index) => cluster.nodes[index].executor.as_mut(),
    };
    match process {
        Some(process) => process.restart().await,
        None => Ok(()),
    }
}
