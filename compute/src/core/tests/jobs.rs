use std::collections::BTreeMap;
use std::time::Duration;

use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::{ActionId, ClientId, ExecutorId, JobId, OperationId, PartitionId, ScopeId, ShuffleId};
use situ_wire::messages::scheduler::{DriverPlace, ExecutorEvent, JobOptions, JobState, Program, Request};
use situ_wire::path::DfsPath;

use super::world::{JOB, World, attempt, flat, mapped, place, result, told_to_register, word_count};
use crate::core::{CallId, Caller, Effect, Event, JobRecord, SchedulingPolicy};

#[test]
fn word_count_from_submission_to_end() {
    let mut world = World::new();
    assert_eq!(world.join(1, 2), ["n1 <- registered"]);
    assert_eq!(world.poll(1, Vec::new()), [""; 0]);
    assert_eq!(
        world.submit(1),
        [
            "append 2: job-1 of ada",
            "ada <- job-1, after record 2",
            "append 3: job-1 driver 0 on n1",
            "n1 <- drive job-1 0"
        ]
    );
    assert_eq!(world.poll(1, Vec::new()), [""; 0]);
    let secret = world.secret(JOB);
    assert_eq!(world.driver(Request::DriverBegin { job: JOB, secret, attempt: 0 }), ["driver <- begun"]);
    let plan = word_count(vec![vec![place(1)], vec![place(2)], Vec::new()], 2);
    assert_eq!(world.run(JOB, 0, plan), ["n1 <- run 1/0/0 Node, run 1/1/0 Rack"]);
    let outputs = Request::MapOutputs {
        job: JOB,
        secret,
        shuffle: ShuffleId(ScopeId::ROOT, 2),
        reduce: (PartitionId(1), PartitionId(2)),
        by: attempt("2/1/0"),
    };
    assert_eq!(world.driver(outputs.clone()), ["driver <- OutputsLost: outputs are lost and being computed again"]);
    assert_eq!(world.ended(1, &["1/0/0", "1/1/0"], &mapped(2)), ["n1 <- run 1/2/0 NoPreference"]);
    let at = "at 127.0.0.1:1 in 1";
    assert_eq!(world.ended(1, &["1/2/0"], &mapped(2)), ["n1 <- run 2/0/0 NoPreference, run 2/1/0 NoPreference"]);
    assert_eq!(world.driver(outputs), [format!("driver <- outputs 1/0/0 {at}, 1/1/0 {at}, 1/2/0 {at}")]);
    assert_eq!(world.ended(1, &["2/1/0"], &result("one")), [""; 0]);
    assert_eq!(
        world.ended(1, &["2/0/0"], &result("zero")),
        ["append 4: job-1 has done action-0", r#"driver <- results [b"zero", b"one"], after record 4"#]
    );
    assert_eq!(
        world.driver(Request::DriverEnd { job: JOB, secret, attempt: 0, error: None }),
        ["append 5: job-1 Succeeded", "driver <- done, after record 5", "n1 <- end job-1"]
    );
    let status = world.status(JOB);
    assert_eq!(
        status.stages.iter().map(|stage| stage.localities).collect::<Vec<_>>(),
        [[0, 1, 1, 0, 1], [0, 0, 0, 0, 2]]
    );
    assert_eq!(status.recoveries, []);
}

#[test]
fn a_retried_submission_is_the_same_job() {
    let mut world = World::new();
    world.submit(1);
    assert_eq!(world.submit(1), ["ada <- job-1"]);
    assert_eq!(world.submit(2), ["append 3: job-2 of ada", "ada <- job-2, after record 3"]);
}

#[test]
fn what_was_computed_for_one_action_serves_the_next() {
    let mut world = World::new();
    world.join(1, 4);
    let job = world.start(1);
    world.run(job, 0, word_count(vec![Vec::new()], 1));
    world.ended(1, &["1/0/0"], &mapped(1));
    world.ended(1, &["2/0/0"], &result("a"));
    let mut plan = word_count(vec![Vec::new()], 1);
    plan.name = "count".to_owned();
    plan.stages[1].output = situ_wire::messages::scheduler::StageOutput::Result { action: ActionId(ScopeId::ROOT, 1) };
    // The map stage is complete: only the result stage runs, and its attempts go on counting.
    assert_eq!(world.run(job, 0, plan), ["n1 <- run 2/0/1 NoPreference"]);
}

#[test]
fn a_driver_that_starts_again_finds_its_results() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let plan = || flat(0, vec![vec![place(2)]]);
    assert_eq!(world.run(job, 0, plan()), ["n2 <- run 0/0/0 Node"]);
    let lost =
        |retry| ExecutorEvent::DriverEnded { job, attempt: 0, error: Some("SIGKILL".to_owned()), retry, away: false };
    // It is started elsewhere.
    assert_eq!(
        world.poll(1, vec![lost(true)]),
        ["append 4: job-1 driver 1 on n3", "n1 <- nothing to do", "n3 <- drive job-1 1"]
    );
    // The earlier attempt is refused.
    let shown = world.run(job, 0, plan());
    assert_eq!(shown, ["driver <- LeaseLost: attempt 0 at the driver was given up: the process must end"]);
    // The later one joins the action that is under way.
    assert_eq!(world.run(job, 1, plan()), [""; 0]);
    assert_eq!(
        world.ended(2, &["0/0/0"], &result("a")),
        [
            "append 5: job-1 has done action-0",
            r#"driver <- results [b"a"], after record 5"#,
            r#"driver <- results [b"a"], after record 5"#
        ]
    );
    // And gets it again when it asks again.
    assert_eq!(world.run(job, 1, plan()), [r#"driver <- results [b"a"]"#]);
    // What it did not do before cannot be.
    let mut other = plan();
    other.nodes[0].name = "sequence_file".to_owned();
    let shown = world.run(job, 1, other);
    assert!(shown[0].starts_with("append 6: job-1 Failed"), "{shown:?}");
    let told = shown.iter().find(|line| line.starts_with("driver <- failed")).unwrap();
    assert!(told.contains("what collect is computed from is not what it was in an earlier run"), "{shown:?}");
}

#[test]
fn a_driver_that_is_lost_again_and_again_fails_the_job() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    for attempt in 0..4 {
        let event =
            ExecutorEvent::DriverEnded { job, attempt, error: Some("SIGKILL".to_owned()), retry: true, away: false };
        world.poll(attempt + 1, vec![event]);
        // One that has not begun is placed again later.
        world.live(&[1, 2, 3, 4], 5_000);
    }
    let reason = "4 attempts at the driver were lost; the last, attempt 3 on n4: SIGKILL".to_owned();
    assert_eq!(world.status(job).summary.state, JobState::Failed { reason });
}

#[test]
fn attempts_at_a_driver_that_are_lost_long_apart_do_not_add_up_while_the_job_comes_on() {
    let policy = SchedulingPolicy { driver_forget_ms: 10_000, ..SchedulingPolicy::default() };
    // Whether the job has come on, how long each attempt lasts, and how many may be lost.
    for (comes_on, lasts_ms, is_forgotten) in [(true, 10_000, true), (true, 9_000, false), (false, 10_000, false)] {
        let mut world = World::with(policy.clone());
        (1..=4).for_each(|number| drop(world.join(number, 1)));
        let job = world.start(1);
        let secret = world.secret(job);
        let lose = |world: &mut World, attempt: u32| {
            let error = Some("SIGKILL".to_owned());
            let event = ExecutorEvent::DriverEnded { job, attempt, error, retry: true, away: false };
            let place = world.scheduler.jobs[&job].driver.place.unwrap();
            let number = (1..=4).find(|number| world.scheduler.executors.node(place).0 == format!("n{number}"));
            world.poll(number.unwrap(), vec![event]);
        };
        let mut lost = 0;
        for attempt in 0..12 {
            if world.status(job).summary.state != JobState::Running {
                break;
            }
            world.driver(Request::DriverBegin { job, secret, attempt });
            if comes_on {
                let (action, value) = (ActionId(ScopeId::ROOT, attempt), "a".into());
                world.driver(Request::Record { job, secret, attempt, action, value });
            }
            world.live(&[1, 2, 3, 4], lasts_ms);
            lose(&mut world, attempt);
            lost += 1;
        }
        assert_eq!(lost, if is_forgotten { 12 } else { 4 }, "{comes_on} {lasts_ms}");
    }
}

#[test]
fn a_driver_that_ends_with_an_error_fails_the_job() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let event = ExecutorEvent::DriverEnded {
        job,
        attempt: 0,
        error: Some("exit code 101".to_owned()),
        retry: false,
        away: false,
    };
    let shown = world.poll(1, vec![event]);
    let end = r#"append 4: job-1 Failed { reason: "the driver ended with an error: exit code 101" }"#;
    assert_eq!(shown, [end, "n1 <- end job-1"]);
}

