//! The namespace as a map, small enough to be obviously right.

use std::collections::{BTreeMap, BTreeSet};

use situ_namenode::core::{Change, Edge};
use situ_wire::block::{Block, CommittedBlock};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{BlockId, ClientId, INodeId};
use situ_wire::messages::namenode::Request;
use situ_wire::path::{DfsPath, is_copying};

use super::entry::{BlockEntry, Entry, FileEntry};

/// What an operation is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// That it is done.
    Done,
    /// The new file.
    Created {
        /// Its id.
        inode: INodeId,
        /// How long its blocks are.
        block_len_bytes: u64,
        /// How many replicas they shall have.
        replication: u16,
    },
    /// A block.
    Block(BlockId),
    /// Whether anything was there.
    Deleted(bool),
}

/// The namespace as a map from paths.
#[derive(Clone, Debug)]
pub struct Model {
    entries: BTreeMap<String, Entry>,
    gone: BTreeSet<BlockId>,
}

/// How far a path leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// To the end.
    Entry(&'a Entry),
    /// To a directory that does not hold the next name; so many names are left.
    Missing(usize),
    /// To a file, with names left.
    Blocked,
}

impl Default for Model {
    fn default() -> Self {
        let root = Entry::Directory { inode: INodeId(1) };
        Self { entries: BTreeMap::from([("/".to_owned(), root)]), gone: BTreeSet::new() }
    }
}

impl Model {
    /// All entries by path; the root's path is `/`.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// All files by path.
    pub fn files(&self) -> impl Iterator<Item = (&str, &FileEntry)> {
        self.entries().filter_map(|(path, entry)| entry.file().map(|file| (path, file)))
    }

    /// The file of that id.
    #[must_use]
    pub fn file(&self, inode: INodeId) -> Option<(&str, &FileEntry)> {
        self.files().find(|(_, file)| file.inode == inode)
    }

    /// The block of that id and its file's path.
    #[must_use]
    pub fn block(&self, id: BlockId) -> Option<(&str, &FileEntry, &BlockEntry)> {
        self.files()
            .find_map(|(path, file)| file.blocks.iter().find(|block| block.id == id).map(|block| (path, file, block)))
    }

    /// Whether a block was there and is gone.
    #[must_use]
    pub fn is_gone(&self, id: BlockId) -> bool {
        self.gone.contains(&id)
    }

