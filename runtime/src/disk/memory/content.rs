use std::collections::VecDeque;

use fastrand::Rng;

/// What a file holds, and how to get back to what was synced of it.
#[derive(Default, Debug)]
pub(super) struct Content {
    bytes: Vec<u8>,
    /// Not yet synced, oldest first.
    changes: VecDeque<Change>,
    /// How many bytes the changes hold.
    changes_len_bytes: usize,
}

/// An unsynced change, with what it takes to undo it.
#[derive(Debug)]
struct Change {
    /// Where it begins.
    at: usize,
    /// What was overwritten there, or cut off.
    old: Box<[u8]>,
    /// How long the file was.
    old_len: usize,
    /// What came instead.
    new: New,
    /// What a power cut will make of it, if that is settled already.
    settled: Option<Settled>,
}

/// What is certain of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settled {
    /// It is on the disk. It is remembered only because an older change is not.
    Synced,
    /// It will never be on the disk.
    Doomed,
}

#[derive(Debug)]
enum New {
    Bytes(Box<[u8]>),
    Length(usize),
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) {
        let old_len = self.bytes.len();
        let old = self.bytes[at.min(old_len)..(at + bytes.len()).min(old_len)].into();
        put(&mut self.bytes, at, bytes);
        self.remember(Change { at, old, old_len, new: New::Bytes(bytes.into()), settled: None });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        let old_len = self.bytes.len();
        let at = len.min(old_len);
        let old = self.bytes[at..].into();
        self.bytes.resize(len, 0);
        self.remember(Change { at, old, old_len, new: New::Length(len), settled: None });
    }

    /// All changes so far are on the disk, but for the doomed ones.
    pub(super) fn sync(&mut self) {
        for change in &mut self.changes {
            change.settled.get_or_insert(Settled::Synced);
        }
        while self.changes.front().is_some_and(|change| change.settled == Some(Settled::Synced)) {
            self.forget_oldest();
        }
    }

    /// The changes so far are seen, but will never be on the disk.
    pub(super) fn doom(&mut self) {
        for change in &mut self.changes {
            change.settled.get_or_insert(Settled::Doomed);
        }
    }

    /// The power is cut.
    pub(super) fn crash(&mut self, mood: Mood, rng: &mut Rng) {
        let changes = std::mem::take(&mut self.changes);
        self.changes_len_bytes = 0;
        for change in changes.iter().rev() {
            self.bytes.resize(change.old_len, 0);
            if !change.old.is_empty() {
                put(&mut self.bytes, change.at, &change.old);
            }
        }
        for change in &changes {
            let fate = match change.settled {
                None => mood.fate(rng),
                Some(Settled::Synced) => Fate::Kept,
                Some(Settled::Doomed) => Fate::Lost,
            };
            match (&change.new, fate) {
                (_, Fate::Lost) => {}
                (New::Length(len), _) => self.bytes.resize(*len, 0),
                (New::Bytes(bytes), Fate::Kept) => put(&mut self.bytes, change.at, bytes),
                (New::Bytes(bytes), Fate::Torn) => self.put_torn(change.at, bytes, rng),
            }
        }
    }

    /// Puts the first sectors of `bytes`, or any.
    fn put_torn(&mut self, at: usize, bytes: &[u8], rng: &mut Rng) {
        let in_order = rng.bool();
        let mut from = 0;
        while from < bytes.len() {
            let to = bytes.len().min((at + from + 1).next_multiple_of(SECTOR_LEN_BYTES) - at);
            if rng.bool() {
                put(&mut self.bytes, at + from, &bytes[from..to]);
            } else if in_order {
                return;
            }
            from = to;
        }
    }

    /// Keeps what it takes to undo a change. A disk does not put off writing forever, and so that memory has a bound
    /// neither does this one: past a limit the oldest changes count as synced.
    fn remember(&mut self, change: Change) {
        self.changes_len_bytes += change.len_bytes();
        self.changes.push_back(change);
        while self.changes.len() > UNSYNCED_CHANGES_MAX || self.changes_len_bytes > UNSYNCED_LEN_MAX_BYTES {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.changes_len_bytes -= change.len_bytes();
        }
    }
}

