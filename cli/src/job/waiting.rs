//! What a job waits for of which nothing goes on.

use serde_json::{Value, json};
use situ_wire::messages::scheduler::{WaitReason, Waiting};
use situ_wire::time::TimeMs;

use crate::show::{count, human_size};

/// What a job waits for at `now`, and for how long nothing of it has run.
pub(super) fn text(waiting: &Waiting, now: TimeMs) -> String {
    let reason = reason_text(&waiting.reason, now);
    match waiting.since.map(|since| now.since(since).as_secs()) {
        Some(rest) if rest > 0 => format!("{reason} (nothing of it has run for {rest} s)"),
        _ => reason,
    }
}

/// The time of this machine, which is taken for the scheduler's too.
pub(super) fn now() -> TimeMs {
    TimeMs(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default())
}

fn reason_text(reason: &WaitReason, now: TimeMs) -> String {
    let within = |until: &TimeMs| format!("within {} s", until.since(now).as_millis().div_ceil(1_000));
    match reason {
        WaitReason::Executors { known } => {
            let known = match known {
                0 => "none has come to the scheduler yet".to_owned(),
                gone => format!("{} known, none of them live", count((*gone).into(), "executor")),
            };
            format!("executors: {known}; start one (`situ executor`), and the job goes on by itself")
        }
        WaitReason::Reports { until } => {
            format!("what is left of it from before: executors tell that {}, and it goes on with it", within(until))
        }
        WaitReason::DriverPlace { drivers } => {
            format!("a place for its driver: no executor takes more than the {drivers} that run; its turn comes")
        }
        WaitReason::DriverBegins { node: None, .. } => "its driver to begin, at its client".to_owned(),
        WaitReason::DriverBegins { node: Some(node), .. } => {
            format!("its driver to begin on {node}, where it is being started")
        }
        WaitReason::Driver => "its driver, which computes by itself and has asked for nothing".to_owned(),
        WaitReason::Slots { slots, jobs } => format!(
            "a free slot: {} taken, by tasks of {}; its turn comes",
            match slots {
                1 => "the only one is".to_owned(),
                all => format!("all {all} are"),
            },
            count((*jobs).into(), "job")
        ),
        WaitReason::Memory { workers, jobs } => format!(
            "memory for its worker: the executors hold {} at once (`memory_bytes` in their configuration), which work for \
             {}; its turn comes",
            count((*workers).into(), "worker"),
            count((*jobs).into(), "other job")
        ),
        WaitReason::Room { cores, memory_bytes, node } => {
            let cores = count((*cores).into(), "core");
            let needs = match memory_bytes {
                0 => cores,
                bytes => format!("{cores} and {}", human_size(*bytes)),
            };
            match node {
                Some(node) => {
                    format!("room for a task that needs {needs}: {node} takes nothing else until it has that")
                }
                None => format!("an executor that has {needs} for a task: none of the live ones is as large"),
            }
        }
        WaitReason::OtherSlot => {
            "a slot nearer to its input, or where its tasks have not failed; others are free".to_owned()
        }
        WaitReason::Excluded { executors, until } => format!(
            "a free slot: there are some only on {} where its tasks failed; {}, that is forgotten",
            count((*executors).into(), "executor"),
            within(until)
        ),
        WaitReason::FileSystem { since, until } => format!(
            "the file system, which has been away for {} s; it is tried again {}",
            now.since(*since).as_secs(),
            within(until)
        ),
        WaitReason::LostOutputs { outputs, until: Some(until) } => format!(
            "{}: the executor that had them may be back {}, else they are computed again",
            count((*outputs).into(), "lost map output"),
            within(until)
        ),
        WaitReason::LostOutputs { outputs, until: None } => {
            format!("{} to be computed again", count((*outputs).into(), "lost map output"))
        }
        WaitReason::DriverRests { lost, until } => format!(
            "its driver, of which {} lost before they began; the next one is made {}",
            if *lost == 1 { "1 attempt was".to_owned() } else { format!("{lost} attempts were") },
            within(until)
        ),
    }
}

