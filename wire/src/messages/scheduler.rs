//! The calls that a scheduler answers: to clients, to executors, and to the drivers and workers of jobs.
//!
//! A job is a program that runs several times. Its *driver* runs it from the start; at an action it sends the
//! [`Plan`] of what the action needs and waits for the [`ActionResult`]. Its *workers* run the same program with the
//! same arguments, which builds the same graph; at an action they ask for the result that the driver got. A task is
//! therefore only a [`TaskAttemptId`] and what it computes.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::executor::{JobSecret, ShufflePiece};
use crate::error::RemoteError;
use crate::ids::{
    ActionId, ClientId, DatasetId, ExecutorId, JobId, NodeName, OperationId, PartitionId, RackName, ScopeId, ShuffleId,
    StageId, TaskAttemptId,
};
use crate::path::DfsPath;
use crate::time::TimeMs;

mod plan;
mod status;
mod work;

pub use plan::{Plan, PlanNode};
pub use status::{
    ExecutorStatus, FailedAttempt, LogLocation, Lost, QuietAttempt, Recovery, RecoveryOutcome, StageStatus, WaitReason,
    Waiting,
};
pub use work::{Payload, ReduceTotal, Resources, StageWork, TaskWork, Work};

/// A call to the scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Starts a job. Answer: [`Response::Submitted`].
    Submit {
        /// What it runs.
        program: Program,
        /// With which arguments, the program's own name not among them.
        arguments: Vec<String>,
        /// Names the operation, so that a retry starts no second job.
        operation: OperationId,
        /// How it shall run.
        options: JobOptions,
        /// Where its driver runs.
        driver: DriverPlace,
    },
    /// The jobs that the scheduler remembers, newest first, as many as fit into an answer. Answer: [`Response::Jobs`].
    List {
        /// Only those that were submitted before this one; none for the newest.
        before: Option<JobId>,
    },
    /// The state of a job. Waits until it differs from `seen`, or for the call's time. Answer: [`Response::Status`].
    Status {
        /// Which.
        job: JobId,
        /// The revision that the caller knows already; 0 for none.
        seen: u64,
    },
    /// Ends a job. Answer: [`Response::Done`].
    Kill {
        /// Which.
        job: JobId,
        /// Why, for its status.
        reason: String,
    },
    /// Where the logs of a job are. Answer: [`Response::Logs`].
    Logs {
        /// Which.
        job: JobId,
    },
    /// The executors. Answer: [`Response::Executors`].
    Executors,

    /// An executor joins, or comes back. Its commands are numbered from 1 again; what it still has of unfinished jobs it
    /// tells with its next polls, as [`ExecutorEvent::Holds`]. Answer: [`Response::Registered`].
    ExecutorRegister(ExecutorRegistration),
    /// An executor lives, tells what has ended and asks for work; the answer comes as soon as there is some, at the
    /// latest when the scheduler wants to hear it again. Answer: [`Response::Commands`]; or
    /// [`ErrorCode::NotRegistered`](crate::error::ErrorCode::NotRegistered) when the scheduler does not know it (any more):
    /// it registers anew.
    ExecutorPoll {
        /// Which.
        id: ExecutorId,
        /// The last command that it has carried out or taken charge of, 0 for none; it is sent no more.
        seen: u64,
        /// What has happened there since the last poll that was answered.
        events: Vec<ExecutorEvent>,
        /// How far the tasks that run there have come; only now and then, and only if it has changed.
        progress: Vec<TaskProgress>,
    },

    /// A driver begins. Answer: [`Response::Begun`].
    DriverBegin {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
    },
    /// A driver lives. It says so every now and then, whatever else it does; the answer comes at once. Any call of a driver
    /// says the same. Answer: [`Response::Done`].
    DriverLives {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
    },
    /// A driver runs an action; the answer comes when it is done. Asking again for the same action, as a driver that
    /// was started anew does, waits for or gives the same result; so does asking again after
    /// [`ErrorCode::Unavailable`](crate::error::ErrorCode::Unavailable), the answer when it is not done within the call's
    /// time. Answer: [`Response::Action`].
    RunAction {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// Which action.
        action: ActionId,
        /// What it needs.
        plan: Box<Plan>,
    },
    /// A driver records a value from outside (a listing of input files) under an action's number, so that a replay sees
    /// the same. If one is recorded already, that one counts. Answer: [`Response::Action`] with one piece.
    Record {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// Which action.
        action: ActionId,
        /// The value, encoded.
        value: Bytes,
    },
    /// A worker, or a driver in replay, asks for the result of an action; the answer comes when it is there. A driver
    /// asks with `wait` false and gets [`ActionResult::Unknown`] when nobody has begun it. Answer: [`Response::Action`].
    ActionResult {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which action.
        action: ActionId,
        /// Its scope and those around it, the innermost first, without the whole program: where one of them has ended, the
        /// answer is [`ActionResult::ScopeEnded`].
        within: Vec<ScopeId>,
        /// Whether to wait until it is there.
        wait: bool,
        /// Whether its results are wanted, or only that it is done: of what only the driver uses, workers get nothing.
        results: bool,
    },
    /// A worker, or a driver in replay, asks what a scope came to; who knows it need not run the scope. Answer:
    /// [`Response::Action`] with one piece, or [`ActionResult::Unknown`] if it has not ended.
    ScopeOutcome {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// The scope and those around it, the innermost first.
        within: Vec<ScopeId>,
        /// Whether to wait until it has ended.
        wait: bool,
    },
    /// A scope of the program has ended in its driver: what it came to is recorded, and what belongs to it is known no more:
    /// its actions, the values that were recorded in it, its shuffles, the scopes within it. If an end is recorded already,
    /// that one counts. Answer: [`Response::Action`] with one piece.
    EndScope {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// The scope and those around it, the innermost first.
        within: Vec<ScopeId>,
        /// What it came to, encoded.
        outcome: Bytes,
    },
    /// The plan that the driver sent for an action, against which a worker checks its own. Answer: [`Response::Plan`].
    Plan {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which action.
        action: ActionId,
    },
    /// The work of a stage, for its tasks. Answer: [`Response::StageWork`].
    StageWork {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which stage.
        stage: StageId,
    },
    /// Where the outputs of a shuffle's map tasks are. While some of them are being computed again, it is
    /// [`ErrorCode::OutputsLost`](crate::error::ErrorCode::OutputsLost): the task ends as cancelled, for the tasks that
    /// compute them may need its slot. Answer: [`Response::MapOutputs`].
    MapOutputs {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which shuffle.
        shuffle: ShuffleId,
        /// For which reduce partitions, first and one past the last: only their pieces are listed.
        reduce: (PartitionId, PartitionId),
        /// The attempt at a task that will read them: should a piece differ when it is computed again, it runs again.
        by: TaskAttemptId,
    },
    /// A driver is done; the job has this end. Answer: [`Response::Done`].
    DriverEnd {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// Nothing, or the error that its program returned.
        error: Option<String>,
    },
    /// A driver is about to let its tasks write below `output`, in the directory `_temporary/JOB` of it, and to publish
    /// there what counts of it. Should the job fail or be ended, the scheduler sees to it that what is left is taken away,
    /// whatever becomes of the driver. Answer: [`Response::Publication`], once that is remembered.
    Publishing {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// The action that names the publication: each is carried out once.
        action: ActionId,
        /// The directory that shall be the output.
        output: DfsPath,
    },
    /// A driver has published: no later attempt at it, in no life of the scheduler, does so again. Answer:
    /// [`Response::Done`], once that is remembered.
    Published {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// The action that names the publication.
        action: ActionId,
    },
    /// A driver or a worker asks for the job's own directory, to write into it or to read from it. It is taken away however
    /// the job ends. Answer: [`Response::OwnDirectory`], once that is remembered.
    OwnDirectory {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
    },
    /// A driver will run no action again that reads these: what only they need is deleted, and does not count any more for
    /// what a job may have. Answer: [`Response::Done`].
    Release {
        /// Its job.
        job: JobId,
        /// Shows it.
        secret: JobSecret,
        /// Which attempt at the driver; an older one is refused.
        attempt: u32,
        /// Whose pieces may go.
        shuffles: Vec<ShuffleId>,
        /// Whose partitions may go.
        datasets: Vec<DatasetId>,
    },
}

