//! What is due by time alone.

use std::ops::Bound;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, INodeId};
use situ_wire::messages::namenode::{Response, SafeModeAction};
use situ_wire::path::is_copying;
use situ_wire::time::TimeMs;

use super::admission::Weight;
use crate::core::authorize::Principal;
use crate::core::datanodes::{DatanodeIndex, StorageIndex};
use crate::core::edit::{Change, Edge};
use crate::core::inode::INode;
use crate::core::namesystem::Namesystem;
use crate::core::safe_mode::{Progress, SafeMode};

type Reply = Result<Response, RemoteError>;

/// How many replicas of dead storages are taken out at once.
const DRAIN_SLICE: usize = 10_000;
/// How many files of lost writers are closed at once.
const RECOVER_SLICE: usize = 1_000;
/// How many clients are forgotten in one edit.
const FORGET_SLICE: usize = 10_000;

impl Namesystem {
    /// Does what is due by time. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: TimeMs) {
        self.now = self.now.max(now);
        let now = self.now;
        self.check_liveness(now);
        self.drain_slice();
        let expired = self.blocks.expire_pending(&mut self.datanodes, now);
        if expired > 0 {
            self.warn(format!("{expired} expected replicas did not come; others will be made"));
        }
        self.look_at_safe_mode(now);
        if self.admits(Weight::Frees) {
            for file in self.leases.hard_expired(now, RECOVER_SLICE) {
                match self.copying(file) {
                    Some(edge) => self.drop_copy(now, edge),
                    None => self.recover_file(now, file),
                }
            }
            self.drop_unpublished(now);
            self.forget_clients(now);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<TimeMs> {
        let mut next = self.datanodes.next_deadline().min(self.safe_mode.deadline());
        if let Some(deadline) = self.blocks.next_deadline() {
            next = next.min(deadline);
        }
        if self.admits(Weight::Frees) {
            next = next.min(self.leases.next_deadline());
            if let Some((since, _)) = self.copies.oldest() {
                next = next.min(TimeMs(since.0.saturating_add(self.config.lease_hard_ms)));
            }
            if !self.operations.is_empty() {
                next = next.min(self.next_expiry);
            }
        }
        if !self.draining.is_empty() {
            next = next.min(self.now);
        }
        (next != TimeMs::NEVER).then_some(next)
    }

    /// Marks silent datanodes. When the namenode itself stood still, nobody could be heard, so that silence says
    /// nothing.
    fn check_liveness(&mut self, now: TimeMs) {
        let due = self.datanodes.next_deadline();
        let late_ms = now.0.saturating_sub(due.0);
        if late_ms > u64::from(self.config.heartbeat_ms) {
            self.warn(format!("the namenode stood still for {late_ms} ms; no datanode is held to be dead for that"));
            self.datanodes.excuse(now, late_ms, u64::from(self.config.heartbeat_ms));
        }
        for index in self.datanodes.check_liveness(now) {
            let datanode = self.datanodes.get(index);
            let location = &datanode.location;
            let message = format!(
                "datanode {} on {} ({}) has been silent for {} ms: its replicas are made anew elsewhere",
                location.id,
                location.node,
                location.address,
                now.since(datanode.last_heartbeat).as_millis()
            );
            self.warn(message);
            self.bury(index);
        }
    }

    /// Forgets what a datanode was to do that is dead now, and has its replicas taken out.
    pub(super) fn bury(&mut self, index: DatanodeIndex) {
        self.blocks.forget_orders(&mut self.datanodes, index);
        let datanode = self.datanodes.get(index);
        let storages = datanode.storages.values().copied().chain([datanode.unconfirmed]);
        // One that failed before may be on the list already.
        let held = storages.filter(|storage| !self.datanodes.storage(*storage).blocks.is_empty());
        self.draining.extend(held);
    }

    /// Takes out a bounded slice of the replicas on dead storages.
    fn drain_slice(&mut self) {
        let mut left = DRAIN_SLICE;
        while let Some(storage) = self.draining.front().copied() {
            let ids: Vec<u64> = self.datanodes.storage(storage).blocks.iter().take(left).collect();
            left -= ids.len();
            for id in ids {
                self.blocks.replica_lost(&mut self.datanodes, storage, BlockId(id));
            }
            if !self.datanodes.storage(storage).blocks.is_empty() {
                return;
            }
            self.draining.pop_front();
        }
    }

    /// Takes out all that a dead datanode held.
    pub(super) fn drain_datanode(&mut self, index: DatanodeIndex) {
        let datanode = self.datanodes.get(index);
        for storage in datanode.storages.values().copied().chain([datanode.unconfirmed]).collect::<Vec<_>>() {
            self.drain_storage(storage);
        }
    }

    /// Takes out all that a storage held.
    pub(super) fn drain_storage(&mut self, storage: StorageIndex) {
        for id in self.datanodes.storage(storage).blocks.iter().collect::<Vec<_>>() {
            self.blocks.replica_lost(&mut self.datanodes, storage, BlockId(id));
        }
        self.draining.retain(|other| *other != storage);
    }

    /// Deletes what was copied and has not got the name that it was to have in time: whoever copied it is gone.
    fn drop_unpublished(&mut self, now: TimeMs) {
        for _ in 0..RECOVER_SLICE {
            let due = |since: TimeMs| since.0.saturating_add(self.config.lease_hard_ms) <= now.0;
            let Some((_, inode)) = self.copies.oldest().filter(|(since, _)| due(*since)) else { return };
            self.copies.forget(inode);
            if let Some(edge) = self.copying(inode) {
                self.drop_copy(now, edge);
            }
        }
    }

    /// Where a file stands if its name is that of one that is being copied and not yet whole.
    fn copying(&self, inode: INodeId) -> Option<Edge> {
        let parent = self.namespace.get(inode)?.parent;
        let children = self.namespace.get(parent)?.children()?;
        // Only names that start with a dot are looked at, which are few however large the directory is.
        let mut dotted = children.range::<str, _>((Bound::Included("."), Bound::Excluded("/")));
        let (name, child) = dotted.find(|(_, child)| **child == inode)?;
        is_copying(name).then(|| Edge { parent, name: name.to_string(), child: *child })
    }

    /// Deletes what a client copied that is gone: the name was never to be seen, and nobody can go on with it.
    fn drop_copy(&mut self, now: TimeMs, edge: Edge) {
        let message = format!(
            "{}: its writer is gone before it had its name; what it had copied is deleted",
            self.subject(edge.child)
        );
        self.warn(message);
        self.commit(now, None, Change::Delete { removed: Some(edge) });
    }

    /// Closes a file that its writer has left. Blocks up to the first unfinished one stay; what is behind it goes: it
    /// was never acknowledged by a close.
    pub(super) fn recover_file(&mut self, now: TimeMs, inode: INodeId) {
        let file = self.namespace.get(inode).and_then(INode::file);
        let Some((file, writer)) = file.and_then(|file| Some((file, file.writer.as_ref()?))) else { return };
        let blocks = file.blocks.as_slice();
        let keep = writer.uncommitted.first().map_or(blocks.len(), |first| blocks.partition_point(|id| id < first));
        let dropped: Vec<BlockId> = blocks[keep..].iter().rev().copied().collect();
        let message = format!(
            "{}: its writer, a client of user {:?}, is gone; the file is closed with {keep} blocks, {} unfinished are dropped",
            self.subject(inode),
            self.namespace.names.text(writer.user),
            dropped.len()
        );
        self.warn(message);
        self.commit(now, None, Change::RecoverFile { inode, dropped });
    }

    /// Forgets what clients were answered that have been silent for long.
    fn forget_clients(&mut self, now: TimeMs) {
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = TimeMs(now.0.saturating_add(self.config.client_expiry_ms.max(1) / 2 + 1));
        let since = TimeMs(now.0.saturating_sub(self.config.client_expiry_ms));
        for clients in self.operations.silent_since(since).chunks(FORGET_SLICE) {
            self.commit(now, None, Change::ForgetClients { clients: clients.to_vec() });
        }
    }

    pub(in crate::core) fn safe_mode_progress(&self) -> Progress {
        let total = self.blocks.committed() as u64;
        Progress {
            total,
            found: total - self.blocks.missing() as u64,
            threshold_permille: self.config.safe_mode_threshold_permille,
            unknown: self.datanodes.unknown() as u64,
        }
    }

    /// Leaves safe mode when it is time.
    pub(in crate::core) fn look_at_safe_mode(&mut self, now: TimeMs) {
        if !self.safe_mode.is_on() {
            return;
        }
        let progress = self.safe_mode_progress();
        self.safe_mode = self.safe_mode.next(now, progress, self.config.safe_mode_extension_ms);
        if self.safe_mode == SafeMode::Off {
            self.leave_safe_mode(now);
        }
    }
    fn leave_safe_mode(&mut self, now: TimeMs) {
        self.safe_mode = SafeMode::Off;
        // Whoever was told to wait had no chance to renew its lease by working.
        self.renew_all(now);
        let Progress { total, found, unknown, .. } = self.safe_mode_progress();
        let kept = if unknown > 0 {
            format!("; {unknown} replicas of what was never given out are kept")
        } else {
            String::new()
        };
        self.warn(format!("safe mode is off: {found} of {total} blocks are reported{kept}"));
    }

    /// Does what an operator says about safe mode.
    pub(super) fn order_safe_mode(&mut self, now: TimeMs, who: &Principal<'_>, action: SafeModeAction) -> Reply {
        if action != SafeModeAction::Get && !who.is_superuser() {
            let message = format!("only the superuser, {:?}, enters and leaves safe mode", self.config.superuser);
            return Err(RemoteError::new(ErrorCode::PermissionDenied, format!("user {:?}", who.user), message));
        }
        match action {
            SafeModeAction::Get => {}
            SafeModeAction::Enter => {
                self.safe_mode = SafeMode::Ordered;
                self.warn(format!("safe mode is on: user {:?} has said so", who.user));
            }
            SafeModeAction::Leave if self.safe_mode.is_on() => {
                self.warn(format!("safe mode is left: user {:?} has said so", who.user));
                self.leave_safe_mode(now);
            }
            SafeModeAction::Leave => {}
        }
        Ok(Response::SafeMode(self.safe_mode()))
    }
}
