//! Many random histories: executors die, hang and return, answers get lost, tasks fail, the scheduler itself starts
//! again. Every job must end, with each partition's result there once, and nothing that it wrote aside may stay; what is
//! done stays done over the lives of the scheduler, and what is published is published once. One job's map tasks do not give
//! the same output twice: all that its driver hears must come of the same outputs, or it fails. The same seed must give the
//! same history.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{
    ActionId, ClientId, DatasetId, ExecutorId, JobId, OperationId, PartitionId, ScopeId, TaskAttemptId,
};
use situ_wire::limits::ATTEMPTS_PER_LIFE;
use situ_wire::messages::executor::{JobSecret, ShufflePiece};
use situ_wire::messages::scheduler::{
    ActionResult, DriverPlace, ExecutorCommand, ExecutorEvent, Holding, JobOptions, JobState, Lost, MapOutput,
    PartitionRange, PersistedInput, Plan, Program, Request, Response, StageOutput, TaskDone, TaskFailure, TaskOutcome,
    TaskSpec,
};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::world::{place, registration, word_count};
use crate::core::{
    CLEAN_UP, CallId, Caller, Effect, Event, JobRecord, RecordId, Scheduler, SchedulingPolicy, SecretKey,
};

const EXECUTORS: u32 = 5;
const JOBS: u64 = 3;
const ACTIONS: u32 = 3;
/// Until when things go wrong.
const FAULTS_END: TimeMs = TimeMs(40_000);
/// Until when every job must have ended.
const END: TimeMs = TimeMs(200_000);
const PATIENCE: Duration = Duration::from_secs(5);
const SEEDS: u64 = 1_000;
/// The invariants are checked after each event of so many seeds, of the others after one of [`CHECK_EVERY`].
const CHECKED: u64 = 100;
const CHECK_EVERY: u64 = 16;

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Who made a call. Processes know in which life of their executor they began.
#[derive(Clone, Debug)]
enum Who {
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

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Driver {
    executor: u32,
    life: u64,
    job: JobId,
    attempt: u32,
    secret: JobSecret,
}

#[derive(Clone, Debug)]
enum Happens {
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

/// One executor process, or the place where the next one will be.
#[derive(Default)]
struct Executor {
    /// Rises with each process and each registration.
    life: u64,
    alive: bool,
    id: ExecutorId,
    seen: u64,
    hangs_until: TimeMs,
    /// Not known to be heard, with their numbers.
    events: Vec<(u64, ExecutorEvent)>,
    next_event: u64,
    /// The number of the last poll: an older one is not followed up.
    last_poll: u64,
    /// The jobs that it was told how to start.
    begun: BTreeSet<JobId>,
    running: BTreeMap<TaskAttemptId, Box<TaskSpec>>,
    cancelled: BTreeSet<TaskAttemptId>,
    /// What tasks have left: pieces in its directory, results in its memory.
    outputs: BTreeMap<TaskAttemptId, (StageOutput, TaskDone)>,
    drivers: BTreeSet<(JobId, u32)>,
}

impl Executor {
    fn tell(&mut self, event: ExecutorEvent) {
        self.next_event += 1;
        self.events.push((self.next_event, event));
    }

