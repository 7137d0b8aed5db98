//! Restoring from an image, and a check of everything.

use situ_wire::ids::{BlockId, INodeId, TxId};
use situ_wire::path::is_copying;

use super::epochs::Epoch;
use super::image::{EdgeRecord, INodeKind, INodeRecord, ImageRecord, MetaRecord, WriterRecord};
use super::inode::{BlockLen, Content, File, FileBlocks, INode, Writer};
use super::namespace::ROOT;
use super::namesystem::{Namesystem, RestoreError};
use super::operations::reference;

/// What waits for the end of a restore.
#[derive(Debug, Default)]
pub(super) struct Restoring {
    meta: Option<MetaRecord>,
    edges: Vec<EdgeRecord>,
}

impl Namesystem {
    /// Takes a record of an image; in any order. The first one makes the namespace forget all that it held.
    ///
    /// # Errors
    /// When it does not fit those before it.
    pub fn restore(&mut self, record: &ImageRecord) -> Result<(), RestoreError> {
        if self.restoring.is_none() {
            *self = Self::without_root(self.config.clone());
        }
        let restoring = self.restoring.get_or_insert_default();
        match record {
            ImageRecord::Meta(meta) => {
                if restoring.meta.replace(*meta).is_some() {
                    return Err(wrong("the counters are there twice"));
                }
            }
            ImageRecord::Edge(edge) => restoring.edges.push(edge.clone()),
            ImageRecord::INode(record) => self.restore_inode(record)?,
            ImageRecord::Block(record) => self.blocks.restore(&mut self.ledger, record).map_err(wrong)?,
            ImageRecord::Operation(record) => {
                if self.operations.get(record.client, record.sequence).is_some() {
                    return Err(wrong(format!("operation {} of a client is there twice", record.sequence)));
                }
                self.operations.insert(&mut self.ledger, *record, self.now);
            }
            ImageRecord::Epoch(record) => self.epochs.restore(&mut self.ledger, *record).map_err(wrong)?,
        }
        Ok(())
    }

    fn restore_inode(&mut self, record: &INodeRecord) -> Result<(), RestoreError> {
        let names = &mut self.namespace.names;
        let content = match &record.kind {
            INodeKind::Directory => Content::Directory(Box::default()),
            INodeKind::File { replication, block_len_bytes, writer } => {
                let block_len = BlockLen::new(*block_len_bytes);
                let block_len = block_len.ok_or_else(|| wrong(format!("{}: {block_len_bytes}", record.id)))?;
                let writer = writer.as_ref().map(|WriterRecord { client, user }| {
                    Box::new(Writer { client: *client, user: names.intern(user), uncommitted: Vec::new() })
                });
                Content::File(File { replication: *replication, block_len, blocks: FileBlocks::None, writer })
            }
        };
        let inode = INode {
            parent: if record.id == ROOT { ROOT } else { INodeId(0) },
            modified: record.modified,
            owner: names.intern(&record.owner),
            group: names.intern(&record.group),
            mode: record.mode,
            content,
        };
        self.namespace.restore(&mut self.ledger, record.id, inode).map_err(wrong)
    }

    /// Ends the restoring from an image that stands at `tx`: links what belongs together. The digest must then be the
    /// image's.
    ///
    /// # Errors
    /// When records are missing or contradict each other.
    pub fn finish_restore(&mut self, tx: TxId) -> Result<(), RestoreError> {
        let restoring = self.restoring.take().ok_or_else(|| wrong("it holds no records"))?;
        let meta = restoring.meta.ok_or_else(|| wrong("the counters are missing"))?;
        if self.namespace.get(ROOT).is_none_or(|root| !root.is_directory()) {
            return Err(wrong("the root directory is missing"));
        }
        for edge in restoring.edges {
            self.namespace.restore_edge(&mut self.ledger, edge).map_err(wrong)?;
        }
        if let Some((id, _)) = self.namespace.iter().find(|(_, inode)| inode.parent == INodeId(0)) {
            return Err(wrong(format!("{id} stands in no directory")));
        }
        self.check_tree().map_err(wrong)?;
        self.restore_blocks().map_err(wrong)?;
        let last = self.namespace.iter().map(|(id, _)| id).last().unwrap_or(ROOT);
        let last_block = self.blocks.iter().map(|(id, _)| id).last().unwrap_or_default();
        let generation = self.blocks.iter().map(|(_, info)| info.generation).max().unwrap_or_default();
        if last >= meta.next_inode || last_block >= meta.next_block || generation >= meta.next_generation {
            return Err(wrong(format!("{last}, {last_block} or {generation} is beyond the counters {meta:?}")));
        }
        for (file, inode) in self.namespace.iter() {
            if let Some(writer) = inode.file().and_then(|file| file.writer.as_ref()) {
                self.leases.open(writer.client, writer.user, file, self.now);
            }
        }
        for edge in self.namespace.edges().filter(|edge| is_copying(edge.name)) {
            let Some(file) = self.namespace.get(edge.child).and_then(INode::file) else { continue };
            self.copies.begin(edge.child);
            if file.writer.is_none() {
                self.copies.close(edge.child, self.now);
            }
        }
        self.meta = meta;
        self.last_tx = tx;
        self.ledger.settle_all();
        Ok(())
    }

