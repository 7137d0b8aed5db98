use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::rpc::{
    CallerIdentity, Connector, FrameReceiver, FrameSender, Identity, Reply, RpcError, ServerIdentity, Service, serve,
};
use situ_runtime::transport::{Connection, Listener, Transport};
use situ_wire::block::DatanodeLocation;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClusterId, DatanodeId, GenerationStamp, NodeName, RackName};
use situ_wire::limits::LEAF_LEN_BYTES;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::datanode::{PacketHeader, ReadBlock, ReadReply, WriteAck, WriteBlock, WriteStage};
use situ_wire::tree::{Leaf, root_of};

/// When a datanode dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kill {
    /// As soon as a pipeline is opened.
    BeforeReady,
    /// When it gets the packet that reaches this length of its block.
    AtLength(u64),
    /// When it has all bytes and is told to finish.
    AtFinish,
    /// When it has finished, but before it says so.
    AfterFinish,
}

pub(crate) struct Datanode<R: Runtime> {
    pub(crate) location: DatanodeLocation,
    connector: Connector<R>,
    /// Kills its process.
    kill: Arc<dyn Fn() + Send + Sync>,
    state: Arc<Mutex<State>>,
}

impl<R: Runtime> Clone for Datanode<R> {
    fn clone(&self) -> Self {
        Self {
            location: self.location.clone(),
            connector: self.connector.clone(),
            kill: Arc::clone(&self.kill),
            state: Arc::clone(&self.state),
        }
    }
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) replicas: BTreeMap<BlockId, Replica>,
    pub(crate) kill: Option<Kill>,
    /// Never answers on pipelines.
    pub(crate) mute: bool,
    /// Refuses to write, with this.
    pub(crate) refuse: Option<RemoteError>,
    pub(crate) reads: usize,
}

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) generation: GenerationStamp,
    pub(crate) bytes: Vec<u8>,
    leaves: Option<Vec<Leaf>>,
}

type ConnectionOf<R> = <<R as Runtime>::Transport as Transport>::Connection;
type Up<R> = FrameSender<<ConnectionOf<R> as Connection>::Send>;
type Down<R> = FrameReceiver<<ConnectionOf<R> as Connection>::Receive>;

impl<R: Runtime> Datanode<R> {
    /// Starts datanode `number` of `cluster` at `address`; `kill` kills its process.
    pub(crate) async fn start(
        runtime: R,
        cluster: ClusterId,
        address: SocketAddr,
        number: u8,
        kill: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let name = format!("dn{number}");
        let listener = runtime.transport().listen(address).await.unwrap();
        let location = DatanodeLocation {
            id: DatanodeId(u128::from(number)),
            node: NodeName(name.clone()),
            rack: RackName("/rack".into()),
            address: listener.address(),
        };
        let identity = Identity { cluster, role: Role::Datanode, name };
        let connector = Connector::new(runtime.clone(), identity);
        let datanode = Self { location, connector, kill: Arc::new(kill), state: Arc::default() };
        let identity = ServerIdentity { cluster, role: Role::Datanode };
        runtime.spawn("serve", serve(runtime.clone(), listener, identity, datanode.clone()));
        datanode
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        super::lock(&self.state)
    }

    /// Dies here if a test wants it to.
    async fn die_at(&self, point: Kill) {
        if self.state().kill == Some(point) {
            (self.kill)();
            std::future::pending::<()>().await;
        }
    }

    fn open_replica(&self, open: &WriteBlock) -> Result<(), RemoteError> {
        let mut state = self.state();
        if let Some(error) = &state.refuse {
            return Err(error.clone());
        }
        let stale = || RemoteError::new(ErrorCode::StaleGeneration, open.block, "it is not in that life");
        let generation = open.block.generation;
        match open.stage {
            WriteStage::Create if state.replicas.contains_key(&open.block.id) => Err(stale()),
            WriteStage::Create => {
                let replica = Replica { generation, bytes: Vec::new(), leaves: None };
                state.replicas.insert(open.block.id, replica);
                Ok(())
            }
            WriteStage::Resume { len_bytes } => {
                let len = usize::try_from(len_bytes).unwrap();
                let replica = state.replicas.get_mut(&open.block.id).ok_or_else(stale)?;
                if replica.generation >= generation || replica.bytes.len() < len {
                    return Err(stale());
                }
                replica.generation = generation;
                replica.bytes.truncate(len);
                replica.leaves = None;
                Ok(())
            }
        }
    }

