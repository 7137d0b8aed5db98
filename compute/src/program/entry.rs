use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, RwLock};

use situ_runtime::Runtime;
use situ_runtime::real::{RealRuntime, keep_freed_memory};
use situ_runtime::security::Credentials;
use situ_wire::error::ErrorCode;
use situ_wire::messages::executor::ProcessLife;
use situ_wire::path::DfsPath;
use tokio::io::AsyncReadExt;

use super::cluster::{Cluster, ClusterFiles};
use super::driver::{self, DriverBackend};
use super::environment::{Environment, ProcessRole, SHIM};
use super::error::{ProgramResult, StorageError};
use super::heartbeat;
use super::task::panic_message;
use super::worker::{Worker, WorkerBackend};
use crate::dataset::{self, Context, Graph};

/// The exit code of a process that was not started as it should be.
const USAGE: u8 = 2;
/// The exit code of a process whose shim is gone.
const ORPHANED: i32 = 3;
/// How many threads serve the network. Tasks and the program run on others.
const NETWORK_THREADS: usize = 2;

/// Runs a program: what its `main` calls, and returns what it returns.
///
/// The process is started by an executor, as the driver of a job or as one of its workers; the program is the same. In a
/// driver, actions run on the cluster. In a worker, operations build the same graph, actions give the driver's results,
/// and tasks run beside it.
///
/// Started by hand it says how to submit it, and returns 2.
pub fn run(program: impl FnOnce(&Context, &[String]) -> ProgramResult) -> ExitCode {
    let arguments: Result<Vec<String>, _> = std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect();
    match arguments {
        Ok(arguments) => run_with(&arguments, program),
        Err(argument) => complain(&format!("the argument {argument:?} is not UTF-8")),
    }
}

/// As [`run`], with the arguments that the program gets.
pub fn run_with(arguments: &[String], program: impl FnOnce(&Context, &[String]) -> ProgramResult) -> ExitCode {
    on_cluster(|cluster| play(cluster, |context| program(context, arguments)))
}

/// Runs as a process of a job that has ended: takes away what the job wrote aside below `outputs` and did not publish.
/// What may not be deleted is told, and is no failure: the scheduler would have it tried for ever.
pub(crate) fn clean_up(outputs: &[String]) -> ExitCode {
    on_cluster(|cluster| {
        let files = ClusterFiles(Arc::clone(cluster));
        let job = cluster.environment.job.to_string();
        let mut code = ExitCode::SUCCESS;
        for output in outputs {
            let path = DfsPath::parse(output).map_err(StorageError::from);
            match path.and_then(|output| dataset::clean_up(&files, &output, &job)) {
                Ok(()) => {}
                Err(StorageError { code: ErrorCode::PermissionDenied, message }) => {
                    fail(&format!("it stays, because who submitted the job may not delete it: {message}"));
                }
                Err(error) => code = fail(&error.message),
            }
        }
        code
    })
}

/// Runs a part of a job as the executor that started this process says.
fn on_cluster(part: impl FnOnce(&Arc<Cluster<RealRuntime>>) -> ExitCode) -> ExitCode {
    keep_freed_memory();
    let environment = match Environment::from_variables(std::env::var_os) {
        Ok(Some(environment)) => environment,
        Ok(None) => {
            let name = std::env::current_exe().ok();
            let name = name.as_ref().map_or("./program".into(), |path| path.to_string_lossy());
            return complain(&format!(
                "this is a program for a Situ cluster, which starts it: submit it with `situ job submit {name} ...`"
            ));
        }
        Err(error) => return complain(&error.to_string()),
    };
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(NETWORK_THREADS).enable_all().build();
    let tokio = match tokio {
        Ok(tokio) => tokio,
        Err(error) => return complain(&format!("the process cannot start its threads: {error}")),
    };
    let code = {
        let _inside = tokio.enter();
        match connect(environment) {
            Ok(cluster) => match end_with_shim(&cluster.runtime) {
                Ok(()) => part(&cluster),
                Err(error) => complain(&format!("the pipe to its shim cannot be opened: {error}")),
            },
            Err(message) => complain(&message),
        }
    };
    // Threads that still do something stay where they are.
    tokio.shutdown_background();
    code
}

