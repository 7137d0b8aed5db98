//! Programs that run in a driver and in workers: what must be the same there, and what is kept for how long.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use situ_runtime::disk::Disk;
use situ_runtime::disk::memory::MemoryDisk;

use super::Context;
use crate::program::error::ProgramResult;
use crate::program::local::{LocalOptions, StillClock, context};
use crate::program::rehearsal::Rehearsal;

/// The words of an input, a thousand different ones.
fn words() -> Vec<String> {
    (0..1_000).map(|n| format!("word {n}")).collect()
}

#[test]
fn records_in_the_order_of_a_hash_map_are_the_driver_s_everywhere() {
    for checked in [false, true] {
        let seen = Mutex::new(Vec::new());
        let result = Rehearsal::new(3, checked).run(|context| {
            let keys: HashMap<u64, ()> = (0..1_000).map(|n| (n, ())).collect();
            let distinct = context.parallelize(keys.into_keys().collect(), 6).distinct(3).count()?;
            seen.lock().unwrap().push(distinct);
            Ok(())
        });
        result.unwrap();
        assert!(seen.lock().unwrap().iter().all(|distinct| *distinct == 1_000), "{seen:?}");
    }
}

/// Numbers words by an index that is another one in each run of the program, unless `index` makes it the same.
fn number(context: &Context, index: HashMap<String, u64>) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(context.parallelize(words(), 6).map(move |word| index[&word]).distinct(3).count()?)
}

fn by_chance() -> HashMap<String, u64> {
    words().into_iter().collect::<HashSet<_>>().into_iter().zip(0..).collect()
}

#[test]
fn an_index_that_is_another_in_each_run_is_found_by_the_check() {
    let error = Rehearsal::new(3, true).run(|context| number(context, by_chance()).map(drop)).unwrap_err();
    assert!(error.contains("was computed with two runs of the program"), "{error}");
    assert!(error.contains("map at replay_tests.rs:"), "{error}");
    assert!(error.contains("distinct at replay_tests.rs") && error.contains("partition-0 of stage-"), "{error}");
}

#[test]
fn what_once_and_share_and_broadcast_give_is_the_driver_s_in_every_process() {
    let counts = Mutex::new(Vec::new());
    let once = AtomicU64::new(0);
    let program = |context: &Context| -> ProgramResult {
        let drawn = context.once(|| once.fetch_add(1, Ordering::Relaxed))?;
        assert_eq!(drawn, 0, "the driver alone computes it");
        let shared = number(context, context.share(by_chance())?)?;
        let index = context.broadcast(by_chance())?;
        let numbered = context.parallelize(words(), 6).map(move |word| index[&word]);
        let broadcast = numbered.distinct(3).count()?;
        counts.lock().unwrap().push((shared, broadcast));
        Ok(())
    };
    Rehearsal::new(3, true).run(program).unwrap();
    assert_eq!(once.load(Ordering::Relaxed), 1);
    assert!(counts.lock().unwrap().iter().all(|counts| *counts == (1_000, 1_000)), "{counts:?}");
}

#[test]
fn a_driver_that_is_started_anew_has_what_the_first_has_recorded() {
    let runs = AtomicU64::new(0);
    let program = |context: &Context| -> ProgramResult {
        // Another in each run, and as large as what goes by way of a file.
        let drawn = context.once(|| runs.fetch_add(1, Ordering::Relaxed))?;
        assert_eq!(drawn, 0);
        let index = context.broadcast(by_chance())?;
        let here: Vec<u64> = words().iter().map(|word| index[word]).collect();
        let there = context.parallelize(words(), 6).map(move |word| index[&word]).collect()?;
        assert_eq!(here, there, "the driver has the value that the workers have");
        Ok(())
    };
    let job = Rehearsal::new(2, false);
    job.run(program).unwrap();
    let again = job.restarted();
    again.run(program).unwrap();
    again.restarted().run(program).unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1, "what is recorded is not computed again");
}

