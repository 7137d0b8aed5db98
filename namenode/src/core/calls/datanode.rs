//! Registrations, heartbeats and reports.

use situ_wire::block::TokenMode;
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::Role;
use situ_wire::ids::{BlockId, ClientId, DatanodeId, StorageId};
use situ_wire::limits::REPORT_SLICE_BLOCKS;
use situ_wire::messages::namenode::{
    DatanodeCommand, DatanodeRegistration, Liveness, ReplicaChange, ReportedReplica, Request, Response, VolumeStatus,
};
use situ_wire::time::{TimeMs, WallTime};

use crate::core::blocks::{Verdict, Via};
use crate::core::datanodes::{DatanodeIndex, ReportProgress, StorageIndex};
use crate::core::errors::invalid;
use crate::core::event::Caller;
use crate::core::namesystem::Namesystem;

/// The most volumes of a datanode.
const VOLUMES: usize = 1024;
/// After how long without a word a datanode is asked again for its full reports.
const REPORT_AGAIN_MS: u64 = 60_000;
/// How many replicas a datanode is asked to verify in the answer to one heartbeat.
const VERIFICATIONS: usize = 100;

type Reply = Result<Response, RemoteError>;

impl Namesystem {
    /// Answers a call of a datanode.
    pub(super) fn answer_datanode(&mut self, now: TimeMs, caller: &Caller, request: Request) -> Reply {
        if caller.role != Role::Datanode {
            let message =
                format!("expected a datanode, found {} {:?}; only datanodes say this", caller.role, caller.name);
            return Err(RemoteError::new(ErrorCode::PermissionDenied, &caller.user, message));
        }
        let reply = match request {
            Request::DatanodeRegister(registration) => {
                self.check_registrant(caller, &registration).and_then(|()| self.register(now, registration))
            }
            Request::DatanodeHeartbeat { id, volumes, transfers, clock } => {
                self.check_speaker(caller, id).and_then(|()| self.heartbeat(now, (id, clock), volumes, transfers))
            }
            Request::DatanodeBlockReport { id, storage, slice, last, replicas } => self
                .check_speaker(caller, id)
                .and_then(|()| self.block_report(now, id, storage, (slice, last), &replicas)),
            Request::DatanodeBlockChanges { id, changes } => {
                self.check_speaker(caller, id).and_then(|()| self.block_changes(id, changes))
            }
            other => Err(RemoteError::new(
                ErrorCode::Internal,
                self.config.cluster,
                format!("nobody answers {other:?}: this is a defect of the namenode"),
            )),
        };
        self.look_at_safe_mode(now);
        reply
    }

    /// Checks that a datanode registers for the node that its connection proved. What its id says is its own word, so
    /// that an id stays with the node that first came with it.
    fn check_registrant(&mut self, caller: &Caller, registration: &DatanodeRegistration) -> Result<(), RemoteError> {
        let DatanodeRegistration { id, node, .. } = registration;
        if node.0 != caller.name {
            let message = format!("expected node {:?}, as its certificate says, found {node:?}", caller.name);
            return Err(RemoteError::new(ErrorCode::WrongIdentity, id, message));
        }
        self.check_speaker(caller, *id).inspect_err(|error| self.warn(error.to_string()))
    }

    /// Checks that a datanode speaks for itself: one must not tell what others hold.
    fn check_speaker(&self, caller: &Caller, id: DatanodeId) -> Result<(), RemoteError> {
        let node = self.datanodes.find(id).map(|index| &self.datanodes.get(index).location.node);
        match node.filter(|node| node.0 != caller.name) {
            None => Ok(()),
            Some(node) => {
                let message = format!(
                    "it is the datanode of node {node}, and node {:?} speaks for it; if its volumes were copied, give \
                     one of the two fresh ones; if they were moved or the node was renamed, restart the namenode",
                    caller.name
                );
                Err(RemoteError::new(ErrorCode::PermissionDenied, id, message))
            }
        }
    }

