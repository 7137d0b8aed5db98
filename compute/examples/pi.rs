//! Estimates pi with as many tasks as the first argument says.
//!
//! ```text
//! cargo build --release -p situ-compute --example pi
//! situ job submit target/release/examples/pi 8 10000000
//! ```

#![expect(clippy::print_stdout, reason = "what the driver prints is in its log")]

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

fn main() -> ExitCode {
    situ_compute::run(pi)
}

fn pi(context: &Context, arguments: &[String]) -> ProgramResult {
    let [tasks, points] = arguments else { return Err("usage: pi TASKS POINTS".into()) };
    let (tasks, points): (u32, u32) = (tasks.parse()?, points.parse()?);
    let inside = context
        .parallelize((1..=tasks).collect(), tasks)
        .map(move |seed| {
            // A seeded source: every attempt at a task draws the same numbers.
            let mut random = fastrand::Rng::with_seed(u64::from(seed));
            (0..points).filter(|_| random.f64().hypot(random.f64()) <= 1.0).count() as u64
        })
        .reduce(|one, other| one + other)?
        .unwrap_or_default();
    println!("pi is about {}", 4.0 * inside as f64 / (f64::from(tasks) * f64::from(points)));
    Ok(())
}
