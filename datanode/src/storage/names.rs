//! The names of a volume's files.

use std::path::PathBuf;

use situ_wire::block::Block;
use situ_wire::ids::{BlockId, GenerationStamp};

/// One of the two files of a replica.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Part {
    /// Its bytes.
    Data,
    /// Its tree.
    Meta,
}

impl Part {
    /// The name of this file of `block`.
    pub(super) fn name(self, block: Block) -> String {
        match self {
            Self::Data => format!("{block}.data"),
            Self::Meta => format!("{block}.meta"),
        }
    }

    /// What a file of that name is; none if it is nothing of ours.
    pub(super) fn parse(name: &str) -> Option<(Block, Self)> {
        let (stem, part) = if let Some(stem) = name.strip_suffix(".data") {
            (stem, Self::Data)
        } else {
            (name.strip_suffix(".meta")?, Self::Meta)
        };
        let (id, generation) = stem.strip_prefix("blk_")?.split_once('_')?;
        let block = Block { id: BlockId(id.parse().ok()?), generation: GenerationStamp(generation.parse().ok()?) };
        // Only the one spelling that we write: two names must not stand for one replica.
        (part.name(block) == name).then_some((block, part))
    }
}

/// The directory of a final replica below `current`. Blocks that follow each other share it, so that one that was just
/// made seldom needs a new directory.
pub(super) fn directory(id: BlockId) -> PathBuf {
    let bytes = id.0.to_be_bytes();
    PathBuf::from(format!("{:02x}", bytes[5])).join(format!("{:02x}", bytes[6]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_spelling_is_a_replica() {
        let block = Block { id: BlockId(7), generation: GenerationStamp(1002) };
        assert_eq!(Part::Data.name(block), "blk_7_1002.data");
        assert_eq!(Part::parse("blk_7_1002.data"), Some((block, Part::Data)));
        assert_eq!(Part::parse("blk_7_1002.meta"), Some((block, Part::Meta)));
        for name in
            ["blk_07_1002.data", "blk_7_+1002.data", "blk_7.data", "blk_7_1002", "7_1002.meta", "blk_7_1_2.data"]
        {
            assert_eq!(Part::parse(name), None, "{name}");
        }
        assert_eq!(directory(BlockId(0x12_34_56)), PathBuf::from("12/34"));
    }
}
