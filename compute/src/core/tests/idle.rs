//! What a job waits for of which nothing goes on.

use situ_wire::ids::{ClientId, ExecutorId, JobId, NodeName, OperationId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    DriverPlace, ExecutorEvent, Holding, JobOptions, Program, Request, Resources, TaskFailure, TaskOutcome, WaitReason,
    Waiting,
};
use situ_wire::time::TimeMs;

use super::world::{JOB, World, attempt, failed, fetch_failed, flat, mapped, place, word_count};
use crate::core::{Event, SchedulingPolicy};

fn policy() -> SchedulingPolicy {
    SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() }
}

fn waits(world: &mut World, job: JobId) -> Option<WaitReason> {
    world.status(job).waiting.map(|waiting| waiting.reason)
}

fn begins(node: &str, until: u64) -> WaitReason {
    WaitReason::DriverBegins { node: Some(NodeName(node.to_owned())), until: Some(TimeMs(until)) }
}

#[test]
fn a_job_waits_for_executors_a_place_its_driver_and_slots() {
    let mut world = World::with(SchedulingPolicy { drivers: 2, ..policy() });
    world.submit(1);
    let nobody = Waiting { reason: WaitReason::Executors { known: 0 }, since: Some(TimeMs(1_000)) };
    world.pass(500);
    assert_eq!(world.status(JOB).waiting, Some(nobody));
    world.join(1, 1);
    world.poll(1, Vec::new());
    assert_eq!(waits(&mut world, JOB), Some(begins("n1", 61_500)));
    let secret = world.secret(JOB);
    world.driver(Request::DriverBegin { job: JOB, secret, attempt: 0 });
    assert_eq!(waits(&mut world, JOB), Some(WaitReason::Driver));
    world.poll(1, Vec::new());
    world.run(JOB, 0, flat(0, vec![vec![], vec![]]));
    assert_eq!(world.status(JOB).waiting, None, "it runs");
    let second = world.start(2);
    world.run(second, 0, flat(0, vec![vec![]]));
    assert_eq!(waits(&mut world, second), Some(WaitReason::Slots { slots: 1, jobs: 1 }));
    world.submit(3);
    assert_eq!(waits(&mut world, JobId(3)), Some(WaitReason::DriverPlace { drivers: 2 }));
    world.event(Event::Disconnected { executor: ExecutorId(1) });
    world.pass(1_000);
    let known = WaitReason::Executors { known: 1 };
    assert_eq!(waits(&mut world, JOB), Some(known.clone()));
    assert_eq!(waits(&mut world, second), Some(known));
    world.user(Request::Kill { job: JOB, reason: "enough".to_owned() });
    assert_eq!(waits(&mut world, JOB), None, "it has ended");
}

#[test]
fn a_job_waits_for_the_driver_at_its_client() {
    let mut world = World::with_executors(1);
    let program = Program::BuiltIn { name: "wordcount".to_owned() };
    let operation = OperationId { client: ClientId(1), sequence: 1 };
    let (arguments, options) = (Vec::new(), JobOptions::default());
    world.user(Request::Submit { program, arguments, operation, options, driver: DriverPlace::Attached });
    let begins = WaitReason::DriverBegins { node: None, until: Some(TimeMs(31_000)) };
    assert_eq!(waits(&mut world, JOB), Some(begins));
    let secret = world.secret(JOB);
    world.driver(Request::DriverBegin { job: JOB, secret, attempt: 0 });
    assert_eq!(waits(&mut world, JOB), Some(WaitReason::Driver));
}

#[test]
fn a_job_waits_for_another_slot_than_those_where_its_tasks_failed() {
    let mut world = World::with(SchedulingPolicy { exclude_failures: 1, ..policy() });
    for number in 1..=2 {
        world.join(number, 1);
        world.poll(number, Vec::new());
    }
    let (other, job) = (world.start(1), world.start(2));
    world.live(&[1, 2], 50);
    assert_eq!(world.run(other, 0, flat(0, vec![vec![place(2)]])), ["n2 <- run 0/0/0 Node"]);
    assert_eq!(world.run(job, 0, flat(0, vec![vec![place(1)]])), ["n1 <- run job-2:0/0/0 Node"]);
    let attempt = TaskAttemptId { job, ..attempt("0/0/0") };
    world.poll(1, vec![ExecutorEvent::TaskEnded { attempt, outcome: failed("no") }]);
    let excluded = WaitReason::Excluded { executors: 1, until: TimeMs(world.now.0 + 60_000) };
    assert_eq!(waits(&mut world, job), Some(excluded));
}

