use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{
    CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service, serve,
};
use situ_runtime::sim::{SimClock, SimRuntime, SimWorld};
use situ_runtime::transport::sim::SimTransport;
use situ_runtime::transport::{Listener, Transport};
use situ_wire::block::{Block, BlockToken, BlockTokenKey, DatanodeLocation, TokenMode};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, NodeName, RackName, StorageId};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{Durability, PacketHeader, ReadBlock, ReadReply, WriteAck, WriteBlock, WriteStage};
use situ_wire::messages::namenode::{
    DatanodeCommand, DatanodeRegistration, ReplicaChange, ReportedReplica, Request, Response,
};
use situ_wire::time::TimeMs;
use situ_wire::tree::{TreeBuilder, leaf_matches, root_of};
use tokio::sync::watch;

use crate::server::node::{ReceiveOf, SendOf};
use crate::{Datanode, DatanodeConfig, DatanodeHandle, StartError};

pub(super) const KEY: BlockTokenKey = BlockTokenKey([9; 32]);

/// What the namenode was told.
#[derive(Clone, Default, Debug)]
pub(super) struct Told {
    pub(super) registered: BTreeMap<DatanodeId, DatanodeRegistration>,
    /// Final replicas by datanode and block, as full reports and changes say.
    pub(super) replicas: BTreeMap<(DatanodeId, BlockId), (StorageId, ReportedReplica)>,
    pub(super) changes: Vec<(DatanodeId, ReplicaChange)>,
    pub(super) reports: usize,
    pub(super) failed_volumes: BTreeMap<DatanodeId, usize>,
    /// What the next heartbeat of a datanode is answered.
    pub(super) commands: BTreeMap<DatanodeId, Vec<DatanodeCommand>>,
}

impl Told {
    pub(super) fn holders(&self, block: Block) -> Vec<DatanodeId> {
        let holds = |((id, _), (_, replica)): (&(DatanodeId, BlockId), &(StorageId, ReportedReplica))| {
            (replica.block == block).then_some(*id)
        };
        self.replicas.iter().filter_map(holds).collect()
    }

    fn answer(
        &mut self,
        request: Request,
        cluster: situ_wire::ids::ClusterId,
        now: TimeMs,
    ) -> Result<Response, RemoteError> {
        let unknown = |id: DatanodeId| RemoteError::new(ErrorCode::NotRegistered, id, "register first");
        match request {
            Request::DatanodeRegister(registration) => {
                self.registered.insert(registration.id, registration);
                Ok(Response::Registered { cluster, key: KEY, heartbeat_ms: 1000, now })
            }
            Request::DatanodeHeartbeat { id, volumes, .. } => {
                self.registered.get(&id).ok_or_else(|| unknown(id))?;
                let failed = volumes.iter().filter(|volume| volume.failed.is_some()).count();
                self.failed_volumes.insert(id, failed);
                Ok(Response::Commands { commands: self.commands.remove(&id).unwrap_or_default(), key: KEY, now })
            }
            Request::DatanodeBlockReport { id, storage, slice, last, replicas } => {
                self.registered.get(&id).ok_or_else(|| unknown(id))?;
                assert!(slice == 0 && last, "no test has so many replicas");
                self.replicas.retain(|(holder, _), (on, _)| *holder != id || *on != storage);
                let replicas = replicas.into_iter().map(|replica| ((id, replica.block.id), (storage, replica)));
                self.replicas.extend(replicas);
                self.reports += 1;
                Ok(Response::Done)
            }
            Request::DatanodeBlockChanges { id, changes } => {
                self.registered.get(&id).ok_or_else(|| unknown(id))?;
                for change in changes {
                    match &change {
                        ReplicaChange::Received { storage, replica } => {
                            self.replicas.insert((id, replica.block.id), (*storage, *replica));
                        }
                        ReplicaChange::Deleted { block } | ReplicaChange::Corrupt { block } => {
                            self.replicas.remove(&(id, block.id));
                        }
                        ReplicaChange::ReplicationFailed { .. } => {}
                    }
                    self.changes.push((id, change));
                }
                Ok(Response::Done)
            }
            other => Err(RemoteError::new(ErrorCode::InvalidArgument, "a call", format!("{other:?}"))),
        }
    }
}

/// A namenode that only remembers.
#[derive(Clone)]
struct FakeNamenode {
    cluster: situ_wire::ids::ClusterId,
    clock: SimClock,
    told: Arc<watch::Sender<Told>>,
}

