//! Every operation against what plain Rust makes of the same records, in one process, with and without room in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ordered_float::OrderedFloat;
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_wire::ids::JobId;
use situ_wire::limits::TASK_RESULT_LEN_BYTES;

use super::compression::Codec;
use super::compression::tests::encode;
use super::{Context, TextOptions};
use crate::program::error::ProgramError;
use crate::program::local::{LocalOptions, StillClock, attempts, context};
use crate::shuffle::hash_key;
use crate::text::Text;

const ROOMY: LocalOptions =
    LocalOptions { block_len_bytes: 64, task_memory_bytes: 64 << 20, cache_memory_bytes: 64 << 20 };
/// So little memory that every gathering operation spills several times.
const TIGHT: LocalOptions =
    LocalOptions { block_len_bytes: 64, task_memory_bytes: 2 << 10, cache_memory_bytes: 64 << 20 };

fn roomy() -> (MemoryDisk, Context) {
    with(ROOMY)
}

fn with(options: LocalOptions) -> (MemoryDisk, Context) {
    let disk = MemoryDisk::default();
    let context = context(disk.clone(), StillClock, Path::new("/r"), options);
    (disk, context)
}

fn put(disk: &MemoryDisk, path: &str, bytes: &[u8]) {
    let path = Path::new("/r/files").join(path);
    disk.create_directory(path.parent().unwrap()).unwrap();
    disk.open(&path, OpenMode::Truncate).unwrap().write_at(0, bytes).unwrap();
}

fn get(disk: &MemoryDisk, path: &str) -> String {
    let bytes = disk.read(&Path::new("/r/files").join(path), 1 << 20).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Names below a directory.
fn names(disk: &MemoryDisk, path: &str) -> Vec<String> {
    disk.list(&Path::new("/r/files").join(path)).unwrap().into_iter().map(|entry| entry.name).collect()
}

/// Pairs with repeated keys, in no order.
fn pairs() -> Vec<(String, u64)> {
    (0..3000_u64).map(|n| (format!("key {}", n * 7919 % 701), n)).collect()
}

#[test]
fn narrow_operations_are_those_of_iterators() {
    let (_, context) = roomy();
    let numbers: Vec<u32> = (0..100).collect();
    let dataset = context.parallelize(numbers.clone(), 7);
    assert_eq!(dataset.partitions(), 7);
    assert_eq!(dataset.collect().unwrap(), numbers);
    let made = dataset.map(|n| n * 2).filter(|n| n % 3 == 0).flat_map(|n| vec![n; (n % 4) as usize]).collect().unwrap();
    let expected: Vec<u32> =
        numbers.iter().map(|n| n * 2).filter(|n| n % 3 == 0).flat_map(|n| vec![n; (n % 4) as usize]).collect();
    assert_eq!(made, expected);
    let sums = dataset.map_partitions(|records| [records.sum::<u32>()]).collect().unwrap();
    assert_eq!((sums.len(), sums.iter().sum::<u32>()), (7, 4950));
    let indexed = dataset.map_partitions_with_index(|index, records| [(index, records.count())]).collect().unwrap();
    assert_eq!(indexed.iter().map(|(index, _)| *index).collect::<Vec<_>>(), (0..7).collect::<Vec<_>>());
    assert_eq!(dataset.key_by(|n| n % 2).take(2).unwrap(), [(0, 0), (1, 1)]);
    let both = dataset.union(&context.parallelize(vec![7, 8], 2));
    assert_eq!((both.partitions(), both.count().unwrap()), (9, 102));
    assert_eq!(both.collect().unwrap()[99..], [99, 7, 8]);
}

#[test]
fn actions_give_what_iterators_give() {
    let (_, context) = roomy();
    let dataset = context.parallelize((1..=50_u64).collect(), 8);
    assert_eq!(dataset.count().unwrap(), 50);
    assert_eq!(dataset.reduce(u64::max).unwrap(), Some(50));
    assert_eq!(dataset.first().unwrap(), Some(1));
    assert_eq!(dataset.take(20).unwrap(), (1..=20).collect::<Vec<_>>());
    assert_eq!(dataset.take(1000).unwrap().len(), 50);
    assert_eq!(dataset.filter(|n| *n > 48).take(5).unwrap(), [49, 50]);
    let none = context.parallelize(Vec::<u64>::new(), 3);
    assert_eq!((none.count().unwrap(), none.first().unwrap(), none.reduce(u64::max).unwrap()), (0, None, None));
    let units = context.parallelize(vec![(); 9], 2);
    assert_eq!(units.collect().unwrap().len(), 9);
}

#[test]
fn take_computes_no_more_partitions_than_it_needs() {
    let (_, context) = roomy();
    let computed = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&computed);
    let dataset = context.parallelize((0..1000_u32).collect(), 100).map_partitions(move |records| {
        counter.fetch_add(1, Ordering::Relaxed);
        records
    });
    assert_eq!(dataset.take(3).unwrap(), [0, 1, 2]);
    assert_eq!(computed.load(Ordering::Relaxed), 1);
    assert_eq!(dataset.take(12).unwrap().len(), 12);
    assert_eq!(computed.load(Ordering::Relaxed), 1 + 1 + 4);
}

