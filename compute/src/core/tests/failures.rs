use situ_wire::codec;
use situ_wire::ids::{ExecutorId, JobId, PartitionId, ScopeId, ShuffleId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{
    ExecutorCommand, ExecutorEvent, JobLaunch, JobOptions, JobState, Program, RecoveryOutcome, Request, Response,
    TaskFailure, TaskOutcome,
};

use super::world::{
    JOB, World, attempt, failed, fetch_failed, flat, mapped, place, registration, result, told_to_register, word_count,
};
use crate::core::Event;
use crate::core::executor::Executor;

/// A job with its driver on n1, and word count with one map task on n2, n3 and n4 each and two reducers.
fn counting() -> World {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    let plan = word_count(vec![vec![place(2)], vec![place(3)], vec![place(4)]], 2);
    let shown = world.run(JOB, 0, plan);
    assert_eq!(shown, ["n2 <- run 1/0/0 Node", "n3 <- run 1/1/0 Node", "n4 <- run 1/2/0 Node"]);
    for number in 2..=4 {
        world.poll(number, Vec::new());
    }
    world
}

/// An executor's process is killed, and its connection breaks.
fn kill(world: &mut World, number: u32, others: &[u32]) -> Vec<String> {
    world.event(Event::Disconnected { executor: ExecutorId(number.into()) });
    world.live(others, 1_000)
}

#[test]
fn a_task_that_ran_on_a_dead_executor_runs_again_elsewhere() {
    let mut world = counting();
    let shown = kill(&mut world, 3, &[1, 2, 4]);
    assert_eq!(shown, ["n1 <- run 1/1/1 Any"]);
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 by nothing yet"]);
    world.ended(1, &["1/1/1"], &mapped(2));
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 by 1/1/1 on n1"]);
}

#[test]
fn an_executor_that_is_silent_is_suspected_then_dead_and_must_register_when_it_returns() {
    let mut world = counting();
    world.live(&[1, 2, 4], 3_950);
    let liveness = |world: &mut World| {
        let shown = world.user(Request::Executors);
        ["Live", "Suspect", "Dead"].map(|state| shown[0].matches(&format!("liveness: {state}")).count())
    };
    assert_eq!(liveness(&mut world), [4, 0, 0]);
    world.live(&[1, 2, 4], 100);
    assert_eq!(liveness(&mut world), [3, 1, 0]);
    let _ = Liveness::Suspect;
    assert_eq!(world.recoveries(JOB), [""; 0]);
    world.live(&[1, 2, 4], 7_000);
    assert_eq!(liveness(&mut world), [3, 0, 1]);
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 by nothing yet"]);
    assert!(told_to_register(&world.poll(3, Vec::new())));
    // What its earlier self still says counts for nothing.
    assert_eq!(world.join(3, 1), ["n3 <- registered"]);
    assert_eq!(world.ended(3, &["1/1/0"], &mapped(2)), [""; 0]);
    assert_eq!(world.status(JOB).stages[0].done, 0);
}

#[test]
fn lost_map_outputs_are_computed_again_before_reducers_start() {
    let mut world = counting();
    world.ended(2, &["1/0/0"], &mapped(2));
    world.ended(3, &["1/1/0"], &mapped(2));
    assert_eq!(kill(&mut world, 2, &[1, 3, 4]), ["n1 <- run 1/0/1 Rack"]);
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/0/0 on n2 by nothing yet"]);
    assert_eq!(world.ended(4, &["1/2/0"], &mapped(2)), [""; 0]);
    assert_eq!(
        world.ended(1, &["1/0/1"], &mapped(2)),
        ["n1 <- run 2/0/0 NoPreference", "n3 <- run 2/1/0 NoPreference"]
    );
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/0/0 on n2 by 1/0/1 on n1"]);
}

#[test]
fn reducers_whose_input_is_lost_make_room_for_those_who_compute_it_again() {
    let mut world = World::new();
    for number in 1..=2 {
        world.join(number, 1);
        world.poll(number, Vec::new());
    }
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, word_count(vec![vec![place(1)], vec![place(2)]], 2));
    world.poll(1, Vec::new());
    world.poll(2, Vec::new());
    world.ended(1, &["1/0/0"], &mapped(2));
    let shown = world.ended(2, &["1/1/0"], &mapped(2));
    assert_eq!(shown, ["n2 <- run 2/1/0 NoPreference", "n1 <- run 2/0/0 NoPreference"]);
    world.poll(1, Vec::new());
    // The only other executor dies before the reducer asks: nobody else can compute again what was there.
    assert_eq!(kill(&mut world, 2, &[1]), [""; 0]);
    let secret = world.secret(JOB);
    let reduce = (PartitionId(0), PartitionId(1));
    let asked = world.driver(Request::MapOutputs {
        job: JOB,
        secret,
        shuffle: ShuffleId(ScopeId::ROOT, 2),
        reduce,
        by: attempt("2/0/0"),
    });
    assert_eq!(asked, ["driver <- OutputsLost: outputs are lost and being computed again"]);
    let given_back = TaskOutcome::Failed(TaskFailure::Cancelled);
    assert_eq!(world.ended(1, &["2/0/0"], &given_back), ["n1 <- run 1/1/1 Rack"]);
    assert_eq!(world.ended(1, &["1/1/1"], &mapped(2)), ["n1 <- run 2/0/1 NoPreference"]);
    assert_eq!(world.status(JOB).stages[1].failed, 0, "it counts against nobody");
}