/// How a job shall run, as who submits it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct JobOptions {
    /// How long a task may take, in ms; none for as long as it likes.
    pub task_limit_ms: Option<u64>,
    /// Whether its workers run the program twice and compare what both runs compute.
    pub check_replay: bool,
}

/// Where the driver of a job runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum DriverPlace {
    /// On an executor, which the scheduler chooses; when it is lost there, it is started anew.
    #[default]
    Placed,
    /// At the client that submits the job and keeps it alive by being heard: the job ends with it.
    Attached,
}

/// What a client needs to be the driver of the job that it has submitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attachment {
    /// What the driver shows with every call.
    pub secret: JobSecret,
    /// Which attempt at the driver it is.
    pub attempt: u32,
}

/// What a job runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Program {
    /// A program that every executor has, by name (`wordcount`, `grep`).
    BuiltIn {
        /// Its name.
        name: String,
    },
    /// An executable in the file system.
    Stored {
        /// Its name, for people.
        name: String,
        /// Where it lies.
        path: DfsPath,
        /// The BLAKE3 hash of its bytes, checked before it is run.
        hash: [u8; 32],
    },
}

impl Program {
    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn { name } | Self::Stored { name, .. } => name,
        }
    }
}

/// What an executor says when it joins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExecutorRegistration {
    /// This run of it.
    pub id: ExecutorId,
    /// Its node: that of the datanode beside it.
    pub node: NodeName,
    /// The rack of that node.
    pub rack: RackName,
    /// Where it listens.
    pub address: SocketAddr,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// How much memory one worker process may use.
    pub worker_memory_bytes: u64,
    /// How many worker processes, each of another job, its memory holds at once.
    pub workers: u32,
}