#[test]
fn keyed_operations_are_those_of_maps_with_and_without_room() {
    for options in [ROOMY, TIGHT] {
        let (disk, context) = with(options);
        let pairs = pairs();
        let dataset = context.parallelize(pairs.clone(), 5);
        let mut sums = BTreeMap::new();
        let mut groups: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (key, value) in &pairs {
            *sums.entry(key.clone()).or_insert(0) += value;
            groups.entry(key.clone()).or_default().insert(*value);
        }
        let reduced = dataset.reduce_by_key(|one, other| one + other, 3).collect().unwrap();
        assert_eq!(reduced.len(), sums.len(), "each key comes once");
        assert_eq!(reduced.into_iter().collect::<BTreeMap<_, _>>(), sums);
        let grouped = dataset.group_by_key(4).collect().unwrap();
        assert_eq!(grouped.len(), groups.len(), "each key comes once");
        let sets = grouped.into_iter().map(|(key, values)| (key, values.into_iter().collect::<BTreeSet<_>>()));
        assert_eq!(sets.collect::<BTreeMap<_, _>>(), groups);
        let lengths = dataset
            .combine_by_key(|_| 1_u64, |count, _| *count += 1, |count, other| *count += other, 2)
            .collect()
            .unwrap();
        assert_eq!(lengths.into_iter().map(|(_, count)| count).sum::<u64>(), 3000);
        let mut keys = dataset.map(|(key, _)| key).distinct(3).collect().unwrap();
        keys.sort();
        assert_eq!(keys, sums.keys().cloned().collect::<Vec<_>>());
        assert_eq!(disk.list(Path::new("/r/work/spill")).map_or(0, |files| files.len()), 0, "spill files are gone");
    }
}

#[test]
fn more_keys_than_a_combining_table_holds_come_once_each() {
    const KEYS: u64 = 250_000;
    let (_, context) = roomy();
    let numbers = context.parallelize(vec![0..KEYS, 0..KEYS], 1).flat_map(|keys| keys.map(|key| (key, 1_u64)));
    let counts = numbers.reduce_by_key(|one, other| one + other, 3);
    assert_eq!(counts.count().unwrap(), KEYS);
    assert_eq!(counts.filter(|(_, count)| *count != 2).count().unwrap(), 0);
}

