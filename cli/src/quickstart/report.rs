//! What is printed at the end.

use serde_json::json;
use situ_wire::messages::namenode::Liveness;
use situ_wire::messages::scheduler::{Lost, StageOutput, StageStatus};

use super::story::Outcome;
use crate::error::CliResult;
use crate::job::{recovery_text, status_json};
use crate::show::{self, count, escaped, human_size};

/// Node-local, rack-local, elsewhere: attempts of the map stage.
fn localities(stage: Option<&StageStatus>) -> (u32, u32, u32) {
    stage.map_or((0, 0, 0), |stage| {
        let [process, node, rack, any, _] = stage.localities;
        (process + node, rack, any)
    })
}

/// How many characters of a word are shown.
const SHOWN_CHARACTERS: usize = 40;

/// A word as it is shown, for a word is any bytes of any length, and whether it is cut: bytes that are not UTF-8 as `\xNN`,
/// of a long word its beginning and an ellipsis.
fn word_text(word: &[u8]) -> (String, bool) {
    let mut characters = word.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|letter| escaped(letter.encode_utf8(&mut [0; 4])).into_owned());
        valid.chain(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")))
    });
    let text: String = characters.by_ref().take(SHOWN_CHARACTERS).collect();
    match characters.next() {
        Some(_) => (text + "…", true),
        None => (text, false),
    }
}

/// Prints it, as lines or as JSON.
pub(super) fn print(outcome: &Outcome, as_json: bool) -> CliResult {
    let map = outcome.job.stages.iter().find(|stage| matches!(stage.output, StageOutput::Shuffle { .. }));
    let (node, rack, any) = localities(map);
    let before = localities(outcome.kill.stage.as_ref());
    let ratio = outcome.job_cpu_s / outcome.count_cpu_s.max(1e-9);
    if as_json {
        return print_json(outcome, (node, rack, any), before, ratio);
    }
    show::line("\ntop words")?;
    let width = outcome.top.first().map_or(1, |(_, count)| count.to_string().len());
    for (word, count) in &outcome.top {
        show::line(format!("  {count:>width$}  {}", word_text(word).0))?;
    }
    show::line("\nwhere the map tasks ran")?;
    show::line(format!("  {node} node-local, {rack} rack-local, {any} elsewhere"))?;
    let started = before.0 + before.1 + before.2;
    if started > 0 {
        show::line(format!("  before the kill: {} of {started} node-local", before.0))?;
    }
    show::line(format!("\nwhat was lost with {} and how it came back", outcome.kill.node))?;
    if outcome.job.recoveries.is_empty() {
        show::line("  nothing of the job")?;
    }
    for recovery in &outcome.job.recoveries {
        // The datanode was killed with the executor, and with it the replica that a map task there read.
        let input_lost = map.is_some_and(|map| map.stage == recovery.task.stage);
        show::line(format!("  {}", recovery_text(recovery, input_lost)))?;
    }
    show::line(format!(
        "  {}: copied from the others, all whole again after {:.1} s",
        count(outcome.kill.replicas, "replica"),
        outcome.healed_after.as_secs_f64()
    ))?;
    let live = outcome.report.datanodes.iter().filter(|node| node.liveness == Liveness::Live).count();
    show::line("\nin the end")?;
    show::line(format!(
        "  {live} of {} live, {}, {} under-replicated, {} missing, {} corrupt",
        count(outcome.report.datanodes.len() as u64, "datanode"),
        count(outcome.report.blocks, "block"),
        outcome.report.under_replicated,
        outcome.report.missing,
        outcome.report.corrupt
    ))?;
    show::line(format!(
        "  {} of {} counted; {:.2} s of processor time for the job, {:.2} s for the count in one thread: {ratio:.2} times",
        count(outcome.words, "word"),
        human_size(outcome.input_len_bytes),
        outcome.job_cpu_s,
        outcome.count_cpu_s
    ))?;
    show::line(format!("  all of it in {:.1} s", outcome.total.as_secs_f64()))
}

fn print_json(outcome: &Outcome, all: (u32, u32, u32), before: (u32, u32, u32), ratio: f64) -> CliResult {
    let top: Vec<_> = outcome
        .top
        .iter()
        .map(|(word, count)| {
            let (text, cut) = word_text(word);
            json!({ "word": text, "cut": cut, "count": count })
        })
        .collect();
    let tasks =
        |(node, rack, any): (u32, u32, u32)| json!({ "node_local": node, "rack_local": rack, "elsewhere": any });
    let lost = |what: Lost| outcome.job.recoveries.iter().filter(|recovery| recovery.lost == what).count();
    show::json(&json!({
        "input_bytes": outcome.input_len_bytes,
        "words": outcome.words,
        "top": top,
        "result_equals_count": true,
        "put_seconds": outcome.put.as_secs_f64(),
        "count_seconds": outcome.count_wall.as_secs_f64(),
        "count_cpu_seconds": outcome.count_cpu_s,
        "job_seconds": outcome.job_wall.as_secs_f64(),
        "job_cpu_seconds": outcome.job_cpu_s,
        "job_cpu_ratio": ratio,
        "map_tasks": tasks(all),
        "map_tasks_before_kill": tasks(before),
        "killed": {
            "node": outcome.kill.node, "during_job": outcome.kill.during_job, "replicas": outcome.kill.replicas,
            "running_tasks_lost": lost(Lost::RunningTask), "map_outputs_lost": lost(Lost::MapOutput),
        },
        "healed_after_seconds": outcome.healed_after.as_secs_f64(),
        "under_replicated": outcome.report.under_replicated,
        "missing": outcome.report.missing,
        "job": status_json(&outcome.job),
        "total_seconds": outcome.total.as_secs_f64(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_any_bytes_takes_a_part_of_a_line() {
        assert_eq!(word_text("süß".as_bytes()), ("süß".to_owned(), false));
        assert_eq!(word_text(b"a\xff\xfe\x1bb"), (r"a\xff\xfe\033b".to_owned(), false));
        let long = "ü".repeat(SHOWN_CHARACTERS);
        assert_eq!(word_text(long.as_bytes()), (long.clone(), false));
        assert_eq!(word_text(format!("{long}x").as_bytes()), (long + "…", true));
    }
}
