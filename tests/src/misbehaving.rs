//! A program of a job that misbehaves as its first argument says.

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

fn main() -> ExitCode {
    situ_compute::run(program)
}

fn program(context: &Context, arguments: &[String]) -> ProgramResult {
    let kind = arguments.first().map(String::as_str).unwrap_or_default();
    let numbers = context.parallelize((0..100_u64).collect(), 4);
    match kind {
        "error" => return Err("the moon is in the wrong house".into()),
        "panic" => {
            numbers.map(|number| if number == 57 { panic!("57 is not to be counted") } else { number }).count()?;
        }
        "abort" => {
            numbers.map(|number| if number == 57 { std::process::abort() } else { number }).count()?;
        }
        "loop" => {
            numbers.map(never_ends).count()?;
        }
        "save" => {
            // One partition is written before the other never ends.
            let output = arguments.get(1).map(String::as_str).unwrap_or_default();
            let half = context.parallelize((0..2_u64).collect(), 2);
            half.map(|number| if number == 0 { number } else { never_ends(number) }).save_as_text_file(output)?;
        }
        "eat" => {
            numbers
                .map(|number| {
                    let mut eaten = Vec::new();
                    while eaten.len() < 1 << 20 {
                        eaten.push(vec![1_u8; 1 << 20]);
                    }
                    number + eaten.len() as u64
                })
                .count()?;
        }
        "stop" => {
            // Only the first task stops its process, as whoever takes its processor away for long would.
            let mark = arguments.get(1).cloned().unwrap_or_default();
            let this = rustix::process::getpid();
            let stop = move |number| {
                let is_first = number == 0 && std::fs::File::create_new(&mark).is_ok();
                if is_first && rustix::process::kill_process(this, rustix::process::Signal::STOP).is_ok() {
                    // It takes a moment.
                    return never_ends(number);
                }
                number
            };
            context.parallelize(vec![0_u64], 1).map(stop).count()?;
        }
        "read" => {
            let mut read = String::new();
            std::io::Read::read_to_string(&mut std::io::stdin(), &mut read)?;
            numbers.count()?;
        }
        "differ" => {
            // A graph that depends on which process builds it.
            let partitions = if std::env::var_os("SITU_ATTEMPT").is_some() { 2 } else { 3 };
            numbers.map(|number| (number, 1_u64)).reduce_by_key(|one, two| one + two, partitions).count()?;
        }
        other => return Err(format!("{other:?}: not a way to misbehave").into()),
    }
    Ok(())
}

fn never_ends(number: u64) -> u64 {
    while std::hint::black_box(number) < 1000 {
        std::thread::yield_now();
    }
    number
}
