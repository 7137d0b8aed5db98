//! One worker: what it holds, when it must be heard, why it must end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::TaskAttemptId;
use situ_wire::messages::executor::{Orders, ProcessLife, WorkerPoll};
use situ_wire::messages::scheduler::{TaskFailure, TaskOutcome, TaskProgress, TaskSpec};
use situ_wire::time::TimeMs;

use super::left::Left;
use super::{Action, END, WaiterId, report};
use crate::program::task::{about_len_bytes, cut};

/// How long a worker may take from its start until it is ready. Fetching its executable is part of that.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long a worker may go on with a task that was cancelled: what it computes is for nothing, and takes a slot.
const CANCEL_LIMIT: Duration = Duration::from_secs(10);
/// How long a poll waits for something to do.
const HOLD: Duration = Duration::from_secs(1);
/// Of the time for which a worker may be silent, it is given at least one part in so many after the executor itself stood
/// still.
const GRACE: u32 = 2;
/// A poll with more outcomes than this is answered at once, so that they are not said again.
const OUTCOMES_LEN_BYTES: usize = 64 << 10;

/// How long is waited for workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long one may be silent.
    silence: Duration,
    /// How long its poll waits.
    hold: Duration,
}

impl Limits {
    /// A poll waits for less than a worker may be silent, several times.
    pub(super) fn new(silence: Duration) -> Self {
        Self { silence, hold: HOLD.min(silence / 4) }
    }
}

/// Why a worker must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// It did not poll for the first time within [`READY_LIMIT`].
    NotReady,
    /// It went on with a cancelled task.
    KeepsCancelled,
    /// It did not poll for too long.
    Silent,
    /// It had nothing to do, and another job needs its place.
    MakesRoom,
}

/// What is said of a worker's end.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) reason: String,
    /// Why it was told to end; none if it ended without.
    pub(super) cause: Option<Cause>,
}

/// The worker of a job, from before its process is started until it is gone.
///
/// ```text
///  starting --first poll--> ready --polls ...--> gone
///      \ not ready in time    \ silent, or keeps what was cancelled
///       \----------------------\--> ending --> gone
///        \_ has no tasks, and another job needs its place _/
/// ```
///
/// While it is ending it gets no more tasks, and no other one is started: that would have the same log and directory.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) life: ProcessLife,
    /// The number of its newest poll; 0 until it is ready.
    last: u64,
    /// Until when it must poll.
    poll_by: TimeMs,
    /// Its poll that waits.
    parked: Option<Parked>,
    /// What it was given, as far as it is not known that it did not get it.
    held: BTreeMap<TaskAttemptId, Held>,
    /// Whether its poll must be answered with nothing to run, too.
    hasten: bool,
    /// When it was given something last, or told of an end.
    used: TimeMs,
    ending: Option<(Cause, String)>,
}

#[derive(Debug)]
struct Parked {
    waiter: WaiterId,
    free: u32,
    until: TimeMs,
}

#[derive(Debug)]
struct Held {
    task: Box<TaskSpec>,
    steps: u64,
    /// If it was cancelled, until when it must have ended.
    cancelled: Option<TimeMs>,
}

impl Worker {
    pub(super) fn new(life: ProcessLife, now: TimeMs) -> Self {
        Self {
            life,
            last: 0,
            poll_by: now + READY_LIMIT,
            parked: None,
            held: BTreeMap::new(),
            hasten: false,
            used: now,
            ending: None,
        }
    }

    /// Whether it has ever polled.
    pub(super) fn is_ready(&self) -> bool {
        self.last > 0
    }

