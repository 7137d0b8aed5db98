use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::ids::{ActionId, JobId, PartitionId, ScopeId, StageId, TaskAttemptId};
use situ_wire::limits::ATTEMPTS_PER_LIFE;
use situ_wire::messages::scheduler::{ExecutorEvent, JobState, StageOutput, TaskFailure, TaskOutcome, TaskSpec};

use super::SEEDS;
use super::executors::Executor;
use super::plans::{VARYING, plan, result_of};
use super::processes::Role;
use super::world::{Happens, Simulation};
use crate::core::SchedulingPolicy;

/// How long a task may be on its way to its worker: longer than a poll that is lost, and than a worker that is silent.
const ON_ITS_WAY: Duration = Duration::from_secs(40);

/// What clients and drivers were promised, and what went wrong.
#[derive(Default)]
pub(super) struct Oracle {
    /// How jobs ended, as was told.
    pub(super) ended: BTreeMap<JobId, JobState>,
    /// Jobs that have a directory in which they write aside.
    pub(super) aside: BTreeSet<JobId>,
    /// Of which actions a driver has heard that they are done, and in which life of the scheduler that was first.
    done: BTreeMap<(JobId, ActionId), u8>,
    /// Of which jobs the scheduler has said that it knows that they have published.
    pub(super) published: BTreeSet<JobId>,
    /// What scopes have come to, as drivers have heard.
    outcomes: BTreeMap<(JobId, ScopeId), Bytes>,
    /// What the map tasks of a scope had written of which the results came that a driver has heard.
    contents: BTreeMap<(JobId, ScopeId), Vec<u32>>,
    /// Attempts that a worker was given.
    pub(super) begun: BTreeSet<TaskAttemptId>,
    /// Attempts that shall fail by their program.
    pub(super) failing: BTreeSet<TaskAttemptId>,
    /// Who died, hung or lost something in this life of the scheduler; and of which jobs a piece could not be fetched.
    pub(super) troubled: BTreeSet<u32>,
    pub(super) starved: BTreeSet<JobId>,
    /// How many faults may have cost a job an attempt at its driver.
    pub(super) drivers_lost: BTreeMap<JobId, u32>,
    /// The attempts at tasks that failed so that the task may be blamed; and those that could not fetch their input.
    blamed: BTreeMap<(JobId, StageId, PartitionId), Vec<TaskAttemptId>>,
    unfetched: BTreeMap<(JobId, StageId, PartitionId), Vec<TaskAttemptId>>,
    pub(super) trace: blake3::Hasher,
    pub(super) lost: usize,
    pub(super) superseded: usize,
}

impl Oracle {
    /// A driver hears what a scope has come to.
    pub(super) fn scope_ended(&mut self, job: JobId, within: &[ScopeId], outcome: &[Bytes]) {
        let [outcome] = outcome else { panic!("one outcome of {within:?}: {outcome:?}") };
        let before = self.outcomes.entry((job, within[0])).or_insert_with(|| outcome.clone());
        assert_eq!(before, outcome, "a scope ends once");
    }

    /// Whether a job may have ended so.
    fn may_end(&self, job: JobId, state: &JobState) -> bool {
        let policy = SchedulingPolicy::default();
        let reason = match state {
            JobState::Failed { reason } => reason,
            state => return matches!(state, JobState::Succeeded | JobState::Killed { .. }),
        };
        // Whose attempts count, and whose is the last: the reason names it.
        let accounts = |failed: &BTreeMap<_, Vec<TaskAttemptId>>, limit: u32| {
            let enough = |attempts: &&Vec<TaskAttemptId>| attempts.len() >= usize::try_from(limit).unwrap();
            let named = |attempt: &TaskAttemptId| attempt.job == job && reason.starts_with(&attempt.to_string());
            failed.values().filter(enough).flatten().any(named)
        };
        let drivers = self.drivers_lost.get(&job).copied().unwrap_or_default();
        reason.contains("failed, the 4th time") && accounts(&self.blamed, policy.task_attempts)
            || reason.contains("could not be fetched 32 times") && accounts(&self.unfetched, policy.fetch_attempts)
            || reason.starts_with("4 attempts at the driver were lost") && drivers >= policy.driver_attempts
            || job == VARYING && reason.contains("did not give the same output")
    }
}

