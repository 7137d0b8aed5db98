use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::{
    ActionId, ClientId, DatasetId, ExecutorId, JobId, NodeName, OperationId, PartitionId, RackName, ScopeId, ShuffleId,
    StageId, TaskAttemptId,
};
use situ_wire::messages::executor::{JobSecret, ShufflePiece};
use situ_wire::messages::scheduler::{
    ActionResult, Attachment, DriverPlace, ExecutorCommand, ExecutorEvent, ExecutorRegistration, JobOptions, JobStatus,
    PartitionRange, PersistedInput, Plan, PlanNode, Program, Recovery, RecoveryOutcome, Request, Resources, Response,
    StageOutput, StagePlan, TaskDone, TaskFailure, TaskLocation, TaskOutcome, TaskProgress,
};
use situ_wire::time::TimeMs;

use crate::core::{
    CLEAN_UP, CallId, Caller, Effect, Event, JobRecord, Scheduler, SchedulingPolicy, SecretKey, Submission,
};

/// How long a call waits in these tests; the core answers after 7 s.
const PATIENCE: Duration = Duration::from_secs(8);
pub(super) const JOB: JobId = JobId(1);

/// All partitions of a dataset, each read by the partition of the stage that has its number.
pub(super) fn whole(dataset: u32, count: u32) -> PersistedInput {
    let partitions = vec![PartitionRange { stage: 0, dataset: 0, count }];
    PersistedInput { dataset: DatasetId(ScopeId::ROOT, dataset), partitions }
}

