//! What a replicated write and a read cost the datanodes: real processes, real disks. The client's side is a bare stream
//! of bytes that were hashed before, so that all that counts is the datanodes' and the transport's.
//!
//! `cargo bench -p situ-datanode -- [DIRECTORY]` writes 1 GiB with 3 replicas through 4 datanodes into DIRECTORY (by
//! default below the temporary one), then reads it back.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on stops")]
#![allow(clippy::print_stdout, reason = "its results are for people")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use situ_datanode::{Datanode, DatanodeConfig};
use situ_runtime::Runtime;
use situ_runtime::real::RealRuntime;
use situ_runtime::rpc::{
    CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service, serve,
};
use situ_runtime::transport::{Connection, Listener, Transport};
use situ_wire::block::{Block, BlockTokenKey, DatanodeLocation, TokenMode};
use situ_wire::codec;
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClientId, ClusterId, GenerationStamp};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{Durability, PacketHeader, ReadBlock, ReadReply, WriteAck, WriteBlock, WriteStage};
use situ_wire::messages::namenode::{DatanodeRegistration, Request, Response};
use situ_wire::time::TimeMs;
use situ_wire::tree::{Tree, TreeBuilder};

const CLUSTER: ClusterId = ClusterId(7);
const KEY: BlockTokenKey = BlockTokenKey([1; 32]);
const DATANODES: usize = 4;
const REPLICAS: usize = 3;
const BLOCKS: usize = 16;
const BLOCK_LEN_BYTES: usize = 64 << 20;
const PACKET_LEN_BYTES: usize = 1 << 20;
/// How many blocks of a file are under way at once, as with a client that begins the next one while the last ends.
const UNDER_WAY: usize = 2;

type ConnectionOf = <<RealRuntime as Runtime>::Transport as Transport>::Connection;
type Send = <ConnectionOf as Connection>::Send;
type Receive = <ConnectionOf as Connection>::Receive;

fn main() {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("datanode") => {
            let (namenode, directory) = (arguments.next().unwrap(), arguments.next().unwrap());
            threads.block_on(datanode(namenode.parse().unwrap(), PathBuf::from(directory)));
        }
        directory => {
            let directory = directory.map_or_else(std::env::temp_dir, PathBuf::from).join("situ-datanode-bench");
            threads.block_on(measure(&directory));
            std::fs::remove_dir_all(&directory).unwrap();
        }
    }
}

/// One datanode process.
async fn datanode(namenode: SocketAddr, directory: PathBuf) {
    let runtime = RealRuntime::new(None).unwrap();
    let listener = runtime.transport().listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let config = DatanodeConfig::new(format!("dn-{}", std::process::id()), namenode, vec![directory]);
    situ_datanode::format(runtime.disk(), &config.volumes, CLUSTER, || runtime.random_u128()).unwrap();
    let handle = Datanode::start(runtime, config, CLUSTER, listener).await.unwrap();
    println!("ready");
    handle.stopped().await.unwrap();
}