    fn register(&mut self, now: TimeMs, registration: DatanodeRegistration) -> Reply {
        let id = registration.id;
        if let Some(cluster) = registration.cluster
            && cluster != self.config.cluster
        {
            let message = format!(
                "its volumes belong to cluster {cluster}, this is cluster {}; point it at its own namenode, or give it \
                 fresh volumes",
                self.config.cluster
            );
            return Err(RemoteError::new(ErrorCode::WrongCluster, id, message));
        }
        check_volumes(id, &registration.volumes)?;
        let displaced = self.displace(&registration);
        if let Some(index) = self.datanodes.find(id) {
            self.blocks.forget_orders(&mut self.datanodes, index);
            if self.datanodes.get(index).liveness == Liveness::Dead {
                // What it held when it died goes before it comes back: its reports say what there is.
                self.drain_datanode(index);
            }
        }
        let index = self.datanodes.register(now, &registration);
        if displaced {
            self.datanodes.get_mut(index).contested = Some(now);
        }
        self.compare_clocks(now, index, registration.clock);
        self.take_volumes(index, registration.volumes);
        Ok(Response::Registered {
            cluster: self.config.cluster,
            key: self.config.token_key.clone(),
            heartbeat_ms: self.config.heartbeat_ms,
            now,
        })
    }

    /// Takes out whoever was at the address of a datanode that registers: its process cannot be there any more. Whether
    /// there was anybody.
    fn displace(&mut self, registration: &DatanodeRegistration) -> bool {
        let displaced = self.datanodes.displaced_by(registration.id, registration.address);
        for index in &displaced {
            let old = self.datanodes.get(*index).location.clone();
            self.warn(format!(
                "datanode {} on {} registers from {}, where datanode {} on {} was, which is held to be dead therefore: what it \
                 had is made anew elsewhere. That is well if its disks were replaced; if they are only not mounted, mount \
                 them and start it again; if both run, give each an address of its own",
                registration.id, registration.node, old.address, old.id, old.node
            ));
            self.datanodes.mark_dead(*index);
            self.bury(*index);
        }
        !displaced.is_empty()
    }

    /// Compares a datanode's wall clock with the namenode's. Nothing is decided by either: the operator is told, for whom
    /// the times in logs and of files would not fit together.
    fn compare_clocks(&mut self, now: TimeMs, index: DatanodeIndex, theirs: WallTime) {
        let ahead_ms = theirs.ahead_of_ms(self.wall_time(now));
        let datanode = self.datanodes.get_mut(index);
        let Some(ahead_ms) = datanode.clock.hear(ahead_ms) else { return };
        let (id, node) = (datanode.location.id, &datanode.location.node);
        let seconds = (ahead_ms.unsigned_abs() + 500) / 1000;
        let message = match ahead_ms {
            0 => format!("datanode {id} on {node}: its clock agrees with the namenode's again"),
            1.. => format!(
                "datanode {id} on {node}: its clock is {seconds} s ahead of the namenode's; set whichever is wrong"
            ),
            _ => format!(
                "datanode {id} on {node}: its clock is {seconds} s behind the namenode's; set whichever is wrong"
            ),
        };
        self.warn(message);
    }

    /// Takes the state of a datanode's volumes; what was on those that are out of use is gone.
    fn take_volumes(&mut self, index: DatanodeIndex, volumes: Vec<VolumeStatus>) {
        let known = self.datanodes.get(index).storages.clone();
        let back = volumes.iter().filter(|volume| volume.failed.is_none());
        for storage in back.filter_map(|volume| known.get(&volume.storage)) {
            if self.draining.contains(storage) {
                self.drain_storage(*storage);
            }
        }
        for storage in self.datanodes.update_volumes(index, volumes) {
            let datanode = self.datanodes.get(index);
            let id = self.datanodes.storage(storage).id;
            let volume = datanode.volumes.iter().find(|volume| Some(volume.storage) == id);
            let reason = volume.and_then(|volume| volume.failed.as_deref()).unwrap_or("it is named no more");
            let location = &datanode.location;
            self.warn(format!("datanode {} on {}: a volume is out of use: {reason}", location.id, location.node));
            self.draining.push_back(storage);
        }
    }

