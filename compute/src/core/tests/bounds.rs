//! What keeps a long job, many jobs and strangers from taking more and more.

use bytes::Bytes;
use situ_wire::hello::Role;
use situ_wire::ids::{
    ActionId, ClientId, DatasetId, JobId, OperationId, PartitionId, ScopeId, ShuffleId, StageId, TaskAttemptId,
};
use situ_wire::limits::{ATTEMPTS_PER_LIFE, MESSAGE_LEN_BYTES};
use situ_wire::messages::scheduler::{
    DriverPlace, ExecutorCommand, ExecutorEvent, JobOptions, Plan, Program, Request, Response, StageOutput, TaskDone,
    TaskFailure, TaskOutcome,
};

use super::world::{JOB, World, flat, mapped, place, whole, word_count};
use crate::core::SchedulingPolicy;
use crate::core::executor::Executor;
use crate::core::job::AttemptNumbers;

/// A round of a loop: word count through a shuffle of its own, whose reducers keep what they make in memory.
fn round(number: u32) -> Plan {
    let mut plan = word_count(vec![vec![place(1)], vec![place(2)]], 2);
    plan.stages[0].output = StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, number), reducers: 2 };
    plan.stages[1].reads = vec![ShuffleId(ScopeId::ROOT, number)];
    plan.stages[1].persisted = vec![whole(2, 2)];
    plan.stages[1].output = StageOutput::Result { action: ActionId(ScopeId::ROOT, number) };
    plan
}

/// How much is kept of the first job: stages, numbers of attempts, tasks, pieces, what is held, what is open.
fn counts(world: &World) -> [u64; 10] {
    let job = &world.scheduler.jobs[&JOB];
    [
        job.stages.len(),
        job.numbers.len(),
        usize::try_from(job.tasks).unwrap(),
        usize::try_from(job.pieces).unwrap(),
        job.cached.len(),
        job.attempts.len(),
        job.recoveries.open(),
        job.given.len(),
        job.released.len(),
        job.logs.len(),
    ]
    .map(|count| u64::try_from(count).unwrap())
}

/// Runs what the executors are told to run, to its end; one task of each round fails first.
fn run_all(world: &mut World, mut shown: Vec<String>) {
    while !shown.is_empty() {
        let mut next = Vec::new();
        for line in std::mem::take(&mut shown) {
            let Some((who, commands)) = line.split_once(" <- run ") else { continue };
            let number = who[1..].parse().unwrap();
            let mut events = Vec::new();
            for task in commands.split(", ") {
                let attempt = super::world::attempt(task.trim_start_matches("run ").split(' ').next().unwrap());
                let outcome = match (attempt.stage, attempt.partition) {
                    (StageId(ScopeId::ROOT, 1), PartitionId(0))
                        if world.scheduler.jobs[&JOB].recoveries.open() == 0 && next.is_empty() =>
                    {
                        TaskOutcome::Failed(TaskFailure::WorkerLost { reason: "gone".to_owned(), company: 1 })
                    }
                    (StageId(ScopeId::ROOT, 1), _) => mapped(2),
                    _ => TaskOutcome::Done(Box::new(TaskDone {
                        result: Bytes::from_static(b"r"),
                        cached: vec![
                            (DatasetId(ScopeId::ROOT, 2), attempt.partition),
                            (DatasetId(ScopeId::ROOT, 7), attempt.partition),
                        ],
                        ..TaskDone::default()
                    })),
                };
                events.push(ExecutorEvent::TaskEnded { attempt, outcome });
            }
            next.extend(world.poll(number, events));
        }
        next.extend((1..=4).flat_map(|number| world.poll(number, Vec::new())));
        shown = next;
        shown.retain(|line| line.contains(" <- run "));
    }
}