impl Change {
    fn len_bytes(&self) -> usize {
        let new = match &self.new {
            New::Bytes(bytes) => bytes.len(),
            New::Length(_) => 0,
        };
        self.old.len() + new
    }
}

/// How a power cut treats what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    LosesAll,
    KeepsAll,
    Mixed,
}

/// What becomes of one change.
pub(super) enum Fate {
    Lost,
    Kept,
    Torn,
}

impl Mood {
    pub(super) fn choose(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0 => Self::LosesAll,
            1 => Self::KeepsAll,
            _ => Self::Mixed,
        }
    }

    pub(super) fn fate(self, rng: &mut Rng) -> Fate {
        match self {
            Self::LosesAll => Fate::Lost,
            Self::KeepsAll => Fate::Kept,
            Self::Mixed => match rng.u8(..3) {
                0 => Fate::Lost,
                1 => Fate::Kept,
                _ => Fate::Torn,
            },
        }
    }
}

/// Puts `bytes` at `at`; what lies between the end so far and there becomes zero.
fn put(target: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    target[at..end].copy_from_slice(bytes);
}

/// What a disk writes in one step.
const SECTOR_LEN_BYTES: usize = 512;
/// The most unsynced changes of one file.
const UNSYNCED_CHANGES_MAX: usize = 10_000;
/// The most bytes in unsynced changes of one file.
const UNSYNCED_LEN_MAX_BYTES: usize = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losing_all_goes_back_to_what_was_synced() {
        let mut content = Content::default();
        content.write(0, &[1; 2000]);
        content.sync();
        content.write(500, &[2; 3000]);
        content.set_len(700);
        content.write(5000, &[3; 10]);
        content.set_len(0);
        content.set_len(9);
        content.crash(Mood::LosesAll, &mut Rng::with_seed(0));
        assert_eq!(content.bytes(), [1; 2000]);
    }

    #[test]
    fn keeping_all_keeps_what_was_seen() {
        let mut content = Content::default();
        content.write(3, &[1; 2000]);
        content.set_len(100);
        content.write(90, &[2; 100]);
        let seen = content.bytes().to_vec();
        content.crash(Mood::KeepsAll, &mut Rng::with_seed(0));
        assert_eq!(content.bytes(), seen);
    }

    #[test]
    fn what_is_doomed_is_lost_and_what_is_synced_after_it_is_not() {
        let mut content = Content::default();
        content.write(0, &[1; 10]);
        content.sync();
        content.write(2, &[2; 10]);
        content.doom();
        content.write(4, &[3; 2]);
        content.sync();
        content.write(0, &[4; 1]);
        assert_eq!(content.bytes(), [4, 1, 2, 2, 3, 3, 2, 2, 2, 2, 2, 2]);
        content.crash(Mood::LosesAll, &mut Rng::with_seed(0));
        assert_eq!(content.bytes(), [1, 1, 1, 1, 3, 3, 1, 1, 1, 1]);
    }

    #[test]
    fn a_mixed_cut_keeps_whole_sectors_and_nothing_that_was_never_written() {
        let (mut torn, mut reordered) = (0, 0);
        for seed in 0..200 {
            let mut content = Content::default();
            content.write(0, &[1; 4096]);
            content.sync();
            content.write(0, &[2; 4096]);
            content.write(2048, &[3; 1024]);
            content.crash(Mood::Mixed, &mut Rng::with_seed(seed));
            let mut seen = Vec::new();
            for sector in content.bytes().chunks(SECTOR_LEN_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}: half a sector");
                seen.push(sector[0]);
            }
            assert!(seen.iter().all(|value| (1..=3).contains(value)), "seed {seed}: {seen:?}");
            torn += u32::from(seen.contains(&1) && seen.contains(&2));
            reordered += u32::from(seen.contains(&3) && !seen.contains(&2));
        }
        assert!(torn > 20 && reordered > 20, "torn {torn}, reordered {reordered}");
    }
}
