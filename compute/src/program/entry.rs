use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use situ_runtime::Runtime;
use situ_runtime::real::{RealRuntime, keep_freed_memory};
use situ_runtime::security::Credentials;
use situ_wire::error::ErrorCode;
use situ_wire::messages::executor::ProcessLife;
use situ_wire::path::DfsPath;
use tokio::io::AsyncReadExt;

use super::at_client;
use super::cluster::{Cluster, ClusterFiles};
use super::environment::{CUT_OFF, Environment, ProcessRole, SHIM};
use super::error::{ProgramResult, StorageError};
use super::heartbeat;
use super::replay::Failure;
use super::runs::{Run, STACK_LEN_BYTES};
use super::session::Session;
use super::task::unwound;
use super::worker::Worker;
use crate::dataset::{self, Context};
use crate::engine::{Engine, Engines};

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
/// So whatever `program` does between two actions happens in every process of the job: `println!` prints into the worker's
/// log, a file that is written is written on every node. And it must come to the same there: what is another in each run, as
/// the time, a random number or the order of a `HashMap`, enters through [`Context::once`], [`Context::share`],
/// [`Context::broadcast`] or the result of an action. With `situ job submit --check-replay`, and always when it was built
/// without `--release`, each worker runs the program twice and compares what both runs compute.
///
/// With `situ job submit --client` the driver runs in the terminal of who submits it, with its standard input and output.
/// Workers have nothing to read: what the driver reads becomes theirs through [`Context::once`].
///
/// Therefore `program` is called any number of times, from several threads at once, and cannot give away what it has captured
/// (the compiler says E0507, "cannot move out of a captured variable in an `Fn` closure"): what it takes apart it clones
/// first. What may happen only once, as reading standard input, belongs into [`Context::once`], or into `main` if every
/// process may do it.
///
/// ```no_run
/// # use std::process::ExitCode;
/// fn main() -> ExitCode {
///     let stop_words = vec!["the".to_owned(), "a".to_owned()];
///     situ_compute::run(move |context, arguments| {
///         let stop_words = stop_words.clone(); // not the captured one itself
///         let words = context.words(&arguments[0])?;
///         let kept = words.filter(move |word| !stop_words.iter().any(|stop| stop.as_bytes() == &word[..]));
///         kept.save_as_text_file(&arguments[1])?;
///         Ok(())
///     })
/// }
/// ```
///
/// A driver leaves by returning from here: one that calls [`std::process::exit`] ends without a word, and its job fails, with
/// `--client` only when it has not been heard for `session_ms`.
///
/// Started by hand it says how to submit it, and returns 2.
pub fn run(program: impl Fn(&Context, &[String]) -> ProgramResult + Sync) -> ExitCode {
    run_erased(None, Engines::default(), &program)
}

/// As [`run`], with the arguments that the program gets.
pub fn run_with(arguments: &[String], program: impl Fn(&Context, &[String]) -> ProgramResult + Sync) -> ExitCode {
    run_erased(Some(arguments), Engines::default(), &program)
}

/// A program that brings engines for the work of its stages (see [`crate::engine`]).
///
/// ```no_run
/// # use bytes::Bytes;
/// # use situ_compute::engine::{Engine, Output, TaskContext, TaskError, Work};
/// struct Lengths;
///
/// impl Engine for Lengths {
///     fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError> {
///         Ok(Output::result(format!("{} bytes in {}", work.len(), task.partition())))
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     let program = situ_compute::Program::new(|context, _| {
///         let said = context.stage("lengths", 4, Work::new("lengths", "some work")).run()?;
///         println!("{said:?}");
///         Ok(())
///     });
///     program.engine("lengths", Lengths).run()
/// }
/// ```
pub struct Program<F> {
    main: F,
    engines: Engines,
}

impl<F> std::fmt::Debug for Program<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").field("engines", &self.engines).finish_non_exhaustive()
    }
}

impl<F: Fn(&Context, &[String]) -> ProgramResult + Sync> Program<F> {
    /// A program as for [`run`], without engines.
    pub fn new(main: F) -> Self {
        Self { main, engines: Engines::default() }
    }

    /// The work of stages whose kind is `kind` is run by `engine`.
    #[must_use]
    pub fn engine(mut self, kind: &str, engine: impl Engine) -> Self {
        self.engines = self.engines.with(kind, engine);
        self
    }

    /// Runs it: what `main` calls and returns, as [`run`].
    pub fn run(self) -> ExitCode {
        run_erased(None, self.engines, &self.main)
    }
}

/// A program behind a pointer: nothing below here knows its type, so that all of it, the network stack too, is compiled
/// once, with this crate, and not again in every program.
type ErasedProgram<'a> = &'a (dyn Fn(&Context, &[String]) -> ProgramResult + Sync);

/// Runs a program with `arguments`, or with those of the process.
fn run_erased(arguments: Option<&[String]>, engines: Engines, program: ErasedProgram<'_>) -> ExitCode {
    let own: Result<Vec<String>, _> = match arguments {
        Some(arguments) => Ok(arguments.to_vec()),
        None => std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect(),
    };
    match own {
        Ok(arguments) => on_cluster(|cluster| play(cluster, engines, &|context| program(context, &arguments))),
        Err(argument) => complain(&format!("the argument {argument:?} is not UTF-8")),
    }
}

/// A program that has its arguments.
type Main<'a> = &'a (dyn Fn(&Context) -> ProgramResult + Sync);

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
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NETWORK_THREADS)
        .thread_stack_size(STACK_LEN_BYTES)
        .enable_all()
        .build();
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

