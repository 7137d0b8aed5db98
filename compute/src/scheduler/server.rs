//! The owner task: it alone holds the core.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use situ_runtime::clock::Clock;
use situ_runtime::disk::Disk;
use situ_runtime::rpc::{CallerIdentity, Reply, ServerIdentity, serve};
use situ_runtime::transport::{Listener, Transport};
use situ_runtime::{AbortOnDrop, Runtime, Task};
use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::{ClusterId, ExecutorId};
use situ_wire::messages::scheduler::{Request, Response};
use situ_wire::time::TimeMs;
use tokio::sync::{mpsc, oneshot};

use super::log::{JobLog, ToLog, write};
use super::service::SchedulerService;
use super::{SchedulerConfig, SchedulerError, directory};
use crate::core::{CallId, Caller, Effect, Event, RecordId, Scheduler, SecretKey};

/// How many calls may wait for the owner.
const QUEUE: usize = 65_536;

/// What the owner hears.
#[derive(Debug)]
pub(super) enum ToOwner {
    /// A call.
    Call { caller: Arc<CallerIdentity>, request: Box<Request>, reply: Reply },
    /// All records up to this one are on the disk.
    Synced(RecordId),
    /// The journal has grown and wants a snapshot.
    Snapshot,
    /// The journal cannot go on.
    Failed(SchedulerError),
}

/// Starts schedulers.
#[derive(Debug)]
pub struct SchedulerServer;

/// A running scheduler. Dropping it ends it.
#[derive(Debug)]
pub struct SchedulerHandle {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<SchedulerError>,
    owner: Task<()>,
    _serving: AbortOnDrop<()>,
}

impl SchedulerHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it must end, and says why; none if it was shut down.
    pub async fn stopped(&mut self) -> Option<SchedulerError> {
        (&mut self.stopped).await.ok()
    }

    /// Ends it. Whoever waits for an answer is told to come again; jobs that run go on with its next life.
    pub async fn shutdown(mut self) {
        drop(self.shutdown.take());
        self.owner.join().await;
    }
}

impl SchedulerServer {
    /// Starts a scheduler of `cluster` that listens with `listener`. It remembers the jobs of its earlier lives; the
    /// drivers of those that had not ended start again, and go on from the actions that are done.
    ///
    /// # Errors
    /// When its configuration, directory or journal cannot be used; also when [`format`](super::format) has not made the
    /// directory.
    pub async fn start<R, L>(
        runtime: R,
        config: SchedulerConfig,
        cluster: ClusterId,
        listener: L,
    ) -> Result<SchedulerHandle, SchedulerError>
    where
        R: Runtime,
        L: Listener<Connection = <R::Transport as Transport>::Connection>,
    {
        config.check()?;
        let (disk, path) = (runtime.disk().clone(), config.directory.clone());
        let opening = runtime.blocking(move || {
            let lock = directory::take(&disk, &path, cluster)?;
            let (log, records) = JobLog::open(disk, &directory::journal_path(&path), cluster)?;
            Ok::<_, SchedulerError>((lock, log, records))
        });
        let (lock, log, records) = opening.await?;
        tracing::info!(directory = %config.directory.display(), records = records.len(), "the journal of jobs is read");
        // For the first life of this scheduler; the others find it in the journal.
        let mut key = [0; 32];
        runtime.random(&mut key);
        let core = Scheduler::new(config.scheduling, SecretKey(key), records);
        let address = listener.address();
        let (owner_sender, inbox) = mpsc::channel(QUEUE);
        let (disconnected_sender, disconnected) = mpsc::unbounded_channel();
        let (log_sender, log_inbox) = mpsc::unbounded_channel();
        let (shutdown, shutting_down) = oneshot::channel();
        let (failed, stopped) = oneshot::channel();
        let (deaf_sender, deaf) = oneshot::channel();
        let writing = runtime.spawn("scheduler-log", write(runtime.clone(), log, log_inbox, owner_sender.clone()));
        let owner = Owner::<R> {
            clock: runtime.clock().clone(),
            core,
            replies: BTreeMap::new(),
            next_call: 0,
            held: VecDeque::new(),
            connections: BTreeMap::new(),
            log: log_sender,
            _writing: writing.abort_on_drop(),
            _lock: lock,
        };
        let inboxes = Inboxes { inbox, disconnected, deaf, shutting_down };
        let owner = runtime.spawn("scheduler-owner", async move {
            if let Some(error) = owner.run(inboxes).await {
                tracing::error!(%error, "the scheduler stops");
                // Nobody may be waiting to hear it.
                let _ = failed.send(error);
            }
        });
        let service = SchedulerService { owner: owner_sender, disconnected: disconnected_sender };
        let serving = serve(runtime.clone(), listener, ServerIdentity { cluster, role: Role::Scheduler }, service);
        let serving = runtime.spawn("scheduler-serve", async move {
            // The owner may be gone already.
            let _ = deaf_sender.send(SchedulerError::Listener(serving.await));
        });
        Ok(SchedulerHandle { address, shutdown: Some(shutdown), stopped, owner, _serving: serving.abort_on_drop() })
    }
}

