//! Blocks: what they are, where they are, and the tokens that open them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{BlockId, ClientId, DatanodeId, GenerationStamp, NodeName, RackName};
use crate::time::TimeMs;

/// A block in one of its lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Which block.
    pub id: BlockId,
    /// Which of its lives.
    pub generation: GenerationStamp,
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.id, self.generation.0)
    }
}

/// The root of a block's BLAKE3 tree: what its bytes must hash to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRoot(pub [u8; 32]);

impl std::fmt::Debug for BlockRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A block whose bytes are final: what a writer tells the namenode once every datanode of the pipeline has it on disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommittedBlock {
    /// Which block, in its last life.
    pub block: Block,
    /// How many bytes it holds.
    pub len_bytes: u64,
    /// What they hash to.
    pub root: BlockRoot,
    /// The datanodes that acknowledged the last packet.
    pub replicas: Vec<DatanodeId>,
}

/// Where a datanode is and how to reach it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DatanodeLocation {
    /// Which datanode.
    pub id: DatanodeId,
    /// Its node: what an executor beside it has the same name as.
    pub node: NodeName,
    /// The rack of that node.
    pub rack: RackName,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A block of a file and where its replicas are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LocatedBlock {
    /// Which block, in its present life.
    pub block: Block,
    /// Where in the file it starts.
    pub offset: u64,
    /// How many bytes it holds; 0 for one that is new.
    pub len_bytes: u64,
    /// What they hash to; none while the block is being written.
    pub root: Option<BlockRoot>,
    /// The replicas, nearest to the asking node first; the pipeline in its order for a block that is new.
    pub locations: Vec<DatanodeLocation>,
    /// Opens the block at those datanodes.
    pub token: BlockToken,
}

/// What a block token allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum TokenMode {
    /// To read replicas of the block.
    Read,
    /// To write the block, in this life only.
    Write,
}

/// Shows a datanode that the namenode allowed its bearer to open a block. Made with a key that only the namenode and
/// its datanodes hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct BlockToken {
    /// For reading or for writing.
    pub mode: TokenMode,
    /// For whom.
    pub client: ClientId,
    /// Until when, by the time of the namenode that issued it.
    pub expires: TimeMs,
    /// The keyed BLAKE3 of block, generation, mode, client and expiry.
    pub tag: [u8; 32],
}

/// The key of block tokens, made at random by each run of the namenode and told to the datanodes that register.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockTokenKey(pub [u8; 32]);

impl std::fmt::Debug for BlockTokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BlockTokenKey(..)")
    }
}

/// Why a token does not open a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    /// It is past its time.
    #[error("the block token has expired; ask the namenode for the block again")]
    Expired,
    /// It is for another block, life, mode or client, or was made with another key.
    #[error("the block token is not valid for this block; ask the namenode for the block again")]
    Invalid,
}

impl BlockTokenKey {
    /// Makes the token that lets `client` open `block` until `expires`.
    #[must_use]
    pub fn issue(&self, block: Block, mode: TokenMode, client: ClientId, expires: TimeMs) -> BlockToken {
        BlockToken { mode, client, expires, tag: *self.tag(block, mode, client, expires).as_bytes() }
    }

    /// Checks that `token` opens `block` for `mode` at time `now` of the namenode.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, token: &BlockToken, block: Block, mode: TokenMode, now: TimeMs) -> Result<(), TokenError> {
        let expected = self.tag(block, mode, token.client, token.expires);
        // `blake3::Hash` compares in constant time.
        if token.mode != mode || expected != blake3::Hash::from_bytes(token.tag) {
            return Err(TokenError::Invalid);
        }
        if token.expires < now {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    fn tag(&self, block: Block, mode: TokenMode, client: ClientId, expires: TimeMs) -> blake3::Hash {
        let mut text = [0_u8; 41];
        text[0] = match mode {
            TokenMode::Read => 0,
            TokenMode::Write => 1,
        };
        text[1..9].copy_from_slice(&block.id.0.to_le_bytes());
        text[9..17].copy_from_slice(&block.generation.0.to_le_bytes());
        text[17..33].copy_from_slice(&client.0.to_le_bytes());
        text[33..41].copy_from_slice(&expires.0.to_le_bytes());
        blake3::keyed_hash(&self.0, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_block_for_its_own_mode_until_it_expires() {
        let key = BlockTokenKey([7; 32]);
        let block = Block { id: BlockId(1), generation: GenerationStamp(2) };
        let stale = Block { id: BlockId(1), generation: GenerationStamp(1) };
        let token = key.issue(block, TokenMode::Read, ClientId(3), TimeMs(100));
        assert_eq!(key.check(&token, block, TokenMode::Read, TimeMs(100)), Ok(()));
        assert_eq!(key.check(&token, block, TokenMode::Read, TimeMs(101)), Err(TokenError::Expired));
        assert_eq!(key.check(&token, block, TokenMode::Write, TimeMs(1)), Err(TokenError::Invalid));
        assert_eq!(key.check(&token, stale, TokenMode::Read, TimeMs(1)), Err(TokenError::Invalid));
        let other = BlockTokenKey([8; 32]);
        assert_eq!(other.check(&token, block, TokenMode::Read, TimeMs(1)), Err(TokenError::Invalid));
    }
}
