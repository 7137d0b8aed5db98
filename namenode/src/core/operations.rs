//! What clients were answered, so that a retry gets the same answer and is not carried out twice.
//!
//! It is part of the namespace: edits carry the operation's name and all that its answer needs, so that it survives a
//! restart. Only what was carried out is kept; a request that failed changed nothing and may be tried anew.

use std::collections::BTreeMap;

use situ_wire::ids::{ClientId, OperationId};
use situ_wire::time::TimeMs;

use super::digest::RecordRef;
use super::image::{ImageRecord, OperationRecord};
use super::ledger::Ledger;
use super::names::NameId;

/// How many operations of a client are remembered: as many as it may have under way at once. Part of the format: replay
/// must forget the same ones.
pub(super) const OPERATIONS_PER_CLIENT: usize = 4096;

/// What is known of an operation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// It was not carried out.
    New,
    /// It was.
    Done(OperationRecord),
    /// It is older than all that are remembered: nobody knows.
    Forgotten,
}

#[derive(Debug)]
struct Client {
    /// When its last operation came. Soft state.
    last: TimeMs,
    /// Whose it is. Soft state: after a start it is not known until the client calls again.
    user: Option<NameId>,
    operations: BTreeMap<u64, OperationRecord>,
}

/// The last operations of every client.
#[derive(Debug, Default)]
pub(super) struct Operations(BTreeMap<ClientId, Client>);

impl Operations {
    pub(super) fn recall(&self, operation: OperationId) -> Recall {
        let Some(client) = self.0.get(&operation.client) else { return Recall::New };
        if let Some(record) = client.operations.get(&operation.sequence) {
            return Recall::Done(*record);
        }
        let full = client.operations.len() >= OPERATIONS_PER_CLIENT;
        let oldest = client.operations.first_key_value();
        if full && oldest.is_some_and(|(sequence, _)| operation.sequence < *sequence) {
            return Recall::Forgotten;
        }
        Recall::New
    }

    pub(super) fn get(&self, client: ClientId, sequence: u64) -> Option<&OperationRecord> {
        self.0.get(&client)?.operations.get(&sequence)
    }

    /// Remembers an operation, and forgets the oldest of its client if there are too many.
    pub(super) fn insert(&mut self, ledger: &mut Ledger, record: OperationRecord, now: TimeMs) {
        let client = self.0.entry(record.client);
        let client = client.or_insert_with(|| Client { last: now, user: None, operations: BTreeMap::new() });
        client.last = client.last.max(now);
        if let Some(before) = client.operations.insert(record.sequence, record) {
            ledger.subtract(&reference(before));
        }
        ledger.add(&reference(record));
        while client.operations.len() > OPERATIONS_PER_CLIENT {
            if let Some((_, oldest)) = client.operations.pop_first() {
                ledger.subtract(&reference(oldest));
            }
        }
    }

    /// A client that is remembered calls as that user. The first one stays.
    pub(super) fn claim(&mut self, client: ClientId, user: NameId) {
        if let Some(client) = self.0.get_mut(&client) {
            client.user.get_or_insert(user);
        }
    }

    /// Whose a client is, as far as that is known.
    pub(super) fn user_of(&self, client: ClientId) -> Option<NameId> {
        self.0.get(&client)?.user
    }

    /// Forgets a client.
    pub(super) fn remove_client(&mut self, ledger: &mut Ledger, client: ClientId) {
        for record in self.0.remove(&client).into_iter().flat_map(|client| client.operations.into_values()) {
            ledger.subtract(&reference(record));
        }
    }

    /// The namenode was away: all clients are taken to have been heard now.
    pub(super) fn renew_all(&mut self, now: TimeMs) {
        for client in self.0.values_mut() {
            client.last = now;
        }
    }

    /// Clients without an operation since `since`.
    pub(super) fn silent_since(&self, since: TimeMs) -> Vec<ClientId> {
        self.0.iter().filter(|(_, client)| client.last < since).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OperationRecord> {
        self.iter_from(ClientId(0), 0)
    }

    /// All operations from one on, by client and sequence.
    pub(super) fn iter_from(&self, client: ClientId, sequence: u64) -> impl Iterator<Item = &OperationRecord> {
        self.0.range(client..).flat_map(move |(id, operations)| {
            let from = if *id == client { sequence } else { 0 };
            operations.operations.range(from..).map(|(_, record)| record)
        })
    }
}

pub(super) fn reference(record: OperationRecord) -> RecordRef<'static> {
    ImageRecord::Operation(record)
}
