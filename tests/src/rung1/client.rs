//! Clients: they make, write, move, delete and read files, one thing at a time, and ask again until they are answered.

use std::collections::BTreeMap;

use situ_wire::block::{Block, BlockRoot, CommittedBlock, LocatedBlock};
use situ_wire::error::{ErrorCode, RemoteError, Retry};
use situ_wire::ids::{ClientId, DatanodeId, INodeId, NodeName, OperationId, TxId};
use situ_wire::limits::BLOCK_LEN_MIN_BYTES;
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::disk::root_of;
use super::network::{Party, Pending};
use super::pipeline::{MemberState, Owner, Pipeline};
use super::world::{Happening, World};
use crate::promises::integrity;

/// A file that a client writes.
#[derive(Debug, Clone)]
pub(super) struct OpenFile {
    inode: INodeId,
    /// How many more blocks it shall have.
    left: u64,
    /// Final blocks that the namenode has not been told of.
    committed: Vec<CommittedBlock>,
    /// The blocks that are being written, each with its length.
    writing: BTreeMap<Block, u64>,
    /// Pipelines that broke down, with those of their datanodes that have it and those that do not.
    broken: Vec<(Block, Vec<DatanodeId>, Vec<DatanodeId>)>,
    exclude: Vec<DatanodeId>,
    /// Whether it has nothing to do until a pipeline ends.
    is_idle: bool,
}

/// A client's process.
pub(super) struct ClientHost {
    pub(super) id: ClientId,
    pub(super) run: u64,
    sequence: u64,
    pub(super) open: Option<OpenFile>,
    /// What it waits for, if it does.
    pub(super) waits: Option<Request>,
    /// Until when it does not hear the namenode.
    pub(super) cut_until: TimeMs,
}

/// What a client does by time.
#[derive(Debug, Clone)]
pub(super) enum Act {
    /// The next thing.
    Next,
    /// Ask once more.
    Again(Box<Request>, TxId),
    /// Say that it is still there.
    Renew,
}

const BLOCK_BYTES: u64 = BLOCK_LEN_MIN_BYTES;
const DIRECTORIES: [&str; 3] = ["/a", "/b", "/b/c"];
const NAMES: [&str; 3] = ["x", "y", "z"];
/// How often a client says that it is still there.
const RENEW_MS: u64 = 5_000;

impl OpenFile {
    fn new(inode: INodeId, left: u64) -> Self {
        Self {
            inode,
            left,
            committed: Vec::new(),
            writing: BTreeMap::new(),
            broken: Vec::new(),
            exclude: Vec::new(),
            is_idle: false,
        }
    }
}

impl ClientHost {
    pub(super) fn new() -> Self {
        Self { id: ClientId(0), run: 0, sequence: 0, open: None, waits: None, cut_until: TimeMs(0) }
    }
}

fn path(text: &str) -> DfsPath {
    DfsPath::parse(text).expect("the test's own paths are paths")
}

impl World {
    /// A client's process starts, under a new name.
    pub(super) fn client_up(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.run += 1;
        client.id = ClientId(u128::from(client.run) * 1000 + at as u128 + 1);
        client.sequence = 0;
        client.open = None;
        client.waits = None;
        self.client_later(at, Act::Next);
        let run = self.clients[at].run;
        self.schedule.after(RENEW_MS, Happening::Client { at, run, what: Act::Renew });
    }

    /// A client's process dies in the middle of whatever it does.
    pub(super) fn client_crash(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.run += 1;
        client.open = None;
        client.waits = None;
        let delay_ms = self.chance.between(0, 5_000);
        self.schedule.after(delay_ms, Happening::ClientUp { at });
    }

    fn client_later(&mut self, at: usize, what: Act) {
        let delay_ms = self.chance.between(1, self.settings.think_ms);
        let run = self.clients[at].run;
        self.schedule.after(delay_ms, Happening::Client { at, run, what });
    }

    pub(super) fn client_acts(&mut self, at: usize, run: u64, what: Act) {
        if self.clients[at].run != run {
            return;
        }
        match what {
            Act::Next => self.client_next(at),
            Act::Again(request, floor) => self.call(Party::Client { at, run }, *request, floor),
            Act::Renew => {
                if self.clients[at].open.is_some() {
                    let request = Request::RenewLease { client: self.clients[at].id };
                    self.call(Party::Client { at, run }, request, TxId(0));
                }
                self.schedule.after(RENEW_MS, Happening::Client { at, run, what: Act::Renew });
            }
        }
    }

