use regex::bytes::Regex;

use super::{BuiltIn, check_paths, text_option};
use crate::{Context, ProgramResult, TextOptions};

pub(super) const GREP: BuiltIn = BuiltIn {
    name: "grep",
    usage: "PATTERN IN OUT [--recursive] [--plain]",
    about: "keep the lines of text files that match a regular expression",
    check: |arguments| parse(arguments).map(|_| ()),
    run,
};

pub(super) struct Arguments<'a> {
    pattern: Regex,
    input: &'a str,
    output: &'a str,
    pub(super) options: TextOptions,
}

pub(super) fn parse(arguments: &[String]) -> Result<Arguments<'_>, String> {
    let (mut arguments, mut options) = (arguments, TextOptions::default());
    // Only behind the others: a pattern may look like an option.
    while let [before @ .., last] = arguments
        && before.len() >= 3
        && let Some(more) = text_option(last, options)
    {
        (arguments, options) = (before, more);
    }
    let [pattern, input, output] = arguments else {
        return Err(format!("expected PATTERN, IN and OUT, found {} arguments", arguments.len()));
    };
    check_paths(input, output)?;
    let pattern = Regex::new(pattern).map_err(|error| format!("the pattern is not a regular expression: {error}"))?;
    Ok(Arguments { pattern, input, output, options })
}

/// Matching lines, in the order of the input.
fn run(context: &Context, arguments: &[String]) -> ProgramResult {
    let Arguments { pattern, input, output, options } = parse(arguments)?;
    context.text_file_with(input, options)?.filter(move |line| pattern.is_match(line)).save_as_text_file(output)?;
    Ok(())
}
