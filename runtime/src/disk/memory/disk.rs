use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fastrand::Rng;

use super::content::{Content, Mood};
use super::names::{DirectoryId, Names, Node, ROOT};
use crate::disk::{DirectoryEntry, Disk, DiskError, DiskErrorKind, File, LOCK_NAME, OpenMode, Space};

/// A disk in memory. Every clone is the same disk. Relative paths start at its root; `..` is refused.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    tree: Arc<Mutex<Tree>>,
    usage: Arc<Usage>,
}

#[derive(Debug)]
struct Tree {
    names: Names<Stored>,
    /// The directories that are held, each by a holder with a number.
    locks: BTreeMap<PathBuf, u64>,
    next_holder: u64,
}

#[derive(Debug)]
struct Usage {
    capacity_bytes: u64,
    used_bytes: AtomicU64,
}

/// A file, whatever its name is.
#[derive(Debug)]
struct Stored {
    content: Mutex<Content>,
    /// Whether it has a name, and so counts as used room.
    linked: AtomicBool,
    /// Set by a power cut: whoever has it open is gone.
    crashed: AtomicBool,
}

type Kind<T> = Result<T, DiskErrorKind>;

impl MemoryDisk {
    /// An empty disk with so much room.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Self {
        let tree = Tree { names: Names::new(), locks: BTreeMap::new(), next_holder: 0 };
        let usage = Usage { capacity_bytes, used_bytes: AtomicU64::new(0) };
        Self { tree: Arc::new(Mutex::new(tree)), usage: Arc::new(usage) }
    }

    /// Cuts the power: what was synced stays, `seed` decides what becomes of the rest, and open files and locks are
    /// gone. The same seed after the same calls leaves the same disk.
    pub fn crash(&self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut tree = locked(&self.tree);
        let mood = Mood::choose(&mut rng);
        tree.locks.clear();
        tree.names.crash(mood, &mut rng);
        let mut used_bytes = 0;
        tree.names.replace_files(|file| {
            file.crashed.store(true, Ordering::Relaxed);
            let mut content = std::mem::take(&mut *locked(&file.content));
            content.crash(mood, &mut rng);
            used_bytes += content.bytes().len() as u64;
            Arc::new(Stored::new(content))
        });
        self.usage.used_bytes.store(used_bytes, Ordering::Relaxed);
    }

    /// Frees every directory that is held: the process that held it is dead.
    pub fn release_locks(&self) {
        locked(&self.tree).locks.clear();
    }

    /// Lets a write-back of the file fail behind everyone's back, as Linux does when a sync fails: what is not synced is
    /// seen by all, counts as written, and will never be on the disk unless it is written again.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn fail_write_back(&self, path: &Path) -> Result<(), DiskError> {
        locked(&self.open(path, OpenMode::Read)?.stored.content).doom();
        Ok(())
    }

    /// Makes one step on the tree; an error becomes one of `operation` on `path`.
    fn step<T>(
        &self,
        path: &Path,
        operation: &'static str,
        act: impl FnOnce(&mut Tree) -> Kind<T>,
    ) -> Result<T, DiskError> {
        act(&mut locked(&self.tree)).map_err(|kind| DiskError::new(path, operation, kind))
    }
}

