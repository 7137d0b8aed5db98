use std::collections::{BTreeMap, BTreeSet};

use situ_wire::ids::{ExecutorId, JobId, TaskAttemptId};
use situ_wire::limits::ATTEMPTS_PER_LIFE;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, Holding, Request, StageOutput, TaskDone, TaskFailure, TaskOutcome, TaskSpec,
};
use situ_wire::time::TimeMs;

use super::drivers::Driver;
use super::world::{Happens, Simulation, Who};
use crate::core::CLEAN_UP;
use crate::core::tests::world::registration;

/// One executor process, or the place where the next one will be.
#[derive(Default)]
pub(super) struct Executor {
    /// Rises with each process and each registration.
    pub(super) life: u64,
    pub(super) alive: bool,
    pub(super) id: ExecutorId,
    pub(super) seen: u64,
    pub(super) hangs_until: TimeMs,
    /// Not known to be heard, with their numbers.
    pub(super) events: Vec<(u64, ExecutorEvent)>,
    pub(super) next_event: u64,
    /// The number of the last poll: an older one is not followed up.
    pub(super) last_poll: u64,
    /// The jobs that it was told how to start.
    pub(super) begun: BTreeSet<JobId>,
    pub(super) running: BTreeMap<TaskAttemptId, Box<TaskSpec>>,
    pub(super) cancelled: BTreeSet<TaskAttemptId>,
    /// What tasks have left: pieces in its directory, results in its memory.
    pub(super) outputs: BTreeMap<TaskAttemptId, (StageOutput, TaskDone)>,
    pub(super) drivers: BTreeSet<(JobId, u32)>,
}

impl Executor {
    pub(super) fn tell(&mut self, event: ExecutorEvent) {
        self.next_event += 1;
        self.events.push((self.next_event, event));
    }

    /// It is registered: it keeps what it has of these jobs, and tells it.
    pub(super) fn report(&mut self, jobs: &[JobId]) {
        self.events.clear();
        let goes_on = |job: JobId| jobs.contains(&job);
        self.running.retain(|attempt, _| goes_on(attempt.job));
        self.outputs.retain(|attempt, _| goes_on(attempt.job));
        self.drivers.retain(|(job, _)| goes_on(*job));
        self.begun.retain(|job| goes_on(*job));
        let drivers = self.drivers.iter().map(|(job, attempt)| Holding::Driver { job: *job, attempt: *attempt });
        let running = self.running.values().map(|task| Holding::Task(task.clone()));
        let left = self.outputs.iter().flat_map(|(attempt, (output, done))| {
            let (attempt, output, mut done, partitions) = (*attempt, *output, done.clone(), done.cached.clone());
            done.cached = Vec::new();
            [Holding::Left { attempt, output, done: Box::new(done) }, Holding::Cached { attempt, partitions }]
        });
        let all: Vec<Holding> = drivers.chain(running).chain(left).chain([Holding::Whole]).collect();
        all.into_iter().for_each(|holding| self.tell(ExecutorEvent::Holds(holding)));
    }
}

impl Simulation {
    pub(super) fn register(&mut self, executor: u32, life: u64) {
        let id = self.executors[&executor].id;
        let request = Request::ExecutorRegister(situ_wire::messages::scheduler::ExecutorRegistration {
            id,
            ..registration(executor, 2)
        });
        self.later(20, Happens::Call(Who::Register { executor, life }, Box::new(request)));
    }

    pub(super) fn executor_starts(&mut self, number: u32) {
        self.next_executor += 1;
        let id = ExecutorId(self.next_executor);
        let executor = self.executors.get_mut(&number).unwrap();
        if executor.alive {
            return;
        }
        // Its directory stays, and its memory does not.
        let mut outputs = std::mem::take(&mut executor.outputs);
        outputs.retain(|_, (output, _)| matches!(output, StageOutput::Shuffle { .. }));
        *executor = Executor { life: executor.life + 1, alive: true, id, outputs, ..Executor::default() };
        let life = executor.life;
        self.register(number, life);
    }

    pub(super) fn poll(&mut self, number: u32, life: u64) {
        let executor = &self.executors[&number];
        if !executor.alive || executor.life != life {
            return;
        }
        if executor.hangs_until > self.now {
            return self.at(executor.hangs_until, Happens::PollAgain { executor: number, life });
        }
        let events = executor.events.iter().map(|(_, event)| event.clone()).collect();
        let request = Request::ExecutorPoll { id: executor.id, seen: executor.seen, events, progress: Vec::new() };
        let told = executor.next_event;
        let last_poll = self.next_call;
        self.executors.get_mut(&number).unwrap().last_poll = last_poll;
        self.call(Who::Poll { executor: number, life, number: last_poll, told }, request);
    }

    pub(super) fn commanded(&mut self, number: u32, life: u64, last: u64, commands: Vec<(u64, ExecutorCommand)>) {
        let executor = self.executors.get_mut(&number).unwrap();
        let mut tasks = Vec::new();
        let mut drivers = Vec::new();
        let mut cleaning = Vec::new();
        for (at, command) in commands.into_iter().filter(|(at, _)| *at > executor.seen).collect::<Vec<_>>() {
            executor.seen = at;
            match command {
                ExecutorCommand::StartDriver { job, attempt } => {
                    executor.begun.insert(job.job);
                    executor.drivers.insert((job.job, attempt));
                    let process = Driver { executor: number, life, job: job.job, attempt, secret: job.secret };
                    if job.program.name() == CLEAN_UP {
                        assert_eq!(job.arguments, [format!("/{}", job.job)], "what was written aside is named");
                        cleaning.push(process);
                    } else {
                        drivers.push(process);
                    }
                }
                ExecutorCommand::EndDriver { job, attempt } => {
                    executor.drivers.remove(&(job, attempt));
                }
                ExecutorCommand::BeginJob { job } => _ = executor.begun.insert(job.job),
                ExecutorCommand::RunTask { task } => {
                    assert!(executor.begun.contains(&task.attempt.job), "a job begins before its tasks");
                    if let StageOutput::Result { action } = task.output
                        && let Some(life) = self.done.get(&(task.attempt.job, action))
                    {
                        let started = task.attempt.attempt / ATTEMPTS_PER_LIFE;
                        assert!(started <= u32::from(*life), "a done action runs in no later life: {task:?}");
                    }
                    executor.running.insert(task.attempt, task.clone());
                    tasks.push(task);
                }
                ExecutorCommand::CancelTask { attempt } => {
                    executor.cancelled.insert(attempt);
                    if executor.running.remove(&attempt).is_some() {
                        let outcome = TaskOutcome::Failed(TaskFailure::Cancelled);
                        executor.tell(ExecutorEvent::TaskEnded { attempt, outcome });
                    }
                }
                ExecutorCommand::EndJob { job } => {
                    executor.begun.remove(&job);
                    executor.running.retain(|attempt, _| attempt.job != job);
                    executor.outputs.retain(|attempt, _| attempt.job != job);
                    executor.drivers.retain(|(other, _)| *other != job);
                }
                ExecutorCommand::Release { .. } => unreachable!("no driver releases anything"),
            }
        }
        assert!(executor.seen <= last.max(executor.seen), "numbers rise");
        for process in drivers {
            self.begin(process);
        }
        for process in cleaning {
            self.later(1_000, Happens::Cleans(process));
        }
        for task in tasks {
            self.check_started(&task);
            match task.output {
                StageOutput::Shuffle { reducers, .. } => self.map(number, life, &task, reducers),
                StageOutput::Result { .. } => self.fetch(number, life, task),
            }
        }
        self.later(10, Happens::PollAgain { executor: number, life });
    }
}