#[test]
fn tight_memory_really_spills() {
    let (disk, context) = with(TIGHT);
    let dataset = context.parallelize(pairs(), 1).group_by_key(1);
    let watched = disk.clone();
    let spills = dataset.map_partitions(move |records| {
        let count = records.count();
        [(count, watched.list(Path::new("/r/work/spill")).map_or(0, |files| files.len()))]
    });
    let [(count, _)] = spills.collect().unwrap()[..] else { panic!("one partition") };
    assert_eq!(count, 701);
    assert!(disk.exists(Path::new("/r/work/spill")).unwrap(), "something was spilled");
}

#[test]
fn values_that_grow_as_they_are_reduced_spill() {
    for partitions in [1, 50] {
        let (disk, context) = with(TIGHT);
        // Few keys, so that only their values grow, and values that do not compress.
        let values = context
            .parallelize((0..200_u64).collect(), partitions)
            .map(|n| (n % 4, (0..20).map(|place| hash_key(&(n, place))).collect::<Vec<u64>>()));
        let grown = values.reduce_by_key(|one, other| [one, other].concat(), 1);
        let spilled = move || disk.list(Path::new("/r/work/spill")).map_or(0, |files| files.len()) > 0;
        let lens = grown.map(move |(_, value)| (value.len(), spilled())).collect().unwrap();
        assert_eq!(lens, [(50 * 20, true); 4], "of {partitions} map tasks");
    }
}

#[test]
fn sorting_is_stable_sorting_with_and_without_room() {
    for options in [ROOMY, TIGHT] {
        let (_, context) = with(options);
        let pairs = pairs();
        let mut expected = pairs.clone();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        let sorted = context.parallelize(pairs.clone(), 6).sort_by_key(4).unwrap();
        assert_eq!(sorted.collect().unwrap(), expected);
        let counts = sorted.map_partitions(|records| [records.count()]).collect().unwrap();
        assert!(counts.iter().all(|count| (375..1500).contains(count)), "about equal partitions: {counts:?}");
        let within = context.parallelize(pairs.clone(), 2).sort_within_partitions().collect().unwrap();
        let (mut first, mut second) = (pairs[..1500].to_vec(), pairs[1500..].to_vec());
        first.sort();
        second.sort();
        assert_eq!(within, [first, second].concat());
    }
}

#[test]
fn sorting_few_keys_into_many_partitions_works() {
    let (_, context) = roomy();
    let few = context.parallelize(vec![(2, 'b'), (1, 'a'), (2, 'c')], 2).sort_by_key(8).unwrap();
    assert_eq!(few.collect().unwrap(), [(1, 'a'), (2, 'b'), (2, 'c')]);
    let none = context.parallelize(Vec::<(u32, u32)>::new(), 2).sort_by_key(8).unwrap();
    assert_eq!(none.collect().unwrap(), []);
}

#[test]
fn joins_pair_the_values_of_equal_keys() {
    let (_, context) = roomy();
    let left = context.parallelize(vec![(1, "a".to_owned()), (2, "b".to_owned()), (2, "c".to_owned())], 2);
    let right = context.parallelize(vec![(2, 10), (2, 20), (3, 30)], 2);
    let mut joined = left.join(&right, 3).collect().unwrap();
    joined.sort();
    let pair = |value: &str, other| (2, (value.to_owned(), other));
    assert_eq!(joined, [pair("b", 10), pair("b", 20), pair("c", 10), pair("c", 20)]);
}

#[test]
fn persisted_partitions_are_computed_once() {
    let (_, context) = roomy();
    let computed = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&computed);
    let dataset = context
        .parallelize((0..10_u32).collect(), 2)
        .map(move |n| {
            counter.fetch_add(1, Ordering::Relaxed);
            n
        })
        .persist();
    assert_eq!(dataset.count().unwrap(), 10);
    assert_eq!(dataset.collect().unwrap(), (0..10).collect::<Vec<_>>());
    assert_eq!(computed.load(Ordering::Relaxed), 10);
}

