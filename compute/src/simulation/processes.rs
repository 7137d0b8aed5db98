use std::time::Duration;

use situ_wire::ids::JobId;
use situ_wire::messages::executor::{JobSecret, ProcessLife};
use situ_wire::messages::scheduler::JobLaunch;
use situ_wire::time::TimeMs;

use super::drivers::Driver;
use super::workers::Worker;
use super::world::{Happens, Simulation};
use super::{FAULTS_END, SLOTS, workers};
use crate::core::CLEAN_UP;
use crate::executor::table::Event;

/// A process of a job: its executor, and the life that its table gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Pid {
    pub(super) executor: u32,
    pub(super) life: ProcessLife,
}

/// How a process ended, or why it did not start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ending {
    pub(super) error: Option<String>,
    pub(super) retry: bool,
    pub(super) away: bool,
}

impl Ending {
    pub(super) fn killed() -> Self {
        Self { error: Some("signal 9".to_owned()), retry: true, away: false }
    }

    /// It was told to end, or has ended with an error of its own.
    pub(super) fn with(error: &str) -> Self {
        Self { error: Some(error.to_owned()), retry: false, away: false }
    }

    fn away() -> Self {
        Self { error: Some("the program could not be fetched".to_owned()), retry: true, away: true }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Driver { attempt: u32, cleans: bool },
    Worker,
}

pub(super) struct Process {
    pub(super) job: JobId,
    secret: JobSecret,
    pub(super) role: Role,
    /// Whether its executable is being fetched.
    fetching: bool,
    pub(super) stopped_until: TimeMs,
    /// What it does if it is a worker that has started.
    pub(super) worker: Option<Worker>,
}

impl Simulation {
    pub(super) fn process(&self, Pid { executor, life }: Pid) -> Option<&Process> {
        self.executors[&executor].processes.get(&life)
    }

    pub(super) fn process_mut(&mut self, Pid { executor, life }: Pid) -> Option<&mut Process> {
        self.executors.get_mut(&executor)?.processes.get_mut(&life)
    }

    /// Until when a process is stopped, if it is.
    pub(super) fn stopped(&self, process: Pid) -> Option<TimeMs> {
        self.process(process).map(|process| process.stopped_until).filter(|until| *until > self.now)
    }

    /// The table of an executor asks for a process.
    pub(super) fn start(&mut self, executor: u32, launch: &JobLaunch, life: ProcessLife, role: Role) {
        let (pid, job) = (Pid { executor, life }, launch.job);
        let here = self.executors.get_mut(&executor).unwrap();
        if role == Role::Worker {
            let others = here.processes.values().filter(|other| other.job == job && other.role == Role::Worker).count();
            assert_eq!(others, 0, "{job} has one worker at a time on n{executor}");
            let all = here.processes.values().filter(|other| other.role == Role::Worker).count();
            assert!(
                all < workers(executor) as usize,
                "n{executor} holds no more workers at once than fit: {all} are there"
            );
            here.ailing.remove(&job);
        }
        let (secret, stopped_until) = (launch.secret, TimeMs(0));
        here.processes.insert(life, Process { job, secret, role, fetching: true, stopped_until, worker: None });
        if let Role::Driver { cleans, .. } = role {
            let program = launch.program.name();
            assert_eq!(cleans, program == CLEAN_UP, "a clean-up is one");
            assert!(!cleans || launch.arguments == [format!("/{job}")], "what was written aside is named");
        }
        let luck = match self.now {
            now if now < self.away_until => 0,
            now if now < FAULTS_END => self.random.below(100),
            _ => 100,
        };
        match luck {
            0..=2 => self.later(300, Happens::Ends(pid, Ending::away())),
            3..=4 => {
                self.ails(pid);
                let ending = Ending { away: false, ..Ending::away() };
                self.later(500, Happens::Ends(pid, ending));
            }
            // It never comes to its end by itself: its executable is fetched for ever, or its main does something else.
            5..=6 => {
                self.ails(pid);
                self.process_mut(pid).unwrap().fetching = luck == 5;
            }
            _ => self.later(300, Happens::Starts(pid)),
        }
    }

    /// Something is wrong with a process: what it does may be lost.
    pub(super) fn ails(&mut self, Pid { executor, life }: Pid) {
        let here = self.executors.get_mut(&executor).unwrap();
        let Some(process) = here.processes.get(&life) else { return };
        match process.role {
            Role::Worker => {
                here.ailing.insert(process.job);
                self.oracle.troubled.insert(executor);
            }
            Role::Driver { .. } => *self.oracle.drivers_lost.entry(process.job).or_default() += 1,
        }
    }

    pub(super) fn starts(&mut self, pid: Pid) {
        if let Some(until) = self.stopped(pid) {
            return self.at(until, Happens::Starts(pid));
        }
        let Some(process) = self.process_mut(pid) else { return };
        process.fetching = false;
        let Process { job, secret, .. } = *process;
        match process.role {
            Role::Worker => {
                process.worker = Some(Worker::new(job, secret, pid.life, SLOTS));
                self.wakes(pid);
            }
            Role::Driver { attempt, cleans } => {
                let driver = Driver { pid, job, attempt, secret };
                if cleans {
                    self.later(1_000, Happens::Cleans(driver));
                } else {
                    self.take_step(driver, 0);
                }
            }
        }
    }

    /// The table wants a process to end.
    pub(super) fn end(&mut self, pid: Pid) {
        let Some(process) = self.process(pid) else { return };
        let ending = if process.fetching { Ending::away() } else { Ending::with("it was ended") };
        self.later(2_000, Happens::Ends(pid, ending));
    }

    /// A process is gone; its executor hears of it.
    pub(super) fn ends(&mut self, pid: Pid, Ending { error, retry, away }: Ending) {
        let Pid { executor, life } = pid;
        let here = self.executors.get_mut(&executor).unwrap();
        let Some(process) = here.processes.remove(&life) else { return };
        let (job, run) = (process.job, here.life);
        let event = match process.role {
            Role::Driver { attempt, .. } => Event::DriverEnded { job, attempt, life, error, retry, away },
            Role::Worker => {
                let reason = error.unwrap_or_else(|| "it ended by itself before its job did".to_owned());
                Event::WorkerEnded { job, life, reason, away }
            }
        };
        self.hear(executor, run, event);
    }

    /// All processes of a job end; nobody waits for that.
    pub(super) fn end_all(&mut self, executor: u32, job: JobId) {
        let here = &self.executors[&executor];
        let of = |(life, process): (&ProcessLife, &Process)| (process.job == job).then_some(*life);
        let lives: Vec<ProcessLife> = here.processes.iter().filter_map(of).collect();
        for life in lives {
            let run = self.executors[&executor].life;
            let process = self.executors.get_mut(&executor).unwrap().processes.remove(&life).unwrap();
            let reason = "it was ended".to_owned();
            let event = match process.role {
                Role::Driver { attempt, .. } => {
                    Event::DriverEnded { job, attempt, life, error: Some(reason), retry: false, away: process.fetching }
                }
                Role::Worker => Event::WorkerEnded { job, life, reason, away: process.fetching },
            };
            let at = self.now + Duration::from_millis(1 + self.random.below(1_000));
            self.at(at, Happens::Heard { executor, life: run, what: Box::new(event) });
        }
    }
}