/// What happened at an executor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExecutorEvent {
    /// A task ended.
    TaskEnded {
        /// Which.
        attempt: TaskAttemptId,
        /// How.
        outcome: TaskOutcome,
    },
    /// A driver process ended.
    DriverEnded {
        /// Of which job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
        /// Nothing if it ended with 0; else what is known: its exit code or signal, and the last lines it wrote to
        /// standard error.
        error: Option<String>,
        /// Whether another attempt may end otherwise: something outside the program ended it (SIGKILL, SIGTERM) or kept
        /// it from starting (no memory, no way to fetch the executable).
        retry: bool,
        /// Whether it never ran because the file system is away, which holds its executable. That is told also of an
        /// attempt that was given up before it had begun.
        away: bool,
    },
    /// A worker process ended before its time; the tasks it had are reported one by one, its cached partitions are gone.
    WorkerLost {
        /// Of which job.
        job: JobId,
        /// What is known.
        reason: String,
    },
    /// A worker process that had no tasks was ended, because another job's needed its memory: its cached partitions are
    /// gone, and nobody is to blame.
    WorkerEnded {
        /// Of which job.
        job: JobId,
    },
    /// What it has of unfinished jobs; it registered just before. What tasks have left outlives the scheduler so, as blocks
    /// outlive a namenode.
    Holds(Holding),
}

/// Something that an executor has when it registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Holding {
    /// Anything of a job; what it is follows.
    Job(JobId),
    /// An attempt at a job's driver runs.
    Driver {
        /// Of which job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
    },
    /// A task runs, or waits for its worker.
    Task(Box<TaskSpec>),
    /// A task is done, and what it left is here.
    Left {
        /// Which attempt.
        attempt: TaskAttemptId,
        /// What became of it.
        output: StageOutput,
        /// What it left.
        done: Box<TaskDone>,
    },
    /// Partitions that the job's worker holds in memory.
    Cached {
        /// The attempt that put them there.
        attempt: TaskAttemptId,
        /// Which.
        partitions: Vec<(DatasetId, PartitionId)>,
    },
    /// That is all.
    Whole,
}

impl Holding {
    /// Of which job it is.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::Job(job) | Self::Driver { job, .. } => Some(*job),
            Self::Task(task) => Some(task.attempt.job),
            Self::Left { attempt, .. } | Self::Cached { attempt, .. } => Some(attempt.job),
            Self::Whole => None,
        }
    }
}

