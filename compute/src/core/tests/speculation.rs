use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, ExecutorId, OperationId, PartitionId, ScopeId, ShuffleId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{
    DriverPlace, JobOptions, JobState, Program, Request, TaskDone, TaskFailure, TaskOutcome,
};

use super::world::{World, fetch_failed, flat, mapped, place, result, word_count};
use crate::core::{Event, SchedulingPolicy};

/// Executors with so many slots each, and a job of so many tasks, which run where the lines say.
fn world(policy: SchedulingPolicy, slots: &[u32], tasks: usize) -> (World, Vec<String>) {
    let mut world = World::with(policy);
    for (number, slots) in (1..).zip(slots) {
        world.join(number, *slots);
        world.poll(number, Vec::new());
    }
    let job = world.start(1);
    world.poll(1, Vec::new());
    let shown = world.run(job, 0, flat(0, vec![Vec::new(); tasks]));
    for number in (1..).take(slots.len()) {
        world.poll(number, Vec::new());
    }
    (world, shown)
}

fn quick() -> SchedulingPolicy {
    SchedulingPolicy { speculation_floor_ms: 1_000, ..SchedulingPolicy::default() }
}

fn impatient() -> SchedulingPolicy {
    SchedulingPolicy { stalled_ms: 2_000, ..SchedulingPolicy::default() }
}

#[test]
fn of_two_tasks_one_that_is_done_shows_that_the_other_is_slow() {
    let (mut world, shown) = world(quick(), &[1, 1], 2);
    assert_eq!(shown, ["n1 <- run 0/0/0 NoPreference", "n2 <- run 0/1/0 NoPreference"]);
    world.pass(100);
    assert_eq!(world.ended(1, &["0/0/0"], &result("a")), [""; 0]);
    assert_eq!(world.live(&[1, 2], 850), [""; 0]);
    assert_eq!(world.live(&[1, 2], 50), ["n1 <- run 0/1/1 NoPreference"]);
}

#[test]
fn of_three_tasks_two_must_be_done() {
    let (mut world, _) = world(quick(), &[2, 2], 3);
    world.pass(100);
    world.ended(1, &["0/0/0"], &result("a"));
    assert_eq!(world.live(&[1, 2], 2_000), [""; 0]);
    world.ended(2, &["0/1/0"], &result("b"));
    // Of 100 and 2,100 ms the second counts, and half of it more.
    assert_eq!(world.live(&[1, 2], 1_000), [""; 0]);
    assert_eq!(world.live(&[1, 2], 100), ["n2 <- run 0/2/1 NoPreference"]);
}

