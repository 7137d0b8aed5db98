//! Files under a name that is only for the time of copying, until they get the one that they are to have.
//!
//! Soft state beside the namespace, which says the same by their names: kept so that closing or renaming a file need not
//! look for its name.

use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::INodeId;
use situ_wire::time::TimeMs;

/// The files that are being copied.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// All of them; since when each is closed and waits for its name, if it is.
    files: BTreeMap<INodeId, Option<TimeMs>>,
    /// Those that wait, by since when.
    waiting: BTreeSet<(TimeMs, INodeId)>,
}

impl Copies {
    /// A file is made under such a name.
    pub(super) fn begin(&mut self, inode: INodeId) {
        self.files.insert(inode, None);
    }

    /// A file is closed; it matters only if it has such a name.
    pub(super) fn close(&mut self, inode: INodeId, now: TimeMs) {
        if let Some(since) = self.files.get_mut(&inode) {
            *since = Some(now);
            self.waiting.insert((now, inode));
        }
    }

    /// A file got another name, or is gone.
    pub(super) fn forget(&mut self, inode: INodeId) {
        if let Some(Some(since)) = self.files.remove(&inode) {
            self.waiting.remove(&(since, inode));
        }
    }

    /// Gives all as much time as if they had been closed now.
    pub(super) fn renew_all(&mut self, now: TimeMs) {
        self.waiting = std::mem::take(&mut self.waiting).into_iter().map(|(_, inode)| (now, inode)).collect();
        self.files.values_mut().flatten().for_each(|since| *since = now);
    }

    /// The one that has waited longest, and since when.
    pub(super) fn oldest(&self) -> Option<(TimeMs, INodeId)> {
        self.waiting.first().copied()
    }

    /// Asserts that it agrees with itself.
    pub(super) fn check(&self) {
        let waiting = self.files.iter().filter_map(|(inode, since)| Some(((*since)?, *inode))).collect();
        assert_eq!(self.waiting, waiting, "those that wait are known by their time");
    }
}
