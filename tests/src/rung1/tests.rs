//! Seeds, and the proof that the harness would notice.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::mutants::Mutant;
use super::world::{Outcome, World};
use crate::promises::Violation;

/// How many seeds are run when nobody says otherwise.
const SEEDS: u64 = 300;
/// Within how many seeds each mutant must be caught.
const MUTANT_SEEDS: u64 = 100;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: expected a number")))
}

fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let is_shown = mutant.is_none() && std::env::var("SITU_TRACE").is_ok();
    catch_unwind(AssertUnwindSafe(|| World::new(seed, mutant, is_shown).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let violation = Some(Violation::Panic(text.unwrap_or_default()));
        Outcome { violation, hash: 0, steps: 0, edits: 0, settled_ms: 0 }
    })
}

fn seeds() -> std::ops::Range<u64> {
    let from = number("SITU_SEED");
    let count = number("SITU_SEEDS").unwrap_or(if from.is_some() { 1 } else { SEEDS });
    from.unwrap_or(1)..from.unwrap_or(1) + count
}

#[test]
fn no_seed_breaks_a_promise() {
    let mut broken = Vec::new();
    let (mut steps, mut edits, mut settled_ms) = (0, 0, 0);
    for seed in seeds() {
        let outcome = run(seed, None);
        (steps, edits) = (steps + outcome.steps, edits + outcome.edits);
        settled_ms = settled_ms.max(outcome.settled_ms);
        if let Some(violation) = outcome.violation {
            println!("seed {seed}: {violation}");
            println!("again: SITU_SEED={seed} cargo test -p situ-tests rung1::tests::no_seed -- --nocapture");
            broken.push(seed);
        }
    }
    println!("{} seeds, {steps} steps, {edits} edits, settled after {settled_ms} ms at the latest", seeds().count());
    assert!(broken.is_empty(), "{} seeds broke a promise: {broken:?}", broken.len());
}

#[test]
fn a_seed_always_runs_the_same() {
    for seed in seeds().step_by(10) {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed} runs the same twice");
    }
}

/// Runs a mutant until it is caught; the violation must be one that `fits`.
fn is_caught(mutant: Mutant, fits: impl Fn(&Violation) -> bool) {
    for seed in 1..=MUTANT_SEEDS {
        if let Some(violation) = run(seed, Some(mutant)).violation {
            println!("{mutant:?} is caught by seed {seed}: {violation}");
            assert!(fits(&violation), "{mutant:?} is caught for the wrong reason: {violation}");
            return;
        }
    }
    panic!("{mutant:?} is not caught within {MUTANT_SEEDS} seeds");
}

/// Each mutant and the classes of promises that it breaks.
macro_rules! mutants {
    ($($name:ident: $mutant:ident breaks $($class:ident)|+;)+) => {
        mod mutants_are_caught {
            use super::{Mutant, Violation, is_caught};

            $(
                #[test]
                fn $name() {
                    is_caught(Mutant::$mutant, |violation| matches!(violation, $(Violation::$class(_))|+));
                }
            )+
        }
    };
}

mutants! {
    an_answer_before_the_sync: ReplyBeforeSync breaks Metadata;
    a_disk_that_lies_about_syncs: SyncLies breaks Metadata;
    operations_that_are_forgotten: ForgetOperations breaks Metadata;
    operations_of_one_name: ReuseOperation breaks Metadata;
    an_edit_that_is_left_out: SkipEdit breaks Metadata;
    replicas_reported_in_a_life_they_do_not_have: ReportAnyLife breaks Fencing | Durable | Liveness;
    deletions_by_reports_of_yesterday: StaleReports breaks Fencing | Durable | Liveness;
    replicas_acknowledged_before_they_are_final: AckBeforeFinal breaks Durable;
    copies_that_are_not_made: DropCopies breaks Liveness;
    deletions_that_are_not_made: DropDeletions breaks Liveness;
    doubts_that_nobody_looks_into: DropVerifications breaks Liveness;
    deletions_that_nobody_asked_for: DeleteUnasked breaks Fencing | Durable;
    deletions_of_any_life: DeleteAnyLife breaks Fencing;
    commands_given_again_and_again: RepeatCommands breaks Liveness;
}
