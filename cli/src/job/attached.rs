//! `situ job submit --client`: this process becomes the driver.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::{Path, absolute};
use std::process::Command;

use situ_compute::program::environment::{self, Environment, ProcessRole};
use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{Attachment, JobOptions};

use super::programs::Stored;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::Session;
use crate::show as screen;

/// Submits a job, and becomes its driver: the program at `path`, with this process's streams, which ends as it does.
///
/// # Errors
/// When the job is not taken, or the program cannot be run here; the job is ended then.
pub(super) async fn drive(
    session: &Session,
    path: &Path,
    stored: &Stored,
    arguments: Vec<String>,
    options: JobOptions,
    json: bool,
) -> CliResult {
    // A name without a directory is one in this directory, not one to be searched for.
    let path = path.canonicalize().local("cannot find the program", path)?;
    let scheduler = session.client.scheduler();
    let (job, attachment) = scheduler.submit_attached(stored.program.clone(), arguments.clone(), options).await?;
    if !json {
        screen::note(format!("{job}"));
    }
    stored.keep(session, job).await;
    let Err(reason) = become_driver(session, job, attachment, &path, &arguments, options);
    scheduler.kill(job, format!("its client could not become its driver: {reason}")).await?;
    Err(CliError::failed(format!("{}: cannot be run here: {reason}", path.display())))
}

/// Gives this process to the program, as the driver of a job; why not, if it cannot.
fn become_driver(
    session: &Session,
    job: JobId,
    attachment: Attachment,
    path: &Path,
    arguments: &[String],
    options: JobOptions,
) -> Result<Infallible, String> {
    let config = session.client.config();
    let credentials = config.credentials.as_deref().map(absolute).transpose().map_err(|error| error.to_string())?;
    let environment = Environment {
        role: ProcessRole::Driver { attempt: attachment.attempt },
        job,
        secret: attachment.secret,
        user: session.client.connector().identity().name.clone(),
        scheduler: config.scheduler.ok_or("the configuration of the cluster names no scheduler")?,
        namenode: config.namenode,
        cluster: config.cluster,
        node: config.node.clone(),
        credentials,
        check_replay: options.check_replay,
        build: None,
    };
    let mut command = Command::new(path);
    command.args(arguments);
    for name in environment::ALL {
        command.env_remove(name);
    }
    command.envs(environment.to_variables());
    Err(command.exec().to_string())
}
