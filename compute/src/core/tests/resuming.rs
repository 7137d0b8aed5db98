//! What executors report when they register is adopted, if it can be believed: after a restart of the scheduler, or of an
//! executor whose directory stays, no finished task runs again.

use bytes::Bytes;
use situ_wire::hello::Role;
use situ_wire::ids::{ActionId, DatasetId, ExecutorId, JobId, PartitionId, ScopeId, ShuffleId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{
    ExecutorEvent, Holding, JobState, Locality, Plan, Request, StageOutput, TaskDone, TaskOutcome, TaskSpec, TaskWork,
};

use super::world::{JOB, World, attempt, mapped, place, result, word_count};
use crate::core::{Event, JobRecord, SchedulingPolicy};

const SHUFFLE: StageOutput = StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, 2), reducers: 2 };
const RESULT: StageOutput = StageOutput::Result { action: ActionId(ScopeId::ROOT, 0) };

/// Four executors with one slot each, which have told that they have nothing.
fn world() -> World {
    let mut world = World::resuming(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() });
    for number in 1..=4 {
        world.join(number, 1);
        report(&mut world, number, Vec::new());
    }
    world
}

/// Two map tasks, whose input lies on n2 and n3, and two reducers.
fn plan() -> Plan {
    word_count(vec![vec![place(2)], vec![place(3)]], 2)
}

/// An executor tells all that it has, and polls until it is given nothing.
fn report(world: &mut World, number: u32, holdings: Vec<Holding>) -> Vec<String> {
    let holdings = holdings.into_iter().chain([Holding::Whole]);
    let mut shown = world.poll(number, holdings.map(ExecutorEvent::Holds).collect());
    shown.extend(world.poll(number, Vec::new()));
    shown.retain(|line| !line.ends_with("<- nothing to do"));
    shown
}

/// The same of one that comes back.
fn comes_back(world: &mut World, number: u32, mut holdings: Vec<Holding>) -> Vec<String> {
    world.join(number, 1);
    if !holdings.is_empty() {
        holdings.insert(0, Holding::Job(JOB));
    }
    report(world, number, holdings)
}

fn runs(text: &str, output: StageOutput) -> Holding {
    let (attempt, plan_digest, locality) = (attempt(text), plan().digest(), Locality::Node);
    Holding::Task(Box::new(TaskSpec {
        attempt,
        work: TaskWork::Replay { action: ActionId(ScopeId::ROOT, 0), plan_digest },
        output,
        locality,
        alone: false,
        slots: 1,
    }))
}

/// What a task has left; a map task pieces with these contents.
fn left(text: &str, output: StageOutput, crc32c: u32) -> Holding {
    let mut done = TaskDone::default();
    match output {
        StageOutput::Shuffle { reducers, .. } => {
            done.pieces = vec![ShufflePiece { len_bytes: 10, crc32c, records: 2 }; reducers as usize];
        }
        StageOutput::Result { .. } => done.result = Bytes::from_static(b"early"),
    }
    Holding::Left { attempt: attempt(text), output, done: Box::new(done) }
}

fn driver(attempt: u32) -> Holding {
    Holding::Driver { job: JOB, attempt }
}

/// The tasks that executors were told to run.
fn started(shown: &[String]) -> Vec<String> {
    let words = shown.iter().flat_map(|line| line.split(" <- ").nth(1).unwrap_or_default().split(", "));
    words.filter_map(|word| word.strip_prefix("run ")).map(|word| word.split(' ').next().unwrap().to_owned()).collect()
}

fn figures(world: &mut World) -> Vec<(u32, u32)> {
    world.status(JOB).stages.iter().map(|stage| (stage.done, stage.running)).collect()
}

/// The first map task is done on n2, the other one runs on n3.
fn in_the_middle() -> World {
    let mut world = world();
    let job = world.start(1);
    assert_eq!(started(&world.run(job, 0, plan())), ["1/0/0", "1/1/0"]);
    assert_eq!(world.ended(2, &["1/0/0"], &mapped(2)), Vec::<String>::new());
    world
}

