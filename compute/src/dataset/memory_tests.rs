//! What tasks make of their input depends on the input alone, and memory on the limits alone: the same jobs with little and
//! with much of it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use situ_runtime::disk::Disk;
use situ_runtime::disk::memory::MemoryDisk;

use super::Context;
use crate::program::local::{LocalOptions, StillClock, measured};
use crate::program::memory::MemoryManager;
use crate::text::Text;

const ROOT: &str = "/r";

fn with(task_memory_bytes: u64, cache_memory_bytes: u64) -> (MemoryDisk, Context, Arc<MemoryManager>) {
    let disk = MemoryDisk::default();
    let options = LocalOptions { block_len_bytes: 1 << 20, task_memory_bytes, cache_memory_bytes };
    let (context, memory) = measured(disk.clone(), StillClock, Path::new(ROOT), options);
    (disk, context, memory)
}

/// What the map tasks of all shuffles left, to the byte.
fn shuffle_files(disk: &MemoryDisk) -> BTreeMap<String, Vec<u8>> {
    let work = Path::new(ROOT).join("work");
    let mut files = BTreeMap::new();
    for directory in disk.list(&work).unwrap().into_iter().filter(|entry| entry.name.starts_with("shuffle-")) {
        for file in disk.list(&work.join(&directory.name)).unwrap() {
            let path = work.join(&directory.name).join(&file.name);
            files.insert(format!("{}/{}", directory.name, file.name), disk.read(&path, 1 << 30).unwrap().to_vec());
        }
    }
    files
}

/// Everything that a job leaves which gathers in every way.
#[derive(PartialEq, Debug)]
struct Left {
    files: BTreeMap<String, Vec<u8>>,
    /// Sums as bits: floating point numbers show in which order they were added.
    sums: Vec<(Text, u64)>,
    combined: Vec<(Text, Vec<u32>)>,
    groups: Vec<(Text, Vec<u32>)>,
    streamed: Vec<(Text, u64)>,
    distinct: Vec<Text>,
    joined: Vec<(Text, (u32, u32))>,
    sorted: Vec<(Text, u32)>,
}

fn leave(pairs: &[(u16, u32)], memory_bytes: u64) -> Left {
    let (disk, context, _) = with(memory_bytes, 0);
    let pairs: Vec<(Text, u32)> = pairs
        .iter()
        .map(|(key, value)| (Text::from(format!("{key} {}", "k".repeat(usize::from(key % 40)))), *value))
        .collect();
    let dataset = context.parallelize(pairs, 5);
    let float = |value: u32| f64::from(value) * 1.1_f64.powi((value % 300) as i32 - 150);
    let sums = dataset.map_values(float).reduce_by_key(|one, other| one + other, 3);
    let push = |list: &mut Vec<u32>, value| list.push(value);
    let combined = dataset.combine_by_key(|value| vec![value], push, |one, other| one.extend(other), 2);
    let streamed = dataset.map_groups(
        move |key, values| [(key.clone(), values.map(float).fold(0.0, |one, other| one + other).to_bits())],
        2,
    );
    let small = dataset.filter(|(_, value)| value % 16 == 0);
    Left {
        sums: sums.map_values(f64::to_bits).collect().unwrap(),
        combined: combined.collect().unwrap(),
        groups: dataset.group_by_key(2).collect().unwrap(),
        streamed: streamed.collect().unwrap(),
        distinct: dataset.map(|(key, _)| key).distinct(2).collect().unwrap(),
        joined: small.join(&dataset, 2).collect().unwrap(),
        sorted: dataset.sort_by_key(3).unwrap().collect().unwrap(),
        files: shuffle_files(&disk),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn what_a_task_leaves_depends_on_its_input_alone(
        pairs in proptest::collection::vec((0_u16..300, any::<u32>()), 0..3000),
        other in proptest::collection::vec((any::<u16>(), any::<u32>()), 1..50),
    ) {
        let expected = leave(&pairs, 256 << 20);
        for memory_bytes in [16 << 10, 64 << 10, 200 << 10, 1 << 20] {
            prop_assert_eq!(&leave(&pairs, memory_bytes), &expected, "{} bytes", memory_bytes);
            // The next one finds what this one leaves to the thread.
            leave(&other, 1 << 20);
        }
        let shared = pairs.clone();
        let elsewhere = std::thread::spawn(move || leave(&shared, 32 << 10)).join().unwrap();
        prop_assert_eq!(&elsewhere, &expected, "on another thread");
    }
}

#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Noted {
    value: u32,
    #[serde(skip)]
    note: u32,
}

