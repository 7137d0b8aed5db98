use situ_wire::ids::{DatasetId, JobId, PartitionId, ScopeId, TaskAttemptId};
use situ_wire::messages::scheduler::{
    ExecutorEvent, JobState, PartitionRange, PersistedInput, Plan, PlanNode, Request, TaskDone, TaskLocation,
    TaskOutcome,
};

use super::world::{World, attempt, flat, mapped, place, result, word_count};
use crate::core::SchedulingPolicy;

#[test]
fn tasks_wait_for_a_slot_near_their_input() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    // Two tasks on n1, which has one slot: the second waits for it although three others are free.
    assert_eq!(world.run(job, 0, flat(0, vec![vec![place(1)], vec![place(1)]])), [""; 0]);
    assert_eq!(world.poll(1, Vec::new()), ["n1 <- run 0/0/0 Node"]);
    assert_eq!(world.live(&[1, 2, 3, 4], 250), [""; 0]);
    assert_eq!(world.ended(1, &["0/0/0"], &result("a")), ["n1 <- run 0/1/0 Node"]);
}

#[test]
fn tasks_that_waited_long_enough_go_further_away() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(1)]; 5]));
    assert_eq!(world.poll(1, Vec::new()), ["n1 <- run 0/0/0 Node"]);
    // 300 ms for a node, then 150 ms for a rack.
    assert_eq!(world.live(&[1, 2, 3, 4], 300), ["n2 <- run 0/1/0 Rack"]);
    assert_eq!(world.live(&[1, 2, 3, 4], 150), ["n3 <- run 0/2/0 Any", "n4 <- run 0/3/0 Any"]);
    // All slots are taken meanwhile. It has waited long enough all the same.
    assert_eq!(world.ended(3, &["0/2/0"], &result("a")), ["n3 <- run 0/4/0 Any"]);
}

#[test]
fn nothing_is_due_for_a_job_that_ended_while_it_waited_for_a_slot() {
    let mut world = World::with_executors(1);
    let (first, second) = (world.start(1), world.start(2));
    world.run(first, 0, flat(0, vec![vec![place(1)]]));
    world.run(second, 0, flat(0, vec![vec![place(1)]]));
    for number in 1..=4 {
        world.poll(number, Vec::new());
    }
    assert_eq!(world.live(&[1, 2, 3, 4], 100), [""; 0], "the second job waits for the slot of the first");
    world.user(Request::Kill { job: second, reason: "enough".to_owned() });
    world.live(&[1, 2, 3, 4], 1_000);
}

#[test]
fn slots_of_other_nodes_are_all_used_when_the_input_lies_on_one() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.run(job, 0, flat(0, vec![vec![place(1)]; 40]));
    world.poll(1, Vec::new());
    // Each task takes 100 ms: what n1 can do alone in the time that the others wait, and a fourth of the rest.
    let begun = world.now;
    let mut running: Vec<(u32, String)> = vec![(1, "0/0/0".to_owned())];
    let mut counts = [0; 5];
    while !running.is_empty() {
        let mut started = world.live(&[1, 2, 3, 4], 100);
        for (number, attempt) in std::mem::take(&mut running) {
            counts[usize::try_from(number).unwrap()] += 1;
            started.extend(world.ended(number, &[&attempt], &result("x")));
        }
        for line in started {
            if let Some((number, task)) = line[1..].split_once(" <- run ") {
                running.push((number.parse().unwrap(), task.split(' ').next().unwrap().to_owned()));
            }
        }
    }
    let took = world.now.since(begun).as_millis();
    assert_eq!(counts.iter().sum::<u32>(), 40);
    assert!(counts[2..].iter().all(|count| *count >= 8), "{counts:?}");
    assert!(took <= 1_500, "{took} ms, and 4000 on n1 alone: {counts:?}");
}

#[test]
fn a_task_whose_nodes_are_not_there_waits_for_nobody() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    let nowhere = TaskLocation { node: situ_wire::ids::NodeName("n9".to_owned()), ..place(4) };
    assert_eq!(
        world.run(job, 0, flat(0, vec![vec![nowhere], vec![place(2)]])),
        ["n2 <- run 0/1/0 Node", "n3 <- run 0/0/0 Rack"]
    );
}