impl Service<SimRuntime> for FakeNamenode {
    fn call(&self, _: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let request: Request = codec::decode(&request).unwrap();
        let mut answer = None;
        self.told.send_modify(|told| answer = Some(told.answer(request, self.cluster, self.clock.now())));
        reply.send(answer.unwrap().as_ref().map_err(Clone::clone));
    }

    async fn stream(
        &self,
        _: Arc<CallerIdentity>,
        _: StreamOpen,
        _: FrameSender<SendOf<SimRuntime>>,
        _: FrameReceiver<ReceiveOf<SimRuntime>>,
    ) -> Result<(), RpcError> {
        panic!("nobody streams to a namenode")
    }
}

/// A datanode that takes streams and never says anything.
#[derive(Clone)]
struct Mute;

impl Service<SimRuntime> for Mute {
    fn call(&self, _: &Arc<CallerIdentity>, _: Bytes, _: Reply) {
        panic!("nobody calls a datanode")
    }

    async fn stream(
        &self,
        _: Arc<CallerIdentity>,
        _: StreamOpen,
        _: FrameSender<SendOf<SimRuntime>>,
        _: FrameReceiver<ReceiveOf<SimRuntime>>,
    ) -> Result<(), RpcError> {
        std::future::pending().await
    }
}

/// A small cluster.
pub(super) struct Cluster {
    pub(super) world: SimWorld,
    pub(super) told: watch::Receiver<Told>,
    tell: Arc<watch::Sender<Told>>,
    namenode: SocketAddr,
    pub(super) nodes: Vec<Member>,
    pub(super) client: Connector<SimRuntime>,
}

/// One of its datanodes.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) runtime: SimRuntime,
    pub(super) handle: DatanodeHandle,
    pub(super) location: DatanodeLocation,
}

impl Cluster {
    /// A namenode and `count` datanodes, all registered.
    pub(super) async fn start(world: SimWorld, count: usize) -> Self {
        Self::start_with(world, count, |_| {}).await
    }

    /// As [`Cluster::start`], with a say in the configurations.
    pub(super) async fn start_with(world: SimWorld, count: usize, adapt: impl Fn(&mut DatanodeConfig)) -> Self {
        let (tell, told) = watch::channel(Told::default());
        // Without it nothing in the simulated world takes time.
        world.network().set_latency(Duration::from_micros(100)..=Duration::from_millis(2));
        let client = world.host("client", &[Role::User]);
        let identity = Identity { cluster: world.cluster(), role: Role::User, name: "client".to_owned() };
        let client = Connector::new(client, identity);
        let namenode = (world.ip("client").unwrap(), 1).into();
        let mut cluster = Self { world, told, tell: Arc::new(tell), namenode, nodes: Vec::new(), client };
        cluster.start_namenode().await;
        for number in 0..count {
            let member = cluster.start_datanode(&format!("dn{number}"), &adapt).await;
            cluster.nodes.push(member);
        }
        cluster.wait(|told| told.registered.len() == count && told.reports >= count).await;
        cluster
    }

    /// Starts the namenode, anew if there was one: it knows nobody.
    pub(super) async fn start_namenode(&mut self) {
        self.tell.send_modify(|told| *told = Told::default());
        let runtime = self.world.host("namenode", &[Role::Namenode]);
        let listener = runtime.transport().listen((self.world.ip("namenode").unwrap(), 9000).into()).await.unwrap();
        self.namenode = listener.address();
        let cluster = self.world.cluster();
        let identity = ServerIdentity { cluster, role: Role::Namenode };
        let service = FakeNamenode { cluster, clock: runtime.clock().clone(), told: Arc::clone(&self.tell) };
        runtime.spawn("namenode", serve(runtime.clone(), listener, identity, service));
    }

    /// Where the namenode listens.
    pub(super) fn namenode(&self) -> SocketAddr {
        self.namenode
    }

    /// Starts a datanode, on the disk that it had.
    pub(super) async fn start_datanode(&self, name: &str, adapt: impl Fn(&mut DatanodeConfig)) -> Member {
        let runtime = self.world.host(name, &[Role::Datanode]);
        self.start_datanode_on(runtime.clone(), runtime, name, adapt).await
    }

