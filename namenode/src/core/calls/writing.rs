//! An open file and its blocks.

use situ_wire::block::{Block, CommittedBlock, LocatedBlock, TokenMode};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, ClientId, DatanodeId, INodeId, NodeName};
use situ_wire::messages::namenode::Liveness;
use situ_wire::time::TimeMs;

use crate::core::authorize::Principal;
use crate::core::datanodes::{DatanodeIndex, Placement, choose_targets};
use crate::core::edit::Change;
use crate::core::errors::invalid;
use crate::core::inode::{File, INode};
use crate::core::namesystem::Namesystem;

/// The most blocks of a file.
const FILE_BLOCKS: usize = 1 << 20;
/// The most blocks of a file that are unfinished at once. A writer has a few; what is done with one looks at all.
const UNFINISHED_BLOCKS: usize = 64;

impl Namesystem {
    /// The open file of a client. Whose file it is not learns nothing of it, not even whether it is there.
    pub(super) fn open_file(&self, who: &Principal<'_>, client: ClientId, id: INodeId) -> Result<&File, RemoteError> {
        let theirs = self.namespace.get(id).filter(|inode| who.is(inode.owner));
        let Some(file) = theirs.and_then(INode::file) else {
            let message = "the open file is gone: it was deleted or replaced; its writer must give up";
            return Err(RemoteError::new(ErrorCode::NotFound, id, message));
        };
        let lost = |found| {
            let message = format!("its lease is lost: {found}; its writer must give up");
            Err(RemoteError::new(ErrorCode::LeaseLost, self.subject(id), message))
        };
        match &file.writer {
            None => lost("the file is closed"),
            Some(writer) if writer.client != client || !who.is(writer.user) => lost("another client writes it"),
            Some(_) => Ok(file),
        }
    }

    /// An inode's path, or its id if that is hard to find.
    pub(super) fn subject(&self, id: INodeId) -> String {
        self.namespace.path_of(id).unwrap_or_else(|| id.to_string())
    }

    pub(super) fn plan_add_block(
        &mut self,
        who: &Principal<'_>,
        client: ClientId,
        inode: INodeId,
        committed: &[CommittedBlock],
        exclude: &[DatanodeId],
        node: Option<&NodeName>,
    ) -> Result<Change, RemoteError> {
        let file = self.open_file(who, client, inode)?;
        let (block_len_bytes, replication) = (file.block_len.bytes(), file.replication);
        if file.blocks.as_slice().len() >= FILE_BLOCKS {
            let message = format!("it has {FILE_BLOCKS} blocks, which is the limit; choose a larger block size");
            return Err(RemoteError::new(ErrorCode::TooMuch, self.subject(inode), message));
        }
        let committed = self.check_committed(inode, file, committed, false)?;
        let unfinished = file.writer.as_ref().map_or(0, |writer| writer.uncommitted.len()) - committed.len();
        if unfinished >= UNFINISHED_BLOCKS {
            let message = format!("{unfinished} of its blocks are unfinished, which is the limit; finish some first");
            return Err(RemoteError::new(ErrorCode::TooMuch, self.subject(inode), message));
        }
        let excluded: Vec<DatanodeIndex> = exclude.iter().filter_map(|id| self.datanodes.find(*id)).collect();
        let local = node.map_or(&[][..], |node| self.datanodes.on_node(node));
        let placement = Placement {
            existing: &[],
            excluded: &excluded,
            local,
            count: usize::from(replication),
            len_bytes: block_len_bytes,
            reserve_bytes: self.config.reserve_bytes,
        };
        let targets = choose_targets(&self.datanodes, &mut self.random, &placement);
        if targets.is_empty() {
            let message = self.no_datanode(block_len_bytes, &excluded);
            return Err(RemoteError::new(ErrorCode::NoDatanodes, self.subject(inode), message));
        }
        for target in &targets {
            self.datanodes.get_mut(*target).scheduled += 1;
        }
        let pipeline = targets.iter().map(|target| self.datanodes.get(*target).location.id).collect();
        let block = Block { id: self.meta.next_block, generation: self.meta.next_generation };
        Ok(Change::AddBlock { inode, committed, block, pipeline })
    }

