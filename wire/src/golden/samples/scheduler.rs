//! The calls of a scheduler.

use super::super::book::{Book, sample, variants};
use super::values::{ATTEMPT, NOW, OPERATION, PIECE, SECRET, address, bytes, error, node, path, rack, text};
use crate::ids::{ActionId, ClientId, DatasetId, ExecutorId, JobId, PartitionId, ScopeId, ShuffleId, StageId};
use crate::messages::executor::LogName;
use crate::messages::namenode::Liveness;
use crate::messages::scheduler::{
    ActionResult, Attachment, DriverPlace, ExecutorCommand, ExecutorEvent, ExecutorRegistration, ExecutorStatus,
    FailedAttempt, Holding, JobLaunch, JobOptions, JobState, JobStatus, JobSummary, Locality, LogLocation, Lost,
    MapOutput, PartitionRange, Payload, PersistedInput, Plan, PlanNode, Program, QuietAttempt, Recovery,
    RecoveryOutcome, ReduceTotal, Request, Resources, Response, StageOutput, StagePlan, StageStatus, StageWork,
    TaskDone, TaskFailure, TaskLocation, TaskMetrics, TaskOutcome, TaskProgress, TaskSpec, TaskWork, WaitReason,
    Waiting, Work,
};

const JOB: JobId = JobId(9);
const ACTION: ActionId = ActionId(ScopeId::ROOT, 2);
const EXECUTOR: ExecutorId = ExecutorId(0xe1);
const SHUFFLE: ShuffleId = ShuffleId(ScopeId::ROOT, 3);
const METRICS: TaskMetrics = TaskMetrics {
    input_bytes: 1000,
    remote_bytes: 200,
    shuffle_read_bytes: 3,
    shuffle_written_bytes: 4,
    records: 5,
    wall_ms: 6,
    failovers: 7,
};

fn built_in() -> Program {
    Program::BuiltIn { name: text("wordcount") }
}

fn stored() -> Program {
    Program::Stored { name: text("mine"), path: path("/programs/mine"), hash: [0x4a; 32] }
}

fn options() -> JobOptions {
    JobOptions { task_limit_ms: Some(600_000), check_replay: true }
}

fn attachment() -> Attachment {
    Attachment { secret: SECRET, attempt: 1 }
}

fn launch() -> JobLaunch {
    let arguments = vec![text("/in"), text("/out")];
    JobLaunch {
        job: JOB,
        secret: SECRET,
        user: text("alice"),
        program: stored(),
        arguments,
        options: options(),
        attached: true,
    }
}

pub(super) fn task() -> TaskSpec {
    TaskSpec {
        attempt: ATTEMPT,
        work: TaskWork::Replay { action: ACTION, plan_digest: [0x9d; 32] },
        output: StageOutput::Shuffle { shuffle: SHUFFLE, reducers: 8 },
        locality: Locality::Node,
        alone: true,
        slots: 2,
    }
}

fn work() -> Work {
    Work { kind: text("sql"), digest: [0x7a; 32], payload: Payload::Inline(bytes()) }
}

pub(super) fn progress() -> TaskProgress {
    TaskProgress { attempt: ATTEMPT, steps: 300 }
}

fn registration() -> ExecutorRegistration {
    ExecutorRegistration {
        id: EXECUTOR,
        node: node(),
        rack: rack(),
        address: address(),
        slots: 4,
        worker_memory_bytes: 1 << 30,
        workers: 3,
    }
}

fn persisted() -> PersistedInput {
    PersistedInput {
        dataset: DatasetId(ScopeId::ROOT, 1),
        partitions: vec![PartitionRange { stage: 1, dataset: 0, count: 1 }],
    }
}