#[test]
fn an_executor_that_dies_while_reducing_takes_outputs_and_reducers() {
    let mut world = counting();
    for (number, attempt) in [(2, "1/0/0"), (3, "1/1/0"), (4, "1/2/0")] {
        world.ended(number, &[attempt], &mapped(2));
    }
    // The reducers run on n1 and n2; n2 has the output of map 0 too.
    assert_eq!(world.status(JOB).stages[1].running, 2);
    let shown = kill(&mut world, 2, &[1, 3, 4]);
    assert_eq!(shown, ["n3 <- run 1/0/1 Any"]);
    assert_eq!(
        world.recoveries(JOB),
        ["RunningTask 2/1/0 on n2 by nothing yet", "MapOutput 1/0/0 on n2 by nothing yet"]
    );
    // The other reducer had fetched all it needs already.
    world.ended(1, &["2/0/0"], &result("zero"));
    let shown = world.ended(3, &["1/0/1"], &mapped(2));
    assert!(shown.iter().any(|line| line.contains("run 2/1/1")), "{shown:?}");
    let number = shown.iter().find(|line| line.contains("2/1/1")).and_then(|line| line[1..2].parse().ok()).unwrap();
    assert_eq!(
        world.ended(number, &["2/1/1"], &result("one")).last().unwrap(),
        r#"driver <- results [b"zero", b"one"], after record 4"#
    );
    assert_eq!(
        world
            .status(JOB)
            .recoveries
            .iter()
            .filter(|recovery| matches!(recovery.outcome, RecoveryOutcome::Recovered { .. }))
            .count(),
        2
    );
}

#[test]
fn outputs_that_nobody_needs_are_not_computed_again() {
    let mut world = counting();
    for (number, attempt) in [(2, "1/0/0"), (3, "1/1/0"), (4, "1/2/0")] {
        world.ended(number, &[attempt], &mapped(2));
    }
    world.ended(1, &["2/0/0"], &result("zero"));
    world.ended(2, &["2/1/0"], &result("one"));
    assert_eq!(kill(&mut world, 3, &[1, 2, 4]), [""; 0]);
    assert_eq!(world.recoveries(JOB), [""; 0]);
    // The next action that reads the shuffle misses one.
    let mut plan = word_count(vec![vec![place(2)], vec![place(3)], vec![place(4)]], 2);
    plan.name = "count".to_owned();
    plan.stages[1].output =
        situ_wire::messages::scheduler::StageOutput::Result { action: situ_wire::ids::ActionId(ScopeId::ROOT, 1) };
    assert_eq!(world.run(JOB, 0, plan), ["n4 <- run 1/1/1 Rack"]);
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/1/0 on n3 by nothing yet"]);
}

#[test]
fn what_was_lost_and_is_not_needed_any_more_says_so_until_something_needs_it() {
    let mut world = counting();
    for (number, attempt) in [(2, "1/0/0"), (3, "1/1/0"), (4, "1/2/0")] {
        world.ended(number, &[attempt], &mapped(2));
    }
    // The reducers on n1 and n2 have fetched all that they need when n4 dies.
    assert_eq!(kill(&mut world, 4, &[1, 2, 3]), ["n3 <- run 1/2/1 Rack"]);
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/2/0 on n4 by nothing yet"]);
    world.ended(1, &["2/0/0"], &result("zero"));
    world.ended(2, &["2/1/0"], &result("one"));
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/2/0 on n4 not needed any more"]);
    // The task that computes it again was under way, and ends.
    world.ended(3, &["1/2/1"], &mapped(2));
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/2/0 on n4 by 1/2/1 on n3"]);
}

