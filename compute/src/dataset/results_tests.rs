//! Results that are too long to go by way of the scheduler.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use situ_runtime::disk::Disk;
use situ_runtime::disk::memory::MemoryDisk;

use super::Context;
use super::replay_tests::only_directory;
use crate::program::error::ProgramResult;
use crate::program::rehearsal::Rehearsal;

/// The files of results below a directory, with what is in them.
fn result_files(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let results = only_directory(disk).join("results");
    let scopes = disk.list(&results).unwrap_or_default().into_iter().map(|entry| results.join(entry.name));
    scopes
        .flat_map(|scope| {
            let names = disk.list(&scope).unwrap().into_iter().map(|entry| entry.name);
            names.map(|name| scope.join(name)).collect::<Vec<_>>()
        })
        .map(|path| (path.clone(), disk.read(&path, 1 << 26).unwrap().to_vec()))
        .collect()
}

/// About 50 MB of records in 10 partitions, which differ.
fn many_records(context: &Context) -> super::Dataset<(u64, String)> {
    context.parallelize((0..10_000_u64).collect(), 10).map(|n| (n, format!("{n:05}").repeat(1_000)))
}

fn collect_all(context: &Context) -> ProgramResult {
    assert_eq!(many_records(context).collect()?.len(), 10_000);
    Ok(())
}

#[test]
fn large_results_are_files_and_the_same_for_the_driver_its_workers_and_who_comes_later() {
    let (ends, reads) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let begin = |context: &Context| -> ProgramResult {
        let records = many_records(context).collect()?;
        reads.fetch_add(1, Ordering::Relaxed);
        assert!((0..).zip(&records).all(|(n, record)| *record == (n, format!("{n:05}").repeat(1_000))));
        let streamed: Result<Vec<_>, _> = many_records(context).to_local_iterator().collect();
        assert!(streamed? == records);
        ends.lock().unwrap().push(records.len());
        Ok(())
    };
    let job = Rehearsal::new(2, false);
    job.run(begin).unwrap();
    let files = result_files(&job.disk);
    assert_eq!(files.len(), 20, "a file for each partition of the two");
    assert!(files.iter().all(|(_, bytes)| bytes.len() > 5_000_000));
    assert_eq!(*ends.lock().unwrap(), [10_000], "of the last one only the driver has a use");
    assert_eq!(reads.load(Ordering::Relaxed), 3, "the others were on the way to later tasks");
    // A driver that is started anew, and a worker that begins late, compute nothing again.
    let again = job.restarted();
    again.run(begin).unwrap();
    assert_eq!((ends.lock().unwrap().len(), reads.load(Ordering::Relaxed)), (2, 4), "and no task needs a worker");
    let longer = again.restarted();
    let program = |context: &Context| -> ProgramResult {
        begin(context)?;
        assert_eq!(context.parallelize(vec![1, 2], 2).count()?, 2);
        Ok(())
    };
    longer.run(program).unwrap();
    assert!(result_files(&longer.disk) == files);
    assert_eq!(*ends.lock().unwrap(), [10_000; 4], "the late worker has them, too");
}

#[test]
fn a_result_that_is_not_what_the_task_left_is_noticed() {
    let job = Rehearsal::new(1, false);
    job.run(collect_all).unwrap();
    let (path, bytes) = result_files(&job.disk).remove(3);
    let spoil = |bytes: &[u8], job: Rehearsal| {
        job.disk.write_atomically(&path, bytes).unwrap();
        let again = job.restarted();
        let error = again.run(collect_all).unwrap_err();
        (error, again)
    };
    let mut flipped = bytes.clone();
    flipped[1_000_000] ^= 1;
    let (error, job) = spoil(&flipped, job);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.starts_with("collect at results_tests.rs") && error.contains(name), "{error}");
    assert!(error.contains("its bytes are not those"), "{error}");
    let (error, job) = spoil(&bytes[..bytes.len() - 1], job);
    assert!(error.contains(name) && error.contains("are there"), "{error}");
    job.disk.write_atomically(&path, &bytes).unwrap();
    job.restarted().run(collect_all).unwrap();
}

#[test]
fn the_files_of_results_go_with_their_scope() {
    let job = Rehearsal::new(2, false);
    job.run(|context| {
        for _ in 0..3 {
            let first = context.scope("round", |context| Ok(many_records(context).collect()?[7].1.clone()))?;
            assert_eq!(first, "00007".repeat(1_000));
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(result_files(&job.disk).len(), 0);
    let outside = Rehearsal::new(1, false);
    outside.run(collect_all).unwrap();
    assert_eq!(result_files(&outside.disk).len(), 10);
}

#[test]
fn large_results_are_compared_by_the_check_and_written_once() {
    let job = Rehearsal::new(2, true);
    let result = job.run(|context| {
        assert_eq!(many_records(context).collect()?.len(), 10_000);
        // The order within a record is another each time.
        let sets = context.parallelize((0..100_u64).collect(), 2);
        let sets = sets.map(|n| (n * 1_000..(n + 1) * 1_000).map(|n| (n, n + 1)).collect::<HashMap<_, _>>());
        assert_eq!(sets.collect()?.iter().map(HashMap::len).sum::<usize>(), 100_000);
        Ok(())
    });
    result.unwrap();
    assert_eq!(result_files(&job.disk).len(), 12);
    let runs = AtomicU64::new(0);
    let error = Rehearsal::new(1, true).run(|context| {
        let run = runs.fetch_add(1, Ordering::Relaxed);
        many_records(context).map(move |(n, text)| (n + run, text)).collect()?;
        Ok(())
    });
    let error = error.unwrap_err();
    assert!(error.contains("was computed with two runs of the program"), "{error}");
}

#[test]
fn what_only_the_driver_uses_is_not_sent_to_workers() {
    let job = Rehearsal::new(2, false);
    job.run(|context| {
        let numbers = context.parallelize((0..10_u64).collect(), 2);
        numbers.for_each(drop)?;
        numbers.save_as_text_file("/out")?;
        Ok(())
    })
    .unwrap();
    assert_eq!(job.sent(), 0, "nothing but the values of the driver, which are no results");
    let job = Rehearsal::new(2, false);
    job.run(|context| {
        assert_eq!(context.parallelize((0..10_u64).collect(), 2).count()?, 10);
        Ok(())
    })
    .unwrap();
    assert!(job.sent() > 0);
}
