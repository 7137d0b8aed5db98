//! Scopes: what ends with one, and who waits for that.

use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, JobId, PartitionId, ScopeId, ShuffleId, StageId};
use situ_wire::messages::scheduler::{ExecutorEvent, Holding, JobState, Request, StageOutput, TaskDone, TaskOutcome};

use super::world::{JOB, World, attempt, flat, mapped, moved, place, whole, word_count};
use crate::core::{JobRecord, SchedulingPolicy};

const SCOPE: ScopeId = ScopeId(5);

/// Tells that a task of a scope is done.
fn done(world: &mut World, scope: ScopeId, number: u32, of: &str, outcome: &TaskOutcome) -> Vec<String> {
    let mut attempt = attempt(of);
    attempt.stage = StageId(scope, attempt.stage.1);
    world.poll(number, vec![ExecutorEvent::TaskEnded { attempt, outcome: outcome.clone() }])
}

fn end(world: &World, within: &[ScopeId], outcome: &'static str) -> Request {
    let secret = world.secret(JOB);
    Request::EndScope { job: JOB, secret, attempt: 0, within: within.to_vec(), outcome: outcome.into() }
}

fn outcome(world: &World, within: &[ScopeId], wait: bool) -> Request {
    Request::ScopeOutcome { job: JOB, secret: world.secret(JOB), within: within.to_vec(), wait }
}

fn result_of(world: &World, action: ActionId, within: &[ScopeId]) -> Request {
    Request::ActionResult {
        job: JOB,
        secret: world.secret(JOB),
        action,
        within: within.to_vec(),
        wait: true,
        results: true,
    }
}

/// A round of word count within a scope, whose reducers keep what they make in memory; to its end.
fn round(world: &mut World, scope: ScopeId) {
    let mut plan = word_count(vec![vec![place(1)]], 1);
    plan.stages[1].persisted = vec![whole(2, 1)];
    let plan = moved(scope, plan);
    world.run(JOB, 0, plan);
    done(world, scope, 1, "1/0/0", &mapped(1));
    let cached = vec![(DatasetId(scope, 2), PartitionId(0))];
    let result = TaskDone { result: Bytes::from_static(b"r"), cached, ..TaskDone::default() };
    for number in 1..=4 {
        done(world, scope, number, "2/0/0", &TaskOutcome::Done(Box::new(result.clone())));
    }
}

#[test]
fn what_belongs_to_a_scope_goes_with_it() {
    let mut world = World::with_executors(1);
    world.start(1);
    let kept = |world: &World| {
        let job = &world.scheduler.jobs[&JOB];
        let numbers = [job.actions.len(), job.stages.len(), job.cached.len(), job.numbers.len(), job.scopes.len()];
        (numbers, job.tasks, job.pieces)
    };
    let mut len = None;
    for number in 1..=20 {
        // In a scope within one.
        let (outer, inner) = (ScopeId(1_000 + number), ScopeId(number));
        round(&mut world, inner);
        assert_eq!(kept(&world).0[..3], [1, 1, 1], "as long as it goes on");
        world.driver(end(&world, &[inner, outer], "inner"));
        let ended = usize::try_from(number).unwrap();
        assert_eq!(kept(&world), ([0, 0, 0, 0, ended], 0, 0), "the outer ones that ended before, and the inner one");
        world.driver(end(&world, &[outer], "outer"));
        assert_eq!(kept(&world), ([0, 0, 0, 0, ended], 0, 0), "the outer ones");
        len = len.max(Some(world.scheduler.jobs[&JOB].kept_len_bytes / ended));
    }
    assert!(len < Some(200), "{len:?}");
    let released = world.poll(1, Vec::new());
    assert!(released.iter().all(|line| !line.contains("shuffle-0000000000000001-")), "told before: {released:?}");
}

