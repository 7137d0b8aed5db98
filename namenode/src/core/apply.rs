//! Edits applied: the only code that changes the namespace. It uses nothing but the edit and the namespace itself.
//!
//! What depends on soft state (which replicas are to be deleted when a block goes, when a lease was renewed) is a
//! consequence, not a decision: replaying without datanodes, and at another time, gives the same namespace.

use situ_wire::block::CommittedBlock;
use situ_wire::ids::{BlockId, GenerationStamp, INodeId, TxId};
use situ_wire::path::is_copying;
use situ_wire::time::{TimeMs, WallTime};

use super::edit::{Change, Edge, EditV1, Move, NewDirectory, NewFile};
use super::image::{OperationRecord, Outcome};
use super::inode::{BlockLen, Content, File, FileBlocks, INode, Writer};
use super::namespace::{ROOT, edge};
use super::namesystem::Namesystem;

impl Change {
    /// What its operation came to.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Create { file, .. } => Outcome::Created {
                inode: file.inode,
                block_len_bytes: file.block_len_bytes,
                replication: file.replication,
            },
            Self::AddBlock { block, .. } => Outcome::Block { block: block.id },
            Self::RecoverPipeline { block, .. } => Outcome::Block { block: *block },
            Self::Delete { removed } => Outcome::Deleted(removed.is_some()),
            Self::Mkdir { .. }
            | Self::AbandonBlock { .. }
            | Self::Complete { .. }
            | Self::Rename { .. }
            | Self::Publish { .. }
            | Self::RecoverFile { .. }
            | Self::ForgetClients { .. }
            | Self::BeginEpoch { .. } => Outcome::Done,
        }
    }
}

impl Namesystem {
    pub(super) fn apply_v1(&mut self, tx: TxId, edit: &EditV1) -> Result<(), String> {
        let time = edit.time;
        match &edit.change {
            Change::Mkdir { directories } => self.apply_directories(directories, time)?,
            Change::Create { directories, file } => {
                self.apply_directories(directories, time)?;
                self.apply_file(file, time)?;
            }
            Change::AddBlock { inode, committed, block, pipeline } => {
                self.apply_committed(*inode, committed)?;
                self.take_block_id(block.id)?;
                self.take_generation(block.generation)?;
                let file = self.open_file_mut(*inode)?;
                file.blocks.push(block.id);
                let replication = file.replication;
                if let Some(writer) = &mut file.writer {
                    writer.uncommitted.push(block.id);
                }
                self.blocks.add(&mut self.ledger, *block, *inode, replication, pipeline.clone());
            }
            Change::AbandonBlock { inode, block } => {
                self.uncommitted(*inode, *block)?;
                self.drop_block(*inode, *block)?;
            }
            Change::RecoverPipeline { inode, block, generation, pipeline } => {
                self.uncommitted(*inode, *block)?;
                self.take_generation(*generation)?;
                let pipeline = pipeline.clone();
                self.blocks.begin_life(&mut self.ledger, &mut self.datanodes, *block, *generation, pipeline);
            }
            Change::Complete { inode, committed } => {
                self.apply_committed(*inode, committed)?;
                self.close_file(*inode, time)?;
            }
            Change::Rename { moved } => self.apply_move(moved, time)?,
            Change::Delete { removed } => {
                if let Some(removed) = removed {
                    self.apply_removal(removed, time)?;
                }
            }
            Change::Publish { moves, removed } => {
                for moved in moves {
                    self.apply_move(moved, time)?;
                }
                if let Some(removed) = removed {
                    self.apply_removal(removed, time)?;
                }
            }
            Change::RecoverFile { inode, dropped } => {
                for block in dropped {
                    self.drop_block(*inode, *block)?;
                }
                self.close_file(*inode, time)?;
            }
            Change::ForgetClients { clients } => {
                for client in clients {
                    self.operations.remove_client(&mut self.ledger, *client);
                }
            }
            Change::BeginEpoch { epoch } => self.meta = self.epochs.begin(&mut self.ledger, self.meta, *epoch)?,
        }
        if let Some(operation) = edit.operation {
            let outcome = edit.change.outcome();
            let record = OperationRecord { client: operation.client, sequence: operation.sequence, tx, time, outcome };
            self.operations.insert(&mut self.ledger, record, self.now);
        }
        Ok(())
    }

