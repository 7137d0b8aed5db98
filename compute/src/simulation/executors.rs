use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use situ_wire::ids::{ExecutorId, JobId, ShuffleId, TaskAttemptId};
use situ_wire::messages::executor::ProcessLife;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, ExecutorRegistration, Holding, Request, StageOutput, TaskDone, TaskProgress,
};
use situ_wire::time::TimeMs;

use super::processes::{Pid, Process, Role};
use super::world::{Happens, Simulation, Who};
use super::{SLOTS, workers};
use crate::core::CLEAN_UP;
use crate::core::tests::world::registration;
use crate::executor::table::{Action, Event, JobTable, WaiterId};

/// How long an executor lets a worker be silent, as it does by default.
const SILENCE: Duration = Duration::from_secs(10);

/// How long after trouble an executor has heard all that it was told meanwhile.
const CALM: Duration = Duration::from_secs(5);

/// What one side of the conversation with the scheduler remembers.
#[derive(Default)]
pub(super) struct Link {
    pub(super) seen: u64,
    /// Events that are not known to be heard, with their numbers.
    unheard: Vec<(u64, ExecutorEvent)>,
    next_event: u64,
    progress: Vec<TaskProgress>,
    /// The number of the last poll: an older one is not followed up.
    pub(super) last_poll: u64,
}

/// A task that an executor was given.
pub(super) struct Owed {
    pub(super) output: StageOutput,
    /// Since when its table takes it for held and its worker has not got it.
    pub(super) unseen_since: Option<TimeMs>,
}

/// What map tasks have left in files: whole when they are there.
pub(super) type Files = BTreeMap<(JobId, ShuffleId, TaskAttemptId), (StageOutput, Box<TaskDone>)>;

/// One executor process, or the place where the next one will be.
pub(super) struct Executor {
    /// Rises with each process.
    pub(super) life: u64,
    pub(super) alive: bool,
    pub(super) id: ExecutorId,
    pub(super) hangs_until: TimeMs,
    /// When something last went wrong with it, or it registered.
    pub(super) calm_since: TimeMs,
    pub(super) link: Link,
    pub(super) table: JobTable,
    /// When the table wants to be asked, as it said last.
    table_due: TimeMs,
    pub(super) waiters: BTreeMap<WaiterId, Pid>,
    pub(super) processes: BTreeMap<ProcessLife, Process>,
    /// Its directory, which outlives it.
    pub(super) files: Files,
    /// The jobs of which an earlier run has left something.
    earlier: BTreeSet<JobId>,
    surveys: (u64, BTreeSet<JobId>),
    /// The tasks that it was given and of whose end it has not told.
    pub(super) owed: BTreeMap<TaskAttemptId, Owed>,
    /// The results that it has told, and keeps.
    pub(super) results: BTreeMap<TaskAttemptId, StageOutput>,
    /// The jobs with whose workers something is wrong.
    pub(super) ailing: BTreeSet<JobId>,
}

impl Executor {
    pub(super) fn new() -> Self {
        Self {
            life: 0,
            alive: false,
            id: ExecutorId(0),
            hangs_until: TimeMs(0),
            calm_since: TimeMs(0),
            link: Link::default(),
            table: JobTable::new(SILENCE, 0, SLOTS),
            table_due: TimeMs::NEVER,
            waiters: BTreeMap::new(),
            processes: BTreeMap::new(),
            files: BTreeMap::new(),
            earlier: BTreeSet::new(),
            surveys: (0, BTreeSet::new()),
            owed: BTreeMap::new(),
            results: BTreeMap::new(),
            ailing: BTreeSet::new(),
        }
    }

    /// Whether it has heard all that it was told, as nothing has gone wrong for a while.
    pub(super) fn is_calm(&self, now: TimeMs) -> bool {
        self.alive && self.calm_since.max(self.hangs_until) + CALM <= now
    }

    /// When its table has something to do by itself.
    pub(super) fn due(&self) -> TimeMs {
        if self.alive { self.table_due.max(self.hangs_until) } else { TimeMs::NEVER }
    }

    fn tell(&mut self, event: ExecutorEvent) {
        self.link.next_event += 1;
        self.link.unheard.push((self.link.next_event, event));
    }

