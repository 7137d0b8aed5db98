use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::driver::DRIVER_ATTEMPTS_PER_LIFE;

/// How the scheduler decides: waits, attempts and bounds. Every field has a default.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulingPolicy {
    /// How long the poll of an executor is kept when there is nothing to do, in ms.
    pub poll_hold_ms: u32,
    /// An executor that is not heard for so long gets nothing new, in ms.
    pub suspect_ms: u32,
    /// An executor that is not heard for so long is dead, in ms.
    pub dead_ms: u32,
    /// An executor whose connection broke is dead if it is not back within this time, in ms.
    pub reconnect_ms: u32,
    /// How long jobs wait after a start of the scheduler for executors to report what they have, before what nobody has
    /// reported is started anew; and how long after the end of an executor its outputs may come back with it, in ms. At 0
    /// nothing is waited for and nothing is adopted.
    pub resume_ms: u32,
    /// How long a dead executor is still listed, in ms.
    pub forget_ms: u32,
    /// How long a stage leaves slots unused for a slot in the process that holds a task's input in memory, in ms.
    pub wait_process_ms: u32,
    /// How long it then goes on for one on a node that holds the input, in ms.
    pub wait_node_ms: u32,
    /// How long it then goes on for one in a rack that holds the input, in ms.
    pub wait_rack_ms: u32,
    /// The shortest time between two answers to someone who follows a job, in ms.
    pub status_ms: u32,
    /// How many attempts at a task may fail by its own doing; then the job fails.
    pub task_attempts: u32,
    /// How often a task may fail because a piece of a shuffle could not be fetched; then the job fails.
    pub fetch_attempts: u32,
    /// How many attempts at a driver may be lost; then the job fails.
    pub driver_attempts: u32,
    /// When an attempt at a driver is lost so long after the one before, in ms, and has brought its job on meanwhile (an action
    /// is done, a value recorded or a scope ended that was not before), those before it are forgotten.
    pub driver_forget_ms: u32,
    /// An attempt at a driver that has not begun so long after it was placed is lost, in ms. Fetching its executable is
    /// part of that.
    pub driver_begin_ms: u32,
    /// A driver that is not heard for so long, in ms, is given up: another attempt is placed, and a job whose driver is
    /// attached ends.
    pub session_ms: u32,
    /// An executor on which so many of a job's tasks failed is avoided for that job.
    pub exclude_failures: u32,
    /// When so many pieces of one executor could not be fetched by a job, all its map outputs there count as lost.
    pub exclude_fetch_failures: u32,
    /// How long after the last failure an executor is avoided; then its failures are forgotten, in ms.
    pub exclude_ms: u32,
    /// How long a task, or the start of a driver, waits for a file system that is away; then the job fails, in ms.
    pub storage_away_ms: u32,
    /// Whether a task that runs much longer than its peers gets a second attempt.
    pub speculation: bool,
    /// Which share of a stage's tasks must be done before, in percent.
    pub speculation_percent: u32,
    /// How many times the median a task must run, in percent.
    pub speculation_multiple_percent: u32,
    /// A task that runs for less than this is never slow, in ms.
    pub speculation_floor_ms: u32,
    /// A task that has made no progress for so long gets a second attempt, in ms.
    pub stalled_ms: u32,
    /// An attempt at a task that takes longer is ended and counts as failed, in ms; none for no limit.
    pub task_limit_ms: Option<u64>,
    /// How long a worker keeps its memory on an executor where another job needs it, in ms, or three times as long as it took
    /// to make the partitions that it keeps: then it makes way as soon as it has no tasks. For each such time that a job has waited, one that has workers on more executors starts nothing more on
    /// one of them.
    pub crowded_ms: u32,
    /// How many drivers may run on one executor; those of further jobs wait.
    pub drivers: usize,
    /// How many unfinished jobs there may be.
    pub jobs: usize,
    /// How many of them may be one user's.
    pub user_jobs: usize,
    /// How many finished jobs are remembered; the oldest go first.
    pub finished_jobs: usize,
    /// How much they may take, encoded; the oldest go first.
    pub finished_len_bytes: usize,
    /// How much the plans and results of a job's actions, its recorded values and what its scopes have returned may take
    /// together while it runs, in bytes: all of them stay in memory until it, or the scope around them, ends, for workers that
    /// begin late and drivers that are started anew.
    pub results_len_bytes: usize,
    /// How many actions a job may run.
    pub actions: usize,
    /// To how many directories a job may save.
    pub outputs: usize,
    /// How many tasks the stages of a job may have together.
    pub tasks: u64,
    /// The same for all jobs: beyond it all but the oldest wait.
    pub all_tasks: u64,
    /// How many pieces the shuffles of a job may have together.
    pub pieces: u64,
    /// How many executors there may be.
    pub executors: usize,
    /// How many calls may wait for an answer.
    pub waits: usize,
    /// Users who may end the jobs of others.
    pub administrators: Vec<String>,
}

