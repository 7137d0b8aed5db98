use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use situ_runtime::{AbortOnDrop, Runtime};
use situ_wire::ids::INodeId;
use situ_wire::limits::PACKET_LEN_BYTES;
use situ_wire::messages::datanode::Durability;
use situ_wire::messages::namenode::{Request, Response};
use situ_wire::path::DfsPath;
use tokio::sync::{mpsc, oneshot};

use super::owner::{Input, Owner};
use crate::core::writer::{FileWrite, WriteLimits};
use crate::error::ClientError;
use crate::io::client::Client;
use crate::io::lease::LeaseGuard;
use crate::io::remote::{answer, asked};

/// How many packets may wait for the writing to take them.
const WAITING_PACKETS: usize = 2;

/// How a new file is made. What is none is as the client's configuration says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CreateOptions {
    /// Whether an existing file is replaced.
    pub overwrite: bool,
    /// Whether missing parent directories are made.
    pub parents: bool,
    /// How many replicas its blocks shall have.
    pub replication: Option<u16>,
    /// How long its blocks are.
    pub block_len_bytes: Option<u64>,
    /// Its permission bits.
    pub mode: u16,
    /// What an acknowledged close means.
    pub durability: Option<Durability>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            overwrite: false,
            parents: true,
            replication: None,
            block_len_bytes: None,
            mode: 0o644,
            durability: None,
        }
    }
}

/// What a closed file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The file.
    pub inode: INodeId,
    /// How many bytes it has.
    pub len_bytes: u64,
}

impl<R: Runtime> Client<R> {
    /// Makes a file and opens it for writing. Its parent directories are made if they are missing and the options say
    /// so.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached.
    pub async fn create(&self, path: &DfsPath, options: CreateOptions) -> Result<FileWriter<R>, ClientError> {
        let config = self.config();
        let lease = self.hold_lease();
        let asked = asked("create", path);
        let request = Request::Create {
            path: path.clone(),
            overwrite: options.overwrite,
            parents: options.parents,
            replication: options.replication.unwrap_or(config.replication),
            block_len_bytes: options.block_len_bytes.unwrap_or(config.block_len_bytes),
            mode: options.mode,
            operation: self.operation(),
        };
        let (inode, block_len_bytes) = answer!(
            asked, "Create", self.ask(asked, &request).await?,
            Response::Created { inode, block_len_bytes, .. } if block_len_bytes > 0 => (inode, block_len_bytes)
        )?;
        let limits = WriteLimits {
            block_len_bytes,
            window_bytes: config.write_window_bytes,
            open_timeout: Duration::from_millis(config.open_timeout_ms),
            ack_timeout: Duration::from_millis(config.ack_timeout_ms),
            finish_timeout: Duration::from_millis(config.finish_timeout_ms),
        };
        let path = Arc::new(path.clone());
        let owner = Owner {
            client: self.clone(),
            path: Arc::clone(&path),
            inode,
            block_len_bytes,
            durability: options.durability.unwrap_or(config.durability),
            core: FileWrite::new((*path).clone(), limits),
        };
        let (inputs, received) = mpsc::channel(WAITING_PACKETS);
        let (outcome, outcome_received) = oneshot::channel();
        let task = self.runtime().spawn("file-writer", owner.run(received, outcome)).abort_on_drop();
        Ok(FileWriter {
            client: self.clone(),
            path,
            inode,
            block_len_bytes,
            len_bytes: 0,
            gathered: BytesMut::new(),
            inputs,
            outcome: Outcome::Awaited(outcome_received),
            _task: task,
            _lease: lease,
        })
    }
}

/// Writes a new file. Nothing of it counts before [`close`](Self::close): dropped without it, the file stays open until
/// its lease expires, and [`abort`](Self::abort) deletes it at once.
///
/// Failures of datanodes do not show here as long as others can go on.
pub struct FileWriter<R: Runtime> {
    client: Client<R>,
    path: Arc<DfsPath>,
    inode: INodeId,
    block_len_bytes: u64,
    /// How many bytes were written, those gathered included.
    len_bytes: u64,
    /// Small pieces, until they fill a packet.
    gathered: BytesMut,
    inputs: mpsc::Sender<Input>,
    outcome: Outcome,
    _task: AbortOnDrop<()>,
    _lease: LeaseGuard,
}

