//! Executors whose memory holds fewer workers than they have slots.

use std::collections::BTreeMap;

use situ_wire::ids::{ActionId, DatasetId, ExecutorId, JobId, PartitionId, ScopeId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    ExecutorEvent, ExecutorRegistration, Holding, JobState, Locality, PartitionRange, PersistedInput, Plan, PlanNode,
    Request, Resources, StageOutput, TaskDone, TaskFailure, TaskOutcome, TaskSpec, TaskWork, WaitReason,
};

use super::world::{JOB, World, attempt, flat, registration, result, started};
use crate::core::SchedulingPolicy;
use crate::simulation::random::Random;

const SEEDS: u64 = 20;

/// Executors with so many slots, and memory for so many workers.
fn executors(of: &[(u32, u32)]) -> World {
    let mut world = World::new();
    for (number, (slots, workers)) in (1..).zip(of) {
        world.join_with(number, ExecutorRegistration { workers: *workers, ..registration(number, *slots) });
        world.poll(number, Vec::new());
    }
    world
}

/// A job with so many tasks of so many cores, and what of it is started.
fn with_tasks(world: &mut World, sequence: u64, tasks: usize, cores: u32) -> (JobId, Vec<String>) {
    let job = world.start(sequence);
    let mut plan = flat(0, vec![Vec::new(); tasks]);
    plan.stages[0].resources = Resources { cores, memory_bytes: 0 };
    let shown = world.run(job, 0, plan);
    (job, started(world, shown))
}

/// A task of a job, given as `stage/partition/attempt`, has ended; what is started then.
fn ended(world: &mut World, number: u32, job: JobId, task: &str, outcome: TaskOutcome) -> Vec<String> {
    let attempt = TaskAttemptId { job, ..attempt(task) };
    let shown = world.poll(number, vec![ExecutorEvent::TaskEnded { attempt, outcome }]);
    started(world, shown)
}

fn done(world: &mut World, number: u32, job: JobId, task: &str) -> Vec<String> {
    ended(world, number, job, task, result("a"))
}

/// Lets executors end what they run, each task after so many ms, for so long; how many tasks of each job they began, and
/// how often an executor began one of another job than before.
fn work(world: &mut World, executors: &[u32], task_ms: u64, for_ms: u64) -> (BTreeMap<JobId, usize>, usize) {
    let (mut began, mut switches) = (BTreeMap::new(), 0);
    let mut before: BTreeMap<u32, JobId> = BTreeMap::new();
    for _ in 0..for_ms / task_ms {
        for number in executors {
            let there = world.scheduler.executors.get(ExecutorId((*number).into())).unwrap();
            let running: Vec<TaskAttemptId> = there.running.iter().copied().collect();
            for attempt in &running {
                *began.entry(attempt.job).or_default() += 1;
                switches += usize::from(before.insert(*number, attempt.job).is_some_and(|job| job != attempt.job));
            }
            let ended = |attempt| ExecutorEvent::TaskEnded { attempt, outcome: result("a") };
            for attempt in running {
                world.poll(*number, vec![ended(attempt)]);
            }
        }
        world.live(executors, task_ms);
    }
    (began, switches)
}

