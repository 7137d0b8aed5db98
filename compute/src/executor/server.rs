//! The owner task: it alone holds the table of jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use situ_client::{Client, ClientConfig};
use situ_runtime::clock::Clock;
use situ_runtime::disk::{Disk, DiskError};
use situ_runtime::rpc::{Connector, Identity, Reply, RpcError, ServerIdentity, serve};
use situ_runtime::transport::{Listener, Transport};
use situ_runtime::{AbortOnDrop, Runtime, Task};
use situ_wire::error::RemoteError;
use situ_wire::hello::Role;
use situ_wire::ids::{ClusterId, ExecutorId, JobId};
use situ_wire::messages::executor::{JobSecret, LogName, ProcessLife, Request, Response};
use situ_wire::messages::scheduler::{
    ExecutorEvent, ExecutorRegistration, Holding, JobLaunch, Program, TaskFailure, TaskOutcome, TaskProgress,
};
use situ_wire::time::TimeMs;
use tokio::sync::{mpsc, oneshot, watch};

use super::link::{FromScheduler, Link, ToLink};
use super::process::Ending;
use super::programs::{Executable, Programs};
use super::removals::{self, Removals};
use super::starting::{Away, Starting};
use super::survey::{Surveyed, survey};
use super::table::{Action, Event, JobTable, WaiterId};
use super::{ExecutorConfig, StartError, directory};
use crate::core::CLEAN_UP;
use crate::program::environment::{Environment, ProcessRole};

/// How many calls and commands may wait for the owner.
const QUEUE: usize = 4096;

/// Where things are in an executor's directory.
///
/// ```text
/// jobs/job-N/work/    a worker's shuffle output and spills; gone when the job ends, not when the executor does
/// jobs/job-N/cwd/     where its processes run; likewise
/// logs/job-N/         what its processes wrote, and who may read it; kept
/// programs/HASH       fetched executables; those that were used last are kept
/// ```
#[derive(Debug)]
pub(super) struct Directories(pub(super) PathBuf);

impl Directories {
    pub(super) fn jobs(&self) -> PathBuf {
        self.0.join("jobs")
    }

    pub(super) fn job(&self, job: JobId) -> PathBuf {
        self.jobs().join(job.to_string())
    }

    pub(super) fn work(&self, job: JobId) -> PathBuf {
        self.job(job).join("work")
    }

    pub(super) fn cwd(&self, job: JobId) -> PathBuf {
        self.job(job).join("cwd")
    }

    fn programs(&self) -> PathBuf {
        self.0.join("programs")
    }

    pub(super) fn all_logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    pub(super) fn logs(&self, job: JobId) -> PathBuf {
        self.all_logs().join(job.to_string())
    }

    pub(super) fn log_owner(&self, job: JobId) -> PathBuf {
        self.logs(job).join("owner")
    }

    pub(super) fn log(&self, job: JobId, log: LogName) -> PathBuf {
        self.logs(job).join(match log {
            LogName::DriverOut(attempt) => format!("driver-{attempt}.out"),
            LogName::DriverErr(attempt) => format!("driver-{attempt}.err"),
            LogName::Worker => "worker.log".to_owned(),
        })
    }
}

/// What the owner hears.
#[derive(Debug)]
pub(super) enum ToOwner {
    /// A call of a job's process.
    Call { request: Request, reply: Reply },
    /// Does this job belong here?
    Check { job: JobId, secret: JobSecret, answer: oneshot::Sender<Result<(), RemoteError>> },
    /// A driver process has ended.
    DriverEnded { job: JobId, attempt: u32, life: ProcessLife, ending: Ending, away: bool },
    /// A worker process has ended.
    WorkerEnded { job: JobId, life: ProcessLife, ending: Ending, away: bool },
    /// What a survey has found.
    Surveyed { number: u64, found: Vec<Holding> },
}

/// Starts executors.
#[derive(Debug)]
pub struct Executor;

/// A running executor. Dropping it ends it and all processes of jobs that it started.
#[derive(Debug)]
pub struct ExecutorHandle {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    stopped: oneshot::Receiver<RpcError>,
    owner: Option<Task<()>>,
    _tasks: [AbortOnDrop<()>; 2],
}

impl ExecutorHandle {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it must end: it hears nobody any more.
    pub async fn stopped(&mut self) -> Option<RpcError> {
        (&mut self.stopped).await.ok()
    }