    async fn write(&self, open: WriteBlock, up: &mut Up<R>, down: &mut Down<R>) -> Result<(), RpcError> {
        self.die_at(Kill::BeforeReady).await;
        if self.state().mute {
            std::future::pending::<()>().await;
        }
        let failed = |datanode, error| WriteAck::Failed { datanode, error };
        if let Err(error) = self.open_replica(&open) {
            return up.message(&failed(self.location.id, error)).await;
        }
        let mut next = None;
        let mut behind = open.downstream.clone();
        if !behind.is_empty() {
            let to = behind.remove(0);
            let open = WriteBlock { downstream: behind, ..open.clone() };
            let open = StreamOpen::WriteBlock(Box::new(open));
            match self.connector.stream(to.address, Role::Datanode, &open).await {
                Ok((send, receive)) => next = Some((to.id, send, receive)),
                Err(error) => {
                    let error = RemoteError::new(ErrorCode::Unavailable, to.node, error.to_string());
                    return up.message(&failed(to.id, error)).await;
                }
            }
        }
        if !self.relay(&mut next, None, up).await? {
            return Ok(());
        }
        let mut replicas = vec![self.location.id];
        replicas.extend(open.downstream.iter().map(|location| location.id));
        loop {
            let header: PacketHeader = down.expect("the end of the block").await?;
            let ack = match &header {
                PacketHeader::Data { offset, len_bytes, crc32c } => {
                    let pieces = down.exactly(*len_bytes as usize).await?;
                    let found = pieces.iter().fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
                    assert_eq!(found, *crc32c);
                    let len_bytes = offset + u64::from(*len_bytes);
                    let point = self.state().kill;
                    if matches!(point, Some(Kill::AtLength(at)) if at <= len_bytes) {
                        self.die_at(point.unwrap()).await;
                    }
                    if let Some((_, send, _)) = &mut next {
                        let _ = send.message_and_bytes(&header, pieces.clone()).await;
                    }
                    let mut state = self.state();
                    let replica = state.replicas.get_mut(&open.block.id).unwrap();
                    assert_eq!(replica.bytes.len() as u64, *offset);
                    pieces.iter().for_each(|piece| replica.bytes.extend_from_slice(piece));
                    WriteAck::Received { len_bytes }
                }
                PacketHeader::Finish { len_bytes, root, leaves } => {
                    self.die_at(Kill::AtFinish).await;
                    if let Some((_, send, _)) = &mut next {
                        let _ = send.message(&header).await;
                    }
                    {
                        let mut state = self.state();
                        let replica = state.replicas.get_mut(&open.block.id).unwrap();
                        assert_eq!(replica.bytes.len() as u64, *len_bytes);
                        assert_eq!(root_of(leaves, *len_bytes), Some(*root));
                        replica.leaves = Some(leaves.clone());
                    }
                    self.die_at(Kill::AfterFinish).await;
                    WriteAck::Finished { replicas: replicas.clone() }
                }
            };
            let finished = matches!(ack, WriteAck::Finished { .. });
            if !self.relay(&mut next, Some(ack), up).await? || finished {
                return Ok(());
            }
        }
    }

    /// Waits for the acknowledgement of those behind and sends it (or `mine`, or readiness) up; false if they failed.
    async fn relay(
        &self,
        next: &mut Option<(DatanodeId, Up<R>, Down<R>)>,
        mine: Option<WriteAck>,
        up: &mut Up<R>,
    ) -> Result<bool, RpcError> {
        let mine = mine.unwrap_or(WriteAck::Ready);
        let Some((id, _, receive)) = next else {
            up.message(&mine).await?;
            return Ok(true);
        };
        let failed = match receive.expect::<WriteAck>("an acknowledgement").await {
            Ok(failed @ WriteAck::Failed { .. }) => failed,
            Ok(_) => {
                up.message(&mine).await?;
                return Ok(true);
            }
            Err(error) => WriteAck::Failed {
                datanode: *id,
                error: RemoteError::new(ErrorCode::Unavailable, "the next datanode", error.to_string()),
            },
        };
        up.message(&failed).await?;
        Ok(false)
    }

    async fn read(&self, open: ReadBlock, up: &mut Up<R>) -> Result<(), RpcError> {
        self.state().reads += 1;
        let known = self.state().replicas.get(&open.block.id).and_then(|replica| {
            let leaves = if open.leaves { replica.leaves.clone()? } else { Vec::new() };
            (replica.generation == open.block.generation).then_some((replica.bytes.len() as u64, leaves))
        });
        let Some((block_len_bytes, leaves)) = known else {
            let error = RemoteError::new(ErrorCode::NotFound, open.block, "it is not here");
            return up.message(&ReadReply::Refused(error)).await;
        };
        let leaf = LEAF_LEN_BYTES as u64;
        let offset = open.offset / leaf * leaf;
        let end = ((open.offset + open.len_bytes).div_ceil(leaf) * leaf).min(block_len_bytes);
        let reply = ReadReply::Bytes { offset, len_bytes: end - offset, block_len_bytes, leaves };
        up.message(&reply).await?;
        let mut at = usize::try_from(offset).unwrap();
        let end = usize::try_from(end).unwrap();
        while at < end {
            // Pieces that are no multiple of a leaf.
            let next = end.min(at + 300_007);
            let piece = self.state().replicas[&open.block.id].bytes[at..next].to_vec();
            up.bytes(piece.into()).await?;
            at = next;
        }
        up.finish().await
    }
}

impl<R: Runtime> Service<R> for Datanode<R> {
    fn call(&self, _caller: &Arc<CallerIdentity>, _request: Bytes, _reply: Reply) {}

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        open: StreamOpen,
        mut send: Up<R>,
        mut receive: Down<R>,
    ) -> Result<(), RpcError> {
        match open {
            StreamOpen::WriteBlock(open) => {
                self.write(*open, &mut send, &mut receive).await?;
                send.finish().await
            }
            StreamOpen::ReadBlock(open) => self.read(*open, &mut send).await,
            _ => Ok(()),
        }
    }
}
