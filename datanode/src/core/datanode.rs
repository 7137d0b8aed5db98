use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use situ_runtime::disk::Space;
use situ_wire::block::{Block, BlockToken, DatanodeLocation};
use situ_wire::error::ErrorCode;
use situ_wire::ids::{BlockId, ClusterId, DatanodeId, NodeName, RackName, StorageId};
use situ_wire::messages::namenode::{
    DatanodeCommand, DatanodeRegistration, ReplicaChange, ReportedReplica, Request, Response,
};
use situ_wire::time::{TimeMs, WallClock};

use super::replicas::{ReplicaState, Replicas};
use super::reporter::{Call, Reporter, Slice};
use super::scrub::{Next, Scrub};
use super::tokens::TokenJudge;
use super::volumes::Volumes;
use super::{CallError, CallId, CallKind, Effect, Event, StopReason};
use crate::storage::{Health, ScannedReplica, Verdict};

/// What the core is told when it starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoreConfig {
    /// How many bytes the replicas of one volume may take.
    pub capacity_limit_bytes: Option<u64>,
    /// How many bytes of each disk stay free for others.
    pub reserved_bytes: u64,
    /// How long a replica whose writer is gone is kept.
    pub keep_abandoned: Duration,
    /// Within which time every replica is verified.
    pub scrub_period: Duration,
    /// How many bytes a second the scrubber reads at most on one volume; 0 turns it off.
    pub scrub_rate_bytes: u64,
    /// How many replicas are copied at once.
    pub replications: usize,
    /// How many replicas one slice of a full report names at most; no more than [`REPORT_SLICE_BLOCKS`](situ_wire::limits::REPORT_SLICE_BLOCKS).
    pub report_slice_blocks: usize,
}

/// Who this datanode is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Me {
    /// Its id.
    pub id: DatanodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its node.
    pub node: NodeName,
    /// Its rack.
    pub rack: RackName,
    /// Where others reach it.
    pub address: SocketAddr,
}

/// A volume as it is found at start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeAtStart {
    /// Which.
    pub storage: StorageId,
    /// Its room.
    pub space: Space,
    /// Its replicas.
    pub replicas: Vec<ScannedReplica>,
    /// Up to where the scrubber had come.
    pub scrubbed: Option<BlockId>,
}

/// A copy that the namenode asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Copy {
    block: Block,
    targets: Vec<DatanodeLocation>,
    token: BlockToken,
}

/// A datanode's state and rules. Call [`Core::handle`] with what happens and [`Core::handle_timeout`] when it is
/// [`Core::poll_timeout`]; before each of them say what the wall clock shows ([`Core::set_wall_clock`]), and after it do
/// what [`Core::poll_effect`] gives until it gives none.
#[derive(Debug)]
pub struct Core {
    me: Me,
    config: CoreConfig,
    replicas: Replicas,
    reporter: Reporter,
    scrubs: BTreeMap<StorageId, Scrub>,
    /// Final replicas that the namenode doubts: it is told when they are good.
    doubted: BTreeSet<Block>,
    copies: VecDeque<Copy>,
    copying: usize,
    reads: usize,
    measuring: bool,
    /// The time of day, which the namenode is told and nothing is decided by.
    wall: WallClock,
    effects: VecDeque<Effect>,
}

impl Core {
    /// A datanode with these volumes, which registers at once.
    #[must_use]
    pub fn new(me: Me, config: CoreConfig, volumes: Vec<VolumeAtStart>, now: TimeMs) -> Self {
        let spaces = volumes.iter().map(|volume| (volume.storage, volume.space)).collect();
        let room = Volumes::new(spaces, config.capacity_limit_bytes, config.reserved_bytes);
        let scrub = |volume: &VolumeAtStart| {
            let scrub = Scrub::new(volume.scrubbed, now, config.scrub_period, config.scrub_rate_bytes);
            (volume.storage, scrub)
        };
        let scrubs = volumes.iter().map(scrub).collect();
        let mut replicas = Replicas::new(room, config.keep_abandoned);
        for volume in &volumes {
            for scanned in &volume.replicas {
                replicas.found(volume.storage, scanned);
            }
        }
        for volume in &volumes {
            for scanned in volume.replicas.iter().filter(|scanned| scanned.health == Health::Unreadable) {
                replicas.found_unreadable(volume.storage, scanned.block);
            }
        }
        let mut core = Self {
            me,
            config,
            replicas,
            reporter: Reporter::new(now),
            scrubs,
            doubted: BTreeSet::new(),
            copies: VecDeque::new(),
            copying: 0,
            reads: 0,
            measuring: false,
            wall: WallClock::default(),
            effects: VecDeque::new(),
        };
        core.suspect_spared();
        core.gather(now);
        core
    }