#[test]
fn what_kept_records_hold_elsewhere_takes_room() {
    for (cache_memory_bytes, computations) in [(1 << 20, 10), (64 << 10, 20)] {
        let (_, context) = with(LocalOptions { cache_memory_bytes, ..ROOMY });
        let computed = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&computed);
        let dataset = context
            .parallelize((0..10_usize).collect(), 1)
            .map(move |n| {
                counter.fetch_add(1, Ordering::Relaxed);
                "x".repeat(n * 3000)
            })
            .persist();
        assert_eq!((dataset.count().unwrap(), dataset.count().unwrap()), (10, 10));
        assert_eq!(computed.load(Ordering::Relaxed), computations, "with room for {cache_memory_bytes} bytes");
    }
}

#[test]
fn text_files_are_read_by_path_directory_and_pattern() {
    let (disk, context) = roomy();
    let long = "x".repeat(300);
    put(&disk, "in/b.txt", format!("three\n{long}\nno line break").as_bytes());
    put(&disk, "in/a.txt", b"one\n\ntwo\n");
    put(&disk, "in/_hidden.txt", b"hidden\n");
    put(&disk, "in/.7._COPYING_.txt", b"half a li");
    put(&disk, "_aside/c.txt", b"aside\n");
    put(&disk, "in/empty", b"");
    put(&disk, "other/c.txt", b"\xff\xfe\n");
    let lines = |path: &str| {
        let mut lines = context.text_file(path).unwrap().collect().unwrap();
        lines.sort();
        lines
    };
    let mut expected: Vec<Text> =
        ["one", "", "two", "three", &long, "no line break"].iter().map(|line| Text::from(*line)).collect();
    expected.sort();
    assert_eq!(lines("/in"), expected);
    assert_eq!(lines("/in/*.txt"), expected);
    assert_eq!(lines("/in/*"), expected);
    assert_eq!(lines("/*n"), expected);
    assert_eq!(lines("/in/_*.txt"), [Text::from("hidden")]);
    assert_eq!(lines("/in/_hidden.txt"), [Text::from("hidden")]);
    assert_eq!(lines("/i?/{a,b}.txt"), expected);
    assert!(lines("/in/empty").is_empty());
    assert_eq!(context.text_file("/in/empty").unwrap().partitions(), 1);
    assert_eq!(lines("/*/c.txt"), [Text::from(&b"\xff\xfe"[..])]);
    assert_eq!(context.text_file("/in/b.txt").unwrap().partitions(), 5);
    for (path, message) in [("/nowhere", "no such file"), ("/in/*.csv", "no file matches"), ("/in/[", "not valid")] {
        let error = context.text_file(path).unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(message), "{error}");
    }
    assert!(context.text_file("relative").is_err());
}

#[test]
fn compressed_files_are_decoded_by_their_endings() {
    let (disk, context) = roomy();
    let (first, second) = ("one two\n".repeat(3_000), "three\nfour");
    for (codec, ending) in [(Codec::Gzip, "gz"), (Codec::Zstd, "zst"), (Codec::Bzip2, "bz2"), (Codec::Lz4, "lz4")] {
        let parts = [encode(codec, first.as_bytes()), encode(codec, second.as_bytes())];
        put(&disk, &format!("in/{ending}.txt.{ending}"), &parts.concat());
        let lines = context.text_file(&format!("/in/*.{ending}")).unwrap();
        assert_eq!(lines.partitions(), 1, "it is not cut");
        let expected: Vec<Text> = first.lines().chain(second.lines()).map(Text::from).collect();
        assert_eq!(lines.collect().unwrap(), expected, "{ending}");
        assert_eq!(context.words(&format!("/in/*.{ending}")).unwrap().count().unwrap(), 6_002, "{ending}");
    }
    put(&disk, "in/text", b"plain\n");
    assert_eq!(context.text_file("/in").unwrap().count().unwrap(), 4 * 3_002 + 1);
}