#[test]
fn most_tasks_are_local_when_input_is_spread() {
    let mut world = World::with_executors(2);
    let job = world.start(1);
    let spread = |partition: u32| vec![place(1 + partition % 4), place(1 + (partition + 1) % 4)];
    world.poll(1, Vec::new());
    let mut shown = world.run(job, 0, flat(0, (0..40).map(spread).collect()));
    let mut done = 0;
    while done < 40 {
        let mut next = Vec::new();
        for line in shown {
            let Some((executor, tasks)) = line.split_once(" <- ") else { continue };
            let number = executor[1..].parse().unwrap_or(0);
            for task in tasks.split(", ").filter_map(|task| task.strip_prefix("run ")) {
                let (attempt, locality) = task.split_once(' ').unwrap();
                assert_eq!(locality, "Node");
                done += 1;
                next.extend(world.ended(number, &[attempt], &result("x")));
            }
        }
        shown = next;
        for number in 1..=4 {
            shown.extend(world.poll(number, Vec::new()));
        }
    }
    assert_eq!(world.status(job).stages[0].localities, [0, 40, 0, 0, 0]);
}

#[test]
fn jobs_share_slots_fairly() {
    let mut world = World::with_executors(2);
    let (first, second) = (world.start(1), world.start(2));
    world.run(first, 0, flat(0, vec![Vec::new(); 20]));
    assert_eq!(world.status(first).stages[0].running, 8);
    world.run(second, 0, flat(0, vec![Vec::new(); 20]));
    assert_eq!(world.status(second).stages[0].running, 0);
    // Whatever the first job frees goes to the second until both have the same.
    for (number, attempt) in [(1, "0/0/0"), (2, "0/1/0"), (3, "0/2/0"), (4, "0/3/0"), (1, "0/4/0"), (2, "0/5/0")] {
        world.ended(number, &[attempt], &result("x"));
    }
    assert_eq!((world.status(first).stages[0].running, world.status(second).stages[0].running), (4, 4));
}

#[test]
fn jobs_take_turns_when_there_are_more_of_them_than_slots() {
    const JOBS: u64 = 9;
    let mut world = World::with_executors(1);
    let mut started = Vec::new();
    for sequence in 1..=JOBS {
        let job = world.start(sequence);
        started.extend(world.run(job, 0, flat(0, vec![Vec::new(); 100])));
        for number in 1..=4 {
            started.extend(world.poll(number, Vec::new()));
        }
    }
    let mut done = std::collections::BTreeMap::<JobId, u32>::new();
    for _ in 0..45 {
        let lines = std::mem::take(&mut started);
        for (number, task) in lines.iter().filter_map(|line| line[1..].split_once(" <- run ")) {
            let (task, _) = task.split_once(' ').unwrap();
            let (job, task) = task.split_once(':').unwrap_or(("job-1", task));
            let job: JobId = job.parse().unwrap();
            *done.entry(job).or_default() += 1;
            let attempt = TaskAttemptId { job, ..attempt(task) };
            let number = number.parse().unwrap();
            started.extend(world.poll(number, vec![ExecutorEvent::TaskEnded { attempt, outcome: result("x") }]));
            started.extend(world.poll(number, Vec::new()));
        }
    }
    let counts: Vec<u32> = (1..=JOBS).map(|job| done.get(&JobId(job)).copied().unwrap_or(0)).collect();
    assert!(counts.iter().sum::<u32>() >= 150, "{counts:?}");
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    // The first had all slots until the second was there.
    assert!(most - least <= 6, "{counts:?}");
}

#[test]
fn drivers_of_too_many_jobs_wait() {
    let mut world = World::with(SchedulingPolicy { drivers: 2, ..SchedulingPolicy::default() });
    world.join(1, 1);
    for sequence in 1..=3 {
        world.submit(sequence);
    }
    assert_eq!(world.poll(1, Vec::new()), ["n1 <- drive job-1 0, drive job-2 0"]);
    let ended = ExecutorEvent::DriverEnded {
        job: JobId(1),
        attempt: 0,
        error: Some("no".to_owned()),
        retry: false,
        away: false,
    };
    let shown = world.poll(1, vec![ended]);
    assert!(shown.iter().any(|line| line.ends_with("drive job-3 0")), "{shown:?}");
}

