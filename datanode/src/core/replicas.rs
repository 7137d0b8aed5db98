//! The replicas of a datanode and the rules of their lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use situ_wire::block::Block;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::{BlockId, GenerationStamp, StorageId};
use situ_wire::messages::datanode::WriteStage;
use situ_wire::messages::namenode::{ReplicaChange, ReportedReplica};
use situ_wire::time::TimeMs;

use super::volumes::Volumes;
use super::{Effect, RequestId, WriteGrant, WriterEnd, WriterId};
use crate::storage::{Health, IndexedReplica, Prior, ScannedReplica};

/// A replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replica {
    /// Its life.
    pub generation: GenerationStamp,
    /// Its volume.
    pub storage: StorageId,
    /// How many bytes it has; of one that is being written, how many it began with.
    pub len_bytes: u64,
    /// Its state.
    pub state: ReplicaState,
}

/// The state of a replica.
///
/// ```text
///             Create                    Final
///   (none) ------------> BeingWritten --------> Finalized ---> Corrupt
///                         ^   |  ^                | |             |
///                  Resume |   |  +----------------+ |             |
///                         |   v       Resume        | Invalidate  | Invalidate
///                        Abandoned                  v             v
///                            +------------------> Deleting ---> (none)
///                              Invalidate, time
/// ```
///
/// Whoever wants a replica that is being written or deleted waits until that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaState {
    /// A writer has it.
    BeingWritten {
        /// Which.
        writer: WriterId,
        /// How much it may hold at most.
        limit_bytes: u64,
        /// Whether the writer was told to stop.
        stopping: bool,
        /// Whether it is deleted as soon as the writer has stopped.
        doomed: bool,
    },
    /// Its writer is gone; it waits to be resumed.
    Abandoned {
        /// Until when.
        until: TimeMs,
    },
    /// Its bytes are final and whole.
    Finalized,
    /// Its bytes are not those that were written, and its files are kept aside; or they cannot be read, and its files
    /// stay where they are until the next start looks at them again. Never served.
    Corrupt,
    /// Its files are being deleted.
    Deleting,
}

/// Somebody who waits until a replica is free.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: RequestId,
    block: Block,
    stage: WriteStage,
    limit_bytes: u64,
}

/// All replicas: at most one of each block.
#[derive(Debug)]
pub struct Replicas {
    replicas: BTreeMap<BlockId, Replica>,
    /// Final replicas in the same life on further volumes, as a disk that comes back brings them. They go when the
    /// block's replica has been verified; when it is bad or lost, one takes its place.
    spares: BTreeMap<BlockId, Vec<Replica>>,
    waiting: BTreeMap<BlockId, Waiting>,
    writers: BTreeMap<WriterId, BlockId>,
    abandoned: BTreeSet<(TimeMs, BlockId)>,
    next_writer: u64,
    keep_abandoned: Duration,
    /// Room on the volumes.
    pub volumes: Volumes,
    /// What is to be done.
    pub effects: VecDeque<Effect>,
    /// What the namenode is to be told.
    pub changes: Vec<ReplicaChange>,
}

impl Replicas {
    /// No replicas yet. One whose writer is gone is kept for `keep_abandoned`.
    #[must_use]
    pub fn new(volumes: Volumes, keep_abandoned: Duration) -> Self {
        Self {
            replicas: BTreeMap::new(),
            spares: BTreeMap::new(),
            waiting: BTreeMap::new(),
            writers: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            next_writer: 0,
            keep_abandoned,
            volumes,
            effects: VecDeque::new(),
            changes: Vec::new(),
        }
    }

    /// Takes in a replica that was found at start. Of two of one block, on two volumes, the newer life stays; of two in
    /// the same life both do, until one of them has been verified.
    pub fn found(&mut self, storage: StorageId, scanned: &ScannedReplica) {
        let ScannedReplica { block, len_bytes, health } = *scanned;
        let state = match health {
            // One that could not be read is judged when all are found: only then it is known whether there is a spare.
            Health::Final | Health::Unreadable => ReplicaState::Finalized,
            Health::Corrupt => ReplicaState::Corrupt,
        };
        let new = Replica { generation: block.generation, storage, len_bytes, state };
        if let Some(old) = self.replicas.get(&block.id).copied() {
            // Of the same life the one that can be served stays.
            let rank = |replica: &Replica| (replica.generation, replica.state == ReplicaState::Finalized);
            if rank(&old) == rank(&new) && state == ReplicaState::Finalized {
                return self.spares.entry(block.id).or_default().push(new);
            }
            if rank(&old) >= rank(&new) {
                return self.delete_files(storage, block);
            }
            self.drop_spares(block.id);
            self.remove(block.id);
            let old_block = Block { id: block.id, generation: old.generation };
            self.delete_files(old.storage, old_block);
        }
        self.insert(block.id, new);
        if state == ReplicaState::Corrupt {
            self.changes.push(ReplicaChange::Corrupt { block });
        }
    }

