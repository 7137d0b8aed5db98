//! Wrong bytes are never returned.

use situ_wire::block::{Block, BlockRoot};

/// A reader got bytes that were not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{block}: the reader got {found:?}, written was {expected:?}")]
pub struct WrongBytes {
    /// Of which block.
    pub block: Block,
    /// What was written.
    pub expected: BlockRoot,
    /// What was read.
    pub found: BlockRoot,
}

/// Checks that what a reader got is what was written.
///
/// # Errors
/// When it is not.
pub fn check(block: Block, expected: BlockRoot, found: BlockRoot) -> Result<(), WrongBytes> {
    if expected == found { Ok(()) } else { Err(WrongBytes { block, expected, found }) }
}
