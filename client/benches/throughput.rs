//! How fast one client writes and reads, against datanodes that keep all in memory: the client's own share of the cost,
//! and that of the transports. Run with `cargo bench -p situ-client`.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "its results are for people")]

#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
#[path = "../tests/fake/mod.rs"]
mod fake;

use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use fake::{Datanode, Namenode, bytes, path};
use situ_client::{Client, ClientConfig, CreateOptions};
use situ_runtime::real::RealRuntime;
use situ_runtime::security::{Authority, Credentials};
use situ_runtime::transport::net::Route;
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

const CLUSTER: ClusterId = ClusterId(7);
const PIECE_LEN_BYTES: usize = 1 << 20;
const PIECES: usize = 1024;

fn main() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, route) in [("Unix sockets", Route::LocalOnly), ("QUIC", Route::QuicOnly)] {
        for replicas in [1, 3] {
            println!("{name}, {replicas} replicas");
            threads.block_on(measure(route, replicas));
        }
    }
}

async fn measure(route: Route, replicas: u8) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let authority = Authority::create(CLUSTER).unwrap();
    let runtime = |role: Role, name: &str| {
        let credentials: Credentials = authority.issue(&[role], name).unwrap();
        RealRuntime::with_route(Some(&credentials), route).unwrap()
    };
    let namenode = Namenode::start(runtime(Role::Namenode, "nn"), CLUSTER, any).await;
    let mut datanodes = Vec::new();
    for number in 1..=replicas {
        let runtime = runtime(Role::Datanode, &format!("dn{number}"));
        let datanode = Datanode::start(runtime, CLUSTER, any, number, || ()).await;
        namenode.state().datanodes.push(datanode.location.clone());
        datanodes.push(datanode);
    }
    let config = ClientConfig::new(CLUSTER, namenode.address);
    let client = Client::new(runtime(Role::User, "ann"), config.clone(), config.user("ann"));
    let piece = Bytes::from(bytes(PIECE_LEN_BYTES));

    let watch = Watch::start();
    let mut writer = client.create(&path("/f"), CreateOptions::default()).await.unwrap();
    for _ in 0..PIECES {
        writer.write(piece.clone()).await.unwrap();
    }
    writer.close().await.unwrap();
    watch.stop("put");

    for _ in 0..2 {
        let watch = Watch::start();
        let mut stream = client.open(&path("/f")).await.unwrap().stream(0..u64::MAX);
        let mut len_bytes = 0;
        while let Some(piece) = stream.next().await.unwrap() {
            len_bytes += piece.len();
        }
        assert_eq!(len_bytes, PIECES * PIECE_LEN_BYTES);
        watch.stop("get");
    }
}

/// Wall time and processor time of this process, both ends of everything.
struct Watch {
    start: Instant,
    cpu_s: f64,
}

impl Watch {
    fn start() -> Self {
        Self { start: Instant::now(), cpu_s: cpu_s() }
    }

    fn stop(self, what: &str) {
        let (wall_s, cpu_s) = (self.start.elapsed().as_secs_f64(), cpu_s() - self.cpu_s);
        println!("  {what} 1 GiB: {:.0} MB/s, {cpu_s:.2} CPU s", 1073.7 / wall_s);
    }
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
