//! Who is to blame for a failure.

use situ_wire::ids::{ExecutorId, JobId};
use situ_wire::messages::scheduler::{ExecutorEvent, JobState, Request, TaskFailure, TaskOutcome, WaitReason};
use situ_wire::time::TimeMs;

use super::world::{JOB, World, failed, flat, place, result};

fn crashed(company: u32) -> TaskOutcome {
    TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "signal 9".to_owned(), company })
}

fn away() -> TaskOutcome {
    let message = "the namenode gave no answer in 120 s".to_owned();
    TaskOutcome::Failed(TaskFailure::Storage { message, transient: true })
}

/// Three tasks run on n2.
fn three_on_one() -> World {
    let mut world = World::new();
    for number in 1..=3 {
        world.join(number, 3);
        world.poll(number, Vec::new());
    }
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![place(2)]; 3]));
    world.poll(2, Vec::new());
    world
}

fn blamed(world: &World, executor: u32) -> u32 {
    world.scheduler.jobs[&JOB].failures.get(&ExecutorId(executor.into())).map_or(0, |failures| failures.tasks)
}

fn failures(world: &World) -> Vec<u32> {
    let stages = world.scheduler.jobs[&JOB].stages.values();
    stages.flat_map(|stage| &stage.tasks).map(|task| task.failures).collect()
}

#[test]
fn a_crash_of_a_worker_with_many_tasks_blames_none_of_them_and_the_executor_once() {
    let mut world = three_on_one();
    let worker = ExecutorEvent::WorkerLost { job: JOB, reason: "signal 9".to_owned() };
    world.poll(2, vec![worker]);
    let shown = world.ended(2, &["0/0/0", "0/1/0", "0/2/0"], &crashed(2));
    assert_eq!((failures(&world), blamed(&world, 2)), (vec![0; 3], 1));
    // Each gets a worker for itself.
    assert_eq!(shown, ["n2 <- run 0/0/1 Node alone, run 0/1/1 Node alone, run 0/2/1 Node alone"]);
    world.poll(2, vec![ExecutorEvent::WorkerLost { job: JOB, reason: "signal 9".to_owned() }]);
    let shown = world.ended(2, &["0/1/1"], &crashed(0));
    assert_eq!((failures(&world), blamed(&world, 2)), (vec![0, 1, 0], 2));
    // It is tried elsewhere; the others go on as if nothing had been.
    assert_eq!(shown, [""; 0]);
    let shown = world.live(&[1, 2, 3], 500);
    assert!(shown.len() == 1 && shown[0].contains("run 0/1/2") && !shown[0].starts_with("n2"), "{shown:?}");
}

#[test]
fn the_last_failure_is_told_with_its_node_and_reason() {
    let mut world = three_on_one();
    assert_eq!(world.status(JOB).last_failure, None);
    let full = TaskFailure::Storage { message: "the worker's directory: no space".to_owned(), transient: false };
    world.ended(2, &["0/1/0"], &TaskOutcome::Failed(full));
    let failure = world.status(JOB).last_failure.expect("it is told");
    assert_eq!((failure.attempt.partition.0, failure.node.0.as_str()), (1, "n2"));
    assert_eq!((failure.at, failure.reason.as_str()), (world.now, "the worker's directory: no space"));
    world.ended(2, &["0/2/0"], &crashed(0));
    let failure = world.status(JOB).last_failure.expect("it is told");
    assert_eq!((failure.attempt.partition.0, failure.reason.as_str()), (2, "its worker process ended: signal 9"));
}