/// Says on standard error, the log of a job's process, why it fails.
pub(super) fn fail(message: &str) -> ExitCode {
    // A terminal that was closed takes no more, and the exit code still tells.
    let _ = writeln!(std::io::stderr(), "error: {message}");
    ExitCode::FAILURE
}

pub(super) fn connect(environment: Environment) -> Result<Arc<Cluster<RealRuntime>>, String> {
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
fn play(cluster: &Arc<Cluster<RealRuntime>>, engines: Engines, program: Main<'_>) -> ExitCode {
    match cluster.environment.role.clone() {
        ProcessRole::Driver { attempt } => drive(cluster, attempt, program),
        ProcessRole::Worker { executor, work_dir, slots, memory_bytes, life } => {
            let worker = Worker::new(Arc::clone(cluster), engines, &work_dir, slots, memory_bytes);
            work(&worker, executor, life, slots, program)
        }
    }
}

fn drive(cluster: &Arc<Cluster<RealRuntime>>, attempt: u32, program: Main<'_>) -> ExitCode {
    let session = match Session::begin(Arc::clone(cluster), attempt) {
        Ok(session) => session,
        Err(error) => return cut_off_or_failed(cluster, &format!("the driver cannot begin: {error}")),
    };
    let ends = Arc::new(AtomicBool::new(false));
    at_client::watch_loss(cluster, &session, &ends);
    if session.is_attached() {
        at_client::watch_signals(cluster, &ends);
    }
    let context = session.context();
    let error = std::thread::scope(|scope| match on_thread(scope, cluster, || run_program(context, program)) {
        Ok(running) => running.join().unwrap_or_else(|payload| Err(unwound(payload))).err(),
        Err(error) => Some(error),
    });
    if ends.swap(true, Ordering::SeqCst) {
        // Whoever ends the process has said why.
        cluster.handle.block_on(std::future::pending::<()>());
    }
    if cluster.is_cut_off() && !session.is_attached() {
        // What the program came to need not be its own doing: nobody is told that.
        return cut_off_or_failed(cluster, error.as_deref().unwrap_or("the scheduler was away for too long"));
    }
    let error = error.or_else(|| session.untold());
    let code = match &error {
        None => ExitCode::SUCCESS,
        Some(error) => fail(error),
    };
    match session.end(error) {
        Ok(()) => code,
        Err(error) => {
            cut_off_or_failed(cluster, &format!("the scheduler could not be told how the program ended: {error}"))
        }
    }
}

/// Says why a driver ends. If that is because the scheduler did not answer, its executor hears that another attempt may go
/// on; where there is none, its user that it has failed.
fn cut_off_or_failed(cluster: &Cluster<RealRuntime>, message: &str) -> ExitCode {
    let code = fail(message);
    let is_placed = std::env::var_os(SHIM).is_some();
    if is_placed && cluster.is_cut_off() { ExitCode::from(CUT_OFF) } else { code }
}

/// Runs a part of the program on a thread with a large stack.
fn on_thread<'scope, R: Runtime, O: Send + 'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    cluster: &'scope Cluster<R>,
    part: impl FnOnce() -> O + Send + 'scope,
) -> Result<std::thread::ScopedJoinHandle<'scope, O>, String> {
    let thread = std::thread::Builder::new().name("program".to_owned()).stack_size(STACK_LEN_BYTES);
    let part = || {
        let _inside = cluster.handle.enter();
        part()
    };
    thread.spawn_scoped(scope, part).map_err(|error| format!("no thread for the program: {error}"))
}

/// Runs the program; a panic in it is an error like another.
fn run_program(context: &Context, program: Main<'_>) -> Result<(), String> {
    context.take_over();
    match catch_unwind(AssertUnwindSafe(|| program(context))) {
        Ok(result) => {
            result.map_err(|error| error.to_string())?;
            context.end().map_err(|error| error.to_string())
        }
        Err(payload) => Err(format!("the program panicked: {}", unwound(payload))),
    }
}

/// Runs tasks until the executor says that this worker shall end, and the program beside them.
fn work<R: Runtime>(
    worker: &Arc<Worker<R>>,
    executor: SocketAddr,
    life: ProcessLife,
    slots: u32,
    program: Main<'_>,
) -> ExitCode {
    let cluster = Arc::clone(&worker.cluster);
    let serving = heartbeat::serve(Arc::clone(worker), executor, life, slots);
    cluster.runtime.spawn("heartbeat", async move {
        let result = serving.await;
        // The program may stand at an action that no task will ever pass: the process ends whatever it does, and its
        // tasks count for nothing any more.
        if let Err(error) = &result {
            fail(&format!("the worker gives up: {error}"));
        }
        std::process::exit(i32::from(result.is_err()));
    });
    let runs = &worker.runs;
    let follow = |run: &Run, whose: &str| {
        let result = run_program(&runs.context(run), program);
        if let Err(error) = &result {
            fail(&format!("the program failed in {whose}: {error}"));
        }
        run.replay.end(result.map_err(Failure::Program));
    };
    std::thread::scope(|scope| {
        let follow = &follow;
        let mut begun = vec![(&runs.first, on_thread(scope, &cluster, || follow(&runs.first, "this worker")))];
        if let Some(second) = &runs.second {
            begun.push((second, on_thread(scope, &cluster, move || follow(second, "a second run in this worker"))));
        }
        for (run, thread) in begun {
            if let Err(error) = thread {
                run.replay.end(Err(Failure::Program(error)));
            }
        }
        // Tasks may still come: earlier stages are computed again when their output is lost.
        cluster.handle.block_on(std::future::pending())
    })
}
