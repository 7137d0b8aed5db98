//! The programs of the jobs that run under fire: built in, but shown to nobody.

use std::process::ExitCode;

use situ_compute::{Context, Dataset, ProgramResult, Text};

/// Words counted by detours, in several stages, and saved twice.
pub(super) const DETOURS: &str = "chaos-detours";
/// K-means for as many rounds as are asked for.
pub(super) const ROUNDS: &str = "chaos-rounds";

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
/// computed again after a loss must come out as before, or words get others' counts.
fn detours(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output] = arguments else { return Err("usage: IN OUT".into()) };
    let counted =
        context.words(input)?.map(|word| (word, 1_u64)).reduce_by_key(|one, other| one + other, PARTITIONS).persist();
    save(&counted, &format!("{output}/counted"))?;
    let numbered = counted.map_partitions_with_index(|partition, records| {
        (0_u64..).zip(records).map(move |(place, record)| (u64::from(partition) << 32 | place, record))
    });
    let words = numbered.map(|(number, (word, _))| (number, word));
    let counts = numbered.map(|(number, (_, count))| (number, count));
    let joined = words.join(&counts, PARTITIONS).map(|(_, counted)| counted);
    save(&joined, &format!("{output}/joined"))
}

fn save(counted: &Dataset<(Text, u64)>, output: &str) -> ProgramResult {
    counted.sort_by_key(PARTITIONS)?.save_as_text_file(output)?;
    Ok(())
}

type Point = (f64, f64);

/// K-means with an action a round, for `ROUNDS` rounds, however still its centers stand.
fn rounds(context: &Context, arguments: &[String]) -> ProgramResult {
    let [points, rounds] = arguments else { return Err("usage: POINTS ROUNDS".into()) };
    let (points, rounds): (u32, u32) = (points.parse()?, rounds.parse()?);
    // On a spiral, so that there is always something to move.
    let place = |number: u32| {
        let turn = f64::from(number) / 50.0;
        (turn * turn.cos(), turn * turn.sin())
    };
    let points = context.parallelize((0..points).map(place).collect(), PARTITIONS).persist();
    let mut centers: Vec<Point> = points.take(4)?;
    for _ in 0..rounds {
        let known = centers.clone();
        let sums = points
            .map(move |point| (nearest(&known, point), (point, 1_u32)))
            .reduce_by_key(|(one, many), (other, more)| ((one.0 + other.0, one.1 + other.1), many + more), 1)
            .collect()?;
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