    /// Ends it and all processes of jobs that it started.
    pub async fn shutdown(mut self) {
        drop(self.shutdown.take());
        if let Some(owner) = self.owner.take() {
            owner.join().await;
        }
    }
}

impl Executor {
    /// Starts an executor that listens with `listener`. `program` is the path of this very program, which is started
    /// anew for built-in programs (`program NAME ...`) and to hold every process of a job (`shim`).
    ///
    /// # Errors
    /// When its configuration or directory cannot be used; also when [`format`](super::format) has not made the directory.
    pub async fn start<R, L>(
        runtime: R,
        config: ExecutorConfig,
        cluster: ClusterId,
        program: PathBuf,
        listener: L,
    ) -> Result<ExecutorHandle, StartError>
    where
        R: Runtime,
        L: Listener<Connection = <R::Transport as Transport>::Connection>,
    {
        config.check()?;
        let directories = Arc::new(Directories(config.directory.clone()));
        let (disk, making, own) = (runtime.disk().clone(), Arc::clone(&directories), program.clone());
        let preparing = runtime.blocking(move || {
            directory::check(&disk, &making.0, cluster)?;
            Ok::<_, StartError>(prepare(&disk, &making, own)?)
        });
        let (lock, programs, earlier) = preparing.await?;
        let address = listener.address();
        let advertised = config.advertise.unwrap_or(address);
        let connector_identity = Identity { cluster, role: Role::Executor, name: config.node.0.clone() };
        let client_config =
            ClientConfig { node: Some(config.node.clone()), ..ClientConfig::new(cluster, config.namenode) };
        let client = Client::new(runtime.clone(), client_config, connector_identity.clone());
        let (owner_sender, inbox) = mpsc::channel(QUEUE);
        let (commands_sender, commands) = mpsc::channel(QUEUE);
        let (events_sender, events) = mpsc::unbounded_channel();
        let (progress_sender, progress) = watch::channel(Vec::new());
        let (shutdown, shutting_down) = oneshot::channel();
        let (failed, stopped) = oneshot::channel();
        let service = super::service::ExecutorService {
            runtime: runtime.clone(),
            directories: Arc::clone(&directories),
            owner: owner_sender.clone(),
        };
        let identity = ServerIdentity { cluster, role: Role::Executor };
        let serving = serve(runtime.clone(), listener, identity, service);
        let serving = runtime.spawn("executor-serve", async move {
            // Nobody may be waiting to hear it.
            let _ = failed.send(serving.await);
        });
        let workers = config.workers();
        let link = Link {
            connector: Connector::new(runtime.clone(), connector_identity),
            registration: ExecutorRegistration {
                id: ExecutorId(runtime.random_u128()),
                node: config.node.clone(),
                rack: config.rack.clone(),
                address: advertised,
                slots: config.slots,
                worker_memory_bytes: config.worker_memory_bytes,
                workers,
            },
            scheduler: config.scheduler,
            commands: commands_sender,
            events,
            progress,
        };
        let linking = runtime.spawn("executor-link", link.run());
        let silence = Duration::from_millis(config.worker_silence_ms.into());
        let owner = Owner {
            runtime: runtime.clone(),
            config,
            cluster,
            program,
            advertised,
            directories,
            client,
            table: JobTable::new(silence, runtime.random_u64(), workers),
            waiters: HashMap::new(),
            next_waiter: 0,
            processes: BTreeMap::new(),
            programs,
            removals: Removals::default(),
            earlier,
            surveys: 0,
            inbox_sender: owner_sender,
            events: events_sender,
            progress: progress_sender,
            _lock: lock,
        };
        let owner = runtime.spawn("executor-owner", owner.run(inbox, commands, shutting_down));
        Ok(ExecutorHandle {
            address,
            shutdown: Some(shutdown),
            stopped,
            owner: Some(owner),
            _tasks: [serving.abort_on_drop(), linking.abort_on_drop()],
        })
    }
}