    fn remove_files(&mut self, gone: impl Fn(JobId, ShuffleId) -> bool) {
        self.files.retain(|(job, shuffle, _), _| !gone(*job, *shuffle));
    }
}

impl Simulation {
    pub(super) fn executor_starts(&mut self, number: u32) {
        self.next_executor += 1;
        let id = ExecutorId(self.next_executor);
        let executor = self.executors.get_mut(&number).unwrap();
        if executor.alive {
            return;
        }
        let life = executor.life + 1;
        // Its directory stays, and its memory does not.
        let files = std::mem::take(&mut executor.files);
        let earlier = files.keys().map(|(job, ..)| *job).collect();
        let lives = u64::try_from(self.next_executor).unwrap() << 32;
        let table = JobTable::new(SILENCE, lives, workers(number));
        let calm_since = self.now;
        *executor = Executor { life, alive: true, id, calm_since, table, files, earlier, ..Executor::new() };
        self.register(number, life);
    }

    pub(super) fn register(&mut self, executor: u32, life: u64) {
        let id = self.executors[&executor].id;
        let request = Request::ExecutorRegister(ExecutorRegistration {
            id,
            workers: workers(executor),
            ..registration(executor, SLOTS)
        });
        self.later(20, Happens::Call(Who::Register { executor, life }, Box::new(request)));
    }

    /// The scheduler does not know it (any more). Its processes go on.
    pub(super) fn unknown(&mut self, executor: u32) {
        let unknown = self.executors.get_mut(&executor).unwrap();
        (unknown.link.seen, unknown.link.last_poll) = (0, u64::MAX);
        let life = unknown.life;
        self.register(executor, life);
    }

    /// What it said before was for an earlier registration.
    pub(super) fn registered(&mut self, executor: u32, life: u64, jobs: Vec<JobId>) {
        let here = self.executors.get_mut(&executor).unwrap();
        here.link.unheard.clear();
        here.calm_since = self.now;
        let jobs: BTreeSet<JobId> = jobs.into_iter().collect();
        self.hear(executor, life, Event::Registered { jobs });
        self.poll(executor, life);
    }

    pub(super) fn poll(&mut self, number: u32, life: u64) {
        let executor = self.executors.get_mut(&number).unwrap();
        if !executor.alive || executor.life != life {
            return;
        }
        if executor.hangs_until > self.now {
            let until = executor.hangs_until;
            return self.at(until, Happens::PollAgain { executor: number, life });
        }
        let link = &mut executor.link;
        let events = link.unheard.iter().map(|(_, event)| event.clone()).collect();
        let progress = link.progress.clone();
        let (told, poll) = (link.next_event, self.next_call);
        link.last_poll = poll;
        let request = Request::ExecutorPoll { id: executor.id, seen: link.seen, events, progress };
        self.call(Who::Poll { executor: number, life, number: poll, told }, request);
    }

    /// The scheduler has answered a poll that told the events up to `told`.
    pub(super) fn commanded(
        &mut self,
        number: u32,
        life: u64,
        told: u64,
        last: u64,
        commands: Vec<(u64, ExecutorCommand)>,
    ) {
        let link = &mut self.executors.get_mut(&number).unwrap().link;
        link.unheard.retain(|(number, _)| *number > told);
        link.progress.clear();
        let seen = link.seen;
        for (at, command) in commands.into_iter().filter(|(at, _)| *at > seen) {
            let here = self.executors.get_mut(&number).unwrap();
            assert!(at > here.link.seen, "numbers rise");
            here.link.seen = at;
            if let ExecutorCommand::RunTask { task } = &command {
                assert!(here.table.has(task.attempt.job), "a job begins before its tasks");
                let owed = Owed { output: task.output, unseen_since: None };
                let before = here.owed.insert(task.attempt, owed);
                assert!(before.is_none(), "an executor is given an attempt once: {task:?}");
                self.check_started(task);
            }
            self.hear(number, life, Event::Command(command));
        }
        let link = &mut self.executors.get_mut(&number).unwrap().link;
        assert!(last >= link.seen || link.seen == seen, "the last one is the last");
        self.later(10, Happens::PollAgain { executor: number, life });
    }