#[test]
fn what_cannot_be_decoded_is_no_text() {
    let (disk, context) = roomy();
    let whole = encode(Codec::Gzip, &pairs().iter().flat_map(|(key, _)| key.bytes()).collect::<Vec<u8>>());
    put(&disk, "cut.gz", &whole[..whole.len() - 9]);
    put(&disk, "plain.gz", b"plain text\n");
    put(&disk, "empty.gz", b"");
    put(&disk, "gzip.txt", &whole);
    put(&disk, "in/part.snappy", b"whatever");
    put(&disk, "in/part.txt", b"text");
    for (path, message) in [
        ("/cut.gz", "/cut.gz: it cannot be decoded as gzip, as its name asks for, behind "),
        ("/cut.gz", "it ends too early; store it again"),
        ("/plain.gz", "behind 0 bytes of its content: it begins with \"plai\""),
        ("/empty.gz", "it is empty"),
        ("/gzip.txt", "its content is gzip; it should end in .gz"),
        ("/in", "/in/part.snappy is compressed with Snappy"),
    ] {
        let error = context.text_file(path).and_then(|lines| lines.count()).unwrap_err().to_string();
        assert!(error.contains(message) && !error.contains("while reading"), "{path}: {error}");
    }
    // What only looks so is read as it is, if that is said.
    put(&disk, "coords.z", b"1 2 3\n4 5 6\n");
    assert!(context.text_file("/coords.z").unwrap_err().to_string().contains("--plain"));
    for (path, lines) in [("/coords.z", 2), ("/plain.gz", 1), ("/in", 2)] {
        let plain = context.text_file_with(path, TextOptions::default().plain(true)).unwrap();
        assert_eq!(plain.count(), Ok(lines), "{path}");
    }
    assert!(context.words_with("/gzip.txt", TextOptions::default().plain(true)).unwrap().count().unwrap() > 0);
}

#[test]
fn a_compressed_line_longer_than_the_memory_of_a_task_is_named() {
    const LIMIT: usize = 2 << 20;
    let (disk, context) = with(LocalOptions { task_memory_bytes: LIMIT as u64, ..ROOMY });
    put(&disk, "bomb.gz", &encode(Codec::Gzip, &[&b"one\n"[..], &vec![b'x'; 64 << 20]].concat()));
    let error = context.text_file("/bomb.gz").unwrap().count().unwrap_err().to_string();
    assert!(error.contains("/bomb.gz: the line that starts at byte 4 is over 2097152 bytes"), "{error}");
}

#[test]
fn directories_within_directories_are_read_only_if_that_is_said() {
    let (disk, context) = roomy();
    for (path, text) in [
        ("in/a", "a\n"),
        ("in/deep/deeper/b", "b\n"),
        ("in/deep/c", "c\n"),
        ("in/_temporary/d", "d\n"),
        ("in/deep/.hidden/e", "e\n"),
    ] {
        put(&disk, path, text.as_bytes());
    }
    let recursive = TextOptions::default().recursive(true);
    let lines = |path: &str| context.text_file_with(path, recursive).unwrap().collect().unwrap();
    assert_eq!(lines("/in"), ["a", "c", "b"].map(Text::from));
    assert_eq!(lines("/in/*"), ["a", "c", "b"].map(Text::from));
    assert_eq!(lines("/{in/deep/deeper,in/a}"), ["a", "b"].map(Text::from));
    assert_eq!(context.words_with("/in/deep", recursive).unwrap().count().unwrap(), 2);
    for path in ["/in", "/i*", "/in/*"] {
        let error = context.text_file(path).unwrap_err().to_string();
        assert!(error.contains("is a directory within a directory") && error.contains("--recursive"), "{error}");
    }
    let error = context.text_file("/in/**").unwrap_err().to_string();
    assert!(error.contains("any depth"), "{error}");
    assert_eq!(context.text_file("/in/deep/deeper").unwrap().count().unwrap(), 1);
}

