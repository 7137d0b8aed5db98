use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use situ_wire::ids::{ActionId, DatasetId, ShuffleId};
use situ_wire::messages::executor::ShufflePiece;
use situ_wire::messages::scheduler::{PartitionRange, Resources, Work};

use crate::dataset::places::Preferred;
use crate::dataset::scope::Scope;
use crate::program::error::ProgramError;
use crate::program::task::TaskContext;
use crate::program::world::{Backend, Released};

/// Writes one partition's part of a shuffle.
pub(crate) type MapTask = Arc<dyn Fn(&TaskContext, u32) -> Vec<ShufflePiece> + Send + Sync>;
/// Computes one partition's result of an action.
pub(crate) type ResultTask = Arc<dyn Fn(&TaskContext, u32) -> Bytes + Send + Sync>;

/// What an action does.
pub(crate) struct ActionTask {
    pub(crate) task: ResultTask,
    /// Whether a check of the replay may compute it twice.
    pub(crate) checked: bool,
    /// Whether the driver alone uses what it gives.
    pub(crate) for_driver: bool,
}

/// One node of the lineage: a dataset, or what ends a stage. It lives as long as somebody may ask for it: a handle of its
/// dataset, a node that is made from it, or the action under way.
pub(crate) struct Node {
    /// Its place among all that its scope made.
    pub(crate) id: DatasetId,
    /// Where it was made; when that has ended, it is of no use.
    pub(crate) scope: Arc<Scope>,
    /// Its operation and where in the program it stands.
    pub(crate) name: String,
    /// What it is made from.
    pub(crate) parents: Vec<Parent>,
    pub(crate) partitions: u32,
    pub(crate) preferred: Preferred,
    pub(crate) kind: NodeKind,
    /// What a task needs that computes it.
    pub(crate) resources: Resources,
    /// The digest of the driver's value that it holds.
    pub(crate) value: Option<[u8; 32]>,
    /// Why no action can compute it.
    pub(crate) broken: Option<ProgramError>,
}

/// A parent of a node, and which of its partitions which of the node's are made from.
#[derive(Clone)]
pub(crate) struct Parent {
    pub(crate) node: Arc<Node>,
    /// `stage` counts the partitions of the node, `dataset` those of the parent.
    pub(crate) range: PartitionRange,
}

impl Node {
    /// Why no action can compute it.
    pub(super) fn unusable(&self) -> Option<ProgramError> {
        self.broken.clone().or_else(|| self.scope.over())
    }
}

/// What a node is to the stages.
pub(crate) enum NodeKind {
    /// A source, or made from its parents partition by partition.
    Narrow,
    /// As [`NodeKind::Narrow`], and kept in memory once computed.
    Persisted(Arc<Kept>),
    /// Splits its parent for a shuffle, which the next node reads.
    MapSide { reducers: u32, task: MapTask },
    /// Reads the shuffle that its parent writes.
    ReduceSide {
        #[expect(dead_code, reason = "it is held, not asked")]
        kept: Arc<Kept>,
    },
    /// A stage by itself, whose tasks do what travels with the plan. Its parents are those whose shuffles it reads.
    Carried(Carried),
    /// Computes an action's result.
    Action { action: ActionId, task: ActionTask },
}

/// What the tasks of a stage do that the program says nothing of, and what becomes of it.
pub(crate) struct Carried {
    pub(crate) work: Work,
    pub(crate) output: CarriedOutput,
}

/// What becomes of a partition of a carried stage.
pub(crate) enum CarriedOutput {
    /// It is not said yet.
    Nothing,
    /// It is split for the shuffle that has the next number.
    Shuffle { reducers: u32, _kept: Arc<Kept> },
    /// It goes to the driver.
    Result { action: ActionId },
}

impl Parent {
    /// Each partition of a node is made from the one of the same number.
    pub(crate) fn whole(node: &Arc<Node>) -> Self {
        Self::part(node, 0, 0, node.partitions)
    }

    /// `count` partitions of a node, from `first` on, are made from those of a parent, from `of_parent` on.
    pub(crate) fn part(node: &Arc<Node>, first: u32, of_parent: u32, count: u32) -> Self {
        assert!(of_parent + count <= node.partitions, "a parent has the partitions that are read");
        Self { node: Arc::clone(node), range: PartitionRange { stage: first, dataset: of_parent, count } }
    }
}

/// What is kept outside the program for a node: the pieces of a shuffle, or the partitions of a persisted dataset. Shared
/// by the node and by the functions that read it; released when the last of them is dropped, or before.
pub(crate) struct Kept {
    what: Released,
    released: AtomicBool,
    /// Whom to tell. When the program has ended, nobody.
    backend: Weak<dyn Backend>,
}

impl Kept {
    pub(crate) fn shuffle(shuffle: ShuffleId, backend: Weak<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { what: Released::Shuffle(shuffle), released: AtomicBool::new(false), backend })
    }

    pub(crate) fn dataset(dataset: DatasetId, backend: Weak<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { what: Released::Dataset(dataset), released: AtomicBool::new(false), backend })
    }

    /// Nobody reads it any more.
    pub(crate) fn release(&self) {
        if !self.released.swap(true, Ordering::AcqRel)
            && let Some(backend) = self.backend.upgrade()
        {
            backend.release(self.what);
        }
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}
