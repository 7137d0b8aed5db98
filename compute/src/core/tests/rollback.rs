//! Outputs that are not the same when they are computed again.

use situ_wire::ids::{ActionId, ExecutorId, PartitionId, ScopeId, ShuffleId};
use situ_wire::messages::scheduler::{JobState, Request, StageOutput, TaskOutcome};

use super::world::{JOB, World, attempt, fetch_failed, mapped, place, result, whole, word_count};
use crate::core::{Event, JobRecord};

/// What a map task leaves for two reducers, with these checksums.
fn pieces(crcs: [u32; 2]) -> TaskOutcome {
    let mut outcome = mapped(2);
    if let TaskOutcome::Done(done) = &mut outcome {
        done.pieces.iter_mut().zip(crcs).for_each(|(piece, crc)| piece.crc32c = crc);
    }
    outcome
}

/// A reducer asks where its input is.
fn reads(world: &mut World, reducer: u32, by: &str) -> Vec<String> {
    let (secret, reduce) = (world.secret(JOB), (PartitionId(reducer), PartitionId(reducer + 1)));
    world.driver(Request::MapOutputs {
        job: JOB,
        secret,
        shuffle: ShuffleId(ScopeId::ROOT, 2),
        reduce,
        by: attempt(by),
    })
}

/// Two map tasks, on n2 and n3, are done; the reducers run on n1 and n4 and have heard where their input is.
fn reducing(change: impl FnOnce(&mut situ_wire::messages::scheduler::Plan)) -> World {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    let mut plan = word_count(vec![vec![place(2)], vec![place(3)]], 2);
    change(&mut plan);
    assert_eq!(world.run(JOB, 0, plan), ["n2 <- run 1/0/0 Node", "n3 <- run 1/1/0 Node"]);
    world.poll(2, Vec::new());
    world.poll(3, Vec::new());
    world.ended(2, &["1/0/0"], &pieces([1, 1]));
    world.poll(2, Vec::new());
    assert_eq!(
        world.ended(3, &["1/1/0"], &pieces([1, 1])),
        ["n1 <- run 2/0/0 NoPreference", "n2 <- run 2/1/0 NoPreference"]
    );
    world.poll(1, Vec::new());
    world.poll(2, Vec::new());
    for (reducer, by) in [(0, "2/0/0"), (1, "2/1/0")] {
        assert!(reads(&mut world, reducer, by)[0].starts_with("driver <- outputs 1/0/0"));
    }
    world
}

/// n3 dies, with the output of the second map task. What is started again.
fn lose(world: &mut World) -> Vec<String> {
    world.event(Event::Disconnected { executor: ExecutorId(3) });
    world.live(&[1, 2, 4], 1_000)
}

#[test]
fn what_thousands_of_shuffles_of_one_action_held_is_all_in_the_journal() {
    let mut world = World::with_executors(1);
    world.start(1);
    let given: Vec<(ShuffleId, u64)> =
        (0..5_000).map(|number| (ShuffleId(ScopeId::ROOT, number), number.into())).collect();
    world.scheduler.jobs.get_mut(&JOB).unwrap().given.extend(given.iter().copied());
    let mut all = world.scheduler.record_given(JOB, given.clone());
    assert!(all.len() <= 2_000);
    let mut shown = world.poll(1, Vec::new());
    shown.retain(|line| line.ends_with("was given 2000 shuffles") || line.ends_with("was given 1000 shuffles"));
    assert_eq!(shown.len(), 2, "{shown:?}");
    let told = |records: &[JobRecord]| -> Vec<(ShuffleId, u64)> {
        let given = records.iter().filter_map(|record| match record {
            JobRecord::Given { given, .. } => Some(given.clone()),
            _ => None,
        });
        given.flatten().collect()
    };
    all.extend(told(&world.records));
    all.sort_unstable();
    assert_eq!(all, given);
    let mut again = told(&world.scheduler.snapshot());
    again.sort_unstable();
    assert_eq!(again, given);
}

#[test]
fn an_output_that_is_the_same_again_changes_nothing() {
    let mut world = reducing(|_| {});
    assert_eq!(lose(&mut world), ["n4 <- run 1/1/1 Rack"]);
    assert_eq!(world.ended(4, &["1/1/1"], &pieces([1, 1])), [""; 0]);
    world.ended(1, &["2/0/0"], &result("zero"));
    assert_eq!(
        world.ended(2, &["2/1/0"], &result("one")).last().unwrap(),
        r#"driver <- results [b"zero", b"one"], after record 4"#
    );
}

