//! The meta file of a final replica.

use situ_wire::block::{Block, BlockRoot};
use situ_wire::ids::{BlockId, GenerationStamp};
use situ_wire::limits::BLOCK_LEN_MAX_BYTES;
use situ_wire::tree::{Leaf, leaf_count, root_of};

/// What a datanode keeps beside a replica's bytes: which block they are and the tree that verifies them.
///
/// ```text
/// offset  length    what, numbers little-endian
///      0       8    "SITUMETA"
///      8       4    version: 1
///     12       8    block id
///     20       8    generation stamp
///     28       8    length of the bytes
///     36      32    root
///     68  32 * n    leaves; n follows from the length
///      .      32    BLAKE3 of all before
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaMeta {
    /// The block in its life.
    pub block: Block,
    /// How many bytes the replica has.
    pub len_bytes: u64,
    /// What they hash to.
    pub root: BlockRoot,
    /// What merges into the root.
    pub leaves: Vec<Leaf>,
}

/// Why a meta file is not good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// It is not one, or its beginning is damaged.
    #[error("it is not a meta file of a replica")]
    NotMeta,
    /// It is from another release.
    #[error("its format is version {found}, this program knows version 1; run the release that wrote it")]
    UnknownVersion {
        /// The version that it names.
        found: u32,
    },
    /// Its bytes are not what was written.
    #[error("its checksum does not fit its {len_bytes} bytes")]
    Damaged {
        /// How many bytes it has.
        len_bytes: usize,
    },
    /// Its leaves are too many or too few, or do not merge into its root.
    #[error("its leaves do not make up its root")]
    WrongTree,
}

impl ReplicaMeta {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        debug_assert_eq!(self.leaves.len() as u64, leaf_count(self.len_bytes));
        let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + self.leaves.len() * LEAF_BYTES + SUM_LEN_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.block.id.0.to_le_bytes());
        bytes.extend_from_slice(&self.block.generation.0.to_le_bytes());
        bytes.extend_from_slice(&self.len_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(self.leaves.as_flattened());
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        bytes
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// When they are not exactly what [`ReplicaMeta::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetaError> {
        let mut rest = bytes;
        if take::<8>(&mut rest).ok_or(MetaError::NotMeta)? != *MAGIC {
            return Err(MetaError::NotMeta);
        }
        let version = u32::from_le_bytes(take(&mut rest).ok_or(MetaError::NotMeta)?);
        if version != VERSION {
            return Err(MetaError::UnknownVersion { found: version });
        }
        let damaged = MetaError::Damaged { len_bytes: bytes.len() };
        let body = bytes.len().checked_sub(SUM_LEN_BYTES).ok_or_else(|| damaged.clone())?;
        if blake3::hash(&bytes[..body]).as_bytes()[..] != bytes[body..] {
            return Err(damaged);
        }
        let mut number = || take(&mut rest).map(u64::from_le_bytes).ok_or_else(|| damaged.clone());
        let block = Block { id: BlockId(number()?), generation: GenerationStamp(number()?) };
        let len_bytes = number()?;
        let root = BlockRoot(take(&mut rest).ok_or_else(|| damaged.clone())?);
        let (leaves, sum) = rest.as_chunks::<LEAF_BYTES>();
        let (_sum, leaves) = leaves.split_last().filter(|_| sum.is_empty()).ok_or(damaged)?;
        if leaves.len() as u64 != leaf_count(len_bytes) {
            return Err(MetaError::WrongTree);
        }
        Ok(Self { block, len_bytes, root, leaves: leaves.to_vec() })
    }

    /// Checks that the leaves merge into the root. The writer of the file did so, and readers do; only who reads the whole
    /// replica does it again.
    ///
    /// # Errors
    /// When they do not.
    pub fn check_tree(&self) -> Result<(), MetaError> {
        if root_of(&self.leaves, self.len_bytes) == Some(self.root) { Ok(()) } else { Err(MetaError::WrongTree) }
    }

    /// How long the meta file of a replica of `len_bytes` is.
    #[must_use]
    pub fn file_len_bytes(len_bytes: u64) -> u64 {
        (HEADER_LEN_BYTES + SUM_LEN_BYTES) as u64 + leaf_count(len_bytes) * LEAF_BYTES as u64
    }

    /// The longest meta file that can be.
    #[must_use]
    pub fn file_len_max_bytes() -> u64 {
        Self::file_len_bytes(BLOCK_LEN_MAX_BYTES)
    }
}

/// Takes the first bytes off `rest`.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

const MAGIC: &[u8; 8] = b"SITUMETA";
const VERSION: u32 = 1;
const HEADER_LEN_BYTES: usize = 68;
const LEAF_BYTES: usize = size_of::<Leaf>();
const SUM_LEN_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use situ_wire::limits::LEAF_LEN_BYTES;
    use situ_wire::tree::TreeBuilder;

    use super::*;

    fn meta(len: usize) -> ReplicaMeta {
        let mut tree = TreeBuilder::new();
        tree.update(&vec![7; len]);
        let tree = tree.finish();
        let block = Block { id: BlockId(0x0102), generation: GenerationStamp(0x0304) };
        ReplicaMeta { block, len_bytes: len as u64, root: tree.root, leaves: tree.leaves }
    }

    #[test]
    fn the_format_stays() {
        let bytes = meta(3).encode();
        assert_eq!(&bytes[..36], b"SITUMETA\x01\0\0\0\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0\x03\0\0\0\0\0\0\0");
        assert_eq!(bytes[36..68], *blake3::hash(&[7; 3]).as_bytes());
        assert_eq!(bytes[68..100], *blake3::hash(&[7; 3]).as_bytes());
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "5073f2aa3670162e5894fbdf2a4c236f2ecba03df74930636b6fe7c687640b82"
        );
    }

    #[test]
    fn a_meta_file_comes_back_and_any_changed_byte_shows() {
        for len in [0, 1, LEAF_LEN_BYTES, 3 * LEAF_LEN_BYTES + 1] {
            let meta = meta(len);
            let bytes = meta.encode();
            assert_eq!(bytes.len() as u64, ReplicaMeta::file_len_bytes(len as u64));
            assert_eq!(meta.check_tree(), Ok(()));
            assert_eq!(
                ReplicaMeta { root: BlockRoot([9; 32]), ..meta.clone() }.check_tree(),
                Err(MetaError::WrongTree)
            );
            assert_eq!(ReplicaMeta::decode(&bytes), Ok(meta));
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 0x10;
                assert!(ReplicaMeta::decode(&wrong).is_err(), "byte {at}");
                assert!(ReplicaMeta::decode(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
        assert_eq!(ReplicaMeta::decode(&[]), Err(MetaError::NotMeta));
        let mut newer = meta(1).encode();
        newer[8] = 2;
        assert_eq!(ReplicaMeta::decode(&newer), Err(MetaError::UnknownVersion { found: 2 }));
    }
}
