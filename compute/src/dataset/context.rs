use std::panic::Location;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId};

use super::graph::{Graph, Node, NodeKind, ResultTask, node_name};
use super::places::Preferred;
use super::{Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::task::TaskContext;
use crate::program::world::{Backend, Files};

/// Makes datasets. Cheap to clone; every clone is the same context.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    graph: Arc<RwLock<Graph>>,
    backend: Box<dyn Backend>,
    /// The number of the next action. Held while an action runs: the order of actions is what their numbers mean.
    next_action: Mutex<u32>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(graph: Arc<RwLock<Graph>>, backend: Box<dyn Backend>) -> Self {
        Self { shared: Arc::new(Shared { graph, backend, next_action: Mutex::new(0) }) }
    }

    /// Adds a node without a shuffle and makes the dataset of it.
    pub(super) fn add<T: 'static>(
        &self,
        name: String,
        parents: Vec<DatasetId>,
        partitions: u32,
        preferred: Preferred,
        compute: impl Fn(&TaskContext, u32) -> Records<T> + Send + Sync + 'static,
    ) -> Dataset<T> {
        let id = self.graph_mut(|graph| {
            graph.add(Node { name, parents, partitions, preferred: preferred.clone(), kind: NodeKind::Narrow })
        });
        Dataset::new(self.clone(), id, partitions, preferred, Arc::new(compute))
    }

    pub(super) fn graph_mut<O>(&self, change: impl FnOnce(&mut Graph) -> O) -> O {
        change(&mut self.shared.graph.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs an action over partitions of `parent`.
    pub(super) fn run_action(
        &self,
        name: String,
        parent: DatasetId,
        partitions: u32,
        preferred: Preferred,
        task: impl FnOnce(ActionId) -> ResultTask,
    ) -> Result<Vec<Bytes>, ProgramError> {
        self.numbered(&name, |action| {
            let plan = self.graph_mut(|graph| {
                let kind = NodeKind::Action { action, task: task(action) };
                let last = graph.add(Node { name: name.clone(), parents: vec![parent], partitions, preferred, kind });
                graph.plan(last)
            });
            let results = self.shared.backend.run_action(action, plan)?;
            if results.len() != partitions as usize {
                let message = format!("{} results of {partitions} partitions", results.len());
                return Err(ProgramError::Result { action: name.clone(), message });
            }
            Ok(results)
        })
    }

    /// Lets the driver compute a value from outside, and gives every run of the program the same one.
    pub(super) fn record(
        &self,
        name: &str,
        mut compute: impl FnMut(ActionId, &dyn Files) -> Bytes,
    ) -> Result<Bytes, ProgramError> {
        self.numbered(name, |action| self.shared.backend.record(action, &mut |files| compute(action, files)))
    }

    /// Passes over the number of an action that need not run.
    pub(super) fn skip_action(&self, name: &str) -> Result<(), ProgramError> {
        self.numbered(name, |_| Ok(()))
    }

    pub(super) fn backend(&self) -> &dyn Backend {
        self.shared.backend.as_ref()
    }

    /// Gives an action its number and lets no other run meanwhile.
    fn numbered<O>(
        &self,
        name: &str,
        run: impl FnOnce(ActionId) -> Result<O, ProgramError>,
    ) -> Result<O, ProgramError> {
        let mut next = match self.shared.next_action.try_lock() {
            Ok(next) => next,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(ProgramError::Concurrent { action: name.to_owned() }),
        };
        let action = ActionId(*next);
        *next += 1;
        run(action)
    }

    /// The name of an operation at the caller's caller.
    pub(super) fn name(operation: &str, place: &Location<'_>) -> String {
        node_name(operation, place)
    }
}
