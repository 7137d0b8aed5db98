//! Programs of jobs that are hard to get right, each named by its first argument. Where one must wait for the test that
//! runs it, it waits for a file of this machine to be there: the test makes it.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use situ_compute::{Context, ProgramResult, Text};
use situ_tests::asked;

/// How long anything that must come about may take on a loaded machine. Reaching it is a failure, never a pass.
const LIMIT: Duration = Duration::from_secs(90);
/// How many times a driver and its workers wait for each other.
const ROUNDS: u32 = 5;
/// How long a large record is, of how many records one is large, and which: whoever looks at the first of each 64, and at
/// the first of each 64 behind a multiple of eight, sees none of them.
const LARGE_LEN_BYTES: usize = 700 << 10;
const LARGE_ONE_IN: u64 = 64;
const LARGE_PLACE: u64 = 31;

fn main() -> ExitCode {
    situ_compute::run(program)
}

fn program(context: &Context, arguments: &[String]) -> ProgramResult {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["two-outputs", first, second, go] => two_outputs(context, first, second, go),
        ["numbered", input, names, lens, go] => numbered(context, input, names, lens, go),
        ["large-piece", len_mib] => large_piece(context, len_mib.parse()?),
        ["uneven-sort", records] => uneven_sort(context, records.parse()?),
        ["driver-waits", place] => driver_waits(context, Path::new(place)),
        ["counted-runs", place, maps, ms] => {
            counted_runs(context, place, maps.parse()?, Duration::from_millis(ms.parse()?))
        }
        ["idle-worker", idle, go] => idle_worker(context, Path::new(idle), Path::new(go)),
        ["answers"] => answers(context),
        ["save-slowly", output, go] => save_slowly(context, output, go),
        ["collected", input, hash, half, rest] => collected(context, input, hash, half, rest),
        ["standard-input"] => {
            std::io::stdin().read_to_end(&mut Vec::new())?;
            context.parallelize(vec![1_u8], 1).count()?;
            Ok(())
        }
        _ => Err(format!("{arguments:?}: no such case").into()),
    }
}

/// Answers each line of its standard input, a number, with the sum of the numbers below it.
#[expect(clippy::print_stdout, reason = "it answers there")]
fn answers(context: &Context) -> ProgramResult {
    let read = || {
        let mut line = String::new();
        let len = std::io::stdin().read_line(&mut line).unwrap_or(0);
        (len > 0).then(|| line.trim().to_owned())
    };
    while let Some(line) = asked::next(context, read)? {
        let end = line.parse().map_err(|error| format!("{line:?}: {error}"))?;
        println!("{}", asked::sum_below(context, end)?);
    }
    Ok(())
}

/// Saves one partition at once and the other when the test says so.
fn save_slowly(context: &Context, output: &str, go: &str) -> ProgramResult {
    let go = go.to_owned();
    let numbers = context.parallelize((0..2_u64).collect(), 2).map(move |number| {
        if number > 0 {
            wait_for(Path::new(&go));
        }
        number
    });
    numbers.save_as_text_file(output)?;
    Ok(())
}

/// Collects a text, half of it when the test says so; and then, when it says so again, partition by partition. It is the text
/// of that hash.
fn collected(context: &Context, input: &str, hash: &str, half: &str, rest: &str) -> ProgramResult {
    let half = half.to_owned();
    let parts = context.text_file(input)?.map_partitions_with_index(move |partition, lines| {
        if partition % 2 == 1 {
            wait_for(Path::new(&half));
        }
        // A few long records: without optimization each takes its time.
        let mut lines = lines.peekable();
        std::iter::from_fn(move || {
            lines.peek()?;
            let mut part = String::new();
            for line in lines.by_ref().take(1_000) {
                part.push_str(&String::from_utf8_lossy(&line));
                part.push('\n');
            }
            Some(part)
        })
    });
    let is_right = |found: blake3::Hash, how: &str| {
        let found = found.to_hex();
        if found.as_str() == hash { Ok(()) } else { Err(format!("{how}, the text has the hash {found}, not {hash}")) }
    };
    let mut hasher = blake3::Hasher::new();
    for part in parts.collect()? {
        hasher.update(part.as_bytes());
    }
    is_right(hasher.finalize(), "collected")?;
    context.once(|| wait_for(Path::new(rest)))?;
    hasher.reset();
    for part in parts.to_local_iterator() {
        hasher.update(part?.as_bytes());
    }
    is_right(hasher.finalize(), "partition by partition")?;
    Ok(())
}

/// Saves twice; the tasks of the second save wait for the test.
fn two_outputs(context: &Context, first: &str, second: &str, go: &str) -> ProgramResult {
    let numbers = context.parallelize((0..100_u64).collect(), 2);
    numbers.save_as_text_file(first)?;
    let go = go.to_owned();
    let waiting = numbers.map(move |number| {
        wait_for(Path::new(&go));
        number
    });
    waiting.save_as_text_file(second)?;
    Ok(())
}

