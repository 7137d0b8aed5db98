//! Answers against the journal.

use std::collections::BTreeMap;

use situ_namenode::core::{Edit, EditV1};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{OperationId, TxId};
use situ_wire::messages::namenode::{Request, Response};

use super::model::{Expected, Model};

/// An answer that the journal does not explain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The journal holds something that is wrong.
    #[error("{tx}: {reason}")]
    Journal {
        /// Which transaction.
        tx: TxId,
        /// What is wrong.
        reason: String,
    },
    /// An operation was carried out twice.
    #[error("{operation:?} was carried out twice: by {first} and by {second}")]
    Twice {
        /// Which operation.
        operation: OperationId,
        /// First by this transaction.
        first: TxId,
        /// And by this one.
        second: TxId,
    },
    /// A client was told of a transaction that is not there.
    #[error("a client was told of {tx}, which is lost; the answer was to {request}")]
    Lost {
        /// Which transaction.
        tx: TxId,
        /// What the client had asked.
        request: String,
    },
    /// An answer is not what it should have been.
    #[error("at {tx}: {reason}; the answer was to {request}")]
    Answer {
        /// What the answer had seen.
        tx: TxId,
        /// What the client had asked.
        request: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An answer is older than one that was there before the question.
    #[error("the answer to {request} is from {tx}, but a client had an answer from {floor} before it asked")]
    Stale {
        /// What the answer had seen.
        tx: TxId,
        /// What had been seen before.
        floor: TxId,
        /// What the client had asked.
        request: String,
    },
    /// A restarted namenode holds another namespace than before.
    #[error("after a restart {reason}")]
    Restart {
        /// What differs.
        reason: String,
    },
}

/// An answer and what it had seen.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The question.
    pub request: Request,
    /// The last transaction that the answer may have seen.
    pub when: TxId,
    /// The answer.
    pub result: Result<Response, RemoteError>,
    /// The newest that any client had seen before the question was first asked.
    pub floor: TxId,
    /// Whether a client has it.
    pub received: bool,
}

#[derive(Clone, Debug)]
struct CarriedOut {
    tx: TxId,
    expected: Expected,
}

/// Compares answers with what the journal explains.
///
/// [`asked`](Self::asked) and [`answered`](Self::answered) take what clients and the namenode say;
/// [`durable`](Self::durable) takes the journal's edits as they reach the disk, in order; [`crashed`](Self::crashed) is
/// called when edits that had not were lost.
#[derive(Debug, Default)]
pub struct Witness {
    model: Model,
    tx: TxId,
    requests: BTreeMap<OperationId, Request>,
    carried_out: BTreeMap<OperationId, CarriedOut>,
    /// Answers that have seen more than is durable, by a number that the caller chose.
    waiting: BTreeMap<(TxId, u64), Answer>,
    /// The newest that any client has seen.
    seen: TxId,
}

impl Witness {
    /// The namespace as far as it is durable.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The last durable transaction.
    #[must_use]
    pub fn tx(&self) -> TxId {
        self.tx
    }

    /// A client asks for the first time. Gives back the newest that any client has seen.
    pub fn asked(&mut self, request: &Request) -> TxId {
        if let Some(operation) = operation(request) {
            self.requests.insert(operation, request.clone());
        }
        self.seen
    }

    /// The namenode has answered; the client may not have the answer yet. `number` is not reused.
    ///
    /// # Errors
    /// When the answer is wrong.
    pub fn answered(&mut self, number: u64, answer: Answer) -> Result<(), Disagreement> {
        if answer.when < answer.floor {
            let request = format!("{:?}", answer.request);
            return Err(Disagreement::Stale { tx: answer.when, floor: answer.floor, request });
        }
        if answer.when > self.tx {
            self.waiting.insert((answer.when, number), answer);
            return Ok(());
        }
        self.check(&answer)
    }

    /// A client has the answer of that number, which has seen `when`.
    pub fn received(&mut self, number: u64, when: TxId) {
        self.seen = self.seen.max(when);
        if let Some(answer) = self.waiting.get_mut(&(when, number)) {
            answer.received = true;
        }
    }

