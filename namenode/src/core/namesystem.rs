//! The state machine itself: its life, its calls, its clock.

use std::collections::VecDeque;

use situ_wire::error::RemoteError;
use situ_wire::ids::{OperationId, TxId};
use situ_wire::messages::namenode::{Response, Taking};
use situ_wire::time::{CLOCKS_AGREE_MS, TimeMs, WallClock, WallTime};

use super::blocks::BlockManager;
use super::config::CoreConfig;
use super::copies::Copies;
use super::datanodes::{DatanodeManager, StorageIndex};
use super::digest::NamespaceDigest;
use super::edit::{Change, Edit, EditV1};
use super::epochs::Epochs;
use super::errors::no_epochs;
use super::event::{Effect, Event};
use super::image::MetaRecord;
use super::inode::{Content, INode};
use super::leases::LeaseManager;
use super::ledger::Ledger;
use super::namespace::{Namespace, ROOT};
use super::operations::Operations;
use super::random::SplitMix;
use super::restore::Restoring;
use super::room::Room;
use super::safe_mode::SafeMode;

/// A record of an image that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the image does not fit together: {reason}; use the other image")]
pub struct RestoreError {
    /// What does not fit.
    pub reason: String,
}

/// An edit of the journal that does not fit the namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tx} does not fit the namespace at {last}: {reason}")]
pub struct ApplyError {
    /// Which.
    pub tx: TxId,
    /// Up to where the namespace stands.
    pub last: TxId,
    /// What does not fit.
    pub reason: String,
}

/// What a call comes to, and the transaction that must be on disk before it is said.
pub(super) struct Answer {
    pub(super) when: TxId,
    pub(super) result: Result<Response, RemoteError>,
}

/// The state machine.
///
/// Life: [`new`](Self::new); then, to start again, [`restore`](Self::restore) for every record of an image,
/// [`finish_restore`](Self::finish_restore) and [`apply`](Self::apply) for every later edit of the journal; then
/// [`start`](Self::start). From then on [`handle`](Self::handle) every call and [`handle_timeout`](Self::handle_timeout)
/// when [`poll_timeout`](Self::poll_timeout) is due, and after each of both do every effect of
/// [`poll_effect`](Self::poll_effect), in order. Before each of them say what the wall clock shows
/// ([`set_wall_clock`](Self::set_wall_clock)).
///
/// A change is applied as soon as it is decided, before it is on disk; every answer waits for the last transaction that
/// it may have seen, so that nobody learns what a crash could take back. That holds for datanodes as well: an order to
/// delete leaves only when the deletion of its file is on disk.
#[derive(Debug)]
pub struct Namesystem {
    pub(super) config: CoreConfig,
    /// The latest time heard of: deadlines, leases and liveness go by it.
    pub(super) now: TimeMs,
    /// The time of day beside it: times of files come from it, and nothing hangs on it. None until it was told.
    wall: Option<WallClock>,
    pub(super) last_tx: TxId,
    pub(super) meta: MetaRecord,
    pub(super) epochs: Epochs,
    /// Whether the present epoch was begun by this very state machine since it started.
    has_begun_epoch: bool,
    pub(super) namespace: Namespace,
    pub(super) blocks: BlockManager,
    pub(super) datanodes: DatanodeManager,
    pub(super) leases: LeaseManager,
    pub(super) copies: Copies,
    pub(super) operations: Operations,
    pub(super) ledger: Ledger,
    pub(super) safe_mode: SafeMode,
    /// The room of the log; none before it was measured, when everything is taken.
    pub(super) room: Option<Room>,
    pub(super) taking: Taking,
    pub(super) random: SplitMix,
    /// Storages whose replicas are gone and are being taken out in slices.
    pub(super) draining: VecDeque<StorageIndex>,
    pub(super) restoring: Option<Restoring>,
    pub(super) next_expiry: TimeMs,
    pub(super) effects: VecDeque<Effect>,
}

