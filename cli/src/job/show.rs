//! Jobs on the screen.

use std::time::Duration;

use serde_json::{Value, json};
use situ_wire::ids::{JobId, ScopeId, StageId, TaskAttemptId};
use situ_wire::limits::ATTEMPTS_PER_LIFE;
use situ_wire::messages::scheduler::{
    DriverPlace, FailedAttempt, JobState, JobStatus, JobSummary, Lost, Recovery, RecoveryOutcome, StageStatus,
};
use situ_wire::time::{TimeMs, WallTime};

use super::waiting;
use crate::duration;
use crate::error::{CliError, CliResult};
use crate::session::Session;
use crate::show::{self, columns, count, escaped, human_size, local_time};

/// When a job was submitted. The scheduler's time began with the time of day at its start.
fn submitted(job: &JobSummary) -> WallTime {
    WallTime(job.submitted.0)
}

/// `situ job list`.
pub(super) async fn list(session: &Session, as_json: bool) -> CliResult {
    let jobs = session.client.scheduler().list().await?;
    if as_json {
        return jobs.iter().try_for_each(|job| show::json(&summary_json(job)));
    }
    let row = |job: &JobSummary| {
        [
            job.job.to_string(),
            state_word(&job.state).to_owned(),
            local_time(submitted(job)),
            job.ended.map_or_else(String::new, |ended| format!("{:.2} s", ended.since(job.submitted).as_secs_f64())),
            escaped(&job.user).into_owned(),
            command_line(job),
        ]
    };
    let rows: Vec<_> = jobs.iter().map(row).collect();
    columns(&rows, [false, false, false, true, false, false]).into_iter().try_for_each(show::line)?;
    if jobs.is_empty() {
        show::note("no jobs yet; run one with `situ job run wordcount IN OUT`");
    }
    Ok(())
}

/// What a job runs, as one line.
fn command_line(job: &JobSummary) -> String {
    escaped(&format!("{} {}", job.program.name(), job.arguments.join(" "))).trim_end().to_owned()
}

/// `situ job status`.
pub(super) async fn status(session: &Session, job: JobId, as_json: bool) -> CliResult {
    let status = session.client.scheduler().status(job).await?;
    if as_json {
        return show::json(&status_json(&status));
    }
    let summary = &status.summary;
    show::line(format!("{}  {}", summary.job, command_line(summary)))?;
    show::line(format!("  state      {}", state_text(&summary.state)))?;
    if let Some(waits) = &status.waiting {
        show::line(format!("  waits for  {}", waiting::text(waits, waiting::now())))?;
    }
    show::line(format!("  user       {}", escaped(&summary.user)))?;
    show::line(format!("  submitted  {}", local_time(submitted(summary))))?;
    if status.driver == DriverPlace::Attached {
        show::line(format!("  driver     attached client of {}", escaped(&summary.user)))?;
    }
    if let Some(limit) = status.options.task_limit_ms {
        show::line(format!("  task limit {}", duration::text(limit)))?;
    }
    if let Some(ended) = summary.ended {
        show::line(format!("  took       {:.2} s", ended.since(summary.submitted).as_secs_f64()))?;
    }
    show::line(format!(
        "  read       {} ({} from other nodes)",
        human_size(status.metrics.input_bytes),
        human_size(status.metrics.remote_bytes)
    ))?;
    show::line(format!("  shuffled   {}", human_size(status.metrics.shuffle_read_bytes)))?;
    for stage in &status.stages {
        show::line(format!("  {}", stage_text(stage)))?;
        if let Some(quiet) = quiet_text(stage, waiting::now()).filter(|_| !summary.state.is_final()) {
            show::line(format!("    {quiet}"))?;
        }
    }
    if let Some(failed) = &status.last_failure {
        show::line(format!("  last failure: {}", failure_text(failed)))?;
    }
    if !status.recoveries.is_empty() {
        show::line("  lost and brought back:")?;
    }
    for recovery in &status.recoveries {
        show::line(format!("    {}", recovery_text(recovery, false)))?;
    }
    if status.recoveries_dropped > 0 {
        show::line(format!("    and {} before", status.recoveries_dropped))?;
    }
    Ok(())
}

/// What a command that waited for a job says at its end.
///
/// # Errors
/// When the job did not succeed.
pub(super) fn ending(status: &JobStatus, as_json: bool) -> CliResult {
    let printed = if as_json { show::json(&status_json(status)) } else { Ok(()) };
    let summary = &status.summary;
    let took = summary.ended.map_or(0.0, |ended| ended.since(summary.submitted).as_secs_f64());
    match &summary.state {
        JobState::Succeeded => {
            if !as_json {
                show::note(format!("{} succeeded in {took:.2} s", summary.job));
            }
            printed
        }
        state => Err(CliError::failed(format!("{} {}", summary.job, state_text(state)))),
    }
}

