use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::disk::{DirectoryEntry, Disk, DiskError, DiskErrorKind, File, OpenMode, Space};
use crate::store::{Entry, Store, StoreError};

/// Files in memory, until `disk::memory` lands: nothing is lost when it crashes.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Contents>,
    directories: BTreeSet<PathBuf>,
    stores: BTreeMap<PathBuf, Entries>,
}

type Contents = Arc<Mutex<Vec<u8>>>;
type Entries = Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// An open file in memory.
#[derive(Debug)]
pub struct MemoryFile(Contents);

impl MemoryDisk {
    pub(super) fn new(_seed: u64) -> Self {
        Self::default()
    }

    #[allow(clippy::unused_self)]
    pub(super) fn crash(&self) {}

    pub(super) fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(MemoryStore(Arc::clone(lock(&self.shared).stores.entry(path.to_owned()).or_default()))))
    }
}

fn error(path: &Path, operation: &'static str, kind: DiskErrorKind) -> DiskError {
    DiskError { path: path.to_owned(), operation, kind }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk for MemoryDisk {
    type File = MemoryFile;
    type Lock = ();

    fn open(&self, path: &Path, mode: OpenMode) -> Result<MemoryFile, DiskError> {
        let mut state = lock(&self.shared);
        let there = state.files.get(path).cloned();
        match (mode, there) {
            (OpenMode::Read | OpenMode::Write, Some(file)) => Ok(MemoryFile(file)),
            (OpenMode::Read | OpenMode::Write, None) => Err(error(path, "open", DiskErrorKind::NotFound)),
            (OpenMode::CreateNew, Some(_)) => Err(error(path, "open", DiskErrorKind::AlreadyExists)),
            (OpenMode::CreateNew | OpenMode::Truncate, _) => {
                let file = Contents::default();
                state.files.insert(path.to_owned(), Arc::clone(&file));
                Ok(MemoryFile(file))
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), DiskError> {
        let mut state = lock(&self.shared);
        let file = state.files.remove(from).ok_or_else(|| error(from, "rename", DiskErrorKind::NotFound))?;
        state.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        lock(&self.shared).files.remove(path).map(drop).ok_or_else(|| error(path, "remove", DiskErrorKind::NotFound))
    }

    fn remove_directory(&self, path: &Path) -> Result<(), DiskError> {
        let mut state = lock(&self.shared);
        state.files.retain(|file, _| !file.starts_with(path));
        state.directories.retain(|directory| !directory.starts_with(path));
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> Result<(), DiskError> {
        lock(&self.shared).directories.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn list(&self, path: &Path) -> Result<Vec<DirectoryEntry>, DiskError> {
        let state = lock(&self.shared);
        let name = |child: &Path| match child.parent() {
            Some(parent) if parent == path => Some(child.file_name()?.to_string_lossy().into_owned()),
            _ => None,
        };
        let mut entries: Vec<_> = state
            .files
            .iter()
            .filter_map(|(file, contents)| {
                let len_bytes = u64::try_from(lock(contents).len()).unwrap_or(u64::MAX);
                Some(DirectoryEntry { name: name(file)?, is_directory: false, len_bytes })
            })
            .collect();
        let directory = |path: &PathBuf| Some(DirectoryEntry { name: name(path)?, is_directory: true, len_bytes: 0 });
        entries.extend(state.directories.iter().filter_map(directory));
        entries.sort();
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        let state = lock(&self.shared);
        Ok(state.files.contains_key(path) || state.directories.contains(path))
    }

    fn sync_directory(&self, _path: &Path) -> Result<(), DiskError> {
        Ok(())
    }

    fn space(&self, _path: &Path) -> Result<Space, DiskError> {
        Ok(Space { capacity_bytes: 1 << 40, free_bytes: 1 << 40 })
    }

    fn lock(&self, _directory: &Path) -> Result<(), DiskError> {
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, len_bytes: usize) -> Result<Bytes, DiskError> {
        let contents = lock(&self.0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(contents.len());
        Ok(Bytes::copy_from_slice(&contents[start..start.saturating_add(len_bytes).min(contents.len())]))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut contents = lock(&self.0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if contents.len() < start + bytes.len() {
            contents.resize(start + bytes.len(), 0);
        }
        contents[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn start_write_back(&self, _offset: u64, _len_bytes: u64) {}

    fn len(&self) -> Result<u64, DiskError> {
        Ok(u64::try_from(lock(&self.0).len()).unwrap_or(u64::MAX))
    }

    fn set_len(&self, len_bytes: u64) -> Result<(), DiskError> {
        lock(&self.0).resize(usize::try_from(len_bytes).unwrap_or(usize::MAX), 0);
        Ok(())
    }
}

struct MemoryStore(Entries);

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(lock(&self.0).get(key).cloned())
    }

    fn write(&self, batch: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut entries = lock(&self.0);
        for (key, value) in batch {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, from: &[u8]) -> Box<dyn Iterator<Item = Result<Entry, StoreError>> + '_> {
        let entries: Vec<_> = lock(&self.0).range(from.to_vec()..).map(|(k, v)| Ok((k.clone(), v.clone()))).collect();
        Box::new(entries.into_iter())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