#[test]
fn what_records_do_not_serialize_does_not_depend_on_memory() {
    let run = |memory_bytes| {
        let (_, context, _) = with(memory_bytes, 0);
        let noted = context.parallelize((1..3000_u32).collect(), 1).map(|n| Noted { value: n * 7919 % 3000, note: n });
        let sorted = noted.sort_within_partitions().map(|record| (record.value, record.note)).collect().unwrap();
        let sum = |one: Noted, other: Noted| Noted { value: one.value + other.value, note: one.value + 1 };
        let sums = noted.map(|record| (record.value % 700, record)).reduce_by_key(sum, 2);
        (sorted, sums.map(|(key, sum)| (key, sum.value, sum.note)).collect().unwrap())
    };
    let roomy = run(64 << 20);
    assert_eq!(roomy, run(1 << 10), "with little memory");
    assert!(roomy.0.iter().all(|record| record.1 == 0) && roomy.1.iter().all(|sum| sum.2 == 0), "it is skipped");
}

#[test]
fn groups_that_move_in_parts_come_back_whole() {
    let run = |memory_bytes| {
        let (_, context, memory) = with(memory_bytes, 0);
        let pages = context.parallelize((0..120_u32).collect(), 3).map(|n| (n % 3, (n, page(n * 100 + 99))));
        let groups = pages.group_by_key(1);
        // Needs memory while the groups are given on.
        let sorted = groups.flat_map(|(key, values)| values.into_iter().map(move |value| (key, value)));
        let sorted = sorted.sort_within_partitions().map(|(key, (n, page))| (key, n, page.len()));
        (groups.map_values(|values| values.len()).collect().unwrap(), sorted.collect().unwrap(), memory.peak_bytes())
    };
    let (lengths, sorted, peak_bytes) = run(8 << 20);
    let (expected_lengths, expected, _) = run(256 << 20);
    assert!(lengths == expected_lengths && sorted == expected);
    assert!(peak_bytes <= 16 << 20, "{peak_bytes}");
}

#[test]
fn a_state_that_cannot_be_written_in_parts_must_fit_three_times() {
    let (_, context, _) = with(8 << 20, 0);
    let pages = context.parallelize((0..120_u32).collect(), 3).map(|n| (n % 2, page(n * 100 + 99)));
    let add = |all: &mut String, page: String| all.push_str(&page);
    let joined = pages.combine_by_key(|page| page, add, |one, other| one.push_str(&other), 1);
    let error = joined.count().unwrap_err().to_string();
    assert!(error.contains("the values of one key take over") && error.contains("worker_memory_bytes"), "{error}");
}

#[test]
fn a_combining_table_that_fills_again_and_again_leaves_the_same() {
    let run = |memory_bytes| {
        let (disk, context, _) = with(memory_bytes, 0);
        let numbers = context.parallelize(vec![250_000_u64], 1).flat_map(|end| (0..end).chain(0..end));
        let sums = numbers.map(|n| (n, 1.0 / (n as f64 + 1.0))).reduce_by_key(|one, other| one + other, 2);
        let sums: Vec<(u64, u64)> = sums.map_values(f64::to_bits).collect().unwrap();
        (sums, shuffle_files(&disk))
    };
    let expected = run(256 << 20);
    assert_eq!(expected.0.len(), 250_000);
    assert!(run(1 << 20) == expected, "with little memory");
    assert!(run(256 << 20) == expected, "in the memory that a task left");
    assert!(std::thread::spawn(move || run(8 << 20)).join().unwrap() == expected, "on another thread");
}

