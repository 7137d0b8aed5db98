//! Calls and streams from workers, other executors and people.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_runtime::rpc::{CallerIdentity, FrameReceiver, FrameSender, Reply, RpcError, Service};
use situ_runtime::transport::{Connection, Transport};
use situ_wire::codec;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::JobId;
use situ_wire::limits::LOG_CHUNK_LEN_BYTES;
use situ_wire::messages::StreamOpen;
use situ_wire::messages::executor::{FetchReply, FetchShuffle, LogName, Request, Response};
use tokio::sync::{mpsc, oneshot};

use super::server::{Directories, ToOwner};
use crate::shuffle::OutputFile;

/// How much of a piece is sent at once.
const PIECE_LEN_BYTES: u64 = 1 << 20;

type SendOf<R> = <<<R as Runtime>::Transport as Transport>::Connection as Connection>::Send;
type ReceiveOf<R> = <<<R as Runtime>::Transport as Transport>::Connection as Connection>::Receive;

/// Hands calls to the owner; serves logs and shuffle output by itself.
#[derive(Clone)]
pub(super) struct ExecutorService<R: Runtime> {
    pub(super) runtime: R,
    pub(super) directories: Arc<Directories>,
    pub(super) owner: mpsc::Sender<ToOwner>,
}

impl<R: Runtime> Service<R> for ExecutorService<R> {
    fn call(&self, caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply) {
        let request: Request = match codec::decode(&request) {
            Ok(request) => request,
            Err(error) => {
                let error = RemoteError::new(ErrorCode::Malformed, "a call to the executor", error.to_string());
                return reply.send::<Response>(Err(error));
            }
        };
        if let Request::ReadLog { job, log, offset, limit_bytes } = request {
            let (service, caller) = (self.clone(), Arc::clone(caller));
            self.runtime.spawn("read-log", async move {
                let read = service.read_log(&caller, job, log, offset, limit_bytes).await;
                reply.send(read.as_ref().map_err(Clone::clone));
            });
            return;
        }
        // When the queue is full the reply is dropped, which tells the caller to come again.
        let _ = self.owner.try_send(ToOwner::Call { request, reply });
    }

    async fn stream(
        &self,
        _caller: Arc<CallerIdentity>,
        open: StreamOpen,
        mut send: FrameSender<SendOf<R>>,
        _receive: FrameReceiver<ReceiveOf<R>>,
    ) -> Result<(), RpcError> {
        let StreamOpen::FetchShuffle(fetch) = open else {
            let error =
                RemoteError::new(ErrorCode::InvalidArgument, "a stream", "an executor serves shuffle output only");
            send.message(&FetchReply::Refused(error)).await?;
            return send.finish().await;
        };
        match self.open_output(&fetch).await {
            Ok(output) => self.send_pieces(&fetch, output, send).await,
            Err(error) => {
                send.message(&FetchReply::Refused(error)).await?;
                send.finish().await
            }
        }
    }
}

impl<R: Runtime> ExecutorService<R> {
    /// Checks who asks, and opens what one map task wrote.
    async fn open_output(&self, fetch: &FetchShuffle) -> Result<OutputFile<<R::Disk as Disk>::File>, RemoteError> {
        let gone = || RemoteError::new(ErrorCode::Unavailable, "the executor", "it is shutting down");
        let (answer, answered) = oneshot::channel();
        let check = ToOwner::Check { job: fetch.job, secret: fetch.secret, answer };
        self.owner.send(check).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())??;
        if fetch.map.job != fetch.job {
            return Err(RemoteError::new(ErrorCode::InvalidArgument, fetch.map, format!("it is not of {}", fetch.job)));
        }
        let (disk, work) = (self.runtime.disk().clone(), self.directories.work(fetch.job));
        let (shuffle, map) = (fetch.shuffle, fetch.map);
        let opened = self.runtime.blocking(move || OutputFile::open(&disk, &work, shuffle, map)).await;
        opened.map_err(|error| RemoteError::new(ErrorCode::NotFound, fetch.map, error.to_string()))
    }

    async fn send_pieces(
        &self,
        fetch: &FetchShuffle,
        output: OutputFile<<R::Disk as Disk>::File>,
        mut send: FrameSender<SendOf<R>>,
    ) -> Result<(), RpcError> {
        let (pieces, range) = match output.range(fetch.reduce) {
            Ok(range) => range,
            Err(error) => {
                let error = RemoteError::new(ErrorCode::InvalidArgument, fetch.map, error.to_string());
                send.message(&FetchReply::Refused(error)).await?;
                return send.finish().await;
            }
        };
        send.message(&FetchReply::Pieces(pieces.to_vec())).await?;
        let output = Arc::new(output);
        let mut offset = range.start;
        while offset < range.end {
            let len = usize::try_from((range.end - offset).min(PIECE_LEN_BYTES)).unwrap_or(0);
            let reading = Arc::clone(&output);
            let read = self.runtime.blocking(move || reading.file().read_at(offset, len)).await;
            match read {
                Ok(bytes) if bytes.len() == len => send.bytes(bytes).await?,
                // The reader sees a stream that was given up, and has the map task run again.
                Ok(bytes) => {
                    tracing::error!(map = %fetch.map, found = bytes.len(), expected = len, "shuffle output is cut");
                    send.reset();
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(map = %fetch.map, %error, "shuffle output cannot be read");
                    send.reset();
                    return Ok(());
                }
            }
            offset += len as u64;
        }
        send.finish().await
    }

    async fn read_log(
        &self,
        caller: &CallerIdentity,
        job: JobId,
        log: LogName,
        offset: u64,
        limit_bytes: u32,
    ) -> Result<Response, RemoteError> {
        let (disk, directories) = (self.runtime.disk().clone(), Arc::clone(&self.directories));
        let caller = caller.clone();
        let len = usize::try_from(limit_bytes.min(LOG_CHUNK_LEN_BYTES)).unwrap_or(0);
        let read = move || -> Result<Bytes, RemoteError> {
            let not_found = |error: situ_runtime::disk::DiskError| {
                RemoteError::new(ErrorCode::NotFound, job, format!("this log is not there: {error}"))
            };
            let owner = disk.read(&directories.log_owner(job), 4096).map_err(not_found)?;
            if caller.role == Role::User && owner != caller.name.as_bytes() {
                return Err(RemoteError::new(ErrorCode::PermissionDenied, job, "only who submitted it reads its logs"));
            }
            let path: PathBuf = directories.log(job, log);
            let file = disk.open(&path, OpenMode::Read).map_err(not_found)?;
            file.read_at(offset, len).map_err(|error| RemoteError::new(ErrorCode::Io, job, error.to_string()))
        };
        Ok(Response::Log(self.runtime.blocking(read).await?))
    }
}
