use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situ_wire::error::RemoteError;
use situ_wire::ids::{JobId, TaskAttemptId};
use situ_wire::messages::executor::{JobSecret, Orders, ProcessLife, WorkerPoll};
use situ_wire::messages::scheduler::{StageOutput, TaskFailure, TaskOutcome, TaskSpec};
use situ_wire::time::TimeMs;

use super::FAULTS_END;
use super::processes::{Ending, Pid};
use super::world::{Happens, Simulation};
use crate::executor::table::{Event, WaiterId};
use crate::program::heartbeat::Holdings;

/// How long a worker waits for the answer to a poll.
const PATIENCE: Duration = Duration::from_secs(5);

/// A worker: what it holds is the product's own.
pub(super) struct Worker {
    holdings: Holdings,
    slots: u32,
    /// The poll in force: who waits, how many outcomes it told, until when.
    poll: Option<(WaiterId, usize, TimeMs)>,
    pub(super) running: BTreeMap<TaskAttemptId, Box<TaskSpec>>,
    /// Which of its tasks were cancelled; some of these never end by themselves.
    given_up: BTreeMap<TaskAttemptId, bool>,
    /// How tasks ended of which the executor is not known to know it.
    pub(super) untold: BTreeSet<TaskAttemptId>,
}

impl Worker {
    pub(super) fn new(job: JobId, secret: JobSecret, life: ProcessLife, slots: u32) -> Self {
        let holdings = Holdings::new(job, secret, life, slots);
        let (running, given_up, untold) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { holdings, slots, poll: None, running, given_up, untold }
    }

    fn take(&mut self, task: &TaskSpec) {
        let alone = |task: &TaskSpec| task.alone;
        let taken: u32 = self.running.values().map(|task| task.slots).sum();
        assert!(taken + task.slots <= self.slots, "there is room for a task: {task:?}");
        let kept = self.running.values().any(|other| alone(other)) || task.alone && !self.running.is_empty();
        assert!(!kept, "a task that must be alone is: {task:?}");
        drop(self.holdings.take(task.attempt, task.slots));
        let before = self.running.insert(task.attempt, Box::new(task.clone()));
        assert!(before.is_none() && !self.untold.contains(&task.attempt), "a worker gets a task once: {task:?}");
    }
}

impl Simulation {
    pub(super) fn worker(&mut self, pid: Pid) -> Option<&mut Worker> {
        self.process_mut(pid)?.worker.as_mut()
    }

    /// A worker polls unless its last poll is in force.
    pub(super) fn wakes(&mut self, pid: Pid) {
        if let Some(until) = self.stopped(pid) {
            return self.at(until, Happens::Wakes(pid));
        }
        let (now, until) = (self.now, self.now + PATIENCE);
        self.sequence += 1;
        let waiter = WaiterId(self.sequence);
        let Some(worker) = self.worker(pid) else { return };
        if worker.poll.is_some_and(|(.., until)| until > now) {
            return;
        }
        let (poll, told) = worker.holdings.next_poll();
        worker.poll = Some((waiter, told, until));
        self.at(until, Happens::Wakes(pid));
        match self.random.below(100) {
            0 if now < FAULTS_END => self.ails(pid),
            1 if now < FAULTS_END => {
                self.ails(pid);
                self.later(8_000, Happens::Arrives(pid, waiter, poll));
            }
            _ => self.later(5, Happens::Arrives(pid, waiter, poll)),
        }
    }

    /// A worker polls for the last time; its poll is under way for a while.
    pub(super) fn last_poll(&mut self, pid: Pid) {
        self.sequence += 1;
        let waiter = WaiterId(self.sequence);
        if let Some(worker) = self.worker(pid) {
            let (poll, _) = worker.holdings.next_poll();
            self.later(2_000, Happens::Arrives(pid, waiter, poll));
        }
    }

