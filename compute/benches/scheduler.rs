//! How many task completions a second the scheduler's core takes, and how much memory a task costs it, with simulated
//! executors: no network, no disk, no clock but the simulation's.
//!
//! ```text
//! cargo bench -p situ-compute --bench scheduler -- [EXECUTORS TASKS JOBS]
//! ```
//!
//! Without arguments it runs the shapes that the figures in the documents are taken from. Each executor has two slots and
//! polls as real ones do: at once after an answer, and when a task ends, which its poll then tells. Three quarters of a
//! job's tasks read input that lies on three nodes, the others have no place; all of them fill shuffles that one more
//! stage reads.
//!
//! One line a shape. `completions_per_s` counts the CPU time of the core alone; `bytes_per_task` is what the allocator has
//! given out beyond what was there before the jobs, at the highest, over all tasks.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use situ_compute::core::{CallId, Caller, Effect, Event, Scheduler, SchedulingPolicy, SecretKey};
use situ_wire::hello::Role;
use situ_wire::ids::{
    ActionId, ClientId, DatasetId, ExecutorId, NodeName, OperationId, RackName, ScopeId, ShuffleId, StageId,
    TaskAttemptId,
};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{
    DriverPlace, ExecutorCommand, ExecutorEvent, ExecutorRegistration, JobLaunch, JobOptions, Plan, PlanNode, Program,
    Request, Resources, Response, StageOutput, StagePlan, TaskDone, TaskLocation, TaskOutcome,
};
use situ_wire::time::TimeMs;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const SLOTS: u32 = 2;
const RACKS: u32 = 100;
const REDUCERS: u32 = 8;
const PATIENCE: Duration = Duration::from_secs(100_000);
/// How many completions lie between two looks at the memory.
const LOOK: u64 = 10_000;

fn main() {
    let numbers: Vec<u32> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    // `cargo test` runs benchmarks too, to see that they build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    if let [executors, tasks, jobs] = numbers[..] {
        return run(executors, tasks, jobs);
    }
    for (executors, tasks, jobs) in [(100, 1_000_000, 1), (10_000, 1_000_000, 1), (10_000, 1_000_000, 200)] {
        run(executors, tasks, jobs);
    }
}

/// What happens in the simulated cluster.
enum Happens {
    Polls(u32),
    Ends(u32, TaskAttemptId, u32),
}

struct Simulation {
    scheduler: Scheduler,
    random: fastrand::Rng,
    now: TimeMs,
    heap: BTreeMap<(TimeMs, u64), Happens>,
    sequence: u64,
    polls: BTreeMap<CallId, u32>,
    drivers: Vec<JobLaunch>,
    /// The last command that each executor has seen.
    seen: Vec<u64>,
    /// The last poll of each: what is answered to an older one is not followed by another.
    last: Vec<CallId>,
    tasks: u32,
    before: usize,
    highest: usize,
    done: u64,
    ended: u32,
    events: u64,
    core: Duration,
    slowest: Duration,
}

fn run(executors: u32, tasks: u32, jobs: u32) {
    let resident = resident_bytes();
    let mut simulation = Simulation {
        scheduler: Scheduler::new(SchedulingPolicy::default(), SecretKey([7; 32]), Vec::new()),
        random: fastrand::Rng::with_seed(1),
        now: TimeMs(1_000),
        heap: BTreeMap::new(),
        sequence: 0,
        polls: BTreeMap::new(),
        drivers: Vec::new(),
        seen: vec![0; executors as usize],
        last: vec![CallId(0); executors as usize],
        tasks: tasks / jobs,
        before: 0,
        highest: 0,
        done: 0,
        ended: 0,
        events: 0,
        core: Duration::ZERO,
        slowest: Duration::ZERO,
    };
    for executor in 0..executors {
        simulation.register(executor);
    }
    let registering = std::mem::take(&mut simulation.core);
    simulation.before = ALLOCATED.current_usage();
    for job in 0..jobs {
        simulation.submit(job);
    }
    (simulation.core, simulation.events, simulation.slowest) = (Duration::ZERO, 0, Duration::ZERO);
    let (started, busy) = (Instant::now(), cpu_time());
    while simulation.ended < jobs {
        simulation.step();
    }
    let (busy, whole) = (cpu_time() - busy, started.elapsed());
    let Simulation { done, events, slowest, highest, before, now, .. } = simulation;
    // The share of the core in the time of this thread: others may use the machine too.
    let core = busy.as_secs_f64() * simulation.core.as_secs_f64() / whole.as_secs_f64();
    println!(
        "{{\"executors\":{executors},\"slots\":{SLOTS},\"jobs\":{jobs},\"tasks\":{tasks},\"completions\":{done},\
         \"register_us\":{:.1},\"completions_per_s\":{:.0},\"us_per_event\":{:.2},\"slowest_event_ms\":{:.1},\
         \"bytes_per_task\":{:.0},\"resident_bytes_per_task\":{:.0},\"simulated_s\":{:.0}}}",
        registering.as_secs_f64() * 1e6 / f64::from(executors),
        done as f64 / core,
        core * 1e6 / events as f64,
        slowest.as_secs_f64() * 1e3,
        highest.saturating_sub(before) as f64 / f64::from(tasks),
        resident_bytes().saturating_sub(resident) as f64 / f64::from(tasks),
        now.since(TimeMs(1_000)).as_secs_f64(),
    );
}

