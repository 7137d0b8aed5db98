//! A namesystem with a journal, a clock and datanodes that are nothing but lists of replicas.

use std::collections::BTreeMap;

use situ_wire::block::{Block, BlockRoot, BlockTokenKey, CommittedBlock, LocatedBlock};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{
    BlockId, ClientId, ClusterId, DatanodeId, INodeId, NodeName, OperationId, RackName, StorageId, TxId,
};
use situ_wire::limits::BLOCK_LEN_MIN_BYTES;
use situ_wire::messages::namenode::{
    DatanodeCommand, DatanodeRegistration, ReplicaChange, ReportedReplica, Request, Response, VolumeStatus,
};
use situ_wire::path::DfsPath;
use situ_wire::time::{TimeMs, WallTime};

use crate::core::{CallId, Caller, CoreConfig, Edit, Effect, Event, Namesystem};

/// The block size of all files in tests.
pub(super) const BLOCK: u64 = BLOCK_LEN_MIN_BYTES;
/// The superuser.
pub(super) const ROOT: &str = "root";

/// A datanode with one volume.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) rack: String,
    pub(super) replicas: BTreeMap<BlockId, ReportedReplica>,
    pub(super) up: bool,
    pub(super) free_bytes: u64,
}

pub(super) struct World {
    pub(super) ns: Namesystem,
    pub(super) now: TimeMs,
    pub(super) journal: Vec<(TxId, Edit)>,
    pub(super) warnings: Vec<String>,
    pub(super) disks: BTreeMap<DatanodeId, Disk>,
    calls: u64,
    sequence: u64,
}

pub(super) fn config() -> CoreConfig {
    let mut config = CoreConfig::new(ClusterId(0xc1), ROOT, BlockTokenKey([7; 32]), 42);
    config.reserve_bytes = 0;
    config.safe_mode_extension_ms = 2_000;
    config
}

pub(super) fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).unwrap()
}

pub(super) fn caller(user: &str) -> Caller {
    Caller { user: user.to_owned(), role: Role::User, name: user.to_owned() }
}

/// A datanode as its connection proves it.
pub(super) fn datanode(id: DatanodeId) -> Caller {
    Caller { user: "datanode".to_owned(), role: Role::Datanode, name: format!("node-{}", id.0) }
}

pub(super) fn datanode_id(number: u128) -> DatanodeId {
    DatanodeId(number)
}

/// The volume of a datanode.
pub(super) fn storage_of(id: DatanodeId) -> StorageId {
    StorageId(id.0 + 1000)
}

pub(super) fn root_of(id: BlockId) -> BlockRoot {
    BlockRoot([u8::try_from(id.0 % 251).unwrap(); 32])
}

pub(super) fn code<T: std::fmt::Debug>(result: Result<T, RemoteError>) -> ErrorCode {
    result.expect_err("an error").code
}

impl World {
    /// A fresh namesystem, in service.
    pub(super) fn new() -> Self {
        Self::with(config())
    }

    pub(super) fn with(config: CoreConfig) -> Self {
        let mut ns = Namesystem::new(config);
        let now = TimeMs(1_000_000);
        ns.start(now);
        let mut world =
            Self { ns, now, journal: Vec::new(), warnings: Vec::new(), disks: BTreeMap::new(), calls: 0, sequence: 0 };
        world.drain();
        world
    }

    /// A fresh namesystem with `count` datanodes on `racks` racks, all reported.
    pub(super) fn cluster(count: u128, racks: u128) -> Self {
        let mut world = Self::new();
        for number in 0..count {
            world.join(number, &format!("/rack-{}", number % racks));
        }
        world
    }

    /// Takes in what the namesystem wants done; gives back the reply, if there is one.
    fn drain(&mut self) -> Option<(Option<TxId>, Result<Response, RemoteError>)> {
        let mut reply = None;
        while let Some(effect) = self.ns.poll_effect() {
            match effect {
                Effect::Append { tx, edit } => self.journal.push((tx, edit)),
                Effect::Reply { call, when, result } => {
                    assert_eq!(call, CallId(self.calls), "the reply is for the last call");
                    assert!(reply.replace((when, result)).is_none(), "one reply a call");
                }
                Effect::Warn { message } => self.warnings.push(message),
            }
        }
        reply
    }