    /// As [`Cluster::start_datanode`], in a world that may differ from its `host` by its disk.
    pub(super) async fn start_datanode_on<R: Runtime<Transport = SimTransport>>(
        &self,
        runtime: R,
        host: SimRuntime,
        name: &str,
        adapt: impl Fn(&mut DatanodeConfig),
    ) -> Member {
        let mut config = DatanodeConfig::new(name, self.namenode, vec![PathBuf::from("/v1")]);
        adapt(&mut config);
        crate::format(runtime.disk(), &config.volumes, self.world.cluster(), || runtime.random_u128()).unwrap();
        self.try_start_datanode_on(runtime, host, config).await.unwrap()
    }

    /// Starts a datanode on the volumes that are there.
    pub(super) async fn try_start_datanode_on<R: Runtime<Transport = SimTransport>>(
        &self,
        runtime: R,
        host: SimRuntime,
        config: DatanodeConfig,
    ) -> Result<Member, StartError> {
        let listener = host.transport().listen((host.ip(), 9001).into()).await.unwrap();
        let name = config.node.clone();
        let handle = Datanode::start(runtime, config, self.world.cluster(), listener).await?;
        let location = DatanodeLocation {
            id: handle.id(),
            node: NodeName(name.clone()),
            rack: RackName("/r".to_owned()),
            address: handle.address(),
        };
        Ok(Member { name, runtime: host, handle, location })
    }

    /// Starts what looks like a datanode and never says anything.
    pub(super) async fn start_mute(&self, name: &str) -> DatanodeLocation {
        let runtime = self.world.host(name, &[Role::Datanode]);
        let listener = runtime.transport().listen((runtime.ip(), 9001).into()).await.unwrap();
        let location = DatanodeLocation {
            id: DatanodeId(1),
            node: NodeName(name.to_owned()),
            rack: RackName("/r".to_owned()),
            address: listener.address(),
        };
        let identity = ServerIdentity { cluster: self.world.cluster(), role: Role::Datanode };
        runtime.spawn("mute", serve(runtime.clone(), listener, identity, Mute));
        location
    }

    /// Kills a datanode and starts it again; with `power_cut`, what it had not synced is lost.
    pub(super) async fn restart(&mut self, at: usize, power_cut: bool) {
        let name = self.nodes[at].name.clone();
        if power_cut {
            self.world.crash(&name);
        } else {
            self.world.kill(&name);
        }
        self.nodes[at] = self.start_datanode(&name, |_| {}).await;
    }

    /// Waits until the namenode was told something.
    pub(super) async fn wait(&self, told: impl Fn(&Told) -> bool + Send + Sync) {
        let mut receiver = self.told.clone();
        let waited = async { receiver.wait_for(|now| told(now)).await.is_ok() };
        let within = self.world.clock().timeout(Duration::from_secs(600), waited).await;
        assert!(within.is_some(), "seed {}: never told: {:#?}", self.world.seed(), *self.told.borrow());
    }

    /// Gives a command with the next heartbeat of a datanode.
    pub(super) fn command(&self, at: usize, command: DatanodeCommand) {
        let id = self.id(at);
        self.tell.send_modify(|told| told.commands.entry(id).or_default().push(command));
    }

    pub(super) fn id(&self, at: usize) -> DatanodeId {
        self.nodes[at].location.id
    }

    pub(super) fn token(&self, block: Block, mode: TokenMode) -> BlockToken {
        KEY.issue(block, mode, ClientId(1), TimeMs(u64::MAX))
    }

    /// What opens `block` on these datanodes.
    pub(super) fn open(&self, block: Block, stage: WriteStage, members: &[usize]) -> WriteBlock {
        WriteBlock {
            block,
            stage,
            downstream: members[1..].iter().map(|at| self.nodes[*at].location.clone()).collect(),
            limit_bytes: 4 << 20,
            durability: Durability::Durable,
            token: self.token(block, TokenMode::Write),
        }
    }

    /// Opens a write stream and waits until all are ready.
    pub(super) async fn write(&self, open: WriteBlock, first: usize) -> Result<WriteStream, WriteAck> {
        let address = self.nodes[first].location.address;
        let open = StreamOpen::WriteBlock(Box::new(open));
        let (send, mut receive) = self.client.stream(address, Role::Datanode, &open).await.unwrap();
        match receive.expect("ready").await.unwrap() {
            WriteAck::Ready => Ok(WriteStream { send, receive, offset: 0 }),
            other => Err(other),
        }
    }

    /// Writes a whole block.
    pub(super) async fn put(&self, block: Block, bytes: &Bytes, members: &[usize]) -> WriteAck {
        match self.write(self.open(block, WriteStage::Create, members), members[0]).await {
            Ok(mut stream) => {
                stream.send(bytes).await;
                stream.finish(bytes).await
            }
            Err(refused) => refused,
        }
    }

