use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use situ_runtime::clock::Clock;
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::block::{Block, CommittedBlock, LocatedBlock};
use situ_wire::ids::{DatanodeId, INodeId};
use situ_wire::messages::datanode::{Durability, PacketHeader, WriteBlock, WriteStage};
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;
use situ_wire::tree::Tree;
use tokio::sync::{mpsc, oneshot};

use super::hashing::{Hashed, Hashing};
use super::pipeline::{self, Down};
use crate::core::writer::{Effect, Event, FileWrite, PipelineId, Slot};
use crate::error::ClientError;
use crate::io::client::Client;
use crate::io::remote::{answer, asked};

/// What the application's end sends.
pub(super) enum Input {
    /// Bytes and their CRC32C.
    Packet(Bytes, u32),
    /// No more come.
    Close,
}

/// What a piece of work leads to.
enum Done {
    Event(Event),
    Hashed(Hashed),
}

/// The one task that owns the writing of a file: it takes what the application writes, what pipelines say and what the
/// namenode answers, and does what [`FileWrite`] decides.
pub(super) struct Owner<R: Runtime> {
    pub(super) client: Client<R>,
    pub(super) path: Arc<DfsPath>,
    pub(super) inode: INodeId,
    pub(super) block_len_bytes: u64,
    pub(super) durability: Durability,
    pub(super) core: FileWrite,
}

/// A pipeline that runs.
struct Pipeline {
    down: mpsc::UnboundedSender<Down>,
    _task: AbortOnDrop<()>,
}

/// What is under way.
struct Work {
    pipelines: BTreeMap<PipelineId, Pipeline>,
    events: mpsc::UnboundedSender<Event>,
    hashing: Hashing,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
}