#[test]
fn a_job_waits_for_a_file_system_that_is_away() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(2)]]));
    let away = TaskFailure::Storage { message: "the namenode is away".to_owned(), transient: true };
    world.ended(2, &["0/0/0"], &TaskOutcome::Failed(away));
    let file_system = WaitReason::FileSystem { since: TimeMs(1_000), until: TimeMs(2_000) };
    assert_eq!(world.status(job).waiting, Some(Waiting { reason: file_system, since: Some(TimeMs(1_000)) }));
    world.live(&[1, 2, 3, 4], 1_100);
    assert_eq!(waits(&mut world, job), None, "it is tried again");
}

#[test]
fn a_job_waits_for_lost_outputs() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, word_count(vec![vec![place(2)], vec![place(3)]], 1));
    world.ended(2, &["1/0/0"], &mapped(1));
    world.poll(1, Vec::new());
    let shown = world.ended(3, &["1/1/0"], &mapped(1));
    assert_eq!(shown.last().unwrap(), "n1 <- run 2/0/0 NoPreference");
    world.ended(1, &["2/0/0"], &fetch_failed("1/0/0"));
    assert_eq!(waits(&mut world, job), Some(WaitReason::LostOutputs { outputs: 1, until: None }));
    world.live(&[1, 2, 3, 4], 1_000);
    world.ended(2, &["1/0/1"], &mapped(1));
    assert_eq!(waits(&mut world, job), None, "what reads them runs");
}

#[test]
fn a_job_waits_for_an_executor_that_may_come_back_with_its_outputs() {
    let mut world = World::resuming(policy());
    for number in 1..=2 {
        world.join(number, 1);
        world.poll(number, vec![ExecutorEvent::Holds(Holding::Whole)]);
    }
    let job = world.start(1);
    world.run(job, 0, word_count(vec![vec![place(1)], vec![place(2)]], 1));
    world.ended(2, &["1/1/0"], &mapped(1));
    world.event(Event::Disconnected { executor: ExecutorId(2) });
    world.live(&[1], 1_000);
    world.ended(1, &["1/0/0"], &mapped(1));
    let gone = world.now;
    let Some(WaitReason::LostOutputs { outputs: 1, until: Some(until) }) = waits(&mut world, job) else {
        panic!("{:?}", world.status(job).waiting)
    };
    assert!(until > gone && until <= TimeMs(gone.0 + 2_000), "{until:?}");
    // The scheduler dies: what executors have is heard first.
    world.restart();
    assert_eq!(waits(&mut world, job), Some(WaitReason::Reports { until: TimeMs(gone.0 + 2_000) }));
}

#[test]
fn a_large_task_waits_for_room_or_for_an_executor_that_is_large_enough() {
    let mut world = World::with(policy());
    for (number, slots) in [(1, 1), (2, 4)] {
        world.join(number, slots);
        world.poll(number, Vec::new());
    }
    let small = world.start(1);
    world.run(small, 0, flat(0, vec![vec![]; 5]));
    let large = world.start(2);
    let mut plan = flat(0, vec![vec![]]);
    plan.stages[0].resources = Resources { cores: 3, memory_bytes: 1 << 20 };
    world.run(large, 0, plan.clone());
    let room = |node: Option<&str>| WaitReason::Room {
        cores: 3,
        memory_bytes: 1 << 20,
        node: node.map(|node| NodeName(node.to_owned())),
    };
    assert_eq!(waits(&mut world, large), Some(WaitReason::Slots { slots: 5, jobs: 1 }));
    let there = world.scheduler.executors.get(ExecutorId(2)).unwrap();
    let ended: Vec<TaskAttemptId> = there.running.iter().copied().take(2).collect();
    let event = |attempt| ExecutorEvent::TaskEnded { attempt, outcome: super::world::result("a") };
    world.poll(2, ended.into_iter().map(event).collect());
    assert_eq!(waits(&mut world, large), Some(room(Some("n2"))));
    world.user(Request::Kill { job: large, reason: "enough".to_owned() });
    world.user(Request::Kill { job: small, reason: "enough".to_owned() });
    world.live(&[1], 11_000);
    let third = world.start(3);
    world.run(third, 0, plan);
    assert_eq!(waits(&mut world, third), Some(room(None)), "a slot is free, and it will not do");
}