/// A scheduler whose records are on the disk as soon as they are appended, and everyone who talks to it.
pub(super) struct World {
    pub(super) now: TimeMs,
    pub(super) scheduler: Scheduler,
    pub(super) records: Vec<JobRecord>,
    policy: SchedulingPolicy,
    /// Who made which call.
    calls: BTreeMap<CallId, String>,
    /// The last command that each executor has seen, by its number.
    seen: BTreeMap<u32, u64>,
    /// Which executors were told how to start processes of which jobs.
    begun: BTreeSet<(u32, JobId)>,
    operations: u64,
    /// Whether no driver says that it lives.
    pub(super) drivers_stand_still: bool,
    key: u8,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() })
    }

    /// A scheduler that waits for nobody who may come back.
    pub(super) fn with(policy: SchedulingPolicy) -> Self {
        Self::resuming(SchedulingPolicy { resume_ms: 0, ..policy })
    }

    pub(super) fn resuming(policy: SchedulingPolicy) -> Self {
        let records = vec![JobRecord::Key(SecretKey([0; 32]))];
        let mut world = Self {
            now: TimeMs(1_000),
            scheduler: Scheduler::new(policy.clone(), SecretKey([1; 32]), records.clone()),
            policy,
            records,
            calls: BTreeMap::new(),
            seen: BTreeMap::new(),
            begun: BTreeSet::new(),
            operations: 0,
            key: 0,
            drivers_stand_still: false,
        };
        assert_eq!(world.effects(), ["append 1: life 0, next job-1"]);
        world
    }

    /// Four executors with `slots` slots each, polling: n1 and n2 in rack r1, n3 and n4 in r2.
    pub(super) fn with_executors(slots: u32) -> Self {
        let mut world = Self::new();
        for number in 1..=4 {
            world.join(number, slots);
            world.poll(number, Vec::new());
        }
        world
    }

    /// The scheduler dies and starts again from what is on its disk.
    pub(super) fn restart(&mut self) {
        self.key += 1;
        let key = SecretKey([self.key; 32]);
        self.scheduler = Scheduler::new(self.policy.clone(), key, self.records.clone());
        self.seen.clear();
        self.effects();
    }

    /// Hands in an event; what comes of it, as text.
    pub(super) fn event(&mut self, event: Event) -> Vec<String> {
        self.scheduler.handle(self.now, event);
        self.effects()
    }

    /// Lets time pass, doing what is due on the way; what comes of it.
    pub(super) fn pass(&mut self, ms: u64) -> Vec<String> {
        let end = self.now + Duration::from_millis(ms);
        let mut shown = self.drivers_live();
        while let Some(due) = self.scheduler.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            shown.extend(self.drivers_live());
            self.scheduler.handle_timeout(self.now);
            shown.extend(self.effects());
            assert!(self.scheduler.poll_timeout().is_none_or(|next| next > self.now), "time passes");
        }
        self.now = end;
        shown
    }

    /// Drivers that have begun say so, unless they stand still.
    fn drivers_live(&mut self) -> Vec<String> {
        let begun = self.scheduler.jobs.values().filter(|job| job.driver.has_begun && !self.drivers_stand_still);
        let begun: Vec<_> = begun.map(|job| (job.id(), job.launch.secret, job.driver.attempt)).collect();
        let lives = |(job, secret, attempt)| self.driver(Request::DriverLives { job, secret, attempt });
        let mut shown: Vec<String> = begun.into_iter().flat_map(lives).collect();
        shown.retain(|line| line != "driver <- done");
        shown
    }

    /// The same, while executors go on polling.
    pub(super) fn live(&mut self, executors: &[u32], ms: u64) -> Vec<String> {
        let mut shown = Vec::new();
        for _ in 0..ms / 50 {
            shown.extend(self.pass(50));
            for number in executors {
                shown.extend(self.poll(*number, Vec::new()));
            }
        }
        shown.retain(|line| !line.ends_with("<- nothing to do"));
        shown
    }

    fn effects(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        loop {
            let mut synced = None;
            while let Some(effect) = self.scheduler.poll_effect() {
                match effect {
                    Effect::Append { id, record } => {
                        shown.push(format!("append {}: {}", id.0, show_record(&record)));
                        self.records.push(*record);
                        synced = Some(id);
                    }
                    Effect::Answer { call, result, when } => {
                        let who = self.calls.remove(&call).expect("a call is answered once");
                        if let (Ok(Response::Commands { last, commands }), Some(number)) = (&*result, executor_of(&who))
                            && !commands.is_empty()
                        {
                            self.seen.insert(number, *last);
                            commands.iter().for_each(|(_, command)| check_begun(&mut self.begun, number, command));
                        }
                        let after = when.map(|record| format!(", after record {}", record.0)).unwrap_or_default();
                        shown.push(format!("{who} <- {}{after}", show_answer(&result)));
                    }
                }
            }
            self.scheduler.check();
            match synced {
                Some(record) => self.scheduler.handle(self.now, Event::Synced { record }),
                None => return shown,
            }
        }
    }

    /// Makes a call; `who` stands before its answer.
    pub(super) fn call(&mut self, who: &str, role: Role, name: &str, request: Request) -> Vec<String> {
        let call = CallId(self.operations);
        self.operations += 1;
        self.calls.insert(call, who.to_owned());
        let caller = Caller { role, name: name.to_owned() };
        self.event(Event::Call { call, caller, deadline: self.now + PATIENCE, request: Box::new(request) })
    }

    pub(super) fn user(&mut self, request: Request) -> Vec<String> {
        self.call("ada", Role::User, "ada", request)
    }

    pub(super) fn driver(&mut self, request: Request) -> Vec<String> {
        self.call("driver", Role::Executor, "n1", request)
    }

    pub(super) fn submit(&mut self, sequence: u64) -> Vec<String> {
        let operation = OperationId { client: ClientId(1), sequence };
        let program = Program::BuiltIn { name: "wordcount".to_owned() };
        self.user(Request::Submit {
            program,
            arguments: vec!["/in".to_owned()],
            operation,
            options: JobOptions::default(),
            driver: DriverPlace::Placed,
        })
    }

    /// Submits a job and lets its driver begin.
    pub(super) fn start(&mut self, sequence: u64) -> JobId {
        self.submit(sequence);
        let job = JobId(sequence);
        let secret = self.secret(job);
        assert_eq!(self.driver(Request::DriverBegin { job, secret, attempt: 0 }), ["driver <- begun"]);
        job
    }

    pub(super) fn run(&mut self, job: JobId, attempt: u32, plan: Plan) -> Vec<String> {
        let Some(StageOutput::Result { action }) = plan.stages.last().map(|stage| stage.output) else {
            panic!("no result")
        };
        let secret = self.secret(job);
        self.driver(Request::RunAction { job, secret, attempt, action, plan: Box::new(plan) })
    }

    pub(super) fn secret(&self, job: JobId) -> JobSecret {
        self.scheduler.secret(job)
    }

    pub(super) fn join(&mut self, number: u32, slots: u32) -> Vec<String> {
        self.join_with(number, registration(number, slots))
    }

    pub(super) fn join_with(&mut self, number: u32, registration: ExecutorRegistration) -> Vec<String> {
        self.seen.insert(number, 0);
        self.begun.retain(|(executor, _)| *executor != number);
        let name = format!("n{number}");
        self.call(&name, Role::Executor, &name, Request::ExecutorRegister(registration))
    }

    pub(super) fn poll(&mut self, number: u32, events: Vec<ExecutorEvent>) -> Vec<String> {
        let seen = self.seen.get(&number).copied().unwrap_or_default();
        let request = Request::ExecutorPoll { id: ExecutorId(number.into()), seen, events, progress: Vec::new() };
        self.call(&format!("n{number}"), Role::Executor, &format!("n{number}"), request)
    }

    /// An executor tells how far a task has come, given as `stage/partition/attempt`.
    pub(super) fn progress(&mut self, number: u32, of: &str, steps: u64) -> Vec<String> {
        let seen = self.seen.get(&number).copied().unwrap_or_default();
        let progress = vec![TaskProgress { attempt: attempt(of), steps }];
        let request = Request::ExecutorPoll { id: ExecutorId(number.into()), seen, events: Vec::new(), progress };
        self.call(&format!("n{number}"), Role::Executor, &format!("n{number}"), request)
    }

    /// An executor tells how tasks ended, given as `stage/partition/attempt`, and polls again until it is given nothing.
    pub(super) fn ended(&mut self, number: u32, attempts: &[&str], outcome: &TaskOutcome) -> Vec<String> {
        let event = |text: &&str| ExecutorEvent::TaskEnded { attempt: attempt(text), outcome: outcome.clone() };
        let mut shown = self.poll(number, attempts.iter().map(event).collect());
        shown.extend(self.poll(number, Vec::new()));
        shown.retain(|line| !line.ends_with("<- nothing to do"));
        shown
    }

    pub(super) fn status(&mut self, job: JobId) -> JobStatus {
        let call = CallId(self.operations);
        self.operations += 1;
        let caller = Caller { role: Role::User, name: "ada".to_owned() };
        let request = Box::new(Request::Status { job, seen: 0 });
        self.scheduler.handle(self.now, Event::Call { call, caller, deadline: self.now + PATIENCE, request });
        match self.scheduler.poll_effect() {
            Some(Effect::Answer { result, .. }) => match *result {
                Ok(Response::Status(status)) => *status,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    /// The recoveries of a job: `what task on node by attempt on node`, or that it is not needed any more.
    pub(super) fn recoveries(&mut self, job: JobId) -> Vec<String> {
        let show = |recovery: &Recovery| {
            let by = match &recovery.outcome {
                RecoveryOutcome::Open => "by nothing yet".to_owned(),
                RecoveryOutcome::Recovered { by, node, .. } => format!("by {} on {node}", show_attempt(*by)),
                RecoveryOutcome::NotNeeded { .. } => "not needed any more".to_owned(),
            };
            format!("{:?} {} on {} {by}", recovery.lost, show_attempt(recovery.task), recovery.node)
        };
        self.status(job).recoveries.iter().map(show).collect()
    }
}

/// Notes which jobs an executor knows, and checks that it gets tasks of no others.
fn check_begun(begun: &mut BTreeSet<(u32, JobId)>, number: u32, command: &ExecutorCommand) {
    match command {
        ExecutorCommand::StartDriver { job, .. } | ExecutorCommand::BeginJob { job } => {
            begun.insert((number, job.job));
        }
        ExecutorCommand::RunTask { task } => {
            assert!(begun.contains(&(number, task.attempt.job)), "{} did not begin there", task.attempt.job);
        }
        ExecutorCommand::EndJob { job } => _ = begun.remove(&(number, *job)),
        ExecutorCommand::CancelTask { .. } | ExecutorCommand::EndDriver { .. } | ExecutorCommand::Release { .. } => {}
    }
}

/// What is started by a call that gave `shown`, and by the polls of n1 and n2 behind it.
pub(super) fn started(world: &mut World, mut shown: Vec<String>) -> Vec<String> {
    for number in [1, 2, 1, 2] {
        let there = world.scheduler.executors.get(ExecutorId(number)).is_some();
        shown.extend(if there { world.poll(u32::try_from(number).unwrap(), Vec::new()) } else { Vec::new() });
    }
    let task = |line: &String| {
        let (who, commands) = line.split_once(" <- ")?;
        let tasks = commands.split(", ").filter_map(|command| command.strip_prefix("run ")?.split(' ').next());
        Some(tasks.map(|task| format!("{who} {task}")).collect::<Vec<_>>())
    };
    shown.iter().filter_map(task).flatten().collect()
}

fn executor_of(who: &str) -> Option<u32> {
    who.strip_prefix('n').and_then(|number| number.parse().ok())
}

pub(crate) fn registration(number: u32, slots: u32) -> ExecutorRegistration {
    ExecutorRegistration {
        id: ExecutorId(number.into()),
        node: NodeName(format!("n{number}")),
        rack: rack(number),
        address: format!("127.0.0.1:{number}").parse().unwrap(),
        slots,
        worker_memory_bytes: 1 << 30,
        workers: 64,
    }
}

fn rack(number: u32) -> RackName {
    RackName(if number <= 2 { "r1" } else { "r2" }.to_owned())
}

pub(crate) fn place(number: u32) -> TaskLocation {
    TaskLocation { node: NodeName(format!("n{number}")), rack: rack(number) }
}

/// `stage/partition/attempt` of the first job.
pub(super) fn attempt(text: &str) -> TaskAttemptId {
    let numbers: Vec<u32> = text.split('/').map(|number| number.parse().unwrap()).collect();
    let [stage, partition, attempt] = numbers[..] else { panic!("{text}") };
    TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, stage), partition: PartitionId(partition), attempt }
}