    fn operation(&mut self, at: usize) -> OperationId {
        let client = &mut self.clients[at];
        client.sequence += 1;
        OperationId { client: client.id, sequence: client.sequence }
    }

    /// Asks the namenode, for the first time.
    fn ask_for(&mut self, at: usize, request: Request) {
        let floor = self.oracle.asked(&request);
        self.clients[at].waits = Some(request.clone());
        let run = self.clients[at].run;
        self.call(Party::Client { at, run }, request, floor);
    }

    fn draw_path(&mut self) -> DfsPath {
        let directory = self.chance.pick(&DIRECTORIES).copied().unwrap_or_default();
        let name = self.chance.pick(&NAMES).copied().unwrap_or_default();
        path(&format!("{directory}/{name}"))
    }

    /// Goes on with the open file, or does something new.
    fn client_next(&mut self, at: usize) {
        if self.clients[at].open.is_some() {
            return self.client_writes(at);
        }
        if self.is_healed {
            return;
        }
        let operation = self.operation(at);
        let one = self.draw_path();
        let other = self.draw_path();
        let directory = path(self.chance.pick(&DIRECTORIES).copied().unwrap_or_default());
        let client = self.clients[at].id;
        let request = match self.chance.between(0, 99) {
            0..40 => Request::Create {
                path: one,
                overwrite: self.chance.permille(500),
                parents: self.chance.permille(800),
                replication: u16::try_from(self.chance.between(self.settings.replication_min, 4)).unwrap_or(3),
                block_len_bytes: BLOCK_BYTES,
                mode: 0o644,
                operation,
            },
            40..48 => Request::Mkdir { path: directory, parents: self.chance.permille(500), mode: 0o755, operation },
            48..58 => Request::Rename { from: one, to: other, overwrite: self.chance.permille(500), operation },
            58..61 => Request::Rename { from: directory, to: one, overwrite: false, operation },
            61..73 => Request::Delete { path: one, recursive: false, operation },
            73..76 => Request::Delete { path: directory, recursive: self.chance.permille(500), operation },
            76..80 => {
                Request::Publish { moves: vec![(one, path(&format!("{directory}/part-0")))], remove: other, operation }
            }
            80..82 => Request::Delete { path: path(&format!("{directory}/part-0")), recursive: true, operation },
            82..88 => Request::Stat { path: one },
            88..92 => Request::List { path: directory, after: None, limit: 2 },
            _ => Request::Blocks { path: one, offset: 0, len_bytes: 1 << 40, node: None, client },
        };
        // A publication is refused for its paths alone if they lie within one another.
        if let Request::Publish { moves, remove, .. } = &request
            && moves.iter().any(|(from, _)| remove.starts_with(from))
        {
            return self.client_later(at, Act::Next);
        }
        self.ask_for(at, request);
    }

    /// Mends a pipeline, adds a block to the open file, or closes it.
    fn client_writes(&mut self, at: usize) {
        let operation = self.operation(at);
        let node = self.datanodes.get(at).map(|datanode| datanode.me.node.clone());
        let Some(open) = &mut self.clients[at].open else { return };
        let (inode, committed) = (open.inode, open.committed.clone());
        if let Some((block, survivors, lost)) = open.broken.pop() {
            if !survivors.is_empty() {
                return self.ask_for(at, Request::RecoverPipeline { inode, block, survivors, operation });
            }
            open.writing.remove(&block);
            open.exclude = lost;
            open.left += 1;
            let behind = open.writing.keys().copied().chain(committed.iter().map(|committed| committed.block));
            if behind.max().is_some_and(|last| last > block) {
                // A hole in a file cannot be mended: the writer gives it up.
                self.clients[at].open = None;
                return self.client_later(at, Act::Next);
            }
            return self.ask_for(at, Request::AbandonBlock { inode, block, operation });
        }
        let is_full = open.writing.len() as u64 >= self.settings.blocks_at_once;
        if is_full || (open.left == 0 && !open.writing.is_empty()) {
            open.is_idle = true;
            return;
        }
        if open.left == 0 {
            return self.ask_for(at, Request::Complete { inode, committed, operation });
        }
        let exclude = std::mem::take(&mut open.exclude);
        let node: Option<NodeName> = node.filter(|_| at.is_multiple_of(2));
        self.ask_for(at, Request::AddBlock { inode, committed, exclude, node, operation });
    }