    fn heartbeat(
        &mut self,
        now: TimeMs,
        (id, clock): (DatanodeId, WallTime),
        volumes: Vec<VolumeStatus>,
        transfers: u32,
    ) -> Reply {
        check_volumes(id, &volumes)?;
        let key = self.config.token_key.clone();
        let Some(index) = self.registered(id) else {
            return Ok(Response::Commands { commands: vec![DatanodeCommand::Register], key, now });
        };
        self.datanodes.hear(now, index);
        self.compare_clocks(now, index, clock);
        self.take_volumes(index, volumes);
        let datanode = self.datanodes.get_mut(index);
        datanode.transfers = transfers;
        datanode.scheduled /= 2;
        let mut commands = Vec::new();
        let quiet = datanode.report_asked.is_none_or(|asked| now.0 >= asked.0.saturating_add(REPORT_AGAIN_MS));
        if quiet && self.datanodes.awaits_report(index) {
            self.datanodes.get_mut(index).report_asked = Some(now);
            commands.push(DatanodeCommand::Report);
        }
        let blocks = self.blocks.deal_doubts(&self.datanodes, index, now, VERIFICATIONS);
        if !blocks.is_empty() {
            commands.push(DatanodeCommand::Verify { blocks });
        }
        if !self.safe_mode.is_on() {
            self.blocks.order_copies(&mut self.datanodes, &mut self.random, &self.config, now);
            self.blocks.choose_deletions(&self.datanodes);
            self.deal_copies(now, index, &mut commands);
            let limit = self.config.invalidate_batch;
            let blocks = self.blocks.deal_deletions(&self.datanodes, index, now, limit);
            if !blocks.is_empty() {
                commands.push(DatanodeCommand::Invalidate { blocks });
            }
        }
        Ok(Response::Commands { commands, key, now })
    }

    fn deal_copies(&mut self, now: TimeMs, index: DatanodeIndex, commands: &mut Vec<DatanodeCommand>) {
        let expires = self.token_expiry(now);
        let source = ClientId(self.datanodes.get(index).location.id.0);
        for copy in self.blocks.deal_copies(&mut self.datanodes, index) {
            let live = copy.targets.iter().map(|target| self.datanodes.get(*target));
            let live = live.filter(|target| target.liveness != Liveness::Dead);
            let targets: Vec<_> = live.map(|target| target.location.clone()).collect();
            if !targets.is_empty() {
                let token = self.config.token_key.issue(copy.block, TokenMode::Write, source, expires);
                commands.push(DatanodeCommand::Replicate { block: copy.block, targets, token });
            }
        }
    }

    /// A datanode that is registered and not dead.
    fn registered(&self, id: DatanodeId) -> Option<DatanodeIndex> {
        self.datanodes.find(id).filter(|index| self.datanodes.get(*index).liveness != Liveness::Dead)
    }

    fn must_be_registered(&self, id: DatanodeId) -> Result<DatanodeIndex, RemoteError> {
        self.registered(id).ok_or_else(|| {
            RemoteError::new(ErrorCode::NotRegistered, id, "the namenode does not know this datanode; register first")
        })
    }

    fn storage_of(&self, index: DatanodeIndex, storage: StorageId) -> Result<StorageIndex, RemoteError> {
        self.datanodes.get(index).storages.get(&storage).copied().ok_or_else(|| {
            let message = "the namenode does not know this volume; register again with all volumes";
            RemoteError::new(ErrorCode::NotRegistered, storage, message)
        })
    }

    fn block_report(
        &mut self,
        now: TimeMs,
        id: DatanodeId,
        storage: StorageId,
        (slice, last): (u32, bool),
        replicas: &[ReportedReplica],
    ) -> Reply {
        let index = self.must_be_registered(id)?;
        let storage_index = self.storage_of(index, storage)?;
        if replicas.len() > REPORT_SLICE_BLOCKS {
            let message = format!("a slice of {} replicas; at most {REPORT_SLICE_BLOCKS} are allowed", replicas.len());
            return Err(RemoteError::new(ErrorCode::TooMuch, storage, message));
        }
        let mut progress = match self.datanodes.storage_mut(storage_index).report.take() {
            Some(progress) if progress.next_slice == slice => progress,
            _ if slice == 0 => ReportProgress { next_slice: 0, last: None, recent: Default::default() },
            _ => return Err(invalid(storage, format!("slice {slice} is out of order; begin again with slice 0"))),
        };
        let ids = replicas.iter().map(|replica| replica.block.id);
        if !progress.last.into_iter().chain(ids).is_sorted_by(|one, two| one < two) {
            return Err(invalid(storage, "the replicas of a report must ascend by block; begin again with slice 0"));
        }
        let from = progress.last.map_or(0, |id| id.0 + 1);
        progress.last = replicas.last().map(|replica| replica.block.id).or(progress.last);
        let to = if last { Some(u64::MAX) } else { replicas.last().map(|replica| replica.block.id.0) };
        if let Some(to) = to {
            self.take_out_missing(storage_index, (from, to), replicas, &progress);
        }
        let mut unknown = 0;
        for replica in replicas {
            unknown += u64::from(self.reported(storage_index, *replica, Via::Report) == Verdict::Unknown);
        }
        self.warn_of_unknown(id, unknown);
        self.datanodes.get_mut(index).report_asked = Some(now);
        let storage = self.datanodes.storage_mut(storage_index);
        if last {
            storage.stale = false;
        } else {
            progress.next_slice += 1;
            storage.report = Some(progress);
        }
        Ok(Response::Done)
    }