fn plan() -> Plan {
    let stage = StagePlan {
        stage: StageId(ScopeId::ROOT, 4),
        name: text("map"),
        partitions: 2,
        output: StageOutput::Result { action: ACTION },
        reads: vec![SHUFFLE],
        preferred: vec![vec![TaskLocation { node: node(), rack: rack() }], vec![]],
        persisted: vec![persisted()],
        work: Some(work()),
        resources: Resources { cores: 2, memory_bytes: 3 << 20 },
    };
    let node = PlanNode {
        id: DatasetId(ScopeId::ROOT, 4),
        name: text("map at main.rs:12"),
        parents: vec![DatasetId(ScopeId::ROOT, 0)],
        partitions: 2,
        value: Some([0x5c; 32]),
    };
    let own_thread = Some(text("scope \"part\" at main.rs:11"));
    let (build, name) = (Some([0x6b; 32]), text("collect at main.rs:13"));
    Plan { build, nodes: vec![node], stages: vec![stage], name, own_thread }
}

fn done() -> TaskDone {
    TaskDone {
        result: bytes(),
        pieces: vec![PIECE],
        cached: vec![(DatasetId(ScopeId::ROOT, 1), PartitionId(0))],
        dropped: vec![(DatasetId(ScopeId::ROOT, 1), PartitionId(2))],
        metrics: METRICS,
    }
}

pub(super) fn add(book: &mut Book) {
    requests(book);
    executors(book);
    tasks(book);
    plans(book);
}

fn requests(book: &mut Book) {
    variants!(book, "scheduler", Program {
        BuiltIn => built_in(),
        Stored => stored(),
    });
    variants!(book, "scheduler", DriverPlace {
        Placed => DriverPlace::Placed,
        Attached => DriverPlace::Attached,
    });
    variants!(book, "scheduler", Request {
        Submit => Request::Submit {
            program: built_in(),
            arguments: vec![text("/in")],
            operation: OPERATION,
            options: options(),
            driver: DriverPlace::Attached,
        },
        List => Request::List { before: Some(JOB) },
        Status => Request::Status { job: JOB, seen: 300 },
        Kill => Request::Kill { job: JOB, reason: text("by hand") },
        Logs => Request::Logs { job: JOB },
        Executors => Request::Executors,
        ExecutorRegister => Request::ExecutorRegister(registration()),
        ExecutorPoll => Request::ExecutorPoll {
            id: EXECUTOR,
            seen: 12,
            events: vec![ExecutorEvent::WorkerLost { job: JOB, reason: text("signal 9") }],
            progress: vec![progress()],
        },
        DriverBegin => Request::DriverBegin { job: JOB, secret: SECRET, attempt: 1 },
        DriverLives => Request::DriverLives { job: JOB, secret: SECRET, attempt: 1 },
        RunAction => Request::RunAction {
            job: JOB,
            secret: SECRET,
            attempt: 1,
            action: ACTION,
            plan: Box::new(plan()),
        },
        Record => Request::Record { job: JOB, secret: SECRET, attempt: 1, action: ACTION, value: bytes() },
        ActionResult => Request::ActionResult {
            job: JOB,
            secret: SECRET,
            action: ActionId(ScopeId(300), 2),
            within: vec![ScopeId(300)],
            wait: true,
            results: false,
        },
        ScopeOutcome => Request::ScopeOutcome {
            job: JOB,
            secret: SECRET,
            within: vec![ScopeId(300), ScopeId(u64::MAX)],
            wait: true,
        },
        EndScope => Request::EndScope {
            job: JOB,
            secret: SECRET,
            attempt: 1,
            within: vec![ScopeId(300)],
            outcome: bytes(),
        },
        Plan => Request::Plan { job: JOB, secret: SECRET, action: ACTION },
        StageWork => Request::StageWork { job: JOB, secret: SECRET, stage: StageId(ScopeId::ROOT, 4) },
        MapOutputs => Request::MapOutputs {
            job: JOB,
            secret: SECRET,
            shuffle: SHUFFLE,
            reduce: (PartitionId(1), PartitionId(4)),
            by: ATTEMPT,
        },
        DriverEnd => Request::DriverEnd { job: JOB, secret: SECRET, attempt: 1, error: Some(text("no input")) },
        Publishing => Request::Publishing {
            job: JOB,
            secret: SECRET,
            attempt: 1,
            action: ACTION,
            output: path("/out"),
        },
        Published => Request::Published { job: JOB, secret: SECRET, attempt: 1, action: ACTION },
        OwnDirectory => Request::OwnDirectory { job: JOB, secret: SECRET },
        Release => Request::Release {
            job: JOB,
            secret: SECRET,
            attempt: 1,
            shuffles: vec![SHUFFLE],
            datasets: vec![DatasetId(ScopeId::ROOT, 1)],
        },
    });
}