    /// All effects of a call.
    pub(super) fn effects(&mut self, caller: Caller, request: Request) -> Vec<Effect> {
        self.calls += 1;
        self.ns.handle(self.now, Event::Call { call: CallId(self.calls), caller, request });
        let effects: Vec<Effect> = std::iter::from_fn(|| self.ns.poll_effect()).collect();
        for effect in &effects {
            if let Effect::Append { tx, edit } = effect {
                self.journal.push((*tx, edit.clone()));
            }
        }
        effects
    }

    pub(super) fn call_by(&mut self, caller: Caller, request: Request) -> Result<Response, RemoteError> {
        self.calls += 1;
        self.ns.handle(self.now, Event::Call { call: CallId(self.calls), caller, request });
        let (when, result) = self.drain().expect("a call is answered at once");
        let last = self.journal.last().map(|(tx, _)| *tx);
        assert!(when <= last, "an answer waits for nothing that is not on its way");
        result
    }

    pub(super) fn call(&mut self, request: Request) -> Result<Response, RemoteError> {
        self.call_by(caller(ROOT), request)
    }

    /// The next operation of client 1.
    pub(super) fn operation(&mut self) -> OperationId {
        self.operation_of(1)
    }

    pub(super) fn operation_of(&mut self, client: u128) -> OperationId {
        self.sequence += 1;
        OperationId { client: ClientId(client), sequence: self.sequence }
    }

