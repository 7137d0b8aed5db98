//! Stages whose tasks are given to them, and what they leave for each other.

use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use situ_wire::codec;
use situ_wire::ids::StageId;
use situ_wire::limits::{NAME_LEN_BYTES, PARTITIONS, WORK_LEN_BYTES};
use situ_wire::messages::scheduler::{self, Payload, ReduceTotal, Resources, TaskLocation};
use situ_wire::path::DfsPath;

use super::Context;
use super::graph::{Carried, CarriedOutput, Graph, Kept, Node, NodeKind, Parent, shuffle_of};
use super::places::Places;
use super::results::ActionParts;
use super::values::{Encoded, EncodedValue};
use crate::program::error::{ProgramError, StorageError};
use crate::program::world::Files;

/// What the tasks of a stage do: bytes for an [`Engine`](crate::engine::Engine) of the program, the same for all of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Work {
    kind: String,
    bytes: Bytes,
}

impl Work {
    /// Work for the engine that the program has registered as `kind`. Above 64 KiB it goes by way of a file of the job.
    pub fn new(kind: &str, bytes: impl Into<Bytes>) -> Self {
        Self { kind: kind.to_owned(), bytes: bytes.into() }
    }
}

/// A stage that is being described: nothing is computed before [`Stage::run`], or before what it fills is needed. Made by
/// [`Context::stage`].
#[derive(Clone)]
pub struct Stage {
    context: Context,
    /// What it is called, and where in the program it stands.
    name: String,
    partitions: u32,
    work: Work,
    reads: Vec<Arc<Node>>,
    near: Vec<Vec<TaskLocation>>,
    resources: Resources,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("name", &self.name).field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// What the tasks of a [`Stage`] leave for those of later ones. Cheap to clone; it goes when the last clone and the last
/// stage that reads it are dropped.
#[derive(Clone)]
pub struct Shuffle {
    context: Context,
    node: Arc<Node>,
    reducers: u32,
}

impl std::fmt::Debug for Shuffle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shuffle")
            .field("name", &self.node.name)
            .field("reducers", &self.reducers)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// A stage of `partitions` tasks that do `work`, each for the partition of its number. See [`crate::engine`].
    #[track_caller]
    #[must_use]
    pub fn stage(&self, name: &str, partitions: u32, work: Work) -> Stage {
        Stage {
            context: self.clone(),
            name: Self::name(name, Location::caller()),
            partitions,
            work,
            reads: Vec::new(),
            near: Vec::new(),
            resources: Resources::default(),
        }
    }
}

impl Stage {
    /// Its tasks read this shuffle: the one that is named first is their input 0, and so on.
    #[must_use]
    pub fn reads(mut self, shuffle: &Shuffle) -> Self {
        self.reads.push(Arc::clone(&shuffle.node));
        self
    }

    /// Where the input of each partition lies, best first.
    #[must_use]
    pub fn near(mut self, places: Vec<Vec<TaskLocation>>) -> Self {
        self.near = places;
        self
    }

    /// What each of its tasks needs; one slot if nothing is said.
    #[must_use]
    pub fn resources(mut self, resources: Resources) -> Self {
        self.resources = resources;
        self
    }

    /// Its tasks fill a shuffle of `reducers` partitions. They run when it is needed, and again when some of it is lost.
    ///
    /// # Errors
    /// When what was said of it cannot be, or its work cannot be stored.
    pub fn shuffle(self, reducers: u32) -> Result<Shuffle, ProgramError> {
        if !(1..=PARTITIONS).contains(&reducers) {
            return Err(self.wrong(format!("{reducers} reduce partitions; 1 to {PARTITIONS} are allowed")));
        }
        let context = self.context.clone();
        // The shuffle's own number is the next one.
        let id = context.next_dataset(2);
        let kept = context.kept(|backend| Kept::shuffle(shuffle_of(id), backend));
        let node = self.node(id, CarriedOutput::Shuffle { reducers, _kept: kept })?;
        Ok(Shuffle { context, node: Arc::new(node), reducers })
    }

    /// Runs it; the results of its tasks, in order.
    ///
    /// # Errors
    /// When what was said of it cannot be, or the job fails.
    pub fn run(self) -> Result<Vec<Bytes>, ProgramError> {
        let (context, partitions, name) = (self.context.clone(), self.partitions, self.name.clone());
        let id = context.next_dataset(1);
        // Its number is that of the action, which is known only when that begins.
        let node = self.node(id, CarriedOutput::Nothing)?;
        let parts = context.run_carried(&name, partitions as usize, |action, value| {
            let NodeKind::Carried(carried) = node.kind else { unreachable!("it was made so") };
            let kind = NodeKind::Carried(Carried { output: CarriedOutput::Result { action }, ..carried });
            Arc::new(Node { kind, value: Some(value), ..node })
        })?;
        context.fetch_all(&name, &ActionParts { stage: StageId(id.0, id.1), parts })
    }

