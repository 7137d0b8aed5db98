use std::collections::BTreeMap;
use std::time::Duration;

use situ_wire::error::RemoteError;
use situ_wire::ids::{ClientId, ExecutorId, JobId, OperationId, ScopeId, TaskAttemptId};
use situ_wire::messages::executor::{Orders, WorkerPoll};
use situ_wire::messages::scheduler::{
    DriverPlace, JobOptions, JobState, Program, Request, Response, TaskOutcome, TaskSpec,
};
use situ_wire::time::TimeMs;

use super::checks::Oracle;
use super::drivers::Driver;
use super::executors::Executor;
use super::processes::{Ending, Pid};
use super::random::Random;
use super::{CHECK_EVERY, CHECKED, END, EXECUTORS, JOBS, REST};
use crate::core::{CallId, Event, JobRecord, RecordId, Scheduler, SchedulingPolicy, SecretKey};
use crate::executor::table::{Event as TableEvent, WaiterId};

/// Who made a call to the scheduler.
#[derive(Clone, Debug)]
pub(super) enum Who {
    Client(u64),
    Follower(JobId),
    Killer(u64),
    /// With the number of the poll, and of the last event that it told.
    Poll {
        executor: u32,
        life: u64,
        number: u64,
        told: u64,
    },
    Register {
        executor: u32,
        life: u64,
    },
    /// At a step of its program.
    Driver {
        process: Driver,
        step: usize,
    },
    /// A task asks where its input is.
    Reducer {
        worker: Pid,
        task: Box<TaskSpec>,
    },
}

pub(super) type Answer = Result<Response, RemoteError>;

#[derive(Clone, Debug)]
pub(super) enum Happens {
    Submit(u64),
    Kill(u64),
    Call(Who, Box<Request>),
    /// An answer has arrived.
    Told(Who, Box<Answer>),
    Synced(RecordId),
    Disconnected(ExecutorId),
    PollAgain {
        executor: u32,
        life: u64,
    },
    /// An executor's owner hears something.
    Heard {
        executor: u32,
        life: u64,
        what: Box<TableEvent>,
    },
    Surveyed {
        executor: u32,
        life: u64,
        number: u64,
    },
    Starts(Pid),
    Ends(Pid, Ending),
    /// A driver makes the directory in which its tasks write aside.
    Makes(Driver, usize),
    /// A run that takes away what a job wrote aside comes to its end.
    Cleans(Driver),
    /// A worker looks around.
    Wakes(Pid),
    /// A worker's poll arrives at its executor, whatever has become of the worker.
    Arrives(Pid, WaiterId, WorkerPoll),
    Answered(Pid, WaiterId, Result<Orders, RemoteError>),
    TaskEnds(Pid, TaskAttemptId, TaskOutcome),
    /// It is looked whether anything is left of a scope that has ended.
    Looks(JobId, Vec<ScopeId>),
    Fault,
    Return(u32),
}

/// What the scheduler has written.
#[derive(Default)]
pub(super) struct Journal {
    pub(super) appended: Vec<JobRecord>,
    /// How many of them are on the disk.
    pub(super) synced: usize,
    /// How many an earlier life of the scheduler wrote.
    pub(super) before: usize,
    /// Answers that wait for a record.
    pub(super) held: Vec<(RecordId, CallId, Answer)>,
}