#[test]
fn a_failure_names_the_file_that_was_read_and_where() {
    let (disk, context) = with(LocalOptions { block_len_bytes: 1 << 20, ..ROOMY });
    let text = "12\n34\nfive\n6\n";
    put(&disk, "in/a", b"1\n");
    put(&disk, "in/b", text.as_bytes());
    put(&disk, "zipped.gz", &encode(Codec::Gzip, text.as_bytes()));
    for (path, place) in
        [("/in", "while reading /in/b near byte 6: it"), ("/zipped.gz", "reading /zipped.gz, decoded, near byte 6: it")]
    {
        let numbers = context.text_file(path).unwrap().map(|line| line.to_str_lossy().parse::<u64>().unwrap());
        let error = numbers.take(9).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains("it panicked at "), "{error}");
    }
    // What fails behind the end of a file does not blame it.
    let counted = context.text_file("/in/b").unwrap().map(|line| (line, 1)).reduce_by_key(|one, other| one + other, 1);
    let error = counted.map(|_| panic!("behind")).for_each(|()| ()).unwrap_err().to_string();
    assert!(error.contains("behind") && !error.contains("while reading"), "{error}");
}

#[test]
fn numbers_with_a_point_are_keys_and_sorted_once_they_have_an_order() {
    let (_, context) = roomy();
    let numbers = [0.5, -1.0, 0.5, f64::INFINITY, -0.0, 0.0].map(|n| (OrderedFloat(n), 1_u32));
    let counts = context.parallelize(numbers.to_vec(), 2).reduce_by_key(|one, other| one + other, 3);
    let sorted = counts.sort_by_key(2).unwrap().collect().unwrap();
    assert_eq!(sorted, [(-1.0, 1), (0.0, 2), (0.5, 2), (f64::INFINITY, 1)].map(|(n, count)| (OrderedFloat(n), count)));
}

#[test]
fn a_line_longer_than_the_memory_of_a_task_is_named() {
    const LIMIT: usize = 2 << 20;
    for block_len_bytes in [1 << 20, 8 << 20] {
        let (disk, context) = with(LocalOptions { block_len_bytes, task_memory_bytes: LIMIT as u64, ..ROOMY });
        for (len, fits) in [(LIMIT, true), (LIMIT + 1, false)] {
            put(&disk, "in", format!("one\n{}\nthree", "x".repeat(len)).as_bytes());
            match context.text_file("/in").unwrap().count() {
                Ok(count) => assert!(fits && count == 3, "{count} lines with one of {len} bytes"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!fits && error.contains("/in: the line that starts at byte 4 is over 2097152"), "{error}");
                }
            }
        }
    }
}

#[test]
fn a_saved_dataset_is_one_file_a_partition_and_a_mark() {
    let (disk, context) = roomy();
    let dataset = context.parallelize(vec![(Text::from("a"), 1_u64), (Text::from("b"), 2), (Text::from("c"), 3)], 2);
    dataset.save_as_text_file("/out/deep").unwrap();
    assert_eq!(names(&disk, "out/deep"), ["_SUCCESS", "part-00000", "part-00001"]);
    assert_eq!(get(&disk, "out/deep/part-00000"), "a\t1\n");
    assert_eq!(get(&disk, "out/deep/part-00001"), "b\t2\nc\t3\n");
    let error = dataset.save_as_text_file("/out/deep").unwrap_err();
    assert_eq!(error, ProgramError::OutputExists { path: "/out/deep".to_owned(), job: Some(JobId(1)) });
    assert_eq!(get(&disk, "out/deep/_SUCCESS"), "job-1\n");
    assert_eq!(context.text_file("/out/deep").unwrap().count().unwrap(), 3);
    // What was made before `_SUCCESS` named a job, or by others.
    put(&disk, "old/_SUCCESS", b"");
    let error = dataset.save_as_text_file("/old").unwrap_err();
    assert_eq!(error, ProgramError::OutputExists { path: "/old".to_owned(), job: None });
}

