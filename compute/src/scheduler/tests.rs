//! The server in a simulated world: what it acknowledged outlives it, and a killed executor shows at once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_runtime::disk::Disk;
use situ_runtime::rpc::{Caller, Connector, Identity, RpcError};
use situ_runtime::sim::{SimRuntime, SimWorld};
use situ_runtime::transport::Transport;
use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, ClusterId, ExecutorId, JobId, NodeName, OperationId, RackName};
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{
    DriverPlace, ExecutorCommand, ExecutorEvent, ExecutorRegistration, JobLaunch, JobOptions, JobState, Program,
    Request, Response,
};

use super::{DirectoryError, SchedulerConfig, SchedulerError, SchedulerHandle, SchedulerServer};

const PATIENCE: Duration = Duration::from_secs(10);
const DIRECTORY: &str = "/scheduler";

type Scheduler = Caller<SimRuntime, Request, Response>;

async fn start_at(world: &SimWorld, cluster: ClusterId) -> Result<SchedulerHandle, SchedulerError> {
    let runtime = world.host("scheduler", &[Role::Scheduler]);
    let listener = runtime.transport().listen(SocketAddr::new(runtime.ip(), 9824)).await.unwrap();
    SchedulerServer::start(runtime, SchedulerConfig::new(DIRECTORY.into()), cluster, listener).await
}

async fn start(world: &SimWorld) -> SchedulerHandle {
    super::format(world.host("scheduler", &[Role::Scheduler]).disk(), Path::new(DIRECTORY), world.cluster()).unwrap();
    start_at(world, world.cluster()).await.unwrap()
}

async fn connect(world: &SimWorld, runtime: &SimRuntime, role: Role) -> Scheduler {
    let identity = Identity { cluster: world.cluster(), role, name: runtime.name().to_owned() };
    let connector = Connector::new(runtime.clone(), identity);
    let address = SocketAddr::new(world.ip("scheduler").unwrap(), 9824);
    loop {
        match connector.caller(address, Role::Scheduler).await {
            Ok(caller) => return caller,
            Err(_) => world.clock().sleep(Duration::from_millis(20)).await,
        }
    }
}

fn submit(sequence: u64) -> Request {
    Request::Submit {
        program: Program::BuiltIn { name: "pi".to_owned() },
        arguments: vec![sequence.to_string()],
        operation: OperationId { client: ClientId(1), sequence },
        options: JobOptions::default(),
        driver: DriverPlace::Placed,
    }
}

/// An executor that runs the drivers that it is given at once: each ends its job, every third with an error. Which jobs
/// the scheduler said have ended.
async fn execute(world: SimWorld, runtime: SimRuntime, ended: tokio::sync::mpsc::UnboundedSender<JobId>) {
    let id = ExecutorId(runtime.random_u128());
    let registration = ExecutorRegistration {
        id,
        node: NodeName(runtime.name().to_owned()),
        rack: RackName("r1".to_owned()),
        address: SocketAddr::new(runtime.ip(), 9825),
        slots: 1,
        worker_memory_bytes: 1 << 30,
        workers: 1,
    };
    loop {
        let scheduler = connect(&world, &runtime, Role::Executor).await;
        let mut seen = 0;
        if scheduler.call(&Request::ExecutorRegister(registration.clone()), PATIENCE).await.is_err() {
            continue;
        }
        loop {
            let poll = Request::ExecutorPoll { id, seen, events: Vec::<ExecutorEvent>::new(), progress: Vec::new() };
            let Ok(Response::Commands { last, commands }) = scheduler.call(&poll, PATIENCE).await else { break };
            for (_, command) in commands.into_iter().filter(|(number, _)| *number > seen) {
                if let ExecutorCommand::StartDriver { job, attempt } = command
                    && drive(&scheduler, &job, attempt).await.is_ok()
                {
                    // The test may have seen enough.
                    let _ = ended.send(job.job);
                }
            }
            seen = seen.max(last);
        }
    }
}

async fn drive(scheduler: &Scheduler, launch: &JobLaunch, attempt: u32) -> Result<(), RpcError> {
    let (job, secret) = (launch.job, launch.secret);
    scheduler.call(&Request::DriverBegin { job, secret, attempt }, PATIENCE).await?;
    let error = job.0.is_multiple_of(3).then(|| "three is too much".to_owned());
    scheduler.call(&Request::DriverEnd { job, secret, attempt, error }, PATIENCE).await.map(|_| ())
}