#[test]
fn a_job_begins_only_where_its_worker_has_memory() {
    let mut world = executors(&[(2, 1)]);
    let (first, shown) = with_tasks(&mut world, 1, 1, 1);
    assert_eq!(shown, ["n1 0/0/0"]);
    let (second, shown) = with_tasks(&mut world, 2, 2, 1);
    assert_eq!(shown, [""; 0], "a slot is free, but no memory");
    let waiting = world.status(second).waiting.map(|waiting| waiting.reason);
    assert_eq!(waiting, Some(WaitReason::Memory { workers: 1, jobs: 1 }));
    assert_eq!(done(&mut world, 1, first, "0/0/0"), [""; 0], "the first may go on at once");
    // It does not: its worker makes room, though its job goes on.
    let shown = world.live(&[1], 3_000);
    assert_eq!(started(&mut world, shown), ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    assert_eq!(world.status(first).summary.state, JobState::Running);
}

/// An action over one partition of a persisted dataset.
fn over_kept(action: u32) -> Plan {
    let mut plan = flat(action, vec![Vec::new()]);
    let dataset = DatasetId(ScopeId::ROOT, 1);
    plan.nodes.push(PlanNode { id: dataset, name: "persist".to_owned(), partitions: 1, ..plan.nodes[0].clone() });
    let partitions = vec![PartitionRange { stage: 0, dataset: 0, count: 1 }];
    plan.stages[0].persisted = vec![PersistedInput { dataset, partitions }];
    plan
}

/// What a task leaves that keeps the partition.
fn kept() -> TaskOutcome {
    let cached = vec![(DatasetId(ScopeId::ROOT, 1), PartitionId(0))];
    TaskOutcome::Done(Box::new(TaskDone { cached, ..TaskDone::default() }))
}

#[test]
fn what_took_long_to_make_is_used_before_its_worker_makes_way() {
    let mut world = executors(&[(1, 1)]);
    let first = world.start(1);
    let shown = world.run(first, 0, over_kept(0));
    assert_eq!(started(&mut world, shown), ["n1 0/0/0"]);
    with_tasks(&mut world, 2, 1, 1);
    world.live(&[1], 10_000);
    assert_eq!(ended(&mut world, 1, first, "0/0/0", kept()), [""; 0]);
    // It uses it ten times, and what it makes by the way counts for nothing more.
    for action in 1..=10 {
        let shown = world.live(&[1], 2_900);
        assert_eq!(started(&mut world, shown), [""; 0], "action {action}");
        let task = format!("0/0/{action}");
        let shown = world.run(first, 0, over_kept(action));
        assert_eq!(started(&mut world, shown), [format!("n1 {task}")]);
        assert_eq!(ended(&mut world, 1, first, &task, kept()), [""; 0]);
    }
    let shown = world.live(&[1], 2_000);
    assert_eq!(started(&mut world, shown), ["n1 job-2:0/0/0"], "10 s to make it, 30 s to use it");
}

#[test]
fn a_job_that_always_has_tasks_leaves_an_executor_to_one_that_has_waited() {
    let mut world = executors(&[(2, 1), (2, 1)]);
    let (first, shown) = with_tasks(&mut world, 1, 100, 1);
    assert_eq!(shown, ["n2 0/1/0", "n2 0/3/0", "n1 0/0/0", "n1 0/2/0"]);
    let (second, shown) = with_tasks(&mut world, 2, 3, 1);
    assert_eq!(shown, [""; 0]);
    world.live(&[1, 2], 2_000);
    assert_eq!(done(&mut world, 1, first, "0/0/0"), ["n1 0/4/0"], "the other one has not waited for long");
    world.live(&[1, 2], 2_000);
    assert_eq!(done(&mut world, 1, first, "0/2/0"), [""; 0], "it leaves one of the two");
    assert_eq!(done(&mut world, 2, first, "0/1/0"), ["n2 0/5/0"], "and not the other one");
    assert_eq!(done(&mut world, 1, first, "0/4/0"), ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    assert_eq!(done(&mut world, 1, second, "0/0/0"), ["n1 job-2:0/2/0"]);
    assert_eq!(done(&mut world, 1, second, "0/1/0"), [""; 0], "two workers would not fit");
    assert_eq!(done(&mut world, 1, second, "0/2/0"), [""; 0], "the second may go on at once");
    let shown = world.live(&[1, 2], 3_000);
    assert_eq!(started(&mut world, shown), ["n1 0/6/0", "n1 0/7/0"]);
}

#[test]
fn nobody_leaves_for_a_job_that_has_ended_or_an_executor_that_is_gone() {
    let mut world = executors(&[(2, 1), (2, 1)]);
    let (first, _) = with_tasks(&mut world, 1, 100, 1);
    let (second, _) = with_tasks(&mut world, 2, 3, 1);
    world.live(&[1, 2], 4_000);
    assert_eq!(done(&mut world, 1, first, "0/0/0"), [""; 0]);
    let shown = world.user(Request::Kill { job: second, reason: "enough".to_owned() });
    assert_eq!(started(&mut world, shown), ["n1 0/4/0"]);
    let (third, _) = with_tasks(&mut world, 3, 3, 1);
    world.live(&[1, 2], 4_000);
    assert_eq!(done(&mut world, 1, first, "0/2/0"), [""; 0]);
    // The executor that was left dies: the other one is left then, as its tasks end.
    world.live(&[2], 11_000);
    assert_eq!(done(&mut world, 2, first, "0/1/0"), [""; 0]);
    assert_eq!(done(&mut world, 2, first, "0/3/0"), ["n2 job-3:0/0/0", "n2 job-3:0/1/0"]);
    assert_eq!(world.status(third).summary.state, JobState::Running);
}

#[test]
fn an_executor_that_is_left_belongs_to_whom_it_was_left() {
    let mut world = executors(&[(2, 1)]);
    let (first, _) = with_tasks(&mut world, 1, 100, 1);
    let (second, _) = with_tasks(&mut world, 2, 100, 1);
    world.live(&[1], 4_000);
    assert_eq!(done(&mut world, 1, first, "0/0/0"), [""; 0]);
    // The third has had nothing yet: it would come first.
    let (_, shown) = with_tasks(&mut world, 3, 100, 1);
    assert_eq!(shown, [""; 0]);
    assert_eq!(done(&mut world, 1, first, "0/1/0"), ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    let (began, _) = work(&mut world, &[1], 500, 60_000);
    assert!(began.len() == 3 && began.values().all(|tasks| *tasks > 40), "{began:?}");
    assert_eq!(world.status(second).summary.state, JobState::Running);
}

#[test]
fn large_tasks_are_not_waited_for_where_their_job_leaves() {
    let mut world = executors(&[(8, 1)]);
    with_tasks(&mut world, 1, 200, 3);
    with_tasks(&mut world, 2, 3, 1);
    let (began, _) = work(&mut world, &[1], 500, 20_000);
    assert!(began[&JobId(1)] > 10 && began[&JobId(2)] == 3, "{began:?}");
}

#[test]
fn memory_where_a_job_cannot_run_does_not_count() {
    let mut world = executors(&[(2, 2), (8, 1)]);
    let (_, shown) = with_tasks(&mut world, 1, 200, 3);
    assert_eq!(shown, ["n2 0/0/0", "n2 0/1/0"]);
    let (second, shown) = with_tasks(&mut world, 2, 1, 1);
    assert_eq!(shown, ["n1 job-2:0/0/0"]);
    let failed = TaskOutcome::Failed(TaskFailure::Program { message: "no".to_owned() });
    assert_eq!(ended(&mut world, 1, second, "0/0/0", failed), [""; 0], "it avoids where it failed");
    let (began, _) = work(&mut world, &[1, 2], 500, 20_000);
    assert_eq!(began[&JobId(2)], 1, "{began:?}");
}

#[test]
fn a_large_task_finds_room_and_memory_that_lie_apart() {
    let mut world = executors(&[(8, 2), (8, 1)]);
    let (third, _) = with_tasks(&mut world, 1, 1, 8);
    let on_first = world.scheduler.executors.get(ExecutorId(1)).unwrap().running.taken() > 0;
    let (_, shown) = with_tasks(&mut world, 2, 500, 1);
    assert_eq!(shown.len(), 8);
    with_tasks(&mut world, 3, 2, 4);
    // One task of the first job runs on and on.
    let busy = if on_first { [2] } else { [1] };
    let (began, _) = work(&mut world, &busy, 500, 20_000);
    assert_eq!(began[&JobId(3)], 2, "{began:?} {third}");
}

#[test]
fn jobs_do_not_take_turns_for_every_task() {
    let mut world = executors(&[(1, 1)]);
    with_tasks(&mut world, 1, 1_000, 1);
    with_tasks(&mut world, 2, 1_000, 1);
    let (began, switches) = work(&mut world, &[1], 100, 60_000);
    assert!((10..=21).contains(&switches), "{switches} in 60 s, each after 3 s");
    assert!(began.values().all(|tasks| *tasks > 200), "{began:?}");
}

#[test]
fn a_job_gets_workers_on_as_many_executors_as_others_have() {
    let mut world = executors(&[(2, 1); 4]);
    with_tasks(&mut world, 1, 2_000, 1);
    with_tasks(&mut world, 2, 2_000, 1);
    work(&mut world, &[1, 2, 3, 4], 100, 15_000);
    let has =
        |job| (1..=4).filter(|id| world.scheduler.executors.get(ExecutorId(*id)).unwrap().tasks_of(job) > 0).count();
    assert_eq!([has(JobId(1)), has(JobId(2))], [2, 2]);
    let (_, switches) = work(&mut world, &[1, 2, 3, 4], 100, 30_000);
    assert_eq!(switches, 0, "and then it is left at that");
}

#[test]
fn the_end_of_a_worker_that_made_room_is_no_failure() {
    let mut world = executors(&[(2, 1)]);
    let (first, _) = with_tasks(&mut world, 1, 3, 1);
    for _ in 0..10 {
        world.poll(1, vec![ExecutorEvent::WorkerEnded { job: first }]);
    }
    assert_eq!(done(&mut world, 1, JOB, "0/0/0"), ["n1 0/2/0"]);
    assert!(world.scheduler.jobs[&first].failures.is_empty());
}

#[test]
fn what_runs_over_a_restart_of_the_scheduler_keeps_its_memory() {
    let mut world = World::resuming(SchedulingPolicy { speculation: false, ..SchedulingPolicy::default() });
    let comes = |world: &mut World, holdings: Vec<Holding>| {
        world.join_with(1, ExecutorRegistration { workers: 1, ..registration(1, 2) });
        let holdings = holdings.into_iter().chain([Holding::Whole]);
        let shown = world.poll(1, holdings.map(ExecutorEvent::Holds).collect());
        started(world, shown)
    };
    comes(&mut world, Vec::new());
    let (first, shown) = with_tasks(&mut world, 1, 1, 1);
    assert_eq!(shown, ["n1 0/0/0"]);
    world.restart();
    let action = ActionId(ScopeId::ROOT, 0);
    let task = Box::new(TaskSpec {
        attempt: attempt("0/0/0"),
        work: TaskWork::Replay { action, plan_digest: flat(0, vec![Vec::new()]).digest() },
        output: StageOutput::Result { action },
        locality: Locality::Any,
        alone: false,
        slots: 1,
    });
    let driver = Holding::Driver { job: first, attempt: 0 };
    comes(&mut world, vec![Holding::Job(first), driver, Holding::Task(task)]);
    let (_, shown) = with_tasks(&mut world, 2, 1, 1);
    assert_eq!(shown, [""; 0], "no plan names the task yet, and it has its slot and its memory");
    world.live(&[1], 10_000);
    let there = world.scheduler.executors.get(ExecutorId(1)).unwrap();
    assert!(there.takes(first) && !there.takes(JobId(2)) && there.free() == 1);
}

#[test]
fn who_leaves_may_stay_when_the_other_gets_its_memory_from_somebody_else() {
    let mut world = executors(&[(5, 2)]);
    let (first, _) = with_tasks(&mut world, 1, 3, 1);
    let (second, shown) = with_tasks(&mut world, 2, 100, 1);
    assert_eq!(shown, ["n1 job-2:0/0/0", "n1 job-2:0/1/0"]);
    let (third, _) = with_tasks(&mut world, 3, 2, 1);
    world.live(&[1], 3_000);
    assert_eq!(done(&mut world, 1, second, "0/0/0"), [""; 0], "it leaves, for the third");
    assert_eq!(done(&mut world, 1, first, "0/0/0"), [""; 0]);
    assert_eq!(done(&mut world, 1, first, "0/1/0"), [""; 0]);
    let shown = done(&mut world, 1, first, "0/2/0");
    let of = |job: JobId| shown.iter().filter(|task| task.contains(&format!("{job}:"))).count();
    assert_eq!(
        (of(third), of(second)),
        (2, 2),
        "the first has nothing to start, so that all three slots are taken: {shown:?}"
    );
}

/// Whatever executors there are and whatever jobs want, none is kept out for ever.
#[test]
fn every_job_comes_to_its_turn() {
    for seed in 1..=SEEDS {
        let mut random = Random(seed);
        let mut pick = |from: u64, to: u64| u32::try_from(from + random.below(to - from + 1)).unwrap();
        let count = pick(1, 3);
        let shapes: Vec<(u32, u32)> = (0..count).map(|_| (pick(1, 8), pick(1, 3))).collect();
        let most = shapes.iter().map(|(slots, _)| *slots).max().unwrap_or(1);
        let mut world = executors(&shapes);
        let jobs: Vec<JobId> = (1..=u64::from(pick(2, 5)))
            .map(|job| with_tasks(&mut world, job, 100, pick(1, u64::from(most.min(3)))).0)
            .collect();
        let numbers: Vec<u32> = (1..=count).collect();
        let (began, _) = work(&mut world, &numbers, 2_000, 30_000);
        let missing: Vec<&JobId> = jobs.iter().filter(|job| !began.contains_key(*job)).collect();
        assert!(missing.is_empty(), "seed {seed}: {shapes:?}: {missing:?} have had nothing: {began:?}");
    }
}