fn executors(book: &mut Book) {
    sample!(book, "scheduler", ExecutorRegistration, registration());
    variants!(book, "scheduler", ExecutorEvent {
        TaskEnded => ExecutorEvent::TaskEnded { attempt: ATTEMPT, outcome: TaskOutcome::Done(Box::new(done())) },
        DriverEnded => ExecutorEvent::DriverEnded {
            job: JOB,
            attempt: 1,
            error: Some(text("exit code 2")),
            retry: true,
            away: true,
        },
        WorkerLost => ExecutorEvent::WorkerLost { job: JOB, reason: text("signal 9") },
        WorkerEnded => ExecutorEvent::WorkerEnded { job: JOB },
        Holds => ExecutorEvent::Holds(Holding::Whole),
    });
    variants!(book, "scheduler", Holding {
        Job => Holding::Job(JOB),
        Driver => Holding::Driver { job: JOB, attempt: 1 },
        Task => Holding::Task(Box::new(task())),
        Left => Holding::Left {
            attempt: ATTEMPT,
            output: StageOutput::Shuffle { shuffle: SHUFFLE, reducers: 8 },
            done: Box::new(done()),
        },
        Cached => Holding::Cached { attempt: ATTEMPT, partitions: vec![(DatasetId(ScopeId::ROOT, 4), PartitionId(3))] },
        Whole => Holding::Whole,
    });
    variants!(book, "scheduler", ExecutorCommand {
        StartDriver => ExecutorCommand::StartDriver { job: launch(), attempt: 1 },
        BeginJob => ExecutorCommand::BeginJob { job: launch() },
        RunTask => ExecutorCommand::RunTask { task: Box::new(task()) },
        CancelTask => ExecutorCommand::CancelTask { attempt: ATTEMPT },
        EndJob => ExecutorCommand::EndJob { job: JOB },
        EndDriver => ExecutorCommand::EndDriver { job: JOB, attempt: 1 },
        Release => ExecutorCommand::Release { job: JOB, shuffles: vec![SHUFFLE] },
    });
    sample!(book, "scheduler", JobLaunch, launch());
    sample!(book, "scheduler", JobOptions, options());
}

fn tasks(book: &mut Book) {
    sample!(book, "scheduler", TaskSpec, task());
    sample!(book, "scheduler", TaskProgress, progress());
    sample!(book, "scheduler", TaskDone, done());
    sample!(book, "scheduler", TaskMetrics, METRICS);
    variants!(book, "scheduler", TaskOutcome {
        Done => TaskOutcome::Done(Box::new(done())),
        Failed => TaskOutcome::Failed(TaskFailure::Cancelled),
    });
    variants!(book, "scheduler", TaskFailure {
        Fetch => TaskFailure::Fetch { shuffle: SHUFFLE, map: ATTEMPT, reason: text("refused") },
        Program => TaskFailure::Program { message: text("division by zero") },
        WorkerLost => TaskFailure::WorkerLost { reason: text("signal 9"), company: 3 },
        PlanMismatch => TaskFailure::PlanMismatch { message: text("dataset-1 differs") },
        Storage => TaskFailure::Storage { message: text("/in: not found"), transient: true },
        WorkerSilent => TaskFailure::WorkerSilent { reason: text("silent"), company: 3 },
        Cancelled => TaskFailure::Cancelled,
        NoEngine => TaskFailure::NoEngine { kind: text("sql"), known: vec![text("words")] },
    });
    variants!(book, "scheduler", TaskWork {
        Replay => task().work,
        Payload => TaskWork::Payload { action: ACTION, kind: text("sql"), digest: [0x7a; 32] },
    });
    variants!(book, "scheduler", Payload {
        Inline => work().payload,
        Stored => Payload::Stored { path: path("/.situ/jobs/1/values/a"), len_bytes: 70_000 },
    });
    sample!(book, "scheduler", ReduceTotal, ReduceTotal { len_bytes: 300, records: 7 });
    variants!(book, "scheduler", StageOutput {
        Shuffle => StageOutput::Shuffle { shuffle: SHUFFLE, reducers: 8 },
        Result => StageOutput::Result { action: ACTION },
    });
    variants!(book, "scheduler", Locality {
        Process => Locality::Process,
        Node => Locality::Node,
        Rack => Locality::Rack,
        Any => Locality::Any,
        NoPreference => Locality::NoPreference,
    });
}

