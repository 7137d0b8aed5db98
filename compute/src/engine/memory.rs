use std::sync::Arc;

use crate::program::memory::MemoryManager;

/// From whom a task borrows.
#[derive(Clone)]
pub(super) struct Lender {
    pub(super) manager: Arc<MemoryManager>,
    pub(super) borrower: u64,
}

/// What a part of a task's work holds of the worker's memory, which all tasks and kept partitions share; given back when it
/// is dropped. It is counted, not allocated.
pub struct Memory {
    lender: Lender,
    held_bytes: u64,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("held_bytes", &self.held_bytes).finish_non_exhaustive()
    }
}

impl Memory {
    pub(super) fn new(lender: Lender) -> Self {
        Self { lender, held_bytes: 0 }
    }

    /// How much it holds.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Holds `more_bytes` more, if there is so much: whoever gets none spills what it has.
    #[must_use]
    pub fn try_grow(&mut self, more_bytes: u64) -> bool {
        let lent = self.lender.manager.lend(self.lender.borrower, more_bytes);
        self.held_bytes += if lent { more_bytes } else { 0 };
        lent
    }

    /// Holds `more_bytes` more, whether there is so much or not: for what cannot be done with less, and is small.
    pub fn grow(&mut self, more_bytes: u64) {
        if !self.try_grow(more_bytes) {
            self.lender.manager.lend_anyway(self.lender.borrower, more_bytes);
            self.held_bytes += more_bytes;
        }
    }

    /// Gives back `less_bytes`, at most what it holds.
    pub fn shrink(&mut self, less_bytes: u64) {
        let less_bytes = less_bytes.min(self.held_bytes);
        self.held_bytes -= less_bytes;
        self.lender.manager.give_back(self.lender.borrower, less_bytes);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shrink(self.held_bytes);
    }
}
