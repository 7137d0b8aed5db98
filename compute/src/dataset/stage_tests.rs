//! Stages whose tasks an engine runs, in one process and with workers that follow a driver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::disk::{Disk, File, OpenMode};
use situ_wire::path::DfsPath;

use super::{Context, Shuffle, Work};
use crate::engine::{Engine, Engines, Frame, Output, ReduceTotal, Resources, TaskContext, TaskError};
use crate::program::error::ProgramError;
use crate::program::local::{self, LocalOptions, StillClock};
use crate::program::rehearsal::Rehearsal;

/// Counts words: `split` reads the block of its number of a file, `count` what was split.
struct WordCount;

const PATH: &str = "/in.txt";

impl WordCount {
    fn split(task: &TaskContext) -> Result<Output, TaskError> {
        let path = DfsPath::parse(PATH).map_err(|error| TaskError::program(error.to_string()))?;
        let block = task.blocks(&path)?.swap_remove(task.partition() as usize);
        let (mut reader, end) =
            (task.open(&path, block.offset..block.offset + block.len_bytes)?, block.offset + block.len_bytes);
        let (mut text, mut at) = (Vec::new(), block.offset);
        while at < end {
            let bytes = reader.read_at(at, usize::try_from(end - at).unwrap())?;
            at += bytes.len() as u64;
            text.extend_from_slice(&bytes);
        }
        let mut pieces = task.pieces()?;
        for word in text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
            pieces.write(u32::from(word[0]) % pieces.reducers(), 1, word)?;
        }
        pieces.finish()
    }

    fn count(task: &TaskContext) -> Result<Output, TaskError> {
        let mut counts: BTreeMap<Bytes, u32> = BTreeMap::new();
        for frame in task.frames(0, task.partition())? {
            *counts.entry(frame?.bytes).or_default() += 1;
        }
        task.count_records(counts.len() as u64);
        let lines: Vec<String> =
            counts.iter().map(|(word, count)| format!("{} {count}", String::from_utf8_lossy(word))).collect();
        Ok(Output::result(lines.join(",")))
    }
}

impl Engine for WordCount {
    fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError> {
        match &work[..] {
            b"split" => Self::split(task),
            b"count" => Self::count(task),
            other => Err(TaskError::program(format!("no work: {:?}", String::from_utf8_lossy(other)))),
        }
    }
}

/// An engine that is a function.
struct Does<F>(F);

impl<F: Fn(&Bytes, &TaskContext) -> Result<Output, TaskError> + Send + Sync + 'static> Engine for Does<F> {
    fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError> {
        (self.0)(work, task)
    }
}

fn does(function: impl Fn(&Bytes, &TaskContext) -> Result<Output, TaskError> + Send + Sync + 'static) -> Engines {
    Engines::new().with("does", Does(function))
}

fn here(disk: &MemoryDisk, engines: Engines, options: LocalOptions) -> Context {
    local::context_with(disk.clone(), StillClock, Path::new("/r"), options, engines)
}

fn write(disk: &MemoryDisk, text: &str) {
    disk.create_directory(Path::new("/r/files")).unwrap();
    disk.open(Path::new("/r/files/in.txt"), OpenMode::CreateNew).unwrap().write_at(0, text.as_bytes()).unwrap();
}

/// Words of seven letters and a space each, so that no block ends within one.
fn text() -> String {
    (0..400_u32)
        .map(|number| format!("{}word{:02} ", char::from(b'a' + u8::try_from(number % 7).unwrap()), number % 40))
        .collect()
}

fn counted(text: &str) -> Vec<String> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    text.split_whitespace().for_each(|word| *counts.entry(word).or_default() += 1);
    counts.into_iter().map(|(word, count)| format!("{word} {count}")).collect()
}

fn count_words(context: &Context, blocks: u32) -> Result<Vec<String>, ProgramError> {
    let split = context.stage("split", blocks, Work::new("words", "split")).shuffle(3)?;
    let results = context.stage("count", 3, Work::new("words", "count")).reads(&split).run()?;
    let lines = results.iter().map(|result| String::from_utf8_lossy(result).into_owned());
    let mut words: Vec<String> =
        lines.flat_map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    words.retain(|word| !word.is_empty());
    words.sort();
    Ok(words)
}