/// A page: of 1 % of them 100 KB, else 100 bytes.
fn page(number: u32) -> String {
    let len = if number % 100 == 99 { 100_000 } else { 100 };
    format!("{number:08}").chars().rev().cycle().take(len).collect()
}

#[test]
fn a_sort_of_which_a_few_records_are_large_spills() {
    const LIMIT: u64 = 4 << 20;
    let (_, context, memory) = with(LIMIT, 0);
    let pages = context.parallelize((0..20_000_u32).collect(), 1).map(|number| (page(number), number));
    let sorted = pages.sort_within_partitions().map(|(page, number)| (page.len(), number)).collect().unwrap();
    let mut expected: Vec<(String, u32)> = (0..20_000).map(|number| (page(number), number)).collect();
    expected.sort();
    assert_eq!(sorted, expected.into_iter().map(|(page, number)| (page.len(), number)).collect::<Vec<_>>());
    // One large record more than there was room for, and what the runs take while they are merged.
    assert!(memory.peak_bytes() <= 2 * LIMIT + (9 << 20), "{} bytes", memory.peak_bytes());
}

#[test]
fn more_runs_than_are_merged_at_once_stay_in_order() {
    let (_, context, _) = with(1 << 10, 0);
    let pairs: Vec<(u32, u32)> = (0..40_000).map(|n| (n * 7919 % 97, n)).collect();
    let mut expected = pairs.clone();
    expected.sort_by_key(|pair| pair.0);
    assert_eq!(context.parallelize(pairs, 1).sort_by_key(1).unwrap().collect().unwrap(), expected);
}

#[test]
fn the_operators_of_a_stage_share_what_the_task_has() {
    const LIMIT: u64 = 8 << 20;
    let (_, context, memory) = with(LIMIT, 0);
    let numbers = context.parallelize((0..150_000_u64).collect(), 1);
    // Three operators in one stage, each of which alone would take all there is.
    let sums = numbers.map(|n| (n, [n; 4])).reduce_by_key(|one, _| one, 1);
    let sorted = sums.map(|(n, list)| (u64::MAX - n, list)).sort_within_partitions();
    let again = sorted.map(|(n, list)| (n % 1_000_003, list)).sort_within_partitions();
    assert_eq!(again.count().unwrap(), 150_000);
    assert!(memory.peak_bytes() <= LIMIT + (24 << 20), "{} bytes", memory.peak_bytes());
}

#[test]
fn the_values_of_a_key_may_be_more_than_memory() {
    const LIMIT: u64 = 1 << 20;
    let (_, context, memory) = with(LIMIT, 0);
    let visits = context.parallelize((0..3_000_u32).collect(), 4).map(|n| (n % 3 / 2, page(n * 100)));
    let lens = visits.map_groups(|key, values| [(*key, values.map(|value| value.len() as u64).sum::<u64>())], 2);
    let lens: HashMap<u32, u64> = lens.collect().unwrap().into_iter().collect();
    assert_eq!(lens, HashMap::from([(0, 200_000), (1, 100_000)]));
    let large = context.parallelize((0..100_u32).collect(), 4).map(|_| ("all".to_owned(), page(99)));
    let lens = large.map_groups(|key, values| [(key.clone(), values.map(|value| value.len()).sum::<usize>())], 2);
    assert_eq!(lens.collect().unwrap(), [("all".to_owned(), 10_000_000)]);
    // Not all of them need be looked at.
    let firsts = large.map_groups(|_, mut values| values.next(), 1).map(|value| value.len());
    assert_eq!(firsts.collect().unwrap(), [100_000]);
    // The right side of a join is gone through, the left one is held.
    let one = context.parallelize(vec![("all".to_owned(), 1_u32), ("all".to_owned(), 2)], 1);
    let joined = one.join(&large, 1);
    assert_eq!(joined.map(|(_, (n, value))| n as usize * value.len()).reduce(|a, b| a + b).unwrap(), Some(30_000_000));
    assert!(memory.peak_bytes() <= LIMIT + (24 << 20), "{} bytes", memory.peak_bytes());
    // Where a list is asked for, it needs its memory, and that is said.
    let error = large.group_by_key(1).count().unwrap_err().to_string();
    assert!(error.contains("the values of one key take over") && error.contains("map_groups"), "{error}");
    let error = large.join(&large, 1).count().unwrap_err().to_string();
    assert!(error.contains("on the left of a join") && error.contains("worker_memory_bytes"), "{error}");
}

