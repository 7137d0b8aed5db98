//! Maps and sets over ids that are given out in ascending order and taken back at random.
//!
//! Ids are grouped into pages of 64. A page holds a bit for each id and the values of those that are there, in order, so
//! that a dense map costs a quarter of a byte an entry beside the values, and a sparse one a page's header.

use std::collections::BTreeMap;

const PAGE: u64 = 64;

/// The bit of an id within its page.
fn bit(id: u64) -> u64 {
    1 << (id % PAGE)
}

/// How many bits are set below `id`'s.
fn rank(present: u64, id: u64) -> usize {
    (present & (bit(id) - 1)).count_ones() as usize
}

#[derive(Debug)]
struct Page<T> {
    present: u64,
    items: Vec<T>,
}

/// A map from ids to values.
#[derive(Debug)]
pub(super) struct IdMap<T> {
    pages: BTreeMap<u64, Page<T>>,
    len: usize,
}

impl<T> IdMap<T> {
    pub(super) fn new() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        let page = self.pages.get(&(id / PAGE))?;
        if page.present & bit(id) == 0 {
            return None;
        }
        Some(&page.items[rank(page.present, id)])
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let page = self.pages.get_mut(&(id / PAGE))?;
        if page.present & bit(id) == 0 {
            return None;
        }
        Some(&mut page.items[rank(page.present, id)])
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.get(id).is_some()
    }

    /// Sets the value of an id; gives back the one before.
    pub(super) fn insert(&mut self, id: u64, value: T) -> Option<T> {
        let page = self.pages.entry(id / PAGE).or_insert_with(|| Page { present: 0, items: Vec::new() });
        let at = rank(page.present, id);
        if page.present & bit(id) != 0 {
            return Some(std::mem::replace(&mut page.items[at], value));
        }
        page.present |= bit(id);
        page.items.insert(at, value);
        self.len += 1;
        None
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let page = self.pages.get_mut(&(id / PAGE))?;
        if page.present & bit(id) == 0 {
            return None;
        }
        let value = page.items.remove(rank(page.present, id));
        page.present &= !bit(id);
        self.len -= 1;
        if page.present == 0 {
            self.pages.remove(&(id / PAGE));
        } else if page.items.len() * 4 <= page.items.capacity() {
            page.items.shrink_to_fit();
        }
        Some(value)
    }

    /// All entries, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.iter_from(0)
    }

    /// All entries from an id on, ascending.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        let pages = self.pages.range(from / PAGE..);
        let entries = pages.flat_map(|(page, entries)| bits(*page, entries.present).zip(entries.items.iter()));
        entries.skip_while(move |(id, _)| *id < from)
    }
}

/// A set of ids.
#[derive(Debug, Default, Clone)]
pub(super) struct IdSet {
    pages: BTreeMap<u64, u64>,
    len: usize,
}

impl IdSet {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.pages.get(&(id / PAGE)).is_some_and(|present| present & bit(id) != 0)
    }

    /// Puts an id in; whether it was not there before.
    pub(super) fn insert(&mut self, id: u64) -> bool {
        let present = self.pages.entry(id / PAGE).or_insert(0);
        let new = *present & bit(id) == 0;
        *present |= bit(id);
        self.len += usize::from(new);
        new
    }

    /// Takes an id out; whether it was there.
    pub(super) fn remove(&mut self, id: u64) -> bool {
        let Some(present) = self.pages.get_mut(&(id / PAGE)) else { return false };
        if *present & bit(id) == 0 {
            return false;
        }
        *present &= !bit(id);
        if *present == 0 {
            self.pages.remove(&(id / PAGE));
        }
        self.len -= 1;
        true
    }

    /// Puts an id in or takes it out.
    pub(super) fn set(&mut self, id: u64, present: bool) {
        if present {
            self.insert(id);
        } else {
            self.remove(id);
        }
    }

    /// All ids from `from` to `to`, both included, ascending.
    pub(super) fn range(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let pages = (from <= to).then(|| self.pages.range(from / PAGE..=to / PAGE));
        pages
            .into_iter()
            .flatten()
            .flat_map(|(page, present)| bits(*page, *present))
            .filter(move |id| (from..=to).contains(id))
    }

    /// All ids, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.pages.iter().flat_map(|(page, present)| bits(*page, *present))
    }

    /// Up to `limit` ids, going round: those after `cursor` first, then those from the start up to it.
    pub(super) fn next_round(&self, cursor: u64, limit: usize) -> Vec<u64> {
        let after = self.range(cursor.saturating_add(1), u64::MAX);
        after.chain(self.range(0, cursor)).take(limit).collect()
    }
}

/// The ids of the bits of a page, ascending.
fn bits(page: u64, mut present: u64) -> impl Iterator<Item = u64> {
    std::iter::from_fn(move || {
        if present == 0 {
            return None;
        }
        let at = u64::from(present.trailing_zeros());
        present &= present - 1;
        Some(page * PAGE + at)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_map_and_a_set_agree_with_the_standard_ones() {
        let mut random = super::super::random::SplitMix::new(7);
        let mut map = IdMap::new();
        let mut model = BTreeMap::new();
        let mut set = IdSet::default();
        for step in 0..20_000_u64 {
            let id = random.below(500) * if step % 3 == 0 { 1 } else { 1000 };
            if random.below(5) < 3 {
                assert_eq!(map.insert(id, step), model.insert(id, step));
                set.insert(id);
            } else {
                assert_eq!(map.remove(id), model.remove(&id));
                set.remove(id);
            }
            assert_eq!(map.get(id), model.get(&id));
            assert_eq!(map.len(), model.len());
        }
        assert!(map.iter().eq(model.iter().map(|(id, value)| (*id, value))));
        let keys: BTreeSet<u64> = model.keys().copied().collect();
        assert!(set.iter().eq(keys.iter().copied()));
        assert!(set.range(1000, 200_000).eq(keys.range(1000..=200_000).copied()));
        assert!(map.iter_from(1000).eq(model.range(1000..).map(|(id, value)| (*id, value))));
        assert_eq!(set.range(5, 4).count(), 0);
        assert_eq!(set.range(1000, u64::MAX).count(), keys.range(1000..).count());
    }

    #[test]
    fn a_round_starts_behind_its_cursor_and_wraps() {
        let mut set = IdSet::default();
        for id in [1, 5, 70, 200] {
            set.insert(id);
        }
        assert_eq!(set.next_round(5, 3), [70, 200, 1]);
        assert_eq!(set.next_round(u64::MAX, 9), [1, 5, 70, 200]);
        assert_eq!(set.next_round(0, 2), [1, 5]);
    }
}
