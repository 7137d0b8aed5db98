//! How a worker's run of the program follows its driver's.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use situ_wire::ids::{ActionId, DatasetId};

/// Where a worker's run of the program has got to, shared by the thread that runs it and those that run tasks.
///
/// The program stands still at an action until a task is there that belongs to a later one: by then the action's result
/// is known, and before that nobody needs what comes behind it.
#[derive(Default)]
pub(super) struct Replay {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The actions that the program has come to: the digest of the plan and its last node.
    reached: BTreeMap<ActionId, Reached>,
    /// The latest action that a task belongs to.
    needed: Option<ActionId>,
    /// How the program ended.
    ended: Option<Result<(), String>>,
}

/// An action that the program has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reached {
    /// The digest of its plan.
    pub(super) digest: [u8; 32],
    /// The last node of its plan.
    pub(super) last: DatasetId,
}

/// Why an action is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NotReached {
    /// The program came to its end without it.
    Ended,
    /// The program came to another action of that number, which needs no tasks.
    Other,
    /// The program failed before it.
    Failed(String),
}

impl Replay {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program has come to an action.
    pub(super) fn reach(&self, action: ActionId, reached: Reached) {
        self.lock().reached.insert(action, reached);
        self.changed.notify_all();
    }

    /// Blocks the program until a task belongs to an action later than `action`.
    pub(super) fn wait_until_passed(&self, action: ActionId) {
        let state = self.lock();
        let passed = |state: &mut State| state.needed.is_none_or(|needed| needed <= action);
        drop(self.changed.wait_while(state, passed).unwrap_or_else(PoisonError::into_inner));
    }

    /// The program has ended.
    pub(super) fn end(&self, result: Result<(), String>) {
        self.lock().ended = Some(result);
        self.changed.notify_all();
    }

    /// Blocks a task until the program has come to its action.
    pub(super) fn wait_for(&self, action: ActionId) -> Result<Reached, NotReached> {
        let mut state = self.lock();
        if state.needed.is_none_or(|needed| needed < action) {
            state.needed = Some(action);
            self.changed.notify_all();
        }
        let waiting = |state: &mut State| {
            let passed = state.reached.last_key_value().is_some_and(|(last, _)| *last >= action);
            !passed && state.ended.is_none()
        };
        let state = self.changed.wait_while(state, waiting).unwrap_or_else(PoisonError::into_inner);
        match (state.reached.get(&action), &state.ended) {
            (Some(reached), _) => Ok(*reached),
            (None, None) => Err(NotReached::Other),
            (None, Some(Ok(()))) => Err(NotReached::Ended),
            (None, Some(Err(error))) => Err(NotReached::Failed(error.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const REACHED: Reached = Reached { digest: [1; 32], last: DatasetId(4) };

    #[test]
    fn a_program_waits_at_an_action_until_a_later_one_has_a_task() {
        let replay = Replay::new();
        let program = {
            let replay = Arc::clone(&replay);
            thread::spawn(move || {
                replay.reach(ActionId(1), REACHED);
                replay.wait_until_passed(ActionId(1));
                replay.reach(ActionId(3), Reached { last: DatasetId(9), ..REACHED });
                replay.wait_until_passed(ActionId(3));
                replay.end(Err("broken".to_owned()));
            })
        };
        assert_eq!(replay.wait_for(ActionId(1)), Ok(REACHED));
        assert!(!program.is_finished());
        assert_eq!(replay.wait_for(ActionId(3)).unwrap().last, DatasetId(9));
        assert_eq!(replay.wait_for(ActionId(2)), Err(NotReached::Other));
        assert_eq!(replay.wait_for(ActionId(1)), Ok(REACHED), "earlier stages may be computed again");
        assert_eq!(replay.wait_for(ActionId(4)), Err(NotReached::Failed("broken".to_owned())));
        program.join().unwrap();
    }

    #[test]
    fn a_program_that_ends_early_is_noticed() {
        let replay = Replay::new();
        replay.end(Ok(()));
        assert_eq!(replay.wait_for(ActionId(0)), Err(NotReached::Ended));
    }
}
