//! Finds for every word the documents in which it occurs.
//!
//! ```text
//! cargo build --release -p situ-compute --example inverted_index
//! situ fs put -r documents /documents         # of each line, the first word says of which document it is
//! situ job submit target/release/examples/inverted_index '/documents/*' /index
//! situ fs cat '/index/part-*' | grep '^situ'
//! ```

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult, Text};

fn main() -> ExitCode {
    situ_compute::run(inverted_index)
}

fn inverted_index(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output] = arguments else { return Err("usage: inverted_index IN OUT".into()) };
    context
        .text_file(input)?
        .flat_map(|line| {
            let mut words = line.into_words();
            let document = words.next();
            words.filter_map(move |word| Some((word, document.clone()?)))
        })
        // Each pair once: a long document that says a word often says it once here.
        .distinct(4)
        .group_by_key(4)
        .map_values(|mut documents| {
            documents.sort();
            Text::from(documents.iter().map(Text::as_bytes).collect::<Vec<_>>().join(&b' '))
        })
        .sort_by_key(2)?
        .save_as_text_file(output)?;
    Ok(())
}
