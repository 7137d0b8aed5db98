//! Reading a replica in pieces and checking each against its tree.

use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File};
use situ_wire::block::Block;
use situ_wire::limits::{LEAF_LEN_BYTES, PACKET_LEN_BYTES};
use situ_wire::tree::leaf_matches;

use super::{FinalReplica, ReadError, ReplicaMeta, Volume};

/// What came of reading a whole replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every byte is as it was written.
    Good,
    /// Some are not.
    Corrupt(String),
    /// Its files are not there (any more).
    Gone,
    /// The disk failed: what they are is not known.
    DiskFailed(String),
    /// The process lacks what it takes to read them now: nothing was found out.
    Undecided(String),
}

impl From<&ReadError> for Verdict {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Disk(DiskError { kind: DiskErrorKind::NotFound, .. }) => Self::Gone,
            ReadError::Disk(error @ DiskError { kind: DiskErrorKind::Exhausted(_), .. }) => {
                Self::Undecided(error.to_string())
            }
            ReadError::Disk(error) => Self::DiskFailed(error.to_string()),
            ReadError::Meta { .. } | ReadError::Corrupt { .. } => Self::Corrupt(error.to_string()),
        }
    }
}

/// Reads one final replica from its start to its end; what it gives out is verified. Its calls block.
pub struct Verifier<D: Disk> {
    replica: FinalReplica<D>,
    offset: u64,
}

impl<D: Disk> std::fmt::Debug for Verifier<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("block", &self.replica.meta.block).field("offset", &self.offset).finish()
    }
}

impl<D: Disk> Verifier<D> {
    /// Opens the final replica of `block`.
    ///
    /// # Errors
    /// When it is not there, damaged, or the disk fails.
    pub fn open(volume: &Arc<Volume<D>>, block: Block) -> Result<Self, ReadError> {
        let replica = volume.open_final(block)?;
        replica.meta.check_tree().map_err(|error| ReadError::Meta { block, error })?;
        Ok(Self { replica, offset: 0 })
    }

    /// The replica's tree.
    #[must_use]
    pub fn meta(&self) -> &ReplicaMeta {
        &self.replica.meta
    }

    /// Where the next piece begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece of at most [`PACKET_LEN_BYTES`]; none at the end.
    ///
    /// # Errors
    /// When its bytes are not those of its leaves, or the disk fails.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, ReadError> {
        let FinalReplica { file, meta } = &self.replica;
        if self.offset == meta.len_bytes {
            return Ok(None);
        }
        let piece = file.read_at(self.offset, PACKET_LEN_BYTES)?;
        for (at, bytes) in piece.chunks(LEAF_LEN_BYTES).enumerate() {
            let leaf = usize::try_from(self.offset / LEAF_LEN_BYTES as u64).unwrap_or(usize::MAX) + at;
            if !leaf_matches(&meta.leaves, meta.len_bytes, leaf, bytes) {
                let reason = format!("the {} bytes of leaf {leaf} are not those that were written", bytes.len());
                return Err(ReadError::Corrupt { block: meta.block, reason });
            }
        }
        let expected = (meta.len_bytes - self.offset).min(PACKET_LEN_BYTES as u64);
        if piece.len() as u64 != expected {
            let reason = format!("it ends at {} of {} bytes", self.offset + piece.len() as u64, meta.len_bytes);
            return Err(ReadError::Corrupt { block: meta.block, reason });
        }
        self.offset += expected;
        Ok(Some(piece))
    }
}
