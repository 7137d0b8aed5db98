use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Entry, Store, StoreError};

/// A [`Store`] in sled 0.34, on the machine's file system.
///
/// What sled promises is mended in two places. Its `flush` only begins to write (`sync_file_range`), and it drops the
/// errors of the `fsync` that follows later: [`Store::sync`] syncs every file itself. And it meets some damage with a
/// panic, which becomes a [`StoreError`] here. What it does not see at all is damage that makes keys vanish: who keeps
/// something in it must be able to tell, by a count or a digest.
#[derive(Debug)]
pub struct SledStore {
    db: sled::Db,
    path: PathBuf,
    /// After damage, or a sync that failed, nothing is known of what is there.
    failed: AtomicBool,
}

/// Opens the store in the directory `path`, or makes one.
///
/// # Errors
/// When it is damaged, another process has it open, or its disk fails.
pub fn open_sled(path: &Path) -> Result<SledStore, StoreError> {
    SledStore::open(path)
}

impl SledStore {
    /// Opens the store in the directory `path`, or makes one.
    ///
    /// # Errors
    /// When it is damaged, another process has it open, or its disk fails.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // Nothing is flushed behind our back: whoever writes calls `sync` when it matters.
        let config = sled::Config::new().path(path).cache_capacity(CACHE_LEN_BYTES).flush_every_ms(None);
        let db = guarded(|| config.open()).map_err(|reason| StoreError::new(path, "open", reason))?;
        Ok(Self { db, path: path.to_owned(), failed: AtomicBool::new(false) })
    }

    /// Lets sled act. An error is final.
    fn step<T>(&self, operation: &'static str, act: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        self.usable(operation)?;
        guarded(act).map_err(|reason| self.fail(operation, reason))
    }

    fn usable(&self, operation: &'static str) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::new(&self.path, operation, "it has failed before: open it anew"));
        }
        Ok(())
    }

    fn fail(&self, operation: &'static str, reason: String) -> StoreError {
        self.failed.store(true, Ordering::Release);
        StoreError::new(&self.path, operation, reason)
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.step("get", || self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn write(&self, batch: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        self.step("write", || self.db.apply_batch(changes))
    }

    fn scan(&self, from: &[u8]) -> Box<dyn Iterator<Item = Result<Entry, StoreError>> + '_> {
        let mut entries = self.db.range(from.to_vec()..);
        Box::new(std::iter::from_fn(move || {
            let next = self.step("scan", || entries.next().transpose()).transpose()?;
            Some(next.map(|(key, value)| (key.to_vec(), value.to_vec())))
        }))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.step("sync", || self.db.flush())?;
        sync_all(&self.path).map_err(|error| self.fail("sync", error.to_string()))
    }
}

/// Runs `act`; gives back what is known when it fails or panics.
fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) => Err(error.to_string()),
        Ok(Err(sled::Error::Corruption { at, .. })) => Err(match at {
            Some(at) => format!("it is damaged at {at}"),
            None => "it is damaged".to_owned(),
        }),
        Ok(Err(error)) => Err(format!("it is damaged or not a store: {error}")),
        Err(panic) => Err(format!("it is damaged: {}", crate::panic_message(panic.as_ref()))),
    }
}

/// Waits until every file under `directory`, and every name there, is on the disk.
fn sync_all(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let result = match entry.file_type() {
            Ok(kind) if kind.is_dir() => sync_all(&entry.path()),
            Ok(_) => fs::File::open(entry.path()).and_then(|file| file.sync_all()),
            Err(error) => Err(error),
        };
        match result {
            // Sled removes files of its own that it needs no longer.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    fs::File::open(directory)?.sync_all()
}

/// How much of the store sled keeps in memory. Who uses a store keeps what it needs often itself.
const CACHE_LEN_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite;

    #[test]
    fn keeps_the_promises_of_a_store() {
        let directory = tempfile::tempdir().unwrap();
        suite::check(&|| Box::new(open_sled(&directory.path().join("store")).unwrap()));
    }

    #[test]
    fn a_second_holder_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _store = open_sled(directory.path()).unwrap();
        assert_eq!(open_sled(directory.path()).unwrap_err().operation, "open");
    }

    #[test]
    fn damage_is_an_error_or_shows_but_never_a_panic() {
        let mut found = 0;
        for place in 0..8 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("store");
            {
                let store = open_sled(&path).unwrap();
                for number in 0_u32..1000 {
                    store.write(vec![(number.to_be_bytes().to_vec(), Some(vec![7; 100]))]).unwrap();
                }
                store.sync().unwrap();
            }
            let mut bytes = fs::read(path.join("db")).unwrap();
            let at = bytes.len() / 8 * place + 30;
            bytes[at] ^= 0x10;
            fs::write(path.join("db"), bytes).unwrap();
            let whole = open_sled(&path).is_ok_and(|store| store.scan(&[]).map_while(Result::ok).count() == 1000);
            found += u32::from(!whole);
        }
        assert!(found > 0, "no damage had an effect");
    }
}
