//! Many random histories of the table and a worker, each the product's own: polls and answers are lost and late, the
//! worker is stopped, killed, and started anew. Every task must be done in the end, and no attempt may ever run twice.

use std::collections::BTreeMap;

use situ_wire::ids::{ActionId, PartitionId, ScopeId, StageId};
use situ_wire::messages::scheduler::{JobOptions, Locality, StageOutput, TaskWork};

use super::*;
use crate::program::heartbeat::Holdings;

const JOB: JobId = JobId(1);
const SECRET: JobSecret = JobSecret([7; 16]);
const TASKS: u32 = 60;
const SLOTS: u32 = 3;
/// Until when things go wrong, and when all must be done.
const FAULTS_END: TimeMs = TimeMs(120_000);
const END: TimeMs = TimeMs(300_000);
/// How long the worker waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % end
    }
}

enum Happens {
    Submit(TaskAttemptId),
    Arrives(WaiterId, WorkerPoll),
    Answered(WaiterId, Orders),
    Started(ProcessLife),
    Killed(ProcessLife),
    /// The worker looks around.
    Wakes(ProcessLife),
    TaskEnds(ProcessLife, TaskAttemptId),
    Fault,
}

struct Process {
    life: ProcessLife,
    holdings: Holdings,
    /// The poll in force: who waits, what it told, until when.
    poll: Option<(WaiterId, usize, TimeMs)>,
    stopped_until: TimeMs,
}

struct Simulation {
    random: Random,
    now: TimeMs,
    heap: BTreeMap<(TimeMs, u64), Happens>,
    sequence: u64,
    table: JobTable,
    process: Option<Process>,
    /// Attempts that were begun.
    begun: BTreeSet<TaskAttemptId>,
    done: BTreeSet<PartitionId>,
    lost: usize,
}

impl Simulation {
    fn at(&mut self, at: TimeMs, what: Happens) {
        self.sequence += 1;
        self.heap.insert((at, self.sequence), what);
    }

    fn later(&mut self, ms: u64, what: Happens) {
        let at = self.now + Duration::from_millis(1 + self.random.below(ms));
        self.at(at, what);
    }

    fn goes_wrong(&mut self, percent: u64) -> bool {
        self.now < FAULTS_END && self.random.below(100) < percent
    }