impl Default for MemoryDisk {
    /// One with room for a tebibyte, that is for all that fits into memory.
    fn default() -> Self {
        Self::new(1 << 40)
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = MemoryLock;

    fn open(&self, path: &Path, mode: OpenMode) -> Result<MemoryFile, DiskError> {
        let (stored, found) = self.step(path, "open", |tree| {
            let (directory, name) = tree.place(path)?;
            let create = matches!(mode, OpenMode::CreateNew | OpenMode::Truncate | OpenMode::Stream);
            match tree.names.get(directory, name) {
                Some(Node::Directory(_)) => Err(other("it is a directory")),
                Some(Node::File(_)) if mode == OpenMode::CreateNew => Err(DiskErrorKind::AlreadyExists),
                Some(Node::File(stored)) => Ok((stored.clone(), true)),
                None if !create => Err(DiskErrorKind::NotFound),
                None => {
                    let stored = Arc::new(Stored::new(Content::default()));
                    tree.names.link(directory, name, Node::File(stored.clone()));
                    Ok((stored, false))
                }
            }
        })?;
        let file =
            MemoryFile { stored, path: path.to_owned(), usage: self.usage.clone(), writable: mode != OpenMode::Read };
        if found && matches!(mode, OpenMode::Truncate | OpenMode::Stream) {
            file.set_len(0)?;
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        self.step(from, "rename", |tree| {
            let (from_directory, from_name) = tree.place(from)?;
            let (to_directory, to_name) = tree.place(to)?;
            let moved = tree.names.get(from_directory, from_name).ok_or(DiskErrorKind::NotFound)?;
            match (moved, tree.names.get(to_directory, to_name)) {
                (Node::Directory(_), _) if normal(to)?.starts_with(&normal(from)?) && normal(to)? != normal(from)? => {
                    return Err(other("a directory cannot be moved into itself"));
                }
                (_, None) | (Node::File(_), Some(Node::File(_))) => {}
                (Node::Directory(_), Some(Node::Directory(target))) if tree.names.entries(*target).is_empty() => {}
                (Node::Directory(_), Some(Node::Directory(_))) => return Err(other("the target is not empty")),
                (Node::File(_), Some(Node::Directory(_))) => return Err(other("the target is a directory")),
                (Node::Directory(_), Some(Node::File(_))) => return Err(other("the target is not a directory")),
            }
            if let Some(Node::File(replaced)) = tree.names.rename((from_directory, from_name), (to_directory, to_name))
            {
                replaced.unlink(&self.usage);
            }
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        self.step(path, "remove", |tree| {
            let (directory, name) = tree.place(path)?;
            match tree.names.get(directory, name) {
                None => return Err(DiskErrorKind::NotFound),
                Some(Node::Directory(_)) => return Err(other("it is a directory")),
                Some(Node::File(stored)) => stored.unlink(&self.usage),
            }
            tree.names.unlink(directory, name);
            Ok(())
        })
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(path, "remove directory", |tree| {
            let (directory, name) = match tree.place(path) {
                Err(DiskErrorKind::NotFound) => return Ok(()),
                place => place?,
            };
            match tree.names.get(directory, name) {
                None => Ok(()),
                Some(Node::File(_)) => Err(other("it is not a directory")),
                Some(Node::Directory(id)) => {
                    let id = *id;
                    tree.empty(id, &self.usage);
                    tree.names.unlink(directory, name);
                    Ok(())
                }
            }
        })
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(path, "create directory", |tree| {
            let mut directory = ROOT;
            for name in normal(path)? {
                directory = match tree.names.get(directory, name) {
                    Some(Node::Directory(id)) => *id,
                    Some(Node::File(_)) => return Err(DiskErrorKind::AlreadyExists),
                    None => {
                        let id = tree.names.make_directory();
                        tree.names.link(directory, name, Node::Directory(id));
                        tree.names.sync(directory);
                        id
                    }
                };
            }
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        self.step(path, "list", |tree| {
            let directory = tree.directory(&normal(path)?)?;
            let entries = tree.names.entries(directory).iter().map(|(name, node)| {
                let (is_directory, len_bytes) = match node {
                    Node::Directory(_) => (true, 0),
                    Node::File(stored) => (false, locked(&stored.content).bytes().len() as u64),
                };
                DirectoryEntry { name: name.clone(), is_directory, len_bytes }
            });
            Ok(entries.collect())
        })
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.step(path, "look for", |tree| {
            let found = match normal(path)?.as_slice() {
                [] => true,
                [directory @ .., name] => {
                    tree.directory(directory).is_ok_and(|directory| tree.names.get(directory, name).is_some())
                }
            };
            Ok(found)
        })
    }

    fn sync_directory(&self, path: &Path) -> Result<(), DiskError> {
        self.step(path, "sync directory", |tree| {
            let directory = tree.directory(&normal(path)?)?;
            tree.names.sync(directory);
            Ok(())
        })
    }

    fn space(&self, path: &Path) -> Result<Space, DiskError> {
        self.step(path, "measure", |tree| tree.directory(&normal(path)?))?;
        let capacity_bytes = self.usage.capacity_bytes;
        let free_bytes = capacity_bytes.saturating_sub(self.usage.used_bytes.load(Ordering::Relaxed));
        Ok(Space { capacity_bytes, free_bytes })
    }

    fn lock(&self, directory: &Path) -> Result<MemoryLock, DiskError> {
        let path = directory.join(LOCK_NAME);
        self.step(&path, "lock", |tree| {
            let (parent, name) = tree.place(&path)?;
            let key: PathBuf = normal(directory)?.iter().collect();
            if tree.locks.contains_key(&key) {
                return Err(DiskErrorKind::Locked);
            }
            if tree.names.get(parent, name).is_none() {
                tree.names.link(parent, name, Node::File(Arc::new(Stored::new(Content::default()))));
            }
            let holder = tree.next_holder;
            tree.next_holder += 1;
            tree.locks.insert(key.clone(), holder);
            Ok(MemoryLock { disk: self.clone(), directory: key, holder })
        })
    }
}

impl Tree {
    /// The directory with that path.
    fn directory(&self, path: &[&str]) -> Kind<DirectoryId> {
        path.iter().try_fold(ROOT, |directory, name| match self.names.get(directory, name) {
            Some(Node::Directory(id)) => Ok(*id),
            Some(Node::File(_)) => Err(other("a part of the path is not a directory")),
            None => Err(DiskErrorKind::NotFound),
        })
    }

    /// The directory in which `path` is, and the name there.
    fn place<'p>(&self, path: &'p Path) -> Kind<(DirectoryId, &'p str)> {
        match normal(path)?.as_slice() {
            [] => Err(other("it is the root")),
            [directory @ .., name] => Ok((self.directory(directory)?, name)),
        }
    }

    /// Deletes all that is in the directory.
    fn empty(&mut self, directory: DirectoryId, usage: &Usage) {
        for (name, node) in self.names.entries(directory).clone() {
            match node {
                Node::File(stored) => stored.unlink(usage),
                Node::Directory(id) => self.empty(id, usage),
            }
            self.names.unlink(directory, &name);
        }
    }
}

/// An open file.
#[derive(Debug)]
pub struct MemoryFile {
    stored: Arc<Stored>,
    path: PathBuf,
    usage: Arc<Usage>,
    writable: bool,
}

impl MemoryFile {
    /// Acts on what the file holds.
    fn step<T>(&self, operation: &'static str, act: impl FnOnce(&mut Content) -> Kind<T>) -> Result<T, DiskError> {
        let mut content = locked(&self.stored.content);
        let result = if self.stored.crashed.load(Ordering::Relaxed) {
            Err(other("it was opened before the power was cut"))
        } else {
            act(&mut content)
        };
        result.map_err(|kind| DiskError::new(&self.path, operation, kind))
    }

    /// Takes room for growing from `from` to `to`; gives back up to which length there is room.
    fn grow(&self, from: usize, to: usize) -> usize {
        if to <= from || !self.stored.linked.load(Ordering::Relaxed) {
            return to;
        }
        let mut taken = 0;
        let capacity = self.usage.capacity_bytes;
        let _always_changed = self.usage.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            taken = capacity.saturating_sub(used).min((to - from) as u64);
            Some(used + taken)
        });
        from + usize::try_from(taken).unwrap_or(usize::MAX)
    }

    fn may_write(&self) -> Kind<()> {
        if self.writable { Ok(()) } else { Err(other("it is open for reading only")) }
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        self.step("read", |content| {
            let bytes = content.bytes();
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            let to = from.saturating_add(len_bytes).min(bytes.len());
            Ok(Bytes::copy_from_slice(&bytes[from..to]))
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.step("write", |content| {
            self.may_write()?;
            if bytes.is_empty() {
                return Ok(());
            }
            let from = usize::try_from(offset).map_err(|_| DiskErrorKind::Full)?;
            let to = from.checked_add(bytes.len()).ok_or(DiskErrorKind::Full)?;
            let old_len = content.bytes().len();
            let end = self.grow(old_len, to);
            if end < to {
                // As on a real disk what fits is written.
                let fitting = end.saturating_sub(from);
                if fitting > 0 {
                    content.write(from, &bytes[..fitting]);
                } else {
                    self.usage.used_bytes.fetch_sub((end - old_len) as u64, Ordering::Relaxed);
                }
                return Err(DiskErrorKind::Full);
            }
            content.write(from, bytes);
            Ok(())
        })
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.step("sync", |content| {
            content.sync();
            Ok(())
        })
    }

    fn start_write_back(&self, _offset: u64, _len_bytes: u64) {}

    fn len(&self) -> Result<u64, DiskError> {
        self.step("measure", |content| Ok(content.bytes().len() as u64))
    }

    fn set_len(&self, len_bytes: u64) -> Result<(), DiskError> {
        self.step("set the length of", |content| {
            self.may_write()?;
            let len = usize::try_from(len_bytes).map_err(|_| DiskErrorKind::Full)?;
            let old_len = content.bytes().len();
            let end = self.grow(old_len, len);
            if end < len {
                self.usage.used_bytes.fetch_sub((end - old_len) as u64, Ordering::Relaxed);
                return Err(DiskErrorKind::Full);
            }
            if len < old_len && self.stored.linked.load(Ordering::Relaxed) {
                self.usage.used_bytes.fetch_sub((old_len - len) as u64, Ordering::Relaxed);
            }
            content.set_len(len);
            Ok(())
        })
    }
}

impl Stored {
    fn new(content: Content) -> Self {
        Self { content: Mutex::new(content), linked: AtomicBool::new(true), crashed: AtomicBool::new(false) }
    }

    /// It has lost its name: its room is free.
    fn unlink(&self, usage: &Usage) {
        let content = locked(&self.content);
        if self.linked.swap(false, Ordering::Relaxed) {
            usage.used_bytes.fetch_sub(content.bytes().len() as u64, Ordering::Relaxed);
        }
    }
}

/// Holds a directory until it is dropped or the power is cut.
#[derive(Debug)]
pub struct MemoryLock {
    disk: MemoryDisk,
    directory: PathBuf,
    holder: u64,
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut tree = locked(&self.disk.tree);
        if tree.locks.get(&self.directory) == Some(&self.holder) {
            tree.locks.remove(&self.directory);
        }
    }
}

/// The names that `path` leads through.
fn normal(path: &Path) -> Kind<Vec<&str>> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_str().ok_or_else(|| other("the name is not UTF-8"))),
        Component::ParentDir => Some(Err(other("`..` is not supported here"))),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    names.collect()
}

fn other(reason: &str) -> DiskErrorKind {
    DiskErrorKind::Other(reason.to_owned())
}

/// A holder that panicked has left every state behind these locks whole: each step checks first and then changes.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::suite;

    #[test]
    fn keeps_the_promises_of_a_disk() {
        suite::check(&MemoryDisk::default(), Path::new("/suite"));
    }

    #[test]
    fn what_was_synced_survives_every_power_cut() {
        let mut unsynced_seen = 0;
        for seed in 0..200 {
            let disk = MemoryDisk::default();
            disk.create_directory(Path::new("/d")).unwrap();
            let file = disk.open(Path::new("/d/f"), OpenMode::CreateNew).unwrap();
            file.write_at(0, &[1; 5000]).unwrap();
            file.sync().unwrap();
            disk.sync_directory(Path::new("/d")).unwrap();
            file.write_at(5000, &[2; 5000]).unwrap();
            disk.write_atomically(Path::new("/d/g"), b"whole").unwrap();
            disk.open(Path::new("/d/h"), OpenMode::CreateNew).unwrap();
            disk.crash(seed);

            assert_eq!(disk.read(Path::new("/d/f"), 1 << 20).unwrap()[..5000], [1; 5000]);
            assert_eq!(disk.read(Path::new("/d/g"), 5).unwrap(), "whole");
            assert!(file.read_at(0, 1).is_err(), "an open file outlived its process");
            unsynced_seen += u32::from(disk.exists(Path::new("/d/h")).unwrap());
        }
        assert!((20..180).contains(&unsynced_seen), "{unsynced_seen}");
    }

    #[test]
    fn the_same_seed_leaves_the_same_disk() {
        let run = |seed| {
            let disk = MemoryDisk::default();
            for number in 0_u8..20 {
                let file = disk.open(Path::new(&format!("/f{number}")), OpenMode::CreateNew).unwrap();
                file.write_at(0, &[number; 3000]).unwrap();
            }
            disk.crash(seed);
            let mut left = Vec::new();
            for entry in disk.list(Path::new("/")).unwrap() {
                left.push((disk.read(Path::new(&entry.name), 1 << 20).unwrap(), entry));
            }
            left
        };
        assert_eq!(run(7), run(7));
        assert!((0..10).any(|seed| run(seed) != run(7)));
    }

    #[test]
    fn a_power_cut_frees_locks_and_a_lock_from_before_frees_no_other() {
        let disk = MemoryDisk::default();
        let before = disk.lock(Path::new("/")).unwrap();
        disk.crash(1);
        let _after = disk.lock(Path::new("/")).unwrap();
        drop(before);
        assert_eq!(disk.lock(Path::new("/")).unwrap_err().kind, DiskErrorKind::Locked);
    }

    #[test]
    fn room_runs_out_and_comes_back() {
        let disk = MemoryDisk::new(1000);
        let path = Path::new("/f");
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        assert_eq!(file.write_at(0, &[1; 1001]).unwrap_err().kind, DiskErrorKind::Full);
        assert_eq!(file.len().unwrap(), 1000);
        assert_eq!(file.set_len(1001).unwrap_err().kind, DiskErrorKind::Full);
        file.set_len(400).unwrap();
        assert_eq!(disk.space(Path::new("/")).unwrap(), Space { capacity_bytes: 1000, free_bytes: 600 });
        assert_eq!(file.write_at(1200, &[1]).unwrap_err().kind, DiskErrorKind::Full);
        assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 600);
        disk.remove_file(path).unwrap();
        assert_eq!(disk.space(Path::new("/")).unwrap().free_bytes, 1000);
    }
}