impl Default for SchedulingPolicy {
    fn default() -> Self {
        Self {
            poll_hold_ms: 1_000,
            suspect_ms: 3_000,
            dead_ms: 10_000,
            reconnect_ms: 1_000,
            resume_ms: 2_000,
            forget_ms: 600_000,
            wait_process_ms: 300,
            wait_node_ms: 300,
            wait_rack_ms: 150,
            status_ms: 100,
            task_attempts: 4,
            fetch_attempts: 32,
            driver_attempts: 4,
            driver_forget_ms: 3_600_000,
            driver_begin_ms: 60_000,
            session_ms: 30_000,
            exclude_failures: 3,
            exclude_fetch_failures: 3,
            exclude_ms: 60_000,
            storage_away_ms: 600_000,
            speculation: true,
            speculation_percent: 75,
            speculation_multiple_percent: 150,
            speculation_floor_ms: 3_000,
            stalled_ms: 30_000,
            task_limit_ms: None,
            crowded_ms: 3_000,
            drivers: 16,
            jobs: 1_000,
            user_jobs: 200,
            finished_jobs: 10_000,
            finished_len_bytes: 64 << 20,
            results_len_bytes: 1 << 30,
            actions: 100_000,
            outputs: 10_000,
            tasks: 4_000_000,
            all_tasks: 8_000_000,
            pieces: 16_000_000,
            executors: 10_000,
            waits: 100_000,
            administrators: Vec::new(),
        }
    }
}

impl SchedulingPolicy {
    /// What in it cannot work, if anything.
    ///
    /// # Errors
    /// Names the field, what it must be and what it is.
    pub fn validate(&self) -> Result<(), String> {
        let rules = [
            (self.poll_hold_ms < self.suspect_ms, "poll_hold_ms must be less than suspect_ms"),
            (self.suspect_ms < self.dead_ms, "suspect_ms must be less than dead_ms"),
            (self.poll_hold_ms > 0, "poll_hold_ms must be at least 1"),
            (self.task_attempts > 0, "task_attempts must be at least 1"),
            (self.fetch_attempts > 0, "fetch_attempts must be at least 1"),
            (self.driver_attempts > 0, "driver_attempts must be at least 1"),
            (
                self.driver_attempts <= DRIVER_ATTEMPTS_PER_LIFE,
                "driver_attempts must be at most 100: so many are numbered in each life of the scheduler",
            ),
            (self.driver_begin_ms > 0, "driver_begin_ms must be at least 1"),
            (self.session_ms >= 1_000, "session_ms must be at least 1000"),
            (self.exclude_ms > 0, "exclude_ms must be at least 1"),
            (self.speculation_percent <= 100, "speculation_percent must be at most 100"),
            (self.stalled_ms > 0, "stalled_ms must be at least 1"),
            (self.crowded_ms > 0, "crowded_ms must be at least 1"),
            (self.task_limit_ms != Some(0), "task_limit_ms must be at least 1"),
            (self.finished_jobs > 0, "finished_jobs must be at least 1"),
            (self.user_jobs > 0 && self.user_jobs <= self.jobs, "user_jobs must be 1 to jobs"),
            (self.jobs > 0 && self.executors > 0 && self.drivers > 0, "jobs, executors and drivers must be at least 1"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(format!("scheduling: {rule}; found {self:?}")),
            None => Ok(()),
        }
    }
}

/// A policy's number of milliseconds as a duration.
pub(super) fn ms(ms: u32) -> Duration {
    Duration::from_millis(u64::from(ms))
}
