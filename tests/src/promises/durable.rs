//! Every byte acknowledged by `close` or `hsync` is read back equal after any loss of up to r-1 replicas, and after a
//! power cut of all nodes.
//!
//! A test that destroys disks leaves at least one good replica of every block, so that a block without any was lost by
//! the system and not by the test.

use situ_wire::block::{Block, BlockRoot};

/// A block that was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promised {
    /// Which, in the life in which it was committed.
    pub block: Block,
    /// How many bytes it has.
    pub len_bytes: u64,
    /// What they hash to.
    pub root: BlockRoot,
}

/// A replica as it lies on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// Of which block, in which life.
    pub block: Block,
    /// How many bytes it has.
    pub len_bytes: u64,
    /// What they hash to.
    pub root: BlockRoot,
    /// Whether it is final and would be found after a restart.
    pub is_final: bool,
}

impl Promised {
    /// Whether a replica holds what was promised.
    #[must_use]
    pub fn is_held_by(&self, stored: &Stored) -> bool {
        stored.is_final && stored.block == self.block && stored.len_bytes == self.len_bytes && stored.root == self.root
    }
}

/// A block that was acknowledged cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {block} was acknowledged, but no disk holds a good replica of it")]
pub struct Unreadable {
    /// Of which file.
    pub path: String,
    /// Which block.
    pub block: Block,
}

/// Checks that a promised block of the file at `path` is held by one of `replicas` at least.
///
/// # Errors
/// When it is not.
pub fn check<'a>(
    path: &str,
    promised: &Promised,
    mut replicas: impl Iterator<Item = &'a Stored>,
) -> Result<(), Unreadable> {
    if replicas.any(|stored| promised.is_held_by(stored)) {
        return Ok(());
    }
    Err(Unreadable { path: path.to_owned(), block: promised.block })
}
