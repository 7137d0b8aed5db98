//! Waiting for a job's end while showing how it goes.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobStatus;

use super::patience::Patience;
use super::waiting;
use crate::error::CliResult;
use crate::session::Session;
use crate::show::{Progress, note};

/// How long one question waits for news.
const POLL: Duration = Duration::from_secs(20);
/// After how long without news it is said what the job waits for.
const SILENCE: Duration = Duration::from_secs(3);
/// After how long the next line is due that says how far the job is.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The same when a stage has ended: many short ones must not make many lines.
const LINE_AFTER_STAGE: Duration = Duration::from_secs(1);

/// Waits until a job has ended; `seen` is told each new state on the way. If `shown`, shows a bar on a terminal and
/// elsewhere a line now and then, and says what the job waits for when nothing moves. A scheduler that is away is waited
/// for without limit.
///
/// # Errors
/// When the scheduler does not know the job, or it and this client do not understand or trust each other.
pub async fn follow(
    session: &Session,
    job: JobId,
    shown: bool,
    mut seen: impl FnMut(&JobStatus),
) -> CliResult<JobStatus> {
    let bar = Progress::count("tasks", 0, shown);
    let mut lines = (shown && !std::io::stderr().is_terminal()).then(|| Lines::new(Instant::now()));
    let mut patience = Patience::new(session, job);
    let (mut revision, mut told) = (0, false);
    loop {
        let wait = if told { POLL } else { SILENCE };
        let status = patience.ask(async |scheduler| scheduler.changed_status(job, revision, wait).await).await?;
        if status.revision != revision || revision == 0 {
            seen(&status);
            told = false;
        } else if !told && let Some(lacks) = &status.waiting {
            note(format!("{job} waits for {}", waiting::text(lacks, waiting::now())));
            told = true;
        }
        revision = status.revision;
        let (done, total) = status
            .stages
            .iter()
            .fold((0, 0), |(done, total), stage| (done + u64::from(stage.done), total + u64::from(stage.tasks)));
        bar.set(done, total);
        let current = status.stages.iter().find(|stage| stage.done < stage.tasks);
        if let Some(stage) = current {
            bar.message(&stage.name);
        }
        if status.summary.state.is_final() {
            return Ok(status);
        }
        let ended = status.stages.iter().filter(|stage| stage.done == stage.tasks).count() as u64;
        if let Some(lines) = &mut lines
            && total > 0
            && lines.is_due(Instant::now(), status.stages_dropped + ended)
        {
            let now = current.map_or_else(String::new, |stage| format!(", now {}", stage.name));
            note(format!("{job}: {done} of {total} tasks done{now}"));
        }
    }
}

/// When to say how far a job is where no bar can be drawn: when a stage has ended, and every few seconds.
struct Lines {
    said: Instant,
    /// How many stages had ended then.
    ended: u64,
}

impl Lines {
    fn new(now: Instant) -> Self {
        Self { said: now, ended: 0 }
    }

    /// Whether a line is due, which counts as said then.
    fn is_due(&mut self, now: Instant, ended: u64) -> bool {
        let rest = if ended > self.ended { LINE_AFTER_STAGE } else { LINE_EVERY };
        let due = now.duration_since(self.said) >= rest;
        if due {
            *self = Self { said: now, ended };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_every_few_seconds_and_when_a_stage_has_ended() {
        let begun = Instant::now();
        let mut lines = Lines::new(begun);
        let mut due = |after_ms, ended| lines.is_due(begun + Duration::from_millis(after_ms), ended);
        assert!(!due(500, 1), "a short job says nothing");
        assert!(due(1_000, 1) && !due(1_500, 1));
        assert!(!due(1_900, 2) && due(2_000, 2), "a stage that ended too soon is told later");
        assert!(!due(11_999, 2) && due(12_000, 2));
    }
}