fn show_attempt(id: TaskAttemptId) -> String {
    let job = if id.job == JOB { String::new() } else { format!("{}:", id.job) };
    format!("{job}{}/{}/{}", id.stage.1, id.partition.0, id.attempt)
}

/// Word count: stage 1 reads a file whose partitions lie at `places` and fills shuffle 2, stage 2 reads it with
/// `reducers` partitions for action 0.
pub(crate) fn word_count(places: Vec<Vec<TaskLocation>>, reducers: u32) -> Plan {
    let maps = u32::try_from(places.len()).unwrap();
    let node = |id, name: &str, parents: &[u32], partitions| PlanNode {
        id: DatasetId(ScopeId::ROOT, id),
        name: name.to_owned(),
        parents: parents.iter().map(|parent| DatasetId(ScopeId::ROOT, *parent)).collect(),
        partitions,
        value: None,
    };
    Plan {
        build: None,
        own_thread: None,
        nodes: vec![
            node(0, "text_file", &[], maps),
            node(1, "flat_map", &[0], maps),
            node(2, "reduce_by_key", &[1], reducers),
        ],
        stages: vec![
            StagePlan {
                stage: StageId(ScopeId::ROOT, 1),
                name: "flat_map".to_owned(),
                partitions: maps,
                output: StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, 2), reducers },
                reads: Vec::new(),
                preferred: places,
                persisted: Vec::new(),
                work: None,
                resources: Resources::default(),
            },
            StagePlan {
                stage: StageId(ScopeId::ROOT, 2),
                name: "reduce_by_key".to_owned(),
                partitions: reducers,
                output: StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) },
                reads: vec![ShuffleId(ScopeId::ROOT, 2)],
                preferred: Vec::new(),
                persisted: Vec::new(),
                work: None,
                resources: Resources::default(),
            },
        ],
        name: "collect".to_owned(),
    }
}

