//! The programs of the jobs that run under fire: built in, but shown to nobody.

use std::process::ExitCode;

use situ_compute::{Context, Dataset, ProgramError, ProgramResult, Text};

/// Words counted by detours, in several stages, and saved twice.
pub(super) const DETOURS: &str = "chaos-detours";
/// What lets it save both at once.
pub(super) const AT_ONCE: &str = "at-once";
/// K-means for as many rounds as are asked for.
pub(super) const ROUNDS: &str = "chaos-rounds";
/// What makes a scope of each round.
pub(super) const SCOPES: &str = "scopes";

/// Over how many partitions what is shuffled is spread.
pub(super) const PARTITIONS: u32 = 3;

/// Runs one of them as a process of a job; none if it is not one of them.
#[must_use]
pub fn run(name: &str, arguments: &[String]) -> Option<ExitCode> {
    let program = match name {
        DETOURS => detours,
        ROUNDS => rounds,
        _ => return None,
    };
    Some(situ_compute::run_with(arguments, program))
}

/// Counts words and saves them, sorted, at `OUT/counted`. Then numbers them by where they happen to stand, takes words and
/// counts apart, brings them together by these numbers, and saves that, which must be the same, at `OUT/joined`: what is
/// computed again after a loss must come out as before, or words get others' counts. With [`AT_ONCE`] both are done by two
/// threads, each in a scope of its own.
fn detours(context: &Context, arguments: &[String]) -> ProgramResult {
    let (input, output, at_once) = match arguments {
        [input, output] => (input, output, false),
        [input, output, at_once] if at_once == AT_ONCE => (input, output, true),
        _ => return Err(format!("usage: IN OUT [{AT_ONCE}]").into()),
    };
    let counted =
        context.words(input)?.map(|word| (word, 1_u64)).reduce_by_key(|one, other| one + other, PARTITIONS).persist();
    let (first, second) = (format!("{output}/counted"), format!("{output}/joined"));
    if at_once {
        let in_scope = |name, save: &dyn Fn() -> Result<(), ProgramError>| context.scope(name, |_| save());
        return std::thread::scope(|threads| {
            let saving = [
                threads.spawn(|| in_scope("counted", &|| save(&counted, &first))),
                threads.spawn(|| in_scope("joined", &|| save(&joined(&counted), &second))),
            ];
            for saved in saving.map(|thread| thread.join()) {
                saved.map_err(|_| "one of the threads panicked")??;
            }
            Ok(())
        });
    }
    save(&counted, &first)?;
    Ok(save(&joined(&counted), &second)?)
}

fn joined(counted: &Dataset<(Text, u64)>) -> Dataset<(Text, u64)> {
    let numbered = counted.map_partitions_with_index(|partition, records| {
        (0_u64..).zip(records).map(move |(place, record)| (u64::from(partition) << 32 | place, record))
    });
    let words = numbered.map(|(number, (word, _))| (number, word));
    let counts = numbered.map(|(number, (_, count))| (number, count));
    words.join(&counts, PARTITIONS).map(|(_, counted)| counted)
}

fn save(counted: &Dataset<(Text, u64)>, output: &str) -> Result<(), ProgramError> {
    counted.sort_by_key(PARTITIONS)?.save_as_text_file(output)
}

type Point = (f64, f64);

/// K-means with an action a round, for `ROUNDS` rounds, however still its centers stand.
fn rounds(context: &Context, arguments: &[String]) -> ProgramResult {
    let (points, rounds, in_scopes) = match arguments {
        [points, rounds] => (points, rounds, false),
        [points, rounds, scopes] if scopes == SCOPES => (points, rounds, true),
        _ => return Err(format!("usage: POINTS ROUNDS [{SCOPES}]").into()),
    };
    let (points, rounds): (u32, u32) = (points.parse()?, rounds.parse()?);
    // On a spiral, so that there is always something to move.
    let place = |number: u32| {
        let turn = f64::from(number) / 50.0;
        (turn * turn.cos(), turn * turn.sin())
    };
    let points = context.parallelize((0..points).map(place).collect(), PARTITIONS).persist();
    let mut centers: Vec<Point> = points.take(4)?;
    for _ in 0..rounds {
        let sums = || {
            let known = centers.clone();
            points
                .map(move |point| (nearest(&known, point), (point, 1_u32)))
                .reduce_by_key(|(one, many), (other, more)| ((one.0 + other.0, one.1 + other.1), many + more), 1)
                .collect()
        };
        let sums = if in_scopes { context.scope("round", |_| sums())? } else { sums()? };
        for (center, ((x, y), count)) in sums {
            centers[center] = (x / f64::from(count), y / f64::from(count));
        }
    }
    Ok(())
}

fn nearest(centers: &[Point], point: Point) -> usize {
    let distance = |center: &Point| (center.0 - point.0).hypot(center.1 - point.1);
    let nearest = centers.iter().map(distance).enumerate().min_by(|one, other| one.1.total_cmp(&other.1));
    nearest.map_or(0, |(center, _)| center)
}
