//! The count that a job's output is checked against: one thread, straight from the input.

use std::io::{self, Read};

use hashbrown::HashMap;

/// How often each word occurs; words are what ASCII white space separates.
#[derive(Debug, Default)]
pub struct WordCount {
    counts: HashMap<Box<[u8]>, u64, foldhash::fast::FixedState>,
    /// The beginning of a word that the last piece cut off.
    carried: Vec<u8>,
}

impl WordCount {
    /// Counts the words of all that `input` gives.
    ///
    /// # Errors
    /// When `input` fails.
    pub fn of(mut input: impl Read, mut counted: impl FnMut(u64)) -> io::Result<Self> {
        let mut count = Self::default();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    count.take(&buffer[..len]);
                    counted(len as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let last = std::mem::take(&mut count.carried);
        count.add(&last);
        Ok(count)
    }

    fn take(&mut self, mut piece: &[u8]) {
        if !self.carried.is_empty() {
            let end = piece.iter().position(u8::is_ascii_whitespace).unwrap_or(piece.len());
            self.carried.extend_from_slice(&piece[..end]);
            piece = &piece[end..];
            if piece.is_empty() {
                return;
            }
            let word = std::mem::take(&mut self.carried);
            self.add(&word);
        }
        let whole = piece.iter().rposition(u8::is_ascii_whitespace).map_or(0, |at| at + 1);
        let (words, rest) = piece.split_at(whole);
        for word in words.split(u8::is_ascii_whitespace) {
            self.add(word);
        }
        self.carried.extend_from_slice(rest);
    }

    fn add(&mut self, word: &[u8]) {
        if word.is_empty() {
            return;
        }
        match self.counts.get_mut(word) {
            Some(count) => *count += 1,
            None => {
                self.counts.insert(word.into(), 1);
            }
        }
    }

    /// All words.
    pub fn words(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The lines that a job's parts must hold, over all parts, sorted: `word<TAB>count`.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = self
            .counts
            .iter()
            .map(|(word, count)| {
                let mut line = word.to_vec();
                line.push(b'\t');
                line.extend_from_slice(count.to_string().as_bytes());
                line
            })
            .collect();
        lines.sort_unstable();
        lines
    }

    /// The `count` commonest words, commonest first.
    pub fn top(&self, count: usize) -> Vec<(&[u8], u64)> {
        let mut all: Vec<(&[u8], u64)> = self.counts.iter().map(|(word, count)| (&**word, *count)).collect();
        all.sort_unstable_by(|left, right| right.1.cmp(&left.1).then(left.0.cmp(right.0)));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte at a time, so that every word is cut everywhere.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let len = self.0.len().min(1);
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn words_are_counted_wherever_the_pieces_are_cut() {
        let input = b"  a bb\ta\n\xff\xfe bb\r\n\n a";
        let expected: Vec<Vec<u8>> = vec![b"a\t3".to_vec(), b"bb\t2".to_vec(), b"\xff\xfe\t1".to_vec()];
        for count in [WordCount::of(&input[..], |_| ()).unwrap(), WordCount::of(Drip(input), |_| ()).unwrap()] {
            assert_eq!(count.lines(), expected);
            assert_eq!(count.words(), 6);
            assert_eq!(count.top(1), [(&b"a"[..], 3)]);
        }
        assert!(WordCount::of(&b""[..], |_| ()).unwrap().lines().is_empty());
    }
}
