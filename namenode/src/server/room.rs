//! The room of the edit log: measured now and then, and between two looks as much less as was appended since.

use std::time::Duration;

use situ_runtime::disk::{DiskError, Space};
use situ_runtime::journal::growth_len_bytes;
use situ_wire::messages::namenode::Taking;
use situ_wire::time::TimeMs;
use tokio::sync::oneshot;

use super::log::Log;
use crate::core::Room;

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// It is looked at too whenever such a part of the reserve may have been appended, but not for less than some bytes.
const LOOK_SHARE: u64 = 16;
const LOOK_LEN_BYTES: u64 = 64 << 10;
/// What is kept of a disk by default: a share of it, and at most two segments of the log.
const RESERVE_SHARE: u64 = 32;
const RESERVE_LEN_BYTES: u64 = 128 << 20;

/// How much of a disk is kept for the edit log: what is configured, or else the default.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserve(pub(super) Option<u64>);

impl Reserve {
    /// In bytes, of a disk of that size.
    pub(super) fn of(self, capacity_bytes: u64) -> u64 {
        self.0.unwrap_or(RESERVE_LEN_BYTES.min(capacity_bytes / RESERVE_SHARE))
    }
}

/// What became of a look; an error of the outer kind if the log's writer is gone.
pub(super) type Looked = Result<Result<Space, DiskError>, oneshot::error::RecvError>;

/// The room of the log as the owner knows it.
pub(super) struct RoomWatch {
    reserve: Reserve,
    measured: Space,
    /// What may have been taken of it since.
    appended_bytes: u64,
    looking: Option<Looking>,
    next_look: TimeMs,
    /// Whether the last look failed: that is said once.
    is_blind: bool,
    /// What the core was told last; none if there is something new to tell.
    told: Option<Room>,
}

/// A look that is under way.
struct Looking {
    answer: oneshot::Receiver<Result<Space, DiskError>>,
    /// What was appended since it was begun.
    appended_bytes: u64,
}

impl RoomWatch {
    pub(super) fn new(reserve: Reserve, measured: Space, now: TimeMs) -> Self {
        let next_look = now + LOOK_EVERY;
        Self { reserve, measured, appended_bytes: 0, looking: None, next_look, is_blind: false, told: None }
    }

    fn reserve_bytes(&self) -> u64 {
        self.reserve.of(self.measured.capacity_bytes)
    }

    /// What there is for sure, if nobody else takes any.
    fn room(&self) -> Room {
        Room::new(self.measured.free_bytes.saturating_sub(self.appended_bytes), self.reserve_bytes())
    }

    /// Counts an edit of so many bytes, as if it were alone in its frame.
    pub(super) fn appended(&mut self, len_bytes: usize) {
        let growth_bytes = growth_len_bytes(len_bytes);
        self.appended_bytes += growth_bytes;
        if let Some(looking) = &mut self.looking {
            looking.appended_bytes += growth_bytes;
        }
    }

    /// What the core must hear: what a look has found, and that edits may have taken so much since that less goes.
    pub(super) fn news(&mut self) -> Option<Room> {
        let room = self.room();
        let step = |room: Room| room.taking(Taking::Everything);
        if self.told.is_some_and(|told| step(told) == step(room)) {
            return None;
        }
        self.told = Some(room);
        self.told
    }

    /// When the next look is due.
    pub(super) fn poll_timeout(&self) -> TimeMs {
        let much_bytes = LOOK_LEN_BYTES.max(self.reserve_bytes() / LOOK_SHARE);
        match &self.looking {
            Some(_) => TimeMs::NEVER,
            None if self.appended_bytes >= much_bytes && !self.is_blind => TimeMs(0),
            None => self.next_look,
        }
    }

    /// Begins a look: the log's writer measures when all that was appended until now is written.
    pub(super) fn look(&mut self, log: &Log, now: TimeMs) {
        assert!(self.looking.is_none(), "one look at a time");
        self.next_look = now + LOOK_EVERY;
        self.looking = Some(Looking { answer: log.look(), appended_bytes: 0 });
    }

    /// Waits for the end of a look. Safe to drop and call again.
    pub(super) async fn looked(&mut self) -> Looked {
        match &mut self.looking {
            Some(looking) => (&mut looking.answer).await,
            None => std::future::pending().await,
        }
    }

    /// Takes note of what a look has found.
    pub(super) fn note(&mut self, looked: Looked) {
        let Some(Looking { appended_bytes, .. }) = self.looking.take() else { return };
        match looked {
            Ok(Ok(measured)) => {
                (self.measured, self.appended_bytes, self.told, self.is_blind) =
                    (measured, appended_bytes, None, false);
            }
            Ok(Err(error)) if !self.is_blind => {
                self.is_blind = true;
                tracing::warn!(%error, "the room of the edit log cannot be measured; what is appended counts as taken");
            }
            // The owner hears from the log itself why its writer is gone.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_taken_off_and_told_when_less_goes() {
        let measured = Space { capacity_bytes: 1 << 20, free_bytes: 10_000 };
        let mut watch = RoomWatch::new(Reserve(Some(8192)), measured, TimeMs(0));
        assert_eq!(watch.news(), Some(Room::new(10_000, 8192)));
        watch.appended(10);
        assert_eq!(watch.news(), None, "still above the reserve");
        watch.appended(10);
        assert_eq!(watch.news(), Some(Room::new(10_000 - 2 * 1024, 8192)));
        for _ in 0..6 {
            watch.appended(10);
        }
        assert_eq!(watch.news(), Some(Room::new(10_000 - 8 * 1024, 8192)), "below the last bytes");
        assert_eq!(watch.poll_timeout(), TimeMs(0) + LOOK_EVERY);
        watch.appended(usize::try_from(LOOK_LEN_BYTES).unwrap());
        assert_eq!(watch.poll_timeout(), TimeMs(0), "after so much it looks at once");
    }

    #[test]
    fn a_thirty_second_of_a_disk_is_kept_but_not_of_a_large_one() {
        assert_eq!(Reserve(None).of(320), 10);
        assert_eq!(Reserve(None).of(1 << 40), RESERVE_LEN_BYTES);
        assert_eq!(Reserve(Some(7)).of(1 << 40), 7);
    }
}
