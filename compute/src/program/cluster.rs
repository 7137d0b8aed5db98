//! The world of a driver or worker on a cluster: the file system through the client, the scheduler and executors by
//! calls.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use situ_client::{Client, ClientConfig, ClientError, CreateOptions, FileReader, FileStream, FileWriter};
use situ_runtime::clock::Clock;
use situ_runtime::rpc::{Identity, RpcError};
use situ_runtime::{Runtime, Task};
use situ_wire::error::{ErrorCode, Retry};
use situ_wire::hello::Role;
use situ_wire::ids::{OperationId, PartitionId, ShuffleId, TaskAttemptId};
use situ_wire::messages::StreamOpen;
use situ_wire::messages::executor::{self, FetchReply, FetchShuffle};
use situ_wire::messages::namenode::{FileKind, FileStatus};
use situ_wire::messages::scheduler::{self, MapOutput, TaskFailure, TaskLocation};
use situ_wire::path::DfsPath;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::calls::{Server, wrong_answer};
use super::environment::Environment;
use super::error::StorageError;
use super::world::{Entry, Files, Input, InputBlock, InputStatistics, Output, Piece};

/// How many pieces a reduce task fetches at once, at most.
const FETCHES: usize = 8;
/// How much of a piece is taken from the stream at once.
const RECEIVE_LEN_BYTES: usize = 256 << 10;
/// How many such parts of one piece wait until the task takes them, at most.
const CHUNKS: usize = 2;
/// The most that a fetch has under way: what waits, what is being handed over and received, and what the stream's window
/// holds.
const FETCH_LEN_BYTES: u64 = ((CHUNKS + 2) * RECEIVE_LEN_BYTES + (2 << 20)) as u64;
/// How much all fetches of a worker may have under way together. What waits unread stands in the windows of connections: were
/// they full, the pieces that are wanted now would not come either.
const WORKER_LEN_BYTES: u64 = 128 << 20;
/// How often a fetch is tried that does not get on.
const TRIES: u32 = 2;

/// The permission bits of the directories that a job makes.
const DIRECTORY_MODE: u16 = 0o755;
/// Those of what is the job's alone.
const OWN_MODE: u16 = 0o700;
/// Those of what all jobs share: everybody may put something there, and take away only what is theirs.
const SHARED_MODE: u16 = 0o1777;

/// What a process of a job is connected to.
pub(super) struct Cluster<R: Runtime> {
    pub(super) runtime: R,
    pub(super) handle: Handle,
    pub(super) environment: Environment,
    pub(super) scheduler: Server<R, scheduler::Request, scheduler::Response>,
    client: Client<R>,
    under_way: UnderWay,
    own_directory: OnceLock<DfsPath>,
    is_cut_off: AtomicBool,
}

/// Counts what fetches have under way.
#[derive(Clone)]
struct UnderWay(Arc<Semaphore>);

impl UnderWay {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(WORKER_LEN_BYTES >> 10).unwrap_or(Semaphore::MAX_PERMITS))))
    }

    /// Room for so many bytes, if there is.
    fn try_begin(&self, len_bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(len_bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        Arc::clone(&self.0).try_acquire_many_owned(permits).ok()
    }
}

impl<R: Runtime> Cluster<R> {
    /// Connects when it must, not before. Tasks run on `handle`'s runtime; calls block the thread that makes them, which
    /// must be none of its.
    pub(super) fn new(runtime: R, handle: Handle, environment: Environment, name: String) -> Arc<Self> {
        let mut config = ClientConfig::new(environment.cluster, environment.namenode);
        config.scheduler = Some(environment.scheduler);
        config.node.clone_from(&environment.node);
        config.credentials = environment.credentials.clone();
        let identity = Identity { cluster: environment.cluster, role: Role::User, name };
        let client = Client::new(runtime.clone(), config, identity);
        let connector = client.connector().clone();
        Arc::new(Self {
            runtime,
            handle,
            scheduler: Server::new(connector, Role::Scheduler, environment.scheduler),
            environment,
            client,
            under_way: UnderWay::new(),
            own_directory: OnceLock::new(),
            is_cut_off: AtomicBool::new(false),
        })
    }

    /// The executor that listens there.
    pub(super) fn executor(&self, address: SocketAddr) -> Server<R, executor::Request, executor::Response> {
        Server::new(self.client.connector().clone(), Role::Executor, address)
    }

    /// Asks the scheduler and blocks until it answers.
    pub(super) fn ask(&self, request: &scheduler::Request) -> Result<scheduler::Response, RpcError> {
        let answer = self.handle.block_on(self.scheduler.ask(request));
        if answer.as_ref().is_err_and(|error| error.retry() != Retry::Never) {
            self.is_cut_off.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Whether a call was given up because the scheduler did not answer: what the program came to may be owed to that.
    pub(super) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::Relaxed)
    }