    /// It lacks these volumes too: the namenode is told of each that it is out of use, and why.
    #[must_use]
    pub fn without(mut self, failed: Vec<(StorageId, String)>) -> Self {
        for (storage, reason) in failed {
            self.replicas.volumes.failed(storage, reason);
        }
        self
    }

    /// Takes what the wall clock says, before every event. Without it the time of day is taken to be the core's own.
    pub fn set_wall_clock(&mut self, wall: WallClock) {
        self.wall = wall;
    }

    /// Something happened.
    pub fn handle(&mut self, now: TimeMs, event: Event) {
        match event {
            Event::OpenWrite { request, block, stage, limit_bytes } => {
                self.replicas.open_write(request, block, stage, limit_bytes);
            }
            Event::WriterEnded { writer, end } => self.replicas.writer_ended(now, writer, end),
            Event::Suspect { block } => self.suspect(block),
            Event::Verified { storage, block, verdict: Verdict::Undecided(_) } => {
                if let Some(scrub) = self.scrubs.get_mut(&storage) {
                    scrub.put_off(now, block);
                }
            }
            Event::Verified { storage, block, verdict } => {
                let reached = self.scrubs.get_mut(&storage).and_then(|scrub| scrub.end(block));
                self.effects.extend(reached.map(|id| Effect::IndexScrubbed { storage, id }));
                self.judge(storage, block, &verdict);
            }
            Event::Deleted { storage, block } => self.replicas.deleted(storage, block),
            Event::DiskTrouble { storage } => self.probe(storage),
            Event::Probed { storage, failed } => self.probed(storage, failed),
            Event::Measured { spaces, reads } => {
                self.measuring = false;
                self.reads = reads;
                for (storage, space) in spaces {
                    self.replicas.volumes.measured(storage, space);
                }
            }
            Event::Answered { call, result } => self.answered(now, call, result),
            Event::Replicated { storage, block, failed, verdict } => {
                self.copying -= 1;
                let changes = failed.into_iter().map(|(target, reason)| ReplicaChange::ReplicationFailed {
                    block,
                    target,
                    reason,
                });
                self.replicas.changes.extend(changes);
                self.judge(storage, block, &verdict);
                self.start_copies();
            }
        }
        self.handle_timeout(now);
    }

    /// It is [`Core::poll_timeout`].
    pub fn handle_timeout(&mut self, now: TimeMs) {
        self.replicas.handle_timeout(now);
        self.gather(now);
        self.start_scrubs(now);
        while let Some((call, what)) = self.reporter.next(now) {
            let request = self.request(now, what);
            self.effects.push_back(Effect::Call { call, request });
        }
    }

