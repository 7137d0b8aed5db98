//! Ranks pages by the links between them, as PageRank does.
//!
//! ```text
//! cargo build --release -p situ-compute --example page_rank
//! situ fs put links.txt /links.txt            # "from to" a line
//! situ job submit target/release/examples/page_rank /links.txt /ranks 10
//! situ fs cat '/ranks/part-*' | sort -k2 -g -r | head
//! ```

use std::process::ExitCode;

use situ_compute::{Context, ProgramResult};

/// How many partitions the pages are spread over.
const PARTITIONS: u32 = 3;

fn main() -> ExitCode {
    situ_compute::run(page_rank)
}

fn page_rank(context: &Context, arguments: &[String]) -> ProgramResult {
    let [input, output, rounds] = arguments else { return Err("usage: page_rank IN OUT ROUNDS".into()) };
    let rounds: u32 = rounds.parse()?;
    // Each page with the pages that it links to: kept in memory, for every round asks for them.
    let links =
        context.text_file(input)?.flat_map(|line| parse(&line)).distinct(PARTITIONS).group_by_key(PARTITIONS).persist();
    let mut ranks = links.map(|(page, _)| (page, 1.0));
    for _ in 0..rounds {
        ranks = links
            .join(&ranks, PARTITIONS)
            .flat_map(|(_, (targets, rank))| {
                let share = rank / targets.len() as f64;
                targets.into_iter().map(move |target| (target, share))
            })
            .reduce_by_key(|one, other| one + other, PARTITIONS)
            .map_values(|sum| 0.15 + 0.85 * sum);
    }
    ranks.sort_by_key(PARTITIONS)?.save_as_text_file(output)?;
    Ok(())
}

fn parse(line: &[u8]) -> Option<(String, String)> {
    let (from, to) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((from.to_owned(), to.to_owned()))
}
