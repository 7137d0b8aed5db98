//! The tree of files and directories.

use situ_wire::ids::INodeId;
use situ_wire::path::DfsPath;
use situ_wire::time::WallTime;

use super::digest::RecordRef;
use super::image::{EdgeRecord, INodeKind, INodeRecord, ImageRecord, WriterRecord};
use super::inode::{Children, Content, INode};
use super::ledger::Ledger;
use super::names::Names;
use super::sparse::IdMap;

/// The root directory's id.
pub(super) const ROOT: INodeId = INodeId(1);

/// The tree of files and directories. Every change goes through the methods that take a [`Ledger`].
#[derive(Debug)]
pub(super) struct Namespace {
    inodes: IdMap<INode>,
    pub(super) names: Names,
    directories: u64,
}

/// How far a path leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Walk {
    /// To the end.
    Found(INodeId),
    /// To this directory, which does not hold the next name; `left` names are left, that one included.
    Missing { parent: INodeId, left: usize },
    /// To a file, with names left.
    Blocked,
}

impl Namespace {
    /// No inode at all.
    pub(super) fn new() -> Self {
        Self { inodes: IdMap::new(), names: Names::default(), directories: 0 }
    }

    pub(super) fn get(&self, id: INodeId) -> Option<&INode> {
        self.inodes.get(id.0)
    }

    pub(super) fn directories(&self) -> u64 {
        self.directories
    }

    pub(super) fn files(&self) -> u64 {
        self.inodes.len() as u64 - self.directories
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (INodeId, &INode)> {
        self.inodes.iter().map(|(id, inode)| (INodeId(id), inode))
    }

    /// All inodes from an id on, ascending.
    pub(super) fn iter_from(&self, from: INodeId) -> impl Iterator<Item = (INodeId, &INode)> {
        self.inodes.iter_from(from.0).map(|(id, inode)| (INodeId(id), inode))
    }

    pub(super) fn child(&self, parent: INodeId, name: &str) -> Option<INodeId> {
        self.get(parent)?.children()?.get(name).copied()
    }

    /// Follows a path as far as it leads. `enter` is asked at every directory before a name is looked up in it.
    pub(super) fn walk<E>(&self, path: &DfsPath, mut enter: impl FnMut(&INode) -> Result<(), E>) -> Result<Walk, E> {
        let mut at = ROOT;
        let mut names = path.components();
        while let Some(name) = names.next() {
            let inode = self.get(at).expect("what an edge leads to is there");
            let Some(children) = inode.children() else { return Ok(Walk::Blocked) };
            enter(inode)?;
            let Some(next) = children.get(name) else {
                return Ok(Walk::Missing { parent: at, left: names.count() + 1 });
            };
            at = *next;
        }
        Ok(Walk::Found(at))
    }

    /// The path of an inode, for messages. None if it is not there, or its name is one of very many.
    pub(super) fn path_of(&self, id: INodeId) -> Option<String> {
        const SEARCH: usize = 10_000;
        let (mut at, mut names) = (id, Vec::new());
        while at != ROOT {
            let parent = self.get(at)?.parent;
            let children = self.get(parent)?.children()?;
            let (name, _) = children.iter().take(SEARCH).find(|(_, child)| **child == at)?;
            names.push(name.as_ref());
            at = parent;
        }
        names.reverse();
        Some(format!("/{}", names.join("/")))
    }

    /// The record of an inode.
    pub(super) fn record(&self, id: INodeId) -> Option<RecordRef<'_>> {
        Some(record(&self.names, id, self.get(id)?))
    }

    pub(super) fn insert(&mut self, ledger: &mut Ledger, id: INodeId, inode: INode) {
        ledger.add(&record(&self.names, id, &inode));
        self.directories += u64::from(inode.is_directory());
        let before = self.inodes.insert(id.0, inode);
        assert!(before.is_none(), "{id} is never given out twice");
    }

    /// Changes what an inode's record holds.
    pub(super) fn change(&mut self, ledger: &mut Ledger, id: INodeId, change: impl FnOnce(&mut INode)) {
        let inode = self.inodes.get_mut(id.0).expect("the caller looked it up");
        ledger.subtract(&record(&self.names, id, inode));
        change(inode);
        ledger.add(&record(&self.names, id, inode));
    }

    /// Changes what is not in an inode's record: its blocks.
    pub(super) fn get_mut(&mut self, id: INodeId) -> Option<&mut INode> {
        self.inodes.get_mut(id.0)
    }

    pub(super) fn remove(&mut self, ledger: &mut Ledger, id: INodeId) -> INode {
        let inode = self.inodes.remove(id.0).expect("the caller looked it up");
        ledger.subtract(&record(&self.names, id, &inode));
        self.directories -= u64::from(inode.is_directory());
        inode
    }