    /// What there is to do; none when all is given out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Core::handle_timeout`] is to be called at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> TimeMs {
        let scrub = self.scrubs.values().map(Scrub::next_at).min().unwrap_or(TimeMs::NEVER);
        self.reporter.next_at().min(self.replicas.next_at()).min(scrub)
    }

    /// Its replicas.
    #[must_use]
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Whether the namenode knows it.
    #[must_use]
    pub fn is_registered(&self) -> bool {
        self.reporter.is_registered()
    }

    /// Asserts what must hold between events.
    ///
    /// # Panics
    /// When it does not.
    pub fn check(&self) {
        self.replicas.check();
        self.reporter.check();
        assert!(self.copying <= self.config.replications, "copies are bounded");
        assert!(self.copies.is_empty() || self.copying == self.config.replications, "no copy waits without a reason");
        for storage in self.scrubs.keys() {
            assert!(self.replicas.volumes.works(*storage), "only volumes that work are scrubbed");
        }
    }

    /// Takes over what the replicas want done and told.
    fn gather(&mut self, now: TimeMs) {
        self.effects.append(&mut self.replicas.effects);
        self.reporter.change(now, self.replicas.changes.drain(..));
    }

    fn suspect(&mut self, block: Block) {
        if let Ok((storage, _)) = self.replicas.final_replica(block)
            && let Some(scrub) = self.scrubs.get_mut(&storage)
        {
            scrub.suspect(block);
        }
    }

    /// The namenode doubts a replica.
    fn verify(&mut self, block: Block) {
        let replica = self.replicas.get(block.id).filter(|replica| replica.generation == block.generation);
        match replica.map(|replica| replica.state) {
            Some(ReplicaState::Finalized) => {
                self.doubted.insert(block);
                self.suspect(block);
            }
            Some(ReplicaState::Corrupt) => self.replicas.changes.push(ReplicaChange::Corrupt { block }),
            // What becomes of it is told.
            Some(ReplicaState::BeingWritten { .. } | ReplicaState::Abandoned { .. } | ReplicaState::Deleting) => {}
            None => self.replicas.changes.push(ReplicaChange::Deleted { block }),
        }
    }

    /// What reading a final replica showed.
    fn judge(&mut self, storage: StorageId, block: Block, verdict: &Verdict) {
        match verdict {
            Verdict::Good => {
                self.replicas.found_good(storage, block);
                if let Ok((storage, len_bytes)) = self.replicas.final_replica(block)
                    && self.doubted.contains(&block)
                {
                    let replica = ReportedReplica { block, len_bytes };
                    self.replicas.changes.push(ReplicaChange::Received { storage, replica });
                }
            }
            Verdict::Corrupt(_) => self.replicas.found_corrupt(storage, block),
            Verdict::Gone => self.replicas.found_gone(storage, block),
            Verdict::DiskFailed(_) => {
                // On a volume that works as such, bytes that cannot be read are of as little use as wrong ones.
                self.probe(storage);
                self.replicas.found_unreadable(storage, block);
            }
            // Who doubts it waits on.
            Verdict::Undecided(_) => return,
        }
        self.doubted.remove(&block);
        // A spare that has taken its place is verified in its turn, whether there are more of them or not.
        if !matches!(verdict, Verdict::Good) {
            self.suspect(block);
        }
        self.suspect_spared();
    }

    /// Has the replicas verified that have spares, some at a time.
    fn suspect_spared(&mut self) {
        for block in self.replicas.with_spares().take(SPARED).collect::<Vec<_>>() {
            self.suspect(block);
        }
    }

    fn probe(&mut self, storage: StorageId) {
        if self.replicas.volumes.begin_probe(storage) {
            self.effects.push_back(Effect::Probe { storage });
        }
    }

    fn probed(&mut self, storage: StorageId, failed: Option<String>) {
        if !self.replicas.volumes.probed(storage, failed.clone()) {
            return;
        }
        self.scrubs.remove(&storage);
        self.replicas.eject(storage);
        self.effects.append(&mut self.replicas.effects);
        self.effects.push_back(Effect::Eject { storage });
        // An empty report says that all its replicas are gone.
        self.reporter.report_all(std::iter::once(storage));
        if self.replicas.volumes.working().next().is_none() {
            self.effects.push_back(Effect::Stop(StopReason::NoVolumes(failed.unwrap_or_default())));
        }
    }

    fn start_scrubs(&mut self, now: TimeMs) {
        for (storage, scrub) in &mut self.scrubs {
            let storage = *storage;
            while let Some(next) = scrub.next(now) {
                let (block, rate_bytes) = match next {
                    Next::Suspect(block) => match self.replicas.final_replica(block) {
                        Ok(_) => (block, None),
                        Err(_) => {
                            self.doubted.remove(&block);
                            continue;
                        }
                    },
                    Next::After(cursor) => match self.replicas.final_on(storage, cursor).next() {
                        Some(replica) => {
                            let used_bytes = self.replicas.volumes.used_bytes(storage);
                            (replica.block, Some(scrub.rate_bytes(used_bytes)))
                        }
                        None => {
                            scrub.end_pass(now);
                            continue;
                        }
                    },
                };
                scrub.begin(block, rate_bytes.is_some());
                self.effects.push_back(Effect::Verify { storage, block, rate_bytes });
            }
        }
    }

    fn start_copies(&mut self) {
        while self.copying < self.config.replications
            && let Some(Copy { block, targets, token }) = self.copies.pop_front()
        {
            match self.replicas.final_replica(block) {
                Ok((storage, len_bytes)) => {
                    self.copying += 1;
                    self.effects.push_back(Effect::Replicate { storage, block, len_bytes, targets, token });
                }
                Err(error) => {
                    let failed = targets.iter().map(|target| ReplicaChange::ReplicationFailed {
                        block,
                        target: target.id,
                        reason: error.message.clone(),
                    });
                    self.replicas.changes.extend(failed);
                }
            }
        }
    }

    /// The words of a call.
    fn request(&mut self, now: TimeMs, call: Call) -> Request {
        let id = self.me.id;
        match call {
            Call::Register => Request::DatanodeRegister(DatanodeRegistration {
                id,
                cluster: Some(self.me.cluster),
                node: self.me.node.clone(),
                rack: self.me.rack.clone(),
                address: self.me.address,
                volumes: self.replicas.volumes.status(),
                clock: self.wall.at(now),
            }),
            Call::Heartbeat => {
                if !std::mem::replace(&mut self.measuring, true) {
                    self.effects.push_back(Effect::Measure);
                }
                let transfers = self.replicas.writers() + self.copying + self.reads;
                Request::DatanodeHeartbeat {
                    id,
                    volumes: self.replicas.volumes.status(),
                    transfers: u32::try_from(transfers).unwrap_or(u32::MAX),
                    clock: self.wall.at(now),
                }
            }
            Call::Changes(changes) => Request::DatanodeBlockChanges { id, changes },
            Call::Slice(Slice { storage, number, after }) => {
                let mut found = self.replicas.final_on(storage, after);
                let replicas: Vec<ReportedReplica> = found.by_ref().take(self.config.report_slice_blocks).collect();
                let last = found.next().is_none();
                drop(found);
                let more_after = replicas.last().filter(|_| !last).map(|replica| replica.block.id);
                self.reporter.slice_sent(more_after);
                Request::DatanodeBlockReport { id, storage, slice: number, last, replicas }
            }
        }
    }

    fn answered(&mut self, now: TimeMs, call: CallId, result: Result<Response, CallError>) {
        if !self.reporter.expects(call) {
            return;
        }
        let result = match result {
            Err(CallError { code: Some(ErrorCode::NotRegistered), .. }) if call.kind != CallKind::Register => {
                return self.reporter.register_again(now);
            }
            result => result,
        };
        match (call.kind, result) {
            (CallKind::Register, Ok(Response::Registered { cluster, key, heartbeat_ms, now: theirs })) => {
                if cluster != self.me.cluster {
                    let reason = format!(
                        "it serves cluster {cluster}, this datanode belongs to cluster {}; check the namenode's address",
                        self.me.cluster
                    );
                    return self.effects.push_back(Effect::Stop(StopReason::Refused(reason)));
                }
                self.effects.push_back(Effect::Judge(TokenJudge::new(key, theirs, now)));
                let interval = Duration::from_millis(u64::from(heartbeat_ms));
                let corrupt = self.replicas.corrupt().map(|block| ReplicaChange::Corrupt { block });
                self.reporter.registered(now, interval, self.replicas.volumes.working(), corrupt);
            }
            (CallKind::Register, Err(CallError { code: Some(code), message })) if is_final(code) => {
                self.effects.push_back(Effect::Stop(StopReason::Refused(message)));
            }
            (CallKind::Register, _) => self.reporter.not_registered(now),
            (CallKind::Heartbeat, Ok(Response::Commands { commands, key, now: theirs })) => {
                self.effects.push_back(Effect::Judge(TokenJudge::new(key, theirs, now)));
                self.reporter.heartbeat_ended(now, true);
                for command in commands {
                    self.command(now, command);
                }
                self.start_copies();
            }
            (CallKind::Heartbeat, _) => self.reporter.heartbeat_ended(now, false),
            (CallKind::Changes | CallKind::Report, result) => self.reporter.report_ended(now, result.is_ok()),
        }
    }

    fn command(&mut self, now: TimeMs, command: DatanodeCommand) {
        match command {
            DatanodeCommand::Replicate { block, targets, token } => {
                let copy = Copy { block, targets, token };
                if !copy.targets.is_empty() && !self.copies.contains(&copy) && self.copies.len() < COPIES {
                    self.copies.push_back(copy);
                }
            }
            DatanodeCommand::Invalidate { blocks } => {
                for block in blocks {
                    self.replicas.invalidate(block);
                }
            }
            DatanodeCommand::Register => self.reporter.register_again(now),
            DatanodeCommand::Report => self.reporter.report_all(self.replicas.volumes.working()),
            DatanodeCommand::Verify { blocks } => blocks.into_iter().for_each(|block| self.verify(block)),
        }
    }
}

/// Whether a namenode that says this says it for good.
fn is_final(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::WrongCluster | ErrorCode::WrongVersion | ErrorCode::WrongIdentity)
}

/// How many replicas with spares are verified ahead of others at once.
const SPARED: usize = 16;
/// How many copies may wait; more are dropped, and the namenode asks again.
const COPIES: usize = 10_000;