#[test]
fn words_are_counted_by_work_that_travels() {
    let (disk, text) = (MemoryDisk::default(), text());
    write(&disk, &text);
    let options = LocalOptions { block_len_bytes: 80, ..LocalOptions::default() };
    let context = here(&disk, Engines::new().with("words", WordCount), options);
    assert_eq!(count_words(&context, u32::try_from(text.len() / 80).unwrap()).unwrap(), counted(&text));
}

#[test]
fn workers_run_it_without_the_program_and_ask_for_the_work_once() {
    let engines = does(|work, task| {
        if &work[..] == b"give" {
            let mut pieces = task.pieces()?;
            pieces.write(0, 1, &task.partition().to_le_bytes())?;
            return pieces.finish();
        }
        let maps: Vec<u32> = task.frames(0, 0)?.map(|frame| frame.map(|frame| frame.map)).collect::<Result<_, _>>()?;
        Ok(Output::result(format!("{maps:?}")))
    });
    let job = Rehearsal::with(2, true, &engines);
    let seen = job.run(|context| {
        // A worker's run of the program comes to nothing.
        if context.backend().driver_files().is_none() {
            return Err("this run is of no use".into());
        }
        let given = context.stage("give", 6, Work::new("does", "give")).shuffle(1)?;
        let read = context.stage("read", 4, Work::new("does", "read")).reads(&given).run()?;
        assert_eq!(read, vec!["[0, 1, 2, 3, 4, 5]"; 4]);
        Ok(())
    });
    assert_eq!(seen.unwrap().works_asked, 4, "two workers ask for the work of two stages");
}

#[test]
fn a_stage_reads_what_an_earlier_action_filled_and_it_goes_with_its_last_handle() {
    static GIVEN: AtomicUsize = AtomicUsize::new(0);
    let engines = does(|work, task| match &work[..] {
        b"give" => {
            GIVEN.fetch_add(1, Ordering::Relaxed);
            let mut pieces = task.pieces()?;
            for reduce in 0..pieces.reducers() {
                pieces.write(reduce, 10 + reduce, b"some bytes")?;
            }
            pieces.finish()
        }
        _ => Ok(Output::result(task.frames(0, task.partition())?.count().to_string())),
    });
    let disk = MemoryDisk::default();
    let context = here(&disk, engines, LocalOptions::default());
    let given: Shuffle = context.stage("give", 3, Work::new("does", "give")).shuffle(2).unwrap();
    let totals = given.fill().unwrap();
    assert_eq!(totals.iter().map(|total| total.records).collect::<Vec<_>>(), [30, 33]);
    assert_eq!((given.fill().unwrap(), GIVEN.load(Ordering::Relaxed)), (totals, 3), "it is there");
    let read = context.stage("read", 2, Work::new("does", "read")).reads(&given);
    let again = read.clone();
    assert_eq!(read.run().unwrap(), ["3", "3"]);
    let left = || {
        disk.list(Path::new("/r/work"))
            .unwrap_or_default()
            .iter()
            .map(|entry| entry.name.clone())
            .filter(|name| name != "spill")
            .collect::<Vec<_>>()
    };
    let pieces = |name: &String| disk.list(&Path::new("/r/work").join(name)).unwrap_or_default().len();
    assert_eq!(left().iter().map(pieces).sum::<usize>(), 3);
    drop(given);
    assert_eq!(again.run().unwrap(), ["3", "3"], "a stage that reads it holds it, too");
    assert_eq!((left().iter().map(pieces).sum::<usize>(), GIVEN.load(Ordering::Relaxed)), (0, 3));
}

#[test]
fn what_does_not_fit_into_memory_comes_back_as_it_was() {
    let engines = does(|work, task| {
        if &work[..] == b"give" {
            let mut pieces = task.pieces()?;
            for number in 0..2_000_u32 {
                let frame: Vec<u8> = (0..512)
                    .map(|at: u32| number.wrapping_mul(2_654_435_761).rotate_left(at).to_le_bytes()[1])
                    .collect();
                pieces.write(number % 2, 1, &frame)?;
            }
            return pieces.finish();
        }
        let frames: Vec<Frame> = task.frames(0, task.partition())?.collect::<Result<_, _>>()?;
        assert!(frames.iter().all(|frame| frame.records == 1 && frame.bytes.len() == 512));
        let mut hasher = blake3::Hasher::new();
        frames.iter().for_each(|frame| _ = hasher.update(&frame.bytes));
        Ok(Output::result(hasher.finalize().to_hex().to_string()))
    });
    let read = |task_memory_bytes| {
        let disk = MemoryDisk::default();
        let context = here(&disk, engines.clone(), LocalOptions { task_memory_bytes, ..LocalOptions::default() });
        let given = context.stage("give", 1, Work::new("does", "give")).shuffle(2).unwrap();
        let totals: Vec<ReduceTotal> = given.fill().unwrap();
        (totals, context.stage("read", 2, Work::new("does", "read")).reads(&given).run().unwrap())
    };
    assert_eq!(read(256 << 20), read(300 << 10));
}