impl Simulation {
    /// A driver hears the results of an action.
    pub(super) fn action_done(&mut self, job: JobId, action: ActionId, results: &[Bytes]) -> bool {
        self.oracle.done.entry((job, action)).or_insert(self.scheduler_life);
        let text = String::from_utf8(results[0].to_vec()).unwrap();
        let contents = text.split(['[', ']']).nth(1).unwrap().split(", ").map(|it| it.parse().unwrap());
        let contents: Vec<u32> = contents.collect();
        let before = self.oracle.contents.entry((job, action.0)).or_insert_with(|| contents.clone());
        assert_eq!(*before, contents, "all results of a scope come of the same outputs");
        let expected = 0..plan(job, action).stages[1].partitions;
        let expected: Vec<Bytes> = expected.map(|partition| result_of(job, action, partition, &contents)).collect();
        assert_eq!(results, expected, "each partition has its result");
        true
    }

    /// No task of a done action runs in a later life of the scheduler, nor one that was done, if whoever has what it left
    /// had no trouble.
    pub(super) fn check_started(&self, task: &TaskSpec) {
        let TaskAttemptId { job, partition, attempt, .. } = task.attempt;
        if let StageOutput::Result { action } = task.output
            && let Some(life) = self.oracle.done.get(&(job, action))
        {
            let started = attempt / ATTEMPTS_PER_LIFE;
            assert!(started <= u32::from(*life), "a done action runs in no later life: {task:?}");
        }
        if attempt != u32::from(self.scheduler_life) * ATTEMPTS_PER_LIFE
            || job == VARYING
            || self.oracle.starved.contains(&job)
        {
            return;
        }
        let is = |other: &TaskAttemptId, output: &StageOutput| {
            other.job == job && other.partition == partition && *output == task.output && other.attempt < attempt
        };
        let has = |(number, executor): &(&u32, &Executor)| {
            let mut files = executor.files.iter().map(|((.., map), (output, _))| (map, output));
            let left = files.any(|(map, output)| is(map, output))
                || executor.results.iter().any(|(attempt, output)| is(attempt, output));
            executor.alive && !self.oracle.troubled.contains(number) && left
        };
        let has = self.executors.iter().find(has).map(|(number, _)| number);
        assert_eq!(has, None, "{:?}: a finished task runs again: {task:?}", self.now);
    }

    /// What an executor tells has a cause: a task is lost only if something is wrong with its worker.
    pub(super) fn check_report(&mut self, number: u32, event: &ExecutorEvent) {
        let ExecutorEvent::TaskEnded { attempt, outcome } = event else { return };
        let here = self.executors.get_mut(&number).unwrap();
        let owed = here.owed.remove(attempt).unwrap_or_else(|| panic!("the end of a task is told once: {event:?}"));
        let failure = match outcome {
            TaskOutcome::Done(_) => {
                if let StageOutput::Result { .. } = owed.output {
                    here.results.insert(*attempt, owed.output);
                }
                return;
            }
            TaskOutcome::Failed(failure) => failure,
        };
        let task = (attempt.job, attempt.stage, attempt.partition);
        match failure {
            TaskFailure::WorkerLost { .. } | TaskFailure::WorkerSilent { .. } => {
                assert!(here.ailing.contains(&attempt.job), "nothing is wrong with its worker: {event:?}");
                self.oracle.blamed.entry(task).or_default().push(*attempt);
            }
            TaskFailure::Program { .. } => {
                assert!(self.oracle.failing.contains(attempt), "its program does not fail: {event:?}");
                self.oracle.blamed.entry(task).or_default().push(*attempt);
            }
            TaskFailure::Fetch { .. } => self.oracle.unfetched.entry(task).or_default().push(*attempt),
            TaskFailure::Cancelled | TaskFailure::Storage { transient: true, .. } => {}
            other => panic!("nothing fails so: {other:?}"),
        }
    }
}

impl Simulation {
    /// What the executors' tables have and what their workers have agrees.
    pub(super) fn check_tables(&mut self) {
        let now = self.now;
        for (number, executor) in self.executors.iter_mut().filter(|(_, executor)| executor.alive) {
            let Executor { table, owed, processes, .. } = executor;
            let tasks = table.tasks();
            for (attempt, owed) in owed.iter_mut() {
                let given = tasks.get(attempt).unwrap_or_else(|| panic!("nobody on n{number} has {attempt}"));
                let has = |life| {
                    let worker = processes.get(life).and_then(|process| process.worker.as_ref());
                    worker.is_some_and(|worker| worker.running.contains_key(attempt) || worker.untold.contains(attempt))
                };
                if given.as_ref().is_none_or(has) {
                    owed.unseen_since = None;
                    continue;
                }
                let since = *owed.unseen_since.get_or_insert(now);
                assert!(now.since(since) < ON_ITS_WAY, "{now:?}: no worker on n{number} has got {attempt}: {table:?}");
            }
            assert_eq!(tasks.len(), owed.len(), "a table on n{number} has what it owes: {tasks:?}");
        }
    }

