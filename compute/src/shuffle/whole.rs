//! Pieces of frames that somebody else has made.

use std::sync::Arc;

use situ_runtime::disk::DiskError;
use situ_wire::ids::{ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ShufflePiece;

use super::write::{PendingPiece, SPILL_MIN_BYTES, Spill, write_output};
use crate::program::task::SharedTask;

/// Takes frames for pieces as they are, and holds them packed in memory as far as there is some, in a spill file beyond it.
pub(crate) struct FrameWriter {
    task: Arc<SharedTask>,
    pieces: Vec<PendingPiece>,
    /// How much the packed frames take in memory.
    held_bytes: usize,
    spill: Option<Spill>,
}

impl FrameWriter {
    pub(crate) fn new(task: &Arc<SharedTask>, pieces: u32) -> Self {
        let pieces = std::iter::repeat_with(PendingPiece::default).take(pieces as usize).collect();
        Self { task: Arc::clone(task), pieces, held_bytes: 0, spill: None }
    }

    /// How many pieces there are.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// How much it holds in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Adds a frame to a piece.
    ///
    /// # Errors
    /// When it is too long.
    pub(crate) fn write(&mut self, piece: usize, records: u32, frame: &[u8]) -> Result<(), String> {
        let pending = &mut self.pieces[piece];
        let before = pending.packed.capacity();
        pending.frame.fill(records, frame)?;
        // Whatever frames there are, the buffers of pieces that get no more must not add up.
        pending.records += pending.frame.finish(0, &mut pending.packed);
        self.held_bytes += pending.packed.capacity() - before;
        Ok(())
    }

    /// Whether to spill is worth a file.
    pub(crate) fn is_worth_spilling(&self) -> bool {
        self.held_bytes >= SPILL_MIN_BYTES
    }

    /// Moves all frames to the spill file.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn spill(&mut self) -> Result<(), DiskError> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            None => self.spill.insert(Spill::create(&self.task)?),
        };
        for piece in self.pieces.iter_mut().filter(|piece| !piece.packed.is_empty()) {
            let packed = std::mem::take(&mut piece.packed);
            piece.spilled.push(spill.append(&packed)?);
        }
        self.held_bytes = 0;
        Ok(())
    }

    /// Writes all pieces as the output of a map task, in its place, and says what they are.
    ///
    /// # Errors
    /// When the disk fails.
    pub(crate) fn finish(self, shuffle: ShuffleId, map: TaskAttemptId) -> Result<Vec<ShufflePiece>, DiskError> {
        write_output(&self.task, self.pieces, self.spill.as_ref(), (shuffle, map))
    }
}