    /// Puts `child` under a name into a directory that does not hold the name.
    pub(super) fn link(&mut self, ledger: &mut Ledger, parent: INodeId, name: &str, child: INodeId, time: WallTime) {
        ledger.add(&edge(parent, name, child));
        self.change(ledger, parent, |directory| {
            directory.modified = directory.modified.max(time);
            let children = directory.children_mut().expect("the caller checked that it is a directory");
            let before = children.insert(name.into(), child);
            assert!(before.is_none(), "the caller checked that the name is free");
        });
        self.inodes.get_mut(child.0).expect("the child is there").parent = parent;
    }

    /// Takes a name out of a directory.
    pub(super) fn unlink(&mut self, ledger: &mut Ledger, parent: INodeId, name: &str, time: WallTime) -> INodeId {
        let mut child = None;
        self.change(ledger, parent, |directory| {
            directory.modified = directory.modified.max(time);
            child = directory.children_mut().and_then(|children| children.remove(name));
        });
        let child = child.expect("the caller looked it up");
        ledger.subtract(&edge(parent, name, child));
        child
    }

    /// Takes a record of an image.
    pub(super) fn restore(&mut self, ledger: &mut Ledger, id: INodeId, inode: INode) -> Result<(), String> {
        if self.inodes.contains(id.0) {
            return Err(format!("{id} is there twice"));
        }
        self.insert(ledger, id, inode);
        Ok(())
    }

    /// Ties a child to its parent by an image's edge, when all inodes are there.
    pub(super) fn restore_edge(&mut self, ledger: &mut Ledger, record: EdgeRecord) -> Result<(), String> {
        let EdgeRecord { parent, name, child } = record;
        let inode = self.inodes.get_mut(child.0).ok_or_else(|| format!("{child}, the child of an edge, is missing"))?;
        if child == ROOT || inode.parent != INodeId(0) {
            return Err(format!("{child} stands in two places"));
        }
        inode.parent = parent;
        let directory = self.inodes.get_mut(parent.0);
        let children = directory.and_then(INode::children_mut);
        let children = children.ok_or_else(|| format!("{parent}, the parent of {child}, is not a directory"))?;
        ledger.add(&edge(parent, &name, child));
        match children.insert(name, child) {
            None => Ok(()),
            Some(other) => Err(format!("{parent} holds {child} and {other} under one name")),
        }
    }

    /// All edges, as records.
    pub(super) fn edges(&self) -> impl Iterator<Item = EdgeRecord<&str>> {
        self.iter().flat_map(|(parent, inode)| {
            let children = inode.children().into_iter().flat_map(Children::iter);
            children.map(move |(name, child)| EdgeRecord { parent, name: name.as_ref(), child: *child })
        })
    }

    /// Asserts what must hold at any time.
    pub(super) fn check(&self) {
        let root = self.get(ROOT).expect("there is a root");
        assert!(root.is_directory() && root.parent == ROOT, "the root is a directory in itself");
        let (mut edges, mut directories) = (0, 0);
        for (id, inode) in self.iter() {
            directories += u64::from(inode.is_directory());
            for (name, child) in inode.children().into_iter().flatten() {
                edges += 1;
                let found = self.get(*child).unwrap_or_else(|| panic!("{id} holds {name:?}, {child}: it is gone"));
                assert_eq!(found.parent, id, "{child} knows its parent");
            }
        }
        // Every inode but the root has one edge; with parents known above, none is a circle off the tree unless its
        // members hold one another, which ids in ascending order of creation and the check of renames rule out.
        assert_eq!(edges + 1, self.inodes.len(), "every inode stands in one place");
        assert_eq!(directories, self.directories);
        for (id, _) in self.iter() {
            let (mut at, mut steps) = (id, 0);
            while at != ROOT {
                at = self.get(at).expect("parents are there").parent;
                steps += 1;
                assert!(steps <= self.inodes.len(), "{id} hangs on the root");
            }
        }
    }
}

fn record<'a>(names: &'a Names, id: INodeId, inode: &INode) -> RecordRef<'a> {
    let kind = match &inode.content {
        Content::Directory(_) => INodeKind::Directory,
        Content::File(file) => INodeKind::File {
            replication: file.replication,
            block_len_bytes: file.block_len.bytes(),
            writer: file
                .writer
                .as_ref()
                .map(|writer| WriterRecord { client: writer.client, user: names.text(writer.user) }),
        },
    };
    ImageRecord::INode(INodeRecord {
        id,
        owner: names.text(inode.owner),
        group: names.text(inode.group),
        mode: inode.mode,
        modified: inode.modified,
        kind,
    })
}

pub(super) fn edge(parent: INodeId, name: &str, child: INodeId) -> RecordRef<'_> {
    ImageRecord::Edge(EdgeRecord { parent, name, child })
}
