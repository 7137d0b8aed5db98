//! Finds the words of a text that are made of the same letters.
//!
//! ```text
//! cargo build --release -p situ-compute --example anagrams
//! situ fs put book.txt /book.txt
//! situ job submit target/release/examples/anagrams /book.txt /anagrams
//! situ fs cat '/anagrams/part-*'
//! ```

#![expect(clippy::print_stdout, reason = "what the driver prints is in its log")]

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult, Text};

fn main() -> ExitCode {
    situ_compute::run(anagrams)
}

fn anagrams(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output] = arguments else { return Err("usage: anagrams IN OUT".into()) };
    let groups = context
        .text_file(input)?
        .flat_map(Text::into_words)
        .map(|word| word.to_ascii_lowercase())
        .filter(|word| word.len() > 3 && word.is_ascii() && word.iter().all(u8::is_ascii_alphabetic))
        .distinct(4)
        .key_by(|word| {
            let mut letters = word.clone();
            letters.sort_unstable();
            letters
        })
        .group_by_key(4)
        .filter(|(_, words)| words.len() > 1)
        .persist();
    println!("{} groups of anagrams", groups.count()?);
    groups
        .map(|(_, mut words)| {
            words.sort();
            Text::from(words.join(&b' '))
        })
        .save_as_text_file(output)?;
    Ok(())
}