#[test]
fn all_jobs_together_have_a_bounded_number_of_tasks() {
    let mut world = World::with(SchedulingPolicy { all_tasks: 9, ..SchedulingPolicy::default() });
    world.join(1, 1);
    world.poll(1, Vec::new());
    let (first, second) = (world.start(1), world.start(2));
    world.run(first, 0, flat(0, vec![Vec::new(); 5]));
    let shown = world.run(second, 0, flat(0, vec![Vec::new(); 5]));
    let told = "driver <- Unavailable: it would have 5 tasks beside the 5 of other jobs; at most 9 are planned at once";
    assert!(shown.iter().any(|line| line.starts_with(told)), "{shown:?}");
    assert_eq!(world.status(second).summary.state, JobState::Running, "it waits");
    let shown = world.run(first, 0, flat(1, vec![Vec::new(); 5]));
    assert!(!shown.iter().any(|line| line.contains("Unavailable")), "the oldest waits for nobody: {shown:?}");
    world.user(Request::Kill { job: first, reason: "enough".to_owned() });
    let shown = world.run(second, 0, flat(0, vec![Vec::new(); 5]));
    assert!(!shown.iter().any(|line| line.contains("Unavailable")), "{shown:?}");
    assert_eq!(world.status(second).stages[0].tasks, 5);
}

#[test]
fn a_slow_task_gets_a_second_attempt_and_the_first_to_end_counts() {
    let mut world = World::with(SchedulingPolicy { speculation_floor_ms: 1_000, ..SchedulingPolicy::default() });
    for number in 1..=2 {
        world.join(number, 2);
        world.poll(number, Vec::new());
    }
    let job = world.start(1);
    world.poll(1, Vec::new());
    world.run(job, 0, word_count(vec![Vec::new(); 4], 1));
    for number in 1..=2 {
        world.poll(number, Vec::new());
    }
    world.pass(100);
    assert_eq!(world.ended(1, &["1/0/0", "1/2/0"], &mapped(1)), [""; 0]);
    assert_eq!(world.ended(2, &["1/1/0"], &mapped(1)), [""; 0]);
    assert_eq!(world.live(&[1, 2], 850), [""; 0]);
    assert_eq!(world.live(&[1, 2], 50), ["n1 <- run 1/3/1 NoPreference"]);
    assert_eq!(world.ended(1, &["1/3/1"], &mapped(1)), ["n1 <- run 2/0/0 NoPreference", "n2 <- cancel 1/3/0"]);
    // The loser ends all the same: too late.
    assert_eq!(world.ended(2, &["1/3/0"], &mapped(1)), [""; 0]);
    let shown = world.ended(1, &["2/0/0"], &result("x"));
    assert_eq!(shown.last().unwrap(), r#"driver <- results [b"x"], after record 4"#);
}

/// The job's second action reads a union: its partitions 0 and 1 are others, 2 and 3 are those of a persisted dataset.
fn union_plan(action: u32) -> Plan {
    let mut plan = flat(action, vec![Vec::new(); 4]);
    let kept = PlanNode {
        id: DatasetId(ScopeId::ROOT, 1),
        name: "persist".to_owned(),
        partitions: 2,
        ..plan.nodes[0].clone()
    };
    plan.nodes.push(kept);
    let partitions = vec![PartitionRange { stage: 2, dataset: 0, count: 2 }];
    plan.stages[0].persisted = vec![PersistedInput { dataset: DatasetId(ScopeId::ROOT, 1), partitions }];
    plan
}

#[test]
fn persisted_partitions_are_found_behind_a_union() {
    let mut world = World::with_executors(1);
    let job = world.start(1);
    world.poll(1, Vec::new());
    let polls =
        |world: &mut World| -> Vec<String> { (1..=4).flat_map(|number| world.poll(number, Vec::new())).collect() };
    let mut begun = world.run(job, 0, union_plan(0));
    begun.extend(polls(&mut world));
    // Whoever has computed partitions 2 and 3 keeps what they read of the dataset.
    let kept = |partition| {
        let cached = vec![(DatasetId(ScopeId::ROOT, 1), PartitionId(partition))];
        TaskOutcome::Done(Box::new(TaskDone { cached, ..TaskDone::default() }))
    };
    let mut expected = Vec::new();
    for line in begun.iter().filter_map(|line| line.strip_prefix('n')) {
        let Some((number, task)) = line.split_once(" <- run ") else { continue };
        let (number, task): (u32, &str) = (number.parse().unwrap(), task.split(' ').next().unwrap());
        match task {
            "0/2/0" => drop(world.ended(number, &[task], &kept(0))),
            "0/3/0" => drop(world.ended(number, &[task], &kept(1))),
            _ => drop(world.ended(number, &[task], &result("x"))),
        }
        if ["0/2/0", "0/3/0"].contains(&task) {
            expected.push(format!("n{number} <- run {}1 Process", task.strip_suffix('0').unwrap()));
        }
    }
    assert_eq!(expected.len(), 2, "{begun:?}");
    let mut again = world.run(job, 0, union_plan(1));
    again.extend(polls(&mut world));
    for line in expected {
        assert!(again.contains(&line), "{line}: {again:?}");
    }
}