    /// Blocks with a final replica on more than one volume.
    pub fn with_spares(&self) -> impl Iterator<Item = Block> + '_ {
        let block = |id: &BlockId| Some(Block { id: *id, generation: self.get(*id)?.generation });
        self.spares.keys().filter_map(block)
    }

    /// Deletes the spares of a block.
    fn drop_spares(&mut self, id: BlockId) {
        for spare in self.spares.remove(&id).unwrap_or_default() {
            self.unindex(spare.storage, id);
            self.delete_files(spare.storage, Block { id, generation: spare.generation });
        }
    }

    /// Lets a spare take the place of a final replica that is bad or lost, if there is one.
    fn replace(&mut self, id: BlockId) -> bool {
        let Some(spares) = self.spares.get_mut(&id) else { return false };
        let Some(spare) = spares.pop() else { return false };
        if spares.is_empty() {
            self.spares.remove(&id);
        }
        let Replica { generation, storage, len_bytes, .. } = spare;
        self.remove(id);
        self.insert(id, spare);
        let known = IndexedReplica { generation, len_bytes };
        self.effects.push_back(Effect::Index { storage, id, replica: Some(known) });
        let replica = ReportedReplica { block: Block { id, generation }, len_bytes };
        self.changes.push(ReplicaChange::Received { storage, replica });
        true
    }

    /// The replica of a block.
    #[must_use]
    pub fn get(&self, id: BlockId) -> Option<&Replica> {
        self.replicas.get(&id)
    }

    /// Where the final replica of `block` is and how many bytes it has.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn final_replica(&self, block: Block) -> Result<(StorageId, u64), RemoteError> {
        let refuse = |code, reason: String| Err(RemoteError::new(code, block, reason));
        match self.replicas.get(&block.id) {
            Some(replica) if replica.generation != block.generation => refuse(
                ErrorCode::StaleGeneration,
                format!("this datanode has it in life {}; ask the namenode for the block again", replica.generation),
            ),
            Some(Replica { state: ReplicaState::Finalized, storage, len_bytes, .. }) => Ok((*storage, *len_bytes)),
            Some(Replica { state: ReplicaState::Corrupt, .. }) => refuse(
                ErrorCode::Corrupt,
                "the replica of this datanode is damaged or cannot be read; read another one".to_owned(),
            ),
            Some(Replica { state: ReplicaState::BeingWritten { .. } | ReplicaState::Abandoned { .. }, .. }) => {
                refuse(ErrorCode::Unavailable, "it is being written; try again when it is final".to_owned())
            }
            Some(Replica { state: ReplicaState::Deleting, .. }) | None => {
                refuse(ErrorCode::NotFound, "this datanode has no replica of it; ask the namenode again".to_owned())
            }
        }
    }

    /// The final replicas of a volume, ascending, behind block `after`.
    pub fn final_on(&self, storage: StorageId, after: Option<BlockId>) -> impl Iterator<Item = ReportedReplica> + '_ {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.replicas.range((from, std::ops::Bound::Unbounded)).filter_map(move |(id, replica)| {
            let wanted = replica.storage == storage && replica.state == ReplicaState::Finalized;
            let block = Block { id: *id, generation: replica.generation };
            wanted.then_some(ReportedReplica { block, len_bytes: replica.len_bytes })
        })
    }

    /// All replicas that are damaged.
    pub fn corrupt(&self) -> impl Iterator<Item = Block> + '_ {
        let corrupt = |(id, replica): (&BlockId, &Replica)| {
            (replica.state == ReplicaState::Corrupt).then_some(Block { id: *id, generation: replica.generation })
        };
        self.replicas.iter().filter_map(corrupt)
    }

    /// How many writers there are.
    #[must_use]
    pub fn writers(&self) -> usize {
        self.writers.len()
    }

    /// Somebody asks to write: grants it, refuses it, or lets it wait until who has the replica has let go of it.
    pub fn open_write(&mut self, request: RequestId, block: Block, stage: WriteStage, limit_bytes: u64) {
        let waiting = Waiting { request, block, stage, limit_bytes };
        if let Some(other) = self.waiting.get(&block.id).copied() {
            // Only the newest life goes on.
            let newest = other.block.generation.max(block.generation);
            if newest == other.block.generation {
                return self.refuse(request, stale(block, newest));
            }
            self.waiting.remove(&block.id);
            self.refuse(other.request, stale(other.block, newest));
        }
        self.open(waiting);
    }

    fn open(&mut self, wanted: Waiting) {
        let Waiting { request, block, stage, .. } = wanted;
        let Some(replica) = self.replicas.get(&block.id).copied() else {
            return match stage {
                WriteStage::Create => self.create(wanted),
                WriteStage::Resume { .. } => self.refuse(
                    request,
                    RemoteError::new(ErrorCode::NotFound, block, "this datanode has no replica of it to go on with"),
                ),
            };
        };
        // What is being deleted may be made again in the same life, and so may what a failed copy has left: a client whose
        // pipeline failed comes back with a newer life, so only the namenode's next copy asks for the same one.
        let gone = stage == WriteStage::Create
            && matches!(replica.state, ReplicaState::Deleting | ReplicaState::Abandoned { .. });
        if replica.generation > block.generation || (replica.generation == block.generation && !gone) {
            return self.refuse(request, stale(block, replica.generation));
        }
        match (replica.state, stage) {
            (ReplicaState::BeingWritten { .. }, _) => {
                self.stop_writer(block.id);
                self.waiting.insert(block.id, wanted);
            }
            (ReplicaState::Deleting, _) => {
                self.waiting.insert(block.id, wanted);
            }
            (_, WriteStage::Create) => {
                // An older life does not count any more.
                self.delete(block.id);
                self.waiting.insert(block.id, wanted);
            }
            (ReplicaState::Corrupt, WriteStage::Resume { .. }) => {
                let reason = "the replica of this datanode is damaged";
                self.refuse(request, RemoteError::new(ErrorCode::Corrupt, block, reason));
            }
            (ReplicaState::Abandoned { until }, WriteStage::Resume { len_bytes }) => {
                if self.resume(wanted, replica, len_bytes, Prior::BeingWritten(replica.generation)) {
                    self.abandoned.remove(&(until, block.id));
                }
            }
            (ReplicaState::Finalized, WriteStage::Resume { len_bytes }) => {
                if self.resume(wanted, replica, len_bytes, Prior::Final(replica.generation)) {
                    self.unindex(replica.storage, block.id);
                }
            }
        }
    }

    fn create(&mut self, wanted: Waiting) {
        let Some(storage) = self.volumes.choose(wanted.limit_bytes) else {
            return self.refuse(wanted.request, full(wanted.block, wanted.limit_bytes));
        };
        self.grant(wanted, storage, Prior::Nothing, 0);
    }

    /// Whether the replica may be gone on with from `len_bytes`; then it is.
    fn resume(&mut self, wanted: Waiting, replica: Replica, len_bytes: u64, prior: Prior) -> bool {
        let Waiting { request, block, limit_bytes, .. } = wanted;
        if replica.len_bytes < len_bytes || limit_bytes < len_bytes {
            let reason = format!(
                "it is to go on from {len_bytes} bytes, of at most {limit_bytes}, but this datanode has {}",
                replica.len_bytes
            );
            self.refuse(request, RemoteError::new(ErrorCode::InvalidArgument, block, reason));
            return false;
        }
        if self.volumes.free_bytes(replica.storage) < limit_bytes - len_bytes {
            self.refuse(request, full(block, limit_bytes - len_bytes));
            return false;
        }
        self.drop_spares(block.id);
        self.remove(block.id);
        self.grant(wanted, replica.storage, prior, len_bytes);
        true
    }

    fn grant(&mut self, wanted: Waiting, storage: StorageId, prior: Prior, len_bytes: u64) {
        let Waiting { request, block, limit_bytes, .. } = wanted;
        let writer = WriterId(self.next_writer);
        self.next_writer += 1;
        self.writers.insert(writer, block.id);
        self.volumes.promise(storage, limit_bytes - len_bytes);
        let state = ReplicaState::BeingWritten { writer, limit_bytes, stopping: false, doomed: false };
        self.insert(block.id, Replica { generation: block.generation, storage, len_bytes, state });
        self.effects.push_back(Effect::GrantWrite { request, grant: WriteGrant { writer, storage, prior, len_bytes } });
    }

    /// A writer has let go of its replica.
    pub fn writer_ended(&mut self, now: TimeMs, writer: WriterId, end: WriterEnd) {
        let Some(id) = self.writers.remove(&writer) else { return };
        let Some(mut replica) = self.replicas.get(&id).copied() else {
            // Its volume was ejected meanwhile.
            return self.unconfirmed(writer, end);
        };
        let (limit_bytes, doomed) = match replica.state {
            ReplicaState::BeingWritten { writer: current, limit_bytes, doomed, .. } if current == writer => {
                (limit_bytes, doomed)
            }
            _ => return self.unconfirmed(writer, end),
        };
        let block = Block { id, generation: replica.generation };
        let begun_bytes = replica.len_bytes;
        let len_bytes = match end {
            WriterEnd::Final { len_bytes } | WriterEnd::Abandoned { len_bytes } => len_bytes,
            WriterEnd::Failed => begun_bytes,
        };
        self.volumes.settle(replica.storage, limit_bytes - begun_bytes, len_bytes.saturating_sub(begun_bytes));
        self.remove(id);
        replica.len_bytes = len_bytes;
        replica.state = match end {
            WriterEnd::Final { .. } => ReplicaState::Finalized,
            WriterEnd::Abandoned { .. } | WriterEnd::Failed => {
                ReplicaState::Abandoned { until: now + self.keep_abandoned }
            }
        };
        self.insert(id, replica);
        if let ReplicaState::Abandoned { until } = replica.state {
            self.abandoned.insert((until, id));
        }
        let wanted = self.waiting.contains_key(&id);
        if let WriterEnd::Final { .. } = end {
            let counts = !doomed && !wanted;
            self.effects.push_back(Effect::ConfirmFinal { writer, counts });
            if counts {
                let known = IndexedReplica { generation: replica.generation, len_bytes };
                self.effects.push_back(Effect::Index { storage: replica.storage, id, replica: Some(known) });
                let reported = ReportedReplica { block, len_bytes };
                self.changes.push(ReplicaChange::Received { storage: replica.storage, replica: reported });
            }
        }
        if doomed || end == WriterEnd::Failed {
            self.delete(id);
        } else {
            self.wake(id);
        }
    }

    fn unconfirmed(&mut self, writer: WriterId, end: WriterEnd) {
        if let WriterEnd::Final { .. } = end {
            self.effects.push_back(Effect::ConfirmFinal { writer, counts: false });
        }
    }

    /// The namenode does not want a replica in that life: it goes, and so does an older one, which nobody can want then.
    /// A newer one stays.
    pub fn invalidate(&mut self, block: Block) {
        let found = self.replicas.get_mut(&block.id).filter(|replica| replica.generation <= block.generation);
        if found.as_ref().is_none_or(|replica| replica.generation < block.generation) {
            // The namenode believes in something that is not there.
            self.changes.push(ReplicaChange::Deleted { block });
        }
        match found.map(|replica| &mut replica.state) {
            Some(ReplicaState::BeingWritten { doomed, .. }) => {
                *doomed = true;
                self.stop_writer(block.id);
            }
            Some(ReplicaState::Deleting) | None => {}
            Some(_) => self.delete(block.id),
        }
    }

    /// A replica's files are deleted.
    pub fn deleted(&mut self, storage: StorageId, block: Block) {
        let ours = |replica: &&Replica| {
            replica.state == ReplicaState::Deleting
                && replica.generation == block.generation
                && replica.storage == storage
        };
        if self.replicas.get(&block.id).filter(ours).is_some() {
            self.remove(block.id);
            self.changes.push(ReplicaChange::Deleted { block });
            self.wake(block.id);
        }
    }

    /// The bytes of a final replica are those that were written.
    pub fn found_good(&mut self, storage: StorageId, block: Block) {
        if self.is_final(storage, block) {
            self.drop_spares(block.id);
        }
    }

    /// The bytes of a final replica are not those that were written.
    pub fn found_corrupt(&mut self, storage: StorageId, block: Block) {
        if self.replaced(storage, block) {
            self.delete_files(storage, block);
        } else if self.spoil(storage, block) {
            self.effects.push_back(Effect::MoveAside { storage, block });
        }
    }

    /// The bytes of a final replica cannot be read. They may be good all the same, so its files stay where they are, for
    /// the next start to look at.
    pub fn found_unreadable(&mut self, storage: StorageId, block: Block) {
        if !self.replaced(storage, block) {
            self.spoil(storage, block);
        }
    }

    /// The files of a final replica are not there any more, though nobody of ours took them.
    pub fn found_gone(&mut self, storage: StorageId, block: Block) {
        if self.replaced(storage, block) {
            self.delete_files(storage, block);
        } else if self.is_final(storage, block) {
            // What is left of them goes, and then the namenode is told.
            self.delete(block.id);
        }
    }

    /// Lets a spare take the place of a final replica that is of no use, if there is one; whether it did.
    fn replaced(&mut self, storage: StorageId, block: Block) -> bool {
        let replaced = self.is_final(storage, block) && self.replace(block.id);
        if replaced {
            self.unindex(storage, block.id);
        }
        replaced
    }

    /// Has a final replica served no more and reported as corrupt; whether it is one.
    fn spoil(&mut self, storage: StorageId, block: Block) -> bool {
        let Some(replica) = self.replicas.get_mut(&block.id).filter(|replica| is_final(replica, storage, block)) else {
            return false;
        };
        replica.state = ReplicaState::Corrupt;
        self.unindex(storage, block.id);
        self.changes.push(ReplicaChange::Corrupt { block });
        true
    }

    fn is_final(&self, storage: StorageId, block: Block) -> bool {
        self.get(block.id).is_some_and(|replica| is_final(replica, storage, block))
    }

    /// A volume has failed: its replicas are not served any more, its writers stop.
    pub fn eject(&mut self, storage: StorageId) {
        self.spares.retain(|_, spares| {
            spares.retain(|spare| spare.storage != storage);
            !spares.is_empty()
        });
        let lost: Vec<_> =
            self.replicas.iter().filter(|(_, replica)| replica.storage == storage).map(|(id, _)| *id).collect();
        for id in lost {
            if self.replace(id) {
                continue;
            }
            let Some(replica) = self.remove(id) else { continue };
            match replica.state {
                ReplicaState::BeingWritten { writer, limit_bytes, stopping, .. } => {
                    self.volumes.settle(storage, limit_bytes - replica.len_bytes, 0);
                    if !stopping {
                        self.effects.push_back(Effect::StopWriter { writer });
                    }
                }
                ReplicaState::Abandoned { until } => {
                    self.abandoned.remove(&(until, id));
                }
                ReplicaState::Finalized | ReplicaState::Corrupt | ReplicaState::Deleting => {}
            }
            self.wake(id);
        }
    }

    /// When the next abandoned replica is dropped.
    #[must_use]
    pub fn next_at(&self) -> TimeMs {
        self.abandoned.first().map_or(TimeMs::NEVER, |(until, _)| *until)
    }

    /// Drops the replicas that were abandoned too long ago.
    pub fn handle_timeout(&mut self, now: TimeMs) {
        while let Some((_, id)) = self.abandoned.first().copied().filter(|(until, _)| *until <= now) {
            self.delete(id);
        }
    }

    /// Asserts what must hold between events.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self) {
        for (writer, id) in &self.writers {
            if let Some(Replica { state: ReplicaState::BeingWritten { writer: current, .. }, .. }) = self.get(*id) {
                assert!(current >= writer, "a newer writer has a replica, never an older one");
            }
        }
        for (id, replica) in &self.replicas {
            match replica.state {
                ReplicaState::BeingWritten { writer, limit_bytes, .. } => {
                    assert_eq!(self.writers.get(&writer), Some(id), "who writes is known");
                    assert!(replica.len_bytes <= limit_bytes, "a replica begins within its limit");
                }
                ReplicaState::Abandoned { until } => {
                    assert!(self.abandoned.contains(&(until, *id)), "what is abandoned is dropped one day");
                }
                ReplicaState::Finalized | ReplicaState::Corrupt => {
                    assert!(self.volumes.works(replica.storage), "nothing is served from a failed volume");
                    assert!(!self.waiting.contains_key(id), "nobody waits for a replica that is free");
                }
                ReplicaState::Deleting => {}
            }
        }
        for (id, spares) in &self.spares {
            let replica = self.get(*id).expect("what is spared is there");
            for spare in spares {
                assert_eq!((spare.generation, spare.state), (replica.generation, replica.state), "a spare is as good");
                assert!(spare.storage != replica.storage && self.volumes.works(spare.storage), "and on another volume");
            }
            assert!(!spares.is_empty() && replica.state == ReplicaState::Finalized, "only what is final has spares");
        }
        for id in self.waiting.keys() {
            let busy = self.get(*id).is_some_and(|replica| {
                matches!(replica.state, ReplicaState::BeingWritten { stopping: true, .. } | ReplicaState::Deleting)
            });
            assert!(busy, "who waits waits for something that ends");
        }
        for storage in self.volumes.working() {
            let on_it = self.replicas.values().filter(|replica| replica.storage == storage);
            let used_bytes: u64 = on_it.map(|replica| replica.len_bytes).sum();
            assert_eq!(self.volumes.used_bytes(storage), used_bytes, "what replicas take is counted");
        }
    }

    fn insert(&mut self, id: BlockId, replica: Replica) {
        self.volumes.use_bytes(replica.storage, 0, replica.len_bytes);
        let before = self.replicas.insert(id, replica);
        assert_eq!(before, None, "at most one replica of a block");
    }

    fn remove(&mut self, id: BlockId) -> Option<Replica> {
        let replica = self.replicas.remove(&id)?;
        self.volumes.use_bytes(replica.storage, replica.len_bytes, 0);
        Some(replica)
    }

    /// Begins to delete a replica that nobody writes.
    fn delete(&mut self, id: BlockId) {
        self.drop_spares(id);
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        let (storage, block) = (replica.storage, Block { id, generation: replica.generation });
        let before = std::mem::replace(&mut replica.state, ReplicaState::Deleting);
        match before {
            ReplicaState::Abandoned { until } => {
                self.abandoned.remove(&(until, id));
            }
            ReplicaState::Finalized => self.unindex(storage, id),
            ReplicaState::Corrupt => {}
            ReplicaState::BeingWritten { .. } | ReplicaState::Deleting => {
                unreachable!("only what nobody writes or deletes is deleted")
            }
        }
        self.delete_files(storage, block);
    }

    fn delete_files(&mut self, storage: StorageId, block: Block) {
        self.effects.push_back(Effect::Delete { storage, block });
    }

    fn unindex(&mut self, storage: StorageId, id: BlockId) {
        self.effects.push_back(Effect::Index { storage, id, replica: None });
    }

    fn stop_writer(&mut self, id: BlockId) {
        if let Some(Replica { state: ReplicaState::BeingWritten { writer, stopping, .. }, .. }) =
            self.replicas.get_mut(&id)
            && !std::mem::replace(stopping, true)
        {
            self.effects.push_back(Effect::StopWriter { writer: *writer });
        }
    }

    /// Lets who waits for a replica try again.
    fn wake(&mut self, id: BlockId) {
        if let Some(waiting) = self.waiting.remove(&id) {
            self.open(waiting);
        }
    }

    fn refuse(&mut self, request: RequestId, error: RemoteError) {
        self.effects.push_back(Effect::RefuseWrite { request, error });
    }
}

fn is_final(replica: &Replica, storage: StorageId, block: Block) -> bool {
    replica.storage == storage && replica.generation == block.generation && replica.state == ReplicaState::Finalized
}

fn stale(block: Block, found: GenerationStamp) -> RemoteError {
    RemoteError::new(
        ErrorCode::StaleGeneration,
        block,
        format!("this datanode has the block in life {found}; only a newer one can be written"),
    )
}

fn full(block: Block, needed_bytes: u64) -> RemoteError {
    RemoteError::new(
        ErrorCode::DiskFull,
        block,
        format!("no volume of this datanode has room for {needed_bytes} bytes; write to another datanode"),
    )
}