    /// An executor's owner hears something; when it hangs, later.
    pub(super) fn hear(&mut self, number: u32, life: u64, what: Event) {
        let executor = self.executors.get_mut(&number).unwrap();
        if !executor.alive || executor.life != life {
            return;
        }
        if executor.hangs_until > self.now {
            let until = executor.hangs_until;
            return self.at(until, Happens::Heard { executor: number, life, what: Box::new(what) });
        }
        executor.table.handle(self.now, what);
        self.act(number);
    }

    pub(super) fn table_timeout(&mut self, number: u32) {
        self.executors.get_mut(&number).unwrap().table.handle_timeout(self.now);
        self.act(number);
    }

    /// Carries out what the table of an executor asks for.
    fn act(&mut self, number: u32) {
        let here = self.executors.get_mut(&number).unwrap();
        here.table_due = here.table.poll_timeout().unwrap_or(TimeMs::NEVER);
        let (life, mut told) = (here.life, false);
        while let Some(action) = self.executors.get_mut(&number).unwrap().table.poll_action() {
            match action {
                Action::StartDriver { launch, attempt, life } => {
                    let cleans = launch.program.name() == CLEAN_UP;
                    self.start(number, &launch, life, Role::Driver { attempt, cleans });
                }
                Action::StartWorker { launch, life } => self.start(number, &launch, life, Role::Worker),
                Action::EndProcess { life, .. } => self.end(Pid { executor: number, life }),
                Action::EndJob { job } => self.drop_job(number, job),
                Action::Release { job, shuffles } => {
                    let gone = |of, shuffle| of == job && shuffles.contains(&shuffle);
                    self.executors.get_mut(&number).unwrap().remove_files(gone);
                }
                Action::Answer { waiter, result } => self.answer_worker(number, waiter, result),
                Action::Report(event) => {
                    self.check_report(number, &event);
                    self.executors.get_mut(&number).unwrap().tell(event);
                    told = true;
                }
                Action::Survey { jobs } => self.survey(number, jobs),
                Action::Progress(progress) => self.executors.get_mut(&number).unwrap().link.progress = progress,
            }
        }
        // It does not wait for the answer to the poll that is under way.
        if told && self.executors[&number].link.last_poll != u64::MAX {
            self.poll(number, life);
        }
    }

    fn drop_job(&mut self, number: u32, job: JobId) {
        self.end_all(number, job);
        let here = self.executors.get_mut(&number).unwrap();
        here.earlier.remove(&job);
        here.remove_files(|of, _| of == job);
        here.owed.retain(|attempt, _| attempt.job != job);
        here.results.retain(|attempt, _| attempt.job != job);
    }

    /// Looks for what is in the directories of unfinished jobs; what is there of others goes.
    fn survey(&mut self, number: u32, jobs: BTreeSet<JobId>) {
        let ended: Vec<JobId> = self.executors[&number].earlier.difference(&jobs).copied().collect();
        ended.into_iter().for_each(|job| self.drop_job(number, job));
        let here = self.executors.get_mut(&number).unwrap();
        let found = jobs.into_iter().filter(|job| here.table.has(*job) || here.earlier.contains(job)).collect();
        here.surveys = (here.surveys.0 + 1, found);
        let (life, survey) = (here.life, here.surveys.0);
        self.later(100, Happens::Surveyed { executor: number, life, number: survey });
    }

    pub(super) fn surveyed(&mut self, number: u32, life: u64, survey: u64) {
        let here = self.executors.get_mut(&number).unwrap();
        if !here.alive || (here.life, here.surveys.0) != (life, survey) {
            return;
        }
        if here.hangs_until > self.now {
            let until = here.hangs_until;
            return self.at(until, Happens::Surveyed { executor: number, life, number: survey });
        }
        for job in here.surveys.1.clone() {
            here.tell(ExecutorEvent::Holds(Holding::Job(job)));
            let files = here.files.iter().filter(|((of, ..), _)| *of == job);
            let left = files.map(|((.., map), (output, done))| Holding::Left {
                attempt: *map,
                output: *output,
                done: done.clone(),
            });
            left.collect::<Vec<_>>().into_iter().for_each(|left| here.tell(ExecutorEvent::Holds(left)));
        }
        here.tell(ExecutorEvent::Holds(Holding::Whole));
        self.poll(number, life);
    }
}