    /// Checks that everything hangs on the root: the tree, gone through from there, reaches every inode.
    fn check_tree(&self) -> Result<(), String> {
        let (mut reached, mut left) = (0, vec![ROOT]);
        while let Some(id) = left.pop() {
            reached += 1;
            if let Some(children) = self.namespace.get(id).and_then(INode::children) {
                left.extend(children.values());
            }
        }
        let all = self.namespace.directories() + self.namespace.files();
        if reached == all { Ok(()) } else { Err(format!("{} inodes do not hang on the root", all - reached)) }
    }

    /// Gives the files their blocks.
    fn restore_blocks(&mut self) -> Result<(), String> {
        let blocks = self.blocks.iter().map(|(id, info)| (id, info.inode, info.committed));
        for (id, inode, committed) in blocks.collect::<Vec<_>>() {
            let file = self.namespace.get_mut(inode).and_then(INode::file_mut);
            let file = file.ok_or_else(|| format!("{inode}, the file of {id}, is missing"))?;
            file.blocks.push(id);
            match &mut file.writer {
                Some(writer) if !committed => writer.uncommitted.push(id),
                None if !committed => return Err(format!("{id} of the closed file {inode} is not committed")),
                _ => {}
            }
            let replication = file.replication;
            self.blocks.set_replication(&self.datanodes, id, replication);
        }
        Ok(())
    }

    /// Asserts every invariant over everything. For tests: it is slow.
    pub fn check(&self) {
        self.namespace.check();
        self.copies.check();
        self.blocks.check(&self.datanodes, |storage| self.draining.contains(&storage));
        let mut sum = super::digest::RecordSum::default();
        let (mut blocks, mut writers) = (0, Vec::new());
        for (id, inode) in self.namespace.iter() {
            assert!(id < self.meta.next_inode, "{id} is below the counter");
            sum.add(&self.namespace.record(id).expect("it is there"));
            let Some(file) = inode.file() else { continue };
            blocks += file.blocks.as_slice().len();
            assert!(file.blocks.as_slice().is_sorted(), "the blocks of {id} ascend");
            self.check_file(id, file);
            writers.extend(file.writer.as_ref().map(|writer| (writer.client, id)));
        }
        for edge in self.namespace.edges() {
            sum.add(&ImageRecord::Edge(edge));
        }
        for (id, info) in self.blocks.iter() {
            assert!(id < self.meta.next_block && info.generation < self.meta.next_generation, "{id}: counters");
            sum.add(&self.blocks.record(id).expect("it is there"));
        }
        for record in self.operations.iter() {
            sum.add(&reference(*record));
        }
        for record in self.epochs.iter_from(Epoch::default()) {
            assert!(record.epoch < self.meta.epoch(), "{}: what is over is not to come", record.epoch);
            sum.add(&ImageRecord::Epoch(*record));
        }
        assert_eq!(blocks, self.blocks.len(), "every block belongs to one file");
        writers.sort_unstable();
        assert!(self.leases.iter().eq(writers), "every open file has its lease and no other has one");
        assert_eq!(sum.lanes(), self.ledger.sum().lanes(), "the digest is kept right");
    }

    fn check_file(&self, id: INodeId, file: &File) {
        let uncommitted = file.writer.as_ref().map_or(&[][..], |writer| &writer.uncommitted);
        let blocks = file.blocks.as_slice();
        let in_manager: Vec<BlockId> = blocks
            .iter()
            .copied()
            .filter(|block| !self.blocks.get(*block).expect("a file's block is there").committed)
            .collect();
        assert_eq!(in_manager, uncommitted, "{id} knows its unfinished blocks");
        for (at, block) in blocks.iter().enumerate() {
            let info = self.blocks.get(*block).expect("looked up above");
            assert_eq!(info.inode, id, "{block} knows its file");
            assert_eq!(info.replication, file.replication);
            let full = info.len_bytes == file.block_len.bytes();
            let last = at + 1 == blocks.len() && file.writer.is_none();
            assert!(!info.committed || full || last, "all blocks of {id} but the last are full");
        }
    }
}

fn wrong(reason: impl Into<String>) -> RestoreError {
    RestoreError { reason: reason.into() }
}