    /// The job's own directory; asked for when it is first needed.
    pub(super) fn own_directory(&self) -> Result<DfsPath, RpcError> {
        if let Some(known) = self.own_directory.get() {
            return Ok(known.clone());
        }
        let (job, secret) = (self.environment.job, self.environment.secret);
        match self.ask(&scheduler::Request::OwnDirectory { job, secret })? {
            scheduler::Response::OwnDirectory(directory) => Ok(self.own_directory.get_or_init(|| directory).clone()),
            other => Err(wrong_answer("OwnDirectory", &other)),
        }
    }

    /// Blocks for so long.
    pub(super) fn rest(&self, time: Duration) {
        self.handle.block_on(self.runtime.clock().sleep(time));
    }
}

/// The file system through the client.
pub(super) struct ClusterFiles<R: Runtime>(pub(super) Arc<Cluster<R>>);

impl From<ClientError> for StorageError {
    fn from(error: ClientError) -> Self {
        let code = error.code().unwrap_or(match &error {
            ClientError::Unreadable(unreadable) if unreadable.damaged => ErrorCode::Corrupt,
            // To open it anew is for the next attempt.
            ClientError::Changed { .. } => ErrorCode::Io,
            _ if error.retry() == Retry::Later => ErrorCode::Unavailable,
            _ => ErrorCode::Io,
        });
        Self { code, message: error.to_string() }
    }
}

fn entry(status: FileStatus) -> Entry {
    let is_open = matches!(status.kind, FileKind::File { open: true, .. });
    Entry { is_directory: status.is_directory(), is_open, path: status.path }
}

impl<R: Runtime> Files for ClusterFiles<R> {
    fn stat(&self, path: &DfsPath) -> Result<Option<Entry>, StorageError> {
        Ok(self.0.handle.block_on(self.0.client.stat(path))?.map(entry))
    }

    fn list(&self, path: &DfsPath) -> Result<Vec<Entry>, StorageError> {
        Ok(self.0.handle.block_on(self.0.client.list_all(path))?.into_iter().map(entry).collect())
    }

    fn blocks(&self, path: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
        let (_, blocks) = self.0.handle.block_on(self.0.client.blocks(path))?;
        let block = |block: situ_wire::block::LocatedBlock| InputBlock {
            offset: block.offset,
            len_bytes: block.len_bytes,
            locations: block
                .locations
                .into_iter()
                .map(|location| TaskLocation { node: location.node, rack: location.rack })
                .collect(),
        };
        Ok(blocks.into_iter().map(block).collect())
    }

    fn open(&self, path: &DfsPath, range: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
        let reader = self.0.handle.block_on(self.0.client.open(path))?;
        let stream = reader.stream(range);
        Ok(Box::new(ClusterInput { cluster: Arc::clone(&self.0), reader, stream, pending: Bytes::new() }))
    }

    fn make_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        Ok(self.0.handle.block_on(self.0.client.mkdir(path, true, DIRECTORY_MODE))?)
    }

    fn make_own_directory(&self, path: &DfsPath) -> Result<(), StorageError> {
        let make = || self.0.handle.block_on(self.0.client.mkdir(path, false, OWN_MODE));
        let made = match make() {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {
                let shared = path.parent().unwrap_or_else(DfsPath::root);
                self.0.handle.block_on(self.0.client.mkdir(&shared, true, SHARED_MODE))?;
                make()
            }
            made => made,
        };
        match made {
            Err(error) if error.code() == Some(ErrorCode::AlreadyExists) => Ok(()),
            made => Ok(made?),
        }
    }

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        let options = CreateOptions { parents: false, ..CreateOptions::default() };
        let writer = self.0.handle.block_on(self.0.client.create(path, options))?;
        Ok(Box::new(ClusterOutput { cluster: Arc::clone(&self.0), writer: Some(writer) }))
    }

    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError> {
        Ok(self.0.handle.block_on(self.0.client.publish(moves, &remove, operation))?)
    }

    fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
        Ok(self.0.handle.block_on(self.0.client.delete(path, recursive))?)
    }
}

struct ClusterInput<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    reader: FileReader<R>,
    /// Reads ahead within the range that is read in order.
    stream: FileStream<R>,
    /// Taken from the stream and not yet given.
    pending: Bytes,
}

impl<R: Runtime> Input for ClusterInput<R> {
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Result<Bytes, StorageError> {
        let streamed = self.stream.position() - self.pending.len() as u64;
        if offset == streamed {
            if self.pending.is_empty() {
                self.pending = self.cluster.handle.block_on(self.stream.next())?.unwrap_or_default();
            }
            if !self.pending.is_empty() {
                return Ok(self.pending.split_to(len_bytes.min(self.pending.len())));
            }
        }
        Ok(self.cluster.handle.block_on(self.reader.read_at(offset, len_bytes))?)
    }

