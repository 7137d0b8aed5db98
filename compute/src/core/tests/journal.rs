//! What was decided outlives the scheduler: results, recorded values, publications, secrets.

use situ_wire::hello::Role;
use situ_wire::ids::{ActionId, ClientId, JobId, OperationId, ScopeId};
use situ_wire::messages::scheduler::{DriverPlace, JobOptions, JobState, Program, Request, TaskFailure, TaskOutcome};
use situ_wire::path::DfsPath;

use super::world::{JOB, World, flat, mapped, place, result, word_count};
use crate::core::JobRecord;

/// The first attempt at a driver in the second life of the scheduler.
const ANEW: u32 = 100;

/// The scheduler starts anew, and the driver of the first job with it, on n2.
fn start_anew(world: &mut World) {
    world.restart();
    world.join(2, 2);
    assert_eq!(world.poll(2, Vec::new()), [format!("n2 <- drive job-1 {ANEW}")]);
    world.poll(2, Vec::new());
    let secret = world.secret(JOB);
    assert_eq!(world.driver(Request::DriverBegin { job: JOB, secret, attempt: ANEW }), ["driver <- begun"]);
}

#[test]
fn an_action_is_on_the_disk_before_its_driver_hears_of_it_and_never_runs_again() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(2)]]));
    assert_eq!(
        world.ended(2, &["0/0/0"], &result("a")),
        ["append 4: job-1 has done action-0", r#"driver <- results [b"a"], after record 4"#]
    );
    for records in [world.records.clone(), world.scheduler.snapshot()] {
        world.records = records;
        start_anew(&mut world);
        assert_eq!(world.run(job, ANEW, flat(0, vec![vec![place(2)]])), [r#"driver <- results [b"a"]"#]);
        let secret = world.secret(job);
        let ask = Request::ActionResult {
            job,
            secret,
            action: ActionId(ScopeId::ROOT, 0),
            within: Vec::new(),
            wait: true,
            results: true,
        };
        assert_eq!(world.driver(ask), [r#"driver <- results [b"a"]"#], "a worker asks");
        // The next one runs.
        let shown = world.run(job, ANEW, flat(1, vec![vec![place(2)]]));
        assert_eq!(shown, ["n2 <- run 0/0/65536 Node"]);
    }
}

#[test]
fn what_was_not_on_the_disk_runs_again() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(2)]]));
    world.ended(2, &["0/0/0"], &result("a"));
    let done = world.records.pop();
    assert!(matches!(done, Some(JobRecord::ActionDone { .. })), "{done:?}");
    start_anew(&mut world);
    assert_eq!(world.run(job, ANEW, flat(0, vec![vec![place(2)]])), ["n2 <- run 0/0/65536 Node"]);
}

#[test]
fn a_driver_that_does_something_else_after_a_restart_fails_the_job() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(2)]]));
    world.ended(2, &["0/0/0"], &result("a"));
    start_anew(&mut world);
    let mut other = flat(0, vec![vec![place(2)]]);
    other.nodes[0].name = "sequence_file".to_owned();
    let shown = world.run(job, ANEW, other);
    let told = "what collect is computed from is not what it was in an earlier run of the driver";
    assert!(shown[1].contains(told), "{shown:?}");
}