#[test]
fn a_task_reads_its_partition_of_parallelize_and_no_more() {
    let numbers: Vec<u64> = (0..100_000).map(|n| n << 40).collect();
    let job = Rehearsal::new(1, false);
    let disk = job.disk.clone();
    let result = job.run(|context| {
        let records = context.parallelize(numbers.clone(), 100);
        if context.backend().driver_files().is_some() {
            // All but the index and the first partitions is gone.
            let path = only_directory(&disk).join("values/action-0-attempt-0");
            let bytes = disk.read(&path, 1 << 24).unwrap();
            disk.write_atomically(&path, &bytes[..bytes.len() / 2]).unwrap();
        }
        assert_eq!(records.take(1_000)?, numbers[..1_000]);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn honest_records_that_hold_a_hash_map_pass_the_check() {
    let result = Rehearsal::new(2, true).run(|context| {
        let pairs = context.parallelize((0..1_000_u64).collect(), 4).map(|n| (n % 7, HashSet::from([n])));
        let sets = pairs.reduce_by_key(|one, other| &one | &other, 3);
        let maps = sets.map(|(key, set)| set.into_iter().map(|n| (n, key)).collect::<HashMap<_, _>>());
        assert_eq!(maps.collect()?.iter().map(HashMap::len).sum::<usize>(), 1_000);
        Ok(())
    });
    result.unwrap();
}

/// The directory of the only job.
pub(super) fn only_directory(disk: &MemoryDisk) -> PathBuf {
    let jobs = Path::new("/r/files/.situ/jobs");
    let [job] = &disk.list(jobs).unwrap()[..] else { panic!("one job has a directory") };
    jobs.join(&job.name)
}

#[test]
fn large_values_go_by_way_of_a_file_that_is_checked() {
    let job = Rehearsal::new(2, false);
    let disk = job.disk.clone();
    let sums = Mutex::new(Vec::new());
    let numbers: Vec<u64> = (0..100_000).map(|n| n << 40).collect();
    let sum: u64 = numbers.iter().map(|n| n >> 40).sum();
    let run = |job: &Rehearsal| {
        job.run(|context| {
            let large = context.broadcast(numbers.clone())?;
            let records = context.parallelize(numbers.clone(), 5).map(move |n| large[(n >> 40) as usize] >> 40);
            let sum = records.reduce(|one, other| one + other)?;
            sums.lock().unwrap().push(sum);
            Ok(())
        })
    };
    run(&job).unwrap();
    assert!(sums.lock().unwrap().iter().all(|found| *found == Some(sum)));
    let directory = only_directory(&disk);
    let names: Vec<String> =
        disk.list(&directory.join("values")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["action-0-attempt-0", "action-1-attempt-0"]);
    let context = context(disk.clone(), StillClock, Path::new("/r"), LocalOptions::default());
    let name = directory.file_name().unwrap().to_str().unwrap();
    super::clean_up(context.backend().files(), &format!("/.situ/jobs/{name}").parse_path(), "job-1").unwrap();
    assert!(!disk.exists(&directory).unwrap());
    // Other bytes than the driver's are noticed.
    let job = Rehearsal::new(1, false);
    let disk = job.disk.clone();
    let result = job.run(|context| {
        let records = context.parallelize(numbers.clone(), 5);
        if context.backend().driver_files().is_some() {
            let path = directory.join("values/action-0-attempt-0");
            let mut bytes = disk.read(&path, 1 << 24).unwrap().to_vec();
            bytes[300_000] ^= 1;
            disk.write_atomically(&path, &bytes).unwrap();
        }
        records.count()?;
        Ok(())
    });
    let error = result.unwrap_err();
    assert!(error.contains("action-0-attempt-0") && error.contains("not those of the value"), "{error}");
}

trait ParsePath {
    fn parse_path(&self) -> situ_wire::path::DfsPath;
}

impl ParsePath for str {
    fn parse_path(&self) -> situ_wire::path::DfsPath {
        situ_wire::path::DfsPath::parse(self).unwrap()
    }
}

#[test]
fn a_graph_that_is_another_in_each_run_is_named() {
    let runs = AtomicU64::new(1);
    let error = Rehearsal::new(1, false).run(|context| {
        let partitions = u32::try_from(runs.fetch_add(1, Ordering::Relaxed)).unwrap();
        context.parallelize(vec![(1, 1)], 2).group_by_key(partitions).count()?;
        Ok(())
    });
    let error = error.unwrap_err();
    assert!(error.contains("\"group_by_key at replay_tests.rs") && error.contains("partitions"), "{error}");
}

#[test]
fn a_checked_job_writes_and_does_once() {
    let job = Rehearsal::new(2, true);
    let done = Arc::new(AtomicU64::new(0));
    let result = job.run(|context| {
        let done = Arc::clone(&done);
        let pairs = context.parallelize((0..100_u64).collect(), 4).map(|n| (n % 10, n));
        pairs.for_each(move |_| {
            done.fetch_add(1, Ordering::Relaxed);
        })?;
        pairs.reduce_by_key(|one, other| one + other, 2).persist().save_as_text_file("/out")?;
        Ok(())
    });
    result.unwrap();
    assert_eq!(done.load(Ordering::Relaxed), 100);
    let names = |path: &str| -> Vec<String> {
        job.disk.list(&Path::new("/r").join(path)).unwrap().into_iter().map(|entry| entry.name).collect()
    };
    assert_eq!(names("files/out"), ["_SUCCESS", "part-00000", "part-00001"]);
    for shuffle in names("work").iter().filter(|name| name.starts_with("shuffle")) {
        assert!(names(&format!("work/check/{shuffle}")).is_empty(), "what the check wrote is gone");
    }
    // A saved line that is another in each run is found too.
    let runs = AtomicU64::new(0);
    let error = Rehearsal::new(1, true).run(|context| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        context.parallelize(vec![1_u64], 1).map(move |n| n + run).save_as_text_file("/out")?;
        Ok(())
    });
    assert!(error.unwrap_err().contains("it wrote other bytes"));
}

#[test]
fn a_worker_goes_on_as_soon_as_the_result_is_there() {
    let (sender, receiver) = mpsc::channel();
    let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
    let result = Rehearsal::new(1, false).run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        for round in 0..5 {
            assert_eq!(numbers.count()?, 10);
            // The driver's own time between two actions: the worker takes it at the same time.
            if context.backend().driver_files().is_some() {
                let passed = receiver.lock().unwrap().recv_timeout(Duration::from_secs(30));
                assert_eq!(passed, Ok(round), "the worker stands still until a later task comes");
            } else {
                sender.lock().unwrap().send(round).unwrap();
            }
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn a_loop_of_actions_keeps_nothing() {
    const ROUNDS: u64 = 5_000;
    let captured: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
    let job = Rehearsal::new(2, false);
    let held = Arc::clone(&captured);
    let seen = job
        .run(|context| {
            let token = Arc::new(());
            let base = context.parallelize((0..8_u64).collect(), 2).persist();
            for round in 0..ROUNDS {
                let token_here = Arc::clone(&token);
                let step = base.map(move |n| {
                    let _ = &token_here;
                    (n % 2, n + round)
                });
                let kept = step.persist();
                let sums = kept.reduce_by_key(|one, other| one + other, 2).count()?;
                assert_eq!(sums, 2);
                drop((step, kept));
                held.lock().unwrap().insert(Arc::strong_count(&token));
            }
            Ok(())
        })
        .unwrap();
    assert!(seen.planned <= 8 && seen.kept <= 8, "{seen:?}");
    assert!(seen.shuffles <= 2, "{seen:?}");
    assert!(seen.datasets_released as u64 >= ROUNDS, "{seen:?}");
    assert_eq!(*captured.lock().unwrap(), BTreeSet::from([1]), "what a round has captured goes with it");
    assert_eq!((job.kept(), job.cached_bytes()), (0, 0));
}

#[test]
fn unpersist_gives_up_what_is_kept() {
    let computed = AtomicU64::new(0);
    let computed: &'static AtomicU64 = Box::leak(Box::new(computed));
    let disk = situ_runtime::disk::memory::MemoryDisk::default();
    let context = context(disk, StillClock, Path::new("/r"), LocalOptions::default());
    let dataset = context.parallelize((0..10_u64).collect(), 2).map(|n| {
        computed.fetch_add(1, Ordering::Relaxed);
        n
    });
    dataset.unpersist();
    let kept = dataset.persist();
    assert_eq!((kept.count().unwrap(), kept.count().unwrap()), (10, 10));
    assert_eq!(computed.load(Ordering::Relaxed), 10);
    kept.unpersist();
    kept.unpersist();
    assert_eq!((kept.count().unwrap(), kept.count().unwrap()), (10, 10));
    assert_eq!(computed.load(Ordering::Relaxed), 30);
}

#[test]
fn thousands_of_chained_operations_do_not_overflow() {
    let result = Rehearsal::new(1, false).run(|context| {
        let mut chain = context.parallelize((0..4_u64).collect(), 2);
        for _ in 0..4_000 {
            chain = chain.map(|n| n + 1);
        }
        assert_eq!(chain.collect()?, [4_000, 4_001, 4_002, 4_003]);
        Ok(())
    });
    result.unwrap();
}

#[test]
fn what_cannot_be_serialized_is_named_by_the_action() {
    /// Fails to serialize.
    #[derive(serde::Deserialize)]
    struct Stubborn;
    impl serde::Serialize for Stubborn {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }

    let disk = situ_runtime::disk::memory::MemoryDisk::default();
    let context = context(disk, StillClock, Path::new("/r"), LocalOptions::default());
    let error = context.parallelize(vec![Stubborn], 1).map(|_| 1).count().unwrap_err().to_string();
    assert!(error.starts_with("parallelize at replay_tests.rs") && error.contains("Stubborn"), "{error}");
    let error = context.share(Stubborn).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("share at replay_tests.rs") && error.contains("Stubborn"), "{error}");
    assert_eq!(context.parallelize(vec![1], 1).count(), Ok(1), "the context goes on");
}

/// Runs a program in a checked job that does more in its `worker`s than in its driver, or less; how that failed.
fn ends_otherwise(program: impl Fn(&Context, bool) -> ProgramResult + Sync) -> String {
    let run = |context: &Context| program(context, context.backend().driver_files().is_none());
    Rehearsal::new(1, true).run(run).unwrap_err()
}

#[test]
fn a_checked_program_ends_in_workers_where_it_ends_in_the_driver() {
    let count = |context: &Context| context.parallelize(vec![1, 2, 3], 2).count();
    let more = ends_otherwise(|context, worker| {
        count(context)?;
        if worker {
            count(context)?;
        }
        Ok(())
    });
    assert!(more.contains("the end, behind 0 scopes"), "{more}");
    let fewer = ends_otherwise(|context, worker| {
        count(context)?;
        if !worker {
            context.share(1)?;
        }
        Ok(())
    });
    assert!(fewer.contains("the program ended in this worker before action-3"), "{fewer}");
    let more_in_a_scope = ends_otherwise(|context, worker| {
        context.scope("part", |scope| if worker { Ok(count(scope)? + count(scope)?) } else { count(scope) })?;
        Ok(())
    });
    assert!(more_in_a_scope.contains("the end, behind 0 scopes"), "{more_in_a_scope}");
    let more_scopes = ends_otherwise(|context, worker| {
        for _ in 0..if worker { 3 } else { 2 } {
            context.scope("round", count)?;
        }
        Ok(())
    });
    assert!(more_scopes.contains("in which it never was in the driver"), "{more_scopes}");
    let empty_scopes = ends_otherwise(|context, worker| {
        count(context)?;
        for _ in 0..if worker { 3 } else { 2 } {
            context.scope("outer", |outer| outer.scope("inner", |_| Ok(())))?;
        }
        Ok(())
    });
    assert!(empty_scopes.contains("in which it never was in the driver"), "{empty_scopes}");
    let fewer_scopes = ends_otherwise(|context, worker| {
        for _ in 0..if worker { 1 } else { 2 } {
            context.scope("round", count)?;
        }
        Ok(())
    });
    assert!(fewer_scopes.contains("the program ended in this worker before action-"), "{fewer_scopes}");
    let fewer_empty_scopes = ends_otherwise(|context, worker| {
        count(context)?;
        for _ in 0..if worker { 1 } else { 2 } {
            context.scope("round", |_| Ok(()))?;
        }
        Ok(())
    });
    assert!(fewer_empty_scopes.contains("the end, behind 1 scopes"), "{fewer_empty_scopes}");
}

#[test]
fn a_checked_program_of_scopes_comes_to_the_same_end() {
    let seen = Rehearsal::new(2, true).run(|context| {
        for round in 0..20_u64 {
            let inner = context.scope("round", |round_of| {
                let sum = round_of.parallelize(vec![round, 1, 2], 3).reduce(|one, other| one + other)?;
                round_of.scope("inner", |inner| inner.share(sum))
            });
            assert_eq!(inner?, Some(round + 3));
        }
        std::thread::scope(|threads| {
            let parts = ["a", "b"].map(|name| threads.spawn(move || context.scope(name, |_| Ok(name.len()))));
            parts.into_iter().for_each(|part| assert_eq!(part.join().unwrap(), Ok(1)));
        });
        Ok(())
    });
    seen.unwrap();
}
