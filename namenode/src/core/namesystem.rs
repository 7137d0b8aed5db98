//! The state machine itself.

use std::collections::VecDeque;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::TxId;
use situ_wire::time::TimeMs;

use super::config::CoreConfig;
use super::digest::NamespaceDigest;
use super::edit::Edit;
use super::event::{Effect, Event};
use super::image::{ImageKey, ImageRecord, ImageSlot};

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

/// The state machine.
///
/// Life: [`new`](Self::new); then, to start again, [`restore`](Self::restore) for every record of an image,
/// [`finish_restore`](Self::finish_restore) and [`apply`](Self::apply) for every later edit of the journal; then
/// [`start`](Self::start). From then on [`handle`](Self::handle) every call and [`handle_timeout`](Self::handle_timeout)
/// when [`poll_timeout`](Self::poll_timeout) is due, and after each of both do every effect of
/// [`poll_effect`](Self::poll_effect), in order.
#[derive(Debug)]
pub struct Namesystem {
    config: CoreConfig,
    last_tx: TxId,
    effects: VecDeque<Effect>,
}

impl Namesystem {
    /// An empty namespace: just the root directory.
    #[must_use]
    pub fn new(config: CoreConfig) -> Self {
        Self { config, last_tx: TxId(0), effects: VecDeque::new() }
    }

    /// Takes a record of an image; in any order.
    ///
    /// # Errors
    /// When it does not fit those before it.
    pub fn restore(&mut self, _record: &ImageRecord) -> Result<(), RestoreError> {
        Ok(())
    }

    /// Ends the restoring from an image that stands at `tx`: links what belongs together. The digest must then be the
    /// image's.
    ///
    /// # Errors
    /// When records are missing or contradict each other.
    pub fn finish_restore(&mut self, tx: TxId) -> Result<(), RestoreError> {
        self.last_tx = tx;
        Ok(())
    }

    /// Replays an edit of the journal.
    ///
    /// # Errors
    /// When it does not follow on the last one or does not fit the namespace. The state is then undefined.
    pub fn apply(&mut self, tx: TxId, _edit: &Edit) -> Result<(), ApplyError> {
        self.last_tx = tx;
        Ok(())
    }

    /// Begins service: safe mode holds until enough blocks are reported.
    pub fn start(&mut self, _now: TimeMs) {}

    /// Takes an event.
    pub fn handle(&mut self, _now: TimeMs, event: Event) {
        let Event::Call { call, .. } = event;
        let error = RemoteError::new(ErrorCode::Unavailable, self.config.cluster, "not yet");
        self.effects.push_back(Effect::Reply { call, when: None, result: Err(error) });
    }

    /// Does what is due by time. Harmless when nothing is.
    pub fn handle_timeout(&mut self, _now: TimeMs) {}

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<TimeMs> {
        None
    }

    /// Asserts every invariant over everything. For tests: it is slow.
    pub fn check(&self) {}

    /// The last transaction.
    #[must_use]
    pub fn last_tx(&self) -> TxId {
        self.last_tx
    }

    /// The digest over the whole namespace at the last transaction.
    #[must_use]
    pub fn digest(&self) -> NamespaceDigest {
        NamespaceDigest::default()
    }

    /// What changed since `image` was last brought forward, each key once, ascending: its record now, or none if it is
    /// gone. The image then stands at [`last_tx`](Self::last_tx) with [`digest`](Self::digest). The image that the
    /// namespace was restored from stands, after the restore, where it stood; for another one call
    /// [`reset_image`](Self::reset_image) first.
    pub fn take_changes(&mut self, _image: ImageSlot) -> Vec<(ImageKey, Option<ImageRecord>)> {
        Vec::new()
    }

    /// Makes the next [`take_changes`](Self::take_changes) of `image` hold every record, for an image that was emptied
    /// or whose last batch may not have arrived.
    pub fn reset_image(&mut self, _image: ImageSlot) {}
}