#[test]
fn a_task_that_makes_no_progress_runs_elsewhere_too() {
    let (mut world, shown) = world(impatient(), &[1, 1], 1);
    assert_eq!(shown, ["n1 <- run 0/0/0 NoPreference"]);
    for steps in 1..=3 {
        assert_eq!(world.live(&[1, 2], 1_000), [""; 0], "it goes on");
        world.progress(1, "0/0/0", steps);
    }
    let quiet = world.status(super::world::JOB).stages[0].quiet.clone().expect("an attempt runs");
    assert_eq!((quiet.node.0.as_str(), quiet.since), ("n1", world.now), "it has made progress just now");
    assert_eq!(world.live(&[1, 2], 1_950), [""; 0]);
    let later = world.status(super::world::JOB).stages[0].quiet.clone();
    assert_eq!(later, Some(quiet), "since then it has made none");
    assert_eq!(world.live(&[1, 2], 100), ["n2 <- run 0/0/1 NoPreference"]);
    assert_eq!(world.live(&[1, 2], 1_000), [""; 0], "there are no third attempts");
    let shown = world.ended(2, &["0/0/1"], &result("a"));
    let done =
        ["append 4: job-1 has done action-0", r#"driver <- results [b"a"], after record 4"#, "n1 <- cancel 0/0/0"];
    assert_eq!(shown, done);
}

#[test]
fn a_task_that_makes_no_progress_runs_beside_itself_where_there_is_no_other_place() {
    let (mut world, shown) = world(impatient(), &[2], 1);
    assert_eq!(shown, ["n1 <- run 0/0/0 NoPreference"]);
    assert_eq!(world.live(&[1], 1_900), [""; 0]);
    assert_eq!(world.live(&[1], 150), ["n1 <- run 0/0/1 NoPreference"]);
}

/// Of word count's map task two attempts are done: that on n1 counts, that on n2 was too late.
fn done_twice(late: &TaskOutcome) -> World {
    let mut world = World::with(impatient());
    for number in 1..=3 {
        world.join(number, 1);
        world.poll(number, Vec::new());
    }
    let job = world.start(1);
    world.poll(1, Vec::new());
    assert_eq!(world.run(job, 0, word_count(vec![vec![place(1)]], 1)), ["n1 <- run 1/0/0 Node"]);
    assert_eq!(world.live(&[1, 2, 3], 2_100), ["n2 <- run 1/0/1 Rack"]);
    let shown = world.ended(1, &["1/0/0"], &mapped(1));
    assert_eq!(shown, ["n1 <- run 2/0/0 NoPreference", "n2 <- cancel 1/0/1"]);
    world.ended(2, &["1/0/1"], late);
    world
}

fn outputs(world: &mut World) -> Vec<String> {
    let (job, secret, shuffle) = (super::world::JOB, world.secret(super::world::JOB), ShuffleId(ScopeId::ROOT, 2));
    let (reduce, by) = ((PartitionId(0), PartitionId(1)), super::world::attempt("2/0/0"));
    world.call("reducer", Role::Executor, "n1", Request::MapOutputs { job, secret, shuffle, reduce, by })
}

#[test]
fn an_output_that_is_there_twice_is_not_computed_again_when_one_is_lost() {
    let mut world = done_twice(&mapped(1));
    assert_eq!(outputs(&mut world), ["reducer <- outputs 1/0/0 at 127.0.0.1:1 in 1"]);
    // Nobody can fetch the one that counts.
    let shown = world.ended(1, &["2/0/0"], &fetch_failed("1/0/0"));
    assert_eq!(shown, ["n1 <- run 2/0/1 NoPreference"]);
    assert_eq!(outputs(&mut world), ["reducer <- outputs 1/0/1 at 127.0.0.1:2 in 1"]);
    // Nor the other one, now that it counts.
    let shown = world.ended(1, &["2/0/1"], &fetch_failed("1/0/1"));
    assert_eq!(shown, ["n1 <- run 1/0/2 Node"]);
}

#[test]
fn an_output_that_is_there_twice_outlives_one_of_its_executors() {
    let mut world = done_twice(&mapped(1));
    world.event(Event::Disconnected { executor: ExecutorId(1) });
    let shown = world.live(&[2, 3], 1_100);
    assert_eq!(shown, ["append 4: job-1 driver 1 on n2", "n2 <- drive job-1 1, run 2/0/1 NoPreference"]);
    assert_eq!(outputs(&mut world), ["reducer <- outputs 1/0/1 at 127.0.0.1:2 in 1"]);
}

#[test]
fn an_output_that_is_not_the_same_takes_no_others_place() {
    let mut world = done_twice(&mapped_other(1));
    let shown = world.ended(1, &["2/0/0"], &fetch_failed("1/0/0"));
    assert_eq!(shown, ["n1 <- run 1/0/2 Node"]);
}

fn mapped_other(reducers: usize) -> TaskOutcome {
    let piece = ShufflePiece { len_bytes: 10, crc32c: 2, records: 2 };
    TaskOutcome::Done(Box::new(TaskDone { pieces: vec![piece; reducers], ..TaskDone::default() }))
}

#[test]
fn an_attempt_that_takes_longer_than_the_limit_is_ended_and_counts_as_failed() {
    let policy = SchedulingPolicy { task_limit_ms: Some(1_000), ..SchedulingPolicy::default() };
    let (mut world, shown) = world(policy, &[1, 1], 1);
    assert_eq!(shown, ["n1 <- run 0/0/0 NoPreference"]);
    let cancelled = TaskOutcome::Failed(TaskFailure::Cancelled);
    for attempt in 0..4 {
        let (here, there) = (1 + attempt % 2, 2 - attempt % 2);
        assert_eq!(world.status(super::world::JOB).stages[0].failed, attempt);
        let shown = world.live(&[1, 2], 1_050);
        if attempt < 3 {
            assert!(shown.contains(&format!("n{here} <- cancel 0/0/{attempt}")), "{shown:?}");
            assert!(shown.contains(&format!("n{there} <- run 0/0/{} NoPreference", attempt + 1)), "{shown:?}");
            world.ended(here, &[&format!("0/0/{attempt}")], &cancelled);
        }
    }
    let JobState::Failed { reason } = world.status(super::world::JOB).summary.state else { panic!("it failed") };
    assert!(reason.contains("longer than 1 s, the limit on a task's time"), "{reason}");
    assert!(reason.contains("longer `--task-limit`, or raise `task_limit_ms` in"), "{reason}");
}

#[test]
fn a_limit_that_the_user_has_set_is_called_as_they_know_it() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.scheduler.jobs.get_mut(&job).unwrap().launch.options.task_limit_ms = Some(1_000);
    world.run(job, 0, flat(0, vec![Vec::new()]));
    world.live(&[1, 2, 3, 4], 1_500);
    let failure = world.status(super::world::JOB).last_failure.expect("it is told");
    assert!(failure.reason.ends_with("need longer, submit it with a longer `--task-limit`"), "{failure:?}");
}

#[test]
fn no_time_at_all_is_no_limit_that_a_job_may_set() {
    let mut world = World::new();
    let shown = world.user(Request::Submit {
        program: Program::BuiltIn { name: "wordcount".to_owned() },
        arguments: Vec::new(),
        operation: OperationId { client: ClientId(1), sequence: 1 },
        options: JobOptions { task_limit_ms: Some(0), ..JobOptions::default() },
        driver: DriverPlace::Placed,
    });
    assert!(shown[0].contains("InvalidArgument") && shown[0].contains("0 ms"), "{shown:?}");
}