/// How many characters of a reason are shown where it is one line among others.
const REASON_CHARS: usize = 300;

/// The attempt that failed last, in a line.
fn failure_text(failed: &FailedAttempt) -> String {
    let TaskAttemptId { stage, partition, attempt, .. } = failed.attempt;
    let reason = match failed.reason.char_indices().nth(REASON_CHARS) {
        Some((end, _)) => format!("{} ...", &failed.reason[..end]),
        None => failed.reason.clone(),
    };
    let (node, number, reason) = (&failed.node, attempt % ATTEMPTS_PER_LIFE, escaped(&reason));
    format!("{stage} {partition}, attempt {number}, on {node}: {reason}")
}

fn failure_json(failed: &FailedAttempt) -> Value {
    json!({
        "scope": scope_json(failed.attempt.stage), "stage": failed.attempt.stage.1,
        "partition": failed.attempt.partition.0, "attempt": failed.attempt.attempt,
        "node": failed.node.0, "at_ms": failed.at.0, "reason": failed.reason,
    })
}

/// One stage in a line.
pub(super) fn stage_text(stage: &StageStatus) -> String {
    let [process, node, rack, any, none] = stage.localities;
    let tasks = count(stage.tasks.into(), "task");
    let mut text = format!("{} {}: {} of {tasks} done", stage.stage, escaped(&stage.name), stage.done);
    if stage.failed > 0 {
        text += &format!(", {} failed", count(stage.failed.into(), "attempt"));
    }
    if process + node + rack + any > 0 {
        text += &format!("; {} node-local, {rack} rack-local, {any} elsewhere", process + node);
    }
    if none > 0 {
        text += &format!("; {none} anywhere");
    }
    text
}

/// For how long an attempt may make no progress before people are told.
const QUIET: Duration = Duration::from_secs(10);

/// The attempt of a stage that has made no progress for longest, if that is long.
fn quiet_text(stage: &StageStatus, now: TimeMs) -> Option<String> {
    let quiet = stage.quiet.as_ref()?;
    let rest = now.since(quiet.since);
    let said =
        || format!("{} on {} has made no progress for {} s", quiet.attempt.partition, quiet.node, rest.as_secs());
    (rest >= QUIET).then(said)
}

/// One loss and what became of it, in a line; `input_lost` if a replica of the task's input is known to be lost with it.
///
/// A recovery begins and ends in one life of the scheduler: people are told the how manieth attempt in it, from 0.
pub fn recovery_text(recovery: &Recovery, input_lost: bool) -> String {
    let (what, from) = match recovery.lost {
        Lost::RunningTask if input_lost => ("running task", "run again, reading another replica"),
        Lost::RunningTask => ("running task", "run again"),
        Lost::MapOutput => ("map output", "computed again from its lineage"),
        Lost::CachedPartition => ("cached partition", "computed again from its lineage"),
        Lost::Storage => ("task without its file system", "run again"),
        Lost::Superseded => ("outdated output", "computed again from its new input"),
    };
    let task = format!("{} {}", recovery.task.stage, recovery.task.partition);
    let became = match &recovery.outcome {
        RecoveryOutcome::Recovered { by, node, at } => {
            let later = at.since(recovery.lost_at).as_secs_f64();
            format!("{from} as attempt {} on {node}, {later:.1} s later", by.attempt % ATTEMPTS_PER_LIFE)
        }
        RecoveryOutcome::NotNeeded { .. } => "not needed any more".to_owned(),
        RecoveryOutcome::Open if recovery.lost == Lost::CachedPartition => "not needed again so far".to_owned(),
        RecoveryOutcome::Open => "not back yet".to_owned(),
    };
    format!("{what} of {task} on {}: {became}", recovery.node)
}

pub(super) fn state_word(state: &JobState) -> &'static str {
    match state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed { .. } => "failed",
        JobState::Killed { .. } => "killed",
    }
}

fn state_text(state: &JobState) -> String {
    match state {
        JobState::Failed { reason } | JobState::Killed { reason } => format!("{}: {reason}", state_word(state)),
        _ => state_word(state).to_owned(),
    }
}

fn summary_json(job: &JobSummary) -> Value {
    let mut value = json!({
        "job": job.job.0,
        "program": job.program.name(),
        "arguments": job.arguments,
        "user": job.user,
        "state": state_word(&job.state),
        "submitted_ms": job.submitted.0,
        "ended_ms": job.ended.map(|ended| ended.0),
    });
    if let JobState::Failed { reason } | JobState::Killed { reason } = &job.state {
        value["reason"] = reason.as_str().into();
    }
    value
}

