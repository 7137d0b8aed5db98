//! How a worker's run of the program follows its driver's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use situ_wire::ids::{ActionId, ScopeId};

use super::task::TaskControl;
use super::world::ScopePath;
use crate::dataset::Graph;

/// Where a worker's run of the program has got to, shared by the thread that runs it and those that run tasks.
///
/// The program stands still at an action until the result is there, and goes on at once: what it does between two actions
/// then takes the time that the driver's own run takes for it. A task waits until the program has come to its action. Of
/// what the program made, only what the action at which it stands reaches is kept for tasks.
#[derive(Default)]
pub(super) struct Replay {
    positions: Mutex<Positions>,
    changed: Condvar,
}

#[derive(Default)]
struct Positions {
    /// Where each scope stands that was entered and not left, and has come to an action.
    scopes: BTreeMap<ScopeId, Position>,
    /// Scopes that have ended in the driver, as far as that was met here: nobody waits for their tasks.
    over: BTreeSet<ScopeId>,
    /// How the program ended.
    ended: Option<Result<(), Failure>>,
    /// How many tasks wait for the program to come to their actions.
    waiting: usize,
    /// The thread that runs the program; those that it starts are others.
    own: Option<ThreadId>,
    /// What the scopes are called that were entered and not left.
    names: BTreeMap<ScopeId, String>,
    /// How often the program has come to something, or has got it.
    changes: u64,
}

#[derive(Default)]
struct Position {
    path: ScopePath,
    /// Where it stands.
    at: Option<(ActionId, Place)>,
    /// The last action whose result it has got.
    passed: Option<ActionId>,
    /// How it ended.
    ended: Option<Result<(), Failure>>,
    /// Whether the program's own thread was the last that came to something here.
    is_own: bool,
}

/// Where the program's own thread stands still, while no other does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Standing {
    pub(super) scope: ScopePath,
    /// At which action or value; none at the end of the scope.
    pub(super) action: Option<ActionId>,
    /// The same for people.
    pub(super) shown: String,
    /// How often the program had come to something by then.
    pub(super) changes: u64,
}

/// What a task that waits for the program asks about its driver.
pub(super) trait AsksDriver {
    /// Whether the driver was in a scope; true where that may be.
    fn was_in(&self, scope: &ScopePath) -> bool;

    /// How the driver's run differs from one that stands here; none while it may not.
    fn difference(&self, standing: &Standing) -> Option<String>;
}

/// Why the program failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// By its own doing.
    Program(String),
    /// The file system or the scheduler was away for too long. A new worker may have more luck.
    Away(String),
}

enum Place {
    Action(Reached),
    /// The driver records a value under this number.
    Value,
}

/// An action that the program has come to.
#[derive(Clone)]
pub(super) struct Reached {
    /// The digest of its plan.
    pub(super) digest: [u8; 32],
    /// What it reaches.
    pub(super) graph: Arc<Graph>,
}

/// Why an action is not there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NotReached {
    /// The program has its result already: nobody waits for its tasks any more.
    Passed,
    /// The program came to its end without it.
    Ended,
    /// The program came to another action of that number, which needs no tasks.
    Other,
    /// The program is in a scope in which the driver never was.
    Astray(ScopeId),
    /// The program's own thread has come to something else than the driver's.
    Elsewhere(String),
    /// The program failed before it.
    Failed(String),
    /// What the program needs is away, and it has waited long enough.
    Away(String),
    /// Nobody waits for the task any more.
    GivenUp,
}

impl Replay {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// This thread runs the program.
    pub(super) fn begin(&self) {
        self.lock().own = Some(std::thread::current().id());
    }

