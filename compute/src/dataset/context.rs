use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, StageId};
use situ_wire::messages::scheduler::Resources;

use super::graph::{ActionTask, END, Graph, Kept, Node, NodeKind, Parent, node_name};
use super::places::{Places, Preferred};
use super::results::ActionParts;
use super::scope::{Actions, InValue, Scope};
use super::{Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::task::TaskContext;
use crate::program::world::{Backend, Files};

/// Makes datasets, and gives the driver's values to every process of the job ([`Context::once`], [`Context::share`],
/// [`Context::broadcast`]). Cheap to clone; every clone is the same context.
///
/// The program runs in the driver and in every worker: whatever stands between two actions happens in each of these
/// processes, `println!` included; what a worker prints is in its log.
#[derive(Clone)]
pub struct Context {
    backend: Arc<dyn Backend>,
    scope: Arc<Scope>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, scope: Scope::root() }
    }

    /// The context of a scope of the same program.
    pub(super) fn within(&self, scope: Arc<Scope>) -> Self {
        Self { backend: Arc::clone(&self.backend), scope }
    }

    /// The scope that it is of, wherever it is used.
    pub(super) fn own_scope(&self) -> &Arc<Scope> {
        &self.scope
    }

    /// Whether both are of one run of the program.
    pub(super) fn is_same_program(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }

    /// Adds a node without a shuffle and makes the dataset of it.
    pub(super) fn add<T: 'static>(
        &self,
        name: String,
        parents: Vec<Parent>,
        partitions: u32,
        preferred: Preferred,
        compute: impl Fn(&TaskContext, u32) -> Records<T> + Send + Sync + 'static,
    ) -> Dataset<T> {
        let node = self.node(self.next_dataset(1), name, parents, partitions, preferred, NodeKind::Narrow);
        Dataset::new(self.clone(), Arc::new(node), Arc::new(compute))
    }

    /// A node that holds no value of the driver.
    pub(super) fn node(
        &self,
        id: DatasetId,
        name: String,
        parents: Vec<Parent>,
        partitions: u32,
        preferred: Preferred,
        kind: NodeKind,
    ) -> Node {
        assert!(partitions > 0, "every dataset has a partition");
        let (scope, resources) = (self.here(), Resources::default());
        let broken = scope.misplaced(&name);
        Node { id, scope, name, parents, partitions, preferred, kind, resources, value: None, broken }
    }

    /// The first of the next `count` ids.
    pub(super) fn next_dataset(&self, count: u32) -> DatasetId {
        self.here().next_dataset(count)
    }

    /// What is kept outside the program for a dataset, to be released with it.
    pub(super) fn kept(&self, kept: impl FnOnce(std::sync::Weak<dyn Backend>) -> Arc<Kept>) -> Arc<Kept> {
        kept(Arc::downgrade(&self.backend))
    }

    /// Runs an action over the partitions of `parent`.
    pub(super) fn run_action(
        &self,
        name: String,
        parent: Parent,
        task: ActionTask,
    ) -> Result<ActionParts, ProgramError> {
        self.numbered(&name, |action, scope, actions| {
            scope.replays();
            let range = parent.range;
            let places = |places: &Arc<Places>| {
                let first = range.dataset as usize;
                Arc::new(Places::Each(places.slice(first..first + range.count as usize)))
            };
            let preferred = parent.node.preferred.as_ref().map(places);
            let none = task.for_driver && self.backend.driver_files().is_none();
            let expected = if none { 0 } else { range.count as usize };
            let kind = NodeKind::Action { action, task };
            let id = self.next_dataset(1);
            let node = self.node(id, name.clone(), vec![parent], range.count, preferred, kind);
            let graph = Graph::of(Arc::new(Node { value: Some(actions.values), ..node }))?;
            let parts = self.backend.run_action(action, scope.path(), Arc::new(graph))?;
            if parts.len() != expected {
                let message = format!("{} results of {} partitions", parts.len(), range.count);
                return Err(ProgramError::Result { action: name.clone(), message });
            }
            Ok(ActionParts { stage: StageId(id.0, id.1), parts })
        })
    }

    /// The program, or the scope that this thread is in, has come to its end. Where the replay is checked, and tasks have
    /// needed it, that is an action too, which needs a task: a run of the program that goes on where another one ends is found
    /// out.
    pub(crate) fn end(&self) -> Result<(), ProgramError> {
        let Some(scopes) = self.here().scopes_left().filter(|_| self.backend.is_checked()) else { return Ok(()) };
        let name = format!("the end, behind {scopes} scopes");
        let ended = self.numbered(&name, |action, scope, actions| {
            let task = ActionTask { task: Arc::new(|_, _| Bytes::new()), checked: false, for_driver: true };
            let id = DatasetId(scope.id(), END);
            let node = self.node(id, name.clone(), Vec::new(), 1, None, NodeKind::Action { action, task });
            let graph = Graph::of(Arc::new(Node { value: Some(actions.values), ..node }))?;
            self.backend.run_action(action, scope.path(), Arc::new(graph)).map(drop)
        });
        match ended {
            // A thread that is left behind runs one: where it ends is not the program's to say.
            Err(ProgramError::Concurrent { .. }) => Ok(()),
            ended => ended,
        }
    }

    /// Lets the driver compute a value from outside, and gives every run of the program the same one.
    pub(super) fn record(
        &self,
        name: &str,
        mut compute: impl FnMut(ActionId, &dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        self.numbered(name, |action, scope, actions| {
            let value = self.backend.record(action, scope.path(), &mut |files| {
                let _in_value = InValue::begin();
                compute(action, files)
            })?;
            let mut hasher = blake3::Hasher::new_derive_key("situ 2026 the values of a program");
            hasher.update(&actions.values).update(&action.1.to_le_bytes()).update(&value);
            actions.values = *hasher.finalize().as_bytes();
            Ok(value)
        })
    }

    /// Passes over the number of an action that need not run.
    pub(super) fn skip_action(&self, name: &str) -> Result<(), ProgramError> {
        self.numbered(name, |_, _, _| Ok(()))
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        self.backend.as_ref()
    }

    /// Gives an action its number in its scope and lets no other of that run meanwhile.
    pub(super) fn numbered<O>(
        &self,
        name: &str,
        run: impl FnOnce(ActionId, &Scope, &mut Actions) -> Result<O, ProgramError>,
    ) -> Result<O, ProgramError> {
        let scope = self.here();
        if let Some(error) = scope.over().or_else(|| scope.misplaced(name)) {
            return Err(error);
        }
        let mut actions = scope.begin_action(name)?;
        let action = ActionId(scope.id(), actions.next);
        actions.next += 1;
        let result = run(action, &scope, &mut actions);
        scope.end_action(actions).and(result)
    }

    /// The name of an operation at the caller's caller.
    pub(super) fn name(operation: &str, place: &Location<'_>) -> String {
        node_name(operation, place)
    }
}
