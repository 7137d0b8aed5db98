//! Drivers that their clients attach: heard, silent, interrupted, outliving the scheduler.

use situ_wire::error::ErrorCode;
use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, JobId, OperationId, ScopeId};
use situ_wire::messages::executor::JobSecret;
use situ_wire::messages::scheduler::{DriverPlace, JobOptions, JobState, Program, Request, Response};

use super::world::{JOB, World, flat, place, result};
use crate::core::{CallId, Caller, Effect, Event, Scheduler, SchedulingPolicy, SecretKey};

const SILENCE_MS: u64 = 30_000;

fn submission(sequence: u64) -> Request {
    Request::Submit {
        program: Program::BuiltIn { name: "wordcount".to_owned() },
        arguments: Vec::new(),
        operation: OperationId { client: ClientId(1), sequence },
        options: JobOptions::default(),
        driver: DriverPlace::Attached,
    }
}

fn begin(world: &World, job: JobId) -> Request {
    Request::DriverBegin { job, secret: world.secret(job), attempt: 0 }
}

fn lives(world: &World, job: JobId) -> Request {
    Request::DriverLives { job, secret: world.secret(job), attempt: 0 }
}

/// Four executors, and a job whose driver is attached and has begun.
fn attached() -> World {
    let mut world = World::with_executors(1);
    assert_eq!(
        world.user(submission(1)),
        ["append 2: job-1 of ada, attached", "ada <- job-1, attached as attempt 0, after record 2"]
    );
    let begin = begin(&world, JOB);
    assert_eq!(world.driver(begin), ["driver <- begun"]);
    world
}

fn ended_for_silence(shown: &[String]) -> bool {
    shown.iter().any(|line| line.contains("job-1 Failed") && line.contains("has not been heard for 30 s"))
}

#[test]
fn the_client_that_submits_is_the_driver_and_nothing_is_placed() {
    let mut world = attached();
    assert_eq!(world.status(JOB).driver, DriverPlace::Attached);
    let shown = world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    assert_eq!(shown, ["n2 <- run 0/0/0 Node"]);
    assert_eq!(
        world.ended(2, &["0/0/0"], &result("a")),
        ["append 3: job-1 has done action-0", r#"driver <- results [b"a"], after record 3"#]
    );
    let secret = world.secret(JOB);
    let shown = world.driver(Request::DriverEnd { job: JOB, secret, attempt: 0, error: None });
    assert_eq!(shown[0], "append 4: job-1 Succeeded");
    assert!(world.scheduler.poll_timeout().is_some(), "executors are watched");
    let shown = world.live(&[1, 2, 3, 4], 2 * SILENCE_MS);
    assert!(shown.iter().all(|line| !line.contains("job-1")), "it has ended: {shown:?}");
}

#[test]
fn a_submission_that_is_repeated_tells_its_client_the_same_and_nobody_else() {
    let mut world = attached();
    assert_eq!(world.user(submission(1)), ["ada <- job-1, attached as attempt 0"]);
    let shown = world.call("eve", Role::User, "eve", submission(1));
    assert!(shown[0].starts_with("eve <- PermissionDenied: ada has made it"), "{shown:?}");
    world.user(Request::Kill { job: JOB, reason: "enough".to_owned() });
    assert_eq!(world.user(submission(1)), ["ada <- job-1"], "there is nothing to drive");
    let shown = world.call("eve", Role::User, "eve", submission(1));
    assert!(shown[0].starts_with("eve <- PermissionDenied"), "{shown:?}");
}

#[test]
fn a_strangers_secret_keeps_no_job_alive() {
    let mut world = attached();
    let stranger = JobSecret([7; 16]);
    let shown = world.driver(Request::DriverLives { job: JOB, secret: stranger, attempt: 0 });
    assert!(shown[0].starts_with("driver <- PermissionDenied"), "{shown:?}");
    let secret = world.secret(JOB);
    let shown = world.driver(Request::DriverLives { job: JOB, secret, attempt: 1 });
    assert!(shown[0].starts_with("driver <- LeaseLost"), "there is one attempt: {shown:?}");
    world.live(&[1, 2, 3, 4], SILENCE_MS - 100);
    world.driver(Request::DriverLives { job: JOB, secret: stranger, attempt: 0 });
    assert!(ended_for_silence(&world.live(&[1, 2, 3, 4], 200)));
}

#[test]
fn a_job_lives_as_long_as_any_call_of_its_driver_is_heard() {
    let mut world = attached();
    for round in 0..6 {
        let shown = world.live(&[1, 2, 3, 4], SILENCE_MS - 1_000);
        assert_eq!(shown, Vec::<String>::new(), "round {round}");
        if round % 2 == 0 {
            let lives = lives(&world, JOB);
            assert_eq!(world.driver(lives), ["driver <- done"]);
        } else {
            let (secret, action) = (world.secret(JOB), situ_wire::ids::ActionId(ScopeId::ROOT, round));
            world.driver(Request::Record { job: JOB, secret, attempt: 0, action, value: "v".into() });
        }
    }
    world.run(JOB, 0, flat(9, vec![vec![place(2)], vec![place(2)]]));
    let shown = world.live(&[1, 2, 3, 4], SILENCE_MS + 100);
    assert!(ended_for_silence(&shown), "{shown:?}");
    assert!(shown.iter().any(|line| line.starts_with("n2 <- ") && line.contains("end job-1")), "{shown:?}");
    let lives = lives(&world, JOB);
    let shown = world.driver(lives);
    assert!(shown[0].contains("JobFailed: the job failed: its client has not been heard"), "{shown:?}");
}

#[test]
fn what_never_begins_is_told_why() {
    let mut world = World::with_executors(1);
    world.user(submission(1));
    let shown = world.live(&[1, 2, 3, 4], SILENCE_MS + 100);
    assert!(ended_for_silence(&shown), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("call situ_compute::run soon after its start")), "{shown:?}");
}