    /// A client is answered.
    pub(super) fn client_answered(&mut self, at: usize, pending: Pending, result: Result<Response, RemoteError>) {
        let Pending { request, floor, .. } = pending;
        if matches!(request, Request::RenewLease { .. } | Request::ReportCorrupt { .. }) {
            return;
        }
        let response = match result {
            Ok(response) => response,
            Err(error) if error.code == ErrorCode::NoDatanodes && self.clients[at].open.is_some() => {
                // Those that it wanted to avoid may be all there are.
                self.clients[at].waits = None;
                return self.client_later(at, Act::Next);
            }
            Err(error) if error.retry() == Retry::Later => {
                return self.client_later(at, Act::Again(Box::new(request), floor));
            }
            Err(_) => {
                // Whatever it was about, the client turns to something else.
                self.clients[at].waits = None;
                self.clients[at].open = None;
                return self.client_later(at, Act::Next);
            }
        };
        self.clients[at].waits = None;
        match (&request, response) {
            (Request::Create { .. }, Response::Created { inode, .. }) => {
                let left = self.chance.between(0, 3);
                self.clients[at].open = Some(OpenFile::new(inode, left));
            }
            (Request::AddBlock { committed, .. }, Response::Block(located)) => {
                let short_bytes = self.chance.between(1, BLOCK_BYTES);
                if let Some(open) = &mut self.clients[at].open {
                    open.committed.retain(|block| !committed.contains(block));
                    open.left -= 1;
                    let len_bytes = if open.left == 0 { short_bytes } else { BLOCK_BYTES };
                    self.client_streams(at, &located, len_bytes, None);
                }
            }
            (Request::RecoverPipeline { block, .. }, Response::Block(located)) => {
                let open = self.clients[at].open.as_mut();
                if let Some(len_bytes) = open.and_then(|open| open.writing.remove(block)) {
                    self.client_streams(at, &located, len_bytes, Some(len_bytes / 2));
                }
            }
            (Request::Complete { .. }, _) => self.clients[at].open = None,
            (Request::Blocks { .. }, Response::Blocks { blocks, .. }) => self.client_reads(at, &blocks),
            _ => {}
        }
        self.client_later(at, Act::Next);
    }

    /// Streams a block to its pipeline; what else there is to do goes on meanwhile.
    fn client_streams(&mut self, at: usize, located: &LocatedBlock, len_bytes: u64, from: Option<u64>) {
        let run = self.clients[at].run;
        let Some(open) = &mut self.clients[at].open else { return };
        let targets: Vec<DatanodeId> = located.locations.iter().map(|location| location.id).collect();
        open.writing.insert(located.block, len_bytes);
        let what = (located.block, len_bytes);
        self.start_pipeline(Owner::Client { at, run }, what, &targets, located.token.clone(), from);
    }

    /// A pipeline has come to its end, good or bad.
    pub(super) fn client_pipeline_ended(&mut self, at: usize, pipeline: &Pipeline) {
        let lost_ack_permille = self.settings.lost_ack_permille;
        let mut survivors = Vec::new();
        let mut lost = Vec::new();
        for member in &pipeline.members {
            let id = self.datanodes[member.at].me.id;
            let heard = !self.chance.permille(lost_ack_permille);
            if member.state == MemberState::Final && heard { survivors.push(id) } else { lost.push(id) }
        }
        let block = pipeline.block;
        let Some(open) = &mut self.clients[at].open else { return };
        let Some(len_bytes) = open.writing.get(&block).copied() else { return };
        if lost.is_empty() && !survivors.is_empty() {
            let root: BlockRoot = root_of(block.id);
            open.committed.push(CommittedBlock { block, len_bytes, root, replicas: survivors });
            open.writing.remove(&block);
        } else {
            open.broken.push((block, survivors, lost));
        }
        if std::mem::replace(&mut open.is_idle, false) {
            self.client_later(at, Act::Next);
        }
    }

    /// Reads blocks: whatever a replica says that it holds, holds; what is damaged is told.
    fn client_reads(&mut self, at: usize, blocks: &[LocatedBlock]) {
        let run = self.clients[at].run;
        for located in blocks {
            let Some(expected) = located.root else { continue };
            let Some(location) = self.chance.pick(&located.locations).cloned() else { continue };
            let found = self
                .stored(located.block)
                .find(|(id, stored)| *id == location.id && stored.block == located.block && stored.is_final);
            let Some((_, stored)) = found else { continue };
            if stored.root == expected {
                // Verified: so it must be what was written.
                if let Err(wrong) = integrity::check(located.block, root_of(located.block.id), stored.root) {
                    self.violated(wrong);
                }
            }
            if stored.root != expected || self.chance.permille(self.settings.slander_permille) {
                let request = Request::ReportCorrupt { block: located.block, datanode: location.id };
                self.call(Party::Client { at, run }, request, TxId(0));
            }
        }
    }
}
