//! How many namespace operations a second one namenode does, with its clients on the same machine: over the real
//! transport, on a real disk, every change acknowledged after its sync.
//!
//! ```text
//! cargo bench -p situ-namenode --bench namespace -- [OPERATIONS [CONNECTIONS [DIRECTORY [CHECKPOINT_EDITS]]]]
//! ```
//!
//! *CPU us* is the processor time of an operation, both sides and the kernel for them: it tells more than the rate on a
//! machine that others use too. The namenode and the clients have a thread each (beside the one that waits for the disk), so the figures hold for two
//! processors that do both sides' work.

#![allow(clippy::print_stdout, reason = "a table is what it is for")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use situ_namenode::{Namenode, NamenodeConfig, NamenodeHandle, format};
use situ_runtime::Runtime;
use situ_runtime::real::RealRuntime;
use situ_runtime::rpc::{Caller, Connector, Identity, RpcError};
use situ_runtime::transport::Transport;
use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, ClusterId, OperationId};
use situ_wire::limits::BLOCK_LEN_DEFAULT_BYTES;
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::DfsPath;

const CLUSTER: ClusterId = ClusterId(1);
const USER: &str = "situ";
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many files a directory holds.
const DIRECTORIES: u64 = 100;

type Calls = Caller<RealRuntime, Request, Response>;

/// One row of the table.
struct Kind {
    name: &'static str,
    in_flight: u64,
    operations: u64,
    request: fn(u64, OperationId) -> Request,
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they build.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let (operations, connections) = (number(0, 200_000), number(1, 2));
    let parent = arguments.get(2).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(parent).expect("the directory can be written");

    let server = threads(1);
    let namenode = server.block_on(start(directory.path(), number(3, 1_000_000)));
    let clients = threads(1);
    clients.block_on(measure(&namenode, operations, connections));
    let started = Instant::now();
    server.block_on(namenode.shutdown()).expect("a clean end");
    println!(
        "{} checkpoints of {} records in all; the clean end took {:.1} s",
        namenode.metrics().checkpoints.get(),
        namenode.metrics().image_records.get(),
        started.elapsed().as_secs_f64()
    );
}

fn threads(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().expect("threads start")
}

async fn start(directory: &Path, checkpoint_edits: u64) -> NamenodeHandle {
    let runtime = RealRuntime::new(None).expect("no credentials are needed on one host");
    let home = directory.join("namenode");
    format(runtime.disk(), &home, CLUSTER).expect("the directory is new");
    let listener = runtime.transport().listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port is free");
    let config = NamenodeConfig { safe_mode_extension_ms: 1, checkpoint_edits, ..NamenodeConfig::new(home) };
    Namenode::start(runtime, config, CLUSTER, listener).await.expect("a fresh namenode starts")
}