/// All about a job, for a program.
pub fn status_json(status: &JobStatus) -> Value {
    let mut value = summary_json(&status.summary);
    value["driver"] = match status.driver {
        DriverPlace::Placed => "placed".into(),
        DriverPlace::Attached => "attached".into(),
    };
    value["task_limit_ms"] = status.options.task_limit_ms.into();
    value["check_replay"] = status.options.check_replay.into();
    value["waits_for"] = status.waiting.as_ref().map(waiting::json).into();
    value["last_failure"] = status.last_failure.as_ref().map(failure_json).into();
    value["stages"] = status
        .stages
        .iter()
        .map(|stage| {
            let [process, node, rack, any, none] = stage.localities;
            json!({
                "scope": scope_json(stage.stage), "stage": stage.stage.1, "name": stage.name, "tasks": stage.tasks, "done": stage.done,
                "running": stage.running, "failed_attempts": stage.failed,
                "quiet": stage.quiet.as_ref().map(|quiet| json!({
                    "partition": quiet.attempt.partition.0, "attempt": quiet.attempt.attempt,
                    "node": quiet.node.0, "since_ms": quiet.since.0,
                })),
                "attempts": { "process": process, "node": node, "rack": rack, "any": any, "no_preference": none },
            })
        })
        .collect();
    value["recoveries"] = status
        .recoveries
        .iter()
        .map(|recovery| {
            let (back, not_needed) = match &recovery.outcome {
                RecoveryOutcome::Recovered { by, node, at } => (Some((by, node, at)), None),
                RecoveryOutcome::NotNeeded { at } => (None, Some(at)),
                RecoveryOutcome::Open => (None, None),
            };
            json!({
                "lost": match recovery.lost {
                    Lost::RunningTask => "running task",
                    Lost::MapOutput => "map output",
                    Lost::CachedPartition => "cached partition",
                    Lost::Storage => "task without its file system",
                    Lost::Superseded => "outdated output",
                },
                "scope": scope_json(recovery.task.stage),
                "stage": recovery.task.stage.1,
                "partition": recovery.task.partition.0,
                "attempt": recovery.task.attempt,
                "node": recovery.node.0,
                "lost_ms": recovery.lost_at.0,
                "recovered_by_attempt": back.map(|(by, ..)| by.attempt),
                "recovered_on": back.map(|(_, node, _)| node.0.as_str()),
                "recovered_ms": back.map(|(.., at)| at.0),
                "not_needed_ms": not_needed.map(|at| at.0),
            })
        })
        .collect();
    value["input_bytes"] = status.metrics.input_bytes.into();
    value["remote_bytes"] = status.metrics.remote_bytes.into();
    value["shuffle_bytes"] = status.metrics.shuffle_read_bytes.into();
    value
}

/// The scope of a stage; null for the whole program.
fn scope_json(StageId(scope, _): StageId) -> Value {
    (scope != ScopeId::ROOT).then(|| format!("{:016x}", scope.0)).into()
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{NodeName, PartitionId, TaskAttemptId};
    use situ_wire::messages::scheduler::{QuietAttempt, StageOutput};

    use super::*;

    #[test]
    fn what_makes_no_progress_is_named() {
        let attempt =
            TaskAttemptId { job: JobId(1), stage: StageId(ScopeId::ROOT, 2), partition: PartitionId(3), attempt: 0 };
        let stage = StageStatus {
            stage: StageId(ScopeId::ROOT, 2),
            name: "map".to_owned(),
            output: StageOutput::Result { action: situ_wire::ids::ActionId(ScopeId::ROOT, 0) },
            tasks: 4,
            done: 3,
            running: 1,
            failed: 0,
            localities: [0; 5],
            quiet: Some(QuietAttempt { attempt, node: NodeName("node-2".to_owned()), since: TimeMs(1_000) }),
        };
        assert_eq!(quiet_text(&stage, TimeMs(9_000)), None);
        let said = quiet_text(&stage, TimeMs(48_500));
        assert_eq!(said.as_deref(), Some("partition-3 on node-2 has made no progress for 47 s"));
    }

    #[test]
    fn attempts_are_counted_within_a_life_of_the_scheduler() {
        let task = |attempt| TaskAttemptId {
            job: JobId(1),
            stage: StageId(ScopeId::ROOT, 3),
            partition: PartitionId(9),
            attempt,
        };
        let node = |name: &str| NodeName(name.to_owned());
        let outcome = RecoveryOutcome::Recovered { by: task(196_609), node: node("node-4"), at: TimeMs(1_100) };
        let recovery = Recovery {
            lost_at: TimeMs(1_000),
            lost: Lost::RunningTask,
            task: task(196_608),
            node: node("node-1"),
            outcome,
        };
        let text = "running task of stage-3 partition-9 on node-1: run again as attempt 1 on node-4, 0.1 s later";
        assert_eq!(recovery_text(&recovery, false), text);
        assert!(recovery_text(&recovery, true).contains("run again, reading another replica as attempt 1"));
    }
}
