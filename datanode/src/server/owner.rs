use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use situ_runtime::clock::Clock;
use situ_runtime::disk::Disk;
use situ_runtime::rpc::RpcError;
use situ_runtime::{AbortOnDrop, Runtime, Task};
use situ_wire::block::Block;
use situ_wire::ids::StorageId;
use situ_wire::time::TimeMs;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::files::{Chore, ChoreKind, Note, NoteKind};
use super::namenode::Namenode;
use super::node::{Answer, CopyId, Message, Node, WriteTicket};
use super::replicate::{Copy, replicate};
use super::verify::verify;
use crate::core::tokens::TokenJudge;
use crate::core::{Core, Effect, Event, RequestId, StopReason, WriterId};
use crate::error::DatanodeError;
use crate::storage::{ReplicaIndex, Verdict, Volume};

/// A volume and its index, if that could be opened.
pub(super) struct OpenVolume<D: Disk> {
    pub(super) volume: Arc<Volume<D>>,
    pub(super) index: Option<Arc<ReplicaIndex>>,
}

/// The tasks beside the owner that live as long as it does.
pub(super) struct Companions<R: Runtime> {
    /// Takes connections.
    pub(super) serve: Task<()>,
    /// Says when it can take none any more.
    pub(super) deaf: oneshot::Receiver<RpcError>,
    pub(super) chores: mpsc::UnboundedSender<Chore<R::Disk>>,
    pub(super) notes: mpsc::UnboundedSender<Note>,
    pub(super) note_taker: Task<()>,
}

/// Owns the core and does what it says.
pub(super) struct Owner<R: Runtime> {
    core: Core,
    node: Node<R>,
    namenode: Namenode<R>,
    volumes: BTreeMap<StorageId, OpenVolume<R::Disk>>,
    judge: watch::Sender<Option<TokenJudge>>,
    companions: Companions<R>,
    next_request: u64,
    requests: HashMap<RequestId, Answer<WriteTicket<R::Disk>>>,
    writers: HashMap<WriterId, Writer>,
    verifying: HashMap<StorageId, AbortOnDrop<()>>,
    next_copy: u64,
    copying: HashMap<CopyId, AbortOnDrop<()>>,
    stop: Option<DatanodeError>,
}

/// A stream that writes a replica.
#[derive(Default)]
struct Writer {
    /// Tells it to let go.
    stop: Option<oneshot::Sender<()>>,
    /// Tells it whether its final replica counts.
    confirm: Option<oneshot::Sender<bool>>,
}

impl<R: Runtime> Owner<R> {
    pub(super) fn new(
        core: Core,
        node: Node<R>,
        namenode: Namenode<R>,
        volumes: BTreeMap<StorageId, OpenVolume<R::Disk>>,
        judge: watch::Sender<Option<TokenJudge>>,
        companions: Companions<R>,
    ) -> Self {
        Self {
            core,
            node,
            namenode,
            volumes,
            judge,
            companions,
            next_request: 0,
            requests: HashMap::new(),
            writers: HashMap::new(),
            verifying: HashMap::new(),
            next_copy: 0,
            copying: HashMap::new(),
            stop: None,
        }
    }