/// All that the owner listens to.
struct Inboxes {
    inbox: mpsc::Receiver<ToOwner>,
    disconnected: mpsc::UnboundedReceiver<Arc<CallerIdentity>>,
    deaf: oneshot::Receiver<SchedulerError>,
    shutting_down: oneshot::Receiver<()>,
}

/// An answer that waits for a record to be on the disk.
struct Held {
    record: RecordId,
    reply: Reply,
    result: Box<Result<Response, RemoteError>>,
}

struct Owner<R: Runtime> {
    clock: R::Clock,
    core: Scheduler,
    /// Calls that have no answer yet.
    replies: BTreeMap<CallId, Reply>,
    next_call: u64,
    /// In no particular order of records: there are few.
    held: VecDeque<Held>,
    /// Over which connection each executor was last heard.
    connections: BTreeMap<ExecutorId, Arc<CallerIdentity>>,
    log: mpsc::UnboundedSender<ToLog>,
    _writing: AbortOnDrop<()>,
    _lock: <R::Disk as Disk>::Lock,
}

impl<R: Runtime> Owner<R> {
    /// Runs until it is told to end, or must: then with the reason.
    async fn run(mut self, mut from: Inboxes) -> Option<SchedulerError> {
        let clock = self.clock.clone();
        loop {
            self.carry_out();
            let due = self.core.poll_timeout().unwrap_or(TimeMs::NEVER);
            if due <= clock.now() {
                // What has come by now counts before the time does: an executor whose poll waits here is not silent. What
                // comes meanwhile waits: there may always be more.
                for _ in 0..from.inbox.len() {
                    let Ok(message) = from.inbox.try_recv() else { break };
                    if let Some(error) = self.hear(message) {
                        return Some(error);
                    }
                    self.carry_out();
                }
                while let Ok(caller) = from.disconnected.try_recv() {
                    self.disconnected(&caller);
                }
                self.core.handle_timeout(clock.now());
                self.carry_out();
            }
            let due = self.core.poll_timeout().unwrap_or(TimeMs::NEVER);
            tokio::select! {
                biased;
                // The handle is gone, or says so.
                _ = &mut from.shutting_down => return None,
                Ok(error) = &mut from.deaf => return Some(error),
                Some(message) = from.inbox.recv() => if let Some(error) = self.hear(message) {
                    return Some(error);
                },
                Some(caller) = from.disconnected.recv() => self.disconnected(&caller),
                () = clock.sleep_until(due) => self.core.handle_timeout(clock.now()),
            }
        }
    }

    /// Takes in a message; an error if it must end.
    fn hear(&mut self, message: ToOwner) -> Option<SchedulerError> {
        match message {
            ToOwner::Call { caller, request, reply } => self.call(&caller, request, reply),
            ToOwner::Synced(record) => self.synced(record),
            // The receiver ends only with a message that says why.
            ToOwner::Snapshot => drop(self.log.send(ToLog::Snapshot(self.core.snapshot()))),
            ToOwner::Failed(error) => return Some(error),
        }
        None
    }

    fn call(&mut self, caller: &Arc<CallerIdentity>, request: Box<Request>, reply: Reply) {
        let executor = match &*request {
            Request::ExecutorRegister(registration) => Some(registration.id),
            Request::ExecutorPoll { id, .. } => Some(*id),
            _ => None,
        };
        if let Some(executor) = executor.filter(|_| caller.role == Role::Executor) {
            self.connections.insert(executor, Arc::clone(caller));
        }
        self.next_call += 1;
        let call = CallId(self.next_call);
        let deadline = reply.deadline();
        self.replies.insert(call, reply);
        let caller = Caller { role: caller.role, name: caller.name.clone() };
        self.core.handle(self.clock.now(), Event::Call { call, caller, deadline, request });
    }

    fn synced(&mut self, record: RecordId) {
        self.core.handle(self.clock.now(), Event::Synced { record });
        for held in std::mem::take(&mut self.held) {
            if held.record <= record {
                held.reply.send(held.result.as_ref().as_ref().map_err(Clone::clone));
            } else {
                self.held.push_back(held);
            }
        }
    }

    fn disconnected(&mut self, caller: &Arc<CallerIdentity>) {
        let lost = |(_, connection): &(&ExecutorId, &Arc<CallerIdentity>)| Arc::ptr_eq(connection, caller);
        let executors: Vec<ExecutorId> = self.connections.iter().filter(lost).map(|(id, _)| *id).collect();
        for executor in executors {
            self.connections.remove(&executor);
            self.core.handle(self.clock.now(), Event::Disconnected { executor });
        }
    }

    /// Carries out what the core asks for.
    fn carry_out(&mut self) {
        while let Some(effect) = self.core.poll_effect() {
            match effect {
                // The log's task ends only with a message that says why.
                Effect::Append { id, record } => drop(self.log.send(ToLog::Append(id, record))),
                Effect::Answer { call, result, when } => {
                    let reply = self.replies.remove(&call).expect("the core answers each call once");
                    match when {
                        Some(record) => self.held.push_back(Held { record, reply, result }),
                        None => reply.send(result.as_ref().as_ref().map_err(Clone::clone)),
                    }
                }
            }
        }
    }
}
