//! How fast two processes' worth of endpoints in one process talk over Unix sockets and over QUIC on loopback: bytes of
//! one and of four streams, and calls of 200 bytes. CPU seconds are those of both ends together.
//!
//! `cargo bench -p situ-runtime --bench transport -- [local|quic] [stream|rpc]`
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use situ_runtime::Runtime;
use situ_runtime::real::RealRuntime;
use situ_runtime::rpc::{
    Caller, CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service,
    serve,
};
use situ_runtime::security::Authority;
use situ_runtime::transport::net::{NetReceiveStream, NetSendStream, Route};
use situ_runtime::transport::{Connection, Listener, ReceiveStream, SendStream, Transport, TransportError};
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;
use situ_wire::messages::StreamOpen;

const CLUSTER: ClusterId = ClusterId(1);
const ANYWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const ROUND: Duration = Duration::from_secs(3);
const PIECE_LEN_BYTES: usize = 1 << 20;
const CALL_LEN_BYTES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let wanted: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let want = |name: &str, all: [&str; 2]| {
        wanted.iter().any(|wanted| wanted == name) || !wanted.iter().any(|wanted| all.contains(&wanted.as_str()))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{:<6} {:<24} {:>12} {:>16}", "way", "what", "rate", "CPU");
    for (way, route) in [("local", Route::LocalOnly), ("quic", Route::QuicOnly)] {
        if !want(way, ["local", "quic"]) {
            continue;
        }
        if want("stream", ["stream", "rpc"]) {
            for streams in [1, 4] {
                let (rate, cpu) = runtime.block_on(streams_at_once(route, streams))?;
                println!("{way:<6} {:<24} {rate:>7.0} MB/s {cpu:>11.2} s/GB", format!("{streams} streams"));
            }
        }
        if want("rpc", ["stream", "rpc"]) {
            for in_flight in [1, 16, 128] {
                let (rate, cpu) = runtime.block_on(calls_at_once(route, in_flight))?;
                println!("{way:<6} {:<24} {rate:>10.0} /s {cpu:>9.1} us/call", format!("{in_flight} calls in flight"));
            }
        }
    }
    Ok(())
}

/// A client and a server that trust each other.
fn machines(route: Route) -> Outcome<(RealRuntime, RealRuntime)> {
    let authority = Authority::create(CLUSTER)?;
    let client = authority.issue(&[Role::User], "ann")?;
    let server = authority.issue(&[Role::Datanode], "dn")?;
    Ok((RealRuntime::with_route(Some(&client), route)?, RealRuntime::with_route(Some(&server), route)?))
}

/// MB/s, and CPU seconds per GB.
async fn streams_at_once(route: Route, streams: usize) -> Outcome<(f64, f64)> {
    let (client, server) = machines(route)?;
    let mut listener = server.transport().listen(SocketAddr::from(ANYWHERE)).await?;
    let connect = client.transport().connect(listener.address(), Role::Datanode);
    let (here, there) = tokio::try_join!(connect, listener.accept())?;
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let senders = (0..streams).map(|_| {
        let here = here.clone();
        client.spawn("send", async move {
            let (mut send, _receive) = here.open().await?;
            let piece = Bytes::from(vec![42; PIECE_LEN_BYTES]);
            while begin.elapsed() < ROUND {
                send.send(piece.clone()).await?;
            }
            send.finish().await
        })
    });
    let senders: Vec<_> = senders.collect();
    let receivers = (0..streams).map(|_| {
        let there = there.clone();
        server.spawn("receive", async move {
            let (_send, mut receive) = there.accept().await?;
            let mut received = 0;
            while let Some(bytes) = receive.receive(PIECE_LEN_BYTES).await? {
                received += bytes.len();
            }
            Ok::<_, TransportError>(received)
        })
    });
    let receivers: Vec<_> = receivers.collect();
    for sender in senders {
        sender.join().await.ok_or("a sender has ended")??;
    }
    let mut received = 0;
    for receiver in receivers {
        received += receiver.join().await.ok_or("a receiver has ended")??;
    }
    let megabytes = received as f64 / 1e6;
    Ok((megabytes / begin.elapsed().as_secs_f64(), (cpu_seconds() - cpu) / megabytes * 1e3))
}

#[derive(Clone)]
struct Echo;

impl Service<RealRuntime> for Echo {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        reply.send(Ok(&request));
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        _open: StreamOpen,
        _send: FrameSender<NetSendStream>,
        _receive: FrameReceiver<NetReceiveStream>,
    ) -> Result<(), RpcError> {
        Ok(())
    }
}

/// Calls a second, and CPU microseconds per call.
async fn calls_at_once(route: Route, in_flight: usize) -> Outcome<(f64, f64)> {
    let (client, server) = machines(route)?;
    let listener = server.transport().listen(SocketAddr::from(ANYWHERE)).await?;
    let address = listener.address();
    let identity = ServerIdentity { cluster: CLUSTER, role: Role::Datanode };
    let served = server.spawn("serve", serve(server.clone(), listener, identity, Echo)).abort_on_drop();
    let identity = Identity { cluster: CLUSTER, role: Role::User, name: "ann".to_owned() };
    let connector = Connector::new(client, identity);
    let caller: Caller<_, Bytes, Bytes> = connector.caller(address, Role::Datanode).await?;
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let counts = try_join_all((0..in_flight).map(|_| {
        let caller = caller.clone();
        let task = connector.runtime().spawn("call", async move {
            let request = Bytes::from(vec![7; CALL_LEN_BYTES]);
            let mut count = 0_u32;
            while begin.elapsed() < ROUND {
                caller.call(&request, PATIENCE).await?;
                count += 1;
            }
            Ok::<_, RpcError>(count)
        });
        async move { task.join().await.ok_or("a caller has ended")?.map_err(Box::<dyn Error + Send + Sync>::from) }
    }))
    .await?;
    drop(served);
    let calls = f64::from(counts.into_iter().sum::<u32>());
    Ok((calls / begin.elapsed().as_secs_f64(), (cpu_seconds() - cpu) / calls * 1e6))
}

/// What this process has used of all processors, by the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are the 14th and 15th field; the second one, a name in brackets, may hold blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}
