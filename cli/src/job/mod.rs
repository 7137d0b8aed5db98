//! `situ job`: programs that run where the blocks are.

mod attached;
mod follow;
mod logs;
mod patience;
mod programs;
mod show;
mod strip;
mod waiting;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use situ_compute::builtin;
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{JobOptions, JobState, Program};

use crate::args::{JobArgs, JobCommand, RunCommand, SubmitArgs};
use crate::error::{CliError, CliResult};
use crate::session::Session;
use crate::show as screen;

pub use follow::follow;
pub use show::{recovery_text, status_json};

/// Runs one command.
pub async fn run(session: &Session, command: &JobCommand, json: bool) -> CliResult {
    match command {
        JobCommand::Run(args) => {
            let (name, arguments) = built_in(&args.program);
            let options = options(false, args.task_limit);
            let program = Program::BuiltIn { name: name.to_owned() };
            let job = session.client.scheduler().submit_with(program, arguments, options).await?;
            finish(session, job, json).await
        }
        JobCommand::Submit(args) => {
            let (path, arguments) = program_of(args)?;
            let stored = programs::store(session, path, json).await?;
            if let Err(error) = programs::collect(session).await {
                screen::note(format!("programs that no job needs stay: {error}"));
            }
            let options = options(args.check_replay, args.task_limit);
            if args.client {
                return attached::drive(session, path, &stored, arguments, options, json).await;
            }
            let job = session.client.scheduler().submit_with(stored.program.clone(), arguments, options).await?;
            stored.keep(session, job).await;
            finish(session, job, json).await
        }
        JobCommand::List => show::list(session, json).await,
        JobCommand::Status(args) => show::status(session, parse(args)?, json).await,
        JobCommand::Wait(args) => {
            // Who waits for a job that is not there is told so, and nothing else.
            let job = session.client.scheduler().status(parse(args)?).await?.summary.job;
            finish(session, job, json).await
        }
        JobCommand::Kill(args) => kill(session, parse(args)?, json).await,
        JobCommand::Logs(args) => logs::all(session, parse(args)?, json).await,
    }
}

/// Checks what can be checked without a cluster.
///
/// # Errors
/// When the arguments of a built-in program are wrong.
pub fn check(command: &JobCommand) -> CliResult {
    let program = match command {
        JobCommand::Run(args) => &args.program,
        JobCommand::Submit(args) => return program_of(args).map(drop),
        _ => return Ok(()),
    };
    let (name, arguments) = built_in(program);
    match builtin::find(name) {
        Some(program) => program.check(&arguments).map_err(CliError::usage),
        None => Err(CliError::usage(format!("{name}: there is no built-in program of that name"))),
    }
}

/// Ends a job. As with `kill` and a process, there must be something to end.
async fn kill(session: &Session, job: JobId, json: bool) -> CliResult {
    let scheduler = session.client.scheduler();
    let before = scheduler.status(job).await?.summary.state;
    if before.is_final() {
        return Err(ended_already(job, &before));
    }
    scheduler.kill(job, "killed by its user").await?;
    // It may have come to its end at the same time.
    match scheduler.status(job).await?.summary.state {
        JobState::Killed { .. } if json => screen::json(&serde_json::json!({ "killed": job.0 })),
        JobState::Killed { .. } => screen::line(format!("{job} is killed")),
        other => Err(ended_already(job, &other)),
    }
}

fn ended_already(job: JobId, state: &JobState) -> CliError {
    CliError::failed(format!("{job} has ended already: {}; there is nothing to kill", show::state_word(state)))
}

fn parse(args: &JobArgs) -> CliResult<JobId> {
    args.job.parse().map_err(|_| CliError::usage(format!("{:?}: expected a job's number, as in job-7 or 7", args.job)))
}

fn built_in(command: &RunCommand) -> (&'static str, Vec<String>) {
    match command {
        RunCommand::Wordcount { input, output, reducers, recursive, plain } => {
            let mut arguments = vec![input.clone(), output.clone()];
            if let Some(reducers) = reducers {
                arguments.extend(["--reducers".to_owned(), reducers.clone()]);
            }
            arguments.extend(recursive.then(|| "--recursive".to_owned()));
            arguments.extend(plain.then(|| "--plain".to_owned()));
            ("wordcount", arguments)
        }
        RunCommand::Pi { partitions, points } => ("pi", vec![partitions.clone(), points.clone()]),
        RunCommand::Grep { pattern, input, output, recursive, plain } => {
            let mut arguments = vec![pattern.clone(), input.clone(), output.clone()];
            arguments.extend(recursive.then(|| "--recursive".to_owned()));
            arguments.extend(plain.then(|| "--plain".to_owned()));
            ("grep", arguments)
        }
    }
}

fn options(check_replay: bool, task_limit: Option<Duration>) -> JobOptions {
    let task_limit_ms = task_limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    JobOptions { task_limit_ms, check_replay }
}

/// The executable to submit, and its arguments, which the scheduler keeps as text.
fn program_of(args: &SubmitArgs) -> CliResult<(&Path, Vec<String>)> {
    let Some((program, arguments)) = args.command.split_first() else {
        return Err(CliError::usage("expected an executable to submit"));
    };
    let text = |argument: &OsString| match argument.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(CliError::usage(format!("the argument {argument:?} is not UTF-8"))),
    };
    Ok((Path::new(program), arguments.iter().map(text).collect::<CliResult<_>>()?))
}

/// Submits a job.
///
/// # Errors
/// When the scheduler does not take it.
pub async fn start(session: &Session, program: Program, arguments: Vec<String>) -> CliResult<JobId> {
    Ok(session.client.scheduler().submit(program, arguments).await?)
}

/// Waits for a job's end, shows how it goes, and says how it went.
async fn finish(session: &Session, job: JobId, json: bool) -> CliResult {
    // Before the job is named: whoever has read its name may end the waiting.
    session.interrupt.begin();
    if !json {
        screen::note(format!("{job}"));
    }
    let status = tokio::select! {
        status = follow(session, job, !json, |_| ()) => status?,
        () = session.interrupt.wait() => {
            return Err(CliError::interrupted(format!("interrupted; {}", patience::goes_on(job))));
        }
    };
    // How the job ended counts, even if what it printed cannot be shown.
    let printed = logs::driver_output(session, job, json).await;
    show::ending(&status, json).and(printed)
}