#[test]
fn a_scheduler_that_starts_again_knows_its_jobs_and_starts_the_unfinished_anew() {
    let mut world = World::with_executors(1);
    let first = world.start(1);
    let secret = world.secret(first);
    world.driver(Request::DriverEnd { job: first, secret, attempt: 0, error: None });
    let second = world.start(2);
    world.run(second, 0, flat(0, vec![Vec::new()]));
    let before = world.status(first);
    world.restart();
    assert_eq!(world.user(Request::List { before: None }), ["ada <- job-2 Waiting, job-1 Succeeded"]);
    assert_eq!(world.status(first), before);
    assert!(told_to_register(&world.poll(1, Vec::new())));
    world.records.clear();
    assert_eq!(world.join(1, 1), ["n1 <- registered", "append 2: job-2 driver 100 on n1"]);
    assert_eq!(world.poll(1, Vec::new()), ["n1 <- drive job-2 100"]);
    // The driver of the earlier life has another number, and who is of another job another secret.
    let end = |secret, attempt| Request::DriverEnd { job: second, secret, attempt, error: None };
    let own = world.secret(second);
    assert!(world.driver(end(own, 0))[0].starts_with("driver <- LeaseLost"));
    assert!(world.driver(end(secret, 100))[0].starts_with("driver <- PermissionDenied"));
    assert_eq!(world.submit(2), ["ada <- job-2"]);
    assert_eq!(
        world.submit(3),
        ["append 3: job-3 of ada", "ada <- job-3, after record 3", "append 4: job-3 driver 0 on n1"]
    );
}

