//! Sets of a stage's tasks that take a bit or a number for each.

use super::stage::index;

/// A set of partitions: one bit for each.
#[derive(Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    len: usize,
    /// No word before this one has anything in it.
    first: usize,
}

impl Bits {
    pub(super) fn new(partitions: u32) -> Self {
        let words = vec![0; index(partitions).div_ceil(64)];
        Self { len: 0, first: words.len(), words }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Nothing, of the same partitions.
    pub(super) fn none(&self) -> Self {
        Self { words: vec![0; self.words.len()], len: 0, first: self.words.len() }
    }

    /// Past the last partition that could be in it.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.words.len() * 64).unwrap_or(u32::MAX)
    }

    pub(super) fn contains(&self, partition: u32) -> bool {
        self.words.get(index(partition / 64)).is_some_and(|word| word & bit(partition) != 0)
    }

    /// Whether it was not in it.
    pub(super) fn insert(&mut self, partition: u32) -> bool {
        let at = index(partition / 64);
        let new = self.words[at] & bit(partition) == 0;
        self.words[at] |= bit(partition);
        self.len += usize::from(new);
        self.first = self.first.min(at);
        new
    }

    /// Whether it was in it.
    pub(super) fn remove(&mut self, partition: u32) -> bool {
        let at = index(partition / 64);
        let there = self.contains(partition);
        if there {
            self.words[at] &= !bit(partition);
            self.len -= 1;
            while self.words.get(self.first) == Some(&0) {
                self.first += 1;
            }
        }
        there
    }

    /// In order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        (self.first..self.words.len()).flat_map(|at| {
            let base = u32::try_from(at * 64).unwrap_or(u32::MAX);
            let mut word = self.words[at];
            std::iter::from_fn(move || {
                let next = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some(base + next)
            })
        })
    }
}

fn bit(partition: u32) -> u64 {
    1 << (partition % 64)
}

/// For each of several places, the partitions whose input lies there, in order; which of them wait is known elsewhere.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Where the list of each place begins in `partitions`, and where the last one ends.
    starts: Vec<u32>,
    partitions: Vec<u32>,
    /// Before it, nothing of the place's list waits.
    cursors: Vec<u32>,
    /// How many of the place's list wait.
    waiting: Vec<u32>,
}

impl Lists {
    /// From pairs of place and partition, in the order of the partitions.
    pub(super) fn new(places: usize, pairs: impl Iterator<Item = (u32, u32)> + Clone) -> Self {
        let mut starts = vec![0_u32; places + 1];
        for (place, _) in pairs.clone() {
            starts[index(place) + 1] += 1;
        }
        for place in 0..places {
            starts[place + 1] += starts[place];
        }
        let mut ends: Vec<u32> = starts[..places].to_vec();
        let mut partitions = vec![0; starts.last().copied().map_or(0, index)];
        for (place, partition) in pairs {
            let end = &mut ends[index(place)];
            partitions[index(*end)] = partition;
            *end += 1;
        }
        // Nothing waits yet.
        Self { cursors: ends, waiting: vec![0; places], starts, partitions }
    }

    /// All of `waiting` wait now.
    pub(super) fn fill(&mut self, waiting: &Bits) {
        for place in 0..self.waiting.len() {
            let (start, end) = (self.starts[place], self.starts[place + 1]);
            let list = &self.partitions[index(start)..index(end)];
            let waits = |partition: &u32| waiting.contains(*partition);
            let first = list.iter().position(waits).unwrap_or(list.len());
            self.cursors[place] = start + u32::try_from(first).unwrap_or(u32::MAX);
            self.waiting[place] =
                list.iter().filter(|partition| waits(partition)).count().try_into().unwrap_or(u32::MAX);
        }
    }

    pub(super) fn waiting(&self, place: u32) -> u32 {
        self.waiting[index(place)]
    }

    /// One of the place's list waits now; whether it is the only one.
    pub(super) fn insert(&mut self, place: u32, partition: u32) -> bool {
        let (start, end) = (self.starts[index(place)], self.starts[index(place) + 1]);
        let list = &self.partitions[index(start)..index(end)];
        let at = start + u32::try_from(list.partition_point(|other| *other < partition)).unwrap_or(u32::MAX);
        let cursor = &mut self.cursors[index(place)];
        *cursor = at.min(*cursor);
        self.waiting[index(place)] += 1;
        self.waiting[index(place)] == 1
    }

    /// One of the place's list waits no more, and is not among `waiting` already; whether it was the only one.
    pub(super) fn remove(&mut self, place: u32, waiting: &Bits) -> bool {
        self.waiting[index(place)] -= 1;
        let end = self.starts[index(place) + 1];
        let cursor = &mut self.cursors[index(place)];
        while *cursor < end && !waiting.contains(self.partitions[index(*cursor)]) {
            *cursor += 1;
        }
        self.waiting[index(place)] == 0
    }

    /// Those of a place that wait, in order.
    pub(super) fn iter<'a>(&'a self, place: u32, waiting: &'a Bits) -> impl Iterator<Item = u32> + 'a {
        let (cursor, end) = (self.cursors[index(place)], self.starts[index(place) + 1]);
        self.partitions[index(cursor)..index(end)].iter().copied().filter(|partition| waiting.contains(*partition))
    }

    pub(super) fn check(&self, waiting: &Bits) {
        for place in 0..self.waiting.len() {
            let (start, end) = (index(self.starts[place]), index(self.starts[place + 1]));
            let there = self.partitions[start..end].iter().filter(|partition| waiting.contains(**partition));
            assert_eq!(there.count(), index(self.waiting[place]), "waiting tasks of a place are counted");
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            assert_eq!(self.iter(place, waiting).count(), index(self.waiting(place)), "the cursor hides nothing");
        }
    }
}
