use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::ExecutorId;
use situ_wire::messages::scheduler::{Request, Response};
use situ_wire::time::TimeMs;

use super::JobRecord;

/// One call under way, as its server numbers it. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// The position of a record among those that this run of the scheduler appends. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct RecordId(pub u64);

/// Who calls, as its certificate proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The part that it plays.
    pub role: Role,
    /// Its node's or user's name.
    pub name: String,
}

/// What the core is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A call came. It gets exactly one [`Effect::Answer`], perhaps much later.
    Call {
        /// Which.
        call: CallId,
        /// From whom.
        caller: Caller,
        /// Until when the caller waits.
        deadline: TimeMs,
        /// What it asks.
        request: Box<Request>,
    },
    /// All records up to this one are on the disk.
    Synced {
        /// The last of them.
        record: RecordId,
    },
    /// The connection over which an executor polled is gone.
    Disconnected {
        /// Which.
        executor: ExecutorId,
    },
}

/// What the core asks for, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append a record to the journal, and tell when it is on the disk.
    Append {
        /// Its position: one more than that of the last.
        id: RecordId,
        /// The record.
        record: Box<JobRecord>,
    },
    /// Answer a call.
    Answer {
        /// Which.
        call: CallId,
        /// With what.
        result: Box<Result<Response, RemoteError>>,
        /// Not before this record is on the disk.
        when: Option<RecordId>,
    },
}