#[expect(clippy::print_stderr, reason = "standard error is the log of a job's process")]
fn complain(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::from(USAGE)
}

#[expect(clippy::print_stderr, reason = "standard error is the log of a job's process")]
fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}

fn connect(environment: Environment) -> Result<Arc<Cluster<RealRuntime>>, String> {
    let credentials = environment.credentials.as_deref().map(Credentials::load).transpose();
    let credentials = credentials.map_err(|error| error.to_string())?;
    let runtime = RealRuntime::new(credentials.as_ref()).map_err(|error| error.to_string())?;
    // Elsewhere only the name of the certificate counts.
    let name = credentials.map_or_else(|| environment.user.clone(), |credentials| credentials.name().to_owned());
    Ok(Cluster::new(runtime, tokio::runtime::Handle::current(), environment, name))
}

/// Ends the process when its shim is gone, which holds the other end of a pipe.
fn end_with_shim<R: Runtime>(runtime: &R) -> std::io::Result<()> {
    let Some(path) = std::env::var_os(SHIM) else { return Ok(()) };
    let mut pipe = tokio::net::unix::pipe::OpenOptions::new().open_receiver(path)?;
    runtime.spawn("shim", async move {
        let mut byte = [0];
        // Whatever were written there would mean nothing; an error means that it is closed.
        while matches!(pipe.read(&mut byte).await, Ok(1)) {}
        std::process::exit(ORPHANED);
    });
    Ok(())
}

/// Plays the process's part to its end.
fn play<R: Runtime>(cluster: &Arc<Cluster<R>>, program: impl FnOnce(&Context) -> ProgramResult) -> ExitCode {
    let graph = Arc::new(RwLock::new(Graph::default()));
    match cluster.environment.role.clone() {
        ProcessRole::Driver { attempt } => drive(cluster, graph, attempt, program),
        ProcessRole::Worker { work_dir, slots, memory_bytes, life } => {
            let worker = Worker::new(Arc::clone(cluster), graph, &work_dir, slots, memory_bytes);
            work(&worker, life, slots, program)
        }
    }
}

fn drive<R: Runtime>(
    cluster: &Arc<Cluster<R>>,
    graph: Arc<RwLock<Graph>>,
    attempt: u32,
    program: impl FnOnce(&Context) -> ProgramResult,
) -> ExitCode {
    let backend = match DriverBackend::begin(Arc::clone(cluster), attempt) {
        Ok(backend) => backend,
        Err(error) => return fail(&format!("the driver cannot begin: {error}")),
    };
    let context = Context::new(graph, Box::new(backend));
    let error = run_program(&context, program).err();
    let code = match &error {
        None => ExitCode::SUCCESS,
        Some(error) => fail(error),
    };
    match driver::end(cluster, attempt, error) {
        Ok(()) => code,
        Err(error) => fail(&format!("the scheduler could not be told how the program ended: {error}")),
    }
}

/// Runs the program; a panic in it is an error like another.
fn run_program(context: &Context, program: impl FnOnce(&Context) -> ProgramResult) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| program(context))) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(format!("the program panicked: {}", panic_message(payload.as_ref()))),
    }
}

/// Runs tasks until the executor says that this worker shall end, and the program beside them on this thread.
fn work<R: Runtime>(
    worker: &Arc<Worker<R>>,
    life: ProcessLife,
    slots: u32,
    program: impl FnOnce(&Context) -> ProgramResult,
) -> ExitCode {
    let cluster = Arc::clone(&worker.cluster);
    let serving = heartbeat::serve(Arc::clone(worker), life, slots);
    cluster.runtime.spawn("heartbeat", async move {
        let result = serving.await;
        // The program may stand at an action that no task will ever pass: the process ends whatever it does, and its
        // tasks count for nothing any more.
        if let Err(error) = &result {
            fail(&format!("the worker gives up: {error}"));
        }
        std::process::exit(i32::from(result.is_err()));
    });
    let context = Context::new(Arc::clone(&worker.graph), Box::new(WorkerBackend::new(worker)));
    let result = run_program(&context, program);
    if let Err(error) = &result {
        fail(&format!("the program failed in this worker: {error}"));
    }
    worker.replay.end(result);
    // Tasks may still come: earlier stages are computed again when their output is lost.
    cluster.handle.block_on(std::future::pending())
}
