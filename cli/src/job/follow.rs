//! Waiting for a job's end while showing how it goes.

use std::time::Duration;

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobStatus;

use crate::error::CliResult;
use crate::session::Session;
use crate::show::Progress;

/// How long one question waits for news.
const POLL: Duration = Duration::from_secs(20);

/// Waits until a job has ended; `seen` is told each new state on the way. Shows a bar on a terminal if `shown`.
///
/// # Errors
/// When the scheduler cannot be asked for too long, or does not know the job.
pub async fn follow(
    session: &Session,
    job: JobId,
    shown: bool,
    mut seen: impl FnMut(&JobStatus),
) -> CliResult<JobStatus> {
    let bar = Progress::count("tasks", 0, shown);
    let mut revision = 0;
    loop {
        let status = session.client.scheduler().changed_status(job, revision, POLL).await?;
        if status.revision != revision || revision == 0 {
            seen(&status);
        }
        revision = status.revision;
        let (done, total) = status
            .stages
            .iter()
            .fold((0, 0), |(done, total), stage| (done + u64::from(stage.done), total + u64::from(stage.tasks)));
        bar.set(done, total);
        if let Some(stage) = status.stages.iter().find(|stage| stage.done < stage.tasks) {
            bar.message(&stage.name);
        }
        if status.summary.state.is_final() {
            return Ok(status);
        }
    }
}