/// One stage without a shuffle, for action `action`.
pub(super) fn flat(action: u32, places: Vec<Vec<TaskLocation>>) -> Plan {
    let partitions = u32::try_from(places.len()).unwrap();
    let mut plan = word_count(places, 1);
    plan.nodes.truncate(1);
    plan.stages.truncate(1);
    plan.nodes[0].partitions = partitions;
    plan.stages[0].stage = StageId(ScopeId::ROOT, 0);
    plan.stages[0].output = StageOutput::Result { action: ActionId(ScopeId::ROOT, action) };
    plan
}

/// The same plan, its ids those of a scope.
pub(crate) fn moved(scope: ScopeId, mut plan: Plan) -> Plan {
    for node in &mut plan.nodes {
        node.id.0 = scope;
        node.parents.iter_mut().for_each(|parent| parent.0 = scope);
    }
    for stage in &mut plan.stages {
        stage.stage.0 = scope;
        stage.reads.iter_mut().for_each(|shuffle| shuffle.0 = scope);
        stage.persisted.iter_mut().for_each(|input| input.dataset.0 = scope);
        match &mut stage.output {
            StageOutput::Shuffle { shuffle, .. } => shuffle.0 = scope,
            StageOutput::Result { action } => action.0 = scope,
        }
    }
    plan
}