#[test]
fn a_job_of_5000_actions_that_releases_what_it_has_read_stays_as_small_as_one_of_few() {
    let mut world = World::with_executors(2);
    world.start(1);
    world.poll(1, Vec::new());
    let mut after_few = None;
    for number in 0..5_000 {
        let shown = world.run(JOB, 0, round(number));
        run_all(&mut world, shown);
        let secret = world.secret(JOB);
        let (shuffles, datasets) = (vec![ShuffleId(ScopeId::ROOT, number)], vec![DatasetId(ScopeId::ROOT, 2)]);
        let released = world.driver(Request::Release { job: JOB, secret, attempt: 0, shuffles, datasets });
        assert!(released.contains(&"driver <- done".to_owned()), "{released:?}");
        let released: Vec<String> = (1..=4).flat_map(|number| world.poll(number, Vec::new())).collect();
        assert!(!released.iter().any(|line| line.contains("run")), "{released:?}");
        if number == 300 {
            after_few = Some(counts(&world));
        }
    }
    assert_eq!(Some(counts(&world)), after_few);
    let job = &world.scheduler.jobs[&JOB];
    assert_eq!((job.actions.len(), job.planned.len(), job.stages.len()), (5_000, 256, 0));
    assert_eq!(job.planned_dropped, 10_000 - 256);
    assert!(job.kept_len_bytes < 5_000 * 300, "results alone stay: {}", job.kept_len_bytes);
    let status = world.status(JOB);
    assert_eq!((status.stages.len(), status.stages[255].done), (256, 2), "the figures of the newest are listed");
}

#[test]
fn what_an_action_under_way_may_need_goes_when_it_is_done() {
    let mut world = World::with_executors(2);
    world.start(1);
    world.poll(1, Vec::new());
    let shown = world.run(JOB, 0, round(1));
    let secret = world.secret(JOB);
    let release = || Request::Release {
        job: JOB,
        secret,
        attempt: 0,
        shuffles: vec![ShuffleId(ScopeId::ROOT, 1)],
        datasets: Vec::new(),
    };
    assert_eq!(world.driver(release()), ["driver <- done"]);
    assert_eq!(world.scheduler.jobs[&JOB].stages.len(), 2);
    run_all(&mut world, shown);
    let job = &world.scheduler.jobs[&JOB];
    assert_eq!((job.stages.len(), job.tasks, job.pieces), (0, 0, 0));
    // What was never planned is nowhere.
    assert_eq!(world.driver(release()), ["driver <- done"]);
    let stranger = Request::Release { job: JOB, secret, attempt: 1, shuffles: Vec::new(), datasets: Vec::new() };
    assert!(world.driver(stranger)[0].starts_with("driver <- LeaseLost"));
}

#[test]
fn what_is_released_makes_no_answer_too_long_for_a_message() {
    let mut world = World::with_executors(2);
    world.start(1);
    world.poll(1, Vec::new());
    let shown = world.run(JOB, 0, round(1));
    run_all(&mut world, shown);
    let secret = world.secret(JOB);
    let datasets = (0..3_000_000).map(|number| DatasetId(ScopeId::ROOT, number)).collect();
    let release = Request::Release { job: JOB, secret, attempt: 0, shuffles: Vec::new(), datasets };
    assert_eq!(world.driver(release), ["driver <- done"], "no executor needs to hear of datasets");
    // Whatever an executor is told, one answer holds no more of it than fits.
    let mut executor = Executor::new(super::world::registration(9, 1), "n9".to_owned(), world.now);
    for _ in 0..5 {
        let shuffles = (0..500_000).map(|number| ShuffleId(ScopeId::ROOT, u32::MAX - number)).collect();
        executor.push(ExecutorCommand::Release { job: JOB, shuffles });
    }
    let mut heard = 0;
    while executor.has_commands() {
        let (last, commands) = executor.commands();
        let answer = Response::Commands { last, commands };
        assert!(situ_wire::codec::encode(&answer).unwrap().len() < MESSAGE_LEN_BYTES / 2);
        assert!(last > heard, "it gets on");
        heard = last;
        executor.poll(last, world.now);
    }
    assert_eq!(heard, 5);
}