#[test]
fn a_snapshot_brings_back_the_same() {
    let mut world = World::with_executors(1);
    let first = world.start(1);
    let secret = world.secret(first);
    world.driver(Request::DriverEnd { job: first, secret, attempt: 0, error: Some("no".to_owned()) });
    world.start(2);
    let (snapshot, status) = (world.scheduler.snapshot(), world.status(first));
    // It repeats what stands before it, as it does in a journal that is being compacted.
    world.records.extend(snapshot.clone());
    world.restart();
    assert_eq!(world.scheduler.snapshot()[1..], snapshot[1..]);
    assert!(matches!(world.scheduler.snapshot()[0], JobRecord::Began { life: 1, next: JobId(3) }));
    assert_eq!(world.status(first), status);
}

#[test]
fn only_its_owner_ends_a_job() {
    let mut world = World::new();
    world.join(1, 1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![Vec::new()]));
    let kill = || Request::Kill { job, reason: "enough".to_owned() };
    let shown = world.call("bob", Role::User, "bob", kill());
    assert_eq!(shown, ["bob <- PermissionDenied: it belongs to ada, and bob is not an administrator of the scheduler"]);
    world.poll(1, Vec::new());
    world.poll(1, Vec::new());
    assert_eq!(
        world.user(kill()),
        [
            r#"append 4: job-1 Killed { reason: "enough" }"#,
            "driver <- failed: the job was ended: enough, after record 4",
            "ada <- done, after record 4",
            "n1 <- end job-1",
        ]
    );
    assert_eq!(world.user(kill()), ["ada <- done"]);
}

#[test]
fn who_follows_a_job_hears_of_changes_but_not_of_each_at_once() {
    let mut world = World::new();
    world.join(1, 1);
    let job = world.start(1);
    let revision = world.status(job).revision;
    assert_eq!(world.user(Request::Status { job, seen: revision }), [""; 0]);
    world.run(job, 0, flat(0, vec![Vec::new()]));
    assert_eq!(world.pass(99), [""; 0]);
    assert_eq!(world.pass(1), [format!("ada <- status {} Running", revision + 1)]);
    // Nothing changes: the answer comes when the call's time is nearly up.
    assert_eq!(world.user(Request::Status { job, seen: revision + 1 }), [""; 0]);
    world.poll(1, Vec::new());
    world.poll(1, Vec::new());
    let shown = world.live(&[1], 8_000);
    let late = "driver <- Unavailable: not there yet; ask again".to_owned();
    assert_eq!(shown, [late, format!("ada <- status {} Running", revision + 1)]);
}

