//! Executors whose memory holds fewer workers than they have slots.

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::{ExecutorEvent, ExecutorRegistration, JobState, Request, WaitReason};

use super::world::{JOB, World, attempt, flat, registration, result, started};

/// Executors with two slots and memory for one worker each.
fn crowded(executors: u32) -> World {
    let mut world = World::new();
    for number in 1..=executors {
        world.join_with(number, ExecutorRegistration { workers: 1, ..registration(number, 2) });
        world.poll(number, Vec::new());
    }
    world
}

/// A job with so many tasks, and what of it is started.
fn with_tasks(world: &mut World, sequence: u64, tasks: usize) -> (JobId, Vec<String>) {
    let job = world.start(sequence);
    let shown = world.run(job, 0, flat(0, vec![Vec::new(); tasks]));
    (job, started(world, shown))
}

/// A task of a job, given as `stage/partition/attempt`, is done; what is started then.
fn done(world: &mut World, number: u32, job: JobId, task: &str) -> Vec<String> {
    let attempt = situ_wire::ids::TaskAttemptId { job, ..attempt(task) };
    let shown = world.poll(number, vec![ExecutorEvent::TaskEnded { attempt, outcome: result("a") }]);
    started(world, shown)
}

#[test]
fn a_job_begins_only_where_its_worker_has_memory() {
    let mut world = crowded(1);
    let (first, shown) = with_tasks(&mut world, 1, 1);
    assert_eq!(shown, ["n1 0/0/0"]);
    let (second, shown) = with_tasks(&mut world, 2, 2);
    assert_eq!(shown, [""; 0], "a slot is free, but no memory");
    let waiting = world.status(second).waiting.map(|waiting| waiting.reason);
    assert_eq!(waiting, Some(WaitReason::Memory { workers: 1, jobs: 1 }));
    // Without tasks the worker of the first makes room, though its job goes on.
    assert_eq!(done(&mut world, 1, first, "0/0/0"), ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    assert_eq!(world.status(first).summary.state, JobState::Running);
}

#[test]
fn a_job_that_always_has_tasks_leaves_an_executor_to_one_that_has_waited() {
    let mut world = crowded(2);
    let (first, shown) = with_tasks(&mut world, 1, 100);
    assert_eq!(shown, ["n2 0/1/0", "n2 0/3/0", "n1 0/0/0", "n1 0/2/0"]);
    let (second, shown) = with_tasks(&mut world, 2, 3);
    assert_eq!(shown, [""; 0]);
    world.live(&[1, 2], 4_000);
    assert_eq!(done(&mut world, 1, first, "0/0/0"), ["n1 0/4/0"], "the other one has not waited for long");
    world.live(&[1, 2], 2_000);
    assert_eq!(done(&mut world, 1, first, "0/2/0"), [""; 0], "it leaves one of the two");
    assert_eq!(done(&mut world, 2, first, "0/1/0"), ["n2 0/5/0"], "and not the other one");
    assert_eq!(done(&mut world, 1, first, "0/4/0"), ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    assert_eq!(done(&mut world, 1, second, "0/0/0"), ["n1 job-2:0/2/0"]);
    assert_eq!(done(&mut world, 1, second, "0/1/0"), [""; 0], "two workers would not fit");
    assert_eq!(done(&mut world, 1, second, "0/2/0"), ["n1 0/6/0", "n1 0/7/0"], "nobody leaves any more");
}

#[test]
fn nobody_leaves_for_a_job_that_has_ended_or_an_executor_that_is_gone() {
    let mut world = crowded(2);
    let (first, _) = with_tasks(&mut world, 1, 100);
    let (second, _) = with_tasks(&mut world, 2, 3);
    world.live(&[1, 2], 6_000);
    assert_eq!(done(&mut world, 1, first, "0/0/0"), [""; 0]);
    let shown = world.user(Request::Kill { job: second, reason: "enough".to_owned() });
    assert_eq!(started(&mut world, shown), ["n1 0/4/0"]);
    let (third, _) = with_tasks(&mut world, 3, 3);
    world.live(&[1, 2], 6_000);
    assert_eq!(done(&mut world, 1, first, "0/2/0"), [""; 0]);
    // The executor that was left dies: the other one is left then, as its tasks end.
    world.live(&[2], 11_000);
    assert_eq!(done(&mut world, 2, first, "0/1/0"), [""; 0]);
    assert_eq!(done(&mut world, 2, first, "0/3/0"), ["n2 job-3:0/0/0", "n2 job-3:0/1/0"]);
    assert_eq!(world.status(third).summary.state, JobState::Running);
}

#[test]
fn the_end_of_a_worker_that_made_room_is_no_failure() {
    let mut world = crowded(1);
    let (first, _) = with_tasks(&mut world, 1, 3);
    for _ in 0..10 {
        world.poll(1, vec![ExecutorEvent::WorkerEnded { job: first }]);
    }
    assert_eq!(done(&mut world, 1, JOB, "0/0/0"), ["n1 0/2/0"]);
    assert!(world.scheduler.jobs[&first].failures.is_empty());
}