fn plans(book: &mut Book) {
    let Plan { mut nodes, mut stages, .. } = plan();
    sample!(book, "scheduler", Plan, plan());
    sample!(book, "scheduler", PlanNode, nodes.remove(0));
    sample!(book, "scheduler", StagePlan, stages.remove(0));
    sample!(book, "scheduler", Work, work());
    sample!(book, "scheduler", StageWork, StageWork { work: work(), reads: vec![SHUFFLE], partitions: 2 });
    sample!(book, "scheduler", Resources, Resources { cores: 2, memory_bytes: 3 << 20 });
    sample!(book, "scheduler", PersistedInput, persisted());
    sample!(book, "scheduler", PartitionRange, persisted().partitions.remove(0));
    sample!(book, "scheduler", TaskLocation, TaskLocation { node: node(), rack: rack() });
}

fn summary() -> JobSummary {
    JobSummary {
        job: JOB,
        program: stored(),
        arguments: vec![text("/in")],
        user: text("alice"),
        state: JobState::Running,
        submitted: NOW,
        ended: Some(NOW),
    }
}

fn stage_status() -> StageStatus {
    StageStatus {
        stage: StageId(ScopeId::ROOT, 4),
        name: text("map"),
        output: StageOutput::Result { action: ACTION },
        tasks: 10,
        done: 5,
        running: 2,
        failed: 1,
        localities: [1, 2, 3, 4, 5],
        quiet: Some(quiet()),
    }
}

fn quiet() -> QuietAttempt {
    QuietAttempt { attempt: ATTEMPT, node: node(), since: NOW }
}

fn recovery() -> Recovery {
    Recovery {
        lost_at: NOW,
        lost: Lost::MapOutput,
        task: ATTEMPT,
        node: node(),
        outcome: RecoveryOutcome::Recovered { by: ATTEMPT, node: node(), at: NOW },
    }
}

fn status() -> JobStatus {
    JobStatus {
        summary: summary(),
        revision: 300,
        stages: vec![stage_status()],
        stages_dropped: 1,
        recoveries: vec![recovery()],
        recoveries_dropped: 2,
        metrics: METRICS,
        driver: DriverPlace::Attached,
        options: options(),
        waiting: Some(waiting()),
        last_failure: Some(failed()),
    }
}

fn waiting() -> Waiting {
    Waiting { reason: WaitReason::Slots { slots: 4, jobs: 2 }, since: Some(NOW) }
}

fn failed() -> FailedAttempt {
    FailedAttempt { attempt: ATTEMPT, node: node(), at: NOW, reason: text("its disk is full") }
}

fn output() -> MapOutput {
    MapOutput { map: ATTEMPT, address: address(), pieces: vec![PIECE] }
}

fn log() -> LogLocation {
    LogLocation { log: LogName::Worker, node: node(), address: address() }
}

fn executor() -> ExecutorStatus {
    ExecutorStatus { registration: registration(), liveness: Liveness::Live, running: 3, last_poll: NOW }
}

