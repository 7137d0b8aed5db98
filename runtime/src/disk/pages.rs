//! Memory that begins at a page.

use std::ops::Deref;

/// What direct writes are aligned to: a multiple of every common disk's sector.
pub(super) const PAGE_LEN_BYTES: usize = 4096;

/// Bytes that begin at a page: what a file that is streamed ([`OpenMode::Stream`](super::OpenMode::Stream)) takes past the
/// page cache without copying it.
#[derive(Default, Debug)]
pub struct PageBuffer {
    /// Longer than what it may hold by a page.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl PageBuffer {
    /// Appends `bytes`.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if self.start + end > self.memory.len() {
            self.grow(end.next_power_of_two());
        }
        self.memory[self.start + self.len..self.start + end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Forgets what it holds, and keeps the memory.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Moves to memory for `capacity` bytes.
    fn grow(&mut self, capacity: usize) {
        let mut memory = vec![0; capacity + PAGE_LEN_BYTES];
        // Moving a vector leaves its bytes where they are.
        let start = memory.as_ptr().align_offset(PAGE_LEN_BYTES).min(PAGE_LEN_BYTES);
        memory[start..start + self.len].copy_from_slice(self);
        (self.memory, self.start) = (memory, start);
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_there_and_begins_at_a_page() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
        let mut buffer = PageBuffer::default();
        assert!(buffer.is_empty());
        for round in 0..2 {
            for piece in bytes.chunks(7_001 + round) {
                buffer.extend_from_slice(piece);
                assert_eq!(buffer.as_ptr().align_offset(PAGE_LEN_BYTES), 0);
            }
            assert!(buffer[..] == bytes[..]);
            buffer.clear();
            assert!(buffer.is_empty());
        }
    }
}