    /// Reads a range of a replica and verifies it as a client does.
    pub(super) async fn read(
        &self,
        at: usize,
        block: Block,
        offset: u64,
        len_bytes: u64,
    ) -> Result<(u64, Blob), RemoteError> {
        let token = self.token(block, TokenMode::Read);
        let open = ReadBlock { block, offset, len_bytes, leaves: true, token };
        self.read_with(at, open).await
    }

    pub(super) async fn read_with(&self, at: usize, open: ReadBlock) -> Result<(u64, Blob), RemoteError> {
        let address = self.nodes[at].location.address;
        let open = StreamOpen::ReadBlock(Box::new(open));
        let (_send, mut receive) = self.client.stream(address, Role::Datanode, &open).await.unwrap();
        match receive.expect::<ReadReply>("a reply").await.unwrap() {
            ReadReply::Refused(error) => Err(error),
            ReadReply::Bytes { offset, len_bytes, block_len_bytes, leaves } => {
                let pieces = receive.exactly(usize::try_from(len_bytes).unwrap()).await.unwrap();
                let bytes = pieces.concat();
                assert!(root_of(&leaves, block_len_bytes).is_some());
                let first = usize::try_from(offset).unwrap() / (64 << 10);
                for (at, leaf) in bytes.chunks(64 << 10).enumerate() {
                    assert!(leaf_matches(&leaves, block_len_bytes, first + at, leaf), "leaf {at} behind {offset}");
                }
                Ok((offset, Blob(bytes)))
            }
        }
    }
}

/// A write that all members are ready for.
pub(super) struct WriteStream {
    pub(super) send: FrameSender<SendOf<SimRuntime>>,
    pub(super) receive: FrameReceiver<ReceiveOf<SimRuntime>>,
    pub(super) offset: u64,
}

impl WriteStream {
    /// Sends the bytes in packets of odd lengths. A stream that is gone shows at its acknowledgements.
    pub(super) async fn send(&mut self, bytes: &Bytes) {
        for at in (0..bytes.len()).step_by(300_007) {
            let packet = bytes.slice(at..bytes.len().min(at + 300_007));
            let crc32c = crc32c::crc32c(&packet);
            if self.packet(packet, crc32c).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn packet(&mut self, bytes: Bytes, crc32c: u32) -> Result<(), RpcError> {
        let len_bytes = u32::try_from(bytes.len()).unwrap();
        let header = PacketHeader::Data { offset: self.offset, len_bytes, crc32c };
        self.offset += u64::from(len_bytes);
        self.send.message_and_bytes(&header, vec![bytes]).await
    }

    /// Says that `all` is the whole block, and waits for the end.
    pub(super) async fn finish(mut self, all: &Bytes) -> WriteAck {
        let mut tree = TreeBuilder::new();
        tree.update(all);
        let tree = tree.finish();
        let finish = PacketHeader::Finish { len_bytes: tree.len_bytes, root: tree.root, leaves: tree.leaves };
        if self.send.message(&finish).await.is_ok() {
            let _ = self.send.finish().await;
        }
        self.end().await
    }

    /// Waits for the end.
    pub(super) async fn end(&mut self) -> WriteAck {
        loop {
            match self.receive.expect("the end").await.unwrap() {
                WriteAck::Received { .. } => {}
                end => return end,
            }
        }
    }

    /// Waits until all members have so much.
    pub(super) async fn received(&mut self, expected_bytes: u64) {
        loop {
            match self.receive.expect("an acknowledgement").await.unwrap() {
                WriteAck::Received { len_bytes } if len_bytes >= expected_bytes => return,
                WriteAck::Received { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Bytes that do not fill the screen when they are not the expected ones.
#[derive(PartialEq, Eq)]
pub(super) struct Blob(pub(super) Vec<u8>);

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes that hash to {}", self.0.len(), blake3::hash(&self.0))
    }
}

/// All of `bytes`, as a read from offset 0 gives them.
pub(super) fn whole(bytes: &[u8]) -> Result<(u64, Blob), RemoteError> {
    Ok((0, Blob(bytes.to_vec())))
}

pub(super) fn block(id: u64, generation: u64) -> Block {
    Block { id: BlockId(id), generation: GenerationStamp(generation) }
}

pub(super) fn content(seed: u64, len: usize) -> Bytes {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}
