//! A split of a text file in pieces that end at separators.
//!
//! A piece belongs to the split that holds the separator before it, the first piece of a file to the first split: so each
//! is in exactly one, however long it is and wherever blocks are cut.

use std::marker::PhantomData;

use bytes::Bytes;
use memchr::memchr;

use crate::text::Text;

/// How much of a block is read at a time.
pub(super) const READ_LEN_BYTES: usize = 1 << 20;
/// How much is read at a time behind the end of a block, to find the end of a piece.
const TAIL_LEN_BYTES: usize = 16 << 10;

/// Where a text may be cut: after certain bytes, which belong to no piece.
pub(super) trait Separator: 'static {
    /// What stands between two of them.
    const WHAT: &str;

    /// The first one in `bytes`.
    fn first(bytes: &[u8]) -> Option<usize>;

    /// The one at which a piece of `bytes` should end, if there is one.
    fn end(bytes: &[u8]) -> Option<usize>;
}

/// Every piece is a line: what line breaks separate.
pub(super) enum LineBreak {}

impl Separator for LineBreak {
    const WHAT: &str = "line";

    #[inline]
    fn first(bytes: &[u8]) -> Option<usize> {
        memchr(b'\n', bytes)
    }

    #[inline]
    fn end(bytes: &[u8]) -> Option<usize> {
        Self::first(bytes)
    }
}

/// Every piece is some whole words, as many as were read at once: what ASCII white space separates.
pub(super) enum WhiteSpace {}

impl Separator for WhiteSpace {
    const WHAT: &str = "word";

    fn first(bytes: &[u8]) -> Option<usize> {
        bytes.iter().position(u8::is_ascii_whitespace)
    }

    fn end(bytes: &[u8]) -> Option<usize> {
        bytes.iter().rposition(u8::is_ascii_whitespace)
    }
}

/// Where [`Pieces`] read from. Fails by ending the task.
pub(super) trait ReadAt {
    /// Up to `len_bytes` bytes from `offset` on; none at the end of the file.
    fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes;

    /// The next piece stands at `offset`.
    fn note(&self, offset: u64);

    /// Accepts that a piece without a separator, `what` of the file, starts at `start` and is at least `len_bytes` long.
    fn check_len(&self, what: &str, start: u64, len_bytes: usize);
}

/// The pieces of a split.
pub(super) struct Pieces<R, S> {
    reader: R,
    /// Where the split ends.
    end: u64,
    /// Where the next bytes are read.
    offset: u64,
    /// Bytes of the split that have been read.
    chunk: Bytes,
    /// How many of them are done.
    at: usize,
    /// The beginning of a piece that goes on in the next chunk.
    carried: Vec<u8>,
    state: State,
    separator: PhantomData<S>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// What the split begins in belongs to the one before.
    Skipping,
    /// Pieces come.
    Within,
    /// The last one has come.
    Done,
}

impl<R: ReadAt, S: Separator> Pieces<R, S> {
    /// Those of the split from `start` to `end`.
    pub(super) fn new(reader: R, start: u64, end: u64) -> Self {
        let state = if start == 0 { State::Within } else { State::Skipping };
        let (chunk, carried) = (Bytes::new(), Vec::new());
        Self { reader, end, offset: start, chunk, at: 0, carried, state, separator: PhantomData }
    }

    /// Reads the next chunk of the split; false at its end.
    fn fill(&mut self) -> bool {
        let left = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        if left == 0 {
            return false;
        }
        self.chunk = self.reader.read_at(self.offset, left.min(READ_LEN_BYTES));
        self.at = 0;
        self.offset += self.chunk.len() as u64;
        !self.chunk.is_empty()
    }

    /// Gets to where pieces come, past the separator that ends the one before the first; false if none come.
    fn begin(&mut self) -> bool {
        match self.state {
            State::Within => return true,
            State::Done => return false,
            State::Skipping => {}
        }
        while self.fill() {
            if let Some(position) = S::first(&self.chunk) {
                self.at = position + 1;
                self.state = State::Within;
                return true;
            }
        }
        self.state = State::Done;
        false
    }

    /// The next piece that ends in the chunk.
    #[inline]
    fn next_in_chunk(&mut self) -> Option<Text> {
        let start = self.at;
        if self.carried.is_empty() {
            let len = S::end(&self.chunk[start..])?;
            self.at = start + len + 1;
            self.reader.note(self.offset - (self.chunk.len() - start) as u64);
            return Some(Text::slice_of(&self.chunk, start..start + len));
        }
        let len = S::first(&self.chunk[start..])?;
        self.at = start + len + 1;
        let rest = self.chunk.slice(start..start + len);
        self.carry(self.offset - (self.chunk.len() - start) as u64, &rest);
        Some(Text::from(std::mem::take(&mut self.carried)))
    }

    /// Adds bytes, which stand at `offset`, to the piece that is carried on.
    #[inline(never)]
    fn carry(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset - self.carried.len() as u64;
        self.reader.note(start);
        self.reader.check_len(S::WHAT, start, self.carried.len() + bytes.len());
        self.carried.extend_from_slice(bytes);
    }

    /// Goes on to the next chunk, in which pieces may end; none at the end of the split.
    fn advance(&mut self) -> bool {
        let rest = self.chunk.slice(self.at..);
        self.carry(self.offset - rest.len() as u64, &rest);
        self.at = self.chunk.len();
        self.fill()
    }