/// What a map task leaves for `reducers`.
pub(super) fn mapped(reducers: usize) -> TaskOutcome {
    let piece = ShufflePiece { len_bytes: 10, crc32c: 1, records: 2 };
    TaskOutcome::Done(Box::new(TaskDone { pieces: vec![piece; reducers], ..TaskDone::default() }))
}

/// What a task leaves for its driver.
pub(super) fn result(bytes: &'static str) -> TaskOutcome {
    TaskOutcome::Done(Box::new(TaskDone { result: Bytes::from_static(bytes.as_bytes()), ..TaskDone::default() }))
}

pub(super) fn failed(message: &str) -> TaskOutcome {
    TaskOutcome::Failed(TaskFailure::Program { message: message.to_owned() })
}

/// A piece of what `map` wrote for shuffle 2 could not be fetched.
pub(super) fn fetch_failed(map: &str) -> TaskOutcome {
    let reason = "connection refused".to_owned();
    TaskOutcome::Failed(TaskFailure::Fetch { shuffle: ShuffleId(ScopeId::ROOT, 2), map: attempt(map), reason })
}

fn show_record(record: &JobRecord) -> String {
    match record {
        JobRecord::Began { life, next } => format!("life {life}, next {next}"),
        JobRecord::Submitted(Submission { job, user, options, driver, .. }) => {
            let attached = if *driver == DriverPlace::Attached { ", attached" } else { "" };
            let options = if *options == JobOptions::default() { "" } else { " with options" };
            format!("{job} of {user}{options}{attached}")
        }
        JobRecord::Driver { job, attempt, node } => format!("{job} driver {attempt} on {node}"),
        JobRecord::WritesAside { job, output, .. } => format!("{job} writes to {output}"),
        JobRecord::Given { job, given } => format!("{job} was given {} shuffles", given.len()),
        JobRecord::Cleaned { job } => format!("{job} is cleaned up"),
        JobRecord::ActionDone { job, action, .. } => format!("{job} has done {action}"),
        JobRecord::Recorded { job, action, .. } => format!("{job} recorded {action}"),
        JobRecord::Publishing { job, action, output } => format!("{job} publishes {action} at {output}"),
        JobRecord::Published { job, action } => format!("{job} has published {action}"),
        JobRecord::Key(_) => "a key".to_owned(),
        JobRecord::Shuffled { job, shuffle, .. } => format!("{job} has all of {shuffle}"),
        JobRecord::ScopeEnded { job, scope, outer, .. } => format!("{job} has ended {scope} in {outer}"),
        JobRecord::Varies { job } => format!("{job} varies"),
        JobRecord::Ended { status, .. } => format!("{} {:?}", status.summary.job, status.summary.state),
    }
}

