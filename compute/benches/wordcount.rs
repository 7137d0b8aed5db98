//! The CPU time of word count as tasks compute it, against a plain count of the same file in one thread.
//!
//! `cargo bench -p situ-compute --bench wordcount [-- MIB]`. Both run on one thread over a file in the page cache, in
//! turn; the ratio of the medians is what counts.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use situ_compute::program::local::{LocalOptions, StillClock, context};
use situ_runtime::disk::fs::FsDisk;

const ROUNDS: usize = 5;

fn main() {
    let mib = std::env::args().filter_map(|argument| argument.parse::<usize>().ok()).next().unwrap_or(64);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let files = directory.path().join("files");
    fs::create_dir(&files).expect("a directory");
    fs::write(files.join("in"), text(mib << 20)).expect("the input");
    let (mut plain, mut tasks) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let start = cpu_time();
        let expected = count_plainly(&files.join("in"));
        plain.push(cpu_time() - start);
        let start = cpu_time();
        let counted = count_by_tasks(directory.path(), round);
        tasks.push(cpu_time() - start);
        assert_eq!(counted, expected, "both count the same");
    }
    plain.sort();
    tasks.sort();
    let (plain, tasks) = (plain[ROUNDS / 2], tasks[ROUNDS / 2]);
    println!("{mib} MiB: plain {plain:.3?}, tasks {tasks:.3?}, ratio {:.2}", tasks.as_secs_f64() / plain.as_secs_f64());
}

/// The CPU time of this thread, as the kernel counts it.
fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with scheduler statistics");
    let nanoseconds = text.split_whitespace().next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the first number is the time on a CPU"))
}

/// Distinct words and all words, as a single-threaded program counts them.
fn count_plainly(path: &Path) -> (u64, u64) {
    let bytes = fs::read(path).expect("the input");
    let mut counts: HashMap<&[u8], u64, foldhash::fast::FixedState> = HashMap::default();
    for word in bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
        *counts.entry(word).or_insert(0) += 1;
    }
    (counts.len() as u64, counts.values().sum())
}

/// The same through map tasks, shuffle files and reduce tasks.
fn count_by_tasks(directory: &Path, round: usize) -> (u64, u64) {
    let context = context(FsDisk, StillClock, directory, LocalOptions::default());
    let output = format!("/out-{round}");
    context
        .words("/in")
        .and_then(|words| {
            let counts = words.map(|word| (word, 1_u64)).reduce_by_key(|one, other| one + other, 4);
            counts.sort_within_partitions().save_as_text_file(&output)
        })
        .expect("the job");
    let (mut distinct, mut all) = (0, 0);
    for part in 0..4 {
        let text =
            fs::read(directory.join("files").join(&output[1..]).join(format!("part-{part:05}"))).expect("a part");
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let tab = line.iter().position(|byte| *byte == b'\t').expect("a tab");
            distinct += 1;
            all += std::str::from_utf8(&line[tab + 1..]).expect("digits").parse::<u64>().expect("a number");
        }
    }
    (distinct, all)
}

/// Text with words as often as in a natural language, by Zipf's law.
fn text(len_bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(1);
    let vocabulary: Vec<String> = (0..100_000_u32)
        .map(|rank| {
            let len = 2 + (rank + 1).ilog2() as usize / 2 + random.usize(0..3);
            (0..len).map(|_| random.char('a'..='z')).collect()
        })
        .collect();
    let mut weights = Vec::with_capacity(vocabulary.len());
    let mut sum = 0.0;
    for rank in 1..=vocabulary.len() {
        sum += 1.0 / (rank as f64 + 2.7);
        weights.push(sum);
    }
    let mut text = Vec::with_capacity(len_bytes + 32);
    let mut in_line = 0;
    while text.len() < len_bytes {
        let at = random.f64() * sum;
        let word = &vocabulary[weights.partition_point(|weight| *weight < at)];
        text.extend_from_slice(word.as_bytes());
        in_line += word.len() + 1;
        text.push(if in_line > 80 { b'\n' } else { b' ' });
        if in_line > 80 {
            in_line = 0;
        }
    }
    text
}
