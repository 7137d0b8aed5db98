//! What stages say that their tasks need and do: resources, work that travels with the plan, actions that end in a shuffle.

use bytes::Bytes;
use situ_wire::codec;
use situ_wire::ids::{ActionId, ScopeId, StageId};
use situ_wire::messages::scheduler::{
    JobState, Payload, Plan, ReduceTotal, Request, Resources, TaskFailure, TaskOutcome, Work,
};

use super::world::{JOB, World, flat, mapped, place, result, started, word_count};

/// A stage of tasks without places, each of which needs so much.
fn needing(action: u32, tasks: usize, cores: u32, memory_mib: u64) -> Plan {
    let mut plan = flat(action, vec![Vec::new(); tasks]);
    plan.stages[0].resources = Resources { cores, memory_bytes: memory_mib << 20 };
    plan
}

/// One executor, polling, whose workers have 1 GiB.
fn one_executor(slots: u32) -> World {
    let mut world = World::new();
    world.join(1, slots);
    world.poll(1, Vec::new());
    world
}

/// Two executors, polling: n1 has 3 slots of which one is taken, n2 has 8 of which 4 are. The less busy one has less room.
fn unequal_room() -> World {
    let mut world = World::new();
    for (number, slots) in [(1, 3), (2, 8)] {
        world.join(number, slots);
        world.poll(number, Vec::new());
    }
    let small = world.start(1);
    let places = [1, 2, 2, 2, 2].map(|number| vec![place(number)]).to_vec();
    let shown = world.run(small, 0, flat(0, places));
    let taken = started(&mut world, shown);
    let on = |node: &str| taken.iter().filter(|task| task.starts_with(node)).count();
    assert_eq!((on("n1"), on("n2")), (1, 4), "{taken:?}");
    world
}

fn work(kind: &str, bytes: &'static [u8]) -> Work {
    let digest = *blake3::hash(bytes).as_bytes();
    Work { kind: kind.to_owned(), digest, payload: Payload::Inline(Bytes::from_static(bytes)) }
}

fn carried(bytes: &'static [u8]) -> Plan {
    let mut plan = flat(0, vec![Vec::new()]);
    plan.stages[0].work = Some(work("sql", bytes));
    plan
}

#[test]
fn a_large_task_goes_where_there_is_room_for_it() {
    for (cores, starts_at) in [(2, Some("n1")), (3, Some("n2")), (4, Some("n2")), (5, None)] {
        let mut world = unequal_room();
        let large = world.start(2);
        let shown = world.run(large, 0, needing(0, 1, cores, 0));
        let begun = started(&mut world, shown);
        let places: Vec<&str> = begun.iter().filter_map(|task| Some(task.split_once(' ')?.0)).collect();
        assert_eq!(places, Vec::from_iter(starts_at), "{cores} cores: {begun:?}");
    }
}

#[test]
fn a_task_takes_as_many_slots_as_it_needs_cores_or_memory() {
    for (cores, memory_mib) in [(3, 0), (1, 260), (2, 512)] {
        let mut world = one_executor(4);
        let (large, small) = (world.start(1), world.start(2));
        let mut shown = world.run(large, 0, needing(0, if cores == 3 { 1 } else { 2 }, cores, memory_mib));
        shown.extend(world.run(small, 0, needing(0, 1, 1, 0)));
        let shown = started(&mut world, shown);
        let both = cores == 2 || memory_mib > 0;
        let second = if both { "n1 0/1/0" } else { "n1 job-2:0/0/0" };
        assert_eq!(shown, ["n1 0/0/0", second], "{cores} {memory_mib}");
    }
}

#[test]
fn a_large_task_does_not_wait_for_ever_behind_small_ones() {
    let mut world = one_executor(2);
    let (small, large) = (world.start(1), world.start(2));
    let shown = world.run(small, 0, needing(0, 6, 1, 0));
    assert_eq!(started(&mut world, shown), ["n1 0/0/0", "n1 0/1/0"]);
    let shown = world.run(large, 0, needing(0, 1, 2, 0));
    assert_eq!(started(&mut world, shown), [""; 0]);
    let shown = world.ended(1, &["0/0/0"], &result("a"));
    assert_eq!(started(&mut world, shown), [""; 0], "its slot is kept");
    let shown = world.ended(1, &["0/1/0"], &result("a"));
    assert_eq!(started(&mut world, shown), ["n1 job-2:0/0/0"]);
    // What is kept for a job that ends is kept no more.
    let shown = world.user(Request::Kill { job: large, reason: "enough".to_owned() });
    assert_eq!(started(&mut world, shown), ["n1 0/2/0", "n1 0/3/0"]);
    let third = world.start(3);
    world.run(third, 0, needing(0, 1, 2, 0));
    let shown = world.ended(1, &["0/2/0"], &result("a"));
    assert_eq!(started(&mut world, shown), [""; 0]);
    let shown = world.user(Request::Kill { job: third, reason: "enough".to_owned() });
    assert_eq!(started(&mut world, shown), ["n1 0/4/0"]);
}

