use std::collections::BTreeMap;

use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;

use super::Name;

/// Something in the file system, as a search must know it.
pub trait Found {
    /// Where it is.
    fn path(&self) -> &DfsPath;
    /// Whether it is a directory.
    fn is_directory(&self) -> bool;
}

impl Found for FileStatus {
    fn path(&self) -> &DfsPath {
        &self.path
    }

    fn is_directory(&self) -> bool {
        Self::is_directory(self)
    }
}

/// What a [`Search`] must know to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Look {
    /// What is at this path, if anything: told by [`Search::stated`].
    Stat(DfsPath),
    /// What this directory holds: told by [`Search::listed`].
    List(DfsPath),
}

/// Looks for what a [`Glob`](super::Glob) matches, from the root down. It asks for what it must know and decides what to
/// ask next; no path is asked for twice, however many alternatives lead there.
#[derive(Debug)]
pub struct Search<E> {
    alternatives: Vec<Vec<Name>>,
    hidden: &'static [char],
    /// Paths to look at, in their order.
    open: BTreeMap<DfsPath, Open<E>>,
    /// What has been asked for.
    asked: Option<(DfsPath, Open<E>)>,
    found: Vec<E>,
}

/// A path to look at.
#[derive(Debug)]
struct Open<E> {
    /// What is there, if that is known.
    entry: Option<E>,
    /// How far each alternative that leads here has come: which, and how many of its names.
    ways: Vec<(usize, usize)>,
}

impl<E> Default for Open<E> {
    fn default() -> Self {
        Self { entry: None, ways: Vec::new() }
    }
}

impl<E: Found> Search<E> {
    pub(super) fn new(alternatives: Vec<Vec<Name>>, hidden: &'static [char]) -> Self {
        let ways = (0..alternatives.len()).map(|alternative| (alternative, 0)).collect();
        let open = BTreeMap::from([(DfsPath::root(), Open { entry: None, ways })]);
        Self { alternatives, hidden, open, asked: None, found: Vec::new() }
    }

    /// What must be known next; none when all is found.
    pub fn next_look(&mut self) -> Option<Look> {
        while let Some((path, open)) = self.open.pop_first() {
            let names = |(alternative, at): &(usize, usize)| self.alternatives[*alternative].get(*at);
            let is_match = open.ways.iter().any(|way| names(way).is_none());
            let needs_list = open.ways.iter().any(|way| matches!(names(way), Some(Name::Pattern(_))));
            if open.entry.is_none() && (is_match || needs_list) {
                self.asked = Some((path.clone(), open));
                return Some(Look::Stat(path));
            }
            let is_directory = open.entry.as_ref().is_none_or(Found::is_directory);
            if is_directory && needs_list {
                self.asked = Some((path.clone(), open));
                return Some(Look::List(path));
            }
            if is_directory {
                self.go_down(&path, &open.ways);
            }
            self.found.extend(open.entry.filter(|_| is_match));
        }
        None
    }

    /// Takes what [`Look::Stat`] has found.
    pub fn stated(&mut self, entry: Option<E>) {
        let Some((path, mut open)) = self.asked.take() else { return };
        if entry.is_some() {
            open.entry = entry;
            self.open.insert(path, open);
        }
    }

    /// Takes what [`Look::List`] has found.
    pub fn listed(&mut self, entries: impl IntoIterator<Item = E>) {
        let Some((_, open)) = self.asked.take() else { return };
        for entry in entries {
            let name = entry.path().name();
            let hidden = self.hidden.iter().find(|hidden| name.starts_with(**hidden));
            let fits = |(alternative, at): &(usize, usize)| match self.alternatives[*alternative].get(*at) {
                None => false,
                Some(Name::Plain(plain)) => plain == name,
                Some(Name::Pattern(pattern)) => {
                    hidden.is_none_or(|hidden| pattern.starts_with(*hidden)) && pattern.matches(name)
                }
            };
            let ways: Vec<_> =
                open.ways.iter().filter(|way| fits(way)).map(|(alternative, at)| (*alternative, at + 1)).collect();
            if !ways.is_empty() {
                self.open.insert(entry.path().clone(), Open { entry: Some(entry), ways });
            }
        }
        if let Some(entry) = open.entry
            && open.ways.iter().any(|(alternative, at)| self.alternatives[*alternative].len() == *at)
        {
            self.found.push(entry);
        }
    }

    /// All that was found, by path.
    #[must_use]
    pub fn finish(mut self) -> Vec<E> {
        self.found.sort_by(|one, other| one.path().cmp(other.path()));
        self.found
    }

    /// Goes on to the names that need no list.
    fn go_down(&mut self, directory: &DfsPath, ways: &[(usize, usize)]) {
        for (alternative, at) in ways {
            let Some(Name::Plain(name)) = self.alternatives[*alternative].get(*at) else { continue };
            // A path that is too long is nowhere.
            if let Ok(path) = directory.join(name) {
                self.open.entry(path).or_default().ways.push((*alternative, at + 1));
            }
        }
    }
}