impl Namesystem {
    /// An empty namespace: just the root directory.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        let mut namesystem = Self::without_root(config);
        let owner = namesystem.namespace.names.intern(&namesystem.config.superuser);
        let group = namesystem.namespace.names.intern(&namesystem.config.supergroup);
        let root = INode {
            parent: ROOT,
            modified: WallTime(0),
            owner,
            group,
            mode: 0o755,
            content: Content::Directory(Box::default()),
        };
        namesystem.namespace.insert(&mut namesystem.ledger, ROOT, root);
        namesystem
    }

    pub(super) fn without_root(config: CoreConfig) -> Self {
        Self {
            now: TimeMs(0),
            wall: None,
            last_tx: TxId(0),
            meta: MetaRecord::before_all(ROOT),
            epochs: Epochs::default(),
            has_begun_epoch: false,
            namespace: Namespace::new(),
            blocks: BlockManager::new(),
            datanodes: DatanodeManager::new(&config),
            leases: LeaseManager::new(config.lease_soft_ms, config.lease_hard_ms),
            copies: Copies::default(),
            operations: Operations::default(),
            ledger: Ledger::default(),
            safe_mode: SafeMode::Starting,
            room: None,
            taking: Taking::Everything,
            random: SplitMix::new(config.seed),
            draining: VecDeque::new(),
            restoring: None,
            next_expiry: TimeMs::NEVER,
            effects: VecDeque::new(),
            config,
        }
    }

    /// Replays an edit of the journal.
    ///
    /// # Errors
    /// When it does not follow on the last one or does not fit the namespace. The state is then undefined: start again.
    pub fn apply(&mut self, tx: TxId, edit: &Edit) -> Result<(), ApplyError> {
        let error = |reason| ApplyError { tx, last: self.last_tx, reason };
        if tx != self.last_tx.next() {
            return Err(error(format!("expected {}", self.last_tx.next())));
        }
        let Edit::V1(edit) = edit;
        match self.apply_v1(tx, edit) {
            Ok(()) => {
                self.last_tx = tx;
                Ok(())
            }
            Err(reason) => Err(ApplyError { tx, last: self.last_tx, reason }),
        }
    }

    /// Begins service: safe mode holds until enough blocks are reported, which is at once if there are none.
    pub fn start(&mut self, now: TimeMs) {
        assert!(self.restoring.is_none(), "a restore is finished before service begins");
        self.now = self.now.max(now);
        self.renew_all(now);
        self.operations.renew_all(now);
        self.next_expiry = TimeMs(now.0.saturating_add(self.config.client_expiry_ms));
        self.safe_mode = SafeMode::Waiting;
        self.look_at_safe_mode(now);
    }

    /// Gives all writers as much time as if they had been heard now.
    pub(super) fn renew_all(&mut self, now: TimeMs) {
        self.leases.renew_all(now);
        self.copies.renew_all(now);
    }

    /// Takes what the wall clock says: once before the start, and then before every event. Without it the time of day is
    /// taken to be the core's own.
    pub fn set_wall_clock(&mut self, wall: WallClock) {
        let Some(before) = self.wall.replace(wall) else { return };
        let set_ms = wall.set_since_ms(before);
        if set_ms.unsigned_abs() > CLOCKS_AGREE_MS {
            let how = if set_ms > 0 { "ahead" } else { "back" };
            let set = (set_ms.unsigned_abs() + 500) / 1000;
            self.warn(format!(
                "the clock of the namenode's host was set {how} by {set} s; the times of files follow it, and nothing is \
                 decided by it"
            ));
        }
    }

    /// The time of day at `time`.
    pub(super) fn wall_time(&self, time: TimeMs) -> WallTime {
        self.wall.unwrap_or_default().at(time)
    }

    /// Takes an event.
    pub fn handle(&mut self, now: TimeMs, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Call { call, caller, request } => {
                let Answer { when, result } = self.answer(self.now, &caller, request);
                let when = (when != TxId(0)).then_some(when);
                self.effects.push_back(Effect::Reply { call, when, result });
            }
            Event::Room(room) => self.note_room(room),
        }
    }

    /// Decides a change: applies it and has it appended to the journal.
    pub(super) fn commit(&mut self, now: TimeMs, operation: Option<OperationId>, change: Change) {
        let time = self.wall_time(now);
        let tx = self.last_tx.next();
        let edit = Edit::V1(EditV1 { time, operation, change });
        if let Err(error) = self.apply(tx, &edit) {
            // The plan checked all of it. To go on with half an edit in memory would be worse than to stop.
            panic!("a planned edit does not apply: {error}; {edit:?}");
        }
        self.effects.push_back(Effect::Append { tx, edit });
    }

    /// Begins an epoch if the present one is not of this start or wears out. To be called before anything is made.
    pub(super) fn begin_epoch(&mut self, now: TimeMs) -> Result<(), RemoteError> {
        if self.has_begun_epoch && !self.meta.is_worn() {
            return Ok(());
        }
        let chance = if self.has_begun_epoch { self.random.next() } else { self.config.epoch_chance };
        let epoch =
            self.meta.epoch().next(self.wall_time(now), chance).ok_or_else(|| no_epochs(self.config.cluster))?;
        self.commit(now, None, Change::BeginEpoch { epoch });
        self.has_begun_epoch = true;
        Ok(())
    }

    pub(super) fn warn(&mut self, message: String) {
        self.effects.push_back(Effect::Warn { message });
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The last transaction.
    #[must_use]
    pub fn last_tx(&self) -> TxId {
        self.last_tx
    }

    /// The digest over the whole namespace at the last transaction.
    #[must_use]
    pub fn digest(&self) -> NamespaceDigest {
        self.ledger.digest(self.meta)
    }

    /// Why the namenode is in safe mode, if it is.
    #[must_use]
    pub fn safe_mode(&self) -> Option<String> {
        super::safe_mode::reason(self.safe_mode, self.safe_mode_progress())
    }
}
