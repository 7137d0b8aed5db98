//! The one place where it is decided whether a change may be made at all.

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{INodeId, OperationId};
use situ_wire::messages::namenode::{LogRoom, Taking};
use situ_wire::path::DfsPath;

use crate::core::authorize::Principal;
use crate::core::namesystem::Namesystem;
use crate::core::room::Room;

/// What a change does to the room that the namespace takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weight {
    /// It adds to it.
    Adds,
    /// It frees some, or finishes what was begun: a file that is open is closed, once, with blocks that it has; to have it
    /// written again would cost more.
    Frees,
}

/// What a change is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    Path(&'a DfsPath),
    /// An open file.
    File(INodeId),
}

/// A change that a client asks for.
pub(super) struct Wish<'a> {
    pub(super) operation: OperationId,
    pub(super) weight: Weight,
    pub(super) about: About<'a>,
}

impl<'a> Wish<'a> {
    pub(super) fn adds(operation: OperationId, about: About<'a>) -> Self {
        Self { operation, weight: Weight::Adds, about }
    }

    pub(super) fn frees(operation: OperationId, about: About<'a>) -> Self {
        Self { operation, weight: Weight::Frees, about }
    }
}

impl Namesystem {
    /// Whether changes of that weight may be made.
    pub(super) fn admits(&self, weight: Weight) -> bool {
        !self.safe_mode.is_on() && self.has_room(weight)
    }

    fn has_room(&self, weight: Weight) -> bool {
        match self.taking {
            Taking::Everything => true,
            Taking::WhatFrees => weight == Weight::Frees,
            Taking::Nothing => false,
        }
    }

    /// Refuses a change that may not be made. A lack of room comes first: to wait for the end of safe mode would not help.
    pub(super) fn admit(&self, who: &Principal<'_>, wish: &Wish<'_>) -> Result<(), RemoteError> {
        if let Some(room) = self.room.filter(|_| !self.has_room(wish.weight)) {
            let message = room.describe(self.taking, &self.config.directory);
            return Err(RemoteError::new(ErrorCode::NamenodeFull, self.about(who, wish), message));
        }
        if let Some(reason) = self.safe_mode() {
            let message = format!("the namenode is in safe mode and changes nothing: {reason}");
            return Err(RemoteError::new(ErrorCode::SafeMode, format!("cluster {}", self.config.cluster), message));
        }
        Ok(())
    }

    /// A wish's file by its path, for whom it is open; who only knows its number learns no more.
    fn about(&self, who: &Principal<'_>, wish: &Wish<'_>) -> String {
        match wish.about {
            About::Path(path) => path.to_string(),
            About::File(inode) if self.open_file(who, wish.operation.client, inode).is_ok() => self.subject(inode),
            About::File(inode) => inode.to_string(),
        }
    }

    /// Takes note of how much room the log has.
    pub(in crate::core) fn note_room(&mut self, room: Room) {
        self.room = Some(room);
        let taking = room.taking(self.taking);
        if std::mem::replace(&mut self.taking, taking) != taking {
            self.warn(room.describe(taking, &self.config.directory));
        }
    }

    /// The room of the log, for the cluster's report.
    pub(super) fn log_room(&self) -> Option<LogRoom> {
        self.room.map(|room| LogRoom {
            directory: self.config.directory.clone(),
            free_bytes: room.free_bytes,
            reserve_bytes: room.reserve_bytes,
            last_bytes: room.last_bytes,
            taking: self.taking,
        })
    }
}
