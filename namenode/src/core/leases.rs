//! Leases: who writes which files, and whether they are still there.
//!
//! A lease belongs to a client and covers all files that it has open. Who holds which file is part of the namespace;
//! when a lease was last renewed is soft state.

use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ClientId, INodeId};
use situ_wire::time::TimeMs;

use super::names::NameId;

#[derive(Debug)]
struct Lease {
    user: NameId,
    renewed: TimeMs,
    files: BTreeSet<INodeId>,
}

/// All leases.
#[derive(Debug)]
pub(super) struct LeaseManager {
    leases: BTreeMap<ClientId, Lease>,
    soft_ms: u64,
    hard_ms: u64,
    next_check: TimeMs,
}

impl LeaseManager {
    pub(super) fn new(soft_ms: u64, hard_ms: u64) -> Self {
        Self { leases: BTreeMap::new(), soft_ms, hard_ms: hard_ms.max(soft_ms), next_check: TimeMs::NEVER }
    }

    /// A client of a user opens a file.
    pub(super) fn open(&mut self, client: ClientId, user: NameId, file: INodeId, now: TimeMs) {
        let lease = self.leases.entry(client);
        let lease = lease.or_insert_with(|| Lease { user, renewed: now, files: BTreeSet::new() });
        lease.renewed = lease.renewed.max(now);
        lease.files.insert(file);
        self.next_check = self.next_check.min(TimeMs(now.0.saturating_add(self.hard_ms)));
    }

    /// A file is closed or gone.
    pub(super) fn close(&mut self, client: ClientId, file: INodeId) {
        if let Some(lease) = self.leases.get_mut(&client) {
            lease.files.remove(&file);
            if lease.files.is_empty() {
                self.leases.remove(&client);
            }
        }
    }

    /// Whose a client is that holds a lease.
    pub(super) fn user_of(&self, client: ClientId) -> Option<NameId> {
        self.leases.get(&client).map(|lease| lease.user)
    }

    /// A client shows that it is there.
    pub(super) fn renew(&mut self, client: ClientId, now: TimeMs) {
        if let Some(lease) = self.leases.get_mut(&client) {
            lease.renewed = lease.renewed.max(now);
        }
    }

    /// The namenode was away: nobody could renew.
    pub(super) fn renew_all(&mut self, now: TimeMs) {
        for lease in self.leases.values_mut() {
            lease.renewed = now;
        }
        if !self.leases.is_empty() {
            self.next_check = TimeMs(now.0.saturating_add(self.hard_ms));
        }
    }

    /// Whether another client may take over the files of this one.
    pub(super) fn is_soft_expired(&self, client: ClientId, now: TimeMs) -> bool {
        self.leases.get(&client).is_none_or(|lease| now.0 >= lease.renewed.0.saturating_add(self.soft_ms))
    }

    /// How long ago a client was last heard.
    pub(super) fn silence_ms(&self, client: ClientId, now: TimeMs) -> u64 {
        self.leases.get(&client).map_or(u64::MAX, |lease| now.0.saturating_sub(lease.renewed.0))
    }

    /// Up to `limit` files whose writers are past the hard limit.
    pub(super) fn hard_expired(&mut self, now: TimeMs, limit: usize) -> Vec<INodeId> {
        if now < self.next_check {
            return Vec::new();
        }
        let (mut expired, mut next) = (Vec::new(), TimeMs::NEVER);
        for lease in self.leases.values() {
            let due = TimeMs(lease.renewed.0.saturating_add(self.hard_ms));
            if due <= now {
                expired.extend(lease.files.iter().copied());
            } else {
                next = next.min(due);
            }
        }
        // What is over the limit is due again at once.
        self.next_check = if expired.len() > limit { self.next_check } else { next };
        expired.truncate(limit);
        expired
    }

    pub(super) fn next_deadline(&self) -> TimeMs {
        self.next_check
    }

    /// Who holds what, for checks.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, INodeId)> {
        self.leases.iter().flat_map(|(client, lease)| lease.files.iter().map(|file| (*client, *file)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::names::Names;

    #[test]
    fn a_renewed_lease_lives_and_a_silent_one_ends() {
        let mut leases = LeaseManager::new(60, 300);
        let user = Names::default().intern("ann");
        leases.open(ClientId(1), user, INodeId(5), TimeMs(0));
        leases.open(ClientId(2), user, INodeId(6), TimeMs(0));
        leases.renew(ClientId(1), TimeMs(50));
        assert!(!leases.is_soft_expired(ClientId(1), TimeMs(109)));
        assert!(leases.is_soft_expired(ClientId(1), TimeMs(110)));
        assert_eq!(leases.hard_expired(TimeMs(299), 9), []);
        assert_eq!(leases.hard_expired(TimeMs(300), 9), [INodeId(6)]);
        leases.close(ClientId(2), INodeId(6));
        assert_eq!(leases.hard_expired(TimeMs(349), 9), []);
        assert_eq!(leases.next_deadline(), TimeMs(350));
        assert_eq!(leases.hard_expired(TimeMs(350), 9), [INodeId(5)]);
    }
}