/// Takes the directory and clears away what an earlier run left, but for the output of tasks: the jobs that have some.
fn prepare<D: Disk>(
    disk: &D,
    directories: &Directories,
    own: PathBuf,
) -> Result<(D::Lock, Programs, BTreeSet<JobId>), DiskError> {
    disk.create_directory(&directories.0)?;
    let lock = disk.lock(&directories.0)?;
    for directory in [directories.jobs(), directories.programs(), directories.all_logs()] {
        disk.create_directory(&directory)?;
    }
    removals::clear(disk, &directories.jobs())?;
    let mut earlier = BTreeSet::new();
    for entry in disk.list(&directories.jobs())? {
        let Ok(job) = entry.name.parse() else { continue };
        for unneeded in [directories.cwd(job), directories.work(job).join("spill")] {
            disk.remove_directory(&unneeded)?;
        }
        removals::clear(disk, &directories.work(job))?;
        earlier.insert(job);
    }
    Ok((lock, Programs::load(disk, own, directories.programs())?, earlier))
}

struct Owner<R: Runtime> {
    runtime: R,
    config: ExecutorConfig,
    cluster: ClusterId,
    program: PathBuf,
    advertised: SocketAddr,
    directories: Arc<Directories>,
    client: Client<R>,
    table: JobTable,
    waiters: HashMap<WaiterId, Reply>,
    next_waiter: u64,
    processes: BTreeMap<JobId, BTreeMap<ProcessLife, Process>>,
    programs: Programs,
    removals: Removals,
    /// Jobs of which an earlier run has left something.
    earlier: BTreeSet<JobId>,
    /// How many surveys were begun.
    surveys: u64,
    inbox_sender: mpsc::Sender<ToOwner>,
    events: mpsc::UnboundedSender<ToLink>,
    progress: watch::Sender<Vec<TaskProgress>>,
    _lock: <R::Disk as Disk>::Lock,
}

/// A process of a job, from before it is started.
struct Process {
    /// Ends it when dropped; none when that is done.
    stop: Option<oneshot::Sender<()>>,
    /// Runs until it is gone.
    task: Task<()>,
}