    /// Whether it was told to end.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether it has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.ending.is_none() && self.held.is_empty()
    }

    /// When it was given something last, or told of an end.
    pub(super) fn used(&self) -> TimeMs {
        self.used
    }

    /// It must end, because another job needs its place; its poll is answered so.
    pub(super) fn make_room(&mut self, actions: &mut VecDeque<Action>) {
        self.ending = Some((Cause::MakesRoom, "it had no tasks, and another job needed its memory".to_owned()));
        self.send_home(actions);
    }

    /// It says what it has: what has ended is reported, and what it was given and does not have is queued again. Whether
    /// any of its tasks has come further.
    pub(super) fn poll(
        &mut self,
        now: TimeMs,
        limits: &Limits,
        (waiter, poll): (WaiterId, WorkerPoll),
        queued: &mut VecDeque<Box<TaskSpec>>,
        left: &mut Left,
        actions: &mut VecDeque<Action>,
    ) -> bool {
        if poll.number <= self.last {
            let message = format!("poll {} came behind poll {}; begin a new one", poll.number, self.last);
            let late = RemoteError::new(ErrorCode::Unavailable, format!("the worker of {}", poll.job), message);
            actions.push_back(Action::Answer { waiter, result: Err(late) });
            return false;
        }
        (self.last, self.poll_by) = (poll.number, now + limits.silence);
        // It has given the other one up, and looks at no answer to it.
        self.answer(Orders::default(), actions);
        self.hasten |=
            poll.ended.iter().map(|(_, outcome)| about_len_bytes(outcome)).sum::<usize>() > OUTCOMES_LEN_BYTES;
        for (attempt, outcome) in poll.ended {
            // Otherwise it is said again.
            if let Some(held) = self.held.remove(&attempt) {
                self.used = now;
                if let TaskOutcome::Done(done) = &outcome {
                    left.note(&held.task, done);
                }
                // A worker has cut it already, if it keeps to that.
                let outcome = match outcome {
                    TaskOutcome::Failed(failure) => TaskOutcome::Failed(cut(failure)),
                    done @ TaskOutcome::Done(_) => done,
                };
                actions.push_back(report(attempt, outcome));
            }
        }
        let has: BTreeMap<TaskAttemptId, u64> = poll.held.iter().map(|task| (task.attempt, task.steps)).collect();
        let never_came: Vec<(TaskAttemptId, Held)> =
            self.held.extract_if(.., |attempt, _| !has.contains_key(attempt)).collect();
        // In front, in their order.
        for (attempt, held) in never_came.into_iter().rev() {
            match held.cancelled {
                Some(_) => actions.push_back(report(attempt, TaskOutcome::Failed(TaskFailure::Cancelled))),
                None => queued.push_front(held.task),
            }
        }
        let mut further = false;
        for (attempt, held) in &mut self.held {
            let steps = has.get(attempt).copied().unwrap_or_default();
            further |= steps != held.steps;
            held.steps = steps;
        }
        self.parked = Some(Parked { waiter, free: poll.free, until: now + limits.hold });
        if self.ending.is_some() {
            self.send_home(actions);
        }
        further
    }

    /// Gives it what it can run of what is queued, and what it shall give up, if its poll waits.
    pub(super) fn hand_over(
        &mut self,
        now: TimeMs,
        queued: &mut VecDeque<Box<TaskSpec>>,
        actions: &mut VecDeque<Action>,
    ) {
        let Some(Parked { mut free, until, .. }) = self.parked else { return };
        let mut orders = Orders::default();
        // A large one that waits at the front is not passed: it would wait for ever.
        while let Some(task) = queued.pop_front_if(|task| task.slots <= free && self.takes(task)) {
            free -= task.slots;
            orders.run.push((*task).clone());
            self.held.insert(task.attempt, Held { task, steps: 0, cancelled: None });
            self.used = now;
        }
        if orders.run.is_empty() && !self.hasten && now < until {
            return;
        }
        // What was told before, too: that answer may not have been looked at.
        let cancelled = self.held.iter().filter(|(_, held)| held.cancelled.is_some());
        orders.give_up = cancelled.map(|(attempt, _)| *attempt).collect();
        self.hasten = false;
        self.answer(orders, actions);
    }

    /// Whether a task may run beside those that it holds.
    fn takes(&self, task: &TaskSpec) -> bool {
        self.held.is_empty() || !task.alone && !self.held.values().any(|held| held.task.alone)
    }

    /// A task of it was cancelled, if it has it.
    pub(super) fn cancel(&mut self, now: TimeMs, attempt: TaskAttemptId) {
        if self.ending.is_none()
            && let Some(held) = self.held.get_mut(&attempt)
        {
            held.cancelled.get_or_insert(now + CANCEL_LIMIT);
            self.hasten = true;
        }
    }

    /// Whether it must end now, and why; its poll is answered so.
    pub(super) fn judge(&mut self, now: TimeMs, limits: &Limits, actions: &mut VecDeque<Action>) -> Option<Cause> {
        if self.next_due().is_none_or(|due| due > now) {
            return None;
        }
        let cancelled = self.held.values().filter_map(|held| held.cancelled);
        let (cause, reason) = if self.poll_by <= now && !self.is_ready() {
            let reason = format!(
                "it was not ready within {} s: its main must call situ_compute::run soon after its start; its log may \
                 say what it did instead",
                READY_LIMIT.as_secs()
            );
            (Cause::NotReady, reason)
        } else if self.poll_by <= now {
            let silence = limits.silence.as_secs_f64();
            (Cause::Silent, format!("its worker process was silent for {silence} s (worker_silence_ms), and was ended"))
        } else if cancelled.min().is_some_and(|by| by <= now) {
            (Cause::KeepsCancelled, "it went on with a cancelled task, and was ended".to_owned())
        } else {
            return None;
        };
        self.ending = Some((cause, reason));
        self.send_home(actions);
        Some(cause)
    }

    /// What is said of its end; `reason` if it came without having been told to.
    pub(super) fn verdict(&self, reason: &str) -> Verdict {
        match &self.ending {
            Some((cause, reason)) => Verdict { reason: reason.clone(), cause: Some(*cause) },
            None => Verdict { reason: reason.to_owned(), cause: None },
        }
    }

    /// What it held is its no more.
    pub(super) fn take_held(&mut self) -> Vec<TaskAttemptId> {
        std::mem::take(&mut self.held).into_keys().collect()
    }

    /// The tasks that it holds and shall do.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &Box<TaskSpec>> {
        self.held.values().filter(|held| held.cancelled.is_none()).map(|held| &held.task)
    }

    /// How far its tasks have come.
    pub(super) fn progress(&self) -> impl Iterator<Item = TaskProgress> {
        self.held.iter().map(|(attempt, held)| TaskProgress { attempt: *attempt, steps: held.steps })
    }

    /// When it must be answered or given up.
    pub(super) fn next_due(&self) -> Option<TimeMs> {
        if self.ending.is_some() {
            return None;
        }
        let cancelled = self.held.values().filter_map(|held| held.cancelled);
        let hold = self.parked.as_ref().map(|parked| parked.until);
        cancelled.chain(hold).chain([self.poll_by]).min()
    }

    /// Its silence in the last `rest`, until now, does not count; and its polls may just be about to be heard.
    pub(super) fn excuse(&mut self, now: TimeMs, rest: Duration, limits: &Limits) {
        let soonest = now + limits.silence / GRACE;
        let cancelled = self.held.values_mut().filter_map(|held| held.cancelled.as_mut());
        for by in cancelled.chain([&mut self.poll_by]) {
            *by = (*by + rest).max(soonest);
        }
    }

    /// If its poll waits, it is told to end.
    pub(super) fn send_home(&mut self, actions: &mut VecDeque<Action>) {
        self.answer(END, actions);
    }

    fn answer(&mut self, orders: Orders, actions: &mut VecDeque<Action>) {
        if let Some(Parked { waiter, .. }) = self.parked.take() {
            actions.push_back(Action::Answer { waiter, result: Ok(orders) });
        }
    }
}
