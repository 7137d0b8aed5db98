use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use situ_wire::limits::LEAF_LEN_BYTES;
use situ_wire::tree::{Leaf, leaf_matches_pieces};

const LEAF: u64 = LEAF_LEN_BYTES as u64;

/// The range widened to whole leaves, within a block of `block_len_bytes`: what a datanode answers.
pub(crate) fn widened(range: &Range<u64>, block_len_bytes: u64) -> Range<u64> {
    let end = range.end.div_ceil(LEAF).saturating_mul(LEAF).min(block_len_bytes);
    range.start - range.start % LEAF..end
}

/// Bytes that do not hash to what they should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("its bytes from {offset} of the block on are not those that were written")]
pub(crate) struct WrongBytes {
    /// Where in the block the leaf starts.
    pub(crate) offset: u64,
}

/// Takes the bytes of a range of a block as they come, leaf by leaf, and gives those that are verified, without copying.
#[derive(Debug)]
pub(crate) struct Verifier {
    leaves: Arc<[Leaf]>,
    block_len_bytes: u64,
    /// What is wanted and not yet given, from where on.
    wanted: Range<u64>,
    /// Where in the block the pending bytes start.
    start: u64,
    /// How many of them are verified.
    verified_bytes: u64,
    pending: VecDeque<Bytes>,
    pending_bytes: u64,
}

impl Verifier {
    /// Verifies the bytes of `wanted` of a block whose leaves are known to merge into its root.
    pub(crate) fn new(leaves: Arc<[Leaf]>, block_len_bytes: u64, wanted: Range<u64>) -> Self {
        assert!(wanted.start <= wanted.end && wanted.end <= block_len_bytes, "a range lies within its block");
        let start = widened(&wanted, block_len_bytes).start;
        Self { leaves, block_len_bytes, wanted, start, verified_bytes: 0, pending: VecDeque::new(), pending_bytes: 0 }
    }

    /// Takes the next bytes and appends to `ready` those of the wanted range that are verified now, those before wrong ones
    /// too.
    pub(crate) fn push(&mut self, piece: Bytes, ready: &mut VecDeque<Bytes>) -> Result<(), WrongBytes> {
        self.pending_bytes += piece.len() as u64;
        self.pending.push_back(piece);
        let verified = loop {
            let offset = self.start + self.verified_bytes;
            let leaf_bytes = LEAF.min(self.block_len_bytes.saturating_sub(offset));
            if leaf_bytes == 0 || self.pending_bytes - self.verified_bytes < leaf_bytes {
                break Ok(());
            }
            let index = usize::try_from(offset / LEAF).unwrap_or(usize::MAX);
            let pieces = slices(&self.pending, self.verified_bytes, leaf_bytes);
            if !leaf_matches_pieces(&self.leaves, self.block_len_bytes, index, pieces) {
                break Err(WrongBytes { offset });
            }
            self.verified_bytes += leaf_bytes;
        };
        self.give(ready);
        verified
    }

    /// Moves what is verified to `ready`, without what is not wanted.
    fn give(&mut self, ready: &mut VecDeque<Bytes>) {
        while self.verified_bytes > 0 {
            let Some(mut piece) = self.pending.pop_front() else { break };
            if piece.len() as u64 > self.verified_bytes {
                let rest = piece.split_off(usize::try_from(self.verified_bytes).unwrap_or(usize::MAX));
                self.pending.push_front(rest);
            }
            let len = piece.len() as u64;
            let here = self.start..self.start + len;
            self.start = here.end;
            self.verified_bytes -= len;
            self.pending_bytes -= len;
            let (from, to) = (here.start.max(self.wanted.start), here.end.min(self.wanted.end));
            if from < to {
                let cut = |at: u64| usize::try_from(at - here.start).unwrap_or(usize::MAX);
                ready.push_back(piece.slice(cut(from)..cut(to)));
                self.wanted.start = to;
            }
        }
    }
}

/// `len_bytes` bytes of `pieces`, from `skip_bytes` on.
fn slices(pieces: &VecDeque<Bytes>, skip_bytes: u64, len_bytes: u64) -> impl Iterator<Item = &[u8]> {
    let mut skip = usize::try_from(skip_bytes).unwrap_or(usize::MAX);
    let mut left = usize::try_from(len_bytes).unwrap_or(usize::MAX);
    pieces.iter().map_while(move |piece| {
        if left == 0 {
            return None;
        }
        let from = skip.min(piece.len());
        let to = piece.len().min(from.saturating_add(left));
        skip -= from;
        left -= to - from;
        Some(&piece[from..to])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use situ_wire::tree::TreeBuilder;

    fn block(len: usize) -> (Vec<u8>, Arc<[Leaf]>) {
        let data: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + at / 251) % 256).unwrap()).collect();
        let mut builder = TreeBuilder::new();
        builder.update(&data);
        (data, builder.finish().leaves.into())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn any_range_in_any_pieces_comes_out_whole(
            len in 1_usize..300_000,
            from in any::<prop::sample::Index>(),
            to in any::<prop::sample::Index>(),
            piece in 1_usize..150_000,
            flip in any::<prop::sample::Index>(),
        ) {
            let (data, leaves) = block(len);
            let (a, b) = (from.index(len), to.index(len));
            let wanted = a.min(b) as u64..a.max(b) as u64 + 1;
            let wide = widened(&wanted, len as u64);
            let sent = Bytes::from(data[usize::try_from(wide.start).unwrap()..usize::try_from(wide.end).unwrap()].to_vec());
            let read = |sent: &Bytes| {
                let mut verifier = Verifier::new(Arc::clone(&leaves), len as u64, wanted.clone());
                let mut ready = VecDeque::new();
                let mut at = 0;
                while at < sent.len() {
                    let next = sent.len().min(at + piece);
                    verifier.push(sent.slice(at..next), &mut ready)?;
                    at = next;
                }
                Ok::<Vec<u8>, WrongBytes>(ready.iter().flatten().copied().collect())
            };
            let expected = &data[a.min(b)..=a.max(b)];
            prop_assert_eq!(read(&sent).unwrap(), expected);
            let mut wrong = sent.to_vec();
            let flipped = flip.index(wrong.len());
            wrong[flipped] ^= 4;
            let at = wide.start + flipped as u64;
            prop_assert_eq!(read(&Bytes::from(wrong)), Err(WrongBytes { offset: at - at % LEAF }));
        }
    }
}
