//! A program of a job whose values are another in each run, as idiomatic Rust makes them; its first argument says how.

use std::collections::{HashMap, HashSet};
use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

fn main() -> ExitCode {
    situ_compute::run(program)
}

/// Words in an order that is another in each run.
fn words() -> HashSet<String> {
    (0..1_000).map(|n| format!("word {n}")).collect()
}

#[expect(clippy::print_stdout, reason = "what the driver prints is the job's output")]
fn program(context: &Context, arguments: &[String]) -> ProgramResult {
    let count = match arguments.first().map(String::as_str).unwrap_or_default() {
        "parallelize" => context.parallelize(words().into_iter().collect(), 4).distinct(3).count()?,
        "large" => {
            let records: Vec<(String, Vec<u8>)> = words().into_iter().map(|word| (word, vec![7; 1_000])).collect();
            context.parallelize(records, 4).map(|(word, _)| word).distinct(3).count()?
        }
        "captured" => {
            let index: HashMap<String, u64> = words().into_iter().zip(0..).collect();
            context.parallelize(words().into_iter().collect(), 4).map(move |word| index[&word]).distinct(3).count()?
        }
        "shared" => {
            let index: HashMap<String, u64> = context.share(words().into_iter().zip(0..).collect())?;
            context.parallelize(words().into_iter().collect(), 4).map(move |word| index[&word]).distinct(3).count()?
        }
        "loop" => {
            let index = context.broadcast(words().into_iter().zip(0..).collect::<HashMap<String, u64>>())?;
            let kept = context.parallelize(words().into_iter().collect(), 2).map(move |word| index[&word]).persist();
            let mut count = 0;
            for round in 0..20_u64 {
                let step = kept.map(move |n| (n % 10, n + round)).persist();
                count += step.reduce_by_key(|one, other| one + other, 2).count()?;
            }
            kept.unpersist();
            count + kept.union(&kept).count()?
        }
        other => return Err(format!("{other:?}: nothing that varies").into()),
    };
    println!("{count}");
    Ok(())
}
