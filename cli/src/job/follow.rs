//! Waiting for a job's end while showing how it goes.

use std::time::Duration;

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobStatus;

use super::waiting;
use crate::error::CliResult;
use crate::session::Session;
use crate::show::{Progress, note};

/// How long one question waits for news.
const POLL: Duration = Duration::from_secs(20);
/// After how long without news it is asked what the job waits for.
const SILENCE: Duration = Duration::from_secs(3);

/// Waits until a job has ended; `seen` is told each new state on the way. Shows a bar on a terminal if `shown`, and says
/// what the job waits for when nothing moves.
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
    let (mut revision, mut told) = (0, false);
    loop {
        let wait = if told { POLL } else { SILENCE };
        let status = session.client.scheduler().changed_status(job, revision, wait).await?;
        if status.revision != revision || revision == 0 {
            seen(&status);
            told = false;
        } else if !told && let Some(lacks) = waiting::why(session, &status).await? {
            note(format!("{job} waits for {lacks}"));
            told = true;
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