#[test]
fn what_is_not_back_when_the_job_ends_is_not_needed_any_more() {
    let mut world = counting();
    kill(&mut world, 3, &[1, 2, 4]);
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 by nothing yet"]);
    world.user(Request::Kill { job: JOB, reason: "enough".to_owned() });
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 not needed any more"]);
}

#[test]
fn a_piece_that_cannot_be_fetched_is_computed_again() {
    let mut world = counting();
    for (number, attempt) in [(2, "1/0/0"), (3, "1/1/0"), (4, "1/2/0")] {
        world.ended(number, &[attempt], &mapped(2));
    }
    // The map task runs again at once, the reducer when it is done.
    let shown = world.ended(1, &["2/0/0"], &fetch_failed("1/2/0"));
    assert_eq!(shown, ["n4 <- run 1/2/1 Node"]);
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/2/0 on n4 by nothing yet"]);
    world.poll(4, Vec::new());
    assert_eq!(world.ended(4, &["1/2/1"], &mapped(2)), ["n1 <- run 2/0/1 NoPreference"]);
    // The other reducer tells the same of the same attempt, which does not count any more: only it runs again.
    assert_eq!(world.ended(2, &["2/1/0"], &fetch_failed("1/2/0")), ["n2 <- run 2/1/1 NoPreference"]);
    assert_eq!(world.recoveries(JOB), ["MapOutput 1/2/0 on n4 by 1/2/1 on n4"]);
    assert_eq!(world.status(JOB).stages[1].failed, 2);
}

#[test]
fn a_task_that_fails_four_times_fails_the_job_and_each_time_elsewhere() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.poll(1, Vec::new());
    assert_eq!(world.run(job, 0, flat(0, vec![vec![place(2)]])), ["n2 <- run 0/0/0 Node"]);
    world.poll(2, Vec::new());
    world.ended(2, &["0/0/0"], &failed("division by zero: 0"));
    let mut places = Vec::new();
    for attempt in 1..=3 {
        let shown = world.live(&[1, 2, 3, 4], 500);
        let [line] = &shown[..] else { panic!("{shown:?}") };
        let number: u32 = line[1..2].parse().unwrap();
        places.push(number);
        // In other words each time.
        let shown = world.ended(number, &[&format!("0/0/{attempt}")], &failed(&format!("division by zero: {attempt}")));
        if attempt == 3 {
            let reason = format!(
                "job-1/stage-0/partition-0/attempt-3 (flat_map) failed, the 4th time, on n{number}: division by zero: 3"
            );
            assert_eq!(world.status(job).summary.state, JobState::Failed { reason: reason.clone() });
            let told = format!("driver <- failed: the job failed: {reason}, after record 4");
            assert!(shown.contains(&told), "{shown:?}");
        }
    }
    places.sort_unstable();
    assert_eq!(places, [1, 3, 4]);
}

#[test]
fn an_executor_on_which_a_job_fails_is_avoided_for_that_job() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    for partition in 0..3 {
        if partition == 0 {
            world.run(job, 0, flat(0, vec![vec![place(2)]; 6]));
        }
        world.poll(2, Vec::new());
        world.ended(2, &[&format!("0/{partition}/0")], &failed("no such library"));
    }
    let shown = world.live(&[1, 2, 3, 4], 2_000);
    assert!(!shown.is_empty() && shown.iter().all(|line| !line.starts_with("n2")), "{shown:?}");
}

#[test]
fn what_is_told_twice_counts_once() {
    let mut world = counting();
    world.ended(2, &["1/0/0", "1/0/0"], &mapped(2));
    let before = world.status(JOB);
    assert_eq!(world.ended(2, &["1/0/0"], &mapped(2)), [""; 0]);
    assert_eq!(world.ended(2, &["1/0/0"], &failed("late")), [""; 0]);
    // Nor does what somebody else says.
    assert_eq!(world.ended(2, &["1/1/0"], &mapped(2)), [""; 0]);
    assert_eq!(world.status(JOB), before);
}

