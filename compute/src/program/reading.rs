//! Which input a task is reading, so that its failure can name it.
//!
//! A task runs on one thread, and so does all that it reads: what is known is the thread's.

use std::cell::{Cell, RefCell};

use situ_wire::messages::scheduler::TaskFailure;
use situ_wire::path::DfsPath;

thread_local! {
    static FILE: RefCell<Option<String>> = const { RefCell::new(None) };
    static OFFSET: Cell<u64> = const { Cell::new(0) };
}

/// Says, while it lives, that the task on this thread reads a file.
pub(crate) struct Reading(());

impl Reading {
    /// The task begins to read. `offsets` says what offsets are in: as in `/in, decoded, near byte 7`.
    pub(crate) fn begin(path: &DfsPath, offsets: &str) -> Self {
        FILE.set(Some(format!("{path}{offsets}")));
        OFFSET.set(0);
        Self(())
    }
}

/// What comes next stands at `offset`.
#[inline]
pub(crate) fn at(offset: u64) {
    OFFSET.set(offset);
}

impl Drop for Reading {
    fn drop(&mut self) {
        // A failure that goes through here has not been told yet.
        if !std::thread::panicking() {
            FILE.set(None);
        }
    }
}

/// A failure of the program with what its task was reading, from then on nothing. Other failures say where they are from.
pub(super) fn located(failure: TaskFailure) -> TaskFailure {
    match (failure, FILE.take()) {
        (TaskFailure::Program { message }, Some(file)) => {
            TaskFailure::Program { message: format!("while reading {file} near byte {}: {message}", OFFSET.get()) }
        }
        (failure, _) => failure,
    }
}

/// What fails now names the file itself.
pub(crate) fn forget() {
    FILE.set(None);
}