fn end_of(job: JobId) -> JobState {
    if job.0.is_multiple_of(3) {
        JobState::Failed { reason: "three is too much".to_owned() }
    } else {
        JobState::Succeeded
    }
}

async fn list(scheduler: &Scheduler) -> Vec<(JobId, JobState)> {
    match scheduler.call(&Request::List { before: None }, PATIENCE).await.unwrap() {
        Response::Jobs { jobs, .. } => jobs.into_iter().map(|job| (job.job, job.state)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Submits jobs until the power is cut at some moment; what was acknowledged is there afterwards, and whatever had not
/// ended ends then.
fn power_cut(seed: u64) -> usize {
    SimWorld::run(seed, async |world| {
        let handle = start(&world).await;
        let executor = world.host("n1", &[Role::Executor]);
        let (ended_sender, mut ended_inbox) = tokio::sync::mpsc::unbounded_channel();
        executor.spawn("executor", execute(world.clone(), executor.clone(), ended_sender));
        let user = world.host("ada", &[Role::User]);
        let (submitted_sender, mut submitted_inbox) = tokio::sync::mpsc::unbounded_channel();
        let submitting = connect(&world, &user, Role::User).await;
        let clock = user.clock().clone();
        let submitter = user.spawn("submit", async move {
            for sequence in 0.. {
                let Ok(Response::Submitted { job, .. }) = submitting.call(&submit(sequence), PATIENCE).await else {
                    return;
                };
                if submitted_sender.send((sequence, job)).is_err() {
                    return;
                }
                clock.sleep(Duration::from_millis(1)).await;
            }
        });
        world.clock().sleep(Duration::from_millis(seed % 41)).await;
        for _ in 0..seed % 17 {
            tokio::task::yield_now().await;
        }
        world.crash("scheduler");
        drop(handle);
        submitter.join().await;
        let submitted: Vec<(u64, JobId)> = std::iter::from_fn(|| submitted_inbox.try_recv().ok()).collect();
        let ended: Vec<JobId> = std::iter::from_fn(|| ended_inbox.try_recv().ok()).collect();

        let _handle = start(&world).await;
        let scheduler = connect(&world, &user, Role::User).await;
        let known = list(&scheduler).await;
        for job in &ended {
            assert!(known.contains(&(*job, end_of(*job))), "seed {seed}: the end of {job} is lost: {known:?}");
        }
        for (sequence, job) in &submitted {
            assert!(known.iter().any(|(other, _)| other == job), "seed {seed}: {job} is lost: {known:?}");
            let again = scheduler.call(&submit(*sequence), PATIENCE).await.unwrap();
            assert_eq!(
                again,
                Response::Submitted { job: *job, attachment: None },
                "seed {seed}: a retry is the same job"
            );
        }
        // The executor registers with the new life, and all that was unfinished runs.
        let mut seen = Vec::new();
        while seen.len() < known.len() {
            seen = list(&scheduler).await;
            seen.retain(|(_, state)| state.is_final());
            world.clock().sleep(Duration::from_millis(50)).await;
        }
        for (job, state) in &seen {
            assert_eq!(*state, end_of(*job), "seed {seed}");
        }
        submitted.len()
    })
}

#[test]
fn a_power_cut_loses_no_acknowledged_submission_and_no_end() {
    let acknowledged: usize = (0..60).map(power_cut).sum();
    assert!(acknowledged > 100, "only {acknowledged} submissions: the test shows nothing");
}

#[test]
fn a_restart_keeps_finished_jobs_and_their_status() {
    SimWorld::run(1, async |world| {
        let handle = start(&world).await;
        let executor = world.host("n1", &[Role::Executor]);
        let (ended_sender, mut ended) = tokio::sync::mpsc::unbounded_channel();
        executor.spawn("executor", execute(world.clone(), executor.clone(), ended_sender));
        let user = world.host("ada", &[Role::User]);
        let scheduler = connect(&world, &user, Role::User).await;
        scheduler.call(&submit(1), PATIENCE).await.unwrap();
        assert_eq!(ended.recv().await, Some(JobId(1)));
        let status = Request::Status { job: JobId(1), seen: 0 };
        let before = scheduler.call(&status, PATIENCE).await.unwrap();
        handle.shutdown().await;
        let _handle = start(&world).await;
        let scheduler = connect(&world, &user, Role::User).await;
        assert_eq!(scheduler.call(&status, PATIENCE).await.unwrap(), before);
    });
}

#[test]
fn an_executor_that_is_killed_is_dead_soon() {
    SimWorld::run(2, async |world| {
        let _handle = start(&world).await;
        let executor = world.host("n1", &[Role::Executor]);
        executor.spawn("executor", execute(world.clone(), executor.clone(), tokio::sync::mpsc::unbounded_channel().0));
        let user = world.host("ada", &[Role::User]);
        let scheduler = connect(&world, &user, Role::User).await;
        let liveness = async || match scheduler.call(&Request::Executors, PATIENCE).await.unwrap() {
            Response::Executors(executors) => executors.iter().map(|executor| executor.liveness).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        world.clock().sleep(Duration::from_secs(5)).await;
        assert_eq!(liveness().await, [Liveness::Live]);
        world.kill("n1");
        world.clock().sleep(Duration::from_millis(100)).await;
        assert_eq!(liveness().await, [Liveness::Suspect]);
        world.clock().sleep(Duration::from_millis(1_000)).await;
        assert_eq!(liveness().await, [Liveness::Dead]);
    });
}

#[test]
fn rubbish_and_wrong_callers_are_refused() {
    SimWorld::run(3, async |world| {
        let _handle = start(&world).await;
        let user = world.host("ada", &[Role::User]);
        let scheduler = connect(&world, &user, Role::User).await;
        let poll = Request::ExecutorPoll { id: ExecutorId(1), seen: 0, events: Vec::new(), progress: Vec::new() };
        let error = scheduler.call(&poll, PATIENCE).await.unwrap_err();
        assert_eq!(error.remote().unwrap().code, ErrorCode::PermissionDenied);
        let identity = Identity { cluster: world.cluster(), role: Role::User, name: "ada".to_owned() };
        let address = SocketAddr::new(world.ip("scheduler").unwrap(), 9824);
        let connector = Connector::new(user.clone(), identity);
        let rubbish: Caller<SimRuntime, [u64; 3], Response> = connector.caller(address, Role::Scheduler).await.unwrap();
        let error = rubbish.call(&[u64::MAX; 3], PATIENCE).await.unwrap_err();
        assert_eq!(error.remote().unwrap().code, ErrorCode::Malformed);
    });
}

#[test]
fn a_directory_is_one_scheduler_s_and_one_cluster_s() {
    SimWorld::run(4, async |world| {
        let first = start(&world).await;
        let runtime = world.host("other", &[Role::Scheduler]);
        drop(first);
        let error = start_at(&world, ClusterId(9)).await.unwrap_err();
        let expected = DirectoryError::WrongCluster {
            directory: DIRECTORY.into(),
            found: world.cluster(),
            expected: ClusterId(9),
        };
        assert!(matches!(error, SchedulerError::Directory(found) if found == expected));
        let disk = runtime.disk();
        let make = || super::format(disk, Path::new(DIRECTORY), world.cluster());
        let take = || super::directory::take(disk, Path::new(DIRECTORY), world.cluster()).map(|_| ()).unwrap_err();
        // A directory that is gone, or only the mount point of one, is not taken for a new one.
        for directory in [None, Some(DIRECTORY), Some("/scheduler/lost+found")] {
            directory.into_iter().for_each(|directory| disk.create_directory(Path::new(directory)).unwrap());
            let error = take().to_string();
            assert!(error.contains("/scheduler is not a scheduler's directory: expected its VERSION file"), "{error}");
        }
        disk.write_atomically(&Path::new(DIRECTORY).join("thesis.txt"), b"mine").unwrap();
        let error = make().unwrap_err();
        assert!(error.to_string().contains("holds \"thesis.txt\""), "{error}");
        disk.remove_file(&Path::new(DIRECTORY).join("thesis.txt")).unwrap();
        assert_eq!((make().unwrap(), make().unwrap()), (true, false));
        let lock = super::directory::take(disk, Path::new(DIRECTORY), world.cluster()).unwrap();
        let error = take();
        assert!(error.to_string().contains("another process uses this directory"), "{error}");
        drop(lock);
        disk.write_atomically(&Path::new(DIRECTORY).join("VERSION"), b"situ-scheduler\nlayout 1\n").unwrap();
        let error = take();
        assert!(error.to_string().contains("says layout 1, this program knows layout 2"), "{error}");
    });
}
