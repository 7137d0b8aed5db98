use situ_wire::ids::{ActionId, PartitionId, ScopeId, StageId};
use situ_wire::messages::scheduler::{JobOptions, Locality, StageOutput, TaskDone, TaskWork};

use super::*;
use crate::program::task::cut;

const NOW: TimeMs = TimeMs(1_000);
pub(super) const SECRET: JobSecret = JobSecret([7; 16]);
const JOB: JobId = JobId(1);

fn launch() -> JobLaunch {
    launch_of(JOB)
}

pub(super) fn launch_of(job: JobId) -> JobLaunch {
    JobLaunch {
        job,
        secret: SECRET,
        user: "ann".to_owned(),
        program: Program::BuiltIn { name: "wordcount".to_owned() },
        arguments: Vec::new(),
        options: JobOptions::default(),
        attached: false,
    }
}

fn attempt(partition: u32) -> TaskAttemptId {
    TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(partition), attempt: 0 }
}

fn task(partition: u32) -> TaskSpec {
    TaskSpec {
        attempt: attempt(partition),
        work: TaskWork::Replay { action: ActionId(ScopeId::ROOT, 0), plan_digest: [0; 32] },
        output: StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) },
        locality: Locality::Node,
        alone: false,
        slots: 1,
    }
}

/// A table and what happens to it: every method gives all that it wants done.
struct Table {
    table: JobTable,
    now: TimeMs,
    polls: u64,
    life: u64,
}

impl Table {
    /// A table that knows the job, whose worker is starting with these tasks queued.
    fn starting(tasks: u32) -> Self {
        let mut table = Self { table: JobTable::new(Duration::from_secs(30), 0, 16), now: NOW, polls: 0, life: 1 };
        assert_eq!(table.command(ExecutorCommand::BeginJob { job: launch() }), []);
        for partition in 0..tasks {
            let expected = if partition == 0 { vec![start(1)] } else { Vec::new() };
            assert_eq!(table.run(partition), expected);
        }
        table
    }

    /// The same, whose worker has polled and holds the tasks.
    fn holding(tasks: u32) -> Self {
        let mut table = Self::starting(tasks);
        assert_eq!(table.poll(&[], &[], tasks), [answer(1, (0..tasks).map(task).collect(), &[])]);
        table
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        self.table.handle(self.now, event);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.table.poll_action()).collect()
    }

    fn command(&mut self, command: ExecutorCommand) -> Vec<Action> {
        self.handle(Event::Command(command))
    }

    fn run(&mut self, partition: u32) -> Vec<Action> {
        self.command(ExecutorCommand::RunTask { task: Box::new(task(partition)) })
    }

    fn run_alone(&mut self, partition: u32) -> Vec<Action> {
        let task = Box::new(TaskSpec { alone: true, ..task(partition) });
        self.command(ExecutorCommand::RunTask { task })
    }

    fn cancel(&mut self, partition: u32) -> Vec<Action> {
        self.command(ExecutorCommand::CancelTask { attempt: attempt(partition) })
    }

    /// The worker polls, the waiter of which has the poll's number.
    fn poll(&mut self, held: &[u32], ended: &[u32], free: u32) -> Vec<Action> {
        let held = held.iter().map(|partition| TaskProgress { attempt: attempt(*partition), steps: 0 });
        let ended = ended.iter().map(|partition| (attempt(*partition), done()));
        self.poll_with(held.collect(), ended.collect(), free)
    }

    fn poll_with(
        &mut self,
        held: Vec<TaskProgress>,
        ended: Vec<(TaskAttemptId, TaskOutcome)>,
        free: u32,
    ) -> Vec<Action> {
        self.polls += 1;
        let (number, life) = (self.polls, ProcessLife(self.life));
        let poll = WorkerPoll { job: JOB, secret: SECRET, life, number, held, ended, free };
        self.handle(Event::Poll { waiter: WaiterId(number), poll })
    }

    fn gone(&mut self, life: u64, reason: &str) -> Vec<Action> {
        let (life, reason) = (ProcessLife(life), reason.to_owned());
        self.handle(Event::WorkerEnded { job: JOB, life, reason, away: false })
    }

    /// Lets time pass until then, doing what is due on the way.
    fn pass(&mut self, until: u64) -> Vec<Action> {
        let mut all = Vec::new();
        while let Some(due) = self.table.poll_timeout().filter(|due| due.0 <= until) {
            self.now = self.now.max(due);
            self.table.handle_timeout(self.now);
            all.extend(self.actions());
            assert!(self.table.poll_timeout().is_none_or(|next| next > self.now), "time passes");
        }
        self.now = TimeMs(until);
        all
    }
}

