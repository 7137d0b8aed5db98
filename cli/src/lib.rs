//! The `situ` command.
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | what can be said on the command line |
//! | [`quickstart`] | the main job, shown from end to end |
//! | [`up`] | a whole cluster on one machine |
//! | [`roles`] | each role as a process of its own |
//! | [`fs`], [`job`], [`admin`] | files, jobs, and a look at the cluster |
//! | [`chaos`] | kills and stops parts of a cluster and checks what was promised |
//! | [`ca`] | certificates |
//! | [`session`] | which cluster a command talks to |
//! | [`show`], [`error`], [`world`] | the screen, what fails, and this process's place in the world |

pub mod admin;
pub mod args;
pub mod ca;
pub mod chaos;
mod duration;
pub mod error;
pub mod fs;
pub mod job;
pub mod quickstart;
pub mod roles;
pub mod session;
pub mod show;
pub mod up;
pub mod world;

use std::process::ExitCode;

use args::{AdminCommand, ChaosCommand, Command, Situ};
use clap::Parser;
use error::{CliError, CliResult};
use session::Session;

/// Runs the command that the process's arguments name. Ends with 0 if it is done, 1 if it failed, 2 if it was used
/// wrongly.
pub fn main() -> ExitCode {
    let situ = Situ::parse();
    // A program of a job has a runtime of its own.
    if let Command::Program(args) = &situ.command
        && let Some((name, arguments)) = args.command.split_first()
    {
        return chaos::run_program(name, arguments).unwrap_or_else(|| situ_compute::builtin::run(name, arguments));
    }
    // Nor has what holds one, which waits for ends on threads of its own.
    if matches!(situ.command, Command::Shim) {
        return situ_compute::executor::shim();
    }
    situ_runtime::real::keep_freed_memory();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&situ, Err(CliError::failed(format!("cannot start: {error}")))),
    };
    let result = runtime.block_on(run(&situ));
    // A thread that still reads standard input must not keep the process.
    runtime.shutdown_background();
    end(&situ, result)
}

/// How many threads a command needs beside those that block.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 16)
}

fn end(situ: &Situ, result: CliResult) -> ExitCode {
    result.map_or_else(
        |error| {
            error.say(situ.json);
            error.exit_code()
        },
        |()| ExitCode::SUCCESS,
    )
}

async fn run(situ: &Situ) -> CliResult {
    let json = situ.json;
    match &situ.command {
        Command::Namenode(args) => return roles::namenode(args).await,
        Command::Datanode(args) => return roles::datanode(args).await,
        Command::Scheduler(args) => return roles::scheduler(args).await,
        Command::Executor(args) => return roles::executor(args).await,
        _ => world::start_log("error"),
    }
    match &situ.command {
        Command::Quickstart(args) => quickstart::run(args, json).await,
        Command::Up(args) => up::watch::up(args, json).await,
        Command::Chaos(ChaosCommand::Kills(args)) => chaos::kills(args, json).await,
        Command::Chaos(ChaosCommand::Rounds(args)) => chaos::rounds(args, json).await,
        Command::Ca(command) => ca::run(command, json),
        command => {
            if let Command::Job(command) = command {
                job::check(command)?;
            }
            let session = Session::open(situ.cluster.as_deref()).await?;
            match command {
                Command::Fs(command) => fs::run(&session, command, json).await,
                Command::Job(command) => job::run(&session, command, json).await,
                Command::Admin(AdminCommand::Report) => admin::report(&session, json).await,
                Command::Admin(AdminCommand::Safemode { action }) => admin::safe_mode(&session, *action, json).await,
                Command::Fsck(args) => admin::fsck(&session, args, json).await,
                _ => Err(CliError::usage("not a command of a cluster")),
            }
        }
    }
}
