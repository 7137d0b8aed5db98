use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, ServerIdentity, Service, serve};
use situ_runtime::transport::{Connection, Listener, Transport};
use situ_wire::block::{Block, BlockToken, CommittedBlock, DatanodeLocation, LocatedBlock, TokenMode};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClientId, ClusterId, DatanodeId, GenerationStamp, INodeId, OperationId};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::namenode::{FileKind, FileStatus, Request, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::{TimeMs, WallTime};

#[derive(Clone)]
pub(crate) struct Namenode {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

/// What it knows, and how it shall fail.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) datanodes: Vec<DatanodeLocation>,
    pub(crate) files: BTreeMap<DfsPath, File>,
    /// The answers so far, by operation.
    answers: BTreeMap<OperationId, Result<Response, RemoteError>>,
    /// How many operations were applied.
    pub(crate) applied: usize,
    /// Applies the next so many operations and loses their answers.
    pub(crate) lose_answers: usize,
    /// Refuses the next so many calls with this.
    pub(crate) refuse: Option<(usize, RemoteError)>,
    lost: Vec<Reply>,
    pub(crate) corrupt: Vec<(Block, DatanodeId)>,
    pub(crate) renewals: usize,
    pub(crate) abandoned: usize,
    next: u64,
}

#[derive(Clone)]
pub(crate) struct File {
    inode: INodeId,
    pub(crate) open: bool,
    replication: u16,
    block_len_bytes: u64,
    pub(crate) blocks: Vec<FileBlock>,
}

#[derive(Clone)]
pub(crate) struct FileBlock {
    pub(crate) block: Block,
    pub(crate) pipeline: Vec<DatanodeLocation>,
    pub(crate) committed: Option<CommittedBlock>,
}

impl Namenode {
    /// Starts the namenode of `cluster` at `address`.
    pub(crate) async fn start<R: Runtime>(runtime: R, cluster: ClusterId, address: SocketAddr) -> Self {
        let listener = runtime.transport().listen(address).await.unwrap();
        let namenode = Self { address: listener.address(), state: Arc::default() };
        let identity = ServerIdentity { cluster, role: Role::Namenode };
        runtime.spawn("serve", serve(runtime.clone(), listener, identity, namenode.clone()));
        namenode
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        super::lock(&self.state)
    }
}

type ConnectionOf<R> = <<R as Runtime>::Transport as Transport>::Connection;

impl<R: Runtime> Service<R> for Namenode {
    fn call(&self, _caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let request: Request = codec::decode(&request).unwrap();
        let mut state = self.state();
        if let Some((left, error)) = state.refuse.as_mut().filter(|(left, _)| *left > 0) {
            *left -= 1;
            return reply.send::<Response>(Err(error.clone()));
        }
        let operation = operation(&request);
        if let Some(known) = operation.and_then(|operation| state.answers.get(&operation)) {
            return reply.send(known.as_ref().map_err(Clone::clone));
        }
        let result = state.answer(request);
        if let Some(operation) = operation {
            state.applied += 1;
            state.answers.insert(operation, result.clone());
            if state.lose_answers > 0 {
                state.lose_answers -= 1;
                return state.lost.push(reply);
            }
        }
        reply.send(result.as_ref().map_err(Clone::clone));
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        _open: StreamOpen,
        _send: FrameSender<<ConnectionOf<R> as Connection>::Send>,
        _receive: FrameReceiver<<ConnectionOf<R> as Connection>::Receive>,
    ) -> Result<(), RpcError> {
        Ok(())
    }
}

fn operation(request: &Request) -> Option<OperationId> {
    match request {
        Request::Mkdir { operation, .. }
        | Request::Create { operation, .. }
        | Request::AddBlock { operation, .. }
        | Request::AbandonBlock { operation, .. }
        | Request::RecoverPipeline { operation, .. }
        | Request::Complete { operation, .. }
        | Request::Delete { operation, .. } => Some(*operation),
        _ => None,
    }
}

fn located(block: &FileBlock, offset: u64) -> LocatedBlock {
    let token = BlockToken { mode: TokenMode::Read, client: ClientId(0), expires: TimeMs::NEVER, tag: [0; 32] };
    let mut locations = block.pipeline.clone();
    if let Some(committed) = &block.committed {
        locations.retain(|location| committed.replicas.contains(&location.id));
    }
    LocatedBlock {
        block: block.block,
        offset,
        len_bytes: block.committed.as_ref().map_or(0, |committed| committed.len_bytes),
        root: block.committed.as_ref().map(|committed| committed.root),
        locations,
        token,
    }
}

impl State {
    fn answer(&mut self, request: Request) -> Result<Response, RemoteError> {
        match request {
            Request::Mkdir { .. } => Ok(Response::Done),
            Request::Create { path, replication, block_len_bytes, .. } => {
                self.next += 1;
                let inode = INodeId(self.next);
                let file = File { inode, open: true, replication, block_len_bytes, blocks: Vec::new() };
                self.files.insert(path, file);
                Ok(Response::Created { inode, block_len_bytes, replication })
            }
            Request::AddBlock { inode, committed, exclude, .. } => {
                let pipeline: Vec<_> =
                    self.datanodes.iter().filter(|datanode| !exclude.contains(&datanode.id)).cloned().collect();
                if pipeline.is_empty() {
                    return Err(RemoteError::new(ErrorCode::NoDatanodes, "a block", "none is left"));
                }
                self.next += 1;
                let block = Block { id: BlockId(self.next), generation: GenerationStamp(1) };
                let file = self.open_file(inode)?;
                commit(file, committed);
                file.blocks.push(FileBlock { block, pipeline, committed: None });
                Ok(Response::Block(located(&file.blocks[file.blocks.len() - 1], 0)))
            }
            Request::AbandonBlock { inode, block, .. } => {
                self.abandoned += 1;
                let file = self.open_file(inode)?;
                let last = file.blocks.pop().unwrap();
                assert_eq!(last.block, block, "the last block is given back, in its present life");
                Ok(Response::Done)
            }
            Request::RecoverPipeline { inode, block, survivors, .. } => {
                let file = self.open_file(inode)?;
                let found = file.blocks.iter_mut().find(|found| found.block == block).unwrap();
                found.block.generation.0 += 1;
                found.pipeline.retain(|location| survivors.contains(&location.id));
                Ok(Response::Block(located(found, 0)))
            }
            Request::Complete { inode, committed, .. } => {
                let file = self.open_file(inode)?;
                commit(file, committed);
                assert!(file.blocks.iter().all(|block| block.committed.is_some()), "all blocks are final");
                file.open = false;
                Ok(Response::Done)
            }
            Request::RenewLease { .. } => {
                self.renewals += 1;
                Ok(Response::Done)
            }
            Request::Stat { path } => Ok(Response::Status(self.files.get(&path).map(|file| status(&path, file)))),
            Request::Delete { path, .. } => Ok(Response::Deleted(self.files.remove(&path).is_some())),
            Request::Blocks { path, offset, len_bytes, .. } => self.blocks(&path, offset, len_bytes),
            Request::ReportCorrupt { block, datanode } => {
                self.corrupt.push((block, datanode));
                Ok(Response::Done)
            }
            other => panic!("the fake namenode does not know {other:?}"),
        }
    }

    fn blocks(&self, path: &DfsPath, offset: u64, len_bytes: u64) -> Result<Response, RemoteError> {
        let file =
            self.files.get(path).ok_or_else(|| RemoteError::new(ErrorCode::NotFound, path, "there is no such file"))?;
        let mut at = 0;
        let mut blocks = Vec::new();
        for block in &file.blocks {
            let found = located(block, at);
            at += found.len_bytes;
            if at > offset && found.offset < offset.saturating_add(len_bytes) {
                blocks.push(found);
            }
        }
        Ok(Response::Blocks { status: status(path, file), blocks })
    }

    fn open_file(&mut self, inode: INodeId) -> Result<&mut File, RemoteError> {
        self.files
            .values_mut()
            .find(|file| file.inode == inode && file.open)
            .ok_or_else(|| RemoteError::new(ErrorCode::LeaseLost, inode, "it is not open"))
    }
}

fn commit(file: &mut File, committed: Vec<CommittedBlock>) {
    for commit in committed {
        let block = file.blocks.iter_mut().find(|block| block.block == commit.block).unwrap();
        block.committed = Some(commit);
    }
}

fn status(path: &DfsPath, file: &File) -> FileStatus {
    let len_bytes = file.blocks.iter().filter_map(|block| Some(block.committed.as_ref()?.len_bytes)).sum();
    FileStatus {
        path: path.clone(),
        inode: file.inode,
        kind: FileKind::File {
            len_bytes,
            replication: file.replication,
            block_len_bytes: file.block_len_bytes,
            open: file.open,
        },
        owner: "ann".into(),
        group: "ann".into(),
        mode: 0o644,
        modified: WallTime(0),
    }
}