#[test]
fn drivers_that_do_not_begin_are_placed_again_at_once_and_then_ever_later() {
    let mut world = World::with_executors(2);
    let mut shown = world.submit(1);
    for (attempt, rest_ms) in [(0, 0), (1, 1_000), (2, 4_000)] {
        let drives = |shown: &[String], attempt: u32| {
            let line = shown.iter().find(|line| line.contains(&format!("drive job-1 {attempt}")))?;
            line[1..2].parse::<u32>().ok()
        };
        let on = drives(&shown, attempt).expect("it is placed");
        let error = Some("its directory cannot be made: no space".to_owned());
        shown = world.poll(on, vec![ExecutorEvent::DriverEnded { job: JOB, attempt, error, retry: true, away: false }]);
        if rest_ms > 0 {
            assert_eq!(drives(&shown, attempt + 1), None, "not at once");
            shown = world.live(&[1, 2], rest_ms - 100);
            assert_eq!(drives(&shown, attempt + 1), None, "not before {rest_ms} ms");
            shown = world.live(&[1, 2], 200);
        }
        assert!(drives(&shown, attempt + 1).is_some(), "after {rest_ms} ms: {shown:?}");
    }
}

#[test]
fn a_task_that_was_to_be_alone_and_was_not_is_blamed_after_all() {
    let mut world = three_on_one();
    world.ended(2, &["0/0/0", "0/1/0", "0/2/0"], &crashed(2));
    world.ended(2, &["0/0/1"], &crashed(2));
    assert_eq!(failures(&world), [1, 0, 0], "or it would be tried for ever");
}

#[test]
fn the_same_words_from_two_executors_end_the_job() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    world.poll(2, Vec::new());
    world.ended(2, &["0/0/0"], &failed("/in/a.txt at 17: not a number"));
    let shown = world.live(&[1, 2, 3, 4], 500);
    let number: u32 = shown[0][1..2].parse().unwrap();
    world.ended(number, &["0/0/1"], &failed("/in/a.txt at 17: not a number"));
    let reason = format!(
        "job-1/stage-0/partition-0/attempt-1 (flat_map) failed with the same words on n2 and on n{number}, so that it is not \
         tried again: /in/a.txt at 17: not a number"
    );
    assert_eq!(world.status(JOB).summary.state, JobState::Failed { reason });
}

#[test]
fn an_executor_that_was_avoided_is_tried_again_after_a_while() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    for partition in 0..3 {
        if partition == 0 {
            world.run(JOB, 0, flat(0, vec![vec![place(2)]; 9]));
        }
        world.poll(2, Vec::new());
        world.ended(2, &[&format!("0/{partition}/0")], &failed("no such library"));
    }
    let avoided = world.live(&[1, 2, 3, 4], 59_000);
    assert!(avoided.iter().all(|line| !line.starts_with("n2")), "{avoided:?}");
    let tried = world.live(&[1, 2, 3, 4], 2_000);
    assert!(tried.iter().any(|line| line.starts_with("n2 <- run")), "{tried:?}");
    assert_eq!(blamed(&world, 2), 0, "it begins anew");
}

#[test]
fn a_file_system_that_is_away_is_nobodys_fault_and_is_waited_for() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    world.poll(2, Vec::new());
    assert_eq!(world.ended(2, &["0/0/0"], &away()), [""; 0]);
    assert_eq!(world.recoveries(JOB), ["Storage 0/0/0 on n2 by nothing yet"]);
    for (attempt, rest_s) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30)] {
        let mut early = world.live(&[1, 2, 3, 4], rest_s * 1_000 - 100);
        early.retain(|line| line.contains("run"));
        assert_eq!(early, [""; 0]);
        let rested = world.live(&[1, 2, 3, 4], 200);
        assert!(rested.contains(&format!("n2 <- run 0/0/{attempt} Node")), "{rested:?}");
        if attempt < 7 {
            world.ended(2, &[&format!("0/0/{attempt}")], &away());
        }
    }
    assert_eq!((failures(&world), blamed(&world, 2)), (vec![0], 0));
    world.ended(2, &["0/0/7"], &result("a"));
    assert_eq!(world.recoveries(JOB), ["Storage 0/0/0 on n2 by 0/0/7 on n2"]);
}