fn show_answer(result: &Result<Response, RemoteError>) -> String {
    match result {
        Ok(Response::Done) => "done".to_owned(),
        Ok(Response::OwnDirectory(directory)) => format!("{directory}"),
        Ok(Response::Begun { .. }) => "begun".to_owned(),
        Ok(Response::Submitted { job, attachment: None }) => format!("{job}"),
        Ok(Response::Submitted { job, attachment: Some(Attachment { attempt, .. }) }) => {
            format!("{job}, attached as attempt {attempt}")
        }
        Ok(Response::Registered { .. }) => "registered".to_owned(),
        Ok(Response::Commands { commands, .. }) if commands.is_empty() => "nothing to do".to_owned(),
        Ok(Response::Commands { commands, .. }) => {
            commands.iter().filter_map(|(_, command)| show_command(command)).collect::<Vec<_>>().join(", ")
        }
        Ok(Response::Action(ActionResult::Done(results))) => format!("results {results:?}"),
        Ok(Response::Action(ActionResult::Failed(error))) => format!("failed: {}", error.message),
        Ok(Response::Action(ActionResult::Unknown)) => "unknown".to_owned(),
        Ok(Response::Action(ActionResult::ScopeEnded)) => "its scope has ended".to_owned(),
        Ok(Response::MapOutputs(outputs)) => {
            let show = |output: &situ_wire::messages::scheduler::MapOutput| {
                format!("{} at {} in {}", show_attempt(output.map), output.address, output.pieces.len())
            };
            format!("outputs {}", outputs.iter().map(show).collect::<Vec<_>>().join(", "))
        }
        Ok(Response::Status(status)) => format!("status {} {:?}", status.revision, status.summary.state),
        Ok(Response::Jobs { jobs, .. }) => {
            jobs.iter().map(|job| format!("{} {:?}", job.job, job.state)).collect::<Vec<_>>().join(", ")
        }
        Ok(other) => format!("{other:?}"),
        Err(error) => format!("{:?}: {}", error.code, error.message),
    }
}

/// A command; that a job begins is shown by its first task, and checked beside it.
fn show_command(command: &ExecutorCommand) -> Option<String> {
    Some(match command {
        ExecutorCommand::BeginJob { .. } => return None,
        ExecutorCommand::StartDriver { job, .. } if job.program.name() == CLEAN_UP => {
            format!("clean up {} of {} as {}", job.arguments.join(" "), job.job, job.user)
        }
        ExecutorCommand::EndDriver { job, attempt } => format!("end driver {job} {attempt}"),
        ExecutorCommand::StartDriver { job, attempt } => format!("drive {} {attempt}", job.job),
        ExecutorCommand::RunTask { task } => {
            let alone = if task.alone { " alone" } else { "" };
            format!("run {} {:?}{alone}", show_attempt(task.attempt), task.locality)
        }
        ExecutorCommand::CancelTask { attempt } => format!("cancel {}", show_attempt(*attempt)),
        ExecutorCommand::EndJob { job } => format!("end {job}"),
        ExecutorCommand::Release { shuffles, .. } => format!("release {shuffles:?}"),
    })
}

/// Whether an executor's poll was answered with: register first.
pub(super) fn told_to_register(shown: &[String]) -> bool {
    shown.iter().any(|line| line.contains("<- NotRegistered"))
}
