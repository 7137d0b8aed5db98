//! Calls to the namenode over a network that delays, loses and repeats.

use std::time::Duration;

use situ_namenode::core::{CallId, Caller};
use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::TxId;
use situ_wire::messages::namenode::{Request, Response};

use super::world::{Happening, World};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Party {
    /// A datanode, in one of its runs.
    Datanode { at: usize, run: u64, call: situ_datanode::core::CallId },
    /// A client, in one of its runs.
    Client { at: usize, run: u64 },
}

/// A call that its caller waits for.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) party: Party,
    pub(super) request: Request,
    /// The newest transaction that any client had seen before this was first asked.
    pub(super) floor: TxId,
}

/// A request on its way, and once it has arrived.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    /// The caller's number for it.
    pub(super) number: u64,
    pub(super) party: Party,
    pub(super) request: Request,
    pub(super) floor: TxId,
}

/// An answer on its way.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) number: u64,
    pub(super) party: Party,
    /// The namenode's number for the call.
    pub(super) call: CallId,
    /// What the answer had seen.
    pub(super) when: TxId,
    pub(super) result: Result<Response, RemoteError>,
}

/// How long a caller waits for an answer.
const PATIENCE_MS: u64 = 2_000;

impl World {
    /// Sends a call to the namenode; its caller hears of it whatever happens.
    pub(super) fn call(&mut self, party: Party, request: Request, floor: TxId) {
        let number = self.next_number();
        let envelope = Envelope { number, party, request: request.clone(), floor };
        self.pending.insert(number, Pending { party, request, floor });
        self.schedule.after(PATIENCE_MS, Happening::Patience { number });
        self.deliver(party, Happening::Request(Box::new(envelope)));
    }

    /// Sends an answer.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.deliver(reply.party, Happening::Reply(Box::new(reply)));
    }

    /// Puts a message on its way: once, more often, or never. What clients say comes in any order; what a
    /// datanode and the namenode say to each other stays in order, as on one connection, but for what the settings let be
    /// [overtaken](super::settings::Settings::overtaking).
    fn deliver(&mut self, party: Party, what: Happening) {
        if self.chance.permille(self.settings.loss_permille) || self.is_cut(party) {
            return;
        }
        let slow = self.chance.permille(self.settings.slow_permille);
        let delay_ms = self.chance.between(1, if slow { self.settings.slow_ms } else { 8 });
        let arrives = self.schedule.now() + Duration::from_millis(delay_ms);
        match party {
            Party::Datanode { at, .. } => {
                let lane = match &what {
                    Happening::Request(envelope) if self.settings.overtaking => {
                        usize::from(matches!(envelope.request, Request::DatanodeHeartbeat { .. }))
                    }
                    Happening::Request(_) => 0,
                    _ if self.settings.overtaking => return self.schedule.at(arrives, what),
                    _ => 2,
                };
                let last = &mut self.datanodes[at].last_arrivals[lane];
                *last = arrives.max(*last);
                self.schedule.at(*last, what);
            }
            Party::Client { .. } => {
                if self.chance.permille(self.settings.duplicate_permille) {
                    let delay_ms = self.chance.between(1, self.settings.slow_ms);
                    self.schedule.after(delay_ms, what.clone());
                }
                self.schedule.at(arrives, what);
            }
        }
    }

    fn is_cut(&self, party: Party) -> bool {
        match party {
            Party::Datanode { at, .. } => self.schedule.now() < self.datanodes[at].cut_until,
            Party::Client { at, .. } => self.schedule.now() < self.clients[at].cut_until,
        }
    }

    pub(super) fn caller_of(&self, party: Party) -> Caller {
        match party {
            Party::Datanode { at, .. } => {
                let name = self.datanodes[at].me.node.to_string();
                Caller { user: "datanode".to_owned(), role: Role::Datanode, name }
            }
            Party::Client { .. } => {
                Caller { user: super::world::USER.to_owned(), role: Role::User, name: "client".to_owned() }
            }
        }
    }

    /// An answer arrives. Only the first counts, and only while its caller waits.
    pub(super) fn take_reply(&mut self, reply: Reply) {
        let Some(pending) = self.pending.remove(&reply.number) else { return };
        match reply.party {
            Party::Datanode { at, run, call } => {
                let result = reply.result.map_err(|error| situ_datanode::core::CallError {
                    code: Some(error.code),
                    message: error.to_string(),
                });
                self.datanode_answered(at, run, call, result);
            }
            Party::Client { at, run } => {
                if self.clients[at].run == run {
                    self.oracle.received(reply.call, reply.when);
                    self.client_answered(at, pending, reply.result);
                }
            }
        }
    }

    /// The caller has waited long enough.
    pub(super) fn lose_patience(&mut self, number: u64) {
        let Some(pending) = self.pending.remove(&number) else { return };
        match pending.party {
            Party::Datanode { at, run, call } => {
                let error = situ_datanode::core::CallError { code: None, message: "no answer".to_owned() };
                self.datanode_answered(at, run, call, Err(error));
            }
            Party::Client { at, run } => {
                if self.clients[at].run == run {
                    // The same operation, named the same.
                    self.call(pending.party, pending.request, pending.floor);
                }
            }
        }
    }
}
