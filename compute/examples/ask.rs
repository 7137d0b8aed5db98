//! Answers at a terminal in how many lines of a text a word stands.
//!
//! ```text
//! cargo build --release -p situ-compute --example ask
//! situ fs put book.txt /book.txt
//! situ job submit --client target/release/examples/ask /book.txt
//! ```

#![expect(clippy::print_stdout, reason = "its driver runs in a terminal")]

use std::io::BufRead;
use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

fn main() -> ExitCode {
    situ_compute::run(ask)
}

fn ask(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input] = arguments else { return Err("usage: ask IN".into()) };
    let lines = context.text_file(input)?.persist();
    // Only the driver has something to read: `once` tells the workers what it was.
    while let Some(word) = context.once(|| std::io::stdin().lock().lines().next().and_then(Result::ok))? {
        let asked = word.clone();
        let found = lines.filter(move |line| line.words().any(|one| one.as_bytes() == asked.as_bytes())).count()?;
        println!("{word}: {found} lines");
    }
    Ok(())
}