    fn node(self, id: situ_wire::ids::DatasetId, output: CarriedOutput) -> Result<Node, ProgramError> {
        let partitions = self.partitions;
        if !(1..=PARTITIONS).contains(&partitions) {
            return Err(self.wrong(format!("{partitions} partitions; 1 to {PARTITIONS} are allowed")));
        }
        if !self.near.is_empty() && self.near.len() != partitions as usize {
            return Err(self.wrong(format!("places for {} partitions; it has {partitions}", self.near.len())));
        }
        if self.work.kind.len() > NAME_LEN_BYTES {
            let found = self.work.kind.len();
            return Err(self.wrong(format!("a kind of work with {found} bytes; at most {NAME_LEN_BYTES} are allowed")));
        }
        let work = self.context.carry(&self.name, &self.work)?;
        let Self { context, name, reads, near, resources, .. } = self;
        let parents = reads.iter().map(Parent::whole).collect();
        let preferred = (!near.is_empty()).then(|| Arc::new(Places::Each(near)));
        let kind = NodeKind::Carried(Carried { work, output });
        Ok(Node { resources, ..context.node(id, name, parents, partitions, preferred, kind) })
    }

    fn wrong(&self, message: String) -> ProgramError {
        ProgramError::Argument { operation: self.name.clone(), message }
    }
}

impl Shuffle {
    /// Among how many partitions it splits.
    #[must_use]
    pub fn reducers(&self) -> u32 {
        self.reducers
    }

    /// Fills it now, if it is not full: what there is of each reduce partition. A program that has seen this has seen a
    /// result: should what it was made of not come out the same again, the job fails.
    ///
    /// # Errors
    /// When the job fails.
    pub fn fill(&self) -> Result<Vec<ReduceTotal>, ProgramError> {
        let name = &self.node.name;
        let totals = self.context.run_carried(name, self.reducers as usize, |_, _| Arc::clone(&self.node))?;
        let decode = |total: &Bytes| codec::decode(total);
        totals
            .iter()
            .map(decode)
            .collect::<Result<_, _>>()
            .map_err(|error| ProgramError::Result { action: name.clone(), message: error.to_string() })
    }
}

impl Context {
    /// Puts work where a plan takes it along.
    fn carry(&self, name: &str, work: &Work) -> Result<scheduler::Work, ProgramError> {
        let Work { kind, bytes } = work.clone();
        if bytes.len() <= WORK_LEN_BYTES {
            let digest = *blake3::hash(&bytes).as_bytes();
            return Ok(scheduler::Work { kind, digest, payload: Payload::Inline(bytes) });
        }
        let encode = || Ok(Encoded { bytes: bytes.to_vec(), head_len: bytes.len() });
        let (value, _) = self.ship(name, &mut { encode })?;
        let lost = || ProgramError::Result { action: name.to_owned(), message: "its work is no file".to_owned() };
        let path = value.stored_at().ok_or_else(lost)?.clone();
        let payload = Payload::Stored { path, len_bytes: bytes.len() as u64 };
        Ok(scheduler::Work { kind, digest: value.hash, payload })
    }

    /// Runs an action that ends in what `last` gives.
    fn run_carried(
        &self,
        name: &str,
        results: usize,
        last: impl FnOnce(situ_wire::ids::ActionId, [u8; 32]) -> Arc<Node>,
    ) -> Result<Vec<Bytes>, ProgramError> {
        self.numbered(name, |action, scope, actions| {
            let graph = Graph::of(last(action, actions.values))?;
            let found = self.backend().run_action(action, scope.path(), Arc::new(graph))?;
            if found.len() == results {
                return Ok(found);
            }
            let message = format!("{} results instead of {results}", found.len());
            Err(ProgramError::Result { action: name.to_owned(), message })
        })
    }
}

/// Reads work that goes by way of a file, checked.
pub(crate) fn read_stored(
    files: &dyn Files,
    path: &DfsPath,
    len_bytes: u64,
    hash: &[u8; 32],
) -> Result<Bytes, StorageError> {
    EncodedValue::stored(path.clone(), len_bytes, *hash).read(files, || ())
}
