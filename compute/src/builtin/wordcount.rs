use situ_wire::limits::PARTITIONS;

use super::{BuiltIn, check_paths, text_option};
use crate::{Context, ProgramResult, TextOptions};

/// How many partitions the counts get when nobody says.
const REDUCERS: u32 = 4;

pub(super) const WORDCOUNT: BuiltIn = BuiltIn {
    name: "wordcount",
    usage: "IN OUT [--reducers N] [--recursive] [--plain]",
    about: "count how often each word stands in text files",
    check: |arguments| parse(arguments).map(|_| ()),
    run,
};

pub(super) struct Arguments<'a> {
    input: &'a str,
    output: &'a str,
    reducers: u32,
    pub(super) options: TextOptions,
}

pub(super) fn parse(arguments: &[String]) -> Result<Arguments<'_>, String> {
    let (mut paths, mut reducers, mut options) = (Vec::new(), REDUCERS, TextOptions::default());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if let Some(more) = text_option(argument, options) {
            options = more;
            continue;
        }
        let value = match argument.strip_prefix("--reducers") {
            Some("") => arguments.next().map(String::as_str),
            Some(value) => value.strip_prefix('='),
            None => {
                paths.push(argument.as_str());
                continue;
            }
        };
        reducers = value
            .and_then(|value| value.parse().ok())
            .filter(|reducers| (1..=PARTITIONS).contains(reducers))
            .ok_or_else(|| format!("--reducers {:?}: expected a number from 1 to {PARTITIONS}", value.unwrap_or("")))?;
    }
    let [input, output] = paths[..] else {
        return Err(format!("expected IN and OUT, found {} paths", paths.len()));
    };
    check_paths(input, output)?;
    Ok(Arguments { input, output, reducers, options })
}

/// Words are what ASCII white space separates, as bytes. Each part is sorted by word.
fn run(context: &Context, arguments: &[String]) -> ProgramResult {
    let Arguments { input, output, reducers, options } = parse(arguments)?;
    context
        .words_with(input, options)?
        .map(|word| (word, 1_u64))
        .reduce_by_key(|one, other| one + other, reducers)
        .sort_within_partitions()
        .save_as_text_file(output)?;
    Ok(())
}