async fn measure(directory: &Path) {
    let _ = std::fs::remove_dir_all(directory);
    let runtime = RealRuntime::new(None).unwrap();
    let listener = runtime.transport().listen(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().to_string();
    let namenode = Namenode::default();
    let identity = ServerIdentity { cluster: CLUSTER, role: Role::Namenode };
    runtime.spawn("namenode", serve(runtime.clone(), listener, identity, namenode.clone()));
    let volume = |number: usize| directory.join(format!("dn{number}")).display().to_string();
    let start = |number| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["datanode", &address, &volume(number)]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (0..DATANODES).map(start).collect();
    for child in &mut children {
        BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    }
    while namenode.known.lock().unwrap().len() < DATANODES {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let locations: Vec<_> = namenode.known.lock().unwrap().iter().map(location).collect();
    let identity = Identity { cluster: CLUSTER, role: Role::User, name: "bench".to_owned() };
    let client = Connector::new(runtime.clone(), identity);

    let bytes: Bytes =
        (0..BLOCK_LEN_BYTES as u64 / 8).flat_map(|at| (at * 0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let packets: Arc<Vec<_>> = Arc::new(bytes.chunks(PACKET_LEN_BYTES).map(crc32c::crc32c).collect());
    let mut builder = TreeBuilder::new();
    builder.update(&bytes);
    let tree = Arc::new(builder.finish());

    let mut block_id = 0_usize;
    for (name, durability, replicas) in [
        ("durable, 3 replicas", Durability::Durable, REPLICAS),
        ("visible, 3 replicas", Durability::Visible, REPLICAS),
        ("durable, 1 replica", Durability::Durable, 1),
    ] {
        let watch = Watch::start(&children);
        let mut under_way = std::collections::VecDeque::new();
        for _ in 0..BLOCKS {
            block_id += 1;
            let members: Vec<_> = (0..replicas).map(|at| locations[(block_id + at) % DATANODES].clone()).collect();
            let (client, bytes, packets, tree) = (client.clone(), bytes.clone(), packets.clone(), tree.clone());
            let block = Block { id: BlockId(block_id as u64), generation: GenerationStamp(1) };
            under_way.push_back(tokio::spawn(async move {
                put(&client, block, members, durability, &bytes, &packets, &tree).await;
            }));
            if under_way.len() >= UNDER_WAY {
                under_way.pop_front().unwrap().await.unwrap();
            }
        }
        for task in under_way {
            task.await.unwrap();
        }
        watch.stop(name, &children);
    }

    let watch = Watch::start(&children);
    for id in 1..=BLOCKS {
        let block = Block { id: BlockId(id as u64), generation: GenerationStamp(1) };
        get(&client, block, &locations[id % DATANODES]).await;
    }
    watch.stop("read, one stream", &children);
    for mut child in children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

async fn put(
    client: &Connector<RealRuntime>,
    block: Block,
    members: Vec<DatanodeLocation>,
    durability: Durability,
    bytes: &Bytes,
    packets: &[u32],
    tree: &Tree,
) {
    let address = members[0].address;
    let open = WriteBlock {
        block,
        stage: WriteStage::Create,
        downstream: members[1..].to_vec(),
        limit_bytes: BLOCK_LEN_BYTES as u64,
        durability,
        token: KEY.issue(block, TokenMode::Write, ClientId(1), TimeMs::NEVER),
    };
    let open = StreamOpen::WriteBlock(Box::new(open));
    let (mut send, mut receive) = client.stream(address, Role::Datanode, &open).await.unwrap();
    assert_eq!(receive.expect::<WriteAck>("ready").await.unwrap(), WriteAck::Ready);
    let sending = async {
        for (at, crc32c) in packets.iter().enumerate() {
            let offset = at * PACKET_LEN_BYTES;
            let piece = bytes.slice(offset..offset + PACKET_LEN_BYTES);
            let header = PacketHeader::Data {
                offset: offset as u64,
                len_bytes: u32::try_from(PACKET_LEN_BYTES).unwrap(),
                crc32c: *crc32c,
            };
            send.message_and_bytes(&header, vec![piece]).await.unwrap();
        }
        let finish = PacketHeader::Finish { len_bytes: tree.len_bytes, root: tree.root, leaves: tree.leaves.clone() };
        send.message(&finish).await.unwrap();
    };
    let ending = async {
        loop {
            match receive.expect::<WriteAck>("the end").await.unwrap() {
                WriteAck::Received { .. } => {}
                WriteAck::Finished { replicas } => return assert_eq!(replicas.len(), members.len()),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(sending, ending);
}

async fn get(client: &Connector<RealRuntime>, block: Block, from: &DatanodeLocation) {
    let token = KEY.issue(block, TokenMode::Read, ClientId(1), TimeMs::NEVER);
    let read = ReadBlock { block, offset: 0, len_bytes: u64::MAX, leaves: true, token };
    let open = StreamOpen::ReadBlock(Box::new(read));
    let (_send, mut receive) = client.stream(from.address, Role::Datanode, &open).await.unwrap();
    let ReadReply::Bytes { len_bytes, .. } = receive.expect("bytes").await.unwrap() else { panic!("refused") };
    let mut left = usize::try_from(len_bytes).unwrap();
    while left > 0 {
        left -= receive.bytes(left).await.unwrap().unwrap().len();
    }
}

fn location(registration: &DatanodeRegistration) -> DatanodeLocation {
    let DatanodeRegistration { id, node, rack, address, .. } = registration.clone();
    DatanodeLocation { id, node, rack, address }
}

/// Knows the datanodes and nothing else.
#[derive(Clone, Default)]
struct Namenode {
    known: Arc<Mutex<Vec<DatanodeRegistration>>>,
}

impl Service<RealRuntime> for Namenode {
    fn call(&self, _: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let response = match codec::decode(&request).unwrap() {
            Request::DatanodeRegister(registration) => {
                self.known.lock().unwrap().push(registration);
                Response::Registered { cluster: CLUSTER, key: KEY, heartbeat_ms: 1000, now: TimeMs(0) }
            }
            Request::DatanodeHeartbeat { .. } => Response::Commands { commands: Vec::new(), key: KEY, now: TimeMs(0) },
            _ => Response::Done,
        };
        reply.send(Ok(&response));
    }

    async fn stream(
        &self,
        _: Arc<CallerIdentity>,
        _: StreamOpen,
        _: FrameSender<Send>,
        _: FrameReceiver<Receive>,
    ) -> Result<(), RpcError> {
        Ok(())
    }
}

/// Time and the processors' time, of the datanodes and of this process.
struct Watch {
    began: Instant,
    datanodes_s: f64,
    own_s: f64,
}

impl Watch {
    fn start(children: &[Child]) -> Self {
        Self { began: Instant::now(), datanodes_s: cpu_of(children), own_s: cpu_s("self") }
    }

    fn stop(self, what: &str, children: &[Child]) {
        let wall_s = self.began.elapsed().as_secs_f64();
        let gigabytes = (BLOCKS * BLOCK_LEN_BYTES) as f64 / 1e9;
        println!(
            "{what}: {wall_s:.2} s, {:.0} MB/s; CPU s per GB: datanodes {:.2}, client {:.2}",
            gigabytes * 1e3 / wall_s,
            (cpu_of(children) - self.datanodes_s) / gigabytes,
            (cpu_s("self") - self.own_s) / gigabytes,
        );
    }
}

fn cpu_of(children: &[Child]) -> f64 {
    children.iter().map(|child| cpu_s(&child.id().to_string())).sum()
}

/// What a process has used of the processors, in user and system mode.
fn cpu_s(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}
