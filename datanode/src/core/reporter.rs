//! What the namenode is told, and when: registration, heartbeats, changes, full reports.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use situ_wire::ids::{BlockId, StorageId};
use situ_wire::messages::namenode::ReplicaChange;
use situ_wire::time::TimeMs;

use super::{CallId, CallKind};

/// Where a datanode stands with its namenode.
///
/// ```text
///          time           answer                NotRegistered, Register
///   Out ----------> Asking ------> In ------------------------------------> Out
///    ^                 | error
///    +-----------------+
/// ```
///
/// In: a heartbeat at each interval; after registering a full report, volume by volume and slice by slice; changes soon
/// after they happen, but not between the slices of a report, so that no slice speaks of another time than what was
/// told before it.
#[derive(Debug)]
pub struct Reporter {
    session: u64,
    state: State,
    /// Not told yet, in the order in which they happened.
    changes: VecDeque<ReplicaChange>,
    changes_at: TimeMs,
    /// The volumes that are to be reported in full.
    due: BTreeSet<StorageId>,
    slice: Option<Slice>,
    /// The report or changes that the namenode has not answered yet.
    sending: Option<Sending>,
    /// After an error nothing is reported before that.
    pause_until: TimeMs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Out { retry_at: TimeMs, failures: u32 },
    Asking { failures: u32 },
    In { interval: Duration, heartbeat_at: TimeMs, waiting: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sending {
    Changes(usize),
    Slice(StorageId),
}

/// One slice of a full report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Of which volume.
    pub storage: StorageId,
    /// Its number from 0.
    pub number: u32,
    /// It begins behind this block.
    pub after: Option<BlockId>,
}

/// A call to make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Call {
    /// Register.
    Register,
    /// Say that it lives.
    Heartbeat,
    /// Tell what has changed.
    Changes(Vec<ReplicaChange>),
    /// Tell one slice of all replicas of a volume.
    Slice(Slice),
}

impl Reporter {
    /// One that registers at once.
    #[must_use]
    pub fn new(now: TimeMs) -> Self {
        Self {
            session: 0,
            state: State::Out { retry_at: now, failures: 0 },
            changes: VecDeque::new(),
            changes_at: TimeMs::NEVER,
            due: BTreeSet::new(),
            slice: None,
            sending: None,
            pause_until: now,
        }
    }