    /// Nothing is left of a scope that has ended, once nothing has gone wrong for a while.
    pub(super) fn look_for(&mut self, job: JobId, within: Vec<ScopeId>) {
        let scope = within[0];
        // With a scope it is forgotten which ones it had within it.
        let is_over = within[1..].iter().any(|outer| self.oracle.outcomes.contains_key(&(job, *outer)));
        if self.oracle.ended.contains_key(&job) || is_over {
            return;
        }
        assert_eq!(self.scheduler.kept_of(job, scope), None, "{job} keeps something of {scope}");
        let mut again = false;
        for (number, executor) in self.executors.iter().filter(|(_, executor)| executor.alive) {
            let files = executor.files.keys().any(|(of, shuffle, _)| *of == job && shuffle.0 == scope);
            let tasks = executor.table.tasks().keys().any(|task| task.job == job && task.stage.0 == scope);
            // What an earlier life made of a job that varies nobody remembers: it goes with the job.
            let remembered = job != VARYING || self.scheduler_life == 0;
            let must_be_gone = executor.is_calm(self.now) && remembered && !tasks;
            assert!(!files || !must_be_gone, "{:?}: n{number} keeps files of {scope} of {job}", self.now);
            again |= files;
        }
        if again {
            self.later(5_000, Happens::Looks(job, within));
        }
    }

    /// All jobs have ended: no executor has anything of them but what takes away what they wrote.
    pub(super) fn check_nothing_left(&self) {
        for (number, executor) in self.executors.iter().filter(|(_, executor)| executor.is_calm(self.now)) {
            let cleans = |job: JobId| executor.processes.values().any(|it| it.job == job && it.role != Role::Worker);
            let worker = executor.processes.values().any(|process| process.role == Role::Worker);
            assert!(!worker, "no worker of an ended job is left on n{number}");
            let files = executor.files.keys().find(|(job, ..)| !cleans(*job));
            assert!(files.is_none(), "files of an ended job are left on n{number}: {files:?}");
            let left = self.oracle.ended.keys().find(|job| executor.table.has(**job) && !cleans(**job));
            assert!(left.is_none(), "n{number} has {left:?}, which has ended");
        }
    }
}

/// What came of a seed.
#[derive(PartialEq, Eq, Debug)]
struct History {
    trace: blake3::Hash,
    ended: BTreeMap<JobId, JobState>,
    /// How much was lost on the way, and how much had read what was not there any more.
    lost: usize,
    superseded: usize,
}

fn simulate(seed: u64) -> History {
    let mut simulation = Simulation::new(seed);
    simulation.run(seed);
    for (job, state) in simulation.ended() {
        assert!(simulation.oracle.may_end(*job, state), "seed {seed}: {job} ended with {state:?}");
    }
    let Oracle { trace, ended, lost, superseded, .. } = simulation.oracle;
    History { trace: trace.finalize(), ended, lost, superseded }
}

#[test]
fn every_job_ends_as_it_may_whatever_happens() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut histories = Vec::new();
    std::thread::scope(|scope| {
        let some = |first: u64| {
            move || {
                let one = |seed| {
                    let history = std::panic::catch_unwind(|| simulate(seed));
                    history.unwrap_or_else(|_| panic!("seed {seed} is not as it must be; see above"))
                };
                (first..SEEDS).step_by(threads).map(one).collect::<Vec<_>>()
            }
        };
        let running: Vec<_> = (0..).take(threads).map(|first| scope.spawn(some(first))).collect();
        histories.extend(running.into_iter().flat_map(|seeds| seeds.join().expect("all end")));
    });
    let (mut lost, mut superseded, mut ends) = (0, 0, BTreeMap::<&str, usize>::new());
    for history in &histories {
        lost += history.lost;
        superseded += history.superseded;
        for state in history.ended.values() {
            let end = match state {
                JobState::Failed { reason } if reason.contains("did not give the same output") => "varied",
                JobState::Failed { reason } if reason.contains("at the driver were lost") => "drivers lost",
                JobState::Failed { .. } => "failed",
                JobState::Succeeded => "succeeded",
                _ => "killed",
            };
            *ends.entry(end).or_default() += 1;
        }
    }
    // A simulation in which nothing goes wrong shows nothing; neither does one in which most fails.
    let ended = |how| ends.get(how).copied().unwrap_or_default();
    assert!(lost > 2_000 && superseded > 10, "only {lost} losses, only {superseded} tasks had read what changed");
    assert!(ended("varied") > 30 && ended("succeeded") > 1_000, "{ends:?}");
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in [3, 11] {
        assert_eq!(simulate(seed), simulate(seed));
    }
    assert_ne!(simulate(3).trace, simulate(11).trace);
}