#[test]
fn a_plan_that_makes_no_sense_fails_the_job() {
    let mut world = World::new();
    world.join(1, 1);
    let job = world.start(1);
    let mut plan = word_count(vec![Vec::new()], 1);
    plan.stages[1].reads = vec![ShuffleId(ScopeId::ROOT, 9)];
    let shown = world.run(job, 0, plan);
    let reason = "action-0: its plan cannot be run: stage-2 reads Some(shuffle-9), which no stage before it fills";
    assert_eq!(shown[1..], [format!("driver <- failed: {reason}, after record 4")]);
}

#[test]
fn a_plan_that_is_too_large_fails_the_job_and_names_the_setting() {
    let mut world = World::with(SchedulingPolicy { tasks: 2, ..SchedulingPolicy::default() });
    world.join(1, 1);
    let job = world.start(1);
    let shown = world.run(job, 0, flat(0, vec![Vec::new(); 3]));
    let reason = "action-0: the job would have 3 tasks; at most 2 are allowed: use fewer and larger partitions, or raise \
                  `tasks` in the scheduler's configuration";
    assert_eq!(shown[1..], [format!("driver <- failed: {reason}, after record 4")]);
}

#[test]
fn a_driver_that_stands_still_is_given_up_and_another_goes_on() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![Vec::new()]));
    // It waits for its action, and says that it lives.
    assert!(
        world.live(&[1, 2, 3, 4], 60_000).iter().all(|line| line.contains("not there yet") || line.contains("run "))
    );
    world.drivers_stand_still = true;
    assert_eq!(world.live(&[1, 2, 3, 4], 29_900), [""; 0]);
    let shown = world.live(&[1, 2, 3, 4], 200);
    assert_eq!(shown, ["append 4: job-1 driver 1 on n2", "n1 <- end driver job-1 0", "n2 <- drive job-1 1"]);
    let secret = world.secret(job);
    assert!(world.driver(Request::DriverLives { job, secret, attempt: 0 })[0].starts_with("driver <- LeaseLost"));
    assert_eq!(world.driver(Request::DriverBegin { job, secret, attempt: 1 }), ["driver <- begun"]);
    // A scheduler that stood still itself has heard nobody.
    world.now = world.now + std::time::Duration::from_secs(40);
    assert!(!world.pass(1).iter().any(|line| line.contains("driver 2")));
    assert!(world.live(&[1, 2, 3, 4], 31_000).iter().any(|line| line.contains("driver 2")));
}