    /// Whether the namenode knows this datanode.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        matches!(self.state, State::In { .. })
    }

    /// When there is something to do.
    #[must_use]
    pub fn next_at(&self) -> TimeMs {
        match self.state {
            State::Out { retry_at, .. } => retry_at,
            State::Asking { .. } => TimeMs::NEVER,
            State::In { heartbeat_at, waiting, .. } => {
                let heartbeat = if waiting { TimeMs::NEVER } else { heartbeat_at };
                let report = match self.sending {
                    Some(_) => TimeMs::NEVER,
                    None if !self.due.is_empty() => self.pause_until,
                    None => self.changes_at.max(self.pause_until),
                };
                heartbeat.min(report)
            }
        }
    }

    /// The next call that is due, with its name.
    pub fn next(&mut self, now: TimeMs) -> Option<(CallId, Call)> {
        if self.next_at() > now {
            return None;
        }
        let call = match &mut self.state {
            State::Out { failures, .. } => {
                self.session += 1;
                self.state = State::Asking { failures: *failures };
                Call::Register
            }
            State::Asking { .. } => return None,
            State::In { interval, heartbeat_at, waiting } if *heartbeat_at <= now && !*waiting => {
                *waiting = true;
                *heartbeat_at = now + *interval;
                Call::Heartbeat
            }
            State::In { .. } => self.next_report(),
        };
        let kind = match call {
            Call::Register => CallKind::Register,
            Call::Heartbeat => CallKind::Heartbeat,
            Call::Changes(_) => CallKind::Changes,
            Call::Slice(_) => CallKind::Report,
        };
        Some((CallId { session: self.session, kind }, call))
    }

    fn next_report(&mut self) -> Call {
        assert_eq!(self.sending, None, "one report at a time");
        if let Some(storage) = self.due.first().copied() {
            let first = Slice { storage, number: 0, after: None };
            let slice = *self.slice.get_or_insert(first);
            self.sending = Some(Sending::Slice(storage));
            return Call::Slice(slice);
        }
        let count = self.changes.len().min(CHANGES);
        self.sending = Some(Sending::Changes(count));
        Call::Changes(self.changes.iter().take(count).cloned().collect())
    }

    /// Whether an answer is for a call of this session.
    #[must_use]
    pub fn expects(&self, call: CallId) -> bool {
        call.session == self.session
    }

    /// The namenode knows this datanode now; `volumes` are to be reported in full, `changes` are what a report does not
    /// say.
    pub fn registered(
        &mut self,
        now: TimeMs,
        interval: Duration,
        volumes: impl Iterator<Item = StorageId>,
        changes: impl Iterator<Item = ReplicaChange>,
    ) {
        let interval = interval.max(INTERVAL_MIN);
        self.state = State::In { interval, heartbeat_at: now + interval, waiting: false };
        self.sending = None;
        self.pause_until = now;
        // The full report says what is there and, by leaving it out, what is gone.
        self.changes.clear();
        self.changes_at = TimeMs::NEVER;
        self.report_all(volumes);
        self.change(now, changes);
    }

    /// The namenode could not be asked to register, or does not want to for now.
    pub fn not_registered(&mut self, now: TimeMs) {
        let State::Asking { failures } = self.state else { return };
        let wait = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
        self.state = State::Out { retry_at: now + wait, failures: failures.saturating_add(1) };
    }

    /// The namenode does not know this datanode (any more): it registers at once.
    pub fn register_again(&mut self, now: TimeMs) {
        if self.is_registered() {
            self.state = State::Out { retry_at: now, failures: 0 };
            self.sending = None;
            self.slice = None;
        }
    }

    /// A heartbeat was answered, or not.
    pub fn heartbeat_ended(&mut self, now: TimeMs, answered: bool) {
        if let State::In { interval, heartbeat_at, waiting } = &mut self.state {
            *waiting = false;
            if !answered {
                *heartbeat_at = (*heartbeat_at).min(now + (*interval).min(RETRY));
            }
        }
    }

    /// Volumes are to be reported in full, from the beginning.
    pub fn report_all(&mut self, volumes: impl Iterator<Item = StorageId>) {
        self.due.extend(volumes);
        self.slice = None;
    }

    /// A slice ends at block `last`, and there is more behind it; or, with none, it is the last of its volume.
    pub fn slice_sent(&mut self, more_after: Option<BlockId>) {
        let Some(slice) = self.slice else { return };
        match more_after {
            Some(last) => {
                self.slice = Some(Slice { number: slice.number + 1, after: Some(last), ..slice });
            }
            None => {
                self.slice = None;
                self.due.remove(&slice.storage);
            }
        }
    }

    /// The namenode answered a slice or changes, or did not: then they are told again, a report from its first slice on.
    pub fn report_ended(&mut self, now: TimeMs, answered: bool) {
        match self.sending.take() {
            Some(Sending::Changes(count)) if answered => {
                self.changes.drain(..count.min(self.changes.len()));
                self.changes_at = if self.changes.is_empty() { TimeMs::NEVER } else { now };
            }
            Some(Sending::Slice(storage)) if !answered => {
                self.due.insert(storage);
                self.slice = None;
            }
            _ => {}
        }
        if !answered {
            self.pause_until = now + RETRY;
        }
    }

    /// Replicas have changed.
    pub fn change(&mut self, now: TimeMs, changes: impl Iterator<Item = ReplicaChange>) {
        self.changes.extend(changes);
        if !self.changes.is_empty() {
            self.changes_at = self.changes_at.min(now + GATHER);
        }
    }

    /// Asserts what must hold between events.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self) {
        assert_eq!(self.changes.is_empty(), self.changes_at == TimeMs::NEVER, "changes are told one day");
        assert!(self.sending.is_none() || self.is_registered(), "only who is registered reports");
        if let Some(Sending::Changes(count)) = self.sending {
            assert!(count <= self.changes.len(), "what is being told is remembered until it is answered");
        }
    }
}

/// How long changes gather before they are told.
const GATHER: Duration = Duration::from_millis(5);
/// The most changes in one call.
const CHANGES: usize = 10_000;
/// How soon something that failed is told again.
const RETRY: Duration = Duration::from_millis(500);
/// The wait after the first failed registration; each further one doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest wait between two attempts to register.
const BACKOFF_MAX: Duration = Duration::from_secs(3);
/// However often the namenode wants heartbeats.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