#[test]
fn a_driver_that_is_started_anew_finds_what_the_one_before_has_published() {
    let disk = MemoryDisk::default();
    let attempt = attempts(disk.clone(), StillClock, Path::new("/r"), ROOMY);
    let save = |context: &Context| context.parallelize(vec![1_u64, 2], 2).save_as_text_file("/out");
    save(&attempt()).unwrap();
    put(&disk, "out/part-00000", b"the first time\n");
    // Nobody remembers that the first one ended.
    let again = attempt();
    save(&again).unwrap();
    assert_eq!(get(&disk, "out/part-00000"), "the first time\n");
    assert_eq!(names(&disk, "out"), ["_SUCCESS", "part-00000", "part-00001"]);
    let exists = ProgramError::OutputExists { path: "/out".to_owned(), job: Some(JobId(1)) };
    assert_eq!(save(&again), Err(exists.clone()), "the second save of a program is another one");
    put(&disk, "other/file", b"somebody's");
    assert!(attempt().parallelize(vec![1_u64], 1).save_as_text_file("/other").is_err());
    // Of two saves, the second is found as well.
    let two = |context: &Context| {
        let dataset = context.parallelize(vec![1_u64], 1);
        dataset.save_as_text_file("/first").and_then(|()| dataset.save_as_text_file("/second"))
    };
    let attempt = attempts(disk.clone(), StillClock, Path::new("/r"), ROOMY);
    two(&attempt()).unwrap();
    two(&attempt()).unwrap();
    // Of another job.
    assert_eq!(save(&context(disk, StillClock, Path::new("/r"), ROOMY)), Err(exists));
}

#[test]
fn a_failed_save_leaves_nothing_and_names_the_panic() {
    let (disk, context) = roomy();
    let dataset = context.parallelize(vec![1_u64, 2, 3], 3).map(|n| 6 / (3 - n));
    let error = dataset.save_as_text_file("/out").unwrap_err().to_string();
    assert!(error.contains("save_as_text_file at tests.rs:"), "{error}");
    assert!(error.contains("panicked at") && error.contains("divide by zero"), "{error}");
    assert!(!disk.exists(Path::new("/r/files/out")).unwrap());
    context.parallelize(vec![1_u64], 1).save_as_text_file("/out").unwrap();
}

#[test]
fn what_an_unfinished_job_left_is_taken_away() {
    let (disk, context) = roomy();
    put(&disk, "out/_temporary/job-9/action-1/0-0/part-00000", b"left");
    context.parallelize(vec![1_u64], 1).save_as_text_file("/out").unwrap();
    assert_eq!(names(&disk, "out"), ["_SUCCESS", "part-00000"]);
}

#[test]
fn a_flipped_bit_in_shuffle_output_is_a_fetch_failure() {
    let (disk, context) = roomy();
    let reduced = context.parallelize(pairs(), 2).reduce_by_key(|one, other| one + other, 2);
    assert_eq!(reduced.count().unwrap(), 701);
    let directory = Path::new("/r/work").join(format!("shuffle-{}", reduced.id().1));
    let path = directory.join("partition-1-attempt-0");
    let file = disk.open(&path, OpenMode::Write).unwrap();
    let last = file.len().unwrap() - 1;
    let byte = file.read_at(last, 1).unwrap()[0];
    file.write_at(last, &[byte ^ 4]).unwrap();
    let error = reduced.count().unwrap_err().to_string();
    assert!(error.contains("could not fetch") && error.contains("partition-1/attempt-0"), "{error}");
    disk.remove_file(&path).unwrap();
    assert!(reduced.count().unwrap_err().to_string().contains("no such file"));
}