#[test]
fn who_waits_for_what_belongs_to_an_ended_scope_hears_of_its_end() {
    let mut world = World::with_executors(1);
    world.start(1);
    let (outer, around) = (ScopeId(6), [SCOPE, ScopeId(6)]);
    assert_eq!(world.driver(outcome(&world, &around, false)), ["driver <- unknown"]);
    assert_eq!(world.driver(outcome(&world, &around, true)), [""; 0]);
    let action = ActionId(SCOPE, 7);
    assert_eq!(world.driver(result_of(&world, action, &around)), [""; 0]);
    let told = r#"driver <- results [b"x"], after record 4"#;
    assert_eq!(
        world.driver(end(&world, &around, "x")),
        [
            "append 4: job-1 has ended scope-0000000000000005 in scope-0000000000000006",
            "driver <- its scope has ended, after record 4",
            told,
            told
        ]
    );
    // Asked once more; the first end counts.
    assert_eq!(world.driver(end(&world, &around, "y")), [r#"driver <- results [b"x"]"#]);
    assert_eq!(world.driver(outcome(&world, &around, true)), [r#"driver <- results [b"x"]"#]);
    assert_eq!(world.driver(result_of(&world, action, &around)), ["driver <- its scope has ended"]);
    // When the one around it has ended, who is still within hears of that.
    world.driver(end(&world, &[outer], "z"));
    assert_eq!(world.driver(outcome(&world, &around, true)), ["driver <- its scope has ended"]);
    assert_eq!(world.driver(result_of(&world, action, &around)), ["driver <- its scope has ended"]);
    let record = |action, value: &'static str| {
        let secret = world.secret(JOB);
        Request::Record { job: JOB, secret, attempt: 0, action, value: value.into() }
    };
    let record = record(ActionId(outer, 0), "v");
    assert_eq!(world.driver(record), ["driver <- its scope has ended"]);
    assert_eq!(world.run(JOB, 0, moved(outer, flat(1, vec![Vec::new()]))), ["driver <- its scope has ended"]);
}

#[test]
fn what_runs_in_a_scope_that_ends_is_given_up() {
    let mut world = World::with_executors(1);
    world.start(1);
    let shown = world.run(JOB, 0, moved(SCOPE, flat(0, vec![vec![place(2)]])));
    assert_eq!(shown.len(), 1, "{shown:?}");
    let shown = world.driver(end(&world, &[SCOPE], "x"));
    assert_eq!(world.poll(2, Vec::new()), ["n2 <- cancel 0/0/0"]);
    assert!(shown.contains(&"driver <- its scope has ended, after record 4".to_owned()), "{shown:?}");
    let job = &world.scheduler.jobs[&JOB];
    assert!(job.actions.is_empty() && job.under_way.is_empty() && job.stages.is_empty() && job.needed.is_empty());
}

#[test]
fn scopes_outlive_the_scheduler() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let root = ActionId(ScopeId::ROOT, 0);
    let record = |world: &World, action, value: &'static str| {
        let secret = world.secret(JobId(1));
        Request::Record { job: JobId(1), secret, attempt: 0, action, value: value.into() }
    };
    world.driver(record(&world, root, "root"));
    world.driver(record(&world, ActionId(SCOPE, 0), "within"));
    world.driver(record(&world, ActionId(ScopeId(8), 0), "open"));
    world.driver(end(&world, &[SCOPE], "x"));
    let len = world.scheduler.jobs[&job].kept_len_bytes;
    for records in [world.records.clone(), world.scheduler.snapshot()] {
        world.records = records;
        world.restart();
        let found = &world.scheduler.jobs[&job];
        let actions: Vec<ActionId> = found.actions.keys().copied().collect();
        assert_eq!(actions, [root, ActionId(ScopeId(8), 0)]);
        assert_eq!(found.kept_len_bytes, len);
        assert_eq!(world.driver(outcome(&world, &[SCOPE], false)), [r#"driver <- results [b"x"]"#]);
        assert_eq!(world.driver(outcome(&world, &[ScopeId(8)], false)), ["driver <- unknown"]);
    }
    let ended = world.records.iter().filter(|record| matches!(record, JobRecord::ScopeEnded { .. })).count();
    assert_eq!(ended, 1);
}

#[test]
fn what_scopes_return_is_bounded() {
    let mut world = World::with(SchedulingPolicy { actions: 3, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.start(1);
    let none = world.driver(end(&world, &[], "x"));
    assert!(none[0].contains("it names no scope"), "{none:?}");
    for (within, why) in [(vec![SCOPE, SCOPE], "a scope twice"), (vec![ScopeId::ROOT], "the whole program")] {
        let wrong = world.driver(end(&world, &within, "x"));
        assert!(wrong[0].contains(why), "{wrong:?}");
    }
    let deep: Vec<ScopeId> = (1..=65).map(ScopeId).collect();
    let deep = world.driver(end(&world, &deep, "x"));
    assert!(deep[0].contains("it names 65 scopes"), "{deep:?}");
    for number in 1..=3 {
        world.driver(end(&world, &[ScopeId(number)], "x"));
    }
    let shown = world.driver(end(&world, &[ScopeId(4)], "x"));
    assert!(shown.iter().any(|line| line.contains("4 actions and ended scopes; at most 3")), "{shown:?}");
    let shuffle = ShuffleId(SCOPE, 1);
    assert_eq!((shuffle.to_string().parse(), "shuffle-7".parse()), (Ok(shuffle), Ok(ShuffleId(ScopeId::ROOT, 7))));
}

#[test]
fn what_scopes_have_returned_is_named_where_it_is_too_much_and_goes_with_a_scope_around_them() {
    let mut world = World::with(SchedulingPolicy { results_len_bytes: 800, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.start(1);
    for number in 1..=15 {
        let outer = ScopeId(1000 + number / 4);
        world.driver(end(&world, &[ScopeId(number), outer, SCOPE], "what it returns"));
        if number % 4 == 3 {
            world.driver(end(&world, &[outer, SCOPE], "x"));
        }
        assert!(!world.status(JOB).summary.state.is_final(), "{number}");
    }
    let kept = world.scheduler.jobs[&JOB].kept_len_bytes;
    let ended = (200..300).find(|number| {
        world.driver(end(&world, &[ScopeId(*number)], "what it returns"));
        world.status(JOB).summary.state.is_final()
    });
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("{ended:?}") };
    let (outcome, rounds) = (100 + "what it returns".len(), usize::try_from(ended.unwrap() - 199).unwrap());
    let all = kept + rounds * outcome;
    assert!(reason.contains(&format!("would have {all} bytes of plans, results")), "{all}: {reason}");
    assert!(reason.contains(&format!("scopes have returned {all} of these bytes: return less")), "{all}: {reason}");
}

/// What an executor says that it has of a scope: the output of a map task, and a partition in memory.
fn left(scope: ScopeId) -> Vec<ExecutorEvent> {
    let (mut map, output) = (attempt("1/0/0"), StageOutput::Shuffle { shuffle: ShuffleId(scope, 2), reducers: 1 });
    map.stage.0 = scope;
    let TaskOutcome::Done(done) = mapped(1) else { panic!("it is done") };
    let partitions = vec![(DatasetId(scope, 2), PartitionId(0))];
    let left = Holding::Left { attempt: map, output, done };
    let all = [Holding::Job(JOB), left, Holding::Cached { attempt: map, partitions }, Holding::Whole];
    all.into_iter().map(ExecutorEvent::Holds).collect()
}

#[test]
fn what_executors_report_of_a_scope_that_has_ended_is_not_kept_but_goes_there_too() {
    let mut world = World::resuming(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.start(1);
    world.driver(end(&world, &[SCOPE], "x"));
    // Another life, so that the number of the attempt is one of an earlier one.
    world.restart();
    world.join(1, 1);
    let kept = |world: &World| world.scheduler.kept_of(JOB, SCOPE);
    let shown = world.poll(1, left(SCOPE));
    assert!(shown.iter().any(|line| line.contains("release [shuffle-0000000000000005-2]")), "{shown:?}");
    assert_eq!(kept(&world), None);
}

#[test]
fn what_was_reported_of_a_scope_and_never_planned_goes_with_it() {
    let mut world = World::resuming(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.start(1);
    world.restart();
    world.join(1, 1);
    let mut events = left(SCOPE);
    events.insert(1, ExecutorEvent::Holds(Holding::Driver { job: JOB, attempt: 0 }));
    world.poll(1, events);
    assert_eq!(world.scheduler.kept_of(JOB, SCOPE), Some("partitions in memory"));
    // All of its actions were done in the earlier life, and none is planned again.
    let end = end(&world, &[SCOPE], "x");
    let shown = world.driver(end);
    let told = world.poll(1, Vec::new());
    let release = "release [shuffle-0000000000000005-2]";
    assert!(shown.iter().chain(&told).any(|line| line.contains(release)), "{shown:?} {told:?}");
    assert_eq!(world.scheduler.kept_of(JOB, SCOPE), None);
}

#[test]
fn what_a_cancelled_task_leaves_after_its_shuffle_was_released_goes_too() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.run(JOB, 0, moved(SCOPE, word_count(vec![vec![place(2)]], 1)));
    world.driver(end(&world, &[SCOPE], "x"));
    world.poll(2, Vec::new());
    // It was done before it heard that it is given up.
    let shown = done(&mut world, SCOPE, 2, "1/0/0", &mapped(1));
    assert_eq!(shown, ["n2 <- release [shuffle-0000000000000005-2]"]);
}

#[test]
fn what_was_reported_of_a_shuffle_and_never_planned_goes_when_it_is_released() {
    let mut world = World::resuming(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.start(1);
    world.restart();
    world.join(1, 1);
    let mut events = left(ScopeId::ROOT);
    events.insert(1, ExecutorEvent::Holds(Holding::Driver { job: JOB, attempt: 0 }));
    world.poll(1, events);
    let (secret, shuffles) = (world.secret(JOB), vec![ShuffleId(ScopeId::ROOT, 2)]);
    let datasets = vec![DatasetId(ScopeId::ROOT, 2)];
    let shown = world.driver(Request::Release { job: JOB, secret, attempt: 0, shuffles, datasets });
    let told = world.poll(1, Vec::new());
    assert!(shown.iter().chain(&told).any(|line| line.contains("release [shuffle-2]")), "{shown:?} {told:?}");
    assert_eq!(world.scheduler.kept_of(JOB, ScopeId::ROOT), None);
}