fn done() -> TaskOutcome {
    TaskOutcome::Done(Box::default())
}

fn start(life: u64) -> Action {
    Action::StartWorker { launch: launch(), life: ProcessLife(life) }
}

fn end(life: u64) -> Action {
    Action::EndProcess { job: JOB, life: ProcessLife(life) }
}

fn answer(waiter: u64, run: Vec<TaskSpec>, give_up: &[u32]) -> Action {
    let give_up = give_up.iter().map(|partition| attempt(*partition)).collect();
    Action::Answer { waiter: WaiterId(waiter), result: Ok(Orders { run, give_up, end: false }) }
}

fn nothing(waiter: u64) -> Action {
    answer(waiter, Vec::new(), &[])
}

fn home(waiter: u64) -> Action {
    Action::Answer { waiter: WaiterId(waiter), result: Ok(END) }
}

fn ended(partition: u32) -> Action {
    report(attempt(partition), done())
}

fn failed(partition: u32, failure: TaskFailure) -> Action {
    report(attempt(partition), TaskOutcome::Failed(failure))
}

fn lost(partition: u32, reason: &str, company: u32) -> Action {
    failed(partition, TaskFailure::WorkerLost { reason: reason.to_owned(), company })
}

fn worker_lost(reason: &str) -> Action {
    Action::Report(ExecutorEvent::WorkerLost { job: JOB, reason: reason.to_owned() })
}

#[test]
fn tasks_wait_for_the_worker_and_are_reported_once() {
    let mut table = Table::starting(2);
    assert_eq!(table.poll(&[], &[], 1), [answer(1, vec![task(0)], &[])]);
    assert_eq!(table.poll(&[0], &[], 0), []);
    assert_eq!(table.poll(&[], &[0], 1), [nothing(2), ended(0), answer(3, vec![task(1)], &[])]);
    assert_eq!(table.poll(&[1], &[0], 0), [], "nobody heard that it was told");
    assert_eq!(table.poll(&[], &[1, 0], 1), [nothing(4), ended(1)]);
}

#[test]
fn a_poll_waits_for_a_task_or_for_a_second() {
    let mut table = Table::starting(0);
    assert_eq!(table.run(0), [start(1)]);
    assert_eq!(table.poll(&[], &[], 4), [answer(1, vec![task(0)], &[])]);
    assert_eq!(table.poll(&[0], &[], 3), []);
    assert_eq!(table.run(1), [answer(2, vec![task(1)], &[])]);
    assert_eq!(table.poll(&[0, 1], &[], 2), []);
    assert_eq!(table.pass(1_999), []);
    assert_eq!(table.pass(2_000), [nothing(3)]);
    assert_eq!(table.run(2), [], "no poll is there");
    assert_eq!(table.poll(&[0, 1], &[], 2), [answer(4, vec![task(2)], &[])]);
}

#[test]
fn what_a_worker_was_given_and_does_not_have_is_queued_again_in_front() {
    let mut table = Table::starting(4);
    assert_eq!(table.poll(&[], &[], 3), [answer(1, vec![task(0), task(1), task(2)], &[])]);
    // It gave that poll up before the answer came; one task it has from before.
    assert_eq!(table.poll(&[1], &[], 2), [answer(2, vec![task(0), task(2)], &[])]);
    // And again, while one of them was cancelled.
    assert_eq!(table.cancel(0), []);
    let cancelled = failed(0, TaskFailure::Cancelled);
    assert_eq!(table.poll(&[1], &[], 1), [cancelled, answer(3, vec![task(2)], &[])]);
    assert_eq!(table.poll(&[], &[1, 2], 3), [ended(1), ended(2), answer(4, vec![task(3)], &[])]);
}

