use std::panic::Location;
use std::sync::Arc;

use situ_wire::ids::DatasetId;
use situ_wire::messages::scheduler::Resources;

use super::graph::{Node, NodeKind, Parent};
use super::places::Preferred;
use super::{Context, Records};
use crate::program::task::TaskContext;

/// Computes a partition.
pub(super) type Compute<T> = Arc<dyn Fn(&TaskContext, u32) -> Records<T> + Send + Sync>;

/// Records of type `T`, in partitions, not computed before an action asks. Cheap to clone; every clone is the same
/// dataset. When the last clone of it and of what is made from it is dropped, what was kept for it goes too: the pieces of
/// its shuffles, its persisted partitions, the functions and what they have captured.
///
/// ```no_run
/// use situ_compute::{Context, ProgramResult, Text};
///
/// fn program(context: &Context, arguments: &[String]) -> ProgramResult {
///     let [input, output] = arguments else { return Err("usage: count IN OUT".into()) };
///     context
///         .text_file(input)?
///         .flat_map(Text::into_words)
///         .map(|word| (word, 1_u64))
///         .reduce_by_key(|one, other| one + other, 4)
///         .save_as_text_file(output)?;
///     Ok(())
/// }
///
/// fn main() -> std::process::ExitCode {
///     situ_compute::run(program)
/// }
/// ```
pub struct Dataset<T> {
    pub(super) context: Context,
    pub(super) node: Arc<Node>,
    pub(super) id: DatasetId,
    pub(super) partitions: u32,
    pub(super) preferred: Preferred,
    pub(super) compute: Compute<T>,
}

impl<T> Clone for Dataset<T> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            node: Arc::clone(&self.node),
            id: self.id,
            partitions: self.partitions,
            preferred: self.preferred.clone(),
            compute: Arc::clone(&self.compute),
        }
    }
}

impl<T> std::fmt::Debug for Dataset<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset").field("id", &self.id).field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

impl<T> Dataset<T> {
    pub(super) fn new(context: Context, node: Arc<Node>, compute: Compute<T>) -> Self {
        let (id, partitions, preferred) = (node.id, node.partitions, node.preferred.clone());
        Self { context, node, id, partitions, preferred, compute }
    }

    /// It as the parent of a dataset made from it partition by partition.
    pub(super) fn parent(&self) -> Vec<Parent> {
        vec![Parent::whole(&self.node)]
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Its id: its place in the program's lineage graph.
    #[must_use]
    pub fn id(&self) -> DatasetId {
        self.id
    }

    /// The context that made it.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }
}

impl<T: 'static> Dataset<T> {
    /// The same records. Each task that computes them, and whatever else the same task does, takes as many slots of its
    /// executor as have these cores and this memory: what it gathers may take so much before it spills.
    #[track_caller]
    #[must_use]
    pub fn with_resources(&self, resources: Resources) -> Self {
        let name = Context::name("with_resources", Location::caller());
        let (parents, preferred) = (self.parent(), self.preferred.clone());
        let id = self.context.next_dataset(1);
        let node = self.context.node(id, name, parents, self.partitions, preferred, NodeKind::Narrow);
        Self::new(self.context.clone(), Arc::new(Node { resources, ..node }), Arc::clone(&self.compute))
    }

    /// A dataset made from this one partition by partition.
    pub(super) fn narrow<U: 'static>(
        &self,
        name: String,
        apply: impl Fn(u32, Records<T>) -> Records<U> + Send + Sync + 'static,
    ) -> Dataset<U> {
        let compute = Arc::clone(&self.compute);
        self.context.add(name, self.parent(), self.partitions, self.preferred.clone(), move |task, partition| {
            apply(partition, compute(task, partition))
        })
    }
}
