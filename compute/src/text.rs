//! Text as programs handle it: bytes that are cheap to cut and to pass on.

mod words;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};

use bytes::Bytes;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use words::Words;

/// The longest text that needs no memory of its own.
const INLINE_LEN_BYTES: usize = 23;
/// A shorter text is never worth sharing memory: what it is cut from may be cut from something longer.
const SHARED_LEN_BYTES: usize = 64 << 10;

/// Bytes that are meant as text, in no encoding in particular: input files hold what they hold, and a program that
/// counts their words must not fail on a byte that is not UTF-8.
///
/// Up to 23 bytes stand in the value itself, which is what words are. A longer text is a copy, or shares the memory of what
/// it was read with if it is nearly all of that: to keep a line does not keep the megabyte of a file that it was read with,
/// and what is cut from a text does not keep that. A clone never allocates.
#[derive(Clone)]
pub struct Text(Repr);

/// A text of up to [`INLINE_LEN_BYTES`] is always `Inline`: its bytes, then zeros, its length as the last byte. So texts
/// in the same form are equal only if these are, and texts in different forms are never equal.
#[derive(Clone)]
enum Repr {
    Inline([u8; INLINE_LEN_BYTES + 1]),
    Shared(Bytes),
}

impl Text {
    /// The empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::inline(&[])
    }

    /// A text of these bytes, copied.
    #[inline]
    #[must_use]
    pub fn copy_from_slice(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_LEN_BYTES {
            Self::inline(bytes)
        } else {
            Self(Repr::Shared(Bytes::copy_from_slice(bytes)))
        }
    }

    /// The text that stands at `range` of `bytes`, whose memory it shares if it is long and nearly all of it.
    ///
    /// # Panics
    /// When `range` is not within `bytes`, as slicing does.
    #[inline]
    #[must_use]
    pub fn slice_of(bytes: &Bytes, range: Range<usize>) -> Self {
        let slice = &bytes[range.clone()];
        if slice.len() >= SHARED_LEN_BYTES && slice.len() >= bytes.len() / 4 * 3 {
            Self(Repr::Shared(bytes.slice(range)))
        } else {
            Self::copy_from_slice(slice)
        }
    }

    /// The part at `range` of this text: a copy, but of all of it.
    ///
    /// # Panics
    /// When `range` is not within it, as slicing does.
    #[inline]
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) { self.clone() } else { Self::copy_from_slice(&self[range]) }
    }

    /// Its bytes.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline(bytes) => &bytes[..usize::from(bytes[INLINE_LEN_BYTES])],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// Its bytes as UTF-8, with the replacement character where they are not.
    #[must_use]
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self)
    }

    /// What ASCII white space separates in it, in order; never empty.
    pub fn words(&self) -> impl Iterator<Item = Text> {
        self.clone().into_words()
    }

    /// What ASCII white space separates in it, in order; never empty. For `flat_map(Text::into_words)`.
    #[must_use]
    pub fn into_words(self) -> Words {
        Words::new(self)
    }

    /// The caller has checked that it is at most [`INLINE_LEN_BYTES`].
    #[inline]
    fn inline(slice: &[u8]) -> Self {
        Self::from_words(short_words(slice), slice.len())
    }

    /// The text of `len` bytes, at most [`INLINE_LEN_BYTES`], that stand in three little-endian words with zeros behind
    /// them.
    #[inline]
    fn from_words([first, second, third]: [u64; 3], len: usize) -> Self {
        let mut bytes = [0; INLINE_LEN_BYTES + 1];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..16].copy_from_slice(&second.to_le_bytes());
        bytes[16..].copy_from_slice(&(third | (len as u64) << 56).to_le_bytes());
        Self(Repr::Inline(bytes))
    }
}