#[test]
fn a_file_system_that_stays_away_fails_the_job() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    world.poll(2, Vec::new());
    let mut attempt = 0;
    while !world.status(JOB).summary.state.is_final() {
        world.ended(2, &[&format!("0/0/{attempt}")], &away());
        if world.live(&[1, 2, 3, 4], 31_000).iter().any(|line| line.contains("run 0/0/")) {
            attempt += 1;
        }
        assert!(attempt < 50, "it gives up");
    }
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it failed") };
    assert!(
        reason.contains("the file system was away for 6")
            && reason.contains("no task waits for it longer than 600 s; last, on n2: the namenode gave no answer"),
        "{reason}"
    );
    assert!(world.scheduler.resting.is_empty() && world.scheduler.pardons.is_empty());
}

#[test]
fn an_outage_that_was_over_meanwhile_is_not_counted_on() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    world.poll(2, Vec::new());
    for attempt in 0..5 {
        world.ended(2, &[&format!("0/0/{attempt}")], &away());
        // It is tried again, and then computes for long: it reads and writes all the while.
        let shown = world.live(&[1, 2, 3, 4], 660_000);
        assert!(shown.contains(&format!("n2 <- run 0/0/{} Node", attempt + 1)), "{shown:?}");
    }
    assert_eq!(world.status(JOB).summary.state, JobState::Running);
}

#[test]
fn a_silent_worker_counts_once_against_its_executor_and_its_tasks_run_elsewhere_alone() {
    let mut world = three_on_one();
    let silent = |company| TaskOutcome::Failed(TaskFailure::WorkerSilent { reason: "30 s".to_owned(), company });
    world.poll(2, vec![ExecutorEvent::WorkerLost { job: JOB, reason: "30 s".to_owned() }]);
    let mut shown = world.ended(2, &["0/0/0", "0/1/0", "0/2/0"], &silent(2));
    assert_eq!((failures(&world), blamed(&world, 2)), (vec![0; 3], 1));
    shown.extend(world.live(&[1, 2, 3], 1_000));
    let run: Vec<&String> = shown.iter().filter(|line| line.contains("run")).collect();
    assert!(run.iter().all(|line| !line.starts_with("n2") && line.contains("alone")), "{run:?}");
    // Whose worker stands still wherever it runs does not wander about for ever.
    let mut last = run.iter().find(|line| line.contains("run 0/0/1")).map(|line| line[1..2].parse().unwrap()).unwrap();
    for attempt in 1..5 {
        let mut shown = world.ended(last, &[&format!("0/0/{attempt}")], &silent(0));
        if attempt == 4 {
            break;
        }
        assert_eq!(failures(&world)[0], attempt);
        shown.extend(world.live(&[1, 2, 3], 1_000));
        let next = shown.iter().find(|line| line.contains(&format!("run 0/0/{}", attempt + 1)));
        last = next.unwrap_or_else(|| panic!("{attempt}: {shown:?}"))[1..2].parse().unwrap();
    }
    assert!(matches!(world.status(JOB).summary.state, JobState::Failed { .. }));
}

#[test]
fn input_that_is_damaged_counts_against_the_task() {
    let mut world = three_on_one();
    let storage = TaskFailure::Storage { message: "/in: all replicas are damaged".to_owned(), transient: false };
    world.ended(2, &["0/0/0"], &TaskOutcome::Failed(storage));
    assert_eq!((failures(&world), blamed(&world, 2)), (vec![1, 0, 0], 1));
    let _ = JobId(1);
}

/// What executors say of an attempt at the driver that never ran.
fn never_ran(attempt: u32) -> ExecutorEvent {
    let error = Some("the program a cannot be fetched: the namenode is away".to_owned());
    ExecutorEvent::DriverEnded { job: JOB, attempt, error, retry: true, away: true }
}

/// Where an attempt at the driver is started, if one is.
fn driven(shown: &[String], attempt: u32) -> Option<u32> {
    let line = shown.iter().find(|line| line.contains(&format!("drive job-1 {attempt}")))?;
    Some(line[1..2].parse().unwrap())
}