/// Numbers words by where they happen to stand and saves the numbers with the words; then again, when the test says so, with
/// their lengths: what was lost in between is computed again and must come out in the same order.
fn numbered(context: &Context, input: &str, names: &str, lens: &str, go: &str) -> ProgramResult {
    let words = context.text_file(input)?.flat_map(Text::into_words).distinct(2);
    let numbered = words.map_partitions_with_index(|partition, words| {
        (0_u64..).zip(words).map(move |(place, word)| (u64::from(partition) << 32 | place, word))
    });
    numbered.save_as_text_file(names)?;
    let go = go.to_owned();
    let waiting = numbered.map_partitions(move |words| {
        wait_for(Path::new(&go));
        words.map(|(number, word)| (number, word.len() as u64, word.iter().map(|byte| u64::from(*byte)).sum::<u64>()))
    });
    waiting.save_as_text_file(lens)?;
    Ok(())
}

/// Moves so many MiB in one piece.
fn large_piece(context: &Context, len_mib: u32) -> ProgramResult {
    let values = context.parallelize((0..len_mib).collect(), 1).flat_map(|mib| {
        (0..1024_u32).map(move |place| {
            let number = u64::from(mib * 1024 + place);
            (number.wrapping_mul(0x9e37_79b9_7f4a_7c15), bytes(number, 1016))
        })
    });
    let count = values.sort_by_key(1)?.count()?;
    if count != u64::from(len_mib) * 1024 {
        return Err(format!("{count} records").into());
    }
    Ok(())
}

/// Sorts records of which few are large.
fn uneven_sort(context: &Context, records: u64) -> ProgramResult {
    let pages = context.parallelize((0..records).collect(), 4).map(|number| {
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let len_bytes = if number % LARGE_ONE_IN == LARGE_PLACE { LARGE_LEN_BYTES } else { 100 };
        (key, bytes(number, len_bytes))
    });
    let ordered = pages.sort_by_key(1)?.map_partitions_with_index(|partition, pages| {
        let (mut count, mut is_sorted, mut first, mut last) = (0_u64, true, None, 0);
        for (key, _) in pages {
            is_sorted &= last <= key;
            first.get_or_insert(key);
            last = key;
            count += 1;
        }
        [(partition, (count, is_sorted), (first.unwrap_or(last), last))]
    });
    let ordered = ordered.collect()?;
    let count: u64 = ordered.iter().map(|part| part.1.0).sum();
    if count != records || !ordered.iter().all(|part| part.1.1) || !ordered.iter().is_sorted_by_key(|part| part.2) {
        return Err(format!("not {records} records in order: {ordered:?}").into());
    }
    Ok(())
}

/// In each round, a driver that has a result waits until a worker has gone on with it, too.
fn driver_waits(context: &Context, place: &Path) -> ProgramResult {
    let numbers = context.parallelize((0..10_u32).collect(), 1);
    for round in 0..ROUNDS {
        numbers.map(move |number| number + round).count()?;
        let passed = place.join(round.to_string());
        // Each process of a job runs the program: what it does between actions happens in all of them.
        if is_driver() {
            wait_for(&passed);
        } else {
            std::fs::write(passed, "")?;
        }
    }
    Ok(())
}

/// Sums numbers in three groups. Each of its tasks takes so long, and leaves a file in `place` for each time that it is run.
fn counted_runs(context: &Context, place: &str, maps: u64, lasts: Duration) -> ProgramResult {
    let run = |kind: &'static str| {
        let place = place.to_owned();
        move |number: u64| {
            let fresh = |time: &u32| {
                std::fs::File::create_new(Path::new(&place).join(format!("{kind}-{number}-{time}"))).is_ok()
            };
            assert!((0..1_000).any(|time| fresh(&time)), "{place} can be written to");
            std::thread::sleep(lasts);
        }
    };
    let (map, reduce) = (run("map"), run("reduce"));
    let pairs = context.parallelize((0..maps).collect(), u32::try_from(maps)?).map(move |number| {
        map(number);
        (number % 3, number)
    });
    let sums = pairs.reduce_by_key(|one, two| one + two, 3).map(move |(group, sum)| {
        reduce(group);
        (group, sum)
    });
    let mut sums = sums.collect()?;
    sums.sort_unstable();
    let expected: Vec<(u64, u64)> =
        (0..3).map(|group| (group, (0..maps).filter(|number| number % 3 == group).sum())).collect();
    if sums != expected {
        return Err(format!("{sums:?} instead of {expected:?}").into());
    }
    Ok(())
}

/// Runs an action, says that it is done, and runs another when the test says so.
fn idle_worker(context: &Context, idle: &Path, go: &Path) -> ProgramResult {
    let numbers = context.parallelize((0..10_u32).collect(), 1);
    numbers.count()?;
    if is_driver() {
        std::fs::write(idle, "")?;
        wait_for(go);
    }
    numbers.map(|number| number + 1).count()?;
    Ok(())
}

/// Bytes that do not become fewer by compression.
fn bytes(seed: u64, len_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; len_bytes];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn is_driver() -> bool {
    std::env::var_os("SITU_ROLE").is_some_and(|role| role == "driver")
}

/// Waits until a file is there; if it does not come, this process ends with a panic.
fn wait_for(path: &Path) {
    let begun = Instant::now();
    while !path.exists() {
        assert!(begun.elapsed() < LIMIT, "{} is not there after {LIMIT:?}", path.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}