    fn lock(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The program has come to an action.
    pub(super) fn reach(&self, action: ActionId, scope: &ScopePath, reached: Reached) {
        self.enter(scope);
        self.stand(action.0, Some((action, Place::Action(reached))));
    }

    /// The program has come to a value of the driver.
    pub(super) fn reach_value(&self, action: ActionId, scope: &ScopePath) {
        self.enter(scope);
        self.stand(action.0, Some((action, Place::Value)));
    }

    /// The program has got the result of an action, and goes on.
    pub(super) fn pass(&self, action: ActionId) {
        self.lock().scopes.entry(action.0).or_default().passed = Some(action);
        self.stand(action.0, None);
    }

    fn enter(&self, scope: &ScopePath) {
        let mut positions = self.lock();
        let is_own = positions.own == Some(std::thread::current().id());
        let position = positions.scopes.entry(scope.id()).or_default();
        (position.path, position.is_own) = (scope.clone(), is_own);
    }

    /// The program is in a scope, of which nothing more is known than its name.
    pub(super) fn enter_scope(&self, scope: ScopeId, name: &str) {
        self.lock().names.insert(scope, name.to_owned());
    }

    fn stand(&self, scope: ScopeId, at: Option<(ActionId, Place)>) {
        let mut positions = self.lock();
        positions.changes += 1;
        let before = std::mem::replace(&mut positions.scopes.entry(scope).or_default().at, at);
        drop(positions);
        self.changed.notify_all();
        // Not under the lock: it may be the last to hold a graph.
        drop(before);
    }

    /// A scope has come to its end here, and not yet in the driver.
    pub(super) fn end_scope(&self, scope: &ScopePath, result: Result<(), Failure>) {
        self.enter(scope);
        let mut positions = self.lock();
        positions.changes += 1;
        positions.scopes.entry(scope.id()).or_default().ended = Some(result);
        drop(positions);
        self.changed.notify_all();
    }

    /// A scope has ended in the driver too, and nobody waits for its tasks.
    pub(super) fn leave_scope(&self, scope: ScopeId) {
        let mut positions = self.lock();
        positions.over.insert(scope);
        positions.names.remove(&scope);
        positions.changes += 1;
        let before = positions.scopes.remove(&scope);
        drop(positions);
        self.changed.notify_all();
        drop(before);
    }

    /// The program has ended.
    pub(super) fn end(&self, result: Result<(), Failure>) {
        self.lock().ended = Some(result);
        self.changed.notify_all();
    }

    /// The program cannot go on: what it needs is away, which it does not hear, as its driver did not. Does not come back:
    /// the worker ends.
    pub(super) fn stop(&self, reason: String) -> ! {
        tracing::warn!(reason, "the program stands still for good: a new worker may have more luck");
        self.end(Err(Failure::Away(reason)));
        loop {
            std::thread::park();
        }
    }

    /// The program stands still until a task waits for it to go on; whether one does: none will when the program is over.
    pub(super) fn wait_for_need(&self) -> bool {
        let idle = |positions: &mut Positions| positions.waiting == 0 && positions.ended.is_none();
        let positions = self.changed.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        positions.waiting > 0
    }

    /// Tasks that wait look whether they were given up.
    pub(super) fn wake(&self) {
        // Under the lock: nobody is between looking and waiting.
        let _positions = self.lock();
        self.changed.notify_all();
    }

    /// Whether the program has ended because what it needs is away.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.lock().ended, Some(Err(Failure::Away(_))))
    }

    /// Blocks a task until the program has come to its action, or never will, or nobody waits for the task any more. `at_end`
    /// says that the driver has left all scopes within that of the action.
    pub(super) fn wait_for(
        &self,
        action: ActionId,
        control: &TaskControl,
        driver: &dyn AsksDriver,
        at_end: bool,
    ) -> Result<Reached, NotReached> {
        let mut positions = self.lock();
        let mut waits = false;
        let mut known = BTreeSet::new();
        let found = loop {
            if control.is_given_up() {
                break Err(NotReached::GivenUp);
            }
            if let Some(found) = positions.find(action) {
                break found;
            }
            let inner = positions.scopes.values().map(|position| &position.path);
            let inner = inner.filter(|path| path.is_within(action.0)).find(|path| !known.contains(&path.id()));
            if let Some(path) = inner.filter(|_| at_end).cloned() {
                drop(positions);
                let is_known = driver.was_in(&path);
                positions = self.lock();
                if !is_known {
                    break Err(NotReached::Astray(path.id()));
                }
                known.insert(path.id());
                continue;
            }
            if !waits {
                positions.waiting += 1;
                waits = true;
                self.changed.notify_all();
            }
            if let Some(standing) = positions.standing() {
                drop(positions);
                let difference = driver.difference(&standing);
                positions = self.lock();
                if positions.changes != standing.changes || control.is_given_up() {
                    continue;
                }
                if let Some(difference) = difference {
                    break Err(NotReached::Elsewhere(difference));
                }
            }
            positions = self.changed.wait(positions).unwrap_or_else(PoisonError::into_inner);
        };
        positions.waiting -= usize::from(waits);
        found
    }

    /// How many nodes are kept for tasks.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        let kept = |position: &Position| match &position.at {
            Some((_, Place::Action(reached))) => reached.graph.len(),
            _ => 0,
        };
        self.lock().scopes.values().map(kept).sum()
    }
}