/// Up to [`INLINE_LEN_BYTES`] bytes as three little-endian words, by overlapping loads of fixed length: a call to `memcpy`
/// for a word of five letters costs more than counting it.
#[inline]
fn short_words(bytes: &[u8]) -> [u64; 3] {
    let len = bytes.len();
    let byte = |at: usize| u64::from(bytes[at]);
    let half = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")));
    let word = |at: usize| u64::from_le_bytes(eight(&bytes[at..at + 8]));
    // The last eight bytes, of which `fresh` stand in no earlier word, without the others. Two shifts: `fresh` may be 0.
    let last = |fresh: usize| word(len - 8) >> 8 >> (56 - 8 * fresh);
    match len {
        16.. => [word(0), word(8), last(len - 16)],
        8.. => [word(0), last(len - 8), 0],
        4.. => [half(0) | half(len - 4) << (8 * (len - 4)), 0, 0],
        1.. => [byte(0) | byte(len / 2) << (8 * (len / 2)) | byte(len - 1) << (8 * (len - 1)), 0, 0],
        0 => [0; 3],
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for Text {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Inline(bytes), Repr::Inline(other)) => bytes == other,
            (Repr::Shared(bytes), Repr::Shared(other)) => bytes == other,
            _ => false,
        }
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By bytes.
impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

/// A short text is hashed as three words whatever its length, which needs no branch. This is not how a slice hashes,
/// which is why a `Text` does not borrow as one.
impl Hash for Text {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Repr::Inline(bytes) => {
                state.write_u64(u64::from_le_bytes(eight(&bytes[..8])));
                state.write_u64(u64::from_le_bytes(eight(&bytes[8..16])));
                state.write_u64(u64::from_le_bytes(eight(&bytes[16..])));
            }
            Repr::Shared(bytes) => state.write(bytes),
        }
    }
}

#[inline]
fn eight(bytes: &[u8]) -> [u8; 8] {
    bytes.try_into().expect("the callers cut eight bytes")
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_str_lossy(), f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_str_lossy(), f)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::copy_from_slice(text.as_bytes())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.into_bytes())
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Self::copy_from_slice(bytes)
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE_LEN_BYTES { Self::inline(&bytes) } else { Self(Repr::Shared(bytes.into())) }
    }
}

impl From<Bytes> for Text {
    fn from(bytes: Bytes) -> Self {
        if bytes.len() <= INLINE_LEN_BYTES { Self::inline(&bytes) } else { Self(Repr::Shared(bytes)) }
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text::copy_from_slice(bytes))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text::from(text))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Text, E> {
        Ok(Text::from(bytes))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Text, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = access.next_element()? {
            bytes.push(byte);
        }
        Ok(Text::from(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_as_large_as_its_shared_form() {
        assert_eq!(size_of::<Text>(), size_of::<Bytes>());
    }

    #[test]
    fn what_is_cut_again_and_again_does_not_hold_what_it_was_cut_from() {
        let read = Bytes::from(vec![b'x'; 1 << 20]);
        let mut text = Text::slice_of(&read, 0..1 << 20);
        assert!(!read.is_unique(), "all of it is shared");
        for _ in 0..8 {
            text = text.slice(0..text.len() * 9 / 10);
        }
        assert!(read.is_unique(), "{} bytes hold a megabyte", text.len());
        let rest = read.slice(1_000_000..1_000_100);
        let line = Text::slice_of(&rest, 0..100);
        drop(rest);
        assert!(read.is_unique(), "{} bytes hold a megabyte", line.len());
    }

    #[test]
    fn every_length_is_kept_and_compares_as_its_bytes_do() {
        let bytes: Vec<u8> = (1..=64).collect();
        for len in 0..=64 {
            let text = Text::copy_from_slice(&bytes[..len]);
            assert_eq!(text.as_bytes(), &bytes[..len]);
            assert_eq!(text, Text::slice_of(&Bytes::from(bytes.clone()), 0..len));
            assert_eq!(text, Text::from(bytes[..len].to_vec()));
            assert_eq!(text.cmp(&Text::copy_from_slice(&bytes[..32])), bytes[..len].cmp(&bytes[..32]));
            assert_eq!(postcard::from_bytes::<Text>(&postcard::to_stdvec(&text).unwrap()).unwrap(), text);
        }
        assert_ne!(Text::from("a"), Text::from("a\0"));
    }
}