/// What an executor shall do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ExecutorCommand {
    /// Start the driver of a job.
    StartDriver {
        /// What and how.
        job: JobLaunch,
        /// Which attempt, from 0.
        attempt: u32,
    },
    /// How to start processes of a job: comes before the first task of the job, unless its driver was started there.
    BeginJob {
        /// What and how.
        job: JobLaunch,
    },
    /// Run a task in the job's worker process, which is started if it is not there.
    RunTask {
        /// The task.
        task: Box<TaskSpec>,
    },
    /// Give a task up.
    CancelTask {
        /// Which.
        attempt: TaskAttemptId,
    },
    /// End all processes of a job and drop its shuffle output; its logs stay.
    EndJob {
        /// Which.
        job: JobId,
    },
    /// End one attempt at a driver, which was given up; nothing is told of its end.
    EndDriver {
        /// Of which job.
        job: JobId,
        /// Which attempt.
        attempt: u32,
    },
    /// Nobody will read the pieces of these any more: they go.
    Release {
        /// Of which job.
        job: JobId,
        /// Which shuffles.
        shuffles: Vec<ShuffleId>,
    },
}

/// What an executor must know to start a process of a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobLaunch {
    /// Which job.
    pub job: JobId,
    /// What its processes show with every call.
    pub secret: JobSecret,
    /// Who submitted it.
    pub user: String,
    /// What to run.
    pub program: Program,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// How it shall run.
    pub options: JobOptions,
    /// Whether its driver runs at its client, which has a standard input.
    pub attached: bool,
}

/// One task: which partition of which stage, and what becomes of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Which attempt at which task.
    pub attempt: TaskAttemptId,
    /// What it does.
    pub work: TaskWork,
    /// What becomes of the partition.
    pub output: StageOutput,
    /// How local the task is to its input, for its statistics.
    pub locality: Locality,
    /// Whether its worker runs nothing else beside it: workers have ended with it and others, and it is not known which of
    /// them is to blame.
    pub alone: bool,
    /// How many slots of its executor it takes, and with them its part of the worker's memory.
    pub slots: u32,
}

/// How far a task has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TaskProgress {
    /// Which attempt.
    pub attempt: TaskAttemptId,
    /// Rises whenever it has read, written or computed something. Nothing else is in the number.
    pub steps: u64,
}

/// How a task ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// It is done.
    Done(Box<TaskDone>),
    /// It is not.
    Failed(TaskFailure),
}

/// What a done task leaves.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskDone {
    /// Its result for the driver, encoded; empty for a map task.
    pub result: Bytes,
    /// What a map task wrote, one piece a reduce partition.
    pub pieces: Vec<ShufflePiece>,
    /// Partitions that the worker now holds in memory.
    pub cached: Vec<(DatasetId, PartitionId)>,
    /// Partitions that it held and had to drop: before it took in those of `cached`.
    pub dropped: Vec<(DatasetId, PartitionId)>,
    /// What it took.
    pub metrics: TaskMetrics,
}

/// What a task took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TaskMetrics {
    /// Bytes read from the file system.
    pub input_bytes: u64,
    /// Of those, bytes that a datanode of another node sent.
    pub remote_bytes: u64,
    /// Bytes fetched from other tasks' shuffle output.
    pub shuffle_read_bytes: u64,
    /// Bytes of shuffle output written.
    pub shuffle_written_bytes: u64,
    /// Records that it produced.
    pub records: u64,
    /// From its start to its end.
    pub wall_ms: u64,
    /// Blocks that it read from another replica than the first it tried.
    pub failovers: u64,
}