#[test]
fn a_stage_that_fits_takes_what_is_free_where_it_fits() {
    let mut world = World::new();
    world.join(1, 1);
    world.join(2, 4);
    for number in [1, 2] {
        world.poll(number, Vec::new());
    }
    let job = world.start(1);
    let shown = world.run(job, 0, needing(0, 3, 2, 0));
    assert_eq!(started(&mut world, shown), ["n2 0/0/0", "n2 0/1/0"]);
    let shown = world.ended(2, &["0/0/0"], &result("a"));
    assert_eq!(started(&mut world, shown), ["n2 0/2/0"]);
}

#[test]
fn what_no_executor_can_ever_hold_fails_and_says_what_there_is() {
    for (cores, memory_mib, needs) in [(5, 0, "5 cores, and no executor"), (1, 1025, "1 core and 1025 MiB")] {
        let mut world = one_executor(4);
        let job = world.start(1);
        world.run(job, 0, needing(0, 1, cores, memory_mib));
        let JobState::Failed { reason } = world.status(job).summary.state else { panic!("it failed") };
        assert!(reason.contains(needs) && reason.contains("4 slots and 1024 MiB"), "{reason}");
    }
    let mut world = one_executor(1);
    let job = world.start(1);
    let mut plan = needing(0, 1, 1, 0);
    plan.stages[0].resources.memory_bytes = (1 << 30) + 1;
    world.run(job, 0, plan);
    let JobState::Failed { reason } = world.status(job).summary.state else { panic!("it failed") };
    assert!(reason.contains("1 core and 1073741825 bytes"), "{reason}");
    assert!(reason.contains("1 slot and 1073741824 bytes"), "{reason}");
}

#[test]
fn work_travels_with_its_plan_once_and_tasks_are_told_its_kind_and_digest() {
    let mut world = one_executor(1);
    let job = world.start(1);
    world.run(job, 0, carried(b"select 1"));
    let kept = world.scheduler.jobs[&JOB].kept_len_bytes;
    assert!(kept >= b"select 1".len());
    let task = world.scheduler.executors.get(situ_wire::ids::ExecutorId(1)).unwrap().running.iter().next().copied();
    assert_eq!(task.map(|task| task.stage), Some(StageId(ScopeId::ROOT, 0)));
    let secret = world.secret(job);
    let ask = |stage| Request::StageWork { job, secret, stage: StageId(ScopeId::ROOT, stage) };
    let shown = world.driver(ask(0));
    assert!(shown[0].contains("kind: \"sql\"") && shown[0].contains("select 1"), "{shown:?}");
    assert_eq!(world.driver(ask(9)), ["driver <- StageWork(None)"]);
    // A driver that is started anew and asks for other work does not do the same.
    let shown = world.run(job, 0, carried(b"select 2"));
    assert!(
        shown.iter().any(|line| line.contains("stage-0 has other work in an earlier run of the driver")),
        "{shown:?}"
    );
}

#[test]
fn work_that_is_not_what_its_digest_says_is_refused() {
    let mut world = one_executor(1);
    let job = world.start(1);
    let mut plan = carried(b"select 1");
    plan.stages[0].work.as_mut().unwrap().digest = [0; 32];
    let shown = world.run(job, 0, plan).join(";");
    assert!(shown.contains("the work of stage-0 is not what its digest says"), "{shown}");
}

#[test]
fn a_kind_that_no_engine_runs_fails_the_job_at_once_and_is_named() {
    let mut world = one_executor(1);
    let job = world.start(1);
    world.run(job, 0, carried(b"select 1"));
    world.poll(1, Vec::new());
    let failure =
        TaskFailure::NoEngine { kind: "sql".to_owned(), known: vec!["words".to_owned(), "python".to_owned()] };
    world.ended(1, &["0/0/0"], &TaskOutcome::Failed(failure));
    let JobState::Failed { reason } = world.status(job).summary.state else { panic!("it failed") };
    assert!(reason.contains("an engine \"sql\"") && reason.contains("words, python"), "{reason}");
}

#[test]
fn an_action_that_ends_in_a_shuffle_gives_what_there_is_for_each_reducer_and_others_read_it() {
    let mut world = one_executor(2);
    let job = world.start(1);
    let whole = word_count(vec![Vec::new(); 2], 3);
    let mut filling = whole.clone();
    filling.stages.truncate(1);
    filling.nodes.truncate(2);
    let secret = world.secret(job);
    let fill = |action: u32| Request::RunAction {
        job,
        secret,
        attempt: 0,
        action: ActionId(ScopeId::ROOT, action),
        plan: Box::new(filling.clone()),
    };
    world.driver(fill(0));
    world.poll(1, Vec::new());
    let shown = world.ended(1, &["1/0/0", "1/1/0"], &mapped(3));
    let total: Bytes = codec::encode(&ReduceTotal { len_bytes: 20, records: 4 }).unwrap();
    let answer = format!("driver <- results {:?}, after record", vec![total; 3]);
    assert!(shown.iter().any(|line| line.starts_with(&answer)), "{shown:?}");
    // What is there is told at once, and is read by an action that comes later.
    assert!(world.driver(fill(1)).iter().any(|line| line.starts_with(&answer)));
    let mut reading = whole;
    reading.stages[1].output =
        situ_wire::messages::scheduler::StageOutput::Result { action: ActionId(ScopeId::ROOT, 2) };
    let shown = world.run(job, 0, reading);
    assert_eq!(started(&mut world, shown), ["n1 2/0/0", "n1 2/1/0"]);
}