    /// Why no datanode can take a block, and what to do about it.
    fn no_datanode(&self, len_bytes: u64, excluded: &[DatanodeIndex]) -> String {
        let live: Vec<_> = self.datanodes.iter().filter(|(_, one)| one.liveness == Liveness::Live).collect();
        let rooms = live.iter().map(|(_, datanode)| datanode.room_bytes(self.config.reserve_bytes));
        let small: Vec<u64> = rooms.filter(|room| *room < len_bytes).collect();
        let room = small.iter().max().map_or(String::new(), |room| format!(" (at most {})", mib(*room)));
        let next = match (live.len(), small.len()) {
            (0, _) => "start datanodes",
            (_, 0) => "start more datanodes",
            _ => "free space on their disks, start more datanodes or write smaller blocks",
        };
        format!(
            "no datanode can take a block of {}: {} of {} live, {} of them with too little room{room}, {} of them \
             excluded by the client; {next}, and try again",
            mib(len_bytes),
            live.len(),
            self.datanodes.iter().count(),
            small.len(),
            live.iter().filter(|(index, _)| excluded.contains(index)).count(),
        )
    }

    pub(super) fn plan_abandon_block(
        &self,
        who: &Principal<'_>,
        client: ClientId,
        inode: INodeId,
        block: Block,
    ) -> Result<Change, RemoteError> {
        let file = self.open_file(who, client, inode)?;
        self.unfinished(inode, file, block)?;
        if file.blocks.as_slice().last() != Some(&block.id) {
            return Err(invalid(block, "only the last block of a file can be abandoned"));
        }
        Ok(Change::AbandonBlock { inode, block: block.id })
    }

    /// Checks that a block of an open file is unfinished and in the life that its writer thinks.
    fn unfinished(&self, inode: INodeId, file: &File, block: Block) -> Result<(), RemoteError> {
        let uncommitted = file.writer.as_ref().map_or(&[][..], |writer| &writer.uncommitted);
        if !uncommitted.contains(&block.id) {
            return Err(invalid(block, format!("it is not an unfinished block of {}", self.subject(inode))));
        }
        self.check_life(block)
    }

    fn check_life(&self, block: Block) -> Result<(), RemoteError> {
        let present = self.blocks.get(block.id).map(|info| info.generation);
        if present == Some(block.generation) {
            return Ok(());
        }
        let present = present.map_or("none".to_owned(), |present| present.to_string());
        let message = format!("expected its present life, {present}, found {}", block.generation);
        Err(RemoteError::new(ErrorCode::StaleGeneration, block, message))
    }

    pub(super) fn plan_recover_pipeline(
        &self,
        who: &Principal<'_>,
        client: ClientId,
        inode: INodeId,
        block: Block,
        survivors: Vec<DatanodeId>,
    ) -> Result<Change, RemoteError> {
        let file = self.open_file(who, client, inode)?;
        self.unfinished(inode, file, block)?;
        self.check_pipeline(block, &survivors)?;
        let generation = self.meta.next_generation;
        Ok(Change::RecoverPipeline { inode, block: block.id, generation, pipeline: survivors })
    }

    /// Checks that datanodes are, each once, members of the pipeline of a block.
    fn check_pipeline(&self, block: Block, members: &[DatanodeId]) -> Result<(), RemoteError> {
        let pipeline = self.blocks.building(block.id).map_or(&[][..], |building| &building.pipeline);
        if members.is_empty() {
            return Err(invalid(block, "expected at least one datanode that has it; abandon a block that none has"));
        }
        for (at, member) in members.iter().enumerate() {
            if !pipeline.contains(member) {
                return Err(invalid(block, format!("datanode {member} is not in its pipeline {pipeline:?}")));
            }
            if members[..at].contains(member) {
                return Err(invalid(block, format!("datanode {member} is named twice")));
            }
        }
        Ok(())
    }

