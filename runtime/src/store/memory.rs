use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes};

use super::{Entry, Store, StoreError};
use crate::disk::{Disk, DiskError, File, OpenMode};

/// A [`Store`] in memory, with the log of its batches on a [`Disk`]: for simulated worlds, where a power cut must take
/// from it what it takes from a disk. It is lost with its directory, like any other.
///
/// The log is never compacted but when the store is opened: it serves a test, not a year.
#[derive(Debug)]
pub struct MemoryStore<D: Disk> {
    directory: PathBuf,
    state: Mutex<State<D::File>>,
}

#[derive(Debug)]
struct State<F> {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    log: F,
    log_len_bytes: u64,
    /// After an error nothing is known of what is there.
    failed: bool,
}

type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl<D: Disk> MemoryStore<D> {
    /// Opens the store in the directory `path`, or makes one.
    ///
    /// # Errors
    /// When its disk fails.
    pub fn open(disk: &D, path: &Path) -> Result<Self, StoreError> {
        let failed = |error: DiskError| StoreError::new(path, "open", error.to_string());
        disk.create_directory(path).map_err(failed)?;
        let name = path.join("log");
        let mut entries = BTreeMap::new();
        if disk.exists(&name).map_err(failed)? {
            let mut log = disk.read(&name, u64::MAX).map_err(failed)?;
            // What comes after a batch that did not arrive whole was never synced.
            while let Some(batch) = decode(&mut log) {
                apply(&mut entries, batch);
            }
        }
        let all = entries.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect::<Batch>();
        let log = encode(&all);
        disk.write_atomically(&name, &log).map_err(failed)?;
        let log_len_bytes = log.len() as u64;
        let log = disk.open(&name, OpenMode::Write).map_err(failed)?;
        let state = Mutex::new(State { entries, log, log_len_bytes, failed: false });
        Ok(Self { directory: path.to_owned(), state })
    }

    fn step<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut State<D::File>) -> Result<T, DiskError>,
    ) -> Result<T, StoreError> {
        let mut state = self.locked();
        if state.failed {
            return Err(StoreError::new(&self.directory, operation, "it has failed before: open it anew"));
        }
        act(&mut state).map_err(|error| {
            state.failed = true;
            StoreError::new(&self.directory, operation, error.to_string())
        })
    }

    fn locked(&self) -> MutexGuard<'_, State<D::File>> {
        // Nobody panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Disk> Store for MemoryStore<D> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.step("get", |state| Ok(state.entries.get(key).cloned()))
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.step("write", |state| {
            let bytes = encode(&batch);
            state.log.write_at(state.log_len_bytes, &bytes)?;
            state.log_len_bytes += bytes.len() as u64;
            apply(&mut state.entries, batch);
            Ok(())
        })
    }

    fn scan(&self, from: &[u8]) -> Box<dyn Iterator<Item = Result<Entry, StoreError>> + '_> {
        // A piece at a time, so that the lock is not held meanwhile.
        let mut from = Bound::Included(from.to_vec());
        let mut ready = VecDeque::new();
        Box::new(std::iter::from_fn(move || {
            if ready.is_empty() {
                let piece = self.step("scan", |state| {
                    let found = state.entries.range((from.clone(), Bound::Unbounded)).take(SCAN_ENTRIES);
                    Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect::<VecDeque<_>>())
                });
                match piece {
                    Ok(piece) => ready = piece,
                    Err(error) => return Some(Err(error)),
                }
            }
            let (key, value) = ready.pop_front()?;
            from = Bound::Excluded(key.clone());
            Some(Ok((key, value)))
        }))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.step("sync", |state| state.log.sync())
    }
}

fn apply(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
}

/// `[length u32][hash 16][entries]`, an entry being `[key length u32][1 + value length u32, or 0 for none][key][value]`.
fn encode(batch: &Batch) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).expect("memory holds no test data of that size");
    let mut payload = Vec::new();
    for (key, value) in batch {
        payload.put_u32_le(len(key.len()));
        payload.put_u32_le(value.as_ref().map_or(0, |value| 1 + len(value.len())));
        payload.put_slice(key);
        payload.put_slice(value.as_deref().unwrap_or_default());
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + payload.len());
    bytes.put_u32_le(len(payload.len()));
    bytes.put_slice(&blake3::hash(&payload).as_bytes()[..16]);
    bytes.put_slice(&payload);
    bytes
}

/// The next batch of the log; none where it ends, or breaks off.
fn decode(log: &mut Bytes) -> Option<Batch> {
    let len = log.try_get_u32_le().ok()? as usize;
    if log.len() < 16 + len {
        return None;
    }
    let hash = log.split_to(16);
    let mut payload = log.split_to(len);
    if hash != blake3::hash(&payload).as_bytes()[..16] {
        return None;
    }
    let mut batch = Batch::new();
    while let Ok(key_len) = payload.try_get_u32_le() {
        let value_len = payload.try_get_u32_le().ok()?.checked_sub(1);
        let mut take = |len: u32| (len as usize <= payload.len()).then(|| payload.split_to(len as usize).to_vec());
        let key = take(key_len)?;
        let value = match value_len {
            Some(len) => Some(take(len)?),
            None => None,
        };
        batch.push((key, value));
    }
    Some(batch)
}

const HEADER_LEN_BYTES: usize = 20;
/// How many entries a scan takes at a time.
const SCAN_ENTRIES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::memory::MemoryDisk;
    use crate::store::suite;

    #[test]
    fn keeps_the_promises_of_a_store() {
        let disk = MemoryDisk::default();
        suite::check(&|| Box::new(MemoryStore::open(&disk, Path::new("/store")).unwrap()));
    }

    #[test]
    fn a_power_cut_leaves_a_prefix_with_all_that_was_synced() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let disk = MemoryDisk::default();
            let path = Path::new("/store");
            {
                let store = MemoryStore::open(&disk, path).unwrap();
                for number in 0..10_u8 {
                    let batch = vec![(vec![number], Some(vec![number; 700])), (vec![number.wrapping_sub(1)], None)];
                    store.write(batch).unwrap();
                    if number == 4 {
                        store.sync().unwrap();
                    }
                }
            }
            disk.crash(seed);
            let entries = MemoryStore::open(&disk, path).unwrap().scan(&[]).collect::<Result<Vec<_>, _>>().unwrap();
            let [(key, value)] = entries.as_slice() else { panic!("seed {seed}: half a batch: {entries:?}") };
            assert!((4..10).contains(&key[0]) && *value == vec![key[0]; 700], "seed {seed}: {entries:?}");
            seen.insert(key[0]);
        }
        assert!(seen.len() > 3, "{seen:?}");
    }
}
