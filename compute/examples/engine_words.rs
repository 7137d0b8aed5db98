//! Counts words with an engine of its own, which is given its plan as text: what a query engine does with plans of its own.
//!
//! ```text
//! cargo build --release -p situ-compute --example engine_words
//! situ fs put book.txt /books/book.txt
//! situ job submit target/release/examples/engine_words /books /counts
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use bytes::Bytes;
use situ_compute::engine::{DfsPath, Engine, Output, TaskContext, TaskError, Work};
use situ_compute::{Context, ProgramResult};

/// Among how many tasks the words are split.
const REDUCERS: u32 = 3;

fn main() -> ExitCode {
    situ_compute::Program::new(count).engine("words", Words).run()
}

fn count(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output] = arguments else { return Err("usage: engine_words DIRECTORY OUT".into()) };
    let work = |step: &str, of: &str| Work::new("words", format!("{step}\n{of}"));
    // What there is to do is not known before this has run.
    let files = context.stage("list", 1, work("list", input)).run()?;
    let files = String::from_utf8(files.concat())?;
    let tasks = u32::try_from(files.lines().count())?;
    let split = context.stage("split", tasks, work("split", &files)).shuffle(REDUCERS)?;
    let words: u64 = split.fill()?.iter().map(|total| total.records).sum();
    let counts = context.stage("count", REDUCERS, work("count", "")).reads(&split).run()?;
    let mut lines: Vec<String> = String::from_utf8(counts.concat())?.lines().map(str::to_owned).collect();
    lines.push(format!("all\t{words}"));
    lines.sort();
    context.parallelize(lines, 1).save_as_text_file(output)?;
    Ok(())
}

/// Runs the steps of a count of words.
struct Words;

impl Engine for Words {
    fn run(&self, work: &Bytes, task: &TaskContext) -> Result<Output, TaskError> {
        let work = std::str::from_utf8(work).map_err(|error| TaskError::program(error.to_string()))?;
        match work.split_once('\n') {
            Some(("list", directory)) => list(task, directory),
            Some(("split", files)) => split(task, files),
            Some(("count", _)) => sum(task),
            _ => Err(TaskError::program(format!("{work:?} is no step"))),
        }
    }
}

fn path(text: &str) -> Result<DfsPath, TaskError> {
    DfsPath::parse(text).map_err(|error| TaskError::program(error.to_string()))
}

/// The files of a directory, a line each.
fn list(task: &TaskContext, directory: &str) -> Result<Output, TaskError> {
    let files = task.list(&path(directory)?)?.into_iter().filter(|entry| !entry.is_directory);
    Ok(Output::result(files.map(|file| format!("{}\n", file.path)).collect::<String>()))
}

/// Counts the words of the file whose number is the task's, and sends each to its reducer.
fn split(task: &TaskContext, files: &str) -> Result<Output, TaskError> {
    let file = files.lines().nth(task.partition() as usize);
    let file = path(file.ok_or_else(|| TaskError::program("there are more tasks than files"))?)?;
    let len: u64 = task.blocks(&file)?.iter().map(|block| block.len_bytes).sum();
    let mut text = Vec::new();
    if len > 0 {
        let mut reader = task.open(&file, 0..len)?;
        while (text.len() as u64) < len {
            text.extend_from_slice(&reader.read_at(text.len() as u64, 1 << 20)?);
        }
    }
    let mut pieces = task.pieces()?;
    let mut counts: Vec<BTreeMap<&[u8], u32>> = vec![BTreeMap::new(); pieces.reducers() as usize];
    for word in text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        let reducer = word.iter().map(|byte| *byte as usize).sum::<usize>() % counts.len();
        *counts[reducer].entry(word).or_default() += 1;
    }
    for (reducer, counts) in (0..).zip(&counts).filter(|(_, counts)| !counts.is_empty()) {
        let lines = counts.iter().map(|(word, count)| format!("{}\t{count}\n", String::from_utf8_lossy(word)));
        // A frame is opaque: what counts as a record is the engine's.
        pieces.write(reducer, counts.values().sum(), lines.collect::<String>().as_bytes())?;
    }
    pieces.finish()
}

/// Adds what all files have of the words of this reducer.
fn sum(task: &TaskContext) -> Result<Output, TaskError> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for frame in task.frames(0, task.partition())? {
        let bytes = frame?.bytes;
        for line in String::from_utf8_lossy(&bytes).lines() {
            let (word, count) = line.split_once('\t').ok_or_else(|| TaskError::program(format!("{line:?}")))?;
            let count: u64 = count.parse().map_err(|_| TaskError::program(format!("{line:?}")))?;
            *sums.entry(word.to_owned()).or_default() += count;
        }
    }
    task.count_records(sums.len() as u64);
    Ok(Output::result(sums.iter().map(|(word, sum)| format!("{word}\t{sum}\n")).collect::<String>()))
}
