//! Stat, list, blocks, summary.

use std::ops::Bound;

use situ_wire::block::{DatanodeLocation, LocatedBlock, TokenMode};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, ClientId, INodeId, NodeName};
use situ_wire::limits::{BATCH_NAMES, LIST_ENTRIES};
use situ_wire::messages::namenode::{ContentSummary, FileKind, FileStatus, Liveness, Response};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use crate::core::authorize::{Access, Principal, authorize};
use crate::core::datanodes::StorageIndex;
use crate::core::errors::{blocked, invalid, is_a_directory, not_found};
use crate::core::inode::{Content, File};
use crate::core::namespace::Walk;
use crate::core::namesystem::Namesystem;

/// The most blocks in one answer; a reader asks on behind the last.
const BLOCKS: usize = 10_000;

type Reply = Result<Response, RemoteError>;

impl Namesystem {
    pub(super) fn stat(&self, who: &Principal<'_>, path: &DfsPath) -> Result<Option<FileStatus>, RemoteError> {
        match self.walk(who, path)? {
            Walk::Found(id) => Ok(self.status(path.clone(), id)),
            Walk::Missing { .. } | Walk::Blocked => Ok(None),
        }
    }

    pub(super) fn stat_many(&self, who: &Principal<'_>, paths: &[DfsPath]) -> Reply {
        if paths.len() > BATCH_NAMES {
            let message = format!("{} paths in one call; at most {BATCH_NAMES} are allowed", paths.len());
            return Err(RemoteError::new(ErrorCode::TooMuch, "stat", message));
        }
        let statuses: Result<Vec<_>, _> = paths.iter().map(|path| self.stat(who, path)).collect();
        statuses.map(Response::Statuses)
    }

    /// What is known of an inode at its path.
    pub(super) fn status(&self, path: DfsPath, id: INodeId) -> Option<FileStatus> {
        let inode = self.namespace.get(id)?;
        let kind = match &inode.content {
            Content::Directory(_) => FileKind::Directory,
            Content::File(file) => FileKind::File {
                len_bytes: self.len_bytes(file),
                replication: file.replication,
                block_len_bytes: file.block_len.bytes(),
                open: file.writer.is_some(),
            },
        };
        Some(FileStatus {
            path,
            inode: id,
            kind,
            owner: self.namespace.names.text(inode.owner).to_owned(),
            group: self.namespace.names.text(inode.group).to_owned(),
            mode: inode.mode,
            modified: inode.modified,
        })
    }

    /// How many blocks from the first on are final: all of a closed file.
    fn final_blocks(file: &File) -> usize {
        let blocks = file.blocks.as_slice();
        let first = file.writer.as_ref().and_then(|writer| writer.uncommitted.first());
        first.map_or(blocks.len(), |first| blocks.binary_search(first).unwrap_or(blocks.len()))
    }

    /// How many bytes a file holds: those up to its first unfinished block. All blocks but the last are full.
    pub(super) fn len_bytes(&self, file: &File) -> u64 {
        let blocks = &file.blocks.as_slice()[..Self::final_blocks(file)];
        let Some((last, full)) = blocks.split_last() else { return 0 };
        let last_bytes = self.blocks.get(*last).map_or(0, |info| info.len_bytes);
        full.len() as u64 * file.block_len.bytes() + last_bytes
    }

    /// The inode at a path, which must be there.
    pub(super) fn find(&self, who: &Principal<'_>, path: &DfsPath) -> Result<INodeId, RemoteError> {
        match self.walk(who, path)? {
            Walk::Found(id) => Ok(id),
            Walk::Missing { .. } => Err(not_found(path)),
            Walk::Blocked => Err(blocked(path)),
        }
    }

    pub(super) fn list(&self, who: &Principal<'_>, path: &DfsPath, after: Option<&str>, limit: u32) -> Reply {
        let id = self.find(who, path)?;
        let inode = self.namespace.get(id).ok_or_else(|| not_found(path))?;
        let Some(children) = inode.children() else {
            return Ok(Response::Listing { entries: self.status(path.clone(), id).into_iter().collect(), more: false });
        };
        authorize(Access::Read, inode, who, path, &self.namespace.names)?;
        let limit = limit.clamp(1, LIST_ENTRIES) as usize;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut range = children.range::<str, _>((from, Bound::Unbounded));
        let mut entries = Vec::with_capacity(limit.min(children.len()));
        for (name, child) in range.by_ref().take(limit) {
            // A large directory that was moved deep down may hold names whose paths are too long.
            let too_long = |error| invalid(path, format!("{error}; move it up, so that what it holds has valid paths"));
            let path = path.join(name).map_err(too_long)?;
            entries.extend(self.status(path, *child));
        }
        Ok(Response::Listing { entries, more: range.next().is_some() })
    }

