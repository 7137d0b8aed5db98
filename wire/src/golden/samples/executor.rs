//! The calls and streams of an executor.

use super::super::book::{Book, sample, variants};
use super::scheduler::{progress, task};
use super::values::{ATTEMPT, PIECE, SECRET, bytes, error};
use crate::ids::{JobId, PartitionId, ScopeId, ShuffleId};
use crate::messages::executor::{
    FetchReply, FetchShuffle, JobSecret, LogName, Orders, ProcessLife, Request, Response, ShufflePiece, WorkerPoll,
};
use crate::messages::scheduler::{TaskFailure, TaskOutcome};

pub(super) fn add(book: &mut Book) {
    let job = JobId(9);
    sample!(book, "executor", JobSecret, SECRET);
    sample!(book, "executor", ShufflePiece, PIECE);
    let fetch = FetchShuffle {
        job,
        secret: SECRET,
        shuffle: ShuffleId(ScopeId::ROOT, 3),
        map: ATTEMPT,
        reduce: (PartitionId(1), PartitionId(4)),
    };
    sample!(book, "executor", FetchShuffle, fetch);
    variants!(book, "executor", FetchReply {
        Pieces => FetchReply::Pieces(vec![PIECE, ShufflePiece::default()]),
        Refused => FetchReply::Refused(error()),
    });
    variants!(book, "executor", LogName {
        DriverOut => LogName::DriverOut(1),
        DriverErr => LogName::DriverErr(2),
        Worker => LogName::Worker,
    });
    sample!(book, "executor", ProcessLife, ProcessLife(3));
    let poll = WorkerPoll {
        job,
        secret: SECRET,
        life: ProcessLife(3),
        number: 300,
        held: vec![progress()],
        ended: vec![(ATTEMPT, TaskOutcome::Failed(TaskFailure::Cancelled))],
        free: 2,
    };
    sample!(book, "executor", WorkerPoll, poll.clone());
    variants!(book, "executor", Request {
        Poll => Request::Poll(poll.clone()),
        ReadLog => Request::ReadLog { job, log: LogName::Worker, offset: 300, limit_bytes: 1 << 20 },
    });
    let orders = Orders { run: vec![task()], give_up: vec![ATTEMPT], end: true };
    sample!(book, "executor", Orders, orders.clone());
    variants!(book, "executor", Response {
        Orders => Response::Orders(orders.clone()),
        Log => Response::Log(bytes()),
    });
}