/// The same for a program: the reason in a word, what is known of it, and a text for people.
pub(super) fn json(waiting: &Waiting) -> Value {
    let mut value = match &waiting.reason {
        WaitReason::Executors { known } => json!({ "reason": "executors", "known": known }),
        WaitReason::Reports { until } => json!({ "reason": "reports", "until_ms": until.0 }),
        WaitReason::DriverPlace { drivers } => json!({ "reason": "driver place", "drivers": drivers }),
        WaitReason::DriverBegins { node, until } => json!({
            "reason": "driver begins",
            "node": node.as_ref().map(|node| node.0.as_str()),
            "until_ms": until.map(|until| until.0),
        }),
        WaitReason::Driver => json!({ "reason": "driver" }),
        WaitReason::Slots { slots, jobs } => json!({ "reason": "slots", "slots": slots, "jobs": jobs }),
        WaitReason::Memory { workers, jobs } => json!({ "reason": "memory", "workers": workers, "jobs": jobs }),
        WaitReason::Room { cores, memory_bytes, node } => json!({
            "reason": "room", "cores": cores, "memory_bytes": memory_bytes,
            "node": node.as_ref().map(|node| node.0.as_str()),
        }),
        WaitReason::OtherSlot => json!({ "reason": "other slot" }),
        WaitReason::Excluded { executors, until } => {
            json!({ "reason": "excluded", "executors": executors, "until_ms": until.0 })
        }
        WaitReason::FileSystem { since, until } => {
            json!({ "reason": "file system", "away_since_ms": since.0, "until_ms": until.0 })
        }
        WaitReason::LostOutputs { outputs, until } => {
            json!({ "reason": "lost outputs", "outputs": outputs, "until_ms": until.map(|until| until.0) })
        }
        WaitReason::DriverRests { lost, until } => {
            json!({ "reason": "driver rests", "lost": lost, "until_ms": until.0 })
        }
    };
    value["since_ms"] = waiting.since.map(|since| since.0).into();
    value["text"] = text(waiting, now()).into();
    value
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::NodeName;

    use super::*;

    fn said(reason: WaitReason) -> String {
        text(&Waiting { reason, since: Some(TimeMs(2_000)) }, TimeMs(14_500))
    }

    #[test]
    fn what_a_job_waits_for_is_named_and_for_how_long() {
        assert!(said(WaitReason::Executors { known: 0 }).contains("none has come"));
        assert!(said(WaitReason::Executors { known: 1 }).contains("1 executor known, none of them live"));
        assert_eq!(
            said(WaitReason::Slots { slots: 4, jobs: 1 }),
            "a free slot: all 4 are taken, by tasks of 1 job; its turn comes (nothing of it has run for 12 s)"
        );
        let memory = said(WaitReason::Memory { workers: 1, jobs: 1 });
        assert!(memory.starts_with("memory for its worker: the executors hold 1 worker at once"), "{memory}");
        let room = said(WaitReason::Room { cores: 4, memory_bytes: 0, node: None });
        assert!(room.starts_with("an executor that has 4 cores for a task: none of the live"), "{room}");
        let room = said(WaitReason::Room { cores: 1, memory_bytes: 1 << 30, node: Some(NodeName("n1".to_owned())) });
        assert!(room.starts_with("room for a task that needs 1 core and 1.0 GiB: n1 takes nothing else"), "{room}");
        let away = WaitReason::FileSystem { since: TimeMs(1_000), until: TimeMs(15_000) };
        assert!(said(away).starts_with("the file system, which has been away for 13 s; it is tried again within 1 s"));
        let lost = Waiting { reason: WaitReason::LostOutputs { outputs: 2, until: None }, since: None };
        assert_eq!(text(&lost, TimeMs(0)), "2 lost map outputs to be computed again");
    }

    #[test]
    fn a_program_reads_the_reason_in_a_word() {
        let reason = WaitReason::Excluded { executors: 2, until: TimeMs(7) };
        let value = json(&Waiting { reason, since: Some(TimeMs(5)) });
        assert_eq!((&value["reason"], &value["until_ms"]), (&json!("excluded"), &json!(7)));
        assert_eq!(value["since_ms"], 5);
    }
}
