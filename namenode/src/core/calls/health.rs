//! Fsck, the cluster's report, corrupt replicas.

use std::ops::Bound;

use situ_wire::block::Block;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{DatanodeId, INodeId};
use situ_wire::limits::LIST_ENTRIES;
use situ_wire::messages::namenode::{BlockHealth, ClusterReport, DatanodeStatus, FileHealth, Response};
use situ_wire::path::DfsPath;

use crate::core::authorize::{Access, Principal, authorize};
use crate::core::errors::{invalid, not_found};
use crate::core::inode::File;
use crate::core::namesystem::Namesystem;

/// The most blocks in one page of files' health; a page ends behind the file that reaches it.
const PAGE_BLOCKS: usize = 10_000;

type Reply = Result<Response, RemoteError>;

/// A page of files' health while it is filled.
struct Page {
    files: Vec<FileHealth>,
    blocks: usize,
    limit: usize,
    more: bool,
    /// Names that have no valid path, because a large directory was moved deep down.
    without_path: usize,
}

impl Page {
    fn is_full(&self) -> bool {
        self.files.len() >= self.limit || self.blocks >= PAGE_BLOCKS
    }
}

impl Namesystem {
    pub(super) fn fsck(&mut self, who: &Principal<'_>, path: &DfsPath, after: Option<&DfsPath>, limit: u32) -> Reply {
        let id = self.find(who, path)?;
        let behind: Vec<&str> = match after {
            None => Vec::new(),
            Some(after) if after.starts_with(path) && after != path => {
                after.components().skip(path.components().count()).collect()
            }
            Some(after) if after == path => return Ok(Response::Health { files: Vec::new(), more: false }),
            Some(after) => return Err(invalid(after, format!("a page of {path} goes on after a path below it"))),
        };
        let limit = limit.clamp(1, LIST_ENTRIES) as usize;
        let mut page = Page { files: Vec::new(), blocks: 0, limit, more: false, without_path: 0 };
        self.fsck_below(who, path, id, &behind, &mut page)?;
        if page.without_path > 0 {
            let count = page.without_path;
            self.warn(format!(
                "{path}: the health of {count} names below it is left out: their paths would be too long or too deep; \
                 move up what holds them"
            ));
        }
        Ok(Response::Health { files: page.files, more: page.more })
    }

    /// Adds the files at and below `path` to a page, in the order of their paths; only those after the names `behind`.
    fn fsck_below(
        &self,
        who: &Principal<'_>,
        path: &DfsPath,
        id: INodeId,
        behind: &[&str],
        page: &mut Page,
    ) -> Result<(), RemoteError> {
        let inode = self.namespace.get(id).ok_or_else(|| not_found(path))?;
        let Some(children) = inode.children() else {
            if page.is_full() {
                page.more = true;
            } else if let Some(file) = inode.file() {
                page.files.push(self.health(path.clone(), file));
                page.blocks += file.blocks.as_slice().len();
            }
            return Ok(());
        };
        authorize(Access::Read, inode, who, path, &self.namespace.names)?;
        authorize(Access::Search, inode, who, path, &self.namespace.names)?;
        let from = behind.first().map_or(Bound::Unbounded, |name| Bound::Included(*name));
        for (name, child) in children.range::<str, _>((from, Bound::Unbounded)) {
            let inside = if behind.first() == Some(&name.as_ref()) { &behind[1..] } else { &[] };
            let is_the_last_seen = behind.len() == 1 && behind.first() == Some(&name.as_ref());
            let is_file = self.namespace.get(*child).is_some_and(|child| !child.is_directory());
            if is_the_last_seen && is_file {
                continue;
            }
            let Ok(path) = path.join(name) else {
                page.without_path += 1;
                continue;
            };
            self.fsck_below(who, &path, *child, inside, page)?;
            if page.more {
                return Ok(());
            }
        }
        Ok(())
    }

    fn health(&self, path: DfsPath, file: &File) -> FileHealth {
        let blocks = file.blocks.as_slice().iter().filter_map(|id| {
            let info = self.blocks.get(*id)?;
            let reachable = info.locations.as_slice().iter().filter(|storage| self.datanodes.is_reachable(**storage));
            let replicas =
                reachable.map(|storage| self.datanodes.get(self.datanodes.datanode_of(*storage)).location.clone());
            let corrupt = self.blocks.corrupt_of(*id).iter();
            let corrupt =
                corrupt.map(|replica| self.datanodes.get(self.datanodes.datanode_of(replica.storage)).location.id);
            Some(BlockHealth {
                block: info.block(*id),
                len_bytes: info.len_bytes,
                committed: info.committed,
                replicas: replicas.collect(),
                corrupt: corrupt.collect(),
            })
        });
        FileHealth {
            path,
            len_bytes: self.len_bytes(file),
            replication: file.replication,
            open: file.writer.is_some(),
            blocks: blocks.collect(),
        }
    }

    pub(super) fn report(&self) -> ClusterReport {
        let datanodes = self.datanodes.iter().map(|(_, datanode)| {
            let storages = datanode.storages.values().chain([&datanode.unconfirmed]);
            DatanodeStatus {
                location: datanode.location.clone(),
                liveness: datanode.liveness,
                last_heartbeat: self.wall_time(datanode.last_heartbeat),
                volumes: datanode.volumes.clone(),
                unknown: self.datanodes.unknown_on(datanode) as u64,
                replicas: storages.map(|storage| self.datanodes.storage(*storage).blocks.len() as u64).sum(),
                clock_ahead_ms: datanode.clock.ahead_ms(),
            }
        });
        ClusterReport {
            cluster: self.config.cluster,
            tx: self.last_tx,
            digest: self.digest().0,
            safe_mode: self.safe_mode(),
            room: self.log_room(),
            directories: self.namespace.directories(),
            files: self.namespace.files(),
            blocks: self.blocks.len() as u64,
            under_replicated: self.blocks.deficient() as u64,
            corrupt: self.blocks.with_corrupt() as u64,
            missing: self.blocks.missing() as u64,
            pending: self.blocks.copies_under_way(),
            unknown: self.datanodes.unknown() as u64,
            datanodes: datanodes.collect(),
        }
    }

    /// A client says that a replica did not verify. Who may read the file may say so; the worst that a liar, or a reader
    /// with bad memory, can do is to have copies made: the replica's datanode is asked, a replica in doubt is never
    /// deleted and is read as long as there is no better one, and one that its datanode finds to be good is good again.
    pub(super) fn report_corrupt(&mut self, who: &Principal<'_>, block: Block, datanode: DatanodeId) -> Reply {
        let file = self.blocks.get(block.id).map(|info| info.inode);
        let Some(inode) = file.and_then(|id| self.namespace.get(id)) else {
            return Err(RemoteError::new(ErrorCode::NotFound, block, "there is no such block; its file is gone"));
        };
        authorize(Access::Read, inode, who, &block, &self.namespace.names)?;
        let Some(index) = self.datanodes.find(datanode) else {
            return Err(RemoteError::new(ErrorCode::NotFound, datanode, "there is no such datanode"));
        };
        if self.blocks.replica_doubted(&mut self.datanodes, index, block) {
            self.warn(format!("{block}: user {:?} found the replica on datanode {datanode} corrupt", who.user));
        }
        Ok(Response::Done)
    }
}