impl<R: Runtime> Owner<R> {
    /// Runs until the file is closed, has failed, or the application lets go of it.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        outcome: oneshot::Sender<Result<u64, ClientError>>,
    ) {
        let (events, mut happened) = mpsc::unbounded_channel();
        let mut work =
            Work { pipelines: BTreeMap::new(), events, hashing: Hashing::default(), running: FuturesUnordered::new() };
        loop {
            while let Some(effect) = self.core.poll_effect() {
                if let Some(result) = self.act(&mut work, effect) {
                    // Nobody waits if the application let go meanwhile.
                    let _ = outcome.send(result);
                    return;
                }
            }
            let due = self.core.poll_timeout().unwrap_or(TimeMs::NEVER);
            let clock = self.client.runtime().clock().clone();
            let event = tokio::select! {
                Some(event) = happened.recv() => Some(event),
                Some(done) = work.running.next() => self.done(&mut work, done),
                input = inputs.recv(), if self.core.has_room() => match input {
                    Some(Input::Packet(bytes, crc32c)) => Some(Event::Written { bytes, crc32c }),
                    Some(Input::Close) => Some(Event::Close),
                    // Let go without a close: the file stays open until its lease expires.
                    None => return,
                },
                () = clock.sleep_until(due) => None,
            };
            let now = clock.now();
            if let Some(event) = event {
                if let Event::Finished { pipeline, .. } | Event::Broken { pipeline, .. } = &event {
                    work.pipelines.remove(pipeline);
                }
                self.core.handle(now, event);
            }
            if self.core.poll_timeout().is_some_and(|due| due <= now) {
                self.core.handle_timeout(now);
            }
            if cfg!(debug_assertions) {
                self.core.check();
            }
        }
    }

    /// Takes what a piece of work led to.
    fn done(&mut self, work: &mut Work, done: Done) -> Option<Event> {
        match done {
            Done::Event(event) => Some(event),
            Done::Hashed(Hashed::UpTo(slot, builder)) => {
                let len_bytes = builder.len_bytes();
                work.hashing.put_back(slot, builder);
                self.hash(work, slot);
                Some(Event::Hashed { slot, len_bytes })
            }
            Done::Hashed(Hashed::Whole(slot, tree)) => {
                work.hashing.forget(slot);
                Some(Event::Tree { slot, tree })
            }
        }
    }

    /// Does what was decided; gives the end of it all.
    fn act(&mut self, work: &mut Work, effect: Effect) -> Option<Result<u64, ClientError>> {
        match effect {
            Effect::AddBlock { slot, committed, exclude } => self.add_block(work, slot, committed, exclude),
            Effect::AbandonBlock { slot, block } => self.abandon_block(work, slot, block),
            Effect::RecoverPipeline { slot, block, survivors } => self.recover_pipeline(work, slot, block, survivors),
            Effect::Complete { committed } => self.complete(work, committed),
            Effect::Open { pipeline, located, stage } => self.open(work, pipeline, located, stage),
            Effect::Send { pipeline, packet } => send(work, pipeline, Down::Packet(packet)),
            Effect::Finish { pipeline, tree } => send(work, pipeline, Down::Finish(finish(&tree))),
            Effect::Drop { pipeline } => drop(work.pipelines.remove(&pipeline)),
            Effect::Hash { slot, bytes } => {
                work.hashing.add(slot, bytes);
                self.hash(work, slot);
            }
            Effect::EndHash { slot } => {
                work.hashing.end(slot);
                self.hash(work, slot);
            }
            Effect::End { result } => return Some(result),
        }
        None
    }

    fn hash(&self, work: &mut Work, slot: Slot) {
        if let Some(round) = work.hashing.next_round(self.client.runtime(), slot) {
            work.running.push(Box::pin(async move { Done::Hashed(round.await) }));
        }
    }

    fn open(&self, work: &mut Work, id: PipelineId, located: LocatedBlock, stage: WriteStage) {
        let mut members = located.locations.into_iter();
        let Some(first) = members.next() else { return };
        let open = WriteBlock {
            block: located.block,
            stage,
            downstream: members.collect(),
            limit_bytes: self.block_len_bytes,
            durability: self.durability,
            token: located.token,
        };
        let (down, commands) = mpsc::unbounded_channel();
        let connector = self.client.connector().clone();
        let task = pipeline::run(connector, id, first.address, open, commands, work.events.clone());
        let task = self.client.runtime().spawn("pipeline", task).abort_on_drop();
        work.pipelines.insert(id, Pipeline { down, _task: task });
    }

    fn add_block(&self, work: &mut Work, slot: Slot, committed: Vec<CommittedBlock>, exclude: Vec<DatanodeId>) {
        let mut patience = self.client.config().patience();
        if !exclude.is_empty() {
            // The core would rather try again those that it excludes.
            patience.datanodes = std::time::Duration::ZERO;
        }
        let request = Request::AddBlock {
            inode: self.inode,
            committed,
            exclude,
            node: self.client.config().node.clone(),
            operation: self.client.operation(),
        };
        let (client, path) = (self.client.clone(), Arc::clone(&self.path));
        work.running.push(Box::pin(async move {
            let asked = asked("add a block to", &*path);
            let timeout = client.config().call_timeout();
            let answered = client.shared.namenode.call_within(asked, &request, timeout, patience).await;
            let result =
                answered.and_then(|answered| answer!(asked, "AddBlock", answered, Response::Block(located) => located));
            Done::Event(Event::Added { slot, result })
        }));
    }

    fn abandon_block(&self, work: &mut Work, slot: Slot, block: Block) {
        let request = Request::AbandonBlock { inode: self.inode, block, operation: self.client.operation() };
        let (client, path) = (self.client.clone(), Arc::clone(&self.path));
        work.running.push(Box::pin(async move {
            let asked = asked("give back a block of", &*path);
            let answered = client.ask(asked, &request).await;
            let result = answered.and_then(|answered| answer!(asked, "AbandonBlock", answered, Response::Done => ()));
            Done::Event(Event::Abandoned { slot, result })
        }));
    }

    fn recover_pipeline(&self, work: &mut Work, slot: Slot, block: Block, survivors: Vec<DatanodeId>) {
        let operation = self.client.operation();
        let request = Request::RecoverPipeline { inode: self.inode, block, survivors, operation };
        let (client, path) = (self.client.clone(), Arc::clone(&self.path));
        work.running.push(Box::pin(async move {
            let asked = asked("mend a pipeline of", &*path);
            let answered = client.ask(asked, &request).await;
            let result = answered
                .and_then(|answered| answer!(asked, "RecoverPipeline", answered, Response::Block(located) => located));
            Done::Event(Event::Recovered { slot, result })
        }));
    }

    fn complete(&self, work: &mut Work, committed: Vec<CommittedBlock>) {
        let request = Request::Complete { inode: self.inode, committed, operation: self.client.operation() };
        let (client, path) = (self.client.clone(), Arc::clone(&self.path));
        work.running.push(Box::pin(async move {
            let asked = asked("close", &*path);
            let answered = client.ask(asked, &request).await;
            let result = answered.and_then(|answered| answer!(asked, "Complete", answered, Response::Done => ()));
            Done::Event(Event::Completed { result })
        }));
    }
}

/// Sends something down a pipeline; one that has broken meanwhile has said so, or will.
fn send(work: &mut Work, id: PipelineId, down: Down) {
    if let Some(pipeline) = work.pipelines.get(&id) {
        let _ = pipeline.down.send(down);
    }
}

fn finish(tree: &Tree) -> PacketHeader {
    PacketHeader::Finish { len_bytes: tree.len_bytes, root: tree.root, leaves: tree.leaves.clone() }
}