#[test]
fn long_work_goes_by_way_of_a_file() {
    let engines = does(|work, _| Ok(Output::result(format!("{} {}", work.len(), work[work.len() - 1]))));
    let disk = MemoryDisk::default();
    let context = here(&disk, engines, LocalOptions::default());
    let results = context.stage("long", 2, Work::new("does", vec![7; 200_000])).run().unwrap();
    assert_eq!(results, ["200000 7", "200000 7"]);
}

#[test]
fn failures_say_what_is_wrong() {
    let engines = does(|work, task| match &work[..] {
        b"beyond" => {
            task.pieces()?.write(9, 1, b"x")?;
            Ok(Output::result(""))
        }
        b"input" => Ok(Output::result(task.frames(1, 0)?.count().to_string())),
        b"panic" => panic!("a bug"),
        b"cancelled" => Err(TaskError::Cancelled),
        _ => Err(TaskError::program("the work makes no sense")),
    });
    let context = here(&MemoryDisk::default(), engines, LocalOptions::default());
    let fails = |kind: &str, work: &'static str| {
        context.stage("s", 1, Work::new(kind, work)).run().expect_err("it fails").to_string()
    };
    assert!(fails("sql", "x").contains("no engine \"sql\", only these: [\"does\"]"), "{}", fails("sql", "x"));
    assert!(fails("does", "other").contains("the work makes no sense"));
    assert!(fails("does", "panic").contains("it panicked at ") && fails("does", "panic").contains("a bug"));
    let cancelled = fails("does", "cancelled");
    assert!(
        cancelled.contains("the engine \"does\" says that its task was cancelled, which it was not"),
        "{cancelled}"
    );
    assert!(fails("does", "beyond").contains("its stage fills no shuffle"));
    assert!(fails("does", "input").contains("it asks for input 1; its stage reads 0 shuffles"));
    let filled = context.stage("s", 1, Work::new("does", "beyond")).shuffle(2).unwrap();
    assert!(filled.fill().unwrap_err().to_string().contains("is for reduce partition 9"));
    let none = context.stage("s", 0, Work::new("does", "x")).run().unwrap_err().to_string();
    assert!(none.starts_with("s at stage_tests.rs:") && none.contains("0 partitions; 1 to"), "{none}");
}

#[test]
fn a_task_borrows_of_the_workers_memory_and_is_good_on_any_thread() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<TaskContext>();
    let engines = does(|_, task| {
        let (mut memory, share) = (task.memory(), task.memory_bytes());
        let fits = memory.try_grow(share / 2);
        let more = memory.try_grow(share);
        let other = task.clone();
        let goes_on = std::thread::spawn(move || (other.memory().try_grow(1 << 10), other.go_on().is_ok())).join();
        memory.shrink(u64::MAX);
        Ok(Output::result(format!("{share} {fits} {more} {:?} {}", goes_on.unwrap(), memory.held_bytes())))
    });
    let options = LocalOptions { task_memory_bytes: 8 << 20, cache_memory_bytes: 0, ..LocalOptions::default() };
    let context = here(&MemoryDisk::default(), engines, options);
    let result = context.stage("s", 1, Work::new("does", "x")).run().unwrap();
    assert_eq!(result, ["8388608 true false (true, true) 0"]);
}

#[test]
fn a_dataset_says_what_its_tasks_need() {
    let context = here(&MemoryDisk::default(), Engines::new(), LocalOptions::default());
    let needs = Resources { cores: 2, memory_bytes: 1 << 20 };
    let large = context.parallelize(vec![1_u32, 2, 3], 2).with_resources(needs).map(|number| number + 1);
    assert_eq!(large.collect().unwrap(), [2, 3, 4]);
    let graph = super::Graph::of(large.node).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(graph.needs(), needs);
}