    fn run(seed: u64) -> usize {
        let mut all = Self {
            random: Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            now: TimeMs(1),
            heap: BTreeMap::new(),
            sequence: 0,
            table: JobTable::new(Duration::from_secs(10), 0, 16),
            process: None,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
            lost: 0,
        };
        let (arguments, options) = (Vec::new(), JobOptions::default());
        let program = Program::BuiltIn { name: "wordcount".to_owned() };
        let job = JobLaunch {
            job: JOB,
            secret: SECRET,
            user: "ann".to_owned(),
            program,
            arguments,
            options,
            attached: false,
        };
        all.table.handle(all.now, Event::Command(ExecutorCommand::BeginJob { job }));
        for partition in (0..TASKS).map(PartitionId) {
            all.later(
                100_000,
                Happens::Submit(TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, 0), partition, attempt: 0 }),
            );
        }
        all.later(5_000, Happens::Fault);
        while all.done.len() < TASKS.try_into().unwrap() {
            assert!(all.now < END, "seed {seed}: tasks are not done: {:?}", all.table);
            let next = all.heap.first_key_value().map_or(TimeMs::NEVER, |((at, _), _)| *at);
            let due = all.table.poll_timeout().unwrap_or(TimeMs::NEVER);
            all.now = all.now.max(next.min(due));
            if due <= all.now {
                all.table.handle_timeout(all.now);
            } else if let Some((_, what)) = all.heap.pop_first() {
                all.happens(what);
            }
            while let Some(action) = all.table.poll_action() {
                all.act(action);
            }
        }
        all.lost
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Submit(attempt) => {
                let output = StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) };
                let work = TaskWork::Replay { action: ActionId(ScopeId::ROOT, 0), plan_digest: [0; 32] };
                let (locality, slots) = (Locality::Any, 1 + u32::from(self.random.below(4) == 0));
                let alone = self.random.below(10) == 0;
                let task = Box::new(TaskSpec { attempt, work, output, locality, alone, slots });
                self.table.handle(self.now, Event::Command(ExecutorCommand::RunTask { task }));
            }
            Happens::Arrives(waiter, poll) => self.table.handle(self.now, Event::Poll { waiter, poll }),
            Happens::Started(life) => {
                let holdings = Holdings::new(JOB, SECRET, life, SLOTS);
                self.process = Some(Process { life, holdings, poll: None, stopped_until: TimeMs(0) });
                self.wake(life);
            }
            Happens::Killed(life) => {
                if self.process.take_if(|process| process.life == life).is_some() {
                    let reason = "signal 9".to_owned();
                    self.table.handle(self.now, Event::WorkerEnded { job: JOB, life, reason, away: false });
                }
            }
            Happens::Wakes(life) => self.wake(life),
            Happens::Answered(waiter, orders) => self.answered(waiter, orders),
            Happens::TaskEnds(life, attempt) => {
                if let Some(process) = self.running(life, |attempt| Happens::TaskEnds(life, attempt), attempt) {
                    process.holdings.end(attempt, TaskOutcome::Done(Box::default()));
                    // It gives the poll in force up.
                    process.poll = None;
                    self.wake(life);
                }
            }
            Happens::Fault => {
                let stopped_until = self.now + Duration::from_millis(self.random.below(20_000));
                let is_killed = self.random.below(3) == 0;
                if let Some(process) = &mut self.process {
                    process.stopped_until = stopped_until;
                    let life = process.life;
                    if is_killed {
                        self.happens(Happens::Killed(life));
                    }
                }
                if self.now < FAULTS_END {
                    self.later(15_000, Happens::Fault);
                }
            }
        }
    }

    /// The process, if that life of it goes on now; what is for one that is stopped comes when it goes on.
    fn running<T>(&mut self, life: ProcessLife, again: impl FnOnce(T) -> Happens, what: T) -> Option<&mut Process> {
        let stopped = self.process.as_ref().filter(|process| process.life == life)?.stopped_until;
        if stopped > self.now {
            self.at(stopped, again(what));
            return None;
        }
        self.process.as_mut()
    }

    /// The worker polls unless its last poll is in force.
    fn wake(&mut self, life: ProcessLife) {
        let now = self.now;
        let Some(process) = self.running(life, |()| Happens::Wakes(life), ()) else { return };
        if process.poll.is_some_and(|(.., until)| until > now) {
            return;
        }
        let (poll, told) = process.holdings.next_poll();
        self.sequence += 1;
        let waiter = WaiterId(self.sequence);
        self.process.as_mut().unwrap().poll = Some((waiter, told, now + PATIENCE));
        self.at(now + PATIENCE, Happens::Wakes(life));
        if !self.goes_wrong(5) {
            let late = if self.goes_wrong(5) { 8_000 } else { 5 };
            self.later(late, Happens::Arrives(waiter, poll));
        }
    }

    fn answered(&mut self, waiter: WaiterId, orders: Orders) {
        let Some(life) = self.process.as_ref().map(|process| process.life) else { return };
        let again = |(waiter, orders)| Happens::Answered(waiter, orders);
        let Some(process) = self.running(life, again, (waiter, orders.clone())) else { return };
        let Some((_, told, _)) = process.poll.take_if(|(number, ..)| *number == waiter) else { return };
        process.holdings.heard(told);
        if orders.end {
            return self.happens(Happens::Killed(life));
        }
        for task in orders.run {
            assert!(self.begun.insert(task.attempt), "an attempt runs once: {}", task.attempt);
            self.process.as_mut().unwrap().holdings.take(task.attempt, task.slots);
            self.later(3_000, Happens::TaskEnds(life, task.attempt));
        }
        self.wake(life);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartWorker { life, .. } => {
                assert!(self.process.is_none(), "a job has one worker at a time");
                self.later(500, Happens::Started(life));
            }
            Action::EndProcess { life, .. } => self.later(2_000, Happens::Killed(life)),
            Action::Answer { waiter, result } => {
                let late = if self.goes_wrong(5) { 8_000 } else { 5 };
                if let Ok(orders) = result
                    && !self.goes_wrong(10)
                {
                    self.later(late, Happens::Answered(waiter, orders));
                }
            }
            Action::Report(ExecutorEvent::TaskEnded { attempt, outcome: TaskOutcome::Done(_) }) => {
                assert!(self.done.insert(attempt.partition), "a task is done once: {attempt}");
            }
            Action::Report(ExecutorEvent::TaskEnded { attempt, .. }) => {
                self.lost += 1;
                self.later(50, Happens::Submit(TaskAttemptId { attempt: attempt.attempt + 1, ..attempt }));
            }
            Action::Report(_) | Action::Progress(_) => {}
            action => panic!("nothing asks for {action:?}"),
        }
    }
}

#[test]
fn every_task_is_done_and_no_attempt_runs_twice_whatever_happens() {
    let lost: usize = (0..300).map(Simulation::run).sum();
    // A simulation in which nothing goes wrong shows nothing.
    assert!(lost > 1_000, "only {lost} losses");
}
