//! An ordered map of bytes that survives restarts.
//!
//! It is an index, rebuildable from elsewhere, and never the only holder of something acknowledged. One suite checks what
//! is promised here against [`SledStore`] and [`MemoryStore`].

mod memory;
mod sled;
#[cfg(test)]
mod suite;

pub use self::memory::MemoryStore;
pub use self::sled::{SledStore, open_sled};

use std::path::{Path, PathBuf};

/// An ordered map of bytes. The calls block; see [`Runtime::blocking`](crate::Runtime::blocking).
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Sets (or, with none, removes) many keys in one step: after a crash all of it is there, or nothing, and nothing
    /// that was written later without it. Of several entries for one key the last counts.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    fn write(&self, batch: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), StoreError>;

    /// All entries from key `from` on, ascending.
    fn scan(&self, from: &[u8]) -> Box<dyn Iterator<Item = Result<Entry, StoreError>> + '_>;

    /// Waits until all that was written is on the disk, for sure.
    ///
    /// # Errors
    /// When the disk fails. The store is then of no more use: every later call fails.
    fn sync(&self) -> Result<(), StoreError>;
}

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// What a store could not do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("store {}: {operation}: {reason}", path.display())]
pub struct StoreError {
    /// Where the store is.
    pub path: PathBuf,
    /// What was tried.
    pub operation: &'static str,
    /// What is known.
    pub reason: String,
}

impl StoreError {
    /// `operation` on the store in `path` failed for `reason`.
    #[must_use]
    pub fn new(path: &Path, operation: &'static str, reason: impl Into<String>) -> Self {
        Self { path: path.to_owned(), operation, reason: reason.into() }
    }
}