    pub(super) fn plan_complete(
        &self,
        who: &Principal<'_>,
        client: ClientId,
        inode: INodeId,
        committed: &[CommittedBlock],
    ) -> Result<Change, RemoteError> {
        let file = self.open_file(who, client, inode)?;
        let committed = self.check_committed(inode, file, committed, true)?;
        let uncommitted = file.writer.as_ref().map_or(&[][..], |writer| &writer.uncommitted);
        let left = uncommitted.iter().find(|id| committed.iter().all(|committed| committed.block.id != **id));
        if let Some(left) = left {
            let message = format!("{left} is not finished; report it final or abandon it before the file is closed");
            return Err(invalid(self.subject(inode), message));
        }
        Ok(Change::Complete { inode, committed })
    }

    /// Checks what a writer says about final blocks. Gives back those that were not committed before; to say it twice is
    /// harmless. The last block of the file may be shorter than the others only when the file is `closing`.
    fn check_committed(
        &self,
        inode: INodeId,
        file: &File,
        committed: &[CommittedBlock],
        closing: bool,
    ) -> Result<Vec<CommittedBlock>, RemoteError> {
        let blocks = file.blocks.as_slice();
        let mut new: Vec<CommittedBlock> = Vec::with_capacity(committed.len());
        for claim in committed {
            let id = claim.block.id;
            let Some(info) = self.blocks.get(id).filter(|_| blocks.binary_search(&id).is_ok()) else {
                return Err(invalid(claim.block, format!("it is not a block of {}", self.subject(inode))));
            };
            self.check_life(claim.block)?;
            if info.committed {
                if (info.len_bytes, info.root) != (claim.len_bytes, claim.root) {
                    let message = format!("it is final with {} bytes and another content", info.len_bytes);
                    return Err(invalid(claim.block, message));
                }
                continue;
            }
            if new.iter().any(|other| other.block.id == id) {
                return Err(invalid(claim.block, "it is reported final twice in one call"));
            }
            let full = file.block_len.bytes();
            let may_be_short = closing && blocks.last() == Some(&id);
            if claim.len_bytes > full || (claim.len_bytes < full && !may_be_short) {
                let message = format!(
                    "{} bytes: expected {full}; only the last block of a file that is closed may have fewer",
                    claim.len_bytes
                );
                return Err(invalid(claim.block, message));
            }
            self.check_pipeline(claim.block, &claim.replicas)?;
            new.push(claim.clone());
        }
        Ok(new)
    }

    /// A block as its writer needs it: with its pipeline and a token to write.
    pub(super) fn block_to_write(
        &self,
        now: TimeMs,
        who: &Principal<'_>,
        client: ClientId,
        id: BlockId,
    ) -> Result<LocatedBlock, RemoteError> {
        let gone = || {
            let message = "the block is no longer being written; its writer must look at the file again";
            RemoteError::new(ErrorCode::LeaseLost, id, message)
        };
        let info = self.blocks.get(id).ok_or_else(gone)?;
        let building = self.blocks.building(id).ok_or_else(gone)?;
        let file = self.open_file(who, client, info.inode)?;
        let known = building.pipeline.iter().filter_map(|datanode| self.datanodes.find(*datanode));
        let locations: Vec<_> = known.map(|index| self.datanodes.get(index).location.clone()).collect();
        if locations.is_empty() {
            let message = "none of the datanodes of its pipeline has registered yet; try again soon";
            return Err(RemoteError::new(ErrorCode::Unavailable, id, message));
        }
        let at = file.blocks.as_slice().binary_search(&id).map_err(|_| gone())?;
        let block = info.block(id);
        Ok(LocatedBlock {
            block,
            offset: at as u64 * file.block_len.bytes(),
            len_bytes: 0,
            root: None,
            locations,
            token: self.config.token_key.issue(block, TokenMode::Write, client, self.token_expiry(now)),
        })
    }

    pub(super) fn token_expiry(&self, now: TimeMs) -> TimeMs {
        TimeMs(now.0.saturating_add(self.config.token_lifetime_ms))
    }
}

/// A size in MiB, for people.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