#[test]
fn recorded_values_and_results_count_once_however_often_they_are_read() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let secret = world.secret(job);
    let record = |attempt, value: &'static str| Request::Record {
        job,
        secret,
        attempt,
        action: ActionId(ScopeId::ROOT, 0),
        value: value.into(),
    };
    assert_eq!(
        world.driver(record(0, "a")),
        ["append 4: job-1 recorded action-0", r#"driver <- results [b"a"], after record 4"#]
    );
    world.run(job, 0, flat(1, vec![vec![place(2)]]));
    world.ended(2, &["0/0/0"], &result("b"));
    let kept = world.scheduler.jobs[&job].kept_len_bytes;
    // A snapshot repeats what stands before it.
    world.records.extend(world.scheduler.snapshot());
    start_anew(&mut world);
    assert_eq!(world.driver(record(ANEW, "c")), [r#"driver <- results [b"a"]"#]);
    assert_eq!(world.scheduler.jobs[&job].kept_len_bytes, kept);
}

fn publishing(world: &World, job: JobId, attempt: u32) -> Request {
    let (secret, output) = (world.secret(job), DfsPath::parse("/out").unwrap());
    Request::Publishing { job, secret, attempt, action: ActionId(ScopeId::ROOT, 0), output }
}

fn published(world: &World, job: JobId, attempt: u32) -> Request {
    Request::Published { job, secret: world.secret(job), attempt, action: ActionId(ScopeId::ROOT, 0) }
}

#[test]
fn a_publication_is_on_the_disk_before_it_is_begun_and_before_it_is_over() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let early = published(&world, job, 0);
    assert!(world.driver(early)[0].starts_with("driver <- InvalidArgument: nothing was to be published"));
    let begin = publishing(&world, job, 0);
    assert_eq!(
        world.driver(begin.clone()),
        [
            "append 4: job-1 writes to /out",
            "append 5: job-1 publishes action-0 at /out",
            "driver <- Publication { published: false }, after record 5"
        ]
    );
    assert_eq!(world.driver(begin.clone()), ["driver <- Publication { published: false }"]);
    let end = published(&world, job, 0);
    let before = world.records.len();
    assert_eq!(world.driver(end.clone()), ["append 6: job-1 has published action-0", "driver <- done, after record 6"]);
    assert_eq!(world.driver(end), ["driver <- done"]);
    // Of two lives of the scheduler that end here, one knows of the end.
    let all = world.records.clone();
    for (records, over) in [(all[..before].to_vec(), false), (all, true), (world.scheduler.snapshot(), true)] {
        world.records = records;
        start_anew(&mut world);
        let again = publishing(&world, job, ANEW);
        assert_eq!(world.driver(again), [format!("driver <- Publication {{ published: {over} }}")]);
    }
    let secret = world.secret(job);
    let elsewhere = Request::Publishing {
        job,
        secret,
        attempt: ANEW,
        action: ActionId(ScopeId::ROOT, 0),
        output: DfsPath::parse("/other").unwrap(),
    };
    let shown = world.driver(elsewhere);
    assert!(shown[0].contains("an earlier run of the driver published /out under action-0, this run /other"));
}

#[test]
fn who_loses_the_race_for_an_output_hears_who_won_it() {
    let mut world = World::with_executors(1);
    let (first, second) = (world.start(1), world.start(2));
    for job in [first, second] {
        let begin = publishing(&world, job, 0);
        world.driver(begin);
    }
    let end = published(&world, second, 0);
    world.driver(end);
    let error = Some("/out/_temporary/job-1: no such directory".to_owned());
    let secret = world.secret(first);
    world.driver(Request::DriverEnd { job: first, secret, attempt: 0, error });
    let JobState::Failed { reason } = world.status(first).summary.state else { panic!("it failed") };
    let told = "job-2 has published at /out meanwhile, where this job would have; name another output, or delete that one \
                and submit the job again: /out/_temporary/job-1: no such directory";
    assert_eq!(reason, told);
    // Its own failure is not explained by it.
    let secret = world.secret(second);
    world.driver(Request::DriverEnd { job: second, secret, attempt: 0, error: Some("no".to_owned()) });
    assert_eq!(world.status(second).summary.state, JobState::Failed { reason: "no".to_owned() });
}

#[test]
fn the_secrets_of_jobs_stay_and_the_drivers_of_an_earlier_life_are_refused_by_their_numbers() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let before = world.secret(job);
    // The scheduler dies before it is on the disk that the driver was placed.
    let placed = world.records.pop();
    assert!(matches!(placed, Some(JobRecord::Driver { attempt: 0, .. })), "{placed:?}");
    start_anew(&mut world);
    assert_eq!(world.secret(job), before);
    assert_eq!(world.scheduler.jobs[&job].launch.secret, before);
    let late = world.driver(Request::DriverEnd { job, secret: before, attempt: 0, error: None });
    assert_eq!(late, ["driver <- LeaseLost: attempt 0 at the driver was given up: the process must end"]);
}