    /// It is registered: it keeps what it has of these jobs, and tells it.
    fn report(&mut self, jobs: &[JobId]) {
        self.events.clear();
        let goes_on = |job: JobId| jobs.contains(&job);
        self.running.retain(|attempt, _| goes_on(attempt.job));
        self.outputs.retain(|attempt, _| goes_on(attempt.job));
        self.drivers.retain(|(job, _)| goes_on(*job));
        self.begun.retain(|job| goes_on(*job));
        let drivers = self.drivers.iter().map(|(job, attempt)| Holding::Driver { job: *job, attempt: *attempt });
        let running = self.running.values().map(|task| Holding::Task(task.clone()));
        let left = self.outputs.iter().flat_map(|(attempt, (output, done))| {
            let (attempt, output, mut done, partitions) = (*attempt, *output, done.clone(), done.cached.clone());
            done.cached = Vec::new();
            [Holding::Left { attempt, output, done: Box::new(done) }, Holding::Cached { attempt, partitions }]
        });
        let all: Vec<Holding> = drivers.chain(running).chain(left).chain([Holding::Whole]).collect();
        all.into_iter().for_each(|holding| self.tell(ExecutorEvent::Holds(holding)));
    }
}

struct Simulation {
    random: Random,
    now: TimeMs,
    heap: BTreeMap<(TimeMs, u64), Happens>,
    sequence: u64,
    scheduler: Scheduler,
    scheduler_life: u8,
    appended: Vec<JobRecord>,
    /// How many of them are on the disk.
    synced: usize,
    /// How many an earlier life of the scheduler wrote.
    before: usize,
    calls: BTreeMap<CallId, Who>,
    next_call: u64,
    held: Vec<(RecordId, CallId, Result<Response, RemoteError>)>,
    executors: BTreeMap<u32, Executor>,
    next_executor: u128,
    submitted: BTreeMap<u64, JobId>,
    ended: BTreeMap<JobId, JobState>,
    /// Jobs that have a directory in which they write aside.
    aside: BTreeSet<JobId>,
    /// Of which actions a driver has heard that they are done, and in which life of the scheduler that was first.
    done: BTreeMap<(JobId, ActionId), u8>,
    /// Of which jobs the scheduler has said that it knows that they have published.
    published: BTreeSet<JobId>,
    /// What the map tasks had written of which the results came that a driver has heard.
    contents: BTreeMap<JobId, Vec<u32>>,
    /// Who died, hung or lost something in this life of the scheduler; and of which jobs a piece could not be fetched.
    troubled: BTreeSet<u32>,
    starved: BTreeSet<JobId>,
    trace: blake3::Hasher,
    lost: usize,
    superseded: usize,
}

/// The job whose map tasks do not give the same output twice.
const VARYING: JobId = JobId(2);

/// The plan of an action of a job: later actions read the shuffle of the first.
fn plan(seed: u64, job: JobId, action: u32) -> Plan {
    let mut random = Random(seed ^ (job.0 << 32) | 1);
    random.next();
    let maps = 1 + random.below(12);
    let number = |random: &mut Random| u32::try_from(1 + random.below(EXECUTORS.into())).unwrap();
    let places = (0..maps).map(|_| (0..random.below(3)).map(|_| place(number(&mut random))).collect()).collect();
    let reducers = number(&mut random);
    let mut plan = word_count(places, reducers);
    plan.name = format!("action {action}");
    // Some tasks take a whole executor.
    for stage in &mut plan.stages {
        stage.resources.cores = 1 + u32::from(random.below(4) == 0);
    }
    let last = plan.stages.last_mut().unwrap();
    last.output = StageOutput::Result { action: ActionId(ScopeId::ROOT, action) };
    if job != VARYING {
        let partitions = vec![PartitionRange { stage: 0, dataset: 0, count: last.partitions }];
        last.persisted = vec![PersistedInput { dataset: DatasetId(ScopeId::ROOT, 2), partitions }];
    }
    plan
}

fn result_of(job: JobId, action: ActionId, partition: u32, contents: &[u32]) -> Bytes {
    Bytes::from(format!("{job} {action} {partition} {contents:?}"))
}

impl Simulation {
    fn new(seed: u64) -> Self {
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
    fn later(&mut self, ms: u64, what: Happens) {
        let at = self.now + Duration::from_millis(1 + self.random.below(ms));
        self.at(at, what);
    }

    fn at(&mut self, at: TimeMs, what: Happens) {
        self.sequence += 1;
        self.heap.insert((at, self.sequence), what);
    }

    fn run(&mut self, seed: u64) {
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

    fn happens(&mut self, what: Happens, seed: u64) {
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

    fn is_alive(&self, who: &Who) -> bool {
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

    fn call(&mut self, who: Who, request: Request) {
        self.next_call += 1;
        let call = CallId(self.next_call);
        let (role, name) = match &who {
            Who::Client(_) | Who::Follower(_) | Who::Killer(_) => (Role::User, "ada".to_owned()),
            Who::Poll { executor, .. } | Who::Register { executor, .. } | Who::Reducer { executor, .. } => {
                (Role::Executor, format!("n{executor}"))
            }
            Who::Begin { process }
            | Who::Aside { process }
            | Who::Action { process, .. }
            | Who::Publish { process }
            | Who::End { process } => (Role::Executor, format!("n{}", process.executor)),
        };
        self.calls.insert(call, who);
        let event = Event::Call {
            call,
            caller: Caller { role, name },
            deadline: self.now + PATIENCE,
            request: Box::new(request),
        };
        self.scheduler.handle(self.now, event);
    }

    fn effects(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            self.trace.update(format!("{:?} {effect:?}\n", self.now).as_bytes());
            match effect {
                Effect::Append { id, record } => {
                    self.appended.push(*record);
                    self.later(5, Happens::Synced(id));
                }
                Effect::Answer { call, result, when: Some(record) } => self.held.push((record, call, *result)),
                Effect::Answer { call, result, when: None } => self.answered(call, *result),
            }
        }
    }

    /// A record is on the disk, and so are all before it.
    fn on_synced(&mut self, record: RecordId, seed: u64) {
        let count = self.before + usize::try_from(record.0).unwrap();
        if count <= self.synced || count > self.appended.len() {
            return;
        }
        self.synced = count;
        self.scheduler.handle(self.now, Event::Synced { record });
        let (ready, held) = std::mem::take(&mut self.held).into_iter().partition(|(at, ..)| *at <= record);
        self.held = held;
        for (_, call, result) in Vec::from_iter(ready) {
            self.answered(call, result);
        }
        let _ = seed;
    }

    /// An answer arrives, or is lost, or finds nobody.
    fn answered(&mut self, call: CallId, result: Result<Response, RemoteError>) {
        let who = self.calls.remove(&call).expect("a call is answered once");
        if !self.is_alive(&who) {
            return;
        }
        if self.now < FAULTS_END && self.random.percent(3) {
            return self.ask_again(who);
        }
        match (who, result) {
            (Who::Client(sequence), Ok(Response::Submitted { job, .. })) => {
                let before = self.submitted.insert(sequence, job);
                assert!(before.is_none_or(|before| before == job), "a submission makes one job");
                self.follow(job, 0);
            }
            (Who::Follower(job), Ok(Response::Status(status))) => {
                if status.summary.state.is_final() {
                    let before = self.ended.insert(job, status.summary.state.clone());
                    assert!(before.is_none_or(|before| before == status.summary.state), "a job ends once");
                    self.lost += status.recoveries.len();
                    self.superseded +=
                        status.recoveries.iter().filter(|recovery| recovery.lost == Lost::Superseded).count();
                } else {
                    self.follow(job, status.revision);
                }
            }
            (Who::Poll { executor, life, told, .. }, Ok(Response::Commands { last, commands })) => {
                self.executors.get_mut(&executor).unwrap().events.retain(|(number, _)| *number > told);
                self.commanded(executor, life, last, commands);
            }
            (Who::Register { executor, life }, Ok(Response::Registered { jobs, .. })) => {
                self.executors.get_mut(&executor).unwrap().report(&jobs);
                self.poll(executor, life);
            }
            (Who::Begin { process }, Ok(_)) => self.write_aside(process),
            (Who::Aside { process }, Ok(Response::Publication { published })) => {
                assert!(published || !self.published.contains(&process.job), "what is published stays published");
                if published {
                    self.run_action(process, 0);
                } else {
                    self.later(500, Happens::Makes(process));
                }
            }
            (Who::Publish { process }, Ok(Response::Done)) => {
                self.published.insert(process.job);
                self.end(process);
            }
            (Who::Killer(_), Ok(_)) => {}
            (Who::Action { process, action }, Ok(Response::Action(ActionResult::Done(results)))) => {
                let (job, id) = (process.job, ActionId(ScopeId::ROOT, action));
                self.done.entry((job, id)).or_insert(self.scheduler_life);
                let text = String::from_utf8(results[0].to_vec()).unwrap();
                let contents = text.split(['[', ']']).nth(1).unwrap().split(", ").map(|it| it.parse().unwrap());
                let contents: Vec<u32> = contents.collect();
                let before = self.contents.entry(job).or_insert_with(|| contents.clone());
                assert_eq!(*before, contents, "all results of a job come of the same outputs");
                let expected = plan(0, job, action).stages[1].partitions;
                let expected: Vec<Bytes> =
                    (0..expected).map(|partition| result_of(job, id, partition, &contents)).collect();
                assert_eq!(results, expected, "each partition has its result");
                self.run_action(process, action + 1);
            }
            (Who::Reducer { executor, life, task }, Ok(Response::MapOutputs(outputs))) => {
                self.reduce(executor, life, &task, &outputs);
            }
            (Who::Reducer { executor, life, task }, Err(error)) if error.code == ErrorCode::OutputsLost => {
                let (attempt, outcome) = (task.attempt, TaskOutcome::Failed(TaskFailure::Cancelled));
                self.later(10, Happens::TaskEnds { executor, life, attempt, outcome });
            }
            (who, Err(error)) if error.code == ErrorCode::Unavailable => self.ask_again(who),
            (Who::Poll { executor, .. }, Err(error)) if error.code == ErrorCode::NotRegistered => {
                // Its processes go on.
                let unknown = self.executors.get_mut(&executor).unwrap();
                (unknown.seen, unknown.last_poll) = (0, u64::MAX);
                let life = unknown.life;
                self.register(executor, life);
            }
            // The job has ended: its processes are ended soon. Or nobody knows of the task any more.
            (Who::Reducer { executor, life, task }, Err(_)) => {
                let (attempt, outcome) = (task.attempt, TaskOutcome::Failed(TaskFailure::Cancelled));
                self.later(10, Happens::TaskEnds { executor, life, attempt, outcome });
            }
            (
                Who::End { process }
                | Who::Publish { process }
                | Who::Begin { process }
                | Who::Aside { process }
                | Who::Action { process, .. },
                _,
            ) => {
                self.executors.get_mut(&process.executor).unwrap().drivers.remove(&(process.job, process.attempt));
            }
            (who, result) => panic!("{who:?} was told {result:?}"),
        }
    }

    /// The answer was lost, or told to ask later.
    fn ask_again(&mut self, who: Who) {
        match who {
            Who::Client(sequence) => self.later(100, Happens::Submit(sequence)),
            Who::Follower(job) => self.follow(job, 0),
            Who::Poll { executor, life, .. } => self.later(100, Happens::PollAgain { executor, life }),
            Who::Register { executor, life } => self.register(executor, life),
            Who::Begin { process } => self.begin(process),
            Who::Aside { process } => self.write_aside(process),
            Who::Killer(sequence) => self.later(100, Happens::Kill(sequence)),
            Who::Action { process, action } => self.run_action(process, action),
            Who::Publish { process } => self.run_action(process, ACTIONS),
            Who::End { process } => self.end(process),
            Who::Reducer { executor, life, task } => self.fetch(executor, life, task),
        }
    }

    fn follow(&mut self, job: JobId, seen: u64) {
        self.later(20, Happens::Call(Who::Follower(job), Box::new(Request::Status { job, seen })));
    }

    /// Whether a driver's process is there.
    fn runs(&self, Driver { executor, life, job, attempt, .. }: Driver) -> bool {
        let executor = &self.executors[&executor];
        executor.alive && executor.life == life && executor.drivers.contains(&(job, attempt))
    }

    fn write_aside(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        let output = DfsPath::parse(&format!("/{job}")).unwrap();
        let request = Request::Publishing { job, secret, attempt, action: ActionId(ScopeId::ROOT, ACTIONS), output };
        self.later(50, Happens::Call(Who::Aside { process }, Box::new(request)));
    }

    fn begin(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        self.later(50, Happens::Call(Who::Begin { process }, Box::new(Request::DriverBegin { job, secret, attempt })));
    }

    /// A driver goes on: with that action, or to its end.
    fn run_action(&mut self, process: Driver, action: u32) {
        let Driver { job, secret, attempt, .. } = process;
        let (who, request) = if action < ACTIONS {
            let plan = Box::new(plan(0, job, action));
            let request = Request::RunAction { job, secret, attempt, action: ActionId(ScopeId::ROOT, action), plan };
            (Who::Action { process, action }, request)
        } else {
            // Publishing takes it away.
            self.aside.remove(&job);
            (
                Who::Publish { process },
                Request::Published { job, secret, attempt, action: ActionId(ScopeId::ROOT, ACTIONS) },
            )
        };
        self.later(50, Happens::Call(who, Box::new(request)));
    }

    fn end(&mut self, process: Driver) {
        let Driver { job, secret, attempt, .. } = process;
        let request = Request::DriverEnd { job, secret, attempt, error: None };
        self.later(50, Happens::Call(Who::End { process }, Box::new(request)));
    }

    fn register(&mut self, executor: u32, life: u64) {
        let id = self.executors[&executor].id;
        let request = Request::ExecutorRegister(situ_wire::messages::scheduler::ExecutorRegistration {
            id,
            ..registration(executor, 2)
        });
        self.later(20, Happens::Call(Who::Register { executor, life }, Box::new(request)));
    }

    fn executor_starts(&mut self, number: u32) {
        self.next_executor += 1;
        let id = ExecutorId(self.next_executor);
        let executor = self.executors.get_mut(&number).unwrap();
        if executor.alive {
            return;
        }
        // Its directory stays, and its memory does not.
        let mut outputs = std::mem::take(&mut executor.outputs);
        outputs.retain(|_, (output, _)| matches!(output, StageOutput::Shuffle { .. }));
        *executor = Executor { life: executor.life + 1, alive: true, id, outputs, ..Executor::default() };
        let life = executor.life;
        self.register(number, life);
    }

    fn poll(&mut self, number: u32, life: u64) {
        let executor = &self.executors[&number];
        if !executor.alive || executor.life != life {
            return;
        }
        if executor.hangs_until > self.now {
            return self.at(executor.hangs_until, Happens::PollAgain { executor: number, life });
        }
        let events = executor.events.iter().map(|(_, event)| event.clone()).collect();
        let request = Request::ExecutorPoll { id: executor.id, seen: executor.seen, events, progress: Vec::new() };
        let told = executor.next_event;
        let last_poll = self.next_call;
        self.executors.get_mut(&number).unwrap().last_poll = last_poll;
        self.call(Who::Poll { executor: number, life, number: last_poll, told }, request);
    }

    fn commanded(&mut self, number: u32, life: u64, last: u64, commands: Vec<(u64, ExecutorCommand)>) {
        let executor = self.executors.get_mut(&number).unwrap();
        let mut tasks = Vec::new();
        let mut drivers = Vec::new();
        let mut cleaning = Vec::new();
        for (at, command) in commands.into_iter().filter(|(at, _)| *at > executor.seen).collect::<Vec<_>>() {
            executor.seen = at;
            match command {
                ExecutorCommand::StartDriver { job, attempt } => {
                    executor.begun.insert(job.job);
                    executor.drivers.insert((job.job, attempt));
                    let process = Driver { executor: number, life, job: job.job, attempt, secret: job.secret };
                    if job.program.name() == CLEAN_UP {
                        assert_eq!(job.arguments, [format!("/{}", job.job)], "what was written aside is named");
                        cleaning.push(process);
                    } else {
                        drivers.push(process);
                    }
                }
                ExecutorCommand::EndDriver { job, attempt } => {
                    executor.drivers.remove(&(job, attempt));
                }
                ExecutorCommand::BeginJob { job } => _ = executor.begun.insert(job.job),
                ExecutorCommand::RunTask { task } => {
                    assert!(executor.begun.contains(&task.attempt.job), "a job begins before its tasks");
                    if let StageOutput::Result { action } = task.output
                        && let Some(life) = self.done.get(&(task.attempt.job, action))
                    {
                        let started = task.attempt.attempt / ATTEMPTS_PER_LIFE;
                        assert!(started <= u32::from(*life), "a done action runs in no later life: {task:?}");
                    }
                    executor.running.insert(task.attempt, task.clone());
                    tasks.push(task);
                }
                ExecutorCommand::CancelTask { attempt } => {
                    executor.cancelled.insert(attempt);
                    if executor.running.remove(&attempt).is_some() {
                        let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
                        executor.tell(ExecutorEvent::TaskEnded { attempt, outcome });
                    }
                }
                ExecutorCommand::EndJob { job } => {
                    executor.begun.remove(&job);
                    executor.running.retain(|attempt, _| attempt.job != job);
                    executor.outputs.retain(|attempt, _| attempt.job != job);
                    executor.drivers.retain(|(other, _)| *other != job);
                }
                ExecutorCommand::Release { .. } => unreachable!("no driver releases anything"),
            }
        }
        assert!(executor.seen <= last.max(executor.seen), "numbers rise");
        for process in drivers {
            self.begin(process);
        }
        for process in cleaning {
            self.later(1_000, Happens::Cleans(process));
        }
        for task in tasks {
            self.check_started(&task);
            match task.output {
                StageOutput::Shuffle { reducers, .. } => self.map(number, life, &task, reducers),
                StageOutput::Result { .. } => self.fetch(number, life, task),
            }
        }
        self.later(10, Happens::PollAgain { executor: number, life });
    }

    /// In a new life of the scheduler no task runs again that was done, if whoever has what it left had no trouble.
    fn check_started(&self, task: &TaskSpec) {
        let TaskAttemptId { job, partition, attempt, .. } = task.attempt;
        if attempt != u32::from(self.scheduler_life) * ATTEMPTS_PER_LIFE
            || job == VARYING
            || self.starved.contains(&job)
        {
            return;
        }
        let is = |(other, (output, _)): (&TaskAttemptId, &(StageOutput, TaskDone))| {
            other.job == job && other.partition == partition && *output == task.output && other.attempt < attempt
        };
        let has = |(number, executor): &(&u32, &Executor)| {
            executor.alive && !self.troubled.contains(number) && executor.outputs.iter().any(is)
        };
        let has = self.executors.iter().find(has).map(|(number, _)| number);
        assert_eq!(has, None, "{:?}: a finished task runs again: {task:?}", self.now);
    }

    /// A task runs for a while and ends with `done`, or fails.
    fn work(&mut self, executor: u32, life: u64, attempt: TaskAttemptId, done: TaskDone) {
        // Time enough to lose what it has read.
        let reads = attempt.job == VARYING && attempt.stage == plan(0, VARYING, 0).stages[1].stage;
        let slow = if reads || self.random.percent(4) { 8_000 } else { 400 };
        let outcome = match self.random.below(100) {
            0 if self.now < FAULTS_END => {
                // In other words each time.
                TaskOutcome::Failed(TaskFailure::Program { message: format!("no: {attempt} on {executor}") })
            }
            1 if self.now < FAULTS_END => {
                let message = "the namenode is away".to_owned();
                TaskOutcome::Failed(TaskFailure::Storage { message, transient: true })
            }
            2..=3 if self.now < FAULTS_END => {
                let company = u32::try_from(self.random.below(3)).unwrap();
                TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "no".to_owned(), company })
            }
            _ => TaskOutcome::Done(Box::new(done)),
        };
        self.later(slow, Happens::TaskEnds { executor, life, attempt, outcome });
    }

    fn map(&mut self, executor: u32, life: u64, task: &TaskSpec, reducers: u32) {
        let content = if task.attempt.job == VARYING { self.random.below(4) } else { 0 };
        let piece = ShufflePiece { len_bytes: 9, crc32c: u32::try_from(content).unwrap(), records: 3 };
        let pieces = vec![piece; reducers.try_into().unwrap()];
        self.work(executor, life, task.attempt, TaskDone { pieces, ..TaskDone::default() });
    }

    /// A reducer asks where its input is.
    fn fetch(&mut self, executor: u32, life: u64, task: Box<TaskSpec>) {
        let attempt = task.attempt;
        let plan = plan(0, attempt.job, 0);
        let request = Request::MapOutputs {
            job: attempt.job,
            secret: self.scheduler.secret(attempt.job),
            shuffle: plan.stages[1].reads[0],
            reduce: (attempt.partition, PartitionId(attempt.partition.0 + 1)),
            by: attempt,
        };
        self.later(20, Happens::Call(Who::Reducer { executor, life, task }, Box::new(request)));
    }

    /// A reducer fetches its input, from whoever still has it.
    fn reduce(&mut self, executor: u32, life: u64, task: &TaskSpec, outputs: &[MapOutput]) {
        let attempt = task.attempt;
        assert_eq!(outputs.len(), plan(0, attempt.job, 0).stages[0].plan_partitions(), "all outputs are listed");
        let missing = outputs.iter().find(|output| {
            let there = self.executors.get(&u32::from(output.address.port())).unwrap();
            !there.alive || there.hangs_until > self.now || !there.outputs.contains_key(&output.map)
        });
        if let Some(output) = missing {
            self.starved.insert(attempt.job);
            let shuffle = plan(0, attempt.job, 0).stages[1].reads[0];
            let outcome =
                TaskOutcome::Failed(TaskFailure::Fetch { shuffle, map: output.map, reason: "gone".to_owned() });
            return self.later(500, Happens::TaskEnds { executor, life, attempt, outcome });
        }
        let contents: Vec<u32> = outputs.iter().map(|output| output.pieces[0].crc32c).collect();
        let result = result_of(attempt.job, task.work.action(), attempt.partition.0, &contents);
        let cached = vec![(DatasetId(ScopeId::ROOT, 2), attempt.partition)];
        self.work(executor, life, attempt, TaskDone { result, cached, ..TaskDone::default() });
    }

    fn task_ends(&mut self, number: u32, life: u64, attempt: TaskAttemptId, outcome: TaskOutcome) {
        let executor = self.executors.get_mut(&number).unwrap();
        if !executor.alive || executor.life != life {
            return;
        }
        let Some(task) = executor.running.remove(&attempt) else { return };
        if let TaskOutcome::Done(done) = &outcome {
            executor.outputs.insert(attempt, (task.output, TaskDone::clone(done)));
        }
        executor.tell(ExecutorEvent::TaskEnded { attempt, outcome });
        // It does not wait for the answer to the poll that is under way.
        self.poll(number, life);
    }

    fn fault(&mut self) {
        if self.now >= FAULTS_END {
            return;
        }
        self.later(6_000, Happens::Fault);
        let number = u32::try_from(1 + self.random.below(EXECUTORS.into())).unwrap();
        let fault = self.random.below(10);
        if !(7..=8).contains(&fault) {
            self.troubled.insert(number);
        }
        match fault {
            0..=4 => {
                let executor = self.executors.get_mut(&number).unwrap();
                let (id, was_alive) = (executor.id, std::mem::replace(&mut executor.alive, false));
                if was_alive && self.random.percent(70) {
                    self.later(50, Happens::Disconnected(id));
                }
                // Most do not return before the jobs must be done; the last one does, or nobody could do them.
                let rest = if self.executors.values().any(|executor| executor.alive) { 400_000 } else { 8_000 };
                let rest = if self.random.percent(60) { 8_000 } else { rest };
                self.later(rest, Happens::Return(number));
            }
            5..=6 => {
                let until = self.now + Duration::from_millis(self.random.below(15_000));
                self.executors.get_mut(&number).unwrap().hangs_until = until;
            }
            7 => self.driver_dies(number),
            8 => self.scheduler_restarts(),
            _ => {
                // Its disk lost what tasks had written.
                self.executors.get_mut(&number).unwrap().outputs.clear();
            }
        }
    }

    fn driver_dies(&mut self, number: u32) {
        let executor = self.executors.get_mut(&number).unwrap();
        if let Some((job, attempt)) = executor.drivers.pop_first() {
            let error = Some("SIGKILL".to_owned());
            executor.tell(ExecutorEvent::DriverEnded { job, attempt, error, retry: true, away: false });
        }
    }

    /// The scheduler is killed: what is not on the disk is gone, and so are all calls.
    fn scheduler_restarts(&mut self) {
        self.appended.truncate(self.synced);
        self.before = self.synced;
        self.scheduler_life += 1;
        let now = self.now;
        let hangs = |(_, executor): &(&u32, &Executor)| !executor.alive || executor.hangs_until > now;
        self.troubled = self.executors.iter().filter(hangs).map(|(number, _)| *number).collect();
        self.starved.clear();
        self.scheduler = Scheduler::new(policy(), SecretKey([self.scheduler_life; 32]), self.appended.clone());
        self.held.clear();
        self.heap.retain(|_, what| !matches!(what, Happens::Synced(_)));
        for (_, who) in std::mem::take(&mut self.calls) {
            if self.is_alive(&who) {
                self.ask_again(who);
            }
        }
        for job in self.submitted.values() {
            assert!(
                self.scheduler.snapshot().iter().any(|record| record.job() == Some(*job)),
                "an acknowledged job is known"
            );
        }
    }
}

trait Partitions {
    fn plan_partitions(&self) -> usize;
}

impl Partitions for situ_wire::messages::scheduler::StagePlan {
    fn plan_partitions(&self) -> usize {
        self.partitions.try_into().unwrap()
    }
}

fn policy() -> SchedulingPolicy {
    SchedulingPolicy { driver_attempts: 100, fetch_attempts: 1_000, ..SchedulingPolicy::default() }
}

/// Runs a seed; the digest of its history, how its jobs ended, how much was lost on the way, and how much had read what was
/// not there any more.
fn simulate(seed: u64) -> (blake3::Hash, BTreeMap<JobId, JobState>, usize, usize) {
    let mut simulation = Simulation::new(seed);
    simulation.run(seed);
    (simulation.trace.finalize(), simulation.ended, simulation.lost, simulation.superseded)
}

/// Runs a seed of which each job must end as it may: how much was lost on the way, how much had read what was not there any
/// more, and how many jobs failed for what varies in them.
fn judged(seed: u64) -> (usize, usize, usize) {
    let (_, ended, lost, superseded) = simulate(seed);
    let mut varied = 0;
    for (job, state) in ended {
        let unlucky = matches!(&state, JobState::Failed { reason } if reason.contains("failed, the 4th time"));
        let killed = matches!(state, JobState::Killed { .. });
        let differs = matches!(&state, JobState::Failed { reason } if reason.contains("did not give the same output"));
        varied += usize::from(differs);
        assert!(
            state == JobState::Succeeded || unlucky || killed || (differs && job == VARYING),
            "seed {seed}: {job} ended with {state:?}"
        );
    }
    (lost, superseded, varied)
}

#[test]
fn every_job_ends_whatever_happens() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut lost, mut superseded, mut varied) = (0, 0, 0);
    std::thread::scope(|scope| {
        let some = |first: u64| move || (first..SEEDS).step_by(threads).map(judged).collect::<Vec<_>>();
        let running: Vec<_> = (0..).take(threads).map(|first| scope.spawn(some(first))).collect();
        for (more, outdated, differing) in running.into_iter().flat_map(|seeds| seeds.join().expect("all end")) {
            lost += more;
            superseded += outdated;
            varied += differing;
        }
    });
    // A simulation in which nothing goes wrong shows nothing.
    assert!(lost > 2_000, "only {lost} losses");
    assert!(superseded > 50 && varied > 60, "only {superseded} tasks had read what changed, in {varied} jobs too late");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 11] {
        assert_eq!(simulate(seed), simulate(seed));
    }
    assert_ne!(simulate(3).0, simulate(11).0);
}