impl Simulation {
    fn at(&mut self, rest_ms: u64, what: Happens) {
        self.sequence += 1;
        self.heap.insert((self.now + Duration::from_millis(rest_ms), self.sequence), what);
    }

    /// Does the next thing.
    fn step(&mut self) {
        let next = self.heap.first_key_value().map_or(TimeMs::NEVER, |((at, _), _)| *at);
        let due = self.scheduler.poll_timeout().unwrap_or(TimeMs::NEVER);
        self.now = self.now.max(next.min(due));
        if due <= self.now {
            let started = Instant::now();
            self.scheduler.handle_timeout(self.now);
            self.spent(started);
            self.effects();
            return;
        }
        match self.heap.pop_first() {
            Some((_, Happens::Polls(executor))) => self.poll(executor, Vec::new()),
            Some((_, Happens::Ends(executor, attempt, reducers))) => {
                let piece = ShufflePiece { len_bytes: 70_000, crc32c: 7, records: 900 };
                let done = TaskDone { pieces: vec![piece; reducers as usize], ..TaskDone::default() };
                let outcome = TaskOutcome::Done(Box::new(done));
                self.done += 1;
                self.poll(executor, vec![ExecutorEvent::TaskEnded { attempt, outcome }]);
                if self.done.is_multiple_of(LOOK) {
                    self.highest = self.highest.max(ALLOCATED.current_usage());
                }
            }
            None => panic!("nothing happens any more"),
        }
    }

    fn spent(&mut self, started: Instant) {
        let took = started.elapsed();
        self.core += took;
        self.slowest = self.slowest.max(took);
        self.events += 1;
    }

    fn call(&mut self, role: Role, name: String, request: Request) -> CallId {
        self.sequence += 1;
        let call = CallId(self.sequence);
        let caller = Caller { role, name };
        let event = Event::Call { call, caller, deadline: self.now + PATIENCE, request: Box::new(request) };
        let started = Instant::now();
        self.scheduler.handle(self.now, event);
        self.spent(started);
        call
    }

    fn register(&mut self, executor: u32) {
        let registration = ExecutorRegistration {
            id: ExecutorId(u128::from(executor) + 1),
            node: node(executor),
            rack: rack(executor),
            address: format!("10.{}.{}.{}:7000", executor >> 16, (executor >> 8) & 255, executor & 255)
                .parse()
                .expect("an address"),
            slots: SLOTS,
            worker_memory_bytes: 1 << 30,
            workers: SLOTS,
        };
        self.call(Role::Executor, node(executor).0, Request::ExecutorRegister(registration));
        self.effects();
        self.poll(executor, Vec::new());
    }

    fn poll(&mut self, executor: u32, events: Vec<ExecutorEvent>) {
        let id = ExecutorId(u128::from(executor) + 1);
        let seen = self.seen[executor as usize];
        let request = Request::ExecutorPoll { id, seen, events, progress: Vec::new() };
        // The next number is that of the call.
        self.last[executor as usize] = CallId(self.sequence + 1);
        self.polls.insert(CallId(self.sequence + 1), executor);
        self.call(Role::Executor, node(executor).0, request);
        self.effects();
    }

