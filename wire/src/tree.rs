//! The BLAKE3 tree that verifies a block.
//!
//! A block is cut into leaves of [`LEAF_LEN_BYTES`]; each leaf has a chaining value of 32 bytes, which depends on its
//! bytes and on its offset; the values merge pairwise, left-heavy, into the root, which equals the plain BLAKE3 hash of
//! the block's bytes (BLAKE3 specification, section 2.1). The namenode holds the root, a datanode stores the leaves
//! beside the bytes, and a reader checks that the leaves merge into the root and that the bytes hash to their leaves.
//! A block of at most one leaf has one value: the root itself.

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

use crate::block::BlockRoot;
use crate::limits::LEAF_LEN_BYTES;

/// The chaining value of one leaf.
pub type Leaf = [u8; 32];

/// How many leaves a block of `len_bytes` has; an empty block has one.
#[must_use]
pub fn leaf_count(len_bytes: u64) -> u64 {
    len_bytes.div_ceil(LEAF_LEN_BYTES as u64).max(1)
}

/// A block's leaves and root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// One value a leaf, in the order of the bytes.
    pub leaves: Vec<Leaf>,
    /// What they merge into.
    pub root: BlockRoot,
    /// How many bytes they cover.
    pub len_bytes: u64,
}

/// Builds a block's tree while its bytes stream by.
pub struct TreeBuilder {
    leaves: Vec<Leaf>,
    hasher: Hasher,
    len_bytes: u64,
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TreeBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeBuilder").field("len_bytes", &self.len_bytes).finish_non_exhaustive()
    }
}

impl TreeBuilder {
    /// A tree over no bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self { leaves: Vec::new(), hasher: Hasher::new(), len_bytes: 0 }
    }

    /// How many bytes it has taken.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = usize::try_from(self.hasher.count()).unwrap_or(LEAF_LEN_BYTES);
            // A full leaf is closed only when another byte follows: the only leaf of a block is hashed as its root.
            if filled == LEAF_LEN_BYTES {
                self.leaves.push(self.hasher.finalize_non_root());
                self.hasher = Hasher::new();
                self.hasher.set_input_offset(self.len_bytes);
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(LEAF_LEN_BYTES - filled));
            self.hasher.update(now);
            self.len_bytes += now.len() as u64;
            bytes = later;
        }
    }

    /// The tree over all bytes taken.
    #[must_use]
    pub fn finish(mut self) -> Tree {
        let last =
            if self.leaves.is_empty() { *self.hasher.finalize().as_bytes() } else { self.hasher.finalize_non_root() };
        self.leaves.push(last);
        let root = merge(&self.leaves, self.len_bytes);
        debug_assert_eq!(self.leaves.len() as u64, leaf_count(self.len_bytes));
        Tree { leaves: self.leaves, root, len_bytes: self.len_bytes }
    }
}

/// The root that the leaves of a block of `len_bytes` merge into; none if their number does not fit the length.
#[must_use]
pub fn root_of(leaves: &[Leaf], len_bytes: u64) -> Option<BlockRoot> {
    (leaves.len() as u64 == leaf_count(len_bytes)).then(|| merge(leaves, len_bytes))
}

/// Whether `bytes` are those of leaf `index` of a block of `len_bytes` whose leaves are `leaves`.
#[must_use]
pub fn leaf_matches(leaves: &[Leaf], len_bytes: u64, index: usize, bytes: &[u8]) -> bool {
    leaf_matches_pieces(leaves, len_bytes, index, std::iter::once(bytes))
}

