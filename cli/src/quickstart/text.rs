//! A natural-looking text from a seed: sentences of words whose frequencies follow Zipf's law.

use std::io::{self, Write};

/// How many different words there are, before capitals and punctuation.
const VOCABULARY: usize = 40_000;
/// Lines are broken at the first word that ends past this column.
const LINE_LEN_BYTES: usize = 72;

const ONSETS: [&str; 24] = [
    "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "v", "w", "br", "ch", "cl", "gr", "pl", "sh",
    "st", "th", "tr",
];
const VOWELS: [&str; 10] = ["a", "e", "i", "o", "u", "ai", "ea", "ee", "io", "ou"];
const CODAS: [&str; 14] = ["", "", "", "n", "r", "s", "t", "l", "m", "nd", "ng", "st", "ck", "rd"];

/// Makes the text.
pub struct TextMaker {
    rng: fastrand::Rng,
    words: Vec<String>,
    /// Vose's alias table over the words: (probability of staying, in 2^32 parts; the alias).
    table: Vec<(u64, u32)>,
    column: usize,
    left_in_sentence: usize,
    left_in_paragraph: usize,
}

impl TextMaker {
    /// A text that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let words = make_words(&mut rng);
        let table = alias_table(words.len());
        Self { rng, words, table, column: 0, left_in_sentence: 0, left_in_paragraph: 6 }
    }

    /// Writes about `len_bytes` of it: whole words, a line break at the end.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn write(&mut self, len_bytes: u64, out: &mut impl Write, mut written: impl FnMut(u64)) -> io::Result<()> {
        let mut done = 0;
        let mut piece = Vec::with_capacity((1 << 20) + 256);
        while done < len_bytes {
            piece.clear();
            let until = (len_bytes - done).min(1 << 20);
            while (piece.len() as u64) < until {
                self.push_word(&mut piece);
            }
            done += piece.len() as u64;
            if done >= len_bytes {
                piece.push(b'\n');
            }
            out.write_all(&piece)?;
            written(piece.len() as u64);
        }
        Ok(())
    }

    fn push_word(&mut self, out: &mut Vec<u8>) {
        let begins = self.left_in_sentence == 0;
        if begins {
            self.left_in_sentence = self.rng.usize(4..24);
        }
        let index = self.pick();
        let word = &self.words[index];
        if self.column > 0 {
            out.push(b' ');
            self.column += 1;
        }
        let start = out.len();
        out.extend_from_slice(word.as_bytes());
        if begins {
            out[start].make_ascii_uppercase();
        }
        self.column += word.len();
        self.left_in_sentence -= 1;
        if self.left_in_sentence == 0 {
            out.push(if self.rng.u8(0..16) == 0 { b'?' } else { b'.' });
            self.left_in_paragraph -= 1;
        } else if self.rng.u8(0..12) == 0 {
            out.push(b',');
        }
        if self.left_in_paragraph == 0 {
            self.left_in_paragraph = self.rng.usize(3..9);
            out.extend_from_slice(b"\n\n");
            self.column = 0;
        } else if self.column > LINE_LEN_BYTES {
            out.push(b'\n');
            self.column = 0;
        }
    }

    fn pick(&mut self) -> usize {
        let drawn = self.rng.u64(..);
        let slot = (u128::from(drawn >> 32) * self.table.len() as u128) >> 32;
        let slot = usize::try_from(slot).unwrap_or(0);
        let (stay, alias) = self.table[slot];
        if drawn & 0xffff_ffff < stay { slot } else { alias as usize }
    }
}

/// Different words, the commonest and shortest first.
fn make_words(rng: &mut fastrand::Rng) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut words = Vec::with_capacity(VOCABULARY);
    while words.len() < VOCABULARY {
        let syllables =
            1 + rng.usize(0..=(words.len() + 1).ilog10().max(1) as usize) / 2 + usize::from(words.len() > 800);
        let mut word = String::new();
        for _ in 0..syllables {
            word += ONSETS[rng.usize(..ONSETS.len())];
            word += VOWELS[rng.usize(..VOWELS.len())];
            word += CODAS[rng.usize(..CODAS.len())];
        }
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

/// The alias table of Zipf's law with exponent 1 over `count` ranks (Vose, "A Linear Algorithm for Generating Random
/// Numbers with a Given Distribution", 1991).
fn alias_table(count: usize) -> Vec<(u64, u32)> {
    const ONE: u64 = 1 << 32;
    let total: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
    let mut share: Vec<f64> = (1..=count).map(|rank| count as f64 / (rank as f64 * total)).collect();
    let mut table = vec![(ONE, 0_u32); count];
    let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|&index| share[index] < 1.0);
    while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share below 1 of 2^32 parts")]
        let stay = (share[low] * ONE as f64) as u64;
        table[low] = (stay, u32::try_from(high).unwrap_or(0));
        share[high] -= 1.0 - share[low];
        if share[high] < 1.0 {
            small.push(high);
            large.pop();
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(seed: u64, len_bytes: u64) -> Vec<u8> {
        let mut out = Vec::new();
        TextMaker::new(seed).write(len_bytes, &mut out, |_| ()).unwrap();
        out
    }

    #[test]
    fn a_seed_always_gives_the_same_text() {
        assert_eq!(text(1, 3 << 20), text(1, 3 << 20));
        assert_ne!(text(1, 1000), text(2, 1000));
        let pinned = blake3::hash(&text(1, 1 << 20)).to_hex();
        assert_eq!(&pinned[..16], "41e95ad48ab2911b");
    }

    #[test]
    fn it_looks_like_a_text() {
        let out = text(7, 1 << 20);
        assert!(out.len() as u64 >= 1 << 20 && out.ends_with(b"\n"));
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().all(|line| line.len() < 120));
        let mut counts = std::collections::HashMap::<&str, u32>::new();
        for word in text.split_whitespace() {
            *counts.entry(word).or_default() += 1;
        }
        let commonest = counts.values().max().copied().unwrap();
        let words = counts.values().sum::<u32>();
        // Zipf over 40,000 ranks gives the first rank about 9 %, spread over its forms with and without a comma.
        assert!(commonest * 100 > words * 5 && commonest * 100 < words * 10, "{commonest} of {words}");
        assert!(counts.len() > 15_000);
    }
}
