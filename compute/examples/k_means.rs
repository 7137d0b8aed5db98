//! Finds the centers of clusters of points in the plane, by Lloyd's algorithm, until they stand still.
//!
//! ```text
//! cargo build --release -p situ-compute --example k_means
//! situ fs put points.txt /points.txt          # "x y" a line
//! situ job submit target/release/examples/k_means /points.txt /centers 8
//! situ fs cat '/centers/part-*'
//! ```

#![expect(clippy::print_stdout, reason = "what the driver prints is in its log")]

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

/// Where to give up.
const ROUNDS: u32 = 1_000;
/// Centers that move by less stand still.
const STILL: f64 = 1e-9;

type Point = (f64, f64);

fn main() -> ExitCode {
    situ_compute::run(k_means)
}

fn k_means(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output, clusters] = arguments else { return Err("usage: k_means IN OUT CLUSTERS".into()) };
    let points = context.text_file(input)?.flat_map(|line| parse(&line)).persist();
    // The first points will do as a start. What an action gives is the same in every process of the job: so it may be used
    // in the functions that follow.
    let mut centers = points.take(clusters.parse()?)?;
    for round in 1..=ROUNDS {
        // Of a round nothing stays but what it returns, and a worker that comes late need not go through it.
        let sums = context.scope("round", |_| {
            let known = centers.clone();
            points
                .map(move |point| (nearest(&known, point), (point, 1_u64)))
                .reduce_by_key(|(one, many), (other, more)| ((one.0 + other.0, one.1 + other.1), many + more), 2)
                .collect()
        })?;
        let mut moved = 0.0_f64;
        for (center, ((x, y), count)) in sums {
            let mean = (x / count as f64, y / count as f64);
            moved = moved.max(distance(mean, centers[center]));
            centers[center] = mean;
        }
        if moved < STILL {
            println!("{} centers stand still after {round} rounds", centers.len());
            break;
        }
    }
    context.parallelize(centers, 1).save_as_text_file(output)?;
    Ok(())
}

fn parse(line: &[u8]) -> Option<Point> {
    let (x, y) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((x.parse().ok()?, y.parse().ok()?))
}

/// The place of the center that is nearest; of those as near, of the first.
fn nearest(centers: &[Point], point: Point) -> usize {
    let distances = centers.iter().map(|center| distance(*center, point)).enumerate();
    distances.min_by(|one, other| one.1.total_cmp(&other.1)).map_or(0, |(center, _)| center)
}

fn distance(one: Point, other: Point) -> f64 {
    (one.0 - other.0).hypot(one.1 - other.1)
}