#[test]
fn after_a_restart_of_the_scheduler_nothing_that_is_done_or_runs_is_started_again() {
    let mut world = in_the_middle();
    world.restart();
    let again = world.run(JOB, 0, plan());
    assert!(again[0].starts_with("driver <- Unavailable: the scheduler has just begun"), "{again:?}");
    let secret = world.secret(JOB);
    let reduce = (PartitionId(0), PartitionId(1));
    let outputs =
        Request::MapOutputs { job: JOB, secret, shuffle: ShuffleId(ScopeId::ROOT, 2), reduce, by: attempt("2/0/0") };
    let shown = world.call("worker", Role::User, "n2", outputs);
    assert!(shown[0].starts_with("worker <- Unavailable"), "{shown:?}");
    // The driver lives on n1.
    assert_eq!(comes_back(&mut world, 1, vec![driver(0)]), ["n1 <- "]);
    assert_eq!(world.run(JOB, 0, plan()), Vec::<String>::new());
    assert_eq!(world.status(JOB).summary.state, JobState::Running);
    comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1)]);
    comes_back(&mut world, 4, Vec::new());
    assert_eq!(figures(&mut world), [(1, 0), (0, 0)]);
    assert_eq!(started(&world.live(&[1, 2, 4], 1_000)), Vec::<String>::new(), "n3 may have it");
    comes_back(&mut world, 3, vec![runs("1/1/0", SHUFFLE)]);
    assert_eq!(figures(&mut world), [(1, 1), (0, 0)]);
    assert_eq!(started(&world.live(&[1, 2, 3, 4], 3_000)), Vec::<String>::new());
    let mut shown = world.ended(3, &["1/1/0"], &mapped(2));
    shown.extend(world.live(&[1, 2, 3, 4], 100));
    assert_eq!(started(&shown), ["2/0/65536", "2/1/65536"]);
}

#[test]
fn what_ends_before_the_driver_asks_again_counts() {
    let mut world = in_the_middle();
    world.restart();
    comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1)]);
    comes_back(&mut world, 3, vec![runs("1/1/0", SHUFFLE)]);
    assert_eq!(started(&world.ended(3, &["1/1/0"], &mapped(2))), Vec::<String>::new());
    comes_back(&mut world, 1, vec![driver(0)]);
    world.run(JOB, 0, plan());
    assert_eq!(figures(&mut world), [(2, 0), (0, 0)]);
}

#[test]
fn a_result_that_was_told_before_the_restart_completes_its_action() {
    let mut world = in_the_middle();
    world.ended(3, &["1/1/0"], &mapped(2));
    let has_all = |record: &JobRecord| matches!(record, JobRecord::Shuffled { .. });
    assert_eq!(world.records.iter().filter(|record| has_all(record)).count(), 1);
    world.restart();
    comes_back(&mut world, 1, vec![driver(0), left("2/1/0", RESULT, 0)]);
    comes_back(&mut world, 3, vec![left("1/1/0", SHUFFLE, 1), left("2/0/0", RESULT, 0)]);
    world.run(JOB, 0, plan());
    assert_eq!(figures(&mut world), [(1, 0), (0, 0)], "what they were made from may be another");
    let shown = comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1)]);
    let told = r#"driver <- results [b"early", b"early"]"#;
    assert!(shown.iter().any(|line| line.starts_with(told)), "{shown:?}");
}