    /// Lets time pass, with everything done when it is due.
    pub(super) fn pass(&mut self, ms: u64) {
        let end = TimeMs(self.now.0 + ms);
        while let Some(due) = self.ns.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.ns.handle_timeout(self.now);
            self.drain();
            assert!(self.ns.poll_timeout().is_none_or(|next| next > due || due < self.now), "time goes on");
        }
        self.now = end;
        self.ns.handle_timeout(self.now);
        self.drain();
    }

    /// Lets time pass while all datanodes that are up send heartbeats and do what they are told.
    pub(super) fn live(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(1000) {
            self.pass(1000.min(ms));
            self.beat_all();
        }
    }

    // Client calls.

    pub(super) fn mkdir(&mut self, text: &str) -> Result<Response, RemoteError> {
        let operation = self.operation();
        self.call(Request::Mkdir { path: path(text), parents: true, mode: 0o755, operation })
    }

    pub(super) fn create_request(&mut self, client: u128, text: &str, replication: u16) -> Request {
        Request::Create {
            path: path(text),
            overwrite: false,
            parents: true,
            replication,
            block_len_bytes: BLOCK,
            mode: 0o644,
            operation: self.operation_of(client),
        }
    }

    /// Opens a file for client 1.
    pub(super) fn create(&mut self, text: &str, replication: u16) -> INodeId {
        let request = self.create_request(1, text, replication);
        match self.call(request).unwrap() {
            Response::Created { inode, .. } => inode,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn try_add_block(
        &mut self,
        inode: INodeId,
        committed: Vec<CommittedBlock>,
    ) -> Result<LocatedBlock, RemoteError> {
        let operation = self.operation();
        let request = Request::AddBlock { inode, committed, exclude: Vec::new(), node: None, operation };
        self.call(request).map(|response| match response {
            Response::Block(block) => block,
            other => panic!("{other:?}"),
        })
    }

    pub(super) fn add_block(&mut self, inode: INodeId) -> LocatedBlock {
        self.try_add_block(inode, Vec::new()).unwrap()
    }

    pub(super) fn complete(&mut self, inode: INodeId, committed: Vec<CommittedBlock>) -> Result<Response, RemoteError> {
        let operation = self.operation();
        self.call(Request::Complete { inode, committed, operation })
    }

    /// Puts a final replica of a located block onto the disks of its pipeline and lets them say so.
    pub(super) fn store(&mut self, block: &LocatedBlock, len_bytes: u64) -> CommittedBlock {
        let replica = ReportedReplica { block: block.block, len_bytes };
        for location in &block.locations {
            self.store_on(location.id, replica);
        }
        committed(block, len_bytes)
    }

    pub(super) fn store_on(&mut self, id: DatanodeId, replica: ReportedReplica) {
        self.disks.get_mut(&id).unwrap().replicas.insert(replica.block.id, replica);
        self.change(id, ReplicaChange::Received { storage: storage_of(id), replica });
    }

    pub(super) fn change(&mut self, id: DatanodeId, change: ReplicaChange) {
        self.by_datanode(Request::DatanodeBlockChanges { id, changes: vec![change] }).unwrap();
    }

    /// Writes a file of one block with `len_bytes`.
    pub(super) fn write_file(&mut self, text: &str, replication: u16, len_bytes: u64) -> (INodeId, Block) {
        let inode = self.create(text, replication);
        let block = self.add_block(inode);
        let committed = self.store(&block, len_bytes);
        assert_eq!(self.complete(inode, vec![committed]), Ok(Response::Done));
        (inode, block.block)
    }

    pub(super) fn blocks(&mut self, text: &str) -> Vec<LocatedBlock> {
        let request =
            Request::Blocks { path: path(text), offset: 0, len_bytes: u64::MAX, node: None, client: ClientId(9) };
        match self.call(request).unwrap() {
            Response::Blocks { blocks, .. } => blocks,
            other => panic!("{other:?}"),
        }
    }

    /// Where the only block of a file can be read, ascending.
    pub(super) fn readable(&mut self, text: &str) -> Vec<DatanodeId> {
        let mut ids: Vec<DatanodeId> = self.blocks(text)[0].locations.iter().map(|location| location.id).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn exists(&mut self, text: &str) -> bool {
        match self.call(Request::Stat { path: path(text) }).unwrap() {
            Response::Status(status) => status.is_some(),
            other => panic!("{other:?}"),
        }
    }

    // Datanodes.

    /// A call of the datanode that it is about.
    pub(super) fn by_datanode(&mut self, request: Request) -> Result<Response, RemoteError> {
        let id = match &request {
            Request::DatanodeRegister(registration) => registration.id,
            Request::DatanodeHeartbeat { id, .. }
            | Request::DatanodeBlockReport { id, .. }
            | Request::DatanodeBlockChanges { id, .. } => *id,
            other => panic!("{other:?}"),
        };
        self.call_by(datanode(id), request)
    }

    /// A datanode joins and reports.
    pub(super) fn join(&mut self, number: u128, rack: &str) {
        let disk = Disk { rack: rack.to_owned(), replicas: BTreeMap::new(), up: true, free_bytes: 1 << 40 };
        self.disks.insert(datanode_id(number), disk);
        self.register(datanode_id(number));
        self.full_report(datanode_id(number));
    }

    pub(super) fn volumes(&self, id: DatanodeId) -> Vec<VolumeStatus> {
        vec![VolumeStatus {
            storage: storage_of(id),
            capacity_bytes: 1 << 40,
            used_bytes: 0,
            free_bytes: self.disks[&id].free_bytes,
            failed: None,
        }]
    }

    pub(super) fn registration(&self, id: DatanodeId) -> DatanodeRegistration {
        DatanodeRegistration {
            id,
            cluster: None,
            node: NodeName(datanode(id).name),
            rack: RackName(self.disks[&id].rack.clone()),
            // Those whose numbers differ by 100 are at one address.
            address: format!("127.0.0.1:{}", 9000 + id.0 % 100).parse().unwrap(),
            volumes: self.volumes(id),
            clock: WallTime(self.now.0),
        }
    }

    pub(super) fn register(&mut self, id: DatanodeId) {
        let registration = self.registration(id);
        let reply = self.by_datanode(Request::DatanodeRegister(registration)).unwrap();
        assert!(matches!(reply, Response::Registered { .. }));
    }

    /// Reports all replicas of a datanode, in slices of three.
    pub(super) fn full_report(&mut self, id: DatanodeId) {
        let replicas: Vec<ReportedReplica> = self.disks[&id].replicas.values().copied().collect();
        let slices: Vec<Vec<ReportedReplica>> = replicas.chunks(3).map(<[_]>::to_vec).collect();
        let count = slices.len().max(1);
        for slice in 0..count {
            let request = Request::DatanodeBlockReport {
                id,
                storage: storage_of(id),
                slice: u32::try_from(slice).unwrap(),
                last: slice + 1 == count,
                replicas: slices.get(slice).cloned().unwrap_or_default(),
            };
            assert_eq!(self.by_datanode(request), Ok(Response::Done));
        }
    }

    pub(super) fn heartbeat(&mut self, id: DatanodeId) -> Vec<DatanodeCommand> {
        let volumes = self.volumes(id);
        match self
            .by_datanode(Request::DatanodeHeartbeat { id, volumes, transfers: 0, clock: WallTime(self.now.0) })
            .unwrap()
        {
            Response::Commands { commands, .. } => commands,
            other => panic!("{other:?}"),
        }
    }

    /// A heartbeat of every datanode that is up; what they are told is done.
    pub(super) fn beat_all(&mut self) {
        for id in self.up() {
            for command in self.heartbeat(id) {
                self.obey(id, command);
            }
        }
    }

    pub(super) fn up(&self) -> Vec<DatanodeId> {
        self.disks.iter().filter(|(_, disk)| disk.up).map(|(id, _)| *id).collect()
    }

    /// Does what a datanode was told.
    pub(super) fn obey(&mut self, id: DatanodeId, command: DatanodeCommand) {
        match command {
            DatanodeCommand::Register => {
                self.register(id);
                self.full_report(id);
            }
            DatanodeCommand::Report => self.full_report(id),
            // On these disks nothing rots.
            DatanodeCommand::Verify { blocks } => {
                for block in blocks {
                    let replica = self.disks[&id].replicas.get(&block.id).copied();
                    match replica.filter(|replica| replica.block == block) {
                        Some(replica) => self.store_on(id, replica),
                        None => self.change(id, ReplicaChange::Deleted { block }),
                    }
                }
            }
            DatanodeCommand::Replicate { block, targets, .. } => {
                let replica = self.disks[&id].replicas.get(&block.id).copied();
                for target in targets {
                    match replica.filter(|replica| replica.block == block && self.disks[&target.id].up) {
                        Some(replica) => self.store_on(target.id, replica),
                        None => self.change(
                            id,
                            ReplicaChange::ReplicationFailed { block, target: target.id, reason: "no".into() },
                        ),
                    }
                }
            }
            DatanodeCommand::Invalidate { blocks } => {
                for block in blocks {
                    let replicas = &mut self.disks.get_mut(&id).unwrap().replicas;
                    if replicas.get(&block.id).is_some_and(|replica| replica.block == block) {
                        replicas.remove(&block.id);
                    }
                    self.change(id, ReplicaChange::Deleted { block });
                }
            }
        }
    }

    /// The datanodes whose disks hold a replica of a block in this life.
    pub(super) fn holders(&self, block: Block) -> Vec<DatanodeId> {
        let holds = |disk: &Disk| disk.replicas.get(&block.id).is_some_and(|replica| replica.block == block);
        self.disks.iter().filter(|(_, disk)| holds(disk)).map(|(id, _)| *id).collect()
    }

    /// A second namesystem from the journal alone.
    pub(super) fn replayed(&self) -> Namesystem {
        self.replayed_with(config())
    }

    fn replayed_with(&self, config: CoreConfig) -> Namesystem {
        let mut replayed = Namesystem::new(config);
        for (tx, edit) in &self.journal {
            replayed.apply(*tx, edit).unwrap();
        }
        replayed
    }

    /// The namenode dies and starts again from its journal; the datanodes know nothing of it.
    pub(super) fn restart(&mut self) {
        self.restart_with(config());
    }

    pub(super) fn restart_with(&mut self, config: CoreConfig) {
        self.ns = self.replayed_with(config);
        self.ns.start(self.now);
        self.drain();
    }
}

/// A block that all of its pipeline acknowledged.
pub(super) fn committed(block: &LocatedBlock, len_bytes: u64) -> CommittedBlock {
    CommittedBlock {
        block: block.block,
        len_bytes,
        root: root_of(block.block.id),
        replicas: block.locations.iter().map(|location| location.id).collect(),
    }
}