#[test]
fn attempts_are_numbered_on_when_a_stage_comes_back_and_few_numbers_are_kept() {
    let mut numbers = AttemptNumbers::default();
    let mut take = |stage: u32, life| {
        let number = numbers.take(life, StageId(ScopeId::ROOT, stage), PartitionId(0));
        (number, numbers.len())
    };
    assert_eq!([take(1, 0), take(1, 0), take(2, 0)], [(0, 1), (1, 1), (0, 2)]);
    numbers.forget(StageId(ScopeId::ROOT, 1));
    let mut take = |stage: u32, life| numbers.take(life, StageId(ScopeId::ROOT, stage), PartitionId(0));
    assert_eq!([take(2, 0), take(3, 0), take(1, 0)], [1, 0, 2]);
    let mut numbers = AttemptNumbers::default();
    for stage in 0..5_000 {
        assert_eq!(numbers.take(1, StageId(ScopeId::ROOT, stage), PartitionId(0)), ATTEMPTS_PER_LIFE);
        numbers.forget(StageId(ScopeId::ROOT, stage));
        assert_eq!(numbers.len(), 0);
    }
}

fn submit(world: &mut World, user: &str, sequence: u64, argument_len: usize) -> Vec<String> {
    let operation = OperationId { client: ClientId(7), sequence };
    let program = Program::BuiltIn { name: "wordcount".to_owned() };
    let arguments = vec!["x".repeat(argument_len)];
    world.call(
        user,
        Role::User,
        user,
        Request::Submit { program, arguments, operation, options: JobOptions::default(), driver: DriverPlace::Placed },
    )
}

#[test]
fn a_list_of_jobs_comes_in_pages() {
    let mut world = World::new();
    for sequence in 1..=9 {
        submit(&mut world, "ada", sequence, (1 << 20) - 1);
    }
    let mut page = |before| world.user(Request::List { before });
    let listed = |from: u64, to: u64| {
        let jobs: Vec<String> = (to..=from).rev().map(|job| format!("job-{job} Waiting")).collect();
        vec![format!("ada <- {}", jobs.join(", "))]
    };
    assert_eq!(page(None), listed(9, 7));
    assert_eq!(page(Some(JobId(7))), listed(6, 4));
    assert_eq!(page(Some(JobId(4))), listed(3, 1));
    assert_eq!(page(Some(JobId(1))), ["ada <- "]);
}

#[test]
fn one_user_does_not_take_the_room_of_all() {
    let mut world = World::with(SchedulingPolicy { user_jobs: 2, jobs: 4, ..SchedulingPolicy::default() });
    submit(&mut world, "ada", 1, 1);
    submit(&mut world, "ada", 2, 1);
    assert_eq!(
        submit(&mut world, "ada", 3, 1),
        ["ada <- Unavailable: 2 jobs of ada are unfinished, which is the most for one user; submit it later"]
    );
    assert!(submit(&mut world, "bob", 4, 1)[1].starts_with("bob <- job-3"));
}

#[test]
fn drivers_are_placed_user_by_user() {
    let mut world = World::with(SchedulingPolicy { drivers: 3, ..SchedulingPolicy::default() });
    for sequence in 1..=4 {
        submit(&mut world, "ada", sequence, 1);
    }
    submit(&mut world, "bob", 5, 1);
    submit(&mut world, "eve", 6, 1);
    let shown = world.join(1, 1);
    let placed: Vec<&str> = shown[1..].iter().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(placed, ["job-1", "job-5", "job-6"], "{shown:?}");
}

#[test]
fn what_an_executor_says_that_it_keeps_must_be_in_the_plan() {
    let mut world = World::with_executors(1);
    world.start(1);
    world.poll(1, Vec::new());
    let mut plan = flat(0, vec![vec![place(2)], vec![place(3)]]);
    plan.stages[0].persisted = vec![whole(0, 2)];
    world.run(JOB, 0, plan);
    world.poll(2, Vec::new());
    let attempt = TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, 0), partition: PartitionId(0), attempt: 0 };
    let kept = |dataset, partition| (DatasetId(ScopeId::ROOT, dataset), PartitionId(partition));
    let done = TaskDone { cached: vec![kept(0, 0), kept(0, 2), kept(1, 0)], ..TaskDone::default() };
    world.poll(2, vec![ExecutorEvent::TaskEnded { attempt, outcome: TaskOutcome::Done(Box::new(done)) }]);
    assert_eq!(world.scheduler.jobs[&JOB].cached.len(), 1);
}