impl<R: Runtime> Owner<R> {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<ToOwner>,
        mut commands: mpsc::Receiver<FromScheduler>,
        mut shutting_down: oneshot::Receiver<()>,
    ) {
        loop {
            let deadline = self.table.poll_timeout().unwrap_or(TimeMs::NEVER);
            let clock = self.runtime.clock().clone();
            tokio::select! {
                _ = &mut shutting_down => break,
                Some(message) = inbox.recv() => self.hear(message),
                Some(message) = commands.recv() => match message {
                    FromScheduler::Registered(jobs) => {
                        // The link ends only with this owner.
                        let _ = self.events.send(ToLink::Began);
                        let jobs = jobs.into_iter().collect();
                        self.table.handle(clock.now(), Event::Registered { jobs });
                    }
                    FromScheduler::Command(command) => self.table.handle(clock.now(), Event::Command(command)),
                },
                () = clock.sleep_until(deadline) => self.table.handle_timeout(clock.now()),
            }
            self.act();
        }
        self.table.end_all();
        self.act();
        // What the processes' ends would be told to.
        drop(inbox);
        self.removals.ended().await;
    }

    fn hear(&mut self, message: ToOwner) {
        match message {
            ToOwner::Call { request, reply } => self.call(request, reply),
            ToOwner::Check { job, secret, answer } => {
                // Whoever asked may be gone.
                let _ = answer.send(self.table.check(job, secret).map(|_| ()));
            }
            ToOwner::DriverEnded { job, attempt, life, ending: Ending { error, retry }, away } => {
                let now = self.runtime.clock().now();
                self.table.handle(now, Event::DriverEnded { job, attempt, life, error, retry, away });
            }
            ToOwner::WorkerEnded { job, life, ending, away } => {
                let reason = ending.error.unwrap_or_else(|| "it ended by itself before its job did".to_owned());
                self.table.handle(self.runtime.clock().now(), Event::WorkerEnded { job, life, reason, away });
            }
            // It may have registered again since; then another survey is under way.
            ToOwner::Surveyed { number, found } => {
                if number == self.surveys {
                    for holding in found.into_iter().chain([Holding::Whole]) {
                        self.tell(ExecutorEvent::Holds(holding));
                    }
                }
            }
        }
    }

    /// Looks for what is in the directories of unfinished jobs; what is there of others goes.
    fn survey(&mut self, jobs: BTreeSet<JobId>) {
        let ended: Vec<JobId> = self.earlier.difference(&jobs).copied().collect();
        ended.into_iter().for_each(|job| self.end_job(job));
        let here = jobs.into_iter().filter(|job| self.table.has(*job) || self.earlier.contains(job));
        let here: Vec<Surveyed> = here.map(|job| Surveyed { job, is_idle: !self.table.has(job) }).collect();
        self.surveys += 1;
        let (number, runtime, owner) = (self.surveys, self.runtime.clone(), self.inbox_sender.clone());
        let (disk, directories) = (self.runtime.disk().clone(), Arc::clone(&self.directories));
        self.runtime.spawn("survey", async move {
            let found = runtime.blocking(move || survey(&disk, &directories, &here)).await;
            // The owner is gone only when this executor ends.
            let _ = owner.send(ToOwner::Surveyed { number, found }).await;
        });
    }

    fn call(&mut self, request: Request, reply: Reply) {
        match request {
            Request::Poll(poll) => {
                let waiter = WaiterId(self.next_waiter);
                self.next_waiter += 1;
                self.waiters.insert(waiter, reply);
                self.table.handle(self.runtime.clock().now(), Event::Poll { waiter, poll });
            }
            // The service answers it without the owner.
            Request::ReadLog { .. } => drop(reply),
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.table.poll_action() {
            match action {
                Action::Answer { waiter, result } => {
                    if let Some(reply) = self.waiters.remove(&waiter) {
                        reply.send(result.map(Response::Orders).as_ref().map_err(Clone::clone));
                    }
                }
                Action::Report(event) => {
                    note_storage(&event);
                    self.tell(event);
                }
                Action::Survey { jobs } => self.survey(jobs),
                Action::Progress(progress) => drop(self.progress.send_replace(progress)),
                Action::StartDriver { launch, attempt, life } => self.start_driver(launch, attempt, life),
                Action::StartWorker { launch, life } => self.start_worker(launch, life),
                Action::EndJob { job } => self.end_job(job),
                Action::Release { job, shuffles } => {
                    for shuffle in shuffles {
                        let output = self.directories.work(job).join(shuffle.to_string());
                        self.removals.begin(&self.runtime, output, Vec::new(), Disk::remove_directory);
                    }
                }
                Action::EndProcess { job, life } => {
                    let known = self.processes.get_mut(&job).and_then(|processes| processes.get_mut(&life));
                    drop(known.and_then(|process| process.stop.take()));
                }
            }
        }
    }

    fn tell(&self, event: ExecutorEvent) {
        // The link ends only with this owner.
        let _ = self.events.send(ToLink::Event(event));
    }

    fn start_driver(&mut self, launch: JobLaunch, attempt: u32, life: ProcessLife) {
        let job = launch.job;
        let role = ProcessRole::Driver { attempt };
        let logs = [
            self.directories.log(job, LogName::DriverOut(attempt)),
            self.directories.log(job, LogName::DriverErr(attempt)),
        ];
        let clean_up = matches!(&launch.program, Program::BuiltIn { name } if name == CLEAN_UP);
        self.start(launch, life, role, logs, move |ending, away| {
            // Nobody waits for it who would hear of it.
            if let Some(error) = ending.error.as_ref().filter(|_| clean_up) {
                tracing::warn!(%job, error, "what the job wrote aside is not taken away; it is tried again");
            }
            ToOwner::DriverEnded { job, attempt, life, ending, away }
        });
    }

    fn start_worker(&mut self, launch: JobLaunch, life: ProcessLife) {
        let job = launch.job;
        let role = ProcessRole::Worker {
            executor: self.advertised,
            work_dir: self.directories.work(job),
            slots: self.config.slots,
            memory_bytes: self.config.worker_memory_bytes,
            life,
        };
        let log = self.directories.log(job, LogName::Worker);
        let logs = [log.clone(), log];
        self.start(launch, life, role, logs, move |ending, away| ToOwner::WorkerEnded { job, life, ending, away });
    }

    /// Starts a process and tells the owner when it ends, or that it could not be started because the file system is away.
    fn start(
        &mut self,
        launch: JobLaunch,
        life: ProcessLife,
        role: ProcessRole,
        logs: [PathBuf; 2],
        ended: impl FnOnce(Ending, bool) -> ToOwner + Send + 'static,
    ) {
        let job = launch.job;
        let (stop, mut stopped) = oneshot::channel();
        let environment = Environment {
            role,
            job,
            secret: launch.secret,
            user: launch.user.clone(),
            scheduler: self.config.scheduler,
            namenode: self.config.namenode,
            cluster: self.cluster,
            node: Some(self.config.node.clone()),
            credentials: self.config.worker_credentials.clone(),
            check_replay: launch.options.check_replay,
            build: None,
        };
        let starting = Starting {
            runtime: self.runtime.clone(),
            client: self.client.clone(),
            directories: Arc::clone(&self.directories),
            own_program: self.program.clone(),
            memory_bytes: self.config.worker_memory_bytes,
            log_len_bytes: self.config.log_len_bytes,
            logs_kept: self.config.logs_kept,
            executable: self.executable(&launch.program),
        };
        let owner = self.inbox_sender.clone();
        let removed = [&self.directories.job(job), &starting.executable.path].map(|path| self.removals.end_of(path));
        let task = self.runtime.spawn("job-process", async move {
            let removed = async {
                for removed in removed {
                    removed.await;
                }
            };
            let in_time = tokio::select! {
                biased;
                () = removed => true,
                _ = &mut stopped => false,
            };
            let (ending, away) = match in_time {
                true => match starting.run(launch, environment, logs, stopped).await {
                    Ok(ending) => (ending, false),
                    Err(Away(reason)) => (Ending { error: Some(reason), retry: true }, true),
                },
                false => (Ending { error: Some("it was ended".to_owned()), retry: false }, false),
            };
            // The owner is gone only when this executor ends.
            let _ = owner.send(ended(ending, away)).await;
        });
        let processes = self.processes.entry(job).or_default();
        processes.retain(|_, process| !process.task.is_finished());
        processes.insert(life, Process { stop: Some(stop), task });
    }

    /// The executable of a program that is used now. Others may go for it.
    fn executable(&mut self, program: &Program) -> Executable {
        let executable = self.programs.executable(program);
        for path in self.programs.take_surplus(self.config.programs_kept, &self.table.stored_programs()) {
            self.removals.begin(&self.runtime, path, Vec::new(), Disk::remove_file);
        }
        executable
    }

    fn end_job(&mut self, job: JobId) {
        self.earlier.remove(&job);
        let processes = self.processes.remove(&job).unwrap_or_default();
        // This drops what stops them.
        let ending = processes.into_values().map(|process| process.task).collect();
        self.removals.begin(&self.runtime, self.directories.job(job), ending, Disk::remove_directory);
    }
}