#[test]
fn a_poll_that_comes_behind_a_later_one_is_refused() {
    let mut table = Table::holding(1);
    assert_eq!(table.poll(&[0], &[], 0), []);
    table.polls = 0;
    let late = table.poll(&[], &[], 1);
    let [Action::Answer { waiter: WaiterId(1), result: Err(error) }] = &late[..] else { panic!("{late:?}") };
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    table.polls = 2;
    assert_eq!(table.poll(&[], &[0], 1), [nothing(2), ended(0)], "the task is held");
}

#[test]
fn what_a_worker_says_of_a_failure_is_cut() {
    let mut table = Table::holding(1);
    let failure = TaskFailure::Program { message: "x".repeat(1 << 20) };
    let outcome = TaskOutcome::Failed(failure.clone());
    // So much is answered at once, so that it is not said again.
    assert_eq!(table.poll_with(Vec::new(), vec![(attempt(0), outcome)], 1), [failed(0, cut(failure)), nothing(2)]);
}

#[test]
fn large_outcomes_are_answered_at_once_and_small_ones_with_the_next_task() {
    let mut table = Table::holding(2);
    assert_eq!(table.poll(&[1], &[0], 1), [ended(0)]);
    let large = TaskOutcome::Done(Box::new(TaskDone { result: vec![0; 1 << 20].into(), ..TaskDone::default() }));
    let told = report(attempt(1), large.clone());
    assert_eq!(table.poll_with(Vec::new(), vec![(attempt(1), large)], 2), [nothing(2), told, nothing(3)]);
}

#[test]
fn a_lost_worker_loses_what_it_held_and_the_rest_goes_to_the_next() {
    let mut table = Table::starting(4);
    assert_eq!(table.poll(&[], &[], 2), [answer(1, vec![task(0), task(1)], &[])]);
    let all = [worker_lost("signal 9"), lost(0, "signal 9", 1), lost(1, "signal 9", 1), start(2)];
    assert_eq!(table.gone(1, "signal 9"), all);
    assert_eq!(table.gone(1, "told twice"), []);
    (table.life, table.polls) = (2, 0);
    assert_eq!(table.poll(&[], &[], 1), [answer(1, vec![task(2)], &[])]);
    // It polled again, which has no answer when it dies.
    assert_eq!(table.poll(&[2], &[], 0), []);
    let all = [home(2), worker_lost("signal 11"), lost(2, "signal 11", 0), start(3)];
    assert_eq!(table.gone(2, "signal 11"), all);
}