impl<R: Runtime> std::fmt::Debug for FileWriter<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWriter")
            .field("path", &self.path)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

/// How the writing ended.
enum Outcome {
    Awaited(oneshot::Receiver<Result<u64, ClientError>>),
    Known(ClientError),
}

impl<R: Runtime> FileWriter<R> {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &DfsPath {
        &self.path
    }

    /// How many bytes were written so far.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Whether nothing was written so far.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// Writes `bytes` behind those before them; waits while the datanodes are behind. Large pieces are not copied.
    ///
    /// # Errors
    /// When the file cannot be written any further; then every later call says the same.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let room = self.packet_room();
            let take = bytes.len().min(room - self.gathered.len());
            let piece = bytes.split_to(take);
            self.len_bytes += take as u64;
            if self.gathered.is_empty() && take == room {
                self.send(piece).await?;
                continue;
            }
            self.gathered.extend_from_slice(&piece);
            if self.gathered.len() == room {
                let packet = self.gathered.split().freeze();
                self.send(packet).await?;
            }
        }
        Ok(())
    }

    /// How long the packet that is being gathered may become: packets lie within one block.
    fn packet_room(&self) -> usize {
        let begun = self.len_bytes - self.gathered.len() as u64;
        let left = self.block_len_bytes - begun % self.block_len_bytes;
        usize::try_from(left).unwrap_or(usize::MAX).min(PACKET_LEN_BYTES)
    }

    async fn send(&mut self, packet: Bytes) -> Result<(), ClientError> {
        let crc32c = crc32c::crc32c(&packet);
        if self.inputs.send(Input::Packet(packet, crc32c)).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(())
    }

    /// Waits until every byte is where the file's durability wants it and closes the file: from then on it is whole for
    /// everyone.
    ///
    /// # Errors
    /// When that cannot be had; the file is then not closed.
    pub async fn close(mut self) -> Result<Written, ClientError> {
        if !self.gathered.is_empty() {
            let packet = self.gathered.split().freeze();
            self.send(packet).await?;
        }
        // If it cannot be sent the writing has ended, and its outcome says why.
        let _ = self.inputs.send(Input::Close).await;
        let len_bytes = self.outcome().await?;
        assert_eq!(len_bytes, self.len_bytes, "a closed file holds what was written");
        Ok(Written { inode: self.inode, len_bytes })
    }

    /// Gives the file up and deletes it.
    ///
    /// # Errors
    /// When the namenode refuses or cannot be reached: the file then stays open until its lease expires.
    pub async fn abort(self) -> Result<(), ClientError> {
        let Self { client, path, inode, _task: task, _lease: lease, .. } = self;
        drop(task);
        // Another file may stand at the path by now: that one is not ours to delete.
        if client.stat(&path).await?.is_some_and(|status| status.inode == inode) {
            client.delete(&path, false).await?;
        }
        drop(lease);
        Ok(())
    }

    async fn failure(&mut self) -> ClientError {
        match self.outcome().await {
            Ok(_) => ClientError::WriterEnded { path: (*self.path).clone() },
            Err(error) => error,
        }
    }

    async fn outcome(&mut self) -> Result<u64, ClientError> {
        let result = match &mut self.outcome {
            Outcome::Known(error) => return Err(error.clone()),
            Outcome::Awaited(outcome) => outcome.await,
        };
        let result = result.unwrap_or(Err(ClientError::WriterEnded { path: (*self.path).clone() }));
        let error = match &result {
            Ok(_) => ClientError::WriterEnded { path: (*self.path).clone() },
            Err(error) => error.clone(),
        };
        self.outcome = Outcome::Known(error);
        result
    }
}
