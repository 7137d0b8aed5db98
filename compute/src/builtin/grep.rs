use regex::bytes::Regex;

use super::{BuiltIn, check_paths};
use crate::{Context, ProgramResult};

pub(super) const GREP: BuiltIn = BuiltIn {
    name: "grep",
    usage: "PATTERN IN OUT",
    about: "keep the lines of text files that match a regular expression",
    check: |arguments| parse(arguments).map(|_| ()),
    run,
};

fn parse(arguments: &[String]) -> Result<(Regex, &str, &str), String> {
    let [pattern, input, output] = arguments else {
        return Err(format!("expected PATTERN, IN and OUT, found {} arguments", arguments.len()));
    };
    check_paths(input, output)?;
    let pattern = Regex::new(pattern).map_err(|error| format!("the pattern is not a regular expression: {error}"))?;
    Ok((pattern, input, output))
}

/// Matching lines, in the order of the input.
fn run(context: &Context, arguments: &[String]) -> ProgramResult {
    let (pattern, input, output) = parse(arguments)?;
    context.text_file(input)?.filter(move |line| pattern.is_match(line)).save_as_text_file(output)?;
    Ok(())
}