/// Why a task failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TaskFailure {
    /// A piece of a shuffle could not be fetched or is corrupt: the map task must run again.
    Fetch {
        /// Which shuffle.
        shuffle: ShuffleId,
        /// Whose output.
        map: TaskAttemptId,
        /// Why.
        reason: String,
    },
    /// The program's function returned an error or panicked. Counts against the task.
    Program {
        /// What it said.
        message: String,
    },
    /// The worker process ended: a crash, or too much memory. Counts against the task if the worker had no other.
    WorkerLost {
        /// What is known.
        reason: String,
        /// How many other tasks the worker had: any of them may be to blame.
        company: u32,
    },
    /// The worker's graph differs from the driver's, or what two runs of the program have computed differs. Ends the job.
    PlanMismatch {
        /// What differs.
        message: String,
    },
    /// Input could not be read or output not be written. Counts against the task, unless the file system was away.
    Storage {
        /// Why.
        message: String,
        /// Whether it is as with servers that are away: what failed may work later, and the task is not to blame.
        transient: bool,
    },
    /// The worker process was silent for too long: it was stopped, or its node has too much to do. Counts against the task
    /// if the worker had no other.
    WorkerSilent {
        /// What is known.
        reason: String,
        /// How many other tasks the worker had: any of them may be to blame.
        company: u32,
    },
    /// It was cancelled. Does not count against the task.
    Cancelled,
    /// The program has no engine for the work of its stage. Ends the job.
    NoEngine {
        /// Which kind of work it is.
        kind: String,
        /// For which kinds the program has one.
        known: Vec<String>,
    },
}

/// One stage: the same work for every partition of a dataset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StagePlan {
    /// Its id: that of the last dataset it computes.
    pub stage: StageId,
    /// Its name, for people.
    pub name: String,
    /// How many tasks it has.
    pub partitions: u32,
    /// What becomes of each partition.
    pub output: StageOutput,
    /// The shuffles that its tasks read.
    pub reads: Vec<ShuffleId>,
    /// Where each partition's input lies, best first; empty when it does not matter.
    pub preferred: Vec<Vec<TaskLocation>>,
    /// The datasets within the stage that are kept in memory once computed, so that a task goes where they are.
    pub persisted: Vec<PersistedInput>,
    /// What its tasks do; none if the program says that.
    pub work: Option<Work>,
    /// What each of its tasks needs.
    pub resources: Resources,
}

/// A dataset that is kept in memory, as a stage reads it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PersistedInput {
    /// Which.
    pub dataset: DatasetId,
    /// Which of its partitions which of the stage's read: ascending by those of the stage, which are in one range at most.
    pub partitions: Vec<PartitionRange>,
}

impl PersistedInput {
    /// The partition of the dataset that a partition of the stage reads, if it reads any.
    #[must_use]
    pub fn partition(&self, of_stage: u32) -> Option<u32> {
        let after = self.partitions.partition_point(|range| range.stage <= of_stage);
        let range = self.partitions.get(after.checked_sub(1)?)?;
        let offset = of_stage - range.stage;
        (offset < range.count).then(|| range.dataset.saturating_add(offset))
    }
}

/// Partition `stage + i` of a stage reads partition `dataset + i` of a dataset, for every `i` below `count`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartitionRange {
    /// The first partition of the stage.
    pub stage: u32,
    /// The first partition of the dataset.
    pub dataset: u32,
    /// How many there are.
    pub count: u32,
}

/// What becomes of a partition that a task has computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StageOutput {
    /// It is split for a shuffle.
    Shuffle {
        /// Which.
        shuffle: ShuffleId,
        /// Among how many reduce partitions.
        reducers: u32,
    },
    /// It goes to the driver, as the action says.
    Result {
        /// Which action.
        action: ActionId,
    },
}

/// A place near a partition's input.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TaskLocation {
    /// The node.
    pub node: NodeName,
    /// Its rack.
    pub rack: RackName,
}

/// How near a task runs to its input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Locality {
    /// In the process that holds it in memory.
    Process,
    /// On the node that holds it.
    Node,
    /// In the rack that holds it.
    Rack,
    /// Elsewhere, although it has a place.
    Any,
    /// It has no place.
    NoPreference,
}

/// The result of an action.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ActionResult {
    /// It is done: each partition's result, in order; nothing for who wants only that it is done.
    Done(Vec<Bytes>),
    /// The job ended before it was done.
    Failed(RemoteError),
    /// Nobody has begun it.
    Unknown,
    /// Its scope has ended: nobody waits for it any more.
    ScopeEnded,
}