#[test]
fn a_driver_that_cannot_be_started_while_the_file_system_is_away_is_not_lost() {
    let mut world = World::with_executors(1);
    let mut on = driven(&world.submit(1), 0).unwrap();
    for attempt in 0..8 {
        let mut shown = world.poll(on, vec![never_ran(attempt)]);
        assert_eq!(driven(&shown, attempt + 1), None, "not at once");
        let Some(WaitReason::FileSystem { since, until }) = world.status(JOB).waiting.map(|it| it.reason) else {
            panic!("{:?}", world.status(JOB))
        };
        assert!(since == TimeMs(1_000) && until > world.now, "{since:?} {until:?}");
        shown = world.live(&[1, 2, 3, 4], 30_100);
        on = driven(&shown, attempt + 1).expect("it is tried again");
    }
    assert_eq!(world.scheduler.jobs[&JOB].driver.lost, 0);
    let begin = Request::DriverBegin { job: JOB, secret: world.secret(JOB), attempt: 8 };
    assert_eq!(world.driver(begin), ["driver <- begun"]);
    assert_eq!(world.status(JOB).summary.state, JobState::Running);
}

#[test]
fn a_driver_whose_executable_was_still_being_fetched_when_it_was_given_up_is_not_lost() {
    let mut world = World::with_executors(1);
    let mut on = driven(&world.submit(1), 0).unwrap();
    for attempt in 0..8 {
        let shown = world.live(&[1, 2, 3, 4], 60_100);
        let next = driven(&shown, attempt + 1).expect("another one is made");
        assert_eq!(world.scheduler.jobs[&JOB].driver.lost, 1, "as far as is known");
        for _ in 0..2 {
            world.poll(on, vec![never_ran(attempt)]);
            assert_eq!(world.scheduler.jobs[&JOB].driver.lost, 0);
        }
        on = next;
    }
    // This one hangs.
    world.live(&[1, 2, 3, 4], 60_100);
    world.poll(on, vec![never_ran(7)]);
    assert_eq!(world.scheduler.jobs[&JOB].driver.lost, 1);
}

#[test]
fn no_driver_waits_for_its_file_system_for_ever() {
    let mut world = World::with_executors(1);
    let mut on = driven(&world.submit(1), 0).unwrap();
    for attempt in 0..100 {
        world.poll(on, vec![never_ran(attempt)]);
        if let JobState::Failed { reason } = world.status(JOB).summary.state {
            assert!(reason.contains("was away for 600 s, and no driver waits for it longer than 600 s"), "{reason}");
            assert_eq!(world.now, TimeMs(601_000));
            return;
        }
        let Some(WaitReason::FileSystem { until, .. }) = world.status(JOB).waiting.map(|it| it.reason) else {
            panic!("{:?}", world.status(JOB))
        };
        while world.now < until {
            let shown = world.live(&[1, 2, 3, 4], 50);
            on = driven(&shown, attempt + 1).unwrap_or(on);
        }
    }
    panic!("it is given up");
}

#[test]
fn a_task_that_gives_up_again_and_again_is_blamed_for_it_in_the_end() {
    let mut world = three_on_one();
    let gave_up = TaskOutcome::Failed(TaskFailure::Cancelled);
    for attempt in 0..32 {
        world.ended(2, &[&format!("0/0/{attempt}")], &gave_up);
    }
    assert_eq!((failures(&world), blamed(&world, 2), world.status(JOB).stages[0].failed), (vec![0; 3], 0, 0));
    let shown = world.ended(2, &["0/0/32"], &gave_up);
    assert_eq!((shown, failures(&world), blamed(&world, 2)), (Vec::new(), vec![1, 0, 0], 1));
    let failure = world.status(JOB).last_failure.expect("it is told");
    assert_eq!(failure.reason, "more than 32 of its attempts ended as cancelled, and nobody had cancelled them");
    // It is tried elsewhere, and says the same.
    let shown = world.live(&[1, 2, 3], 500);
    let number: u32 = shown[0][1..2].parse().unwrap();
    world.ended(number, &["0/0/33"], &gave_up);
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it is tried for ever") };
    assert!(reason.contains("failed with the same words on n2 and on"), "{reason}");
}