pub(super) fn add_answers(book: &mut Book) {
    variants!(book, "scheduler", ActionResult {
        Done => ActionResult::Done(vec![bytes()]),
        Failed => ActionResult::Failed(error()),
        Unknown => ActionResult::Unknown,
        ScopeEnded => ActionResult::ScopeEnded,
    });
    variants!(book, "scheduler", JobState {
        Waiting => JobState::Waiting,
        Running => JobState::Running,
        Succeeded => JobState::Succeeded,
        Failed => JobState::Failed { reason: text("no input") },
        Killed => JobState::Killed { reason: text("by hand") },
    });
    variants!(book, "scheduler", Lost {
        RunningTask => Lost::RunningTask,
        MapOutput => Lost::MapOutput,
        CachedPartition => Lost::CachedPartition,
        Storage => Lost::Storage,
        Superseded => Lost::Superseded,
    });
    variants!(book, "scheduler", RecoveryOutcome {
        Open => RecoveryOutcome::Open,
        Recovered => RecoveryOutcome::Recovered { by: ATTEMPT, node: node(), at: NOW },
        NotNeeded => RecoveryOutcome::NotNeeded { at: NOW },
    });
    variants!(book, "scheduler", WaitReason {
        Executors => WaitReason::Executors { known: 3 },
        Reports => WaitReason::Reports { until: NOW },
        DriverPlace => WaitReason::DriverPlace { drivers: 16 },
        DriverBegins => WaitReason::DriverBegins { node: Some(node()), until: Some(NOW) },
        Driver => WaitReason::Driver,
        Slots => WaitReason::Slots { slots: 4, jobs: 2 },
        Room => WaitReason::Room { cores: 4, memory_bytes: 1 << 30, node: Some(node()) },
        Memory => WaitReason::Memory { workers: 3, jobs: 2 },
        OtherSlot => WaitReason::OtherSlot,
        Excluded => WaitReason::Excluded { executors: 2, until: NOW },
        FileSystem => WaitReason::FileSystem { since: NOW, until: NOW },
        LostOutputs => WaitReason::LostOutputs { outputs: 5, until: Some(NOW) },
        DriverRests => WaitReason::DriverRests { lost: 2, until: NOW },
    });
    sample!(book, "scheduler", Attachment, attachment());
    sample!(book, "scheduler", MapOutput, output());
    sample!(book, "scheduler", JobSummary, summary());
    sample!(book, "scheduler", JobStatus, status());
    sample!(book, "scheduler", Waiting, waiting());
    sample!(book, "scheduler", StageStatus, stage_status());
    sample!(book, "scheduler", QuietAttempt, quiet());
    sample!(book, "scheduler", FailedAttempt, failed());
    sample!(book, "scheduler", Recovery, recovery());
    sample!(book, "scheduler", LogLocation, log());
    sample!(book, "scheduler", ExecutorStatus, executor());
    variants!(book, "scheduler", Response {
        Done => Response::Done,
        Submitted => Response::Submitted {
            job: JOB,
            attachment: Some(attachment()),
        },
        Jobs => Response::Jobs { jobs: vec![summary()], next: Some(JOB) },
        Status => Response::Status(Box::new(status())),
        Logs => Response::Logs(vec![log()]),
        Executors => Response::Executors(vec![executor()]),
        Registered => Response::Registered { poll_ms: 1000, jobs: vec![JOB] },
        Commands => Response::Commands { last: 13, commands: vec![(13, ExecutorCommand::EndJob { job: JOB })] },
        Action => Response::Action(ActionResult::Done(vec![bytes()])),
        Plan => Response::Plan(Some(Box::new(plan()))),
        StageWork => Response::StageWork(Some(Box::new(StageWork { work: work(), reads: vec![SHUFFLE], partitions: 2 }))),
        MapOutputs => Response::MapOutputs(vec![output()]),
        Begun => Response::Begun { publisher: ClientId(7), session_ms: 30_000, attached: true },
        Publication => Response::Publication { published: true },
        OwnDirectory => Response::OwnDirectory(path("/.situ/jobs/job-7-1f")),
    });
}