    /// Takes out the replicas that a storage should have in a range of blocks and that its report does not name.
    fn take_out_missing(
        &mut self,
        storage: StorageIndex,
        (from, to): (u64, u64),
        replicas: &[ReportedReplica],
        progress: &ReportProgress,
    ) {
        let here = self.datanodes.storage(storage).blocks.range(from, to);
        let missing = here.filter(|id| {
            // A corrupt one is kept aside and not reported; it is gone when its deletion is reported.
            let aside = self.blocks.is_corrupt_on(storage, BlockId(*id));
            !aside
                && !progress.recent.contains(*id)
                && replicas.binary_search_by_key(id, |replica| replica.block.id.0).is_err()
        });
        for id in missing.collect::<Vec<_>>() {
            self.blocks.replica_lost(&mut self.datanodes, storage, BlockId(id));
        }
        // What is still there is named again.
        let unknown = &mut self.datanodes.storage_mut(storage).unknown;
        let here = unknown.range(BlockId(from)..=BlockId(to)).map(|(id, _)| *id);
        for id in here.filter(|id| !progress.recent.contains(id.0)).collect::<Vec<_>>() {
            unknown.remove(&id);
        }
    }

    fn reported(&mut self, storage: StorageIndex, replica: ReportedReplica, via: Via) -> Verdict {
        if self.datanodes.storage(storage).failed {
            return Verdict::Noted;
        }
        let given_out = self.epochs.gave_out(&self.meta, replica.block);
        self.blocks.replica_reported(&mut self.datanodes, storage, replica, via, given_out)
    }

    fn warn_of_unknown(&mut self, id: DatanodeId, unknown: u64) {
        if unknown > 0 {
            self.warn(format!(
                "datanode {id} has {unknown} replicas that this namespace never gave out; they are kept. Has it lost a part \
                 of its journal, or was it started with another directory, or an older copy of it? If it was formatted \
                 anew on purpose, empty the datanode's directories"
            ));
        }
    }

    fn block_changes(&mut self, id: DatanodeId, changes: Vec<ReplicaChange>) -> Reply {
        let index = self.must_be_registered(id)?;
        let mut unknown = 0;
        for change in changes {
            match change {
                ReplicaChange::Received { storage, replica } => {
                    let storage = self.storage_of(index, storage)?;
                    if let Some(progress) = &mut self.datanodes.storage_mut(storage).report {
                        progress.recent.insert(replica.block.id.0);
                    }
                    unknown += u64::from(self.reported(storage, replica, Via::Change) == Verdict::Unknown);
                }
                ReplicaChange::Deleted { block } => {
                    self.datanodes.forget_unknown(index, block);
                    self.blocks.replica_deleted(&mut self.datanodes, index, block);
                }
                ReplicaChange::Corrupt { block } => {
                    if self.epochs.gave_out(&self.meta, block)
                        && self.blocks.corrupt_at_home(&mut self.datanodes, index, block)
                    {
                        self.warn(format!("{block}: datanode {id} found its replica corrupt"));
                    }
                }
                ReplicaChange::ReplicationFailed { block, target, reason } => {
                    self.warn(format!("{block}: the copy from datanode {id} to {target} failed: {reason}"));
                    if let Some(target) = self.datanodes.find(target) {
                        self.blocks.copy_failed(&self.datanodes, block.id, target);
                    }
                }
            }
        }
        self.warn_of_unknown(id, unknown);
        Ok(Response::Done)
    }
}

fn check_volumes(id: DatanodeId, volumes: &[VolumeStatus]) -> Result<(), RemoteError> {
    if volumes.len() > VOLUMES {
        let message = format!("{} volumes; at most {VOLUMES} are allowed", volumes.len());
        return Err(RemoteError::new(ErrorCode::TooMuch, id, message));
    }
    let mut storages: Vec<StorageId> = volumes.iter().map(|volume| volume.storage).collect();
    storages.sort_unstable();
    match storages.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid(id, format!("volume {} is named twice; was it copied?", pair[0]))),
        None => Ok(()),
    }
}
