use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situ_wire::error::RemoteError;
use situ_wire::ids::{ActionId, ClientId, ExecutorId, JobId, OperationId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    DriverPlace, ExecutorEvent, JobOptions, JobState, Program, Request, Response, TaskOutcome, TaskSpec,
};
use situ_wire::time::TimeMs;

use super::checks::policy;
use super::drivers::Driver;
use super::executors::Executor;
use super::random::Random;
use super::{CHECK_EVERY, CHECKED, END, EXECUTORS, FAULTS_END, JOBS};
use crate::core::{CallId, Event, JobRecord, RecordId, Scheduler, SecretKey};

/// Who made a call. Processes know in which life of their executor they began.
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
    Begin {
        process: Driver,
    },
    Aside {
        process: Driver,
    },
    Action {
        process: Driver,
        action: u32,
    },
    Publish {
        process: Driver,
    },
    End {
        process: Driver,
    },
    Reducer {
        executor: u32,
        life: u64,
        task: Box<TaskSpec>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Happens {
    Submit(u64),
    Kill(u64),
    /// A driver makes the directory in which its tasks write aside.
    Makes(Driver),
    /// A run that takes away what a job wrote aside comes to its end.
    Cleans(Driver),
    Call(Who, Box<Request>),
    Synced(RecordId),
    Disconnected(ExecutorId),
    PollAgain {
        executor: u32,
        life: u64,
    },
    TaskEnds {
        executor: u32,
        life: u64,
        attempt: TaskAttemptId,
        outcome: TaskOutcome,
    },
    Fault,
    Return(u32),
}

pub(super) struct Simulation {
    pub(super) random: Random,
    pub(super) now: TimeMs,
    pub(super) heap: BTreeMap<(TimeMs, u64), Happens>,
    pub(super) sequence: u64,
    pub(super) scheduler: Scheduler,
    pub(super) scheduler_life: u8,
    pub(super) appended: Vec<JobRecord>,
    /// How many of them are on the disk.
    pub(super) synced: usize,
    /// How many an earlier life of the scheduler wrote.
    pub(super) before: usize,
    pub(super) calls: BTreeMap<CallId, Who>,
    pub(super) next_call: u64,
    pub(super) held: Vec<(RecordId, CallId, Result<Response, RemoteError>)>,
    pub(super) executors: BTreeMap<u32, Executor>,
    pub(super) next_executor: u128,
    pub(super) submitted: BTreeMap<u64, JobId>,
    pub(super) ended: BTreeMap<JobId, JobState>,
    /// Jobs that have a directory in which they write aside.
    pub(super) aside: BTreeSet<JobId>,
    /// Of which actions a driver has heard that they are done, and in which life of the scheduler that was first.
    pub(super) done: BTreeMap<(JobId, ActionId), u8>,
    /// Of which jobs the scheduler has said that it knows that they have published.
    pub(super) published: BTreeSet<JobId>,
    /// What the map tasks had written of which the results came that a driver has heard.
    pub(super) contents: BTreeMap<JobId, Vec<u32>>,
    /// Who died, hung or lost something in this life of the scheduler; and of which jobs a piece could not be fetched.
    pub(super) troubled: BTreeSet<u32>,
    pub(super) starved: BTreeSet<JobId>,
    pub(super) trace: blake3::Hasher,
    pub(super) lost: usize,
    pub(super) superseded: usize,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Self {
        let mut simulation = Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: TimeMs(0),
            heap: BTreeMap::new(),
            sequence: 0,
            scheduler: Scheduler::new(policy(), SecretKey([0; 32]), Vec::new()),
            scheduler_life: 0,
            appended: Vec::new(),
            synced: 0,
            before: 0,
            calls: BTreeMap::new(),
            next_call: 0,
            held: Vec::new(),
            executors: (1..=EXECUTORS).map(|number| (number, Executor::default())).collect(),
            next_executor: 0,
            submitted: BTreeMap::new(),
            ended: BTreeMap::new(),
            aside: BTreeSet::new(),
            done: BTreeMap::new(),
            published: BTreeSet::new(),
            contents: BTreeMap::new(),
            troubled: BTreeSet::new(),
            starved: BTreeSet::new(),
            trace: blake3::Hasher::new(),
            lost: 0,
            superseded: 0,
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

    pub(super) fn run(&mut self, seed: u64) {
        while self.ended.len() < usize::try_from(JOBS).unwrap() || !self.aside.is_empty() {
            let next = self.heap.first_key_value().map_or(TimeMs::NEVER, |((at, _), _)| *at);
            let due = self.scheduler.poll_timeout().unwrap_or(TimeMs::NEVER);
            self.now = self.now.max(next.min(due));
            let left = &self.aside;
            assert!(self.now < END, "seed {seed}: jobs do not end, or leave {left:?}: {:?}", self.scheduler);
            if due <= self.now {
                self.scheduler.handle_timeout(self.now);
            } else if let Some((_, what)) = self.heap.pop_first() {
                self.happens(what, seed);
            }
            self.effects();
            if seed < CHECKED || self.sequence.is_multiple_of(CHECK_EVERY) {
                self.scheduler.check();
            }
        }
        self.scheduler.check();
    }

    pub(super) fn happens(&mut self, what: Happens, seed: u64) {
        match what {
            Happens::Submit(sequence) => {
                let operation = OperationId { client: ClientId(9), sequence };
                let program = Program::BuiltIn { name: "wordcount".to_owned() };
                self.call(
                    Who::Client(sequence),
                    Request::Submit {
                        program,
                        arguments: Vec::new(),
                        operation,
                        options: JobOptions::default(),
                        driver: DriverPlace::Placed,
                    },
                );
            }
            Happens::Kill(sequence) => match self.submitted.get(&sequence) {
                Some(job) => self.call(Who::Killer(sequence), Request::Kill { job: *job, reason: "enough".to_owned() }),
                None => self.later(1_000, Happens::Kill(sequence)),
            },
            Happens::Makes(process) => {
                if self.runs(process) {
                    self.aside.insert(process.job);
                    self.run_action(process, 0);
                }
            }
            Happens::Cleans(process) => {
                if self.runs(process) {
                    let Driver { executor, job, attempt, .. } = process;
                    let failed = self.now < FAULTS_END && self.random.percent(30);
                    let error = failed.then(|| "the namenode is away".to_owned());
                    if !failed {
                        self.aside.remove(&job);
                    }
                    let executor = self.executors.get_mut(&executor).unwrap();
                    executor.drivers.remove(&(job, attempt));
                    executor.tell(ExecutorEvent::DriverEnded { job, attempt, error, retry: false, away: false });
                    self.poll(process.executor, process.life);
                }
            }
            Happens::Call(who, request) => {
                if self.is_alive(&who) {
                    self.call(who, *request);
                }
            }
            Happens::Synced(record) => self.on_synced(record, seed),
            Happens::Disconnected(executor) => self.scheduler.handle(self.now, Event::Disconnected { executor }),
            Happens::PollAgain { executor, life } => self.poll(executor, life),
            Happens::TaskEnds { executor, life, attempt, outcome } => self.task_ends(executor, life, attempt, outcome),
            Happens::Fault => self.fault(),
            Happens::Return(number) => self.executor_starts(number),
        }
    }

    pub(super) fn is_alive(&self, who: &Who) -> bool {
        let lives = |executor: &u32, life: u64| self.executors[executor].alive && self.executors[executor].life == life;
        match who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => true,
            Who::Poll { executor, life, number, .. } => {
                lives(executor, *life) && self.executors[executor].last_poll == *number
            }
            Who::Register { executor, life } => lives(executor, *life),
            Who::Reducer { executor, life, task } => {
                lives(executor, *life) && self.executors[executor].running.contains_key(&task.attempt)
            }
            Who::Begin { process }
            | Who::Aside { process }
            | Who::Action { process, .. }
            | Who::Publish { process }
            | Who::End { process } => {
                let here = &self.executors[&process.executor];
                lives(&process.executor, process.life) && here.drivers.contains(&(process.job, process.attempt))
            }
        }
    }
}
