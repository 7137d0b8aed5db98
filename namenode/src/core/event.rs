//! What goes into the state machine and what comes out.

use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::TxId;
use situ_wire::messages::namenode::{Request, Response};

use super::edit::Edit;
use super::room::Room;

/// Ties a [`Effect::Reply`] to its [`Event::Call`]; chosen by the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// Who calls, as the connection proved it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The user whose rights count.
    pub user: String,
    /// The part that the caller's process plays.
    pub role: Role,
    /// The name of the user or node; over a Unix socket, where the operating system vouches for the peer, its own word.
    pub name: String,
}

/// What happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A call came in. Exactly one [`Effect::Reply`] answers it, within the same `handle`.
    Call {
        /// Names it.
        call: CallId,
        /// From whom.
        caller: Caller,
        /// What it asks.
        request: Request,
    },
    /// The room of the log was measured.
    Room(Room),
}

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Append the edit to the journal. It is applied already.
    Append {
        /// Its number: one more than that of the edit before.
        tx: TxId,
        /// What changed.
        edit: Edit,
    },
    /// Answer a call.
    Reply {
        /// Which.
        call: CallId,
        /// Not before this transaction is on disk; with none, at once.
        when: Option<TxId>,
        /// The answer.
        result: Result<Response, RemoteError>,
    },
    /// Tell the operator.
    Warn {
        /// What about.
        message: String,
    },
}
