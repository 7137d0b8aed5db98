//! Cuts the clicks of each user into sessions: a user who is silent for half an hour begins a new one.
//!
//! ```text
//! cargo build --release -p situ-compute --example sessions
//! situ fs put clicks.txt /clicks.txt          # "user seconds page" a line, in any order
//! situ job submit target/release/examples/sessions /clicks.txt /sessions
//! situ fs cat '/sessions/part-*'              # user, begin, seconds, clicks, where it began and ended
//! ```

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

/// Such a silence ends a session, in seconds.
const SILENCE: u64 = 30 * 60;

fn main() -> ExitCode {
    situ_compute::run(sessions)
}

fn sessions(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output] = arguments else { return Err("usage: sessions IN OUT".into()) };
    context
        .text_file(input)?
        .flat_map(|line| parse(&line))
        .group_by_key(4)
        .flat_map(|(user, clicks)| cut(&user, clicks))
        .sort_by_key(2)?
        .map(|(_, line)| line)
        .save_as_text_file(output)?;
    Ok(())
}

/// A user, and when they clicked on what.
fn parse(line: &[u8]) -> Option<(String, (u64, String))> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let (user, time, page) = (fields.next()?, fields.next()?, fields.next()?);
    Some((user.to_owned(), (time.parse().ok()?, page.to_owned())))
}

/// The sessions of a user: whose and from when, and a line about each.
fn cut(user: &str, mut clicks: Vec<(u64, String)>) -> Vec<((String, u64), String)> {
    // The values of a key come in no particular order.
    clicks.sort();
    clicks
        .chunk_by(|one, next| next.0 - one.0 < SILENCE)
        .map(|session| {
            let ((begin, first), (end, last)) = (&session[0], &session[session.len() - 1]);
            let line = format!("{user}\t{begin}\t{}\t{}\t{first}\t{last}", end - begin, session.len());
            ((user.to_owned(), *begin), line)
        })
        .collect()
}