    /// The piece that the split ends in, or that starts right behind it; it ends behind the split.
    fn tail(&mut self) -> Option<Text> {
        self.state = State::Done;
        loop {
            let chunk = self.reader.read_at(self.offset, TAIL_LEN_BYTES);
            if chunk.is_empty() && self.carried.is_empty() {
                return None;
            }
            let end = S::first(&chunk);
            self.carry(self.offset, &chunk[..end.unwrap_or(chunk.len())]);
            self.offset += chunk.len() as u64;
            if end.is_some() || chunk.is_empty() {
                return Some(Text::from(std::mem::take(&mut self.carried)));
            }
        }
    }
}

impl<R: ReadAt, S: Separator> Iterator for Pieces<R, S> {
    type Item = Text;

    fn next(&mut self) -> Option<Text> {
        if !self.begin() {
            return None;
        }
        loop {
            if let Some(piece) = self.next_in_chunk() {
                return Some(piece);
            }
            if !self.advance() {
                return self.tail();
            }
        }
    }

    fn fold<B, F: FnMut(B, Text) -> B>(mut self, init: B, mut f: F) -> B {
        let mut accumulator = init;
        if !self.begin() {
            return accumulator;
        }
        loop {
            while let Some(piece) = self.next_in_chunk() {
                accumulator = f(accumulator, piece);
            }
            if !self.advance() {
                break;
            }
        }
        match self.tail() {
            Some(piece) => f(accumulator, piece),
            None => accumulator,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads from memory, in chunks that are shorter than asked for.
    struct Memory<'a> {
        bytes: &'a Bytes,
        limit: usize,
    }

    impl ReadAt for Memory<'_> {
        fn read_at(&mut self, offset: u64, len_bytes: usize) -> Bytes {
            let start = usize::try_from(offset).unwrap().min(self.bytes.len());
            self.bytes.slice(start..self.bytes.len().min(start + len_bytes.min(self.limit)))
        }

        fn note(&self, offset: u64) {
            assert!(offset <= self.bytes.len() as u64);
        }

        fn check_len(&self, what: &str, start: u64, len_bytes: usize) {
            let start = usize::try_from(start).unwrap();
            let separates = |byte: &u8| if what == "line" { *byte == b'\n' } else { byte.is_ascii_whitespace() };
            assert!(start == 0 || separates(&self.bytes[start - 1]), "a {what} starts at {start}");
            assert!(!self.bytes[start..start + len_bytes].iter().any(separates), "it is {len_bytes} bytes long");
        }
    }

    fn pieces_by_split<S: Separator>(bytes: &Bytes, block: usize, limit: usize, push: bool) -> Vec<Text> {
        let mut pieces = Vec::new();
        for start in (0..bytes.len()).step_by(block) {
            let end = (start + block).min(bytes.len());
            let split = Pieces::<_, S>::new(Memory { bytes, limit }, start as u64, end as u64);
            if push {
                split.for_each(|piece| pieces.push(piece));
            } else {
                let mut split = split;
                for piece in split.by_ref() {
                    pieces.push(piece);
                }
                assert_eq!(split.next(), None, "the end stays the end");
            }
        }
        pieces
    }

    fn words(pieces: Vec<Text>) -> Vec<Text> {
        pieces.into_iter().flat_map(Text::into_words).collect()
    }

    fn expected(bytes: &[u8]) -> Vec<Text> {
        let mut lines: Vec<Text> = bytes.split(|byte| *byte == b'\n').map(Text::from).collect();
        // What follows the last line break is a line only if there is something.
        lines.pop_if(|last| last.is_empty());
        lines
    }

    proptest! {
        #[test]
        fn splits_hold_every_line_once(
            bytes in proptest::collection::vec(prop_oneof![2 => Just(b'\n'), 5 => Just(b'x'), 1 => any::<u8>()], 0..120),
            block in 1_usize..40,
            limit in 1_usize..20,
        ) {
            let expected = expected(&bytes);
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(&pieces_by_split::<LineBreak>(&bytes, block, limit, false), &expected);
            prop_assert_eq!(&pieces_by_split::<LineBreak>(&bytes, block, limit, true), &expected);
        }

        #[test]
        fn splits_hold_every_word_once(
            bytes in proptest::collection::vec(prop_oneof![2 => Just(b' '), 1 => Just(b'\n'), 7 => b'a'..=b'z'], 0..120),
            block in 1_usize..40,
            limit in 1_usize..20,
        ) {
            let expected = words(vec![Text::from(bytes.clone())]);
            let bytes = Bytes::from(bytes);
            prop_assert_eq!(&words(pieces_by_split::<WhiteSpace>(&bytes, block, limit, false)), &expected);
            prop_assert_eq!(&words(pieces_by_split::<WhiteSpace>(&bytes, block, limit, true)), &expected);
        }
    }

    #[test]
    fn every_block_length_cuts_a_text_into_the_same_lines() {
        let text = Bytes::from_static(b"one\n\ntwo three\nfour\r\n\xff\xfe\nthe last line is longer than a block");
        for block in 1..=text.len() + 1 {
            assert_eq!(pieces_by_split::<LineBreak>(&text, block, 7, true), expected(&text), "blocks of {block} bytes");
        }
    }
}
