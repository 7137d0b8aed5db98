//! What happens to whom and when: a function of the seed alone.

use std::time::Duration;

use crate::up::Member;

/// The shortest pause, and how often the longest of the usual ones is twice as long: 50 ms to 3.2 s.
const SHORTEST_MS: u64 = 50;
const DOUBLINGS: u32 = 5;
/// One pause in so many outlasts what [`Timings::Quick`](crate::up::Timings::Quick) waits for before it gives somebody up.
const LONG_ONE_IN: u32 = 8;
const LONG_MS: std::ops::Range<u64> = 6_000..10_000;

/// A fault: a rest, and then something happens to somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How long to wait before it.
    pub rest: Duration,
    /// Whom it befalls.
    pub victim: Victim,
    /// What it is.
    pub kind: FaultKind,
    /// How long it lasts: then who was killed is started again, and who was stopped goes on.
    pub lasts: Duration,
}

/// Whom a fault befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// A role of the cluster.
    Role(Member),
    /// One of the drivers that run then: the number says which, counted around.
    Driver(u8),
    /// One of the workers that run then; likewise.
    Worker(u8),
}

/// What befalls somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, and SIGCONT when it is over.
    Pause,
}

/// So many kills and pauses of a cluster of `nodes` nodes, in an order and with victims that `seed` alone decides.
#[must_use]
pub fn schedule(seed: u64, kills: u32, pauses: u32, nodes: u16) -> Vec<Fault> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let kinds = [(FaultKind::Kill, kills), (FaultKind::Pause, pauses)];
    let mut kinds: Vec<FaultKind> =
        kinds.into_iter().flat_map(|(kind, times)| std::iter::repeat_n(kind, times as usize)).collect();
    rng.shuffle(&mut kinds);
    kinds.into_iter().map(|kind| fault(&mut rng, kind, usize::from(nodes.max(1)))).collect()
}

fn fault(rng: &mut fastrand::Rng, kind: FaultKind, nodes: usize) -> Fault {
    let rest = Duration::from_millis(rng.u64(..400));
    let victim = match rng.u8(..12) {
        0 | 1 => Victim::Role(Member::Namenode),
        2 | 3 => Victim::Role(Member::Scheduler),
        4..=6 => Victim::Role(Member::Datanode(rng.usize(..nodes))),
        7 | 8 => Victim::Role(Member::Executor(rng.usize(..nodes))),
        9 => Victim::Driver(rng.u8(..)),
        _ => Victim::Worker(rng.u8(..)),
    };
    let lasts_ms = match kind {
        FaultKind::Kill => rng.u64(..600),
        FaultKind::Pause if rng.u32(..LONG_ONE_IN) == 0 => rng.u64(LONG_MS),
        FaultKind::Pause => {
            let at_least = SHORTEST_MS << rng.u32(..=DOUBLINGS);
            rng.u64(at_least..2 * at_least)
        }
    };
    Fault { rest, victim, kind, lasts: Duration::from_millis(lasts_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(schedule(7, 20, 30, 4), schedule(7, 20, 30, 4));
        assert_ne!(schedule(7, 20, 30, 4), schedule(8, 20, 30, 4));
    }

    #[test]
    fn everything_happens_to_everybody_and_as_often_as_was_asked() {
        let faults = schedule(1, 300, 500, 2);
        let of = |kind| faults.iter().filter(move |fault| fault.kind == kind);
        assert_eq!((of(FaultKind::Kill).count(), of(FaultKind::Pause).count()), (300, 500));
        for member in [Member::Namenode, Member::Scheduler, Member::Datanode(1), Member::Executor(0)] {
            for kind in [FaultKind::Kill, FaultKind::Pause] {
                assert!(of(kind).any(|fault| fault.victim == Victim::Role(member)), "{kind:?} of {member:?}");
            }
        }
        let long = of(FaultKind::Pause).filter(|fault| fault.lasts >= Duration::from_secs(6)).count();
        assert!((30..100).contains(&long), "some outlast every time-out: {long}");
        assert!(of(FaultKind::Pause).all(|fault| fault.lasts >= Duration::from_millis(50)));
    }
}