    /// An edit is on disk.
    ///
    /// # Errors
    /// When it is wrong, or an answer that had seen it is.
    pub fn durable(&mut self, tx: TxId, edit: &Edit) -> Result<(), Disagreement> {
        assert_eq!(tx, self.tx.next(), "edits come in order");
        let Edit::V1(EditV1 { operation, change, .. }) = edit;
        let wrong = |reason| Disagreement::Journal { tx, reason };
        match operation {
            None => self.model.decide(change).map_err(wrong)?,
            Some(operation) => {
                if let Some(before) = self.carried_out.get(operation) {
                    return Err(Disagreement::Twice { operation: *operation, first: before.tx, second: tx });
                }
                let request = self.requests.get(operation);
                let request = request.ok_or_else(|| wrong(format!("nobody asked for {operation:?}: {change:?}")))?;
                let expected = self.model.carry_out(request, change);
                let expected = expected.map_err(|reason| wrong(format!("{request:?}: {reason}")))?;
                self.carried_out.insert(*operation, CarriedOut { tx, expected });
            }
        }
        self.tx = tx;
        while let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= tx) {
            let answer = entry.remove();
            self.check(&answer)?;
        }
        Ok(())
    }

    /// What was not durable is lost.
    ///
    /// # Errors
    /// When a client had been told of it.
    pub fn crashed(&mut self) -> Result<(), Disagreement> {
        let lost = std::mem::take(&mut self.waiting);
        match lost.into_values().find(|answer| answer.received) {
            Some(answer) => Err(Disagreement::Lost { tx: answer.when, request: format!("{:?}", answer.request) }),
            None => Ok(()),
        }
    }

    fn check(&self, answer: &Answer) -> Result<(), Disagreement> {
        let Answer { request, when, result, .. } = answer;
        let wrong = |reason| Disagreement::Answer { tx: *when, request: format!("{request:?}"), reason };
        let Some(operation) = operation(request) else {
            // A read that has not seen the last durable transaction cannot be checked any more; none does that.
            if *when < self.tx {
                return Err(wrong(format!("it had not seen {}", self.tx)));
            }
            let result = result.as_ref().map_err(|error| error.code);
            return self.model.check_read(request, result).map_err(wrong);
        };
        let carried_out = self.carried_out.get(&operation);
        match (result, carried_out) {
            (Ok(response), Some(CarriedOut { expected, .. })) if is_as_expected(response, expected) => Ok(()),
            (Ok(response), Some(CarriedOut { expected, tx })) => {
                Err(wrong(format!("found {response:?}, expected {expected:?} of {tx}")))
            }
            (Ok(response), None) => Err(wrong(format!("found {response:?}, but nothing was carried out"))),
            // Whether a block can still be written is not a matter of the operation alone.
            (Err(_), Some(CarriedOut { expected: Expected::Block(_), .. })) => Ok(()),
            (Err(error), Some(CarriedOut { tx, .. })) => {
                Err(wrong(format!("found {:?}, but it was carried out by {tx}", error.code)))
            }
            (Err(error), None) => self.check_refusal(request, *when, error.code).map_err(wrong),
        }
    }

    fn check_refusal(&self, request: &Request, when: TxId, code: ErrorCode) -> Result<(), String> {
        let soft = matches!(code, ErrorCode::SafeMode | ErrorCode::NoDatanodes | ErrorCode::Unavailable);
        if soft || when < self.tx {
            return Ok(());
        }
        match self.model.refusal(request) {
            Some(expected) if expected == code => Ok(()),
            expected => Err(format!("found {code:?}, expected {expected:?}")),
        }
    }
}

fn is_as_expected(response: &Response, expected: &Expected) -> bool {
    match (response, expected) {
        (Response::Done, Expected::Done) => true,
        (Response::Deleted(found), Expected::Deleted(expected)) => found == expected,
        (Response::Block(located), Expected::Block(block)) => located.block.id == *block,
        (
            Response::Created { inode, block_len_bytes, replication },
            Expected::Created {
                inode: expected,
                block_len_bytes: expected_len_bytes,
                replication: expected_replication,
            },
        ) => (inode, block_len_bytes, replication) == (expected, expected_len_bytes, expected_replication),
        _ => false,
    }
}

/// The name of an operation, if the request is one that changes the namespace.
#[must_use]
fn operation(request: &Request) -> Option<OperationId> {
    match request {
        Request::Mkdir { operation, .. }
        | Request::Create { operation, .. }
        | Request::AddBlock { operation, .. }
        | Request::AbandonBlock { operation, .. }
        | Request::RecoverPipeline { operation, .. }
        | Request::Complete { operation, .. }
        | Request::Rename { operation, .. }
        | Request::Delete { operation, .. }
        | Request::Publish { operation, .. } => Some(*operation),
        _ => None,
    }
}