#[test]
fn a_worker_that_was_never_ready_loses_what_is_queued() {
    let mut table = Table::starting(2);
    let all = [worker_lost("exit code 1"), lost(0, "exit code 1", 0), lost(1, "exit code 1", 0)];
    assert_eq!(table.gone(1, "exit code 1"), all);
    assert_eq!(table.run(2), [start(2)]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_ended() {
    let mut table = Table::starting(1);
    assert_eq!(table.pass(60_999), []);
    assert_eq!(table.pass(61_000), [end(1)]);
    assert_eq!(table.table.poll_timeout(), None, "all waits for its end");
    let all = table.gone(1, "signal 9");
    let [Action::Report(ExecutorEvent::WorkerLost { reason, .. }), one] = &all[..] else { panic!("{all:?}") };
    assert!(reason.starts_with("it was not ready within 60 s"), "{reason}");
    assert_eq!(one, &lost(0, reason, 0));
    assert_eq!(table.table.poll_timeout(), None);
}

const SILENT: &str = "its worker process was silent for 30 s (worker_silence_ms), and was ended";

#[test]
fn a_silent_worker_is_given_up_at_once_and_another_one_is_started_when_it_is_gone() {
    let mut table = Table::holding(2);
    assert_eq!(table.poll(&[0, 1], &[], 0), []);
    assert_eq!(table.run(2), []);
    assert_eq!(table.pass(30_999), [nothing(2)]);
    let again = |partition| failed(partition, TaskFailure::WorkerSilent { reason: SILENT.to_owned(), company: 1 });
    assert_eq!(table.pass(31_000), [worker_lost(SILENT), again(0), again(1), end(1)]);
    assert_eq!(table.table.poll_timeout(), None, "it is given up once");
    // It wakes, and has done what it was given: nobody waits for that any more.
    assert_eq!(table.poll(&[], &[0, 1], 2), [home(3)]);
    assert_eq!(table.run(3), []);
    assert_eq!(table.gone(1, "signal 9"), [start(2)]);
    (table.life, table.polls) = (2, 0);
    assert_eq!(table.poll(&[], &[], 2), [answer(1, vec![task(2), task(3)], &[])]);
}

#[test]
fn a_silent_worker_without_tasks_is_given_up_too() {
    let mut table = Table::holding(1);
    assert_eq!(table.poll(&[], &[0], 1), [ended(0)]);
    assert_eq!(table.pass(31_000), [nothing(2), worker_lost(SILENT), end(1)]);
    assert_eq!(table.gone(1, "signal 9"), []);
    assert_eq!(table.run(1), [start(2)]);
}

#[test]
fn silence_while_the_executor_itself_stood_still_is_excused() {
    let mut table = Table::holding(1);
    assert_eq!(table.poll(&[0], &[], 0), []);
    // The poll should have been answered at 2 s.
    table.now = TimeMs(45_000);
    table.table.handle_timeout(table.now);
    assert_eq!(table.actions(), [nothing(2)]);
    assert_eq!(table.table.poll_timeout(), Some(TimeMs(31_000 + 43_000)));
    assert_eq!(table.pass(73_999), []);
    assert_eq!(table.pass(74_000).last(), Some(&end(1)));
}

#[test]
fn a_worker_that_was_due_while_the_executor_stood_still_is_heard_before_it_is_judged() {
    let mut table = Table::holding(1);
    // Nothing of it waits but its next poll, which arrives in a standstill that is longer than it may be silent: the time for
    // it is up, and its poll waits to be heard.
    table.now = TimeMs(45_000);
    table.table.handle_timeout(table.now);
    assert_eq!(table.actions(), []);
    assert_eq!(table.table.poll_timeout(), Some(TimeMs(45_000 + 15_000)));
    assert_eq!(table.poll(&[0], &[], 0), []);
    assert_eq!(table.pass(46_000), [nothing(2)]);
    // One that is not heard then either is silent.
    assert_eq!(table.pass(76_000).last(), Some(&end(1)));
}

#[test]
fn one_standstill_is_excused_once_however_many_events_waited_for_its_end() {
    let mut table = Table::holding(1);
    assert_eq!(table.poll(&[0], &[], 0), []);
    table.now = TimeMs(45_000);
    for attempt in 0..3 {
        let (life, error) = (ProcessLife(9), None);
        assert_eq!(table.handle(Event::DriverEnded { job: JOB, attempt, life, error, retry: false, away: false }), []);
    }
    table.table.handle_timeout(table.now);
    assert_eq!(table.actions(), [nothing(2)]);
    assert_eq!(table.table.poll_timeout(), Some(TimeMs(31_000 + 43_000)));
}

#[test]
fn a_worker_whose_executable_cannot_be_had_while_the_file_system_is_away_is_nobodys_fault() {
    let mut table = Table::starting(2);
    // It is told to end while it is still being fetched.
    assert_eq!(table.pass(61_000), [end(1)]);
    let (life, reason) = (ProcessLife(1), "the namenode is away".to_owned());
    let all = table.handle(Event::WorkerEnded { job: JOB, life, reason: reason.clone(), away: true });
    let away = |partition| failed(partition, TaskFailure::Storage { message: reason.clone(), transient: true });
    assert_eq!(all, [away(0), away(1)]);
    assert_eq!(table.run(2), [start(2)]);
}

#[test]
fn a_worker_of_an_earlier_run_of_the_executor_is_not_taken_for_one_of_this() {
    let mut table = Table { table: JobTable::new(Duration::from_secs(30), 7, 16), now: NOW, polls: 800, life: 1 };
    table.command(ExecutorCommand::BeginJob { job: launch() });
    assert_eq!(table.run(0), [start(8)]);
    // The secret of the job is what it was.
    assert_eq!(table.poll(&[], &[], 4), [home(801)]);
    (table.life, table.polls) = (8, 0);
    assert_eq!(table.poll(&[], &[], 4), [answer(1, vec![task(0)], &[])]);
}

#[test]
fn a_task_that_shall_be_alone_is() {
    let mut table = Table::holding(1);
    let alone = TaskSpec { alone: true, ..task(1) };
    assert_eq!(table.poll(&[0], &[], 3), []);
    assert_eq!(table.run_alone(1), []);
    assert_eq!(table.run(2), [], "it waits its turn");
    assert_eq!(table.poll(&[], &[0], 4), [nothing(2), ended(0), answer(3, vec![alone], &[])]);
    assert_eq!(table.poll(&[1], &[], 3), []);
    assert_eq!(table.run(3), []);
    let both = answer(5, vec![task(2), task(3)], &[]);
    assert_eq!(table.poll(&[], &[1], 4), [nothing(4), ended(1), both]);
}

#[test]
fn a_queued_task_can_be_taken_back_and_a_handed_one_is_given_up() {
    let mut table = Table::starting(2);
    assert_eq!(table.poll(&[], &[], 1), [answer(1, vec![task(0)], &[])]);
    assert_eq!(table.poll(&[0], &[], 0), []);
    assert_eq!(table.cancel(1), [failed(1, TaskFailure::Cancelled)]);
    assert_eq!(table.cancel(0), [answer(2, Vec::new(), &[0])]);
    // Perhaps it never saw that: it is told again, in a second.
    assert_eq!(table.poll(&[0], &[], 0), []);
    assert_eq!(table.pass(2_000), [answer(3, Vec::new(), &[0])]);
    let cancelled = TaskOutcome::Failed(TaskFailure::Cancelled);
    let told = report(attempt(0), cancelled.clone());
    assert_eq!(table.poll_with(Vec::new(), vec![(attempt(0), cancelled)], 1), [told]);
    assert_eq!(table.pass(12_000), [nothing(4)], "nothing is overdue");
}

#[test]
fn a_cancellation_is_not_forgotten_with_a_poll_that_was_given_up() {
    let mut table = Table::holding(2);
    assert_eq!(table.cancel(0), [], "no poll is there");
    assert_eq!(table.poll(&[0], &[1], 1), [ended(1), answer(2, Vec::new(), &[0])]);
}

#[test]
fn a_worker_that_goes_on_with_a_cancelled_task_is_ended_and_its_other_tasks_count_as_cancelled() {
    let mut table = Table::holding(2);
    assert_eq!(table.cancel(0), []);
    for number in 2..11 {
        let expected = answer(number, Vec::new(), &[0]);
        let first = table.poll(&[0, 1], &[], 0);
        let then = table.pass(number * 1_000);
        assert_eq!([first, then].concat(), [expected], "poll {number}");
    }
    assert_eq!(table.poll(&[0, 1], &[], 0), []);
    assert_eq!(table.pass(11_000), [home(11), end(1)]);
    assert_eq!(table.table.poll_timeout(), None, "all waits for its end");
    // While it is still there, it gets nothing; what it has done by then counts.
    assert_eq!(table.run(2), []);
    assert_eq!(table.cancel(0), []);
    assert_eq!(table.poll(&[0], &[1], 1), [ended(1), home(12)]);
    let lost = worker_lost("it went on with a cancelled task, and was ended");
    assert_eq!(table.gone(1, "signal 9"), [lost, failed(0, TaskFailure::Cancelled), start(2)]);
    // It is a worker like another: it may be late, too.
    assert_eq!(table.table.poll_timeout(), Some(TimeMs(71_000)));
}

#[test]
fn progress_is_told_when_there_is_some_and_not_too_often() {
    let mut table = Table::holding(2);
    let progress = |steps: [u64; 2]| -> Vec<TaskProgress> {
        (0..).zip(steps).map(|(partition, steps)| TaskProgress { attempt: attempt(partition), steps }).collect()
    };
    assert_eq!(table.poll_with(progress([0, 0]), Vec::new(), 0), []);
    assert_eq!(table.poll_with(progress([0, 3]), Vec::new(), 0), [nothing(2), Action::Progress(progress([0, 3]))]);
    assert_eq!(table.poll_with(progress([1, 3]), Vec::new(), 0), [nothing(3)]);
    assert_eq!(table.pass(2_000), [nothing(4)]);
    assert_eq!(table.poll_with(progress([1, 3]), Vec::new(), 0), [Action::Progress(progress([1, 3]))]);
    assert_eq!(table.pass(3_000), [nothing(5)]);
    assert_eq!(table.poll_with(progress([1, 3]), Vec::new(), 0), []);
}

#[test]
fn a_driver_that_was_given_up_is_ended_and_its_end_is_not_told() {
    let mut table = Table::starting(0);
    let start = |life| Action::StartDriver { launch: launch(), attempt: 3, life: ProcessLife(life) };
    let ended = |life| {
        let error = Some("it was ended".to_owned());
        Event::DriverEnded { job: JOB, attempt: 3, life: ProcessLife(life), error, retry: false, away: false }
    };
    let begin = ExecutorCommand::StartDriver { job: launch(), attempt: 3 };
    assert_eq!(table.command(begin.clone()), [start(1)]);
    assert_eq!(table.command(ExecutorCommand::EndDriver { job: JOB, attempt: 3 }), [end(1)]);
    assert_eq!(table.command(ExecutorCommand::EndDriver { job: JOB, attempt: 3 }), []);
    // The same attempt once more: the end of the earlier process is not its end.
    assert_eq!(table.command(begin), [start(2)]);
    assert_eq!(table.handle(ended(1)), []);
    let told = ExecutorEvent::DriverEnded {
        job: JOB,
        attempt: 3,
        error: Some("it was ended".to_owned()),
        retry: false,
        away: false,
    };
    assert_eq!(table.handle(ended(2)), [Action::Report(told)]);
    assert_eq!(table.handle(ended(2)), []);
}

#[test]
fn a_driver_that_never_ran_because_the_file_system_is_away_is_told_of_also_when_it_was_given_up() {
    let mut table = Table::starting(0);
    table.command(ExecutorCommand::StartDriver { job: launch(), attempt: 3 });
    table.command(ExecutorCommand::EndDriver { job: JOB, attempt: 3 });
    let error = || Some("the namenode is away".to_owned());
    let ended =
        Event::DriverEnded { job: JOB, attempt: 3, life: ProcessLife(1), error: error(), retry: true, away: true };
    let told = ExecutorEvent::DriverEnded { job: JOB, attempt: 3, error: error(), retry: true, away: true };
    assert_eq!(table.handle(ended.clone()), [Action::Report(told)]);
    // The same attempt once more: it may run.
    table.command(ExecutorCommand::StartDriver { job: launch(), attempt: 3 });
    assert_eq!(table.handle(ended), []);
}

#[test]
fn an_ended_job_sends_its_worker_home_and_strangers_are_refused() {
    let mut table = Table::holding(1);
    assert_eq!(table.poll(&[0], &[], 1), []);
    let poll = |job, secret, life| {
        let (held, ended) = (Vec::new(), Vec::new());
        let poll = WorkerPoll { job, secret, life: ProcessLife(life), number: 9, held, ended, free: 1 };
        Event::Poll { waiter: WaiterId(9), poll }
    };
    let refused = table.handle(poll(JOB, JobSecret([0; 16]), 1));
    let [Action::Answer { waiter: WaiterId(9), result: Err(error) }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(table.handle(poll(JOB, SECRET, 0)), [home(9)], "another life is not listened to");
    assert_eq!(table.command(ExecutorCommand::EndJob { job: JOB }), [home(2), Action::EndJob { job: JOB }]);
    assert_eq!(table.poll(&[0], &[], 1), [home(3)]);
    assert_eq!(table.gone(1, "it was ended"), []);
    assert_eq!(table.table.poll_timeout(), None);
}

#[test]
fn a_task_of_a_job_that_has_not_begun_fails() {
    let mut table = Table::starting(0);
    assert_eq!(table.command(ExecutorCommand::EndJob { job: JOB }), [Action::EndJob { job: JOB }]);
    let reason = "the executor was not told how to start processes of job-1";
    assert_eq!(table.run(0), [lost(0, reason, 0)]);
}

#[test]
fn released_shuffles_of_a_job_that_is_here_are_dropped() {
    let release = |shuffles| ExecutorCommand::Release { job: JOB, shuffles };
    let mut table = Table { table: JobTable::new(Duration::from_secs(30), 0, 16), now: NOW, polls: 0, life: 1 };
    assert_eq!(table.command(release(vec![ShuffleId(ScopeId::ROOT, 3)])), [], "nothing of it is here");
    let mut table = Table::starting(1);
    assert_eq!(table.command(release(Vec::new())), []);
    let expected = Action::Release { job: JOB, shuffles: vec![ShuffleId(ScopeId::ROOT, 3)] };
    assert_eq!(table.command(release(vec![ShuffleId(ScopeId::ROOT, 3)])), [expected]);
}

#[test]
fn what_is_here_of_unfinished_jobs_is_told_and_others_end() {
    let mut table = Table::holding(3);
    table.run(3);
    // One is done with a result, and left a partition in memory; one was cancelled.
    let left = TaskDone {
        result: "r".into(),
        cached: vec![(situ_wire::ids::DatasetId(ScopeId::ROOT, 4), PartitionId(0))],
        ..TaskDone::default()
    };
    let held = [1, 2].map(|partition| TaskProgress { attempt: attempt(partition), steps: 0 });
    table.poll_with(held.to_vec(), vec![(attempt(0), TaskOutcome::Done(Box::new(left.clone())))], 0);
    table.cancel(2);
    table.command(ExecutorCommand::StartDriver { job: launch(), attempt: 7 });
    let holds = |holding| Action::Report(ExecutorEvent::Holds(holding));
    let is = |partition| holds(Holding::Task(Box::new(task(partition))));
    let output = task(0).output;
    let result = Box::new(TaskDone { cached: Vec::new(), ..left.clone() });
    let jobs = BTreeSet::from([JOB, JobId(2)]);
    assert_eq!(
        table.handle(Event::Registered { jobs: jobs.clone() }),
        [
            holds(Holding::Job(JOB)),
            holds(Holding::Driver { job: JOB, attempt: 7 }),
            is(1),
            is(3),
            holds(Holding::Left { attempt: attempt(0), output, done: result }),
            holds(Holding::Cached { attempt: attempt(0), partitions: left.cached }),
            Action::Survey { jobs: jobs.clone() },
        ]
    );
    // The worker's memory goes with it.
    table.gone(1, "signal 9");
    let told = table.handle(Event::Registered { jobs });
    assert!(!told.iter().any(|it| matches!(it, Action::Report(ExecutorEvent::Holds(Holding::Cached { .. })))));
    let jobs = BTreeSet::from([JobId(2)]);
    let shown = table.handle(Event::Registered { jobs: jobs.clone() });
    assert_eq!(shown, [Action::EndJob { job: JOB }, Action::Survey { jobs }]);
    assert!(!table.table.has(JOB));
}