#[test]
fn a_scheduler_that_stood_still_blames_nobody_for_its_silence() {
    let mut world = attached();
    world.live(&[1, 2, 3, 4], SILENCE_MS - 1_000);
    // Nobody was heard, because nobody was listened to.
    world.now = world.now + std::time::Duration::from_millis(2 * SILENCE_MS);
    assert!(!ended_for_silence(&world.pass(0)));
    assert_eq!(world.status(JOB).summary.state, JobState::Running);
    world.pass(SILENCE_MS / 3 - 100);
    let lives = lives(&world, JOB);
    assert_eq!(world.driver(lives), ["driver <- done"]);
    // But who is gone stays gone.
    assert!(ended_for_silence(&world.pass(SILENCE_MS + 100)));
}

#[test]
fn a_job_outlives_the_scheduler_if_its_client_does() {
    let mut world = attached();
    world.run(JOB, 0, flat(0, vec![vec![place(2)]]));
    world.ended(2, &["0/0/0"], &result("a"));
    world.run(JOB, 0, flat(1, vec![vec![place(2)]]));
    for records in [world.records.clone(), world.scheduler.snapshot()] {
        world.records = records;
        world.restart();
        world.join(2, 1);
        assert_eq!(world.poll(2, Vec::new()), Vec::<String>::new(), "no driver is placed");
        world.live(&[2], SILENCE_MS - 1_000);
        assert_eq!(world.status(JOB).summary.state, JobState::Waiting);
        // It goes on where it was: the action under way begins anew, what is done is there.
        assert_eq!(world.run(JOB, 0, flat(1, vec![vec![place(2)]])), ["n2 <- run 0/0/65536 Node"]);
        assert_eq!(world.run(JOB, 0, flat(0, vec![vec![place(2)]])), [r#"driver <- results [b"a"]"#]);
        world.live(&[2], SILENCE_MS - 1_000);
        assert_eq!(world.status(JOB).summary.state, JobState::Running);
        assert_eq!(world.status(JOB).driver, DriverPlace::Attached);
    }
    assert!(ended_for_silence(&world.live(&[2], 2_000)));
    // Nor is it watched in a later life.
    world.records.extend(world.scheduler.snapshot());
    world.restart();
    assert_eq!(world.status(JOB).driver, DriverPlace::Attached, "it is known how it was driven");
    assert_eq!(world.pass(2 * SILENCE_MS), Vec::<String>::new());
}

#[test]
fn a_client_that_is_not_heard_after_a_restart_is_waited_for_no_longer_than_before() {
    let mut world = attached();
    world.restart();
    world.pass(SILENCE_MS - 100);
    assert_eq!(world.status(JOB).summary.state, JobState::Waiting);
    assert!(ended_for_silence(&world.pass(200)));
}

#[test]
fn sessions_count_as_jobs_of_their_user() {
    let mut world = World::with(SchedulingPolicy { user_jobs: 2, ..SchedulingPolicy::default() });
    for sequence in 1..=2 {
        world.user(submission(sequence));
    }
    let shown = world.user(submission(3));
    assert!(shown[0].starts_with("ada <- Unavailable: 2 jobs of ada are unfinished"), "{shown:?}");
    world.pass(SILENCE_MS + 100);
    assert_eq!(world.user(submission(3)).len(), 2, "those that are silent make place");
}

#[test]
fn a_driver_that_outlives_the_scheduler_waits_until_the_new_life_is_on_the_disk() {
    let world = attached();
    let key = SecretKey([9; 32]);
    let mut scheduler = Scheduler::new(SchedulingPolicy::default(), key, world.records.clone());
    let ask = |scheduler: &mut Scheduler, call| {
        let caller = Caller { role: Role::User, name: "ada".to_owned() };
        let (deadline, request) = (world.now + std::time::Duration::from_secs(8), Box::new(lives(&world, JOB)));
        scheduler.handle(world.now, Event::Call { call: CallId(call), caller, deadline, request });
        let mut appended = None;
        loop {
            match scheduler.poll_effect().expect("an answer") {
                Effect::Append { id, .. } => appended = Some(id),
                Effect::Answer { result, .. } => return (appended, *result),
            }
        }
    };
    let (record, refused) = ask(&mut scheduler, 1);
    assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::Unavailable));
    scheduler.handle(world.now, Event::Synced { record: record.expect("a life begins") });
    assert_eq!(ask(&mut scheduler, 2).1, Ok(Response::Done));
}