#[test]
fn a_graph_that_differs_ends_the_job() {
    let mut world = counting();
    let mismatch = TaskFailure::PlanMismatch { message: "dataset-1 is map here and filter there".to_owned() };
    world.ended(2, &["1/0/0"], &TaskOutcome::Failed(mismatch));
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it failed") };
    assert!(reason.contains("dataset-1 is map here and filter there"), "{reason}");
}

#[test]
fn a_lost_worker_costs_its_tasks_and_what_it_held_in_memory() {
    let mut world = counting();
    let lost = TaskFailure::WorkerLost { reason: "signal 9".to_owned(), company: 0 };
    let worker = ExecutorEvent::WorkerLost { job: JOB, reason: "signal 9".to_owned() };
    world.poll(2, vec![worker]);
    world.ended(2, &["1/0/0"], &TaskOutcome::Failed(lost));
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/0/0 on n2 by nothing yet"]);
    assert_eq!(world.status(JOB).stages[0].failed, 1);
}

#[test]
fn commands_are_given_until_they_are_acknowledged() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let first = world.run(job, 0, flat(0, vec![vec![place(2)]]));
    assert_eq!(first, ["n2 <- run 0/0/0 Node"]);
    // The answer was lost: it polls as if it had seen nothing.
    let id = ExecutorId(2);
    let role = situ_wire::hello::Role::Executor;
    let again = |seen| Request::ExecutorPoll { id, seen, events: Vec::new(), progress: Vec::new() };
    assert_eq!(world.call("n2", role, "n2", again(0)), ["n2 <- run 0/0/0 Node"]);
    assert_eq!(world.call("n2", role, "n2", again(2)), [""; 0]);
    // A newer poll takes the place of the one that is kept.
    assert_eq!(world.call("n2", role, "n2", again(2)), ["n2 <- nothing to do"]);
    // Nobody else polls for it, and one that knows more than it was told is of another life.
    let shown = world.call("n3", role, "n3", again(2));
    assert!(shown[0].starts_with("n3 <- WrongIdentity"), "{shown:?}");
    let shown = world.call("n2", role, "n2", again(7));
    assert!(told_to_register(&shown), "{shown:?}");
    let _ = Response::Done;
}

#[test]
fn commands_that_are_too_long_for_one_answer_come_in_several() {
    let mut executor = Executor::new(registration(1, 40), "n1".to_owned(), situ_wire::time::TimeMs(1));
    let program = Program::BuiltIn { name: "grep".to_owned() };
    let (secret, user, arguments) = (JobSecret([0; 16]), "ada".to_owned(), vec!["x".repeat(1 << 20)]);
    let options = JobOptions::default();
    let job = JobLaunch { job: JobId(1), secret, user, program, arguments, options, attached: false };
    for attempt in 1..=40 {
        executor.push(ExecutorCommand::StartDriver { job: job.clone(), attempt });
    }
    let mut got = Vec::new();
    let mut seen = 0;
    while executor.has_commands() {
        let (last, commands) = executor.commands();
        assert!(commands.len() >= 3 || last == 40, "no more answers than need be");
        got.extend(commands.iter().map(|(number, _)| *number));
        codec::encode(&Response::Commands { last, commands }).expect("it fits into a message");
        assert!(last > seen && executor.poll(last, situ_wire::time::TimeMs(2)));
        seen = last;
    }
    assert_eq!(got, (1..=40).collect::<Vec<u64>>());
    assert_eq!(executor.commands(), (40, Vec::new()));
}

#[test]
fn a_scheduler_that_stood_still_blames_nobody() {
    let mut world = counting();
    world.now = world.now + std::time::Duration::from_secs(60);
    world.scheduler.handle_timeout(world.now);
    for number in 1..=4 {
        assert!(!told_to_register(&world.poll(number, Vec::new())));
    }
    assert_eq!(world.recoveries(JOB), [""; 0]);
}

#[test]
fn a_scheduler_that_has_much_to_do_does_not_excuse_who_is_silent() {
    let mut world = counting();
    // Events come without a pause, and it does not come to look at the time between them.
    for _ in 0..600 {
        for number in [1, 2, 4] {
            world.now = world.now + std::time::Duration::from_millis(10);
            world.poll(number, Vec::new());
        }
    }
    world.scheduler.handle_timeout(world.now);
    world.poll(1, Vec::new());
    assert_eq!(world.recoveries(JOB), ["RunningTask 1/1/0 on n3 by nothing yet"]);
}