/// Where one map task's output is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MapOutput {
    /// The attempt that wrote it.
    pub map: TaskAttemptId,
    /// Where the executor that serves it listens.
    pub address: SocketAddr,
    /// Its pieces, one for each reduce partition that was asked for.
    pub pieces: Vec<ShufflePiece>,
}

/// An answer of the scheduler.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Response {
    /// It is noted.
    Done,
    /// The job is remembered from here on.
    Submitted {
        /// Its id.
        job: JobId,
        /// What makes the caller its driver, if it is attached.
        attachment: Option<Attachment>,
    },
    /// Jobs, the newest first.
    Jobs {
        /// As many as fit.
        jobs: Vec<JobSummary>,
        /// Where the older ones go on: ask for those before it; none if there are no more.
        next: Option<JobId>,
    },
    /// The state of a job.
    Status(Box<JobStatus>),
    /// Where a job's logs are.
    Logs(Vec<LogLocation>),
    /// The executors.
    Executors(Vec<ExecutorStatus>),
    /// The executor is known now.
    Registered {
        /// How long the scheduler waits between two polls before it suspects the executor.
        poll_ms: u32,
        /// The jobs that have not ended: the executor keeps what it has of these, and ends all others.
        jobs: Vec<JobId>,
    },
    /// What the executor shall do.
    Commands {
        /// The number of the last of them.
        last: u64,
        /// In order; some may have been sent before.
        commands: Vec<(u64, ExecutorCommand)>,
    },
    /// The result of an action.
    Action(ActionResult),
    /// A plan.
    Plan(Option<Box<Plan>>),
    /// The work of a stage; none if nobody needs that now.
    StageWork(Option<Box<StageWork>>),
    /// Where each map partition's output is, in order.
    MapOutputs(Vec<MapOutput>),
    /// A driver may begin.
    Begun {
        /// Under which name the job publishes: the same for every attempt at its driver, in every life of the scheduler.
        publisher: ClientId,
        /// How long the driver may be silent, in ms, before it is given up.
        session_ms: u32,
        /// Whether it is attached: its job ends with it.
        attached: bool,
    },
    /// A driver may publish.
    Publication {
        /// Whether it has been done already, by an earlier attempt at the driver: it must not be done again.
        published: bool,
    },
    /// The job's own directory.
    OwnDirectory(DfsPath),
}

/// Where a job stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobState {
    /// Its driver has not begun.
    Waiting,
    /// Its driver runs.
    Running,
    /// It is done.
    Succeeded,
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
    /// Somebody ended it.
    Killed {
        /// Why.
        reason: String,
    },
}

impl JobState {
    /// Whether it stays so.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed { .. } | Self::Killed { .. })
    }
}

/// A job in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobSummary {
    /// Its id.
    pub job: JobId,
    /// What it runs.
    pub program: Program,
    /// With which arguments.
    pub arguments: Vec<String>,
    /// Who submitted it.
    pub user: String,
    /// Where it stands.
    pub state: JobState,
    /// When it was submitted.
    pub submitted: TimeMs,
    /// When it ended.
    pub ended: Option<TimeMs>,
}

/// All about a job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobStatus {
    /// What it is.
    pub summary: JobSummary,
    /// Rises with every change.
    pub revision: u64,
    /// Its stages so far, in the order in which they were planned; the oldest are dropped past a bound, which
    /// `stages_dropped` counts.
    pub stages: Vec<StageStatus>,
    /// How many stages are not listed any more.
    pub stages_dropped: u64,
    /// What was lost and how it came back, in order; the oldest are dropped past a bound, which `recoveries_dropped`
    /// counts.
    pub recoveries: Vec<Recovery>,
    /// How many recoveries are not listed any more.
    pub recoveries_dropped: u64,
    /// The sum over all done tasks.
    pub metrics: TaskMetrics,
    /// Where its driver runs.
    pub driver: DriverPlace,
    /// How it runs, as who submitted it said.
    pub options: JobOptions,
    /// What it waits for; none if something of it goes on or is about to, or if it has ended.
    pub waiting: Option<Waiting>,
    /// The attempt that failed last, in this life of the scheduler, of tasks that may all be done by now.
    pub last_failure: Option<FailedAttempt>,
}

#[cfg(test)]
mod tests;
