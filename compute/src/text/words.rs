//! Cutting text into words.
//!
//! A byte at a time the length of every word is a surprise to the processor, and surprises cost more than the work. So
//! white space is found 64 bytes at a time, as the bits of a number, and short words are taken by loads of fixed length.

use std::ops::Range;

use super::{INLINE_LEN_BYTES, Text};

/// How many bytes are looked at at once.
const BLOCK: usize = 64;
/// How many bytes a short word is taken from, its own and what follows.
const WINDOW: usize = INLINE_LEN_BYTES + 1;

/// The words of a [`Text`].
#[derive(Clone, Debug)]
pub struct Words {
    text: Text,
    at: usize,
}

impl Words {
    pub(super) fn new(text: Text) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for Words {
    type Item = Text;

    fn next(&mut self) -> Option<Text> {
        let bytes = self.text.as_bytes();
        let start = self.at + bytes[self.at..].iter().position(|byte| !byte.is_ascii_whitespace())?;
        let len = bytes[start..].iter().position(u8::is_ascii_whitespace).unwrap_or(bytes.len() - start);
        self.at = start + len;
        Some(self.text.slice(start..start + len))
    }

    #[inline]
    fn fold<B, F: FnMut(B, Text) -> B>(self, init: B, mut f: F) -> B {
        let windows = Windows::new(self.text.as_bytes());
        let mut accumulator = Some(init);
        windows.for_each_word(self.at, |range| {
            let len = range.len();
            let word = if len <= INLINE_LEN_BYTES {
                Text::from_words(windows.short(range.start, len), len)
            } else {
                self.text.slice(range)
            };
            let before = accumulator.take().expect("it is put back at once");
            accumulator = Some(f(before, word));
        });
        accumulator.expect("it was put back")
    }
}

/// A text that may be read a little beyond its end.
struct Windows<'a> {
    bytes: &'a [u8],
    /// The last [`WINDOW`] bytes, or all if there are fewer, with zeros behind them.
    tail: [u8; 2 * WINDOW],
    tail_start: usize,
}

impl<'a> Windows<'a> {
    #[inline]
    fn new(bytes: &'a [u8]) -> Self {
        let mut tail = [0; 2 * WINDOW];
        match bytes.last_chunk::<WINDOW>() {
            Some(last) => tail[..WINDOW].copy_from_slice(last),
            None => tail[..bytes.len()].copy_from_slice(bytes),
        }
        Self { bytes, tail, tail_start: bytes.len().saturating_sub(WINDOW) }
    }

    /// The [`WINDOW`] bytes from `at` on, which is within the text.
    #[inline]
    fn window(&self, at: usize) -> &[u8; WINDOW] {
        let window = match self.bytes[at..].first_chunk() {
            Some(window) => Some(window),
            None => self.tail[at - self.tail_start..].first_chunk(),
        };
        window.expect("what is too near the end is in the tail, which has as many zeros behind it")
    }

    /// The word of `len` bytes, at most [`INLINE_LEN_BYTES`], at `at`, with zeros behind it, as three numbers.
    #[inline]
    fn short(&self, at: usize, len: usize) -> [u64; 3] {
        let window = self.window(at);
        let number = |part: usize| {
            let bytes = window[8 * part..8 * part + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(bytes) & low_bytes(len.saturating_sub(8 * part))
        };
        [number(0), number(1), number(2)]
    }

    /// Which of the bytes from `at` on are white space; everything behind the end is.
    #[inline]
    fn white(&self, at: usize) -> u64 {
        if let Some(block) = self.bytes[at..].first_chunk::<BLOCK>() {
            return white_space(block);
        }
        let rest = &self.bytes[at..];
        let mut block = [b' '; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        white_space(&block)
    }

    /// Where the words from `start` on are.
    #[inline]
    fn for_each_word(&self, start: usize, mut word: impl FnMut(Range<usize>)) {
        // Where the word that is open began.
        let mut open = None;
        let mut at = start;
        let mut white_before = 1;
        // A word that the text ends in ends in the block behind the end, which is white: `word` is called from one place
        // only, so that it is taken in there and no call for each word.
        while at < self.bytes.len() || open.is_some() {
            let white = self.white(at);
            // A bit for each byte that differs from the one before: words begin and end there, in turn.
            let mut edges = white ^ (white << 1 | white_before);
            white_before = white >> (BLOCK - 1);
            while edges != 0 {
                let edge = at + edges.trailing_zeros() as usize;
                edges &= edges - 1;
                open = match open {
                    Some(began) => {
                        word(began..edge);
                        None
                    }
                    None => Some(edge),
                };
            }
            at = (at + BLOCK).min(self.bytes.len());
        }
    }
}

/// The number with the `count` low bytes set, all from 8 on.
#[inline]
fn low_bytes(count: usize) -> u64 {
    if count >= 8 { u64::MAX } else { (1 << (8 * count)) - 1 }
}

/// A bit for each byte, the first the lowest: whether it is ASCII white space.
#[inline]
fn white_space(block: &[u8; BLOCK]) -> u64 {
    let mut flags = [0_u8; BLOCK];
    // Without branches, so that the compiler compares many bytes at once.
    for (flag, byte) in flags.iter_mut().zip(block) {
        *flag = u8::from((*byte == b' ') | (*byte == b'\n') | (*byte == b'\t') | (*byte == b'\r') | (*byte == 0x0c));
    }
    let mut mask = 0;
    for (part, flags) in flags.as_chunks::<8>().0.iter().enumerate() {
        // Moves the low bit of byte i to bit 56 + i: the partial products meet in no bit.
        let gathered = u64::from_le_bytes(*flags).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= gathered << (8 * part);
    }
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_byte_is_known_for_what_it_is() {
        for byte in 0..=u8::MAX {
            for at in 0..BLOCK {
                let mut block = [b'x'; BLOCK];
                block[at] = byte;
                assert_eq!(white_space(&block), u64::from(byte.is_ascii_whitespace()) << at, "{byte:#x} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn words_are_what_white_space_separates(bytes in proptest::collection::vec(prop_oneof![
            2 => Just(b' '), 1 => Just(b'\n'), 1 => Just(b'\t'), 10 => Just(b'a'), 2 => any::<u8>()
        ], 0..300), skipped in 0_usize..3) {
            let mut expected: Vec<&[u8]> =
                bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).collect();
            let text = Text::from(bytes.clone());
            let pulled: Vec<Text> = text.words().collect();
            prop_assert_eq!(&pulled.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(), &expected);
            // Some words pulled, the rest at once.
            let mut words = text.into_words();
            expected.drain(..words.by_ref().take(skipped).count());
            let mut pushed = Vec::new();
            words.for_each(|word| pushed.push(word));
            prop_assert_eq!(pushed.iter().map(|word| word.as_bytes()).collect::<Vec<_>>(), expected);
            prop_assert!(pushed.iter().all(|word| *word == Text::copy_from_slice(word)), "short words have one form");
        }
    }
}