/// As [`leaf_matches`], for bytes that lie in several pieces.
#[must_use]
pub fn leaf_matches_pieces<'a>(
    leaves: &[Leaf],
    len_bytes: u64,
    index: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> bool {
    let Some(expected) = leaves.get(index) else { return false };
    let offset = index as u64 * LEAF_LEN_BYTES as u64;
    let mut hasher = Hasher::new();
    if leaves.len() > 1 {
        hasher.set_input_offset(offset);
    }
    let limit = len_bytes.saturating_sub(offset).min(LEAF_LEN_BYTES as u64);
    for piece in pieces {
        // A hasher that starts within a block must not be given more than its leaf.
        if hasher.count() + piece.len() as u64 > limit {
            return false;
        }
        hasher.update(piece);
    }
    if hasher.count() != limit {
        return false;
    }
    let found = if leaves.len() == 1 { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() };
    found == *expected
}

/// Merges the leaves of a block; their number fits `len_bytes`.
fn merge(leaves: &[Leaf], len_bytes: u64) -> BlockRoot {
    assert_eq!(leaves.len() as u64, leaf_count(len_bytes), "the leaves of a block fit its length");
    if let [only] = leaves {
        return BlockRoot(*only);
    }
    let (left, right) = split(leaves, len_bytes);
    BlockRoot(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

fn split(leaves: &[Leaf], len_bytes: u64) -> (Leaf, Leaf) {
    let left_bytes = left_subtree_len(len_bytes);
    let at = leaves.len().min(usize::try_from(left_bytes / LEAF_LEN_BYTES as u64).unwrap_or(usize::MAX));
    let (left, right) = leaves.split_at(at);
    (subtree(left, left_bytes), subtree(right, len_bytes - left_bytes))
}

fn subtree(leaves: &[Leaf], len_bytes: u64) -> Leaf {
    if let [only] = leaves {
        return *only;
    }
    let (left, right) = split(leaves, len_bytes);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect()
    }

    #[test]
    fn the_root_is_the_plain_hash_at_every_length_around_a_leaf() {
        let leaf = LEAF_LEN_BYTES;
        for len in [0, 1, leaf - 1, leaf, leaf + 1, 2 * leaf, 3 * leaf, 3 * leaf + 5, 7 * leaf, 8 * leaf, 9 * leaf - 1]
        {
            let data = bytes(len);
            let mut builder = TreeBuilder::new();
            for piece in data.chunks(10_007) {
                builder.update(piece);
            }
            let tree = builder.finish();
            assert_eq!(tree.root.0, *blake3::hash(&data).as_bytes(), "length {len}");
            assert_eq!(root_of(&tree.leaves, len as u64), Some(tree.root));
            assert_eq!(root_of(&tree.leaves, len as u64 + leaf as u64 + 1), None);
            for (index, piece) in data.chunks(leaf).enumerate() {
                assert!(leaf_matches(&tree.leaves, len as u64, index, piece));
            }
        }
    }

    #[test]
    fn a_flipped_bit_a_moved_leaf_or_a_cut_shows() {
        let data = bytes(3 * LEAF_LEN_BYTES);
        let mut builder = TreeBuilder::new();
        builder.update(&data);
        let tree = builder.finish();
        let len = data.len() as u64;
        let mut wrong = data[..LEAF_LEN_BYTES].to_vec();
        wrong[77] ^= 1;
        assert!(!leaf_matches(&tree.leaves, len, 0, &wrong));
        assert!(!leaf_matches(&tree.leaves, len, 1, &data[..LEAF_LEN_BYTES]));
        assert!(!leaf_matches(&tree.leaves, len, 0, &data[..LEAF_LEN_BYTES - 1]));
        assert!(!leaf_matches(&tree.leaves, len, 3, &[]));
        assert!(!leaf_matches(&tree.leaves, len, 1, &data[LEAF_LEN_BYTES..]));
        let (left, right) = data[LEAF_LEN_BYTES..2 * LEAF_LEN_BYTES].split_at(777);
        assert!(leaf_matches_pieces(&tree.leaves, len, 1, [left, right].into_iter()));
        assert!(!leaf_matches_pieces(&tree.leaves, len, 1, [right, left].into_iter()));
    }
}
