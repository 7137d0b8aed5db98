//! The proof that a run is a function of its seed.

/// A hash over all that happened, in order.
pub(super) struct Trace {
    hash: u64,
    /// Whether events are printed.
    pub(super) is_shown: bool,
}

impl Trace {
    pub(super) fn new(is_shown: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, is_shown }
    }

    /// Takes a number in (FNV-1a, a word at a time).
    pub(super) fn note(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.note(u64::from_le_bytes(word));
        }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }
}