#[test]
fn what_was_made_from_outputs_that_are_gone_counts_only_if_they_are_the_same_again() {
    for (crc32c, expected) in [(1, vec!["2/1/65536"]), (2, vec!["2/0/65536", "2/1/65536"])] {
        let mut world = in_the_middle();
        world.ended(3, &["1/1/0"], &mapped(2));
        world.restart();
        comes_back(&mut world, 1, vec![driver(0)]);
        comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1), left("2/0/0", RESULT, 0)]);
        world.run(JOB, 0, plan());
        // What was on n3 is gone.
        assert_eq!(started(&world.live(&[1, 2], 3_000)), ["1/1/65536"]);
        let mut outcome = mapped(2);
        if let TaskOutcome::Done(done) = &mut outcome {
            done.pieces[0].crc32c = crc32c;
        }
        let mut shown = world.ended(1, &["1/1/65536"], &outcome);
        shown.extend(world.ended(2, &["1/1/65536"], &outcome));
        shown.extend(world.live(&[1, 2], 500));
        assert_eq!(started(&shown), expected);
        let varies = world.records.iter().any(|record| matches!(record, JobRecord::Varies { .. }));
        assert_eq!(varies, crc32c == 2);
    }
}

#[test]
fn a_driver_that_its_node_does_not_report_is_started_anew() {
    let mut world = in_the_middle();
    world.restart();
    world.join(2, 1);
    assert_eq!(report(&mut world, 2, Vec::new()), Vec::<String>::new(), "it may be on n1");
    let shown = comes_back(&mut world, 1, Vec::new());
    assert!(shown.iter().any(|line| line.contains("drive job-1 100")), "{shown:?}");
    let late = world.run(JOB, 0, plan());
    assert!(late[0].starts_with("driver <- LeaseLost"), "{late:?}");
    // And if its node does not come back.
    let mut world = in_the_middle();
    world.restart();
    world.join(2, 1);
    report(&mut world, 2, Vec::new());
    let shown = world.live(&[2], 2_100);
    assert!(shown.iter().any(|line| line.contains("drive job-1 100")), "{shown:?}");
    let shown = comes_back(&mut world, 1, vec![driver(0)]);
    assert!(shown.iter().any(|line| line.contains("end driver job-1 0")), "{shown:?}");
}

#[test]
fn a_driver_that_has_lived_on_and_is_lost_is_followed_by_one_of_this_life() {
    let mut world = in_the_middle();
    world.restart();
    comes_back(&mut world, 1, vec![driver(0)]);
    let error = Some("signal 9".to_owned());
    let shown =
        world.poll(1, vec![ExecutorEvent::DriverEnded { job: JOB, attempt: 0, error, retry: true, away: false }]);
    assert!(shown.iter().any(|line| line.contains("driver 100 on n1")), "{shown:?}");
}

#[test]
fn an_executor_that_comes_back_with_its_directory_has_its_outputs_adopted() {
    let mut world = in_the_middle();
    assert_eq!(started(&comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1)])), Vec::<String>::new());
    assert_eq!(figures(&mut world)[0], (1, 1));
    assert_eq!(started(&world.live(&[1, 2, 3, 4], 3_000)), Vec::<String>::new());
    // If it has lost it, it is computed again.
    world.join(2, 1);
    assert_eq!(started(&report(&mut world, 2, Vec::new())), Vec::<String>::new());
    assert_eq!(started(&world.live(&[1, 2, 3, 4], 3_000)), ["1/0/1"]);
}

#[test]
fn an_executor_that_was_given_up_and_comes_back_gives_up_what_others_do() {
    let mut world = in_the_middle();
    // It is silent for so long that its task is given to another.
    assert_eq!(started(&world.live(&[1, 2, 4], 15_000)), ["1/1/1"]);
    let shown = comes_back(&mut world, 3, vec![runs("1/1/0", SHUFFLE)]);
    assert!(shown.iter().any(|line| line.contains("cancel 1/1/0")), "{shown:?}");
    assert_eq!(figures(&mut world)[0], (1, 1));
    // What it has done meanwhile counts.
    comes_back(&mut world, 3, vec![left("1/1/0", SHUFFLE, 1)]);
    assert_eq!(figures(&mut world)[0], (2, 0));
}