    /// The poll may come late, when its worker is gone: the executor's address stays the same.
    pub(super) fn arrives(&mut self, pid: Pid, waiter: WaiterId, poll: WorkerPoll) {
        let here = self.executors.get_mut(&pid.executor).unwrap();
        if !here.alive {
            return;
        }
        if here.hangs_until > self.now {
            let until = here.hangs_until;
            return self.at(until, Happens::Arrives(pid, waiter, poll));
        }
        here.waiters.insert(waiter, pid);
        let life = here.life;
        self.hear(pid.executor, life, Event::Poll { waiter, poll });
    }

    /// The executor has answered.
    pub(super) fn answer_worker(&mut self, executor: u32, waiter: WaiterId, result: Result<Orders, RemoteError>) {
        let asked = self.executors.get_mut(&executor).unwrap().waiters.remove(&waiter);
        let pid = asked.expect("a worker's poll is answered once");
        match self.random.below(100) {
            0..=2 if self.now < FAULTS_END => self.ails(pid),
            3..=4 if self.now < FAULTS_END => {
                self.ails(pid);
                self.later(8_000, Happens::Answered(pid, waiter, result));
            }
            _ => self.later(5, Happens::Answered(pid, waiter, result)),
        }
    }

    pub(super) fn ordered(&mut self, pid: Pid, waiter: WaiterId, result: Result<Orders, RemoteError>) {
        if let Some(until) = self.stopped(pid) {
            return self.at(until, Happens::Answered(pid, waiter, result));
        }
        let Some(worker) = self.worker(pid) else { return };
        let Some((_, told, _)) = worker.poll.take_if(|(number, ..)| *number == waiter) else { return };
        let Ok(orders) = result else { return self.later(200, Happens::Wakes(pid)) };
        worker.holdings.heard(told);
        worker.untold.clear();
        if orders.end {
            return self.ends(pid, Ending { error: None, retry: false, away: false });
        }
        for attempt in orders.give_up {
            self.gives_up(pid, attempt);
        }
        for task in orders.run {
            assert!(self.oracle.begun.insert(task.attempt), "an attempt runs once: {task:?}");
            self.worker(pid).unwrap().take(&task);
            match task.output {
                StageOutput::Shuffle { reducers, .. } => self.map(pid, &task, reducers),
                StageOutput::Result { .. } => self.fetch(pid, Box::new(task)),
            }
        }
        self.wakes(pid);
    }

    /// Most tasks end soon when they are given up, and some never do.
    fn gives_up(&mut self, pid: Pid, attempt: TaskAttemptId) {
        let keeps = self.now < FAULTS_END && self.random.percent(20);
        let Some(worker) = self.worker(pid) else { return };
        if worker.running.contains_key(&attempt) && !worker.given_up.contains_key(&attempt) {
            worker.given_up.insert(attempt, keeps);
            if keeps {
                // It is ended for it, and takes others with it.
                self.ails(pid);
            } else {
                let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
                self.later(300, Happens::TaskEnds(pid, attempt, outcome));
            }
        }
    }

    /// A task of a worker has ended.
    pub(super) fn task_ends(&mut self, pid: Pid, attempt: TaskAttemptId, outcome: TaskOutcome) {
        if let Some(until) = self.stopped(pid) {
            return self.at(until, Happens::TaskEnds(pid, attempt, outcome));
        }
        let Some(worker) = self.worker(pid) else { return };
        if worker.given_up.get(&attempt) == Some(&true) {
            return;
        }
        let Some(task) = worker.running.remove(&attempt) else { return };
        // It gives the poll in force up.
        worker.poll = None;
        worker.untold.insert(attempt);
        worker.holdings.end(attempt, outcome.clone());
        if let (TaskOutcome::Done(done), StageOutput::Shuffle { shuffle, .. }) = (outcome, task.output) {
            let here = self.executors.get_mut(&pid.executor).unwrap();
            here.files.insert((attempt.job, shuffle, attempt), (task.output, done));
        }
        self.wakes(pid);
    }
}
