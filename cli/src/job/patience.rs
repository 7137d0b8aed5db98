//! Asking about a job that is known to exist, however long its scheduler is away.

use std::time::{Duration, Instant};

use situ_client::ClientError;
use situ_client::scheduler::Scheduler;
use situ_runtime::real::RealRuntime;
use situ_wire::error::Retry;
use situ_wire::ids::JobId;

use crate::error::{CliError, CliResult};
use crate::session::Session;
use crate::show::note;

/// How long a scheduler that is away is left alone before it is asked again.
const REST: Duration = Duration::from_secs(1);
/// How often it is said that it is still away.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Whoever asks about a job. A job goes on without its scheduler and is known to it when it is back: so that is waited for
/// without limit, at the address that the client's configuration says by then.
pub(super) struct Patience<'a> {
    session: &'a Session,
    job: JobId,
    /// Since when the scheduler has been away, and when that was said last.
    away: Option<(Instant, Instant)>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(session: &'a Session, job: JobId) -> Self {
        Self { session, job, away: None }
    }

    /// What the scheduler answers, when it does.
    ///
    /// # Errors
    /// What it refuses; and when it and this client do not understand or trust each other, which no wait can mend: that
    /// says nothing of the job.
    pub(super) async fn ask<T>(
        &mut self,
        question: impl AsyncFn(Scheduler<RealRuntime>) -> Result<T, ClientError>,
    ) -> CliResult<T> {
        loop {
            let error = match question(self.session.client.scheduler().asked_once()).await {
                Ok(answer) => {
                    self.is_back();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let has_moved = self.session.find_again().await;
            if error.retry() != Retry::Later && !has_moved {
                if matches!(error, ClientError::Refused { .. }) {
                    return Err(error.into());
                }
                return Err(CliError::failed(format!(
                    "{error}; how {} goes is not known: {}",
                    self.job,
                    goes_on(self.job)
                )));
            }
            self.is_away(&error);
            if !has_moved {
                tokio::time::sleep(REST).await;
            }
        }
    }

    fn is_away(&mut self, error: &ClientError) {
        let now = Instant::now();
        match &mut self.away {
            None => {
                self.away = Some((now, now));
                note(format!("{error}; {} goes on and is asked for until the scheduler is back", self.job));
            }
            Some((since, said)) if now.duration_since(*said) >= SAY_EVERY => {
                *said = now;
                let away_s = now.duration_since(*since).as_secs();
                note(format!("the scheduler has been away for {away_s} s: {error}; {} goes on", self.job));
            }
            Some(_) => {}
        }
    }

    fn is_back(&mut self) {
        if let Some((since, _)) = self.away.take() {
            note(format!("the scheduler is back after {} s", since.elapsed().as_secs()));
        }
    }
}

/// What to do for a job that is not waited for any more.
pub(super) fn goes_on(job: JobId) -> String {
    let number = job.0;
    format!("{job} goes on: `situ job wait {number}` waits for it, `situ job kill {number}` ends it")
}