#[test]
fn whoever_has_read_a_piece_that_differs_runs_again_and_the_others_do_not() {
    let mut world = reducing(|_| {});
    world.ended(1, &["2/0/0"], &result("zero"));
    assert_eq!(lose(&mut world), ["n4 <- run 1/1/1 Rack"]);
    // It differs for the first reducer, which is done; the other goes on.
    assert_eq!(world.ended(4, &["1/1/1"], &pieces([2, 1])), ["n1 <- run 2/0/1 NoPreference"]);
    assert!(world.recoveries(JOB).contains(&"Superseded 2/0/0 on n1 by nothing yet".to_owned()));
    assert_eq!(world.ended(2, &["2/1/0"], &result("one")), [""; 0]);
    assert_eq!(
        world.ended(1, &["2/0/1"], &result("anew")).last().unwrap(),
        r#"driver <- results [b"anew", b"one"], after record 4"#
    );
}

#[test]
fn a_task_that_was_told_of_the_old_output_and_still_runs_is_given_up() {
    let mut world = reducing(|_| {});
    assert_eq!(lose(&mut world), ["n4 <- run 1/1/1 Rack"]);
    let shown = world.ended(4, &["1/1/1"], &pieces([1, 2]));
    assert!(shown.contains(&"n2 <- cancel 2/1/0".to_owned()), "{shown:?}");
    assert!(shown.contains(&"n4 <- run 2/1/1 NoPreference".to_owned()), "{shown:?}");
    // What it says now counts for nothing, nor may it read on.
    assert!(reads(&mut world, 1, "2/1/0")[0].starts_with("driver <- OutputsLost"));
    world.ended(2, &["2/1/0"], &result("old"));
    world.ended(1, &["2/0/0"], &result("zero"));
    assert_eq!(
        world.ended(4, &["2/1/1"], &result("new")).last().unwrap(),
        r#"driver <- results [b"zero", b"new"], after record 4"#
    );
}

#[test]
fn of_an_output_that_nobody_has_read_nothing_is_remembered() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    world.run(JOB, 0, word_count(vec![vec![place(2)], vec![place(3)]], 2));
    world.poll(3, Vec::new());
    world.ended(3, &["1/1/0"], &pieces([1, 1]));
    assert_eq!(lose(&mut world), ["n4 <- run 1/1/1 Rack"]);
    world.ended(4, &["1/1/1"], &pieces([2, 2]));
    assert!(!world.status(JOB).summary.state.is_final());
}

#[test]
fn what_was_fetched_in_vain_is_compared_too() {
    let mut world = reducing(|_| {});
    world.ended(1, &["2/0/0"], &result("zero"));
    let shown = world.ended(2, &["2/1/0"], &fetch_failed("1/1/0"));
    assert_eq!(shown, ["n3 <- run 1/1/1 Node"]);
    world.poll(3, Vec::new());
    let shown = world.ended(3, &["1/1/1"], &pieces([2, 1]));
    assert_eq!(shown.iter().filter(|line| line.contains("run 2/0/1") || line.contains("run 2/1/1")).count(), 2);
}

#[test]
fn a_job_whose_result_came_of_what_is_not_there_any_more_fails_and_says_why() {
    let mut world = reducing(|_| {});
    world.ended(1, &["2/0/0"], &result("zero"));
    world.ended(2, &["2/1/0"], &result("one"));
    lose(&mut world);
    let mut next = word_count(vec![vec![place(2)], vec![place(3)]], 2);
    next.name = "count".to_owned();
    next.stages[1].output = StageOutput::Result { action: ActionId(ScopeId::ROOT, 1) };
    let shown = world.run(JOB, 0, next);
    let number: u32 = shown.last().unwrap()[1..2].parse().unwrap();
    world.poll(number, Vec::new());
    world.ended(number, &["1/1/1"], &pieces([1, 2]));
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it failed") };
    assert_eq!(
        reason,
        "flat_map (stage-1, partition-1, for shuffle-2) did not give the same output when it was computed again, and a result \
         that the program has already was computed from what it was before: the program does not do the same each time it \
         runs. Sort what has no order of its own (a HashMap's entries) before it is used, use BTreeMap and BTreeSet \
         in records, and compute what varies (time, randomness) once in the driver, with once()"
    );
}

#[test]
fn what_is_kept_in_memory_cannot_be_rolled_back() {
    let mut world = reducing(|plan| plan.stages[1].persisted = vec![whole(2, 2)]);
    lose(&mut world);
    world.ended(4, &["1/1/1"], &pieces([1, 2]));
    let JobState::Failed { reason } = world.status(JOB).summary.state else { panic!("it failed") };
    assert!(reason.contains("reduce_by_key has read it and keeps in memory what it made of it"), "{reason}");
}