    fn apply_directories(&mut self, directories: &[NewDirectory], time: WallTime) -> Result<(), String> {
        for new in directories {
            let content = Content::Directory(Box::default());
            self.make(new.inode, new.parent, &new.name, (&new.owner, &new.group, new.mode), content, time)?;
        }
        Ok(())
    }

    fn apply_file(&mut self, new: &NewFile, time: WallTime) -> Result<(), String> {
        if let Some(replaced) = new.replaced {
            self.replace(new.parent, &new.name, replaced, time)?;
        }
        let block_len = BlockLen::new(new.block_len_bytes)
            .ok_or_else(|| format!("{}: no block is {} bytes long", new.inode, new.block_len_bytes))?;
        let user = self.namespace.names.intern(&new.owner);
        let writer = new.writer.map(|client| Box::new(Writer { client, user, uncommitted: Vec::new() }));
        let file = File { replication: new.replication, block_len, blocks: FileBlocks::None, writer };
        let content = Content::File(file);
        self.make(new.inode, new.parent, &new.name, (&new.owner, &new.group, new.mode), content, time)?;
        if let Some(client) = new.writer {
            self.leases.open(client, user, new.inode, self.now);
        }
        if is_copying(&new.name) {
            self.copies.begin(new.inode);
        }
        Ok(())
    }

    /// Makes an inode under a free name.
    fn make(
        &mut self,
        id: INodeId,
        parent: INodeId,
        name: &str,
        (owner, group, mode): (&str, &str, u16),
        content: Content,
        time: WallTime,
    ) -> Result<(), String> {
        if id < self.meta.next_inode {
            return Err(format!("{id} was given out before; the next is {}", self.meta.next_inode));
        }
        self.free_name(parent, name)?;
        let owner = self.namespace.names.intern(owner);
        let group = self.namespace.names.intern(group);
        let inode = INode { parent, modified: time, owner, group, mode, content };
        self.namespace.insert(&mut self.ledger, id, inode);
        self.namespace.link(&mut self.ledger, parent, name, id, time);
        self.meta.next_inode = INodeId(id.0 + 1);
        Ok(())
    }

    /// Checks that a directory is there and does not hold a name.
    fn free_name(&self, parent: INodeId, name: &str) -> Result<(), String> {
        let children = self.namespace.get(parent).and_then(INode::children);
        let children = children.ok_or_else(|| format!("{parent} is not a directory"))?;
        match children.get(name) {
            None => Ok(()),
            Some(child) => Err(format!("{parent} holds {name:?} already: {child}")),
        }
    }

    /// Removes the file that stands where another comes.
    fn replace(&mut self, parent: INodeId, name: &str, replaced: INodeId, time: WallTime) -> Result<(), String> {
        if self.namespace.get(replaced).is_none_or(INode::is_directory) {
            return Err(format!("{replaced}, which is to be replaced, is not a file"));
        }
        self.apply_removal(&Edge { parent, name: name.to_owned(), child: replaced }, time)
    }

    /// Checks that an edge is as an edit says.
    fn check_edge(&self, edge: &Edge) -> Result<(), String> {
        let found = self.namespace.child(edge.parent, &edge.name);
        if found == Some(edge.child) {
            return Ok(());
        }
        Err(format!("{} should hold {:?}, {}; found {found:?}", edge.parent, edge.name, edge.child))
    }

    fn apply_move(&mut self, moved: &Move, time: WallTime) -> Result<(), String> {
        self.check_edge(&moved.from)?;
        let child = moved.from.child;
        let mut at = moved.parent;
        while at != ROOT {
            if at == child {
                return Err(format!("{child} would come to stand in itself"));
            }
            at = self.namespace.get(at).ok_or_else(|| format!("{} is not a directory", moved.parent))?.parent;
        }
        if let Some(replaced) = moved.replaced {
            if replaced == child {
                return Err(format!("{child} would replace itself"));
            }
            self.replace(moved.parent, &moved.name, replaced, time)?;
        }
        self.free_name(moved.parent, &moved.name)?;
        self.namespace.unlink(&mut self.ledger, moved.from.parent, &moved.from.name, time);
        self.namespace.link(&mut self.ledger, moved.parent, &moved.name, child, time);
        self.copies.forget(child);
        Ok(())
    }

