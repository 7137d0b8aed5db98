use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situ_wire::ids::{ClientId, ExecutorId, JobId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{ExecutorCommand, JobLaunch, JobOptions, Program};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::executor::Executor;
use super::scheduler::Scheduler;
use super::{JobRecord, RecordId};

/// The program that takes away what a job wrote aside; every executor has it. Its arguments are the outputs.
pub const CLEAN_UP: &str = "clean-up";

/// Where jobs have directories of their own. Everybody may make one there.
const JOB_DIRECTORIES: &str = "/.situ/jobs";

/// The directory of the file system that a job has for itself while it runs; none if that is no name for a job. Only who
/// knows its publisher can tell where it is: nobody else can be there before it.
pub(crate) fn job_directory(job: &str, publisher: ClientId) -> Option<DfsPath> {
    let hash = blake3::derive_key("situ 2026 the directory of a job", &publisher.0.to_le_bytes());
    let id = u64::from_le_bytes(*hash.first_chunk()?);
    DfsPath::parse(&format!("{JOB_DIRECTORIES}/{job}-{id:016x}")).ok()
}

/// Whether that is a directory that a job has for itself.
pub(crate) fn is_job_directory(directory: &DfsPath, job: &str) -> bool {
    directory.parent().is_some_and(|parent| parent.as_str() == JOB_DIRECTORIES)
        && directory.name().strip_prefix(job).is_some_and(|id| id.starts_with('-'))
}

/// For how long after a job's end a process of it may still make something: what was taken away before is looked at again.
/// Its executor hears of the end with its next poll, or is silent until it counts as dead (10 s, `dead_ms`), and then gives
/// the shim of each process 15 s to end all that it holds.
const SETTLE: Duration = Duration::from_secs(30);
/// How long one run of the program may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The first and the longest wait after one that failed. It is never given up: what nobody may delete is no failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// How many runs an executor has at once: when many jobs end together, or the scheduler starts anew, the others wait.
const RUNS: usize = 2;
/// The attempts at a driver are numbered below it, so that neither is taken for the other.
const FIRST_ATTEMPT: u32 = 1 << 31;
/// How many numbers each life of the scheduler has for the runs of one job: what an executor says late of an earlier life is
/// not taken for this one's.
const RUNS_PER_LIFE: u32 = 1 << 16;
/// How long the outputs of one run may be together: an operating system takes no more than so many arguments.
const ARGUMENTS_LEN_BYTES: usize = 64 << 10;

/// What a job that has ended may have left in the file system.
///
/// The executors have the right to take it away, the scheduler has not: they run programs as who submitted the job. So it
/// is done by one more program of the job, which runs where a driver would.
#[derive(Debug)]
pub(super) struct Cleaning {
    pub(super) user: String,
    pub(super) outputs: BTreeSet<DfsPath>,
    /// When the job ended. If that was in an earlier life of the scheduler, when the first run begins: before, the beginning of
    /// time.
    ended: TimeMs,
    /// What says so, in this life. A scheduler that dies before it is on disk goes on with the job, and with what it has written aside.
    pub(super) record: RecordId,
    /// The run that is under way.
    run: Option<Run>,
    /// When the next one may begin.
    next: TimeMs,
    begun: u32,
    failed: u32,
}

#[derive(Debug)]
struct Run {
    executor: ExecutorId,
    attempt: u32,
    since: TimeMs,
    outputs: Vec<DfsPath>,
}

impl Cleaning {
    /// The records that bring it back.
    pub(super) fn records(&self, job: JobId) -> impl Iterator<Item = JobRecord> {
        let aside =
            move |output: &DfsPath| JobRecord::WritesAside { job, user: self.user.clone(), output: output.clone() };
        self.outputs.iter().map(aside)
    }

    /// What the next run takes.
    fn batch(&self) -> Vec<DfsPath> {
        let mut len = 0;
        let fits = |output: &&DfsPath| {
            len += output.as_str().len() + 1;
            len <= ARGUMENTS_LEN_BYTES
        };
        self.outputs.iter().take_while(fits).cloned().collect()
    }

    fn next_attempt(&self, life: u32) -> u32 {
        let lives = FIRST_ATTEMPT / RUNS_PER_LIFE;
        FIRST_ATTEMPT + life % lives * RUNS_PER_LIFE + self.begun % RUNS_PER_LIFE
    }

    fn fail(&mut self, now: TimeMs) {
        let wait = BACKOFF.0.saturating_mul(1 << self.failed.min(16)).min(BACKOFF.1);
        self.failed += 1;
        (self.run, self.next) = (None, now + wait);
    }
}

impl Scheduler {
    /// A job has ended: what it wrote aside below `outputs` must be taken away.
    pub(super) fn clean_up(
        &mut self,
        (ended, record): (TimeMs, RecordId),
        job: JobId,
        user: &str,
        outputs: BTreeSet<DfsPath>,
    ) {
        if outputs.is_empty() {
            return;
        }
        let cleaning = self.cleaning.entry(job).or_insert_with(|| Cleaning {
            user: user.to_owned(),
            outputs: BTreeSet::new(),
            ended,
            record,
            run: None,
            next: ended,
            begun: 0,
            failed: 0,
        });
        cleaning.outputs.extend(outputs);
    }

    /// All records are read: what stood before its own job in them is the job's, and what is made from the key can be made.
    pub(super) fn replayed(&mut self) {
        let secrets: BTreeMap<JobId, JobSecret> = self.jobs.keys().map(|job| (*job, self.secret(*job))).collect();
        let first = self.first_driver_attempt();
        for (id, job) in &mut self.jobs {
            if let Some(secret) = secrets.get(id) {
                job.launch.secret = *secret;
            }
            match job.driver.session {
                // Its driver is still the same.
                Some(session) => drop(self.sessions.insert((session.until, *id))),
                None => job.driver.attempt = job.driver.attempt.max(first),
            }
            let aside = self.cleaning.remove(id).map(|cleaning| cleaning.outputs).unwrap_or_default();
            job.outputs.extend(aside.into_iter().map(|output| (output, None)));
        }
    }

    /// Places the runs whose time has come on the least busy executors.
    pub(super) fn place_clean_ups(&mut self, now: TimeMs) {
        let synced = self.synced;
        let due = |it: &Cleaning| it.run.is_none() && it.next <= now && it.record <= synced;
        let jobs: Vec<JobId> =
            self.cleaning.iter().filter(|(_, cleaning)| due(cleaning)).map(|(job, _)| *job).collect();
        if jobs.is_empty() {
            return;
        }
        let mut runs = self.clean_ups_on();
        for job in jobs {
            let secret = self.secret(job);
            let busy = |(id, executor): &(ExecutorId, &Executor)| {
                let runs = runs.get(id).copied().unwrap_or_default();
                (runs, executor.drivers.len(), executor.load(), *id)
            };
            let free = |(id, _): &(ExecutorId, &Executor)| has_room(&runs, *id);
            let Some((executor, _)) = self.executors.live().filter(free).min_by_key(busy) else { return };
            let Some(cleaning) = self.cleaning.get_mut(&job) else { continue };
            *runs.entry(executor).or_default() += 1;
            let attempt = cleaning.next_attempt(self.life);
            let outputs = cleaning.batch();
            let launch = JobLaunch {
                job,
                secret,
                user: cleaning.user.clone(),
                program: Program::BuiltIn { name: CLEAN_UP.to_owned() },
                arguments: outputs.iter().map(ToString::to_string).collect(),
                options: JobOptions::default(),
                attached: false,
            };
            cleaning.begun += 1;
            if cleaning.ended == TimeMs::default() {
                // Its processes may have been there until just now.
                cleaning.ended = now;
            }
            cleaning.run = Some(Run { executor, attempt, since: now, outputs });
            self.executors.command(executor, ExecutorCommand::StartDriver { job: launch, attempt });
        }
    }

    /// How many runs each executor has.
    fn clean_ups_on(&self) -> BTreeMap<ExecutorId, usize> {
        let mut runs = BTreeMap::new();
        for run in self.cleaning.values().filter_map(|cleaning| cleaning.run.as_ref()) {
            *runs.entry(run.executor).or_default() += 1;
        }
        runs
    }

    /// When a run must begin or have ended. Without room for one, none begins before another has ended.
    pub(super) fn next_clean_up(&self) -> Option<TimeMs> {
        if self.cleaning.is_empty() {
            return None;
        }
        let runs = self.clean_ups_on();
        let anywhere = self.executors.live().any(|(id, _)| has_room(&runs, id));
        let due = |cleaning: &Cleaning| match &cleaning.run {
            Some(run) => Some(run.since + PATIENCE),
            None => (anywhere && cleaning.record <= self.synced).then_some(cleaning.next),
        };
        self.cleaning.values().filter_map(due).min()
    }

    /// Gives up runs that take too long.
    pub(super) fn judge_clean_ups(&mut self, now: TimeMs) {
        for (job, cleaning) in &mut self.cleaning {
            if let Some(Run { executor, .. }) = cleaning.run.as_ref().filter(|run| run.since + PATIENCE <= now) {
                self.executors.command(*executor, ExecutorCommand::EndJob { job: *job });
                cleaning.fail(now);
            }
        }
    }

    /// An executor is dead: what ran there begins elsewhere.
    pub(super) fn lose_clean_ups(&mut self, now: TimeMs, executor: ExecutorId) {
        for cleaning in self.cleaning.values_mut() {
            if cleaning.run.as_ref().is_some_and(|run| run.executor == executor) {
                (cleaning.run, cleaning.next) = (None, now);
            }
        }
    }

    /// A process of a job that has ended is gone: perhaps the run that is under way.
    pub(super) fn clean_up_ended(
        &mut self,
        now: TimeMs,
        executor: ExecutorId,
        (job, attempt): (JobId, u32),
        error: Option<String>,
    ) {
        let Some(cleaning) = self.cleaning.get_mut(&job) else { return };
        let this = |run: &mut Run| run.executor == executor && run.attempt == attempt;
        let Some(run) = cleaning.run.take_if(this) else { return };
        // Its directories there can go.
        self.executors.command(executor, ExecutorCommand::EndJob { job });
        let settled = cleaning.ended + SETTLE;
        if error.is_some() {
            cleaning.fail(now);
        } else if run.since < settled {
            cleaning.next = settled;
        } else {
            run.outputs.iter().for_each(|output| drop(cleaning.outputs.take(output)));
        }
        if cleaning.outputs.is_empty() {
            self.cleaning.remove(&job);
            self.append(JobRecord::Cleaned { job });
        }
    }
}

/// Whether an executor may take one more run.
fn has_room(runs: &BTreeMap<ExecutorId, usize>, executor: ExecutorId) -> bool {
    runs.get(&executor).is_none_or(|runs| *runs < RUNS)
}