/// Says that a task failed for what it reads or writes: most often for this host's disk, of which the job's user knows
/// nothing.
fn note_storage(event: &ExecutorEvent) {
    if let ExecutorEvent::TaskEnded { attempt, outcome: TaskOutcome::Failed(failure) } = event
        && let TaskFailure::Storage { message, transient: false } = failure
    {
        tracing::warn!(task = %attempt, error = message, "a task failed for its storage");
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use situ_runtime::real::RealRuntime;
    use situ_wire::ids::{NodeName, ScopeId, TaskAttemptId};
    use situ_wire::messages::scheduler::{ExecutorCommand, JobOptions};

    use super::*;

    /// An owner in `directory` whose every process is this script; it hears nothing by itself.
    fn owner(directory: &Path, script: &str) -> (Owner<RealRuntime>, mpsc::Receiver<ToOwner>) {
        let (text, program) = (directory.join("text"), directory.join("script"));
        std::fs::write(&text, format!("#!/bin/sh\ncd '{}'\n{script}", directory.display())).unwrap();
        // Not written by this process: another test that is just starting a process would keep it busy.
        let installed = std::process::Command::new("install").args(["-m", "700"]).args([&text, &program]).status();
        assert!(installed.unwrap().success());
        let runtime = RealRuntime::new(None).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = ExecutorConfig::new(directory.to_owned(), NodeName("node-1".to_owned()), nowhere, nowhere);
        let directories = Arc::new(Directories(directory.to_owned()));
        let (lock, programs, earlier) = prepare(runtime.disk(), &directories, program.clone()).unwrap();
        let cluster = ClusterId(1);
        let identity = Identity { cluster, role: Role::Executor, name: "node-1".to_owned() };
        let (inbox_sender, inbox) = mpsc::channel(QUEUE);
        let (events, _) = mpsc::unbounded_channel();
        let owner = Owner {
            client: Client::new(runtime.clone(), ClientConfig::new(cluster, nowhere), identity),
            runtime,
            config,
            cluster,
            program,
            advertised: nowhere,
            directories,
            table: JobTable::new(Duration::from_secs(30), 0, 16),
            waiters: HashMap::new(),
            next_waiter: 0,
            processes: BTreeMap::new(),
            programs,
            removals: Removals::default(),
            earlier,
            surveys: 0,
            inbox_sender,
            events,
            progress: watch::Sender::default(),
            _lock: lock,
        };
        (owner, inbox)
    }

    fn command(owner: &mut Owner<RealRuntime>, command: ExecutorCommand) {
        owner.table.handle(TimeMs(0), Event::Command(command));
        owner.act();
    }

    fn start(job: u64, program: Program, attempt: u32) -> ExecutorCommand {
        let (secret, user) = (JobSecret([7; 16]), "ann".to_owned());
        let options = JobOptions::default();
        let job = JobLaunch { job: JobId(job), secret, user, program, arguments: Vec::new(), options, attached: false };
        ExecutorCommand::StartDriver { job, attempt }
    }

    /// Waits until a file holds so many lines, and gives up only when it is certain not to come.
    async fn lines(path: &Path, count: usize) {
        let read = || std::fs::read_to_string(path).unwrap_or_default();
        let there = async {
            while read().lines().count() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(120), there).await.expect("it comes to pass");
    }

    #[tokio::test]
    async fn the_output_of_an_ended_job_goes_after_its_processes_and_before_the_next_ones_come() {
        let directory = tempfile::tempdir().unwrap();
        // Each says how many have ended before it; told to end, it takes its time and then leaves something behind.
        let script = "wc -l < ended >> begun; cat > /dev/null; sleep 0.2; mkdir -p jobs/job-1/work/late; echo >> ended";
        std::fs::write(directory.path().join("ended"), "").unwrap();
        let (mut owner, _inbox) = owner(directory.path(), script);
        let at = |name: &str| directory.path().join(name);
        let start = |attempt| start(1, Program::BuiltIn { name: "wordcount".to_owned() }, attempt);
        command(&mut owner, start(0));
        lines(&at("begun"), 1).await;
        command(&mut owner, ExecutorCommand::EndDriver { job: JobId(1), attempt: 0 });
        command(&mut owner, ExecutorCommand::EndJob { job: JobId(1) });
        command(&mut owner, start(1));
        assert!(at("jobs/job-1/work").exists(), "nothing waits for the removal but the next process");
        lines(&at("begun"), 2).await;
        assert_eq!(std::fs::read_to_string(at("begun")).unwrap(), "0\n1\n");
        assert!(at("jobs/job-1/work").exists() && !at("jobs/job-1/work/late").exists());
        command(&mut owner, ExecutorCommand::EndJob { job: JobId(1) });
        owner.removals.ended().await;
        assert!(!at("jobs/job-1").exists());
    }

    #[tokio::test]
    async fn a_driver_that_is_given_up_while_its_executable_is_fetched_never_ran() {
        let directory = tempfile::tempdir().unwrap();
        let (mut owner, mut inbox) = owner(directory.path(), "cat > /dev/null");
        let program = Program::Stored { name: "a".to_owned(), path: "/a".parse().unwrap(), hash: [1; 32] };
        // There is no namenode at all.
        command(&mut owner, start(1, program, 0));
        command(&mut owner, ExecutorCommand::EndDriver { job: JobId(1), attempt: 0 });
        let Some(ToOwner::DriverEnded { attempt: 0, ending, away: true, .. }) = inbox.recv().await else {
            panic!("it could not be started")
        };
        let reason = ending.error.unwrap();
        assert!(reason.contains("the program a could not be fetched"), "{reason}");
    }

    #[tokio::test]
    async fn what_an_earlier_run_has_left_is_told_of_jobs_that_go_on_and_goes_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join("jobs").join(name);
        let aside = ["job-1/work/shuffle-4.removed-00ff", "job-4.removed-00ff"];
        let others = ["job-1/work/shuffle-3", "job-1/work/spill", "job-1/cwd", "job-2/work/shuffle-3"];
        for name in others.into_iter().chain(aside) {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let partition = situ_wire::ids::PartitionId(0);
        let map =
            TaskAttemptId { job: JobId(1), stage: situ_wire::ids::StageId(ScopeId::ROOT, 2), partition, attempt: 0 };
        let header =
            crate::shuffle::Header { map, shuffle: situ_wire::ids::ShuffleId(ScopeId::ROOT, 3), pieces: Vec::new() };
        std::fs::write(at("job-1/work/shuffle-3/partition-0-attempt-0"), header.encode()).unwrap();
        let (mut owner, mut inbox) = owner(directory.path(), "cat > /dev/null");
        assert!(!at("job-1/work/spill").exists() && !at("job-1/cwd").exists());
        assert!(aside.iter().all(|name| !at(name).exists()));
        let (events, mut told) = mpsc::unbounded_channel();
        owner.events = events;
        // It registers again before the first survey has come to its end.
        for _ in 0..2 {
            owner.survey(BTreeSet::from([JobId(1), JobId(3)]));
        }
        for _ in 0..2 {
            let surveyed = inbox.recv().await.unwrap();
            owner.hear(surveyed);
        }
        let mut holdings = Vec::new();
        while let Ok(ToLink::Event(ExecutorEvent::Holds(holding))) = told.try_recv() {
            holdings.push(holding);
        }
        let [Holding::Job(JobId(1)), Holding::Left { attempt, .. }, Holding::Whole] = &holdings[..] else {
            panic!("{holdings:?}")
        };
        assert_eq!(*attempt, map);
        std::mem::take(&mut owner.removals).ended().await;
        assert!(!at("job-2").exists() && at("job-1").exists());
        // The job begins here, and its end takes away what was left.
        let launch = start(1, Program::BuiltIn { name: "wordcount".to_owned() }, 0);
        if let ExecutorCommand::StartDriver { job, .. } = launch {
            command(&mut owner, ExecutorCommand::BeginJob { job });
        }
        command(&mut owner, ExecutorCommand::EndJob { job: JobId(1) });
        std::mem::take(&mut owner.removals).ended().await;
        assert!(!at("job-1").exists());
    }

    #[tokio::test]
    async fn the_output_of_a_released_shuffle_goes_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (mut owner, _inbox) = owner(directory.path(), "cat > /dev/null");
        command(&mut owner, start(1, Program::BuiltIn { name: "wordcount".to_owned() }, 0));
        let at = |name: &str| directory.path().join("jobs/job-1/work").join(name);
        for name in ["shuffle-3", "shuffle-4"] {
            std::fs::create_dir_all(at(name)).unwrap();
            std::fs::write(at(name).join("partition-0-attempt-0"), "x").unwrap();
        }
        let shuffles = vec![situ_wire::ids::ShuffleId(ScopeId::ROOT, 3)];
        command(&mut owner, ExecutorCommand::Release { job: JobId(1), shuffles });
        std::mem::take(&mut owner.removals).ended().await;
        assert!(!at("shuffle-3").exists() && at("shuffle-4").exists());
    }

    #[tokio::test]
    async fn a_fetched_program_that_no_job_uses_makes_place() {
        let directory = tempfile::tempdir().unwrap();
        let programs = directory.path().join("programs");
        let at = |name: &str| programs.join(blake3::hash(name.as_bytes()).to_hex().as_str());
        std::fs::create_dir(&programs).unwrap();
        for name in ["a", "b"] {
            std::fs::write(at(name), name).unwrap();
        }
        let start = |job, name: &str, attempt| {
            let path = format!("/{name}").parse().unwrap();
            let hash = *blake3::hash(name.as_bytes()).as_bytes();
            start(job, Program::Stored { name: name.to_owned(), path, hash }, attempt)
        };
        let (mut owner, _inbox) = owner(directory.path(), "cat > /dev/null");
        command(&mut owner, start(1, "a", 0));
        command(&mut owner, start(2, "b", 0));
        owner.config.programs_kept = 1;
        command(&mut owner, start(2, "b", 1));
        std::mem::take(&mut owner.removals).ended().await;
        assert!(at("a").exists() && at("b").exists(), "both are in use");
        command(&mut owner, ExecutorCommand::EndJob { job: JobId(1) });
        command(&mut owner, start(2, "b", 2));
        std::mem::take(&mut owner.removals).ended().await;
        assert!(!at("a").exists() && at("b").exists());
    }
}