    fn statistics(&self) -> InputStatistics {
        let statistics = self.reader.statistics();
        InputStatistics { remote_bytes: statistics.remote_bytes, failovers: statistics.failovers }
    }
}

struct ClusterOutput<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    /// None once it is closed.
    writer: Option<FileWriter<R>>,
}

impl<R: Runtime> Output for ClusterOutput<R> {
    fn write(&mut self, bytes: Bytes) -> Result<(), StorageError> {
        match &mut self.writer {
            Some(writer) => Ok(self.cluster.handle.block_on(writer.write(bytes))?),
            None => unreachable!("closing takes the output"),
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), StorageError> {
        match self.writer.take() {
            Some(writer) => Ok(self.cluster.handle.block_on(writer.close()).map(|_| ())?),
            None => unreachable!("closing takes the output"),
        }
    }
}

impl<R: Runtime> Drop for ClusterOutput<R> {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            self.cluster.runtime.spawn("give-up-output", async move {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(%error, "an unfinished output stays until its lease expires");
                }
            });
        }
    }
}

/// Fetches the pieces of one reduce partition, some at once, and gives them in the order of the map partitions.
pub(super) struct Fetching<R: Runtime> {
    cluster: Arc<Cluster<R>>,
    shuffle: ShuffleId,
    reduce: PartitionId,
    outputs: std::vec::IntoIter<MapOutput>,
    window_bytes: u64,
    under_way: VecDeque<Piece>,
}

impl<R: Runtime> Fetching<R> {
    /// Asks the scheduler where the pieces are. While some are being computed again, the task gives its slot back.
    pub(super) fn begin(
        cluster: Arc<Cluster<R>>,
        by: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
        window_bytes: usize,
    ) -> Result<Self, TaskFailure> {
        let request = scheduler::Request::MapOutputs {
            job: cluster.environment.job,
            secret: cluster.environment.secret,
            shuffle,
            reduce: (reduce, PartitionId(reduce.0 + 1)),
            by,
        };
        let answer = cluster.ask(&request).and_then(|answer| match answer {
            scheduler::Response::MapOutputs(outputs) if outputs.iter().all(|output| output.pieces.len() == 1) => {
                Ok(outputs)
            }
            other => Err(wrong_answer("MapOutputs", &other)),
        });
        let outputs = answer.map_err(|error| match error.remote().map(|error| error.code) {
            Some(ErrorCode::OutputsLost) => TaskFailure::Cancelled,
            _ => TaskFailure::Storage {
                message: format!("the scheduler does not say where {shuffle} is: {error}"),
                transient: error.retry() == Retry::Later,
            },
        })?;
        let (outputs, under_way) = (outputs.into_iter(), VecDeque::new());
        Ok(Self { cluster, shuffle, reduce, outputs, window_bytes: window_bytes as u64, under_way })
    }

    /// How much may be under way of the pieces that wait.
    fn under_way_bytes(&self) -> u64 {
        self.under_way.iter().map(|piece| piece.piece.len_bytes.min(FETCH_LEN_BYTES)).sum()
    }

    /// Begins as many fetches as may be under way at once: one at least, which is taken next, and more as long as those of
    /// other tasks leave room.
    fn begin_more(&mut self) {
        while self.under_way.len() < FETCHES && self.under_way_bytes() < self.window_bytes {
            // A piece without records is nowhere to be fetched.
            let has_records = |output: &MapOutput| output.pieces[0].records > 0;
            let Some(skipped) = self.outputs.as_slice().iter().position(has_records) else { return };
            let len_bytes = self.outputs.as_slice()[skipped].pieces[0].len_bytes.min(FETCH_LEN_BYTES);
            let permit = self.cluster.under_way.try_begin(len_bytes);
            if permit.is_none() && !self.under_way.is_empty() {
                return;
            }
            let Some(output) = self.outputs.nth(skipped) else { return };
            let (map, piece, shuffle) = (output.map, output.pieces[0], self.shuffle);
            let (send, chunks) = mpsc::channel(CHUNKS);
            let fetch = fetch(Arc::clone(&self.cluster), shuffle, self.reduce, output, send);
            let task = self.cluster.runtime.spawn("fetch", fetch);
            let chunks = Chunks { handle: self.cluster.handle.clone(), chunks, task, _permit: permit };
            let chunks = chunks.map(move |chunk| chunk.map_err(|reason| TaskFailure::Fetch { shuffle, map, reason }));
            self.under_way.push_back(Piece { map, piece, chunks: Box::new(chunks) });
        }
    }
}