    /// Submits a job and runs its action.
    fn submit(&mut self, number: u32) {
        let operation = OperationId { client: ClientId(1), sequence: u64::from(number) + 1 };
        let program = Program::BuiltIn { name: "wordcount".to_owned() };
        let arguments = vec!["/in".to_owned(), "/out".to_owned()];
        let options = JobOptions::default();
        let driver = DriverPlace::Placed;
        self.call(Role::User, "ada".to_owned(), Request::Submit { program, arguments, operation, options, driver });
        self.effects();
        while self.drivers.is_empty() {
            self.step();
        }
        let JobLaunch { job, secret, .. } = self.drivers.remove(0);
        let begin = Request::DriverBegin { job, secret, attempt: 0 };
        self.call(Role::Executor, "driver".to_owned(), begin);
        self.effects();
        let plan = Box::new(self.plan(number));
        let action = ActionId(ScopeId::ROOT, 0);
        let run = Request::RunAction { job, secret, attempt: 0, action, plan };
        self.call(Role::Executor, "driver".to_owned(), run);
        self.effects();
        self.highest = self.highest.max(ALLOCATED.current_usage());
    }

    fn plan(&mut self, number: u32) -> Plan {
        let executors = u32::try_from(self.seen.len()).expect("a number of executors");
        let reduced = REDUCERS;
        let spread = self.tasks / 4;
        let placed = self.tasks - spread - reduced;
        let place = |random: &mut fastrand::Rng| {
            let executor = random.u32(0..executors);
            TaskLocation { node: node(executor), rack: rack(executor) }
        };
        let places = (0..placed).map(|_| (0..3).map(|_| place(&mut self.random)).collect()).collect();
        let dataset = |id, name: &str, parents: &[u32], partitions| PlanNode {
            id: DatasetId(ScopeId::ROOT, id),
            name: format!("{name} at main.rs:{number}"),
            parents: parents.iter().map(|parent| DatasetId(ScopeId::ROOT, *parent)).collect(),
            partitions,
            value: None,
        };
        let stage = |stage, partitions, output, reads: &[u32], preferred| StagePlan {
            stage: StageId(ScopeId::ROOT, stage),
            name: format!("stage {stage}"),
            partitions,
            output,
            reads: reads.iter().map(|shuffle| ShuffleId(ScopeId::ROOT, *shuffle)).collect(),
            preferred,
            persisted: Vec::new(),
            work: None,
            resources: Resources::default(),
        };
        let shuffle = |shuffle| StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, shuffle), reducers: reduced };
        Plan {
            build: None,
            own_thread: None,
            nodes: vec![
                dataset(0, "text_file", &[], placed),
                dataset(1, "parallelize", &[], spread),
                dataset(2, "join", &[0, 1], reduced),
            ],
            stages: vec![
                stage(0, placed, shuffle(2), &[], places),
                stage(1, spread, shuffle(3), &[], Vec::new()),
                stage(2, reduced, StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) }, &[2, 3], Vec::new()),
            ],
            name: "collect at main.rs:9".to_owned(),
        }
    }

    fn effects(&mut self) {
        let mut synced = None;
        loop {
            let started = Instant::now();
            let effect = self.scheduler.poll_effect();
            self.core += started.elapsed();
            match effect {
                Some(Effect::Append { id, .. }) => synced = Some(id),
                Some(Effect::Answer { call, result, .. }) => self.answered(call, *result),
                None => match synced.take() {
                    Some(record) => self.scheduler.handle(self.now, Event::Synced { record }),
                    None => return,
                },
            }
        }
    }

    fn answered(&mut self, call: CallId, result: Result<Response, situ_wire::error::RemoteError>) {
        match (self.polls.remove(&call), result.expect("every call is answered well")) {
            (Some(executor), Response::Commands { last, commands }) => {
                let seen = std::mem::replace(&mut self.seen[executor as usize], last);
                for (_, command) in commands.into_iter().filter(|(number, _)| *number > seen) {
                    self.commanded(executor, command);
                }
                if self.last[executor as usize] == call {
                    self.at(0, Happens::Polls(executor));
                }
            }
            (_, Response::Action(_)) => {
                self.ended += 1;
            }
            _ => {}
        }
    }

    fn commanded(&mut self, executor: u32, command: ExecutorCommand) {
        match command {
            ExecutorCommand::StartDriver { job, .. } => self.drivers.push(job),
            ExecutorCommand::RunTask { task, .. } => {
                let reducers = match task.output {
                    StageOutput::Shuffle { reducers, .. } => reducers,
                    StageOutput::Result { .. } => 0,
                };
                let takes = self.random.u64(500..1_500);
                self.at(takes, Happens::Ends(executor, task.attempt, reducers));
            }
            _ => {}
        }
    }
}

fn node(executor: u32) -> NodeName {
    NodeName(format!("node-{executor:05}.example"))
}

fn rack(executor: u32) -> RackName {
    RackName(format!("/rack-{:03}", executor % RACKS))
}

/// The CPU time of this thread, as the kernel counts it.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a CPU"))
}

/// What of this process is in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel says it");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}
