use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use situ_runtime::Runtime;
use situ_wire::block::{Block, LocatedBlock};
use situ_wire::error::ErrorCode;
use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;
use situ_wire::tree::Leaf;

use crate::error::ClientError;
use crate::io::client::Client;

/// For how many bytes of a file blocks are asked for at once.
const FETCH_LEN_BYTES: u64 = 1 << 30;
/// How many blocks' leaves are kept.
const BLOCKS_WITH_LEAVES: usize = 64;

impl<R: Runtime> Client<R> {
    /// As [`Client::blocks_in`], for as many of the bytes as fit into one answer.
    pub(super) async fn fetch_blocks(
        &self,
        path: &DfsPath,
        offset: u64,
        mut len_bytes: u64,
    ) -> Result<(FileStatus, Vec<LocatedBlock>), ClientError> {
        loop {
            match self.blocks_in(path, offset, len_bytes).await {
                Err(error) if error.code() == Some(ErrorCode::TooMuch) && len_bytes > 1 => len_bytes /= 8,
                other => return other,
            }
        }
    }

    /// A file and all its blocks, replicas nearest to this client first.
    ///
    /// # Errors
    /// When it is not a file, or the namenode refuses or cannot be reached.
    pub async fn blocks(&self, path: &DfsPath) -> Result<(FileStatus, Vec<LocatedBlock>), ClientError> {
        let (status, mut all) = self.fetch_blocks(path, 0, FETCH_LEN_BYTES).await?;
        loop {
            let end = all.last().map_or(0, |block| block.offset + block.len_bytes);
            if end >= status.len_bytes() {
                return Ok((status, all));
            }
            let (now, more) = self.fetch_blocks(path, end, FETCH_LEN_BYTES).await?;
            let more: Vec<_> = more.into_iter().filter(|block| block.offset >= end).collect();
            if now.inode != status.inode || more.is_empty() {
                return Err(ClientError::Changed { path: path.clone() });
            }
            all.extend(more);
        }
    }
}

/// Where the blocks of one file are, as far as was asked, and the leaves of those read last.
#[derive(Debug)]
pub(super) struct Locations<R: Runtime> {
    client: Client<R>,
    pub(super) status: FileStatus,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By where they start.
    blocks: BTreeMap<u64, LocatedBlock>,
    leaves: BTreeMap<Block, Arc<[Leaf]>>,
    /// The blocks with leaves, in the order in which they came.
    order: VecDeque<Block>,
}

impl Known {
    fn add(&mut self, blocks: Vec<LocatedBlock>) {
        // What is not final cannot be verified, and so not be read.
        for block in blocks.into_iter().filter(|block| block.root.is_some()) {
            self.blocks.insert(block.offset, block);
        }
    }
}

impl<R: Runtime> Locations<R> {
    /// Those of the file at `path`.
    pub(super) async fn open(client: Client<R>, path: &DfsPath) -> Result<Self, ClientError> {
        let (status, blocks) = client.fetch_blocks(path, 0, FETCH_LEN_BYTES).await?;
        let mut known = Known::default();
        known.add(blocks);
        Ok(Self { client, status, known: Mutex::new(known) })
    }

    /// The block that holds the byte at `offset`.
    pub(super) async fn at(&self, offset: u64) -> Result<LocatedBlock, ClientError> {
        if let Some(block) = self.known_at(offset) {
            return Ok(block);
        }
        self.fetch(offset, FETCH_LEN_BYTES).await
    }

    /// The block that holds the byte at `offset`, asked for anew.
    pub(super) async fn again(&self, offset: u64) -> Result<LocatedBlock, ClientError> {
        self.fetch(offset, 1).await
    }

    async fn fetch(&self, offset: u64, len_bytes: u64) -> Result<LocatedBlock, ClientError> {
        let path = &self.status.path;
        let (status, blocks) = self.client.fetch_blocks(path, offset, len_bytes).await?;
        if status.inode != self.status.inode {
            return Err(ClientError::Changed { path: path.clone() });
        }
        self.lock().add(blocks);
        self.known_at(offset).ok_or_else(|| ClientError::Changed { path: path.clone() })
    }

    fn known_at(&self, offset: u64) -> Option<LocatedBlock> {
        let known = self.lock();
        let (_, block) = known.blocks.range(..=offset).next_back()?;
        (offset < block.offset + block.len_bytes).then(|| block.clone())
    }

    pub(super) fn leaves(&self, block: Block) -> Option<Arc<[Leaf]>> {
        self.lock().leaves.get(&block).cloned()
    }

    pub(super) fn keep_leaves(&self, block: Block, leaves: Arc<[Leaf]>) {
        let mut known = self.lock();
        if known.leaves.insert(block, leaves).is_none() {
            known.order.push_back(block);
        }
        while known.order.len() > BLOCKS_WITH_LEAVES {
            if let Some(oldest) = known.order.pop_front() {
                known.leaves.remove(&oldest);
            }
        }
    }

    /// What is known stays consistent whoever panicked: each critical section is one step.
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