impl<R: Runtime> Iterator for Fetching<R> {
    type Item = Result<Piece, TaskFailure>;

    fn next(&mut self) -> Option<Result<Piece, TaskFailure>> {
        self.begin_more();
        Ok(self.under_way.pop_front()).transpose()
    }
}

/// The bytes of one piece, as they come. Fewer than there should be if the process is ending.
struct Chunks {
    handle: Handle,
    chunks: mpsc::Receiver<Result<Bytes, String>>,
    task: Task<()>,
    /// Nothing for what had to be begun without room.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Iterator for Chunks {
    type Item = Result<Bytes, String>;

    fn next(&mut self) -> Option<Result<Bytes, String>> {
        match self.chunks.try_recv() {
            Ok(chunk) => Some(chunk),
            Err(_) => self.handle.block_on(self.chunks.recv()),
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fetches one piece and sends its bytes on, no faster than they are taken. A connection may just have been lost: it goes
/// on where it was, and gives up when it does not get on.
async fn fetch<R: Runtime>(
    cluster: Arc<Cluster<R>>,
    shuffle: ShuffleId,
    reduce: PartitionId,
    output: MapOutput,
    chunks: mpsc::Sender<Result<Bytes, String>>,
) {
    let fetch = FetchShuffle {
        job: cluster.environment.job,
        secret: cluster.environment.secret,
        shuffle,
        map: output.map,
        reduce: (reduce, PartitionId(reduce.0 + 1)),
    };
    let (mut sent_bytes, mut tries) = (0, 0);
    loop {
        let before = sent_bytes;
        let Err(reason) = fetch_once(&cluster, &output, fetch.clone(), &mut sent_bytes, &chunks).await else { return };
        tries = if sent_bytes > before { 1 } else { tries + 1 };
        if tries >= TRIES {
            let reason = format!("the executor at {}: {reason}", output.address);
            // Who would take it may have gone.
            chunks.send(Err(reason)).await.unwrap_or_default();
            return;
        }
    }
}

/// Sends on what comes of a piece behind its first `sent_bytes` bytes. Ends well too when nobody takes it any more.
async fn fetch_once<R: Runtime>(
    cluster: &Cluster<R>,
    output: &MapOutput,
    fetch: FetchShuffle,
    sent_bytes: &mut u64,
    chunks: &mpsc::Sender<Result<Bytes, String>>,
) -> Result<(), String> {
    let connector = cluster.client.connector();
    let limit = Duration::from_millis(cluster.client.config().read_timeout_ms);
    let clock = cluster.runtime.clock();
    let silent = || format!("it was silent for {limit:?}");
    let within = |error: RpcError| error.to_string();
    let open = StreamOpen::FetchShuffle(fetch);
    let opened = clock.timeout(limit, connector.stream(output.address, Role::Executor, &open)).await;
    let (mut send, mut receive) = opened.ok_or_else(silent)?.map_err(within)?;
    send.finish().await.map_err(within)?;
    let reply = clock.timeout(limit, receive.expect::<FetchReply>("the answer")).await;
    match reply.ok_or_else(silent)?.map_err(within)? {
        FetchReply::Pieces(_) => {}
        FetchReply::Refused(error) => return Err(error.to_string()),
    }
    let len_bytes = output.pieces[0].len_bytes;
    let mut received_bytes = 0;
    while received_bytes < len_bytes {
        let wanted = usize::try_from(len_bytes - received_bytes).unwrap_or(usize::MAX).min(RECEIVE_LEN_BYTES);
        let received = clock.timeout(limit, receive.bytes(wanted)).await.ok_or_else(silent)?;
        let Some(mut bytes) = received.map_err(within)? else {
            return Err(format!("it sent {received_bytes} bytes, {len_bytes} were written"));
        };
        let sent_before = usize::try_from(*sent_bytes - received_bytes).unwrap_or(usize::MAX).min(bytes.len());
        received_bytes += bytes.len() as u64;
        let fresh = bytes.split_off(sent_before);
        if fresh.is_empty() {
            continue;
        }
        *sent_bytes = received_bytes;
        if chunks.send(Ok(fresh)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_fetches_have_under_way_is_bounded() {
        let under_way = UnderWay::new();
        let begun: Vec<_> = std::iter::from_fn(|| under_way.try_begin(FETCH_LEN_BYTES)).collect();
        assert_eq!(begun.len() as u64, WORKER_LEN_BYTES / FETCH_LEN_BYTES);
        drop(begun);
        assert!(under_way.try_begin(WORKER_LEN_BYTES).is_some());
        assert!(under_way.try_begin(WORKER_LEN_BYTES + 1).is_none());
    }
}