    pub(super) fn find(&self, path: &DfsPath) -> Found<'_> {
        if let Some(entry) = self.entries.get(path.as_str()) {
            return Found::Entry(entry);
        }
        let mut at = path.clone();
        let mut left = 0;
        while let Some(parent) = at.parent() {
            left += 1;
            match self.entries.get(parent.as_str()) {
                Some(Entry::Directory { .. }) => return Found::Missing(left),
                Some(Entry::File(_)) => return Found::Blocked,
                None => at = parent,
            }
        }
        Found::Missing(left)
    }

    /// The entries right below a directory, by name.
    pub(super) fn children(&self, path: &DfsPath) -> Vec<(String, &Entry)> {
        let prefix = if path.is_root() { "/".to_owned() } else { format!("{path}/") };
        let below = self.entries.range(prefix.clone()..);
        let below = below.take_while(|(other, _)| other.starts_with(&prefix));
        let names = below.filter_map(|(other, entry)| {
            let name = &other[prefix.len()..];
            (!name.is_empty() && !name.contains('/')).then(|| (name.to_owned(), entry))
        });
        let mut children: Vec<_> = names.collect();
        children.sort_by(|one, two| one.0.cmp(&two.0));
        children
    }

    /// Why an operation is refused, as far as the namespace alone decides; none if it is carried out.
    #[must_use]
    pub fn refusal(&self, request: &Request) -> Option<ErrorCode> {
        match request {
            Request::Mkdir { path, parents, .. } => match self.find(path) {
                Found::Entry(Entry::Directory { .. }) if *parents => None,
                Found::Entry(_) => Some(ErrorCode::AlreadyExists),
                Found::Blocked => Some(ErrorCode::NotADirectory),
                Found::Missing(left) => (left > 1 && !parents).then_some(ErrorCode::NotFound),
            },
            Request::Create { path, overwrite, parents, operation, .. } => match self.find(path) {
                Found::Entry(Entry::Directory { .. }) => Some(ErrorCode::IsADirectory),
                Found::Entry(Entry::File(file)) => {
                    if file.writer.is_some_and(|writer| writer != operation.client) {
                        return Some(ErrorCode::BeingWritten);
                    }
                    (!overwrite).then_some(ErrorCode::AlreadyExists)
                }
                Found::Blocked => Some(ErrorCode::NotADirectory),
                Found::Missing(left) => (left > 1 && !parents).then_some(ErrorCode::NotFound),
            },
            Request::AddBlock { inode, committed, operation, .. } => {
                self.refusal_of_writer(*inode, operation.client).or_else(|| self.refusal_of_claims(*inode, committed))
            }
            Request::Complete { inode, committed, operation } => {
                let refusal = self.refusal_of_writer(*inode, operation.client);
                refusal.or_else(|| self.refusal_of_claims(*inode, committed)).or_else(|| {
                    let claimed = |block: &BlockEntry| committed.iter().any(|claim| claim.block.id == block.id);
                    let (_, file) = self.file(*inode)?;
                    let left = file.blocks.iter().any(|block| block.committed.is_none() && !claimed(block));
                    left.then_some(ErrorCode::InvalidArgument)
                })
            }
            Request::AbandonBlock { inode, block, operation } => {
                let refusal = self.refusal_of_writer(*inode, operation.client);
                refusal.or_else(|| self.refusal_of_life(*inode, *block)).or_else(|| {
                    let (_, file) = self.file(*inode)?;
                    let is_last = file.blocks.last().is_some_and(|last| last.id == block.id);
                    (!is_last).then_some(ErrorCode::InvalidArgument)
                })
            }
            Request::RecoverPipeline { inode, block, operation, .. } => {
                self.refusal_of_writer(*inode, operation.client).or_else(|| self.refusal_of_life(*inode, *block))
            }
            Request::Rename { from, to, overwrite, .. } => self.refusal_of_rename(from, to, *overwrite),
            Request::Delete { path, recursive, .. } => match self.find(path) {
                Found::Entry(Entry::Directory { .. }) if path.is_root() => Some(ErrorCode::InvalidArgument),
                Found::Entry(Entry::Directory { .. }) => {
                    (!recursive && !self.children(path).is_empty()).then_some(ErrorCode::NotEmpty)
                }
                _ => None,
            },
            Request::Publish { moves, .. } => moves.iter().find_map(|(from, to)| self.refusal_of_publishing(from, to)),
            _ => None,
        }
    }

    fn refusal_of_writer(&self, inode: INodeId, client: ClientId) -> Option<ErrorCode> {
        match self.file(inode) {
            None => Some(ErrorCode::NotFound),
            Some((_, file)) => (file.writer != Some(client)).then_some(ErrorCode::LeaseLost),
        }
    }

    fn refusal_of_claims(&self, inode: INodeId, committed: &[CommittedBlock]) -> Option<ErrorCode> {
        let (_, file) = self.file(inode)?;
        committed.iter().find_map(|claim| {
            let Some(block) = file.blocks.iter().find(|block| block.id == claim.block.id) else {
                return Some(ErrorCode::InvalidArgument);
            };
            if block.generation != claim.block.generation {
                return Some(ErrorCode::StaleGeneration);
            }
            let other = block.committed.is_some_and(|known| known != (claim.len_bytes, claim.root));
            other.then_some(ErrorCode::InvalidArgument)
        })
    }

    fn refusal_of_life(&self, inode: INodeId, block: Block) -> Option<ErrorCode> {
        let (_, file) = self.file(inode)?;
        match file.blocks.iter().find(|known| known.id == block.id) {
            Some(known) if known.committed.is_none() => {
                (known.generation != block.generation).then_some(ErrorCode::StaleGeneration)
            }
            _ => Some(ErrorCode::InvalidArgument),
        }
    }

    fn refusal_of_rename(&self, from: &DfsPath, to: &DfsPath, overwrite: bool) -> Option<ErrorCode> {
        let Found::Entry(source) = self.find(from) else { return Some(ErrorCode::NotFound) };
        if from == to {
            return Some(ErrorCode::AlreadyExists);
        }
        if to.starts_with(from) {
            return Some(ErrorCode::InvalidArgument);
        }
        match self.find(to) {
            Found::Blocked => Some(ErrorCode::NotADirectory),
            Found::Missing(left) => (left > 1).then_some(ErrorCode::NotFound),
            Found::Entry(Entry::Directory { .. }) => Some(ErrorCode::AlreadyExists),
            Found::Entry(Entry::File(_)) => (!overwrite || source.file().is_none()).then_some(ErrorCode::AlreadyExists),
        }
    }

    fn refusal_of_publishing(&self, from: &DfsPath, to: &DfsPath) -> Option<ErrorCode> {
        let Found::Entry(source) = self.find(from) else { return Some(ErrorCode::NotFound) };
        if source.file().is_some_and(|file| file.writer.is_some()) {
            return Some(ErrorCode::BeingWritten);
        }
        match self.find(to) {
            Found::Blocked => Some(ErrorCode::NotADirectory),
            Found::Missing(left) => (left > 1).then_some(ErrorCode::NotFound),
            Found::Entry(_) => Some(ErrorCode::AlreadyExists),
        }
    }

    /// Carries out an operation of a client, with the ids that the journal gave it.
    ///
    /// # Errors
    /// When it should have been refused, or the change is not that of the request.
    pub fn carry_out(&mut self, request: &Request, change: &Change) -> Result<Expected, String> {
        if let Some(code) = self.refusal(request) {
            return Err(format!("it was carried out, but should have been refused: {code:?}"));
        }
        match (request, change) {
            (Request::Mkdir { path, .. }, Change::Mkdir { directories }) => {
                let inodes: Vec<INodeId> = directories.iter().map(|new| new.inode).collect();
                self.make_directories(path, &inodes)?;
                Ok(Expected::Done)
            }
            (Request::Create { path, operation, .. }, Change::Create { directories, file }) => {
                let inodes: Vec<INodeId> = directories.iter().map(|new| new.inode).collect();
                if let Some(parent) = path.parent() {
                    self.make_directories(&parent, &inodes)?;
                }
                let (replication, block_len_bytes) = (file.replication, file.block_len_bytes);
                let entry = FileEntry {
                    inode: file.inode,
                    replication,
                    block_len_bytes,
                    writer: Some(operation.client),
                    blocks: Vec::new(),
                };
                self.put_file(path, entry)?;
                Ok(Expected::Created { inode: file.inode, block_len_bytes, replication })
            }
            (Request::AddBlock { inode, committed, .. }, Change::AddBlock { block, .. }) => {
                self.commit(*inode, committed)?;
                self.add_block(*inode, *block)?;
                Ok(Expected::Block(block.id))
            }
            (Request::AbandonBlock { inode, block, .. }, Change::AbandonBlock { .. }) => {
                self.file_mut(*inode)?.blocks.retain(|known| known.id != block.id);
                self.gone.insert(block.id);
                Ok(Expected::Done)
            }
            (Request::RecoverPipeline { inode, block, .. }, Change::RecoverPipeline { generation, .. }) => {
                let known = self.file_mut(*inode)?.block_mut(block.id).ok_or("the block is not there")?;
                if *generation <= known.generation {
                    return Err(format!("{generation} does not follow on {}", known.generation));
                }
                known.generation = *generation;
                Ok(Expected::Block(block.id))
            }
            (Request::Complete { inode, committed, .. }, Change::Complete { .. }) => {
                self.commit(*inode, committed)?;
                self.file_mut(*inode)?.writer = None;
                Ok(Expected::Done)
            }
            (Request::Rename { from, to, .. }, Change::Rename { .. }) => {
                self.remove(to);
                self.rename(from, to);
                Ok(Expected::Done)
            }
            (Request::Delete { path, .. }, Change::Delete { .. }) => Ok(Expected::Deleted(self.remove(path))),
            (Request::Publish { moves, remove, .. }, Change::Publish { .. }) => {
                for (from, to) in moves {
                    self.rename(from, to);
                }
                self.remove(remove);
                Ok(Expected::Done)
            }
            (_, change) => Err(format!("it was asked for, but the journal has {change:?}")),
        }
    }

    /// Carries out what the namenode decided by itself.
    ///
    /// # Errors
    /// When it should not have.
    pub fn decide(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::ForgetClients { .. } | Change::BeginEpoch { .. } => Ok(()),
            Change::RecoverFile { inode, dropped } => {
                let file = self.file_mut(*inode)?;
                if file.writer.take().is_none() {
                    return Err(format!("{inode} is closed already"));
                }
                let keep = file.final_blocks().len();
                let gone: Vec<BlockId> = file.blocks.drain(keep..).map(|block| block.id).collect();
                let mut dropped = dropped.clone();
                dropped.sort_unstable();
                if gone != dropped {
                    return Err(format!("{inode}: {dropped:?} were dropped; unfinished were {gone:?}"));
                }
                self.gone.extend(gone);
                Ok(())
            }
            // What a client that is gone had been copying.
            Change::Delete { removed: Some(Edge { name, child, .. }) } if is_copying(name) => {
                let Some((path, file)) = self.file(*child) else { return Err(format!("{child} is not a file")) };
                if file.writer.is_none() || !path.ends_with(&format!("/{name}")) {
                    return Err(format!("{path} is closed, or is not {name}"));
                }
                let path = DfsPath::parse(path).map_err(|error| error.to_string())?;
                self.remove(&path);
                Ok(())
            }
            other => Err(format!("nobody asked for it: {other:?}")),
        }
    }

    fn file_mut(&mut self, inode: INodeId) -> Result<&mut FileEntry, String> {
        let files = self.entries.values_mut().filter_map(|entry| match entry {
            Entry::File(file) => Some(file),
            Entry::Directory { .. } => None,
        });
        files.into_iter().find(|file| file.inode == inode).ok_or_else(|| format!("{inode} is not a file"))
    }

    /// Makes the directories that are missing up to a path, with these ids, topmost first.
    fn make_directories(&mut self, path: &DfsPath, inodes: &[INodeId]) -> Result<(), String> {
        let mut missing = Vec::new();
        let mut at = Some(path.clone());
        while let Some(path) = at.filter(|path| !self.entries.contains_key(path.as_str())) {
            at = path.parent();
            missing.push(path);
        }
        if missing.len() != inodes.len() {
            return Err(format!("{} directories were made; missing were {missing:?}", inodes.len()));
        }
        for (path, inode) in missing.iter().rev().zip(inodes) {
            self.entries.insert(path.as_str().to_owned(), Entry::Directory { inode: *inode });
        }
        Ok(())
    }

    fn put_file(&mut self, path: &DfsPath, file: FileEntry) -> Result<(), String> {
        self.remove(path);
        if self.entries.values().any(|entry| entry.inode() == file.inode) {
            return Err(format!("{} was given out twice", file.inode));
        }
        self.entries.insert(path.as_str().to_owned(), Entry::File(file));
        Ok(())
    }

    fn add_block(&mut self, inode: INodeId, block: Block) -> Result<(), String> {
        if self.gone.contains(&block.id) || self.block(block.id).is_some() {
            return Err(format!("{} was given out twice", block.id));
        }
        let entry = BlockEntry { id: block.id, generation: block.generation, committed: None };
        self.file_mut(inode)?.blocks.push(entry);
        Ok(())
    }

    fn commit(&mut self, inode: INodeId, committed: &[CommittedBlock]) -> Result<(), String> {
        let file = self.file_mut(inode)?;
        for claim in committed {
            let block = file.block_mut(claim.block.id).ok_or("the committed block is not there")?;
            block.committed = Some((claim.len_bytes, claim.root));
        }
        Ok(())
    }

    /// The paths of an entry and of all below it.
    fn subtree(&self, path: &DfsPath) -> Vec<String> {
        let below = format!("{path}/");
        let paths = self.entries.keys().filter(|other| *other == path.as_str() || other.starts_with(&below));
        paths.cloned().collect()
    }

    fn remove(&mut self, path: &DfsPath) -> bool {
        let paths = self.subtree(path);
        for path in &paths {
            if let Some(Entry::File(file)) = self.entries.remove(path) {
                self.gone.extend(file.blocks.iter().map(|block| block.id));
            }
        }
        !paths.is_empty()
    }

    fn rename(&mut self, from: &DfsPath, to: &DfsPath) {
        for path in self.subtree(from) {
            if let Some(entry) = self.entries.remove(&path) {
                self.entries.insert(format!("{to}{}", &path[from.as_str().len()..]), entry);
            }
        }
    }
}
