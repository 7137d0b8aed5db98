use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;

use super::content::{Fate, Mood};

/// Which directory.
pub(super) type DirectoryId = u64;

/// The tree of names: as a process sees it, as it is on the disk, and what leads from the one to the other.
#[derive(Debug)]
pub(super) struct Names<F> {
    directories: BTreeMap<DirectoryId, Directory<F>>,
    next: DirectoryId,
    /// Not yet synced, oldest first.
    changes: Vec<Change<F>>,
}

/// What a name stands for.
#[derive(Debug)]
pub(super) enum Node<F> {
    File(Arc<F>),
    Directory(DirectoryId),
}

#[derive(Debug)]
struct Directory<F> {
    current: BTreeMap<String, Node<F>>,
    synced: BTreeMap<String, Node<F>>,
}

#[derive(Debug)]
struct Change<F> {
    /// The name that ends.
    from: Option<(DirectoryId, String)>,
    /// The name that begins, in place of what may have had it.
    to: Option<(DirectoryId, String)>,
    /// What has the name.
    node: Node<F>,
}

impl<F> Names<F> {
    pub(super) fn new() -> Self {
        let mut names = Self { directories: BTreeMap::new(), next: ROOT, changes: Vec::new() };
        names.make_directory();
        names
    }

    /// What a process sees under that name.
    pub(super) fn get(&self, directory: DirectoryId, name: &str) -> Option<&Node<F>> {
        self.entries(directory).get(name)
    }

    /// What a process sees in the directory.
    pub(super) fn entries(&self, directory: DirectoryId) -> &BTreeMap<String, Node<F>> {
        &self.directories[&directory].current
    }

    /// A new directory that has no name yet.
    pub(super) fn make_directory(&mut self) -> DirectoryId {
        let id = self.next;
        self.next += 1;
        self.directories.insert(id, Directory { current: BTreeMap::new(), synced: BTreeMap::new() });
        id
    }

    /// Gives a node its first name; gives back what had it.
    pub(super) fn link(&mut self, directory: DirectoryId, name: &str, node: Node<F>) -> Option<Node<F>> {
        self.apply(Change { from: None, to: Some((directory, name.to_owned())), node })
    }

    /// Takes a node's name away, which must be there.
    pub(super) fn unlink(&mut self, directory: DirectoryId, name: &str) {
        if let Some(node) = self.get(directory, name).cloned() {
            self.apply(Change { from: Some((directory, name.to_owned())), to: None, node });
        }
    }

    /// Moves what has the name `from`, which must be there; gives back what had the name `to`.
    pub(super) fn rename(&mut self, from: (DirectoryId, &str), to: (DirectoryId, &str)) -> Option<Node<F>> {
        let node = self.get(from.0, from.1).cloned()?;
        if from == to {
            return None;
        }
        self.apply(Change { from: Some((from.0, from.1.to_owned())), to: Some((to.0, to.1.to_owned())), node })
    }

    /// All changes of that directory are on the disk, with those before them that they rest on.
    pub(super) fn sync(&mut self, directory: DirectoryId) {
        let mut settled = BTreeSet::from([directory]);
        let mut chosen = vec![false; self.changes.len()];
        for (change, chosen) in self.changes.iter().zip(&mut chosen).rev() {
            if change.directories().any(|touched| settled.contains(&touched)) {
                *chosen = true;
                settled.extend(change.directories());
                if let (None, Node::Directory(removed)) = (&change.to, &change.node) {
                    // What was done in a directory that is gone for good is settled as well.
                    settled.insert(*removed);
                }
            }
        }
        let mut removed = false;
        let mut chosen = chosen.into_iter();
        let (settled, left) = std::mem::take(&mut self.changes).into_iter().partition(|_| chosen.next() == Some(true));
        self.changes = left;
        for change in settled {
            removed |= matches!((&change.to, &change.node), (None, Node::Directory(_)));
            self.settle(change);
        }
        if removed {
            self.sweep();
        }
    }

