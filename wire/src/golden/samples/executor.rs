//! The calls and streams of an executor.

use super::super::book::{Book, sample, variants};
use super::scheduler::task;
use super::values::{ATTEMPT, PIECE, SECRET, bytes, error};
use crate::ids::{JobId, PartitionId, ShuffleId};
use crate::messages::executor::{FetchReply, FetchShuffle, JobSecret, LogName, Request, Response, ShufflePiece};
use crate::messages::scheduler::{TaskFailure, TaskOutcome};

pub(super) fn add(book: &mut Book) {
    let job = JobId(9);
    sample!(book, "executor", JobSecret, SECRET);
    sample!(book, "executor", ShufflePiece, PIECE);
    let fetch = FetchShuffle {
        job,
        secret: SECRET,
        shuffle: ShuffleId(3),
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
    variants!(book, "executor", Request {
        WorkerReady => Request::WorkerReady { job, secret: SECRET },
        NextTask => Request::NextTask { job, secret: SECRET },
        TaskEnded => Request::TaskEnded {
            job,
            secret: SECRET,
            attempt: ATTEMPT,
            outcome: TaskOutcome::Failed(TaskFailure::Cancelled),
        },
        ReadLog => Request::ReadLog { job, log: LogName::Worker, offset: 300, limit_bytes: 1 << 20 },
        IsWanted => Request::IsWanted { job, secret: SECRET, attempt: ATTEMPT },
    });
    variants!(book, "executor", Response {
        Done => Response::Done,
        Task => Response::Task(Some(Box::new(task()))),
        Log => Response::Log(bytes()),
        Wanted => Response::Wanted(true),
    });
    book.add("executor::Response::Task of none", &Response::Task(None));
}
