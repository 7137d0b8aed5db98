//! Randomness from a seed.

use fastrand::Rng;

/// Randomness from a seed.
pub(super) struct Chance(Rng);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Rng::with_seed(seed))
    }

    /// True in so many of a thousand cases.
    pub(super) fn permille(&mut self, permille: u64) -> bool {
        // Nothing is drawn for what cannot be, so that a switched-off fault costs nothing.
        permille > 0 && self.0.u64(0..1000) < permille
    }

    /// A number within bounds, both included.
    pub(super) fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0.u64(from..=to)
    }

    /// An index below `len`, which is not 0.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.0.usize(0..len)
    }

    /// One of `items`, if there are any.
    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() { None } else { items.get(self.index(items.len())) }
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    pub(super) fn seed(&mut self) -> u64 {
        self.0.u64(..)
    }
}