#[test]
fn outputs_that_a_done_action_used_must_be_the_same_in_the_next_life() {
    for (crc, same) in [(1, true), (2, false)] {
        let mut world = World::with_executors(2);
        let job = world.start(1);
        let maps = || vec![vec![place(2)], vec![place(2)]];
        world.run(job, 0, word_count(maps(), 1));
        world.ended(2, &["1/0/0", "1/1/0"], &mapped(1));
        for number in 1..=4 {
            world.ended(number, &["2/0/0"], &result("a"));
        }
        assert!(matches!(world.records.last(), Some(JobRecord::ActionDone { given, .. }) if given.len() == 1));
        start_anew(&mut world);
        let mut next = word_count(maps(), 1);
        next.name = "count".to_owned();
        next.stages[1].output =
            situ_wire::messages::scheduler::StageOutput::Result { action: ActionId(ScopeId::ROOT, 1) };
        assert_eq!(world.run(job, ANEW, next), ["n2 <- run 1/0/65536 Node, run 1/1/65536 Node"]);
        let mut outcome = mapped(1);
        if let TaskOutcome::Done(done) = &mut outcome {
            done.pieces[0].crc32c = crc;
        }
        world.ended(2, &["1/0/65536"], &mapped(1));
        world.ended(2, &["1/1/65536"], &outcome);
        match world.status(job).summary.state {
            JobState::Failed { reason } => {
                assert!(!same && reason.contains("did not give the same output"), "{reason}");
            }
            state => assert!(same, "{state:?}"),
        }
    }
}

#[test]
fn a_job_that_ended_has_no_records_left() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let begin = publishing(&world, job, 0);
    world.driver(begin);
    world.run(job, 0, flat(1, vec![vec![place(2)]]));
    world.ended(2, &["0/0/0"], &TaskOutcome::Failed(TaskFailure::PlanMismatch { message: "x".to_owned() }));
    let of = |record: &&JobRecord| matches!(record, JobRecord::Publishing { .. } | JobRecord::ActionDone { .. });
    assert_eq!(world.scheduler.snapshot().iter().filter(of).count(), 0);
    let stranger = Request::ActionResult {
        job,
        secret: world.secret(job),
        action: ActionId(ScopeId::ROOT, 1),
        within: Vec::new(),
        wait: false,
        results: true,
    };
    let shown = world.call("worker", Role::User, "n2", stranger);
    assert!(shown[0].starts_with("worker <- JobFailed"), "{shown:?}");
}

#[test]
fn a_job_is_remembered_with_all_that_its_submission_says_or_not_at_all() {
    let mut world = World::new();
    let options = JobOptions { task_limit_ms: Some(5), check_replay: true };
    world.user(Request::Submit {
        program: Program::BuiltIn { name: "wordcount".to_owned() },
        arguments: Vec::new(),
        operation: OperationId { client: ClientId(1), sequence: 1 },
        options,
        driver: DriverPlace::Attached,
    });
    let all = world.records.clone();
    let known = |kept: usize| {
        world.records = all[..kept].to_vec();
        world.restart();
        let job = world.scheduler.jobs.get(&JOB)?;
        let said = (job.launch.options, job.driver.kind());
        assert_eq!(said, (options, DriverPlace::Attached), "from {kept} of {} records", all.len());
        Some(JOB)
    };
    let known: Vec<Option<JobId>> = (0..=all.len()).map(known).collect();
    assert_eq!((known[0], known[all.len()]), (None, Some(JOB)));
}