    pub(super) fn file_blocks(
        &mut self,
        now: TimeMs,
        who: &Principal<'_>,
        path: &DfsPath,
        (offset, len_bytes): (u64, u64),
        node: Option<&NodeName>,
        client: ClientId,
    ) -> Reply {
        let id = self.find(who, path)?;
        let inode = self.namespace.get(id).ok_or_else(|| not_found(path))?;
        let Some(file) = inode.file() else { return Err(is_a_directory(path)) };
        authorize(Access::Read, inode, who, path, &self.namespace.names)?;
        let status = self.status(path.clone(), id).ok_or_else(|| not_found(path))?;
        let block_len_bytes = file.block_len.bytes();
        let end = offset.saturating_add(len_bytes);
        let first = usize::try_from(offset / block_len_bytes).unwrap_or(usize::MAX);
        let last = usize::try_from(end.div_ceil(block_len_bytes)).unwrap_or(usize::MAX);
        let all = file.blocks.as_slice();
        let wanted = all.get(first..last.min(all.len())).unwrap_or_default();
        let wanted: Vec<BlockId> = wanted.iter().take(BLOCKS).copied().collect();
        let final_blocks = Self::final_blocks(file);
        let mut blocks = Vec::with_capacity(wanted.len());
        for (at, id) in wanted.into_iter().enumerate().map(|(at, id)| (first + at, id)) {
            let offset = at as u64 * block_len_bytes;
            blocks.extend(self.located(now, id, offset, at < final_blocks, node, client));
        }
        Ok(Response::Blocks { status, blocks })
    }

    /// A block as a reader needs it. One that is not final is shown empty, at the datanodes of its pipeline.
    fn located(
        &mut self,
        now: TimeMs,
        id: BlockId,
        offset: u64,
        is_final: bool,
        node: Option<&NodeName>,
        client: ClientId,
    ) -> Option<LocatedBlock> {
        let expires = self.token_expiry(now);
        let spread = self.random.next();
        let info = self.blocks.get(id)?;
        let block = info.block(id);
        let locations = if is_final {
            self.readable(id, node, spread)
        } else {
            let pipeline = self.blocks.building(id).map_or(&[][..], |building| &building.pipeline);
            let known = pipeline.iter().filter_map(|datanode| self.datanodes.find(*datanode));
            known.map(|index| self.datanodes.get(index).location.clone()).collect()
        };
        Some(LocatedBlock {
            block,
            offset,
            len_bytes: if is_final { info.len_bytes } else { 0 },
            root: is_final.then_some(info.root),
            locations,
            token: self.config.token_key.issue(block, TokenMode::Read, client, expires),
        })
    }

    /// Where a block can be read: on the same node first, then on the same rack, then elsewhere; the live before the
    /// suspect, and those alike in an order that differs from call to call. If there is no good replica, corrupt ones:
    /// the reader verifies what it gets, and one of them may be whole where it matters.
    fn readable(&self, id: BlockId, node: Option<&NodeName>, spread: u64) -> Vec<DatanodeLocation> {
        let Some(info) = self.blocks.get(id) else { return Vec::new() };
        let reachable = |storage: &StorageIndex| self.datanodes.is_reachable(*storage);
        let mut storages: Vec<StorageIndex> = info.locations.as_slice().iter().copied().filter(reachable).collect();
        if storages.is_empty() {
            let corrupt = self.blocks.corrupt_of(id).iter().filter(|replica| replica.generation == info.generation);
            storages = corrupt.map(|replica| replica.storage).filter(reachable).collect();
        }
        let rack = node.and_then(|node| self.datanodes.on_node(node).first());
        let rack = rack.map(|index| self.datanodes.get(*index).rack);
        let key = |storage: &StorageIndex| {
            let datanode = self.datanodes.get(self.datanodes.datanode_of(*storage));
            let distance = if Some(&datanode.location.node) == node {
                0
            } else if Some(datanode.rack) == rack {
                1
            } else {
                2
            };
            let mixed = (u64::from(storage.0) + 1).wrapping_mul(spread | 1);
            (distance, datanode.liveness != Liveness::Live, mixed)
        };
        storages.sort_by_cached_key(key);
        storages
            .iter()
            .map(|storage| self.datanodes.get(self.datanodes.datanode_of(*storage)).location.clone())
            .collect()
    }

    pub(super) fn summary(&self, who: &Principal<'_>, path: &DfsPath) -> Reply {
        let mut summary = ContentSummary::default();
        let mut left = vec![self.find(who, path)?];
        while let Some(id) = left.pop() {
            let Some(inode) = self.namespace.get(id) else { continue };
            match &inode.content {
                Content::Directory(children) => {
                    authorize(Access::Read, inode, who, path, &self.namespace.names)?;
                    authorize(Access::Search, inode, who, path, &self.namespace.names)?;
                    summary.directories += 1;
                    left.extend(children.values());
                }
                Content::File(file) => {
                    let len_bytes = self.len_bytes(file);
                    summary.files += 1;
                    summary.len_bytes += len_bytes;
                    summary.space_bytes += len_bytes * u64::from(file.replication);
                }
            }
        }
        Ok(Response::Summary(summary))
    }
}
