//! What the processes of a job wrote.

use situ_wire::ids::JobId;
use situ_wire::messages::executor::LogName;
use situ_wire::messages::scheduler::{DriverPlace, JobState, LogLocation};

use crate::error::{CliError, CliResult};
use crate::session::Session;
use crate::show;

/// `situ job logs`. As with `cat`, what can be read is shown, and what cannot makes it end with 1.
pub(super) async fn all(session: &Session, job: JobId, json: bool) -> CliResult {
    let locations = session.client.scheduler().logs(job).await?;
    let status = session.client.scheduler().status(job).await?;
    if status.driver == DriverPlace::Attached {
        show::note(format!("{job}: its driver ran at its client, and what it wrote went there"));
        if locations.is_empty() {
            return Ok(());
        }
    }
    if locations.is_empty() {
        if status.summary.state == JobState::Waiting {
            show::note(format!("{job}: no logs yet: its driver has not begun"));
            return Ok(());
        }
        return Err(CliError::failed(format!(
            "{job}: no logs can be read: executors keep them, and none that ran it is live"
        )));
    }
    let all = locations.len() as u64;
    let (mut silent, mut unread) = (true, 0);
    for location in locations {
        let title = match location.log {
            LogName::DriverOut(attempt) => format!("driver, attempt {attempt}, standard output"),
            LogName::DriverErr(attempt) => format!("driver, attempt {attempt}, standard error"),
            LogName::Worker => "workers".to_owned(),
        };
        let text = match read(session, job, &location).await {
            Ok(text) => text,
            Err(error) => {
                show::note(format!("{} on {}: cannot be read: {error}", title, location.node));
                unread += 1;
                continue;
            }
        };
        if json {
            show::json(&serde_json::json!({
                "log": title, "node": location.node.0, "text": String::from_utf8_lossy(&text),
            }))?;
        } else if !text.is_empty() {
            silent = false;
            show::line(format!("== {title} on {}", location.node))?;
            show::out(&text)?;
            if !text.ends_with(b"\n") {
                show::line("")?;
            }
        }
    }
    if unread > 0 {
        return Err(CliError::failed(format!("{job}: {unread} of {} cannot be read", show::count(all, "log"))));
    }
    if silent && !json {
        show::note(format!("{job}: its processes wrote nothing"));
    }
    Ok(())
}

/// What the last attempt at the driver printed: the program's own result, so it goes to standard output.
pub(super) async fn driver_output(session: &Session, job: JobId, json: bool) -> CliResult {
    if json {
        return Ok(());
    }
    let locations = match session.client.scheduler().logs(job).await {
        Ok(locations) => locations,
        Err(error) => {
            show::note(format!("what the driver printed cannot be read: {error}; `situ job logs {}` shows it", job.0));
            return Ok(());
        }
    };
    let last = locations.into_iter().filter_map(|location| match location.log {
        LogName::DriverOut(attempt) => Some((attempt, location)),
        LogName::DriverErr(_) | LogName::Worker => None,
    });
    let Some((_, location)) = last.max_by_key(|(attempt, _)| *attempt) else { return Ok(()) };
    match read(session, job, &location).await {
        Ok(text) => show::out(text),
        Err(error) => {
            show::note(format!("what the driver printed on {} cannot be read: {error}", location.node));
            Ok(())
        }
    }
}

async fn read(session: &Session, job: JobId, location: &LogLocation) -> CliResult<Vec<u8>> {
    let reader = session.client.scheduler().log_reader(location.address);
    let mut text = Vec::new();
    loop {
        let piece = reader.read(job, location.log, text.len() as u64).await?;
        if piece.is_empty() {
            return Ok(text);
        }
        text.extend_from_slice(&piece);
    }
}