    /// Removes an inode with all below it.
    fn apply_removal(&mut self, removed: &Edge, time: WallTime) -> Result<(), String> {
        self.check_edge(removed)?;
        self.namespace.unlink(&mut self.ledger, removed.parent, &removed.name, time);
        let mut left = vec![removed.child];
        while let Some(id) = left.pop() {
            match self.namespace.remove(&mut self.ledger, id).content {
                Content::Directory(children) => {
                    for (name, child) in *children {
                        self.ledger.subtract(&edge(id, &name, child));
                        left.push(child);
                    }
                }
                Content::File(file) => {
                    for block in file.blocks.as_slice() {
                        self.blocks.remove(&mut self.ledger, &mut self.datanodes, *block);
                    }
                    if let Some(writer) = file.writer {
                        self.leases.close(writer.client, id);
                    }
                    self.copies.forget(id);
                }
            }
        }
        Ok(())
    }

    fn take_block_id(&mut self, id: BlockId) -> Result<(), String> {
        if id < self.meta.next_block {
            return Err(format!("{id} was given out before; the next is {}", self.meta.next_block));
        }
        self.meta.next_block = BlockId(id.0 + 1);
        Ok(())
    }

    fn take_generation(&mut self, generation: GenerationStamp) -> Result<(), String> {
        if generation < self.meta.next_generation {
            return Err(format!("{generation} was given out before; the next is {}", self.meta.next_generation));
        }
        self.meta.next_generation = GenerationStamp(generation.0 + 1);
        Ok(())
    }

    fn open_file_mut(&mut self, inode: INodeId) -> Result<&mut File, String> {
        let file = self.namespace.get_mut(inode).and_then(INode::file_mut);
        file.filter(|file| file.writer.is_some()).ok_or_else(|| format!("{inode} is not an open file"))
    }

    /// Checks that a block of an open file is not committed.
    fn uncommitted(&mut self, inode: INodeId, block: BlockId) -> Result<(), String> {
        let writer = self.open_file_mut(inode)?.writer.as_ref();
        let found = writer.is_some_and(|writer| writer.uncommitted.contains(&block));
        if found { Ok(()) } else { Err(format!("{block} is not an unfinished block of {inode}")) }
    }

    fn apply_committed(&mut self, inode: INodeId, committed: &[CommittedBlock]) -> Result<(), String> {
        let deadline = TimeMs(self.now.0.saturating_add(self.config.pending_timeout_ms));
        for committed in committed {
            let block = committed.block;
            self.uncommitted(inode, block.id)?;
            if self.blocks.get(block.id).map(|info| info.generation) != Some(block.generation) {
                return Err(format!("{block} is not in that life"));
            }
            if let Some(writer) = &mut self.open_file_mut(inode)?.writer {
                writer.uncommitted.retain(|other| *other != block.id);
            }
            self.blocks.commit(&mut self.ledger, &mut self.datanodes, committed, deadline);
        }
        Ok(())
    }

    fn drop_block(&mut self, inode: INodeId, block: BlockId) -> Result<(), String> {
        let file = self.open_file_mut(inode)?;
        if file.blocks.as_slice().last() != Some(&block) {
            return Err(format!("{block} is not the last block of {inode}"));
        }
        file.blocks.pop();
        if let Some(writer) = &mut file.writer {
            writer.uncommitted.retain(|other| *other != block);
        }
        self.blocks.remove(&mut self.ledger, &mut self.datanodes, block);
        Ok(())
    }

    fn close_file(&mut self, inode: INodeId, time: WallTime) -> Result<(), String> {
        let writer = self.open_file_mut(inode)?.writer.as_ref().expect("it is open");
        if let Some(block) = writer.uncommitted.first() {
            return Err(format!("{inode} cannot be closed: {block} is not committed"));
        }
        let client = writer.client;
        self.leases.close(client, inode);
        self.namespace.change(&mut self.ledger, inode, |inode| {
            inode.modified = inode.modified.max(time);
            if let Some(file) = inode.file_mut() {
                file.writer = None;
            }
        });
        self.copies.close(inode, self.now);
        Ok(())
    }
}
