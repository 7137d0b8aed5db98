//! Answers on their way out: each waits until the transaction that it rests on is on the disk.

use std::collections::VecDeque;

use situ_runtime::rpc::Reply;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::TxId;
use situ_wire::messages::namenode::Response;

use crate::core::CallId;

/// The call that the core has, and answers that wait for the disk.
#[derive(Default)]
pub(super) struct Replies {
    next: u64,
    /// The core answers each call before it takes the next.
    open: Option<(CallId, Reply)>,
    /// Answers in the order of the transactions that they wait for.
    waiting: VecDeque<(TxId, Reply, Result<Response, RemoteError>)>,
}

impl Replies {
    /// Takes a call in; the core knows it by this number.
    pub(super) fn open(&mut self, reply: Reply) -> CallId {
        assert!(self.open.is_none(), "the core has answered the call before");
        self.next += 1;
        let call = CallId(self.next);
        self.open = Some((call, reply));
        call
    }

    /// Takes the core's answer to a call. It is sent now if it waits for nothing that is not `synced`.
    pub(super) fn answer(
        &mut self,
        call: CallId,
        when: Option<TxId>,
        result: Result<Response, RemoteError>,
        synced: TxId,
    ) {
        let Some((open, reply)) = self.open.take() else { unreachable!("{call:?} is answered, but no call is open") };
        assert_eq!(open, call, "the core answers the call that it has");
        match when.filter(|tx| *tx > synced) {
            None => send(reply, result),
            Some(tx) => {
                let at = self.waiting.iter().rposition(|(before, ..)| *before <= tx).map_or(0, |at| at + 1);
                self.waiting.insert(at, (tx, reply, result));
            }
        }
    }

    /// Sends what waited for transactions up to `synced`.
    pub(super) fn release(&mut self, synced: TxId) {
        while self.waiting.front().is_some_and(|(tx, ..)| *tx <= synced) {
            if let Some((_, reply, result)) = self.waiting.pop_front() {
                send(reply, result);
            }
        }
    }

    /// Tells everyone who waits that the edit log failed.
    pub(super) fn fail(&mut self) {
        for (_, reply, _) in self.waiting.drain(..) {
            reply.send::<Response>(Err(RemoteError::new(
                ErrorCode::Unavailable,
                "the namenode",
                "its edit log failed before this was on the disk: whether it was done shows when the namenode is back",
            )));
        }
    }

    /// Whether nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.waiting.is_empty()
    }
}

fn send(reply: Reply, result: Result<Response, RemoteError>) {
    match result {
        Ok(response) => reply.send(Ok(&response)),
        Err(error) => reply.send::<Response>(Err(error)),
    }
}