#[test]
fn a_state_that_stays_small_whatever_it_takes_in_is_not_taken_for_large() {
    let (_, context, _) = with(1 << 20, 0);
    let pages = context.parallelize((0..100_u32).collect(), 50).map(|n| ((), page(100 * n + 99)));
    let greatest = pages.reduce_by_key(|one, other| one.max(other), 1).map(|(_, page)| page.len());
    assert_eq!(greatest.collect().unwrap(), [100_000]);
}

#[test]
fn a_piece_longer_than_memory_is_taken_as_it_comes() {
    const LIMIT: u64 = 1 << 20;
    let (_, context, memory) = with(LIMIT, 0);
    // Values that do not compress, all for one partition of one map task.
    let noise = |n: u64| -> Vec<u64> { (0..1_000).map(|place| crate::shuffle::hash_key(&(n, place))).collect() };
    let values = context.parallelize((0..4_000_u64).collect(), 1).map(move |n| (n, noise(n)));
    let sorted = values.sort_by_key(1).unwrap().map(|(n, values)| n + values.len() as u64);
    assert_eq!(sorted.count().unwrap(), 4_000);
    assert!(memory.peak_bytes() <= LIMIT + (16 << 20), "{} bytes of 32 MB", memory.peak_bytes());
}

#[test]
fn a_partition_that_does_not_fit_is_passed_on_and_not_held() {
    let (_, context, memory) = with(1 << 20, 1 << 20);
    let computed = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&computed);
    let kept = context
        .parallelize((0..100_u32).collect(), 1)
        .map(move |n| {
            counter.fetch_add(1, Ordering::Relaxed);
            page(n * 100 + 99)
        })
        .persist();
    assert_eq!(kept.map(|page| page.len()).collect().unwrap(), [100_000; 100]);
    assert_eq!(kept.count().unwrap(), 100);
    assert_eq!(computed.load(Ordering::Relaxed), 200, "it is computed again");
    assert!(memory.peak_bytes() <= 1 << 20, "{} bytes", memory.peak_bytes());
}

#[test]
fn keys_of_any_length_are_sorted_into_any_number_of_partitions() {
    let (_, context, _) = with(64 << 20, 0);
    let long = |n: u32| format!("{:08}{}", n * 7919 % 4_000, "x".repeat(60_000));
    let pages = context.parallelize((0..2_000_u32).collect(), 4).map(move |n| (long(n), n));
    let counts = pages.sort_by_key(8).unwrap().map_partitions(|records| [records.count()]).collect().unwrap();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (8, 2_000));
    assert!(counts.iter().all(|count| (80..700).contains(count)), "about equal: {counts:?}");
    let short = |n: u32| format!("{:08}{}", n.wrapping_mul(2_654_435_761) >> 4, "x".repeat(192));
    let keys = context.parallelize((0..60_000_u32).collect(), 4).map(move |n| (short(n), n));
    let counts = keys.sort_by_key(600).unwrap().map_partitions(|records| [records.count()]).collect().unwrap();
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (600, 60_000));
    assert!(counts.iter().filter(|count| (20..400).contains(*count)).count() > 580, "about equal: {counts:?}");
}

#[test]
fn a_line_that_is_kept_does_not_hold_what_was_read_with_it() {
    let chunk = bytes::Bytes::from(vec![b'x'; 1 << 20]);
    let line = Text::slice_of(&chunk, 100..200);
    assert!(!chunk.as_ptr_range().contains(&line.as_bytes().as_ptr()), "it is a copy");
    let most = Text::slice_of(&chunk, 0..900_000);
    assert!(chunk.as_ptr_range().contains(&most.as_bytes().as_ptr()), "it shares what it is most of");
}