async fn measure(namenode: &NamenodeHandle, operations: u64, connections: u64) {
    let mut callers = Vec::new();
    for _ in 0..connections {
        let runtime = RealRuntime::new(None).expect("no credentials are needed on one host");
        let identity = Identity { cluster: CLUSTER, role: Role::User, name: USER.to_owned() };
        let caller = Connector::new(runtime, identity).caller(namenode.address(), Role::Namenode).await;
        callers.push(caller.expect("the namenode listens"));
    }
    let kinds = [
        Kind { name: "mkdir", in_flight: 64, operations: DIRECTORIES, request: mkdir },
        Kind { name: "mkdir", in_flight: 64, operations: operations / 4, request: mkdir_leaf },
        Kind { name: "create", in_flight: 64, operations, request: create },
        Kind { name: "stat", in_flight: 1, operations: operations / 20, request: stat },
        Kind { name: "stat", in_flight: 128, operations, request: stat },
        Kind { name: "list 100", in_flight: 64, operations: operations / 20, request: list },
        Kind { name: "rename", in_flight: 64, operations, request: rename },
        Kind { name: "delete", in_flight: 64, operations, request: delete },
    ];
    println!(
        "{:<10} {:>9} {:>10} {:>10} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "operation", "in flight", "operations", "a second", "p50 us", "p99 us", "max us", "CPU us", "edits/sync"
    );
    let client = Arc::new(AtomicU64::new(1));
    for kind in kinds {
        let (edits, syncs) = (namenode.metrics().edits.get(), namenode.metrics().syncs.get());
        let (started, busy) = (Instant::now(), processor_time());
        let mut latencies = run(&callers, &kind, &client).await;
        let elapsed = started.elapsed().as_secs_f64();
        let busy = (processor_time() - busy) * 1e6 / kind.operations as f64;
        latencies.sort_unstable();
        let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1000].as_secs_f64() * 1e6;
        let syncs = namenode.metrics().syncs.get() - syncs;
        let shared = (namenode.metrics().edits.get() - edits) as f64 / syncs.max(1) as f64;
        let rate = kind.operations as f64 / elapsed;
        println!(
            "{:<10} {:>9} {:>10} {rate:>10.0} {:>9.0} {:>9.0} {:>9.0} {busy:>9.1} {shared:>10.1}",
            kind.name,
            kind.in_flight,
            kind.operations,
            at(500),
            at(990),
            at(1000)
        );
    }
}

/// How many seconds of a processor this process has used, both sides and the kernel for them; to a hundredth.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything: user time is the 12th field, system time the 13th, in hundredths.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Does all operations of a kind, so many at a time; how long each took.
async fn run(callers: &[Calls], kind: &Kind, client: &Arc<AtomicU64>) -> Vec<Duration> {
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..kind.in_flight)
        .map(|worker| {
            let caller = callers[usize::try_from(worker).expect("few workers") % callers.len()].clone();
            let (next, operations, request) = (Arc::clone(&next), kind.operations, kind.request);
            // A client of its own: operations of one client are numbered in the order in which they are sent.
            let client = ClientId(u128::from(client.fetch_add(1, Ordering::Relaxed)));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= operations {
                        return Ok::<_, RpcError>(latencies);
                    }
                    let request = request(number, OperationId { client, sequence: latencies.len() as u64 + 1 });
                    let started = Instant::now();
                    caller.call(&request, TIMEOUT).await?;
                    latencies.push(started.elapsed());
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("a worker does not panic").expect("every call is answered well"));
    }
    all
}

fn path(text: String) -> DfsPath {
    DfsPath::parse(&text).expect("the names are good")
}

fn file(number: u64) -> DfsPath {
    path(format!("/bench{}/file-{number:012}", number % DIRECTORIES))
}

fn moved(number: u64) -> DfsPath {
    path(format!("/bench{}/moved-{number:012}", number % DIRECTORIES))
}

fn mkdir(number: u64, operation: OperationId) -> Request {
    Request::Mkdir { path: path(format!("/bench{number}")), parents: false, mode: 0o755, operation }
}

fn mkdir_leaf(number: u64, operation: OperationId) -> Request {
    let path = path(format!("/bench{}/directory-{number:012}", number % DIRECTORIES));
    Request::Mkdir { path, parents: false, mode: 0o755, operation }
}

fn create(number: u64, operation: OperationId) -> Request {
    Request::Create {
        path: file(number),
        overwrite: false,
        parents: false,
        replication: 3,
        block_len_bytes: BLOCK_LEN_DEFAULT_BYTES,
        mode: 0o644,
        operation,
    }
}

fn stat(number: u64, _: OperationId) -> Request {
    Request::Stat { path: file(number) }
}

fn list(number: u64, _: OperationId) -> Request {
    Request::List { path: path(format!("/bench{}", number % DIRECTORIES)), after: None, limit: 100 }
}

fn rename(number: u64, operation: OperationId) -> Request {
    Request::Rename { from: file(number), to: moved(number), overwrite: false, operation }
}

fn delete(number: u64, operation: OperationId) -> Request {
    Request::Delete { path: moved(number), recursive: false, operation }
}