#[test]
fn what_cannot_be_is_not_adopted() {
    let mut world = in_the_middle();
    world.restart();
    let reducers = |reducers| StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, 2), reducers };
    let shown = comes_back(
        &mut world,
        2,
        vec![
            // Numbers that nobody has given yet, too few pieces, a partition that is none, another stage, another job.
            left("1/0/65536", SHUFFLE, 1),
            left("1/0/0", reducers(1), 1),
            left("1/7/0", SHUFFLE, 1),
            left("2/0/0", SHUFFLE, 1),
            runs("1/1/65537", SHUFFLE),
            Holding::Job(JobId(9)),
            Holding::Cached {
                attempt: attempt("1/0/0"),
                partitions: vec![(DatasetId(ScopeId::ROOT, 7), PartitionId(0)); 9],
            },
        ],
    );
    assert!(shown.iter().any(|line| line.contains("cancel 1/1/65537") && line.contains("end job-9")), "{shown:?}");
    comes_back(&mut world, 1, vec![driver(0)]);
    world.run(JOB, 0, plan());
    assert_eq!(figures(&mut world), [(0, 0), (0, 0)]);
    // More than there are slots.
    let shown = comes_back(&mut world, 3, vec![runs("1/1/0", SHUFFLE), runs("1/0/0", SHUFFLE)]);
    assert!(shown.iter().any(|line| line.contains("cancel 1/1/0")), "{shown:?}");
    assert_eq!(figures(&mut world), [(0, 1), (0, 0)]);
    let mut shown = world.live(&[1, 2, 3], 3_000);
    assert_eq!(started(&shown), ["1/1/65536"]);
    shown = world.ended(3, &["1/0/0"], &result("no map task"));
    assert!(!shown.is_empty());
}

#[test]
fn what_was_adopted_runs_again_when_what_it_was_made_from_differs_later() {
    let mut world = in_the_middle();
    world.ended(3, &["1/1/0"], &mapped(2));
    world.restart();
    comes_back(&mut world, 1, vec![driver(0)]);
    comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1), left("2/0/0", RESULT, 0)]);
    world.run(JOB, 0, plan());
    let mut ended = |text: &str, outcome: &TaskOutcome| {
        let mut shown = world.live(&[1, 2], 3_000);
        shown.extend(world.ended(1, &[text], outcome));
        shown.extend(world.ended(2, &[text], outcome));
        shown.extend(world.live(&[1, 2], 500));
        started(&shown)
    };
    // The same as before, so that the result counts; but then it is lost, and another one comes.
    assert_eq!(ended("1/1/65536", &mapped(2)), ["1/1/65536", "2/1/65536"]);
    assert_eq!(ended("2/1/65536", &super::world::fetch_failed("1/1/65536")), ["1/1/65537"]);
    let mut outcome = mapped(2);
    if let TaskOutcome::Done(done) = &mut outcome {
        done.pieces[0].crc32c = 2;
    }
    assert_eq!(ended("1/1/65537", &outcome), ["2/0/65536", "2/1/65537"]);
}

#[test]
fn an_output_that_comes_back_after_it_was_computed_again_takes_the_others_place_when_that_is_lost() {
    let mut world = in_the_middle();
    world.event(Event::Disconnected { executor: ExecutorId(2) });
    let shown = world.live(&[1, 3, 4], 3_100);
    assert_eq!(started(&shown), ["1/0/1"]);
    let on = shown.iter().find(|line| line.contains("run 1/0/1")).unwrap()[1..2].parse().unwrap();
    world.ended(on, &["1/0/1"], &mapped(2));
    comes_back(&mut world, 2, vec![left("1/0/0", SHUFFLE, 1)]);
    assert_eq!(figures(&mut world), [(1, 1), (0, 0)]);
    world.event(Event::Disconnected { executor: ExecutorId(on.into()) });
    let rest: Vec<u32> = (1..=4).filter(|number| *number != on).collect();
    assert_eq!(started(&world.live(&rest, 4_000)), Vec::<String>::new());
    assert_eq!(figures(&mut world), [(1, 1), (0, 0)]);
}