    /// The power is cut: of the unsynced changes a prefix per directory stays.
    pub(super) fn crash(&mut self, mood: Mood, rng: &mut Rng) {
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let lost = change.directories().any(|touched| cut.contains(&touched));
            if lost || matches!(mood.fate(rng), Fate::Lost) {
                cut.extend(change.directories());
            } else {
                self.settle(change);
            }
        }
        for directory in self.directories.values_mut() {
            directory.current.clone_from(&directory.synced);
        }
        self.sweep();
    }

    /// Replaces every file by what `make` makes of it.
    pub(super) fn replace_files(&mut self, mut make: impl FnMut(&Arc<F>) -> Arc<F>) {
        for directory in self.directories.values_mut() {
            for (name, node) in &mut directory.current {
                if let Node::File(file) = node {
                    *file = make(file);
                    directory.synced.insert(name.clone(), node.clone());
                }
            }
        }
    }

    fn apply(&mut self, change: Change<F>) -> Option<Node<F>> {
        if let Some((directory, name)) = &change.from {
            self.directories.get_mut(directory)?.current.remove(name);
        }
        let mut replaced = None;
        if let Some((directory, name)) = &change.to {
            replaced = self.directories.get_mut(directory)?.current.insert(name.clone(), change.node.clone());
        }
        self.changes.push(change);
        if self.changes.len() > UNSYNCED_CHANGES_MAX {
            // A disk does not put off writing forever, and so that memory has a bound neither does this one.
            for settled in self.changes.drain(..UNSYNCED_CHANGES_MAX / 2).collect::<Vec<_>>() {
                self.settle(settled);
            }
            self.sweep();
        }
        replaced
    }

    /// Puts a change on the disk.
    fn settle(&mut self, change: Change<F>) {
        if let Some((directory, name)) = &change.from
            && let Some(directory) = self.directories.get_mut(directory)
        {
            directory.synced.remove(name);
        }
        if let Some((directory, name)) = change.to
            && let Some(directory) = self.directories.get_mut(&directory)
        {
            directory.synced.insert(name, change.node);
        }
    }

    /// Forgets the directories that nothing leads to.
    fn sweep(&mut self) {
        let mut reached = BTreeSet::new();
        let mut waiting = vec![ROOT];
        for change in &self.changes {
            waiting.extend(change.directories());
            if let Node::Directory(id) = &change.node {
                waiting.push(*id);
            }
        }
        while let Some(id) = waiting.pop() {
            let Some(directory) = self.directories.get(&id).filter(|_| reached.insert(id)) else { continue };
            for node in directory.current.values().chain(directory.synced.values()) {
                if let Node::Directory(id) = node {
                    waiting.push(*id);
                }
            }
        }
        self.directories.retain(|id, _| reached.contains(id));
    }
}

impl<F> Change<F> {
    fn directories(&self) -> impl Iterator<Item = DirectoryId> {
        [&self.from, &self.to].into_iter().flatten().map(|(directory, _)| *directory)
    }
}

impl<F> Clone for Node<F> {
    fn clone(&self) -> Self {
        match self {
            Self::File(file) => Self::File(file.clone()),
            Self::Directory(id) => Self::Directory(*id),
        }
    }
}

/// The root directory.
pub(super) const ROOT: DirectoryId = 0;
/// The most unsynced changes of names.
const UNSYNCED_CHANGES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn file(names: &Names<u8>, directory: DirectoryId, name: &str) -> Option<u8> {
        match names.get(directory, name)? {
            Node::File(file) => Some(**file),
            Node::Directory(_) => None,
        }
    }

    #[test]
    fn a_synced_rename_brings_what_it_rests_on() {
        let mut names = Names::new();
        let (a, b) = (names.make_directory(), names.make_directory());
        names.link(ROOT, "a", Node::Directory(a));
        names.link(ROOT, "b", Node::Directory(b));
        names.sync(ROOT);
        names.link(b, "y", Node::File(Arc::new(1)));
        names.link(a, "x", Node::File(Arc::new(2)));
        names.rename((a, "x"), (b, "y"));
        names.link(b, "z", Node::File(Arc::new(3)));
        names.sync(a);
        names.crash(Mood::LosesAll, &mut Rng::with_seed(0));
        assert_eq!((file(&names, a, "x"), file(&names, b, "y"), file(&names, b, "z")), (None, Some(2), None));
    }

    #[test]
    fn what_is_not_synced_survives_as_a_prefix() {
        let mut seen = BTreeSet::new();
        for seed in 0..100 {
            let mut names = Names::new();
            for (name, value) in [("a", 1), ("b", 2), ("c", 3)] {
                names.link(ROOT, name, Node::File(Arc::new(value)));
            }
            names.rename((ROOT, "c"), (ROOT, "a"));
            names.crash(Mood::Mixed, &mut Rng::with_seed(seed));
            seen.insert(["a", "b", "c"].map(|name| file(&names, ROOT, name)));
        }
        let expected = [
            [None, None, None],
            [Some(1), None, None],
            [Some(1), Some(2), None],
            [Some(1), Some(2), Some(3)],
            [Some(3), Some(2), None],
        ];
        assert_eq!(seen, BTreeSet::from(expected));
    }

    #[test]
    fn removed_directories_are_forgotten() {
        let mut names = Names::new();
        let a = names.make_directory();
        names.link(ROOT, "a", Node::Directory(a));
        names.link(a, "x", Node::File(Arc::new(1)));
        names.unlink(a, "x");
        names.unlink(ROOT, "a");
        names.sync(ROOT);
        assert_eq!((names.directories.len(), names.changes.len()), (1, 0));
    }
}
