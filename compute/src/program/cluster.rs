//! The world of a driver or worker on a cluster: the file system through the client, the scheduler and executors by
//! calls.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
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

use super::calls::{Server, wrong_answer};
use super::environment::Environment;
use super::error::StorageError;
use super::world::{Entry, Files, Input, InputBlock, InputStatistics, Output, Piece};
use crate::shuffle::verify;

/// How many pieces a reduce task fetches at once, at most.
const FETCHES: usize = 8;
/// How many bytes it has under way at once, at most, unless one piece is longer.
const FETCH_BYTES: u64 = 32 << 20;
/// How much of a piece is taken from the stream at once.
const RECEIVE_LEN_BYTES: usize = 1 << 20;

/// The permission bits of the directories that a job makes.
const DIRECTORY_MODE: u16 = 0o755;

/// What a process of a job is connected to.
pub(super) struct Cluster<R: Runtime> {
    pub(super) runtime: R,
    pub(super) handle: Handle,
    pub(super) environment: Environment,
    pub(super) scheduler: Server<R, scheduler::Request, scheduler::Response>,
    client: Client<R>,
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
        })
    }

    /// The executor that listens there.
    pub(super) fn executor(&self, address: SocketAddr) -> Server<R, executor::Request, executor::Response> {
        Server::new(self.client.connector().clone(), Role::Executor, address)
    }

    /// Asks the scheduler and blocks until it answers.
    pub(super) fn ask(&self, request: &scheduler::Request) -> Result<scheduler::Response, RpcError> {
        self.handle.block_on(self.scheduler.ask(request))
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

    fn create(&self, path: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        let options = CreateOptions { parents: false, ..CreateOptions::default() };
        let writer = self.0.handle.block_on(self.0.client.create(path, options))?;
        Ok(Box::new(ClusterOutput { cluster: Arc::clone(&self.0), writer: Some(writer) }))
    }

    fn publish(
        &self,
        moves: Vec<(DfsPath, DfsPath)>,
        success: DfsPath,
        remove: DfsPath,
        operation: OperationId,
    ) -> Result<(), StorageError> {
        Ok(self.0.handle.block_on(self.0.client.publish_as(moves, &success, &remove, operation))?)
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
    under_way: VecDeque<UnderWay>,
    under_way_bytes: u64,
}

struct UnderWay {
    map: TaskAttemptId,
    len_bytes: u64,
    task: Task<Result<Piece, TaskFailure>>,
}

impl<R: Runtime> Fetching<R> {
    /// Asks the scheduler where the pieces are. While some are being computed again, the task gives its slot back.
    pub(super) fn begin(
        cluster: Arc<Cluster<R>>,
        by: TaskAttemptId,
        shuffle: ShuffleId,
        reduce: PartitionId,
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
        Ok(Self {
            cluster,
            shuffle,
            reduce,
            outputs: outputs.into_iter(),
            under_way: VecDeque::new(),
            under_way_bytes: 0,
        })
    }

    /// Begins as many fetches as may be under way at once.
    fn begin_more(&mut self) {
        while self.under_way.len() < FETCHES && (self.under_way_bytes < FETCH_BYTES || self.under_way.is_empty()) {
            // A piece without records is nowhere to be fetched.
            let Some(output) = self.outputs.find(|output| output.pieces[0].records > 0) else { return };
            let (map, len_bytes) = (output.map, output.pieces[0].len_bytes);
            let task = self
                .cluster
                .runtime
                .spawn("fetch", fetch(Arc::clone(&self.cluster), self.shuffle, self.reduce, output));
            self.under_way_bytes += len_bytes;
            self.under_way.push_back(UnderWay { map, len_bytes, task });
        }
    }
}

impl<R: Runtime> Iterator for Fetching<R> {
    type Item = Result<Piece, TaskFailure>;

    fn next(&mut self) -> Option<Result<Piece, TaskFailure>> {
        self.begin_more();
        let UnderWay { map, len_bytes, task } = self.under_way.pop_front()?;
        let fetched = self.cluster.handle.block_on(task.join());
        self.under_way_bytes -= len_bytes;
        Some(fetched.unwrap_or_else(|| {
            Err(TaskFailure::Fetch { shuffle: self.shuffle, map, reason: "the process is ending".to_owned() })
        }))
    }
}

impl<R: Runtime> Drop for Fetching<R> {
    fn drop(&mut self) {
        self.under_way.iter().for_each(|under_way| under_way.task.abort());
    }
}

/// Fetches one piece, at the second try if need be: a connection may just have been lost. What fails twice is taken as
/// gone.
async fn fetch<R: Runtime>(
    cluster: Arc<Cluster<R>>,
    shuffle: ShuffleId,
    reduce: PartitionId,
    output: MapOutput,
) -> Result<Piece, TaskFailure> {
    let (map, piece) = (output.map, output.pieces[0]);
    let fetch = FetchShuffle {
        job: cluster.environment.job,
        secret: cluster.environment.secret,
        shuffle,
        map,
        reduce: (reduce, PartitionId(reduce.0 + 1)),
    };
    let mut reason = String::new();
    for _ in 0..2 {
        match fetch_once(&cluster, &output, fetch.clone()).await {
            Ok(bytes) => return Ok(Piece { map, piece, bytes }),
            Err(error) => reason = error,
        }
    }
    Err(TaskFailure::Fetch { shuffle, map, reason: format!("the executor at {}: {reason}", output.address) })
}

async fn fetch_once<R: Runtime>(
    cluster: &Cluster<R>,
    output: &MapOutput,
    fetch: FetchShuffle,
) -> Result<Bytes, String> {
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
    let expected = output.pieces[0];
    let len = usize::try_from(expected.len_bytes).map_err(|error| error.to_string())?;
    let (mut pieces, mut got) = (Vec::new(), 0);
    while got < len {
        let bytes = receive.bytes(RECEIVE_LEN_BYTES.min(len - got));
        let received = clock.timeout(limit, bytes).await.ok_or_else(silent)?;
        let Some(bytes) = received.map_err(within)? else { break };
        got += bytes.len();
        pieces.push(bytes);
    }
    let bytes = match <[Bytes; 1]>::try_from(pieces) {
        Ok([bytes]) => bytes,
        Err(pieces) => {
            let mut all = BytesMut::with_capacity(got);
            pieces.iter().for_each(|piece| all.extend_from_slice(piece));
            all.freeze()
        }
    };
    verify(&expected, &bytes)?;
    Ok(bytes)
}