pub(super) struct Simulation {
    pub(super) random: Random,
    pub(super) now: TimeMs,
    pub(super) heap: BTreeMap<(TimeMs, u64), Happens>,
    pub(super) sequence: u64,
    pub(super) scheduler: Scheduler,
    pub(super) scheduler_life: u8,
    pub(super) journal: Journal,
    pub(super) calls: BTreeMap<CallId, Who>,
    pub(super) next_call: u64,
    pub(super) executors: BTreeMap<u32, Executor>,
    pub(super) next_executor: u128,
    /// Until when the file system is away, which holds the programs.
    pub(super) away_until: TimeMs,
    pub(super) submitted: BTreeMap<u64, JobId>,
    pub(super) oracle: Oracle,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        let mut simulation = Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: TimeMs(0),
            heap: BTreeMap::new(),
            sequence: 0,
            scheduler: Scheduler::new(SchedulingPolicy::default(), SecretKey([0; 32]), Vec::new()),
            scheduler_life: 0,
            journal: Journal::default(),
            calls: BTreeMap::new(),
            next_call: 0,
            executors: (1..=EXECUTORS).map(|number| (number, Executor::new())).collect(),
            next_executor: 0,
            away_until: TimeMs(0),
            submitted: BTreeMap::new(),
            oracle: Oracle::default(),
        };
        for number in 1..=EXECUTORS {
            simulation.later(50, Happens::Return(number));
        }
        for job in 1..=JOBS {
            simulation.later(2_000 * job, Happens::Submit(job));
        }
        simulation.later(20_000, Happens::Kill(JOBS));
        simulation.later(3_000, Happens::Fault);
        simulation
    }

    /// Something happens within the next `ms`.
    pub(super) fn later(&mut self, ms: u64, what: Happens) {
        let at = self.now + Duration::from_millis(1 + self.random.below(ms));
        self.at(at, what);
    }

    pub(super) fn at(&mut self, at: TimeMs, what: Happens) {
        self.sequence += 1;
        self.heap.insert((at, self.sequence), what);
    }

    /// Until all jobs have ended and a while has passed.
    pub(super) fn run(&mut self, seed: u64) {
        while self.oracle.ended.len() < usize::try_from(JOBS).unwrap() || !self.oracle.aside.is_empty() {
            self.step(seed);
            let left = &self.oracle.aside;
            assert!(self.now < END, "seed {seed}: jobs do not end, or leave {left:?}: {:?}", self.scheduler);
        }
        let end = self.now + Duration::from_millis(REST);
        while self.now < end {
            self.step(seed);
        }
        self.scheduler.check();
        self.check_nothing_left();
    }

    fn step(&mut self, seed: u64) {
        let next = self.heap.first_key_value().map_or(TimeMs::NEVER, |((at, _), _)| *at);
        let due = self.scheduler.poll_timeout().unwrap_or(TimeMs::NEVER);
        let (table_due, executor) =
            self.executors.iter().map(|(number, executor)| (executor.due(), *number)).min().unwrap();
        self.now = self.now.max(next.min(due).min(table_due));
        if due <= self.now {
            self.scheduler.handle_timeout(self.now);
        } else if table_due <= self.now {
            self.table_timeout(executor);
        } else if let Some((_, what)) = self.heap.pop_first() {
            self.happens(what);
        }
        self.effects();
        if seed < CHECKED || self.sequence.is_multiple_of(CHECK_EVERY) {
            self.scheduler.check();
            self.check_tables();
        }
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Submit(sequence) => {
                let operation = OperationId { client: ClientId(9), sequence };
                let program = Program::BuiltIn { name: "wordcount".to_owned() };
                let (arguments, options, driver) = (Vec::new(), JobOptions::default(), DriverPlace::Placed);
                self.call(Who::Client(sequence), Request::Submit { program, arguments, operation, options, driver });
            }
            Happens::Kill(sequence) => match self.submitted.get(&sequence) {
                Some(job) => self.call(Who::Killer(sequence), Request::Kill { job: *job, reason: "enough".to_owned() }),
                None => self.later(1_000, Happens::Kill(sequence)),
            },
            Happens::Call(who, request) => {
                if let Some(until) = self.stands_still(&who) {
                    self.at(until, Happens::Call(who, request));
                } else if self.is_alive(&who) {
                    self.call(who, *request);
                }
            }
            Happens::Told(who, answer) => self.told(who, *answer),
            Happens::Synced(record) => self.on_synced(record),
            Happens::Disconnected(executor) => self.scheduler.handle(self.now, Event::Disconnected { executor }),
            Happens::PollAgain { executor, life } => self.poll(executor, life),
            Happens::Heard { executor, life, what } => self.hear(executor, life, *what),
            Happens::Surveyed { executor, life, number } => self.surveyed(executor, life, number),
            Happens::Starts(process) => self.starts(process),
            Happens::Ends(process, ending) => self.ends(process, ending),
            Happens::Makes(process, step) => self.makes(process, step),
            Happens::Cleans(process) => self.cleans(process),
            Happens::Wakes(worker) => self.wakes(worker),
            Happens::Arrives(worker, waiter, poll) => self.arrives(worker, waiter, poll),
            Happens::Answered(worker, waiter, result) => self.ordered(worker, waiter, result),
            Happens::TaskEnds(worker, attempt, outcome) => self.task_ends(worker, attempt, outcome),
            Happens::Looks(job, within) => self.look_for(job, within),
            Happens::Fault => self.fault(),
            Happens::Return(number) => self.executor_starts(number),
        }
    }

    /// How a job ended, if anybody has heard.
    pub(super) fn ended(&self) -> &BTreeMap<JobId, JobState> {
        &self.oracle.ended
    }
}