    /// Runs until it is told to shut down or cannot go on; then gives everything back.
    pub(super) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message<R::Disk>>,
        shutdown: Arc<Notify>,
    ) -> Result<(), DatanodeError> {
        let clock = self.node.runtime.clock().clone();
        self.apply();
        while self.stop.is_none() {
            let deadline = self.core.poll_timeout();
            tokio::select! {
                biased;
                () = shutdown.notified() => break,
                Ok(error) = &mut self.companions.deaf => self.stop = Some(DatanodeError::Listen(error)),
                // The node holds a sender: there is always one.
                Some(message) = inbox.recv() => self.take(message),
                () = clock.sleep_until(deadline) => {
                    let now = self.now();
                    self.core.handle_timeout(now);
                }
            }
            self.apply();
        }
        let outcome = self.stop.take().map_or(Ok(()), Err);
        self.close(inbox).await;
        outcome
    }

    /// The time for the next event; the core hears what the wall clock says then.
    fn now(&mut self) -> TimeMs {
        let clock = self.node.runtime.clock();
        self.core.set_wall_clock(clock.wall_clock());
        clock.now()
    }

    fn take(&mut self, message: Message<R::Disk>) {
        let now = self.now();
        match message {
            Message::Event(event) => {
                if let Event::Verified { storage, .. } = &event {
                    self.verifying.remove(storage);
                }
                self.core.handle(now, event);
            }
            Message::Copied { copy, event } => {
                self.copying.remove(&copy);
                self.core.handle(now, event);
            }
            Message::OpenWrite { block, stage, limit_bytes, reply } => {
                let request = RequestId(self.next_request);
                self.next_request += 1;
                self.requests.insert(request, reply);
                self.core.handle(now, Event::OpenWrite { request, block, stage, limit_bytes });
            }
            Message::OpenRead { block, reply } => {
                let found = self.core.replicas().final_replica(block);
                let found = found.and_then(|(storage, len_bytes)| match self.volumes.get(&storage) {
                    Some(open) => Ok((Arc::clone(&open.volume), len_bytes)),
                    None => Err(super::node::shutting_down(block)),
                });
                // Whoever gave up waiting does not need to know.
                let _ = reply.send(found);
            }
            Message::WriterEnded { writer, end, confirm } => {
                if let Some(waiting) = self.writers.get_mut(&writer) {
                    waiting.confirm = Some(confirm);
                }
                self.core.handle(now, Event::WriterEnded { writer, end });
                self.apply();
                self.writers.remove(&writer);
            }
        }
    }

    /// Does what the core says.
    fn apply(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            self.act(effect);
        }
    }

    fn act(&mut self, effect: Effect) {
        match effect {
            Effect::GrantWrite { request, grant } => {
                let (Some(reply), Some(open)) = (self.requests.remove(&request), self.volumes.get(&grant.storage))
                else {
                    return;
                };
                let (stop, stopped) = oneshot::channel();
                self.writers.insert(grant.writer, Writer { stop: Some(stop), confirm: None });
                let mailbox = self.node.mailbox.clone();
                // A ticket that nobody takes says so itself.
                let _ = reply.send(Ok(WriteTicket::new(&grant, Arc::clone(&open.volume), stopped, mailbox)));
            }
            Effect::RefuseWrite { request, error } => {
                if let Some(reply) = self.requests.remove(&request) {
                    let _ = reply.send(Err(error));
                }
            }
            Effect::StopWriter { writer } => {
                if let Some(stop) = self.writers.get_mut(&writer).and_then(|writer| writer.stop.take()) {
                    // One that is ending anyway does not need to hear it.
                    let _ = stop.send(());
                }
            }
            Effect::ConfirmFinal { writer, counts } => {
                if let Some(confirm) = self.writers.get_mut(&writer).and_then(|writer| writer.confirm.take()) {
                    let _ = confirm.send(counts);
                }
            }
            Effect::Delete { storage, block } => self.chore(storage, block, ChoreKind::Delete),
            Effect::MoveAside { storage, block } => {
                tracing::error!(%block, "a replica is damaged; it is not served any more");
                self.chore(storage, block, ChoreKind::MoveAside);
            }
            Effect::Index { storage, id, replica } => self.note(storage, NoteKind::Replica(id, replica)),
            Effect::IndexScrubbed { storage, id } => self.note(storage, NoteKind::Scrubbed(id)),
            Effect::Verify { storage, block, rate_bytes } => self.verify(storage, block, rate_bytes),
            Effect::Replicate { storage, block, len_bytes, targets, token } => {
                let Some(open) = self.volumes.get(&storage) else { return };
                let copy = Copy { volume: Arc::clone(&open.volume), block, len_bytes, targets, token };
                let (id, node) = (CopyId(self.next_copy), self.node.clone());
                self.next_copy += 1;
                let task = self.node.runtime.spawn("replicate", async move {
                    let event = replicate(&node, copy).await;
                    // An owner that is gone does not need to know.
                    let _ = node.mailbox.send(Message::Copied { copy: id, event });
                });
                self.copying.insert(id, task.abort_on_drop());
            }
            Effect::Measure => self.measure(),
            Effect::Probe { storage } => self.probe(storage),
            Effect::Eject { storage } => {
                if let Some(open) = self.volumes.remove(&storage) {
                    tracing::error!(volume = %open.volume.root().display(), "a volume has failed and is out of use");
                }
                self.verifying.remove(&storage);
            }
            Effect::Call { call, request } => {
                let (node, namenode) = (self.node.clone(), self.namenode.clone());
                self.node.runtime.spawn("namenode-call", async move {
                    let result = namenode.call(&request).await;
                    if let Err(error) = &result {
                        tracing::warn!(call = ?call.kind, error = error.message, "a call failed");
                    }
                    node.tell(Event::Answered { call, result });
                });
            }
            Effect::Judge(judge) => {
                self.judge.send_replace(Some(judge));
            }
            Effect::Stop(reason) => {
                self.stop = Some(match reason {
                    StopReason::Refused(reason) => DatanodeError::Refused(reason),
                    StopReason::NoVolumes(reason) => DatanodeError::NoVolumes(reason),
                });
            }
        }
    }

    fn chore(&self, storage: StorageId, block: Block, kind: ChoreKind) {
        if let Some(open) = self.volumes.get(&storage) {
            // The task that does chores lives as long as this sender.
            let _ = self.companions.chores.send(Chore { volume: Arc::clone(&open.volume), block, kind });
        }
    }

    fn note(&self, storage: StorageId, what: NoteKind) {
        if let Some(index) = self.volumes.get(&storage).and_then(|open| open.index.as_ref()) {
            let _ = self.companions.notes.send(Note { index: Arc::clone(index), what });
        }
    }

    fn verify(&mut self, storage: StorageId, block: Block, rate_bytes: Option<u64>) {
        let Some(open) = self.volumes.get(&storage) else { return };
        let (node, volume) = (self.node.clone(), Arc::clone(&open.volume));
        let task = self.node.runtime.spawn("verify", async move {
            let verdict = verify(&node.runtime, volume, block, rate_bytes).await;
            match &verdict {
                Verdict::DiskFailed(reason) => {
                    tracing::error!(%block, reason, "a replica cannot be read; it is not served any more");
                }
                Verdict::Undecided(reason) => {
                    tracing::warn!(%block, reason, "a replica cannot be verified now; that is tried again later");
                }
                // The owner says what becomes of the others.
                Verdict::Good | Verdict::Corrupt(_) | Verdict::Gone => {}
            }
            node.tell(Event::Verified { storage, block, verdict });
        });
        self.verifying.insert(storage, task.abort_on_drop());
    }

    fn measure(&self) {
        let volumes: Vec<_> = self.volumes.values().map(|open| Arc::clone(&open.volume)).collect();
        let node = self.node.clone();
        self.node.runtime.spawn("measure", async move {
            let measure = move || volumes.iter().map(|volume| (volume.storage(), volume.space())).collect::<Vec<_>>();
            let mut spaces = Vec::new();
            for (storage, space) in node.runtime.blocking(measure).await {
                match space {
                    Ok(space) => spaces.push((storage, space)),
                    Err(error) => {
                        tracing::warn!(%error, "the room of a volume cannot be measured");
                        node.tell(Event::DiskTrouble { storage });
                    }
                }
            }
            let reads = node.config.reads - node.limits.reads.available_permits();
            node.tell(Event::Measured { spaces, reads });
        });
    }

    fn probe(&self, storage: StorageId) {
        let Some(open) = self.volumes.get(&storage) else { return };
        let (node, volume) = (self.node.clone(), Arc::clone(&open.volume));
        self.node.runtime.spawn("probe", async move {
            let failed = node.runtime.blocking(move || volume.probe()).await.err().map(|error| error.to_string());
            node.tell(Event::Probed { storage, failed });
        });
    }

    /// Ends all streams, lets what is under way come to its end, and lets go of the volumes.
    async fn close(self, mut inbox: mpsc::UnboundedReceiver<Message<R::Disk>>) {
        let Self { node, mut volumes, companions, requests, writers, verifying, copying, .. } = self;
        let Companions { serve, chores, notes, note_taker, .. } = companions;
        let runtime = node.runtime.clone();
        serve.abort();
        // Whoever waits for an answer gets none, writers stop, and what runs in the background ends.
        drop((requests, writers, verifying, copying));
        drop((node, chores, notes));
        // Every stream and task holds a sender: the inbox ends with the last of them. What they ask for is refused.
        let drained = runtime.clock().timeout(CLOSE_TIMEOUT, async { while inbox.recv().await.is_some() {} }).await;
        if drained.is_none() {
            tracing::warn!("some streams have not ended in time");
        }
        note_taker.join().await;
        let indexes: Vec<_> = volumes.values_mut().filter_map(|open| open.index.take()).collect();
        let sync = move || indexes.iter().try_for_each(|index| index.sync());
        if let Err(error) = runtime.blocking(sync).await {
            tracing::warn!(%error, "the index of a volume cannot be synced; it is rebuilt at the next start");
        }
    }
}

/// How long streams may take to end when the datanode shuts down.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