impl Positions {
    /// Where the program's own thread stands still; none while it does not, or another one stands still, too: that may go on
    /// and be what the first waits for.
    fn standing(&self) -> Option<Standing> {
        let mut still = self.scopes.values().filter(|position| position.at.is_some() || position.ended.is_some());
        let (first, None) = (still.next()?, still.next()) else { return None };
        if !first.is_own || self.ended.is_some() {
            return None;
        }
        let (action, what) = match (&first.at, &first.ended) {
            (Some((action, Place::Action(reached))), None) => (Some(*action), reached.graph.name().to_owned()),
            (Some((action, Place::Value)), None) => (Some(*action), "a value that the driver records".to_owned()),
            (None, Some(_)) => (None, "the end".to_owned()),
            _ => return None,
        };
        let scope = first.path.clone();
        let name = self.names.get(&scope.id()).map_or("", String::as_str);
        Some(Standing { shown: shown(&what, name), scope, action, changes: self.changes })
    }

    /// An action that the program has come to, or why it will not; none while it is under way to it.
    fn find(&self, action: ActionId) -> Option<Result<Reached, NotReached>> {
        if self.over.contains(&action.0) {
            return Some(Err(NotReached::Passed));
        }
        let position = self.scopes.get(&action.0);
        if let Some(Position { at, passed, .. }) = position {
            match at {
                Some((at, Place::Action(reached))) if *at == action => return Some(Ok(reached.clone())),
                Some((at, Place::Value)) if *at == action => return Some(Err(NotReached::Other)),
                _ if passed.is_some_and(|passed| passed >= action) => return Some(Err(NotReached::Passed)),
                Some((at, _)) if *at > action => return Some(Err(NotReached::Other)),
                _ => {}
            }
        }
        // Who stands at its end waits for the driver there, and comes to no other scope.
        let stands_at_end = |root: &Position| match &root.at {
            Some((_, Place::Action(reached))) => reached.graph.is_end(),
            _ => false,
        };
        if action.0 != ScopeId::ROOT && self.scopes.get(&ScopeId::ROOT).is_some_and(stands_at_end) {
            return Some(Err(NotReached::Ended));
        }
        let ended = position.and_then(|position| position.ended.as_ref()).or(self.ended.as_ref())?;
        Some(Err(match ended {
            Ok(()) => NotReached::Ended,
            Err(Failure::Program(error)) => NotReached::Failed(error.clone()),
            Err(Failure::Away(error)) => NotReached::Away(error.clone()),
        }))
    }
}

/// What stands in a scope of this name, for people.
pub(super) fn shown(what: &str, scope: &str) -> String {
    if scope.is_empty() { what.to_owned() } else { format!("{what}, in {scope}") }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::ScopeId;

    use super::*;

    /// A driver of which nothing is known.
    struct Unknown;

    impl AsksDriver for Unknown {
        fn was_in(&self, _: &ScopePath) -> bool {
            true
        }

        fn difference(&self, _: &Standing) -> Option<String> {
            None
        }
    }

    #[test]
    fn a_task_that_waits_for_the_program_hears_that_it_is_given_up() {
        let (replay, control) = (Replay::new(), Arc::new(TaskControl::default()));
        let waiting = std::thread::spawn({
            let (replay, control) = (Arc::clone(&replay), Arc::clone(&control));
            move || replay.wait_for(ActionId(ScopeId::ROOT, 3), &control, &Unknown, false).err()
        });
        control.give_up();
        replay.wake();
        assert_eq!(waiting.join().unwrap(), Some(NotReached::GivenUp));
    }

    #[test]
    fn the_program_stands_still_until_a_task_needs_it() {
        let replay = Replay::new();
        let action = |number| ActionId(ScopeId::ROOT, number);
        replay.pass(action(0));
        // For what it has passed no task waits.
        assert_eq!(
            replay.wait_for(action(0), &TaskControl::default(), &Unknown, false).err(),
            Some(NotReached::Passed)
        );
        let (need, needed) = std::sync::mpsc::channel();
        let program = std::thread::spawn({
            let replay = Arc::clone(&replay);
            move || {
                need.send(replay.wait_for_need()).unwrap();
                replay.reach_value(action(1), &ScopePath::default());
            }
        });
        assert_eq!(needed.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
        assert_eq!(replay.wait_for(action(1), &TaskControl::default(), &Unknown, false).err(), Some(NotReached::Other));
        assert_eq!(needed.recv(), Ok(true));
        program.join().unwrap();
        replay.end(Ok(()));
        assert!(!replay.wait_for_need(), "and none does any more");
    }

    #[test]
    fn what_is_away_is_not_the_programs_fault() {
        let replay = Replay::new();
        replay.end(Err(Failure::Away("the namenode is away".to_owned())));
        let why = replay.wait_for(ActionId(ScopeId::ROOT, 3), &TaskControl::default(), &Unknown, false).err();
        assert_eq!((why, replay.is_away()), (Some(NotReached::Away("the namenode is away".to_owned())), true));
    }
}