#[test]
fn records_that_do_not_read_back_are_no_fetch_failure() {
    /// Serializes as its content alone, from which postcard cannot tell what it was.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
    }

    let (_, context) = roomy();
    let pairs = context.parallelize(vec![1_u64, 2], 1).map(|n| (n, Untagged::Number(n)));
    for (operation, error) in [
        ("group_by_key", pairs.group_by_key(1).count().unwrap_err().to_string()),
        ("reduce_by_key", pairs.reduce_by_key(|one, _| one, 1).count().unwrap_err().to_string()),
        ("collect", pairs.collect().err().unwrap().to_string()),
    ] {
        assert!(error.contains(operation) && error.contains("Untagged) does not read back"), "{error}");
        assert!(!error.contains("could not fetch"), "{error}");
    }
}

#[test]
fn actions_from_two_threads_are_refused() {
    let (_, context) = roomy();
    let inner = context.clone();
    let dataset = context.parallelize(vec![1_u32], 1).map(move |n| {
        // The outer action runs meanwhile.
        assert!(matches!(inner.parallelize(vec![n], 1).count(), Err(ProgramError::Concurrent { .. })));
        n
    });
    assert_eq!(dataset.count().unwrap(), 1);
}

#[test]
fn results_of_any_size_come_to_the_driver() {
    let (_, context) = roomy();
    let lens: Vec<usize> = vec![0, 40 << 20, 1, 9 << 20, 300_000, 0, 250_000];
    let texts: Vec<String> = lens.iter().map(|len| "x".repeat(*len)).collect();
    let made = context.parallelize(lens, 4).map(|len| "x".repeat(len));
    assert_eq!(made.collect().unwrap(), texts);
    assert_eq!(made.take(2).unwrap(), texts[..2]);
    assert_eq!(made.reduce(|one, other| one.max(other)).unwrap().map(|text| text.len()), Some(40 << 20));
    // Just what still goes by way of the scheduler, and what does not.
    let lens: Vec<usize> = (TASK_RESULT_LEN_BYTES - 96..TASK_RESULT_LEN_BYTES + 8).step_by(3).collect();
    for len in lens {
        let found = context.parallelize(vec![len], 1).map(|len| "x".repeat(len)).collect().unwrap();
        assert_eq!(found[0].len(), len);
    }
    let units = context.parallelize(vec![(); 3_000_000], 2);
    assert_eq!(units.collect().unwrap().len(), 3_000_000, "they take no byte");
}

#[test]
fn a_local_iterator_gives_all_records_and_computes_no_partition_before_it_is_asked() {
    static COMPUTED: AtomicU64 = AtomicU64::new(0);
    let (_, context) = roomy();
    let numbers = context.parallelize((0..100_u64).collect(), 10).filter(|n| n % 30 < 20).map(|n| {
        COMPUTED.fetch_add(1, Ordering::Relaxed);
        n
    });
    let expected: Vec<u64> = (0..100).filter(|n| n % 30 < 20).collect();
    let mut records = numbers.to_local_iterator();
    assert_eq!(COMPUTED.load(Ordering::Relaxed), 0);
    assert_eq!(records.next(), Some(Ok(0)));
    assert_eq!(COMPUTED.load(Ordering::Relaxed), 10, "one partition");
    let rest: Result<Vec<u64>, _> = records.by_ref().collect();
    assert_eq!(rest.unwrap(), expected[1..]);
    assert_eq!((records.next(), COMPUTED.load(Ordering::Relaxed)), (None, 70));
    // It ends with the first error.
    let fails = context.parallelize((0..4_u64).collect(), 4).map(|n| {
        assert!(n != 1, "no ones");
        n
    });
    let given: Vec<Result<u64, String>> =
        fails.to_local_iterator().map(|record| record.map_err(|error| error.to_string())).collect();
    let [Ok(0), Err(error)] = &given[..] else { panic!("{given:?}") };
    assert!(error.starts_with("to_local_iterator at tests.rs:") && error.contains("no ones"), "{error}");
}