#[test]
fn who_wants_only_that_an_action_is_done_hears_nothing_else() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let secret = world.secret(job);
    let ask = |number, results| {
        let action = ActionId(ScopeId::ROOT, number);
        Request::ActionResult { job, secret, action, within: Vec::new(), wait: true, results }
    };
    let worker = |world: &mut World, number| world.call("worker", Role::User, "n2", ask(number, false));
    world.run(job, 0, flat(0, vec![vec![place(2)]]));
    assert_eq!(worker(&mut world, 0), [""; 0]);
    assert_eq!(
        world.ended(2, &["0/0/0"], &result("a")),
        [
            "append 4: job-1 has done action-0",
            r#"driver <- results [b"a"], after record 4"#,
            "worker <- results [], after record 4"
        ]
    );
    assert_eq!(worker(&mut world, 0), ["worker <- results []"]);
    // Of a value the answer says that it is none of an action.
    assert_eq!(worker(&mut world, 1), [""; 0]);
    let record = Request::Record { job, secret, attempt: 0, action: ActionId(ScopeId::ROOT, 1), value: "v".into() };
    assert_eq!(world.driver(record)[1], r#"worker <- results [b"v"], after record 5"#);
    assert_eq!(worker(&mut world, 1), [r#"worker <- results [b"v"]"#]);
    // Who waits hears that the job has ended, too.
    assert_eq!(worker(&mut world, 2), [""; 0]);
    let shown = world.user(kill(job));
    assert!(shown.iter().any(|line| line.starts_with("worker <- failed: the job was ended")), "{shown:?}");
}

#[test]
fn recorded_values_are_kept_and_the_first_counts() {
    let mut world = World::new();
    world.join(1, 1);
    let job = world.start(1);
    let secret = world.secret(job);
    let ask = |wait| Request::ActionResult {
        job,
        secret,
        action: ActionId(ScopeId::ROOT, 0),
        within: Vec::new(),
        wait,
        results: true,
    };
    let record = |value: &'static str| Request::Record {
        job,
        secret,
        attempt: 0,
        action: ActionId(ScopeId::ROOT, 0),
        value: value.into(),
    };
    assert_eq!(world.driver(ask(false)), ["driver <- unknown"]);
    assert_eq!(world.driver(ask(true)), [""; 0]);
    let told = r#"driver <- results [b"a"], after record 4"#;
    assert_eq!(world.driver(record("a")), ["append 4: job-1 recorded action-0", told, told]);
    assert_eq!(world.driver(record("b")), [r#"driver <- results [b"a"]"#]);
}

#[test]
fn a_driver_that_does_not_begin_is_started_elsewhere_and_at_last_fails_the_job() {
    let mut world = World::with_executors(1);
    world.submit(1);
    world.poll(1, Vec::new());
    assert_eq!(world.live(&[1, 2, 3, 4], 59_950), [""; 0]);
    let shown = world.live(&[1, 2, 3, 4], 50);
    assert_eq!(shown, ["append 4: job-1 driver 1 on n2", "n1 <- end driver job-1 0", "n2 <- drive job-1 1"]);
    // It is too late for the first.
    let secret = world.secret(JOB);
    let begin = |attempt| Request::DriverBegin { job: JOB, secret, attempt };
    assert!(world.driver(begin(0))[0].starts_with("driver <- LeaseLost"));
    // The second begins, and may then take as long as it likes.
    assert_eq!(world.driver(begin(1)), ["driver <- begun"]);
    assert_eq!(world.live(&[1, 2, 3, 4], 120_000), [""; 0]);
    let lost = ExecutorEvent::DriverEnded {
        job: JOB,
        attempt: 1,
        error: Some("SIGKILL".to_owned()),
        retry: true,
        away: false,
    };
    world.poll(2, vec![lost]);
    // Those that follow do not begin.
    world.live(&[1, 2, 3, 4], 125_000);
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it failed") };
    assert!(
        reason.starts_with("4 attempts at the driver were lost; the last, attempt 3 on n")
            && reason.ends_with(
                ": it did not begin within 60 s: its main must call situ_compute::run soon after its start; `situ job logs 1` \
                 may say what it did instead"
            ),
        "{reason}"
    );
}

#[test]
fn a_scheduler_that_stood_still_gives_drivers_time_to_begin() {
    let mut world = World::with_executors(1);
    world.submit(1);
    world.poll(1, Vec::new());
    world.now = world.now + std::time::Duration::from_secs(300);
    world.scheduler.handle_timeout(world.now);
    let secret = world.secret(JOB);
    let shown = world.driver(Request::DriverBegin { job: JOB, secret, attempt: 0 });
    assert_eq!(shown.last().unwrap(), "driver <- begun");
}

#[test]
fn a_job_publishes_under_the_same_name_in_every_life_of_the_scheduler() {
    let mut world = World::with_executors(1);
    let (first, second) = (world.start(1), world.start(2));
    let names = |world: &World| [first, second].map(|job| world.scheduler.jobs[&job].publisher());
    let (before, secret) = (names(&world), world.secret(first));
    world.restart();
    assert_eq!(names(&world), before);
    assert_ne!(before[0], before[1]);
    assert_eq!(world.secret(first), secret);
}

/// A job of which the scheduler knows that it writes aside.
fn writing() -> World {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.poll(1, Vec::new());
    let secret = world.secret(job);
    let output = || DfsPath::parse("/out").unwrap();
    let aside =
        |attempt| Request::Publishing { job, secret, attempt, action: ActionId(ScopeId::ROOT, 0), output: output() };
    let shown = world.driver(aside(0));
    assert_eq!(shown[..2], ["append 4: job-1 writes to /out", "append 5: job-1 publishes action-0 at /out"]);
    assert!(world.driver(aside(1))[0].starts_with("driver <- LeaseLost"));
    world
}

fn kill(job: JobId) -> Request {
    Request::Kill { job, reason: "enough".to_owned() }
}

/// The run that takes away what the first job wrote aside has ended on an executor; what comes of it.
fn cleaned(world: &mut World, number: u32, run: u32, error: Option<&str>) -> Vec<String> {
    let attempt = (1 << 31) + run;
    let error = error.map(str::to_owned);
    let mut shown =
        world.poll(number, vec![ExecutorEvent::DriverEnded { job: JOB, attempt, error, retry: false, away: false }]);
    shown.retain(|line| !line.ends_with("<- nothing to do"));
    shown
}

#[test]
fn what_a_killed_job_wrote_aside_is_taken_away_and_looked_for_once_more() {
    let mut world = writing();
    assert_eq!(
        world.user(kill(JOB)),
        [r#"append 6: job-1 Killed { reason: "enough" }"#, "ada <- done, after record 6", "n1 <- end job-1"]
    );
    // Only now: had the scheduler died before that record was on disk, the job would have gone on.
    assert_eq!(world.poll(1, Vec::new()), ["n1 <- clean up /out of job-1 as ada"]);
    world.poll(1, Vec::new());
    assert_eq!(cleaned(&mut world, 1, 0, None), ["n1 <- end job-1"]);
    // What is told of a run that is not under way counts for nothing.
    assert_eq!(cleaned(&mut world, 2, 0, Some("late")), [""; 0]);
    world.poll(1, Vec::new());
    // A process of it may have made something in its last moment.
    assert_eq!(world.live(&[1, 2, 3, 4], 29_900), [""; 0]);
    assert_eq!(world.live(&[1, 2, 3, 4], 100), ["n1 <- clean up /out of job-1 as ada"]);
    let shown = cleaned(&mut world, 1, 1, None);
    assert_eq!(shown, ["append 7: job-1 is cleaned up", "n1 <- end job-1"]);
    world.poll(1, Vec::new());
    assert_eq!(world.live(&[1, 2, 3, 4], 700_000), [""; 0]);
    assert_eq!(world.status(JOB).summary.state, JobState::Killed { reason: "enough".to_owned() });
}

#[test]
fn what_a_job_that_succeeded_wrote_aside_is_taken_away_where_it_has_not_published() {
    for publishes in [true, false] {
        let mut world = writing();
        let secret = world.secret(JOB);
        if publishes {
            world.driver(Request::Published { job: JOB, secret, attempt: 0, action: ActionId(ScopeId::ROOT, 0) });
        }
        let shown = world.driver(Request::DriverEnd { job: JOB, secret, attempt: 0, error: None });
        assert_eq!(shown.last().unwrap(), "n1 <- end job-1");
        let taken_away = |shown: Vec<String>| shown.iter().any(|line| line.contains("clean up /out of job-1"));
        assert_eq!(taken_away(world.poll(1, Vec::new())), !publishes);
        world.restart();
        world.join(2, 1);
        assert_eq!(taken_away(world.poll(2, Vec::new())), !publishes);
    }
}

#[test]
fn that_a_job_has_ended_is_told_when_it_is_certain() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let secret = world.secret(job);
    // Both come before the record of the end is on the disk.
    let caller = |role| Caller { role, name: "ada".to_owned() };
    let asked = [(Role::User, kill(job)), (Role::Executor, Request::DriverBegin { job, secret, attempt: 0 })];
    for (number, (role, request)) in (900..).zip(asked) {
        let (deadline, request) = (world.now + Duration::from_secs(8), Box::new(request));
        let event = Event::Call { call: CallId(number), caller: caller(role), deadline, request };
        world.scheduler.handle(world.now, event);
    }
    let mut told = Vec::new();
    while let Some(effect) = world.scheduler.poll_effect() {
        if let Effect::Answer { call, result, when } = effect
            && call.0 >= 900
        {
            told.push((result.map_err(|error| error.code).err(), when.is_some()));
        }
    }
    assert_eq!(told, [(None, true), (Some(ErrorCode::JobFailed), true)]);
}

#[test]
fn the_directory_of_a_job_goes_however_the_job_ends() {
    for succeeds in [true, false] {
        let mut world = writing();
        let secret = world.secret(JOB);
        let ask = Request::OwnDirectory { job: JOB, secret };
        // It is told when it is certain that the directory will be taken away.
        let told = world.driver(ask.clone());
        let Some(own) = told[0].strip_prefix("append 6: job-1 writes to ") else { panic!("{told:?}") };
        assert!(own.starts_with("/.situ/jobs/job-1-"), "{own}");
        assert_eq!(told[1..], [format!("driver <- {own}, after record 6")]);
        assert_eq!(world.call("worker", Role::User, "n2", ask), [format!("worker <- {own}")], "every process hears it");
        let stranger = Request::OwnDirectory { job: JOB, secret: world.secret(JobId(9)) };
        let refused = world.call("stranger", Role::User, "n2", stranger);
        assert!(refused[0].starts_with("stranger <- PermissionDenied"), "{refused:?}");
        if succeeds {
            world.driver(Request::Published { job: JOB, secret, attempt: 0, action: ActionId(ScopeId::ROOT, 0) });
        }
        let error = (!succeeds).then(|| "no".to_owned());
        world.driver(Request::DriverEnd { job: JOB, secret, attempt: 0, error });
        let expected = match succeeds {
            true => format!("n1 <- clean up {own} of job-1 as ada"),
            false => format!("n1 <- clean up {own} /out of job-1 as ada"),
        };
        assert_eq!(world.poll(1, Vec::new()), [expected.as_str()]);
        // The next scheduler has it from the journal, from a snapshot too.
        for _ in 0..2 {
            world.records.extend(world.scheduler.snapshot());
            world.restart();
            world.join(2, 1);
            assert_eq!(world.poll(2, Vec::new()), [expected.replace("n1", "n2")]);
        }
    }
}

#[test]
fn a_job_keeps_its_options_through_restarts() {
    let mut world = World::with_executors(1);
    let operation = OperationId { client: ClientId(1), sequence: 1 };
    let program = Program::BuiltIn { name: "wordcount".to_owned() };
    let options = JobOptions { check_replay: true, ..JobOptions::default() };
    let shown =
        world.user(Request::Submit { program, arguments: Vec::new(), operation, options, driver: DriverPlace::Placed });
    assert_eq!(shown[..2], ["append 2: job-1 of ada with options", "ada <- job-1, after record 2"]);
    for _ in 0..2 {
        world.records.extend(world.scheduler.snapshot());
        world.restart();
        assert_eq!(world.status(JOB).options, options);
    }
}

#[test]
fn a_clean_up_is_tried_again_after_failures_elsewhere_and_by_the_next_scheduler() {
    let mut world = writing();
    world.user(kill(JOB));
    world.poll(1, Vec::new());
    cleaned(&mut world, 1, 0, Some("the namenode is away"));
    world.poll(1, Vec::new());
    assert_eq!(world.live(&[1, 2, 3, 4], 4_900), [""; 0]);
    assert_eq!(world.live(&[1, 2, 3, 4], 100), ["n1 <- clean up /out of job-1 as ada"]);
    // Its executor dies.
    world.event(Event::Disconnected { executor: ExecutorId(1) });
    assert_eq!(world.live(&[2, 3, 4], 1_000), ["n2 <- clean up /out of job-1 as ada"]);
    world.live(&[2, 3, 4], 30_000);
    // So does the scheduler; what it had appended is enough, and so is what it would have written in its place.
    let snapshot = world.scheduler.snapshot();
    for records in [world.records.clone(), snapshot.clone(), [world.records.clone(), snapshot].concat()] {
        world.records = records;
        world.restart();
        assert_eq!(world.join(3, 1), ["n3 <- registered"]);
        assert_eq!(world.poll(3, Vec::new()), ["n3 <- clean up /out of job-1 as ada"]);
    }
    world.poll(3, Vec::new());
    // What is said late of a run in an earlier life is not taken for this one's.
    assert_eq!(cleaned(&mut world, 3, 0, None), [""; 0]);
    // The job's processes may have been there until just now: it is looked for once more.
    assert_eq!(cleaned(&mut world, 3, 1 << 16, None), ["n3 <- end job-1"]);
    world.poll(3, Vec::new());
    assert_eq!(world.live(&[3], 29_900), [""; 0]);
    assert_eq!(world.live(&[3], 200), ["n3 <- clean up /out of job-1 as ada"]);
    let shown = cleaned(&mut world, 3, (1 << 16) + 1, None);
    assert!(shown[0].ends_with(": job-1 is cleaned up"), "{shown:?}");
    world.restart();
    world.join(3, 1);
    world.poll(3, Vec::new());
    assert_eq!(world.live(&[3], 30_000), [""; 0]);
}

#[test]
fn a_clean_up_that_fails_is_never_given_up() {
    let mut world = writing();
    world.user(kill(JOB));
    let mut waited = Vec::new();
    for run in 0..80 {
        let began = world.now;
        let mut shown = world.poll(1, Vec::new());
        while !shown.contains(&"n1 <- clean up /out of job-1 as ada".to_owned()) {
            shown = world.pass(2_500);
            shown.extend(world.poll(1, Vec::new()));
        }
        waited.push(world.now.since(began).as_secs());
        world.poll(1, Vec::new());
        cleaned(&mut world, 1, run, Some("the namenode is away"));
    }
    assert_eq!(waited[..9], [0, 5, 10, 20, 40, 80, 160, 320, 600]);
    assert!(waited[9..].iter().all(|waited| *waited == 600), "{waited:?}");
    assert!(!world.records.iter().any(|record| matches!(record, JobRecord::Cleaned { .. })));
}

#[test]
fn an_unfinished_job_keeps_what_it_writes_aside_through_restarts() {
    let mut world = writing();
    let snapshot = world.scheduler.snapshot();
    // What is left of a journal that was cut before the snapshot may tell of a job before it is known.
    let aside = world.records[4].clone();
    assert!(matches!(aside, JobRecord::WritesAside { .. }));
    world.records = [vec![aside], snapshot].concat();
    world.restart();
    world.join(2, 1);
    assert_eq!(world.poll(2, Vec::new()), ["n2 <- drive job-1 100"]);
    world.poll(2, Vec::new());
    let shown = world.user(kill(JOB));
    assert!(shown.contains(&"n2 <- end job-1".to_owned()), "{shown:?}");
    assert_eq!(world.poll(2, Vec::new()), ["n2 <- clean up /out of job-1 as ada"]);
}

#[test]
fn the_clean_ups_of_many_jobs_are_spread_over_the_executors_a_few_at_a_time() {
    let mut world = World::with_executors(1);
    for number in 1..=12 {
        let job = world.start(number);
        let (secret, output) = (world.secret(job), DfsPath::parse(&format!("/out{number}")).unwrap());
        world.driver(Request::Publishing { job, secret, attempt: 0, action: ActionId(ScopeId::ROOT, 0), output });
    }
    let mut shown: Vec<String> = (1..=12).flat_map(|number| world.user(kill(JobId(number)))).collect();
    let (mut open, mut begun) = (BTreeMap::new(), BTreeMap::<u64, u32>::new());
    let mut most = 0;
    for _ in 0..100 {
        shown.extend(world.live(&[1, 2, 3, 4], 1_000));
        for line in shown.drain(..) {
            let (executor, commands) = line.split_once(" <- ").unwrap_or_default();
            for job in commands.split(", ").filter_map(|command| command.strip_prefix("clean up ")?.split(' ').nth(2)) {
                let job = job.parse::<JobId>().unwrap().0;
                open.insert(job, executor[1..].parse::<u32>().unwrap());
                *begun.entry(job).or_default() += 1;
            }
        }
        assert!((1..=4).all(|number| open.values().filter(|executor| **executor == number).count() <= 2), "{open:?}");
        assert!(
            world.scheduler.poll_timeout().is_none_or(|next| next > world.now),
            "who waits for room needs no clock"
        );
        most = most.max(open.len());
        if let Some((job, executor)) = open.pop_first() {
            let attempt = (1 << 31) + begun[&job] - 1;
            let ended = ExecutorEvent::DriverEnded { job: JobId(job), attempt, error: None, retry: false, away: false };
            shown.extend(world.poll(executor, vec![ended]));
        }
    }
    assert_eq!(most, 8, "all executors take part");
    let cleaned = world.records.iter().filter(|record| matches!(record, JobRecord::Cleaned { .. })).count();
    assert_eq!((cleaned, begun.len(), open.len()), (12, 12, 0));
}
