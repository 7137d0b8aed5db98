//! A datanode's process around its core: its disks, its writers, its timer.

use std::collections::BTreeMap;
use std::time::Duration;

use situ_datanode::core::tokens::TokenJudge;
use situ_datanode::core::{
    CallError, CallId, Core, CoreConfig, Effect, Event, Me, RequestId, VolumeAtStart, WriteGrant, WriterEnd, WriterId,
};
use situ_datanode::storage::{Prior, Verdict};
use situ_runtime::disk::Space;
use situ_wire::block::Block;
use situ_wire::error::RemoteError;
use situ_wire::ids::StorageId;
use situ_wire::messages::namenode::{DatanodeCommand, Response};
use situ_wire::time::TimeMs;

use super::disk::{FileState, ReplicaFile, Volume, root_of};
use super::mutants::Mutant;
use super::network::Party;
use super::pipeline::{MemberId, Owner};
use super::world::{Happening, World};

/// A replica that is being written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writing {
    pub(super) member: MemberId,
    pub(super) block: Block,
    pub(super) storage: StorageId,
}

/// A datanode's process.
pub(super) struct DatanodeHost {
    pub(super) me: Me,
    pub(super) core: Option<Core>,
    pub(super) run: u64,
    pub(super) volumes: BTreeMap<StorageId, Volume>,
    pub(super) judge: Option<TokenJudge>,
    pub(super) writings: BTreeMap<WriterId, Writing>,
    pub(super) opens: BTreeMap<RequestId, (MemberId, Block)>,
    /// Until when it does not hear the namenode.
    pub(super) cut_until: TimeMs,
    /// Until when it stands still.
    pub(super) stalled_until: TimeMs,
    /// When the last report to the namenode arrives, the last heartbeat, and the last answer.
    pub(super) last_arrivals: [TimeMs; 3],
    timer_at: TimeMs,
    next_request: u64,
}

/// What happens within a datanode, in one of its runs.
#[derive(Debug, Clone)]
pub(super) enum Inside {
    Timer,
    /// Something that came while it stood still.
    Tell(Box<Event>),
    Delete {
        storage: StorageId,
        block: Block,
    },
    Verify {
        storage: StorageId,
        block: Block,
    },
    Measure,
    Probe {
        storage: StorageId,
    },
    StopWriter {
        writer: WriterId,
    },
    DiskTrouble {
        storage: StorageId,
    },
}

const CAPACITY_BYTES: u64 = 1 << 30;

fn config(report_slice_blocks: usize) -> CoreConfig {
    CoreConfig {
        capacity_limit_bytes: None,
        reserved_bytes: 1 << 20,
        keep_abandoned: Duration::from_secs(30),
        scrub_period: Duration::from_secs(20),
        scrub_rate_bytes: 10 << 20,
        replications: 2,
        report_slice_blocks,
    }
}

impl DatanodeHost {
    pub(super) fn new(me: Me, volumes: u64) -> Self {
        let base = me.id.0 * 1000;
        let storages = (0..volumes).map(|at| (StorageId(base + u128::from(at)), Volume::default()));
        Self {
            me,
            core: None,
            run: 0,
            volumes: storages.collect(),
            judge: None,
            writings: BTreeMap::new(),
            opens: BTreeMap::new(),
            cut_until: TimeMs(0),
            stalled_until: TimeMs(0),
            last_arrivals: [TimeMs(0); 3],
            timer_at: TimeMs::NEVER,
            next_request: 0,
        }
    }

    fn space(&self, storage: StorageId) -> Space {
        let used_bytes = self.volumes.get(&storage).map_or(0, Volume::used_bytes);
        Space { capacity_bytes: CAPACITY_BYTES, free_bytes: CAPACITY_BYTES.saturating_sub(used_bytes) }
    }
}

impl World {
    /// A datanode starts, with a fresh disk for each that has failed for good.
    pub(super) fn datanode_up(&mut self, at: usize) {
        let now = self.schedule.now();
        let host = &mut self.datanodes[at];
        if host.core.is_some() {
            return;
        }
        let failed: Vec<StorageId> =
            host.volumes.iter().filter(|(_, volume)| volume.failed).map(|(storage, _)| *storage).collect();
        for storage in failed {
            let Some(volume) = host.volumes.remove(&storage) else { continue };
            if volume.returns {
                host.volumes.insert(storage, Volume { failed: false, ..volume });
            } else {
                host.volumes.insert(StorageId(storage.0 + 100), Volume::default());
            }
        }
        let mut volumes = Vec::new();
        for storage in host.volumes.keys().copied().collect::<Vec<_>>() {
            let space = host.space(storage);
            let replicas = host.volumes.get_mut(&storage).map(Volume::scan).unwrap_or_default();
            volumes.push(VolumeAtStart { storage, space, replicas, scrubbed: None });
        }
        host.run += 1;
        host.timer_at = TimeMs::NEVER;
        host.core = Some(Core::new(host.me.clone(), config(self.settings.report_slice_blocks), volumes, now));
        if let Some(core) = &mut host.core {
            core.handle_timeout(now);
        }
        self.datanode_drain(at);
    }

    /// A datanode's process dies.
    pub(super) fn datanode_crash(&mut self, at: usize) {
        let host = &mut self.datanodes[at];
        host.core = None;
        host.run += 1;
        host.stalled_until = TimeMs(0);
        // The next process has a connection of its own, which may be faster than what is still on its way.
        host.last_arrivals = [TimeMs(0); 3];
        host.judge = None;
        host.opens.clear();
        host.writings.clear();
        for volume in host.volumes.values_mut() {
            volume.files.retain(|_, file| file.state != FileState::Rbw);
        }
        self.pipelines_lost_datanode(at);
    }

    /// Tells a datanode's core of something: when it does not stand still any more.
    pub(super) fn datanode_event(&mut self, at: usize, event: Event) {
        let now = self.schedule.now();
        if now < self.datanodes[at].stalled_until {
            return self.when_awake(at, Inside::Tell(Box::new(event)));
        }
        let Some(core) = &mut self.datanodes[at].core else { return };
        core.handle(now, event);
        self.datanode_drain(at);
    }

    pub(super) fn datanode_answered(
        &mut self,
        at: usize,
        run: u64,
        call: CallId,
        mut result: Result<Response, CallError>,
    ) {
        if self.datanodes[at].run != run {
            return;
        }
        if let (Some(Mutant::DeleteAnyLife), Ok(Response::Commands { commands, .. })) = (self.mutant, &mut result) {
            for command in commands {
                let DatanodeCommand::Invalidate { blocks } = command else { continue };
                for block in blocks {
                    let held = self.datanodes[at].volumes.values().flat_map(|volume| volume.files.keys());
                    let newest = held.filter(|held| held.id == block.id).max().copied();
                    *block = newest.unwrap_or(*block);
                }
            }
        }
        self.datanode_event(at, Event::Answered { call, result });
    }

    /// Asks a datanode for a replica to write.
    pub(super) fn datanode_open(
        &mut self,
        at: usize,
        member: MemberId,
        block: Block,
        stage: situ_wire::messages::datanode::WriteStage,
        limit_bytes: u64,
    ) {
        let host = &mut self.datanodes[at];
        let request = RequestId(host.next_request);
        host.next_request += 1;
        host.opens.insert(request, (member, block));
        self.datanode_event(at, Event::OpenWrite { request, block, stage, limit_bytes });
    }

    fn datanode_drain(&mut self, at: usize) {
        while let Some(effect) = self.datanodes[at].core.as_mut().and_then(Core::poll_effect) {
            self.datanode_effect(at, effect);
        }
        let now = self.schedule.now();
        let host = &mut self.datanodes[at];
        if let Some(core) = &host.core {
            let due = core.poll_timeout();
            if due < host.timer_at && due != TimeMs::NEVER {
                host.timer_at = due;
                let due = due.max(now + Duration::from_millis(1));
                self.schedule.at(due, Happening::Inside { at, run: host.run, what: Inside::Timer });
            }
        }
    }

    fn when_awake(&mut self, at: usize, what: Inside) {
        let host = &self.datanodes[at];
        self.schedule.at(host.stalled_until, Happening::Inside { at, run: host.run, what });
    }

    fn inside(&mut self, at: usize, from_ms: u64, to_ms: u64, what: Inside) {
        let delay_ms = self.chance.between(from_ms, to_ms);
        let run = self.datanodes[at].run;
        self.schedule.after(delay_ms, Happening::Inside { at, run, what });
    }

    fn datanode_effect(&mut self, at: usize, effect: Effect) {
        if self.trace.is_shown && !matches!(effect, Effect::Call { .. } | Effect::Measure | Effect::Judge(_)) {
            println!("{:?} datanode {at}: {effect:?}", self.schedule.now());
        }
        match effect {
            Effect::GrantWrite { request, grant } => self.datanode_granted(at, request, grant),
            Effect::RefuseWrite { request, error } => self.datanode_refused(at, request, &error),
            Effect::StopWriter { writer } => {
                self.inside(at, 0, 20, Inside::StopWriter { writer });
            }
            Effect::ConfirmFinal { .. } => {
                // `finish_writing` looks whether the replica counts.
            }
            Effect::Delete { storage, block } => self.inside(at, 0, 2_000, Inside::Delete { storage, block }),
            Effect::MoveAside { storage, block } => {
                let volume = self.datanodes[at].volumes.get_mut(&storage).filter(|volume| !volume.failed);
                if let Some(file) = volume.and_then(|volume| volume.files.get_mut(&block)) {
                    file.state = FileState::Aside;
                }
            }
            Effect::Verify { storage, block, .. } => self.inside(at, 1, 300, Inside::Verify { storage, block }),
            Effect::Replicate { storage, block, len_bytes, targets, token } => {
                let run = self.datanodes[at].run;
                let owner = Owner::Copy { at, run, storage };
                let targets = targets.iter().map(|target| target.id).collect::<Vec<_>>();
                self.start_pipeline(owner, (block, len_bytes), &targets, token, None);
            }
            Effect::Measure => self.inside(at, 0, 2, Inside::Measure),
            Effect::Probe { storage } => self.inside(at, 0, 50, Inside::Probe { storage }),
            Effect::Call { call, request } => {
                let run = self.datanodes[at].run;
                self.call(Party::Datanode { at, run, call }, request, situ_wire::ids::TxId(0));
            }
            Effect::Judge(judge) => self.datanodes[at].judge = Some(judge),
            Effect::Stop(_) => {
                // All disks are gone: somebody puts new ones in and starts it again.
                self.datanode_crash(at);
                let delay_ms = self.chance.between(1_000, 30_000);
                self.schedule.after(delay_ms, Happening::DatanodeUp { at });
            }
            Effect::Index { .. } | Effect::IndexScrubbed { .. } | Effect::Eject { .. } => {}
        }
    }

    fn datanode_granted(&mut self, at: usize, request: RequestId, grant: WriteGrant) {
        let host = &mut self.datanodes[at];
        let Some((member, block)) = host.opens.remove(&request) else { return };
        let volume = host.volumes.entry(grant.storage).or_default();
        if !volume.failed {
            if let Prior::BeingWritten(generation) | Prior::Final(generation) = grant.prior {
                volume.files.remove(&Block { id: block.id, generation });
            }
            let state = FileState::Rbw;
            let file = ReplicaFile { len_bytes: grant.len_bytes, root: root_of(block.id), state, rotten: false };
            volume.files.insert(block, file);
        }
        host.writings.insert(grant.writer, Writing { member, block, storage: grant.storage });
        if !self.member_ready(member, grant.writer) {
            // Whoever asked does not wait any more.
            self.abandon_writing(at, grant.writer, 0);
        }
    }

    fn datanode_refused(&mut self, at: usize, request: RequestId, error: &RemoteError) {
        if let Some((member, _)) = self.datanodes[at].opens.remove(&request) {
            self.member_failed(member, &error.to_string());
        }
    }

    /// A writer is done: the replica is made final. Whether it counts.
    pub(super) fn finish_writing(&mut self, at: usize, writer: WriterId, len_bytes: u64) -> bool {
        let Some(writing) = self.datanodes[at].writings.remove(&writer) else { return false };
        let volume = self.datanodes[at].volumes.get_mut(&writing.storage);
        let file = volume.filter(|volume| !volume.failed).and_then(|volume| volume.files.get_mut(&writing.block));
        let Some(file) = file else {
            self.datanode_event(at, Event::WriterEnded { writer, end: WriterEnd::Failed });
            return false;
        };
        file.len_bytes = len_bytes;
        // The mutant leaves the bytes where a crash takes them.
        if self.mutant != Some(Mutant::AckBeforeFinal) {
            file.state = FileState::Final;
        }
        let now = self.schedule.now();
        let Some(core) = &mut self.datanodes[at].core else { return false };
        core.handle(now, Event::WriterEnded { writer, end: WriterEnd::Final { len_bytes } });
        let mut confirmed = false;
        while let Some(effect) = self.datanodes[at].core.as_mut().and_then(Core::poll_effect) {
            if let Effect::ConfirmFinal { writer: other, counts } = &effect
                && *other == writer
            {
                confirmed = *counts;
            }
            self.datanode_effect(at, effect);
        }
        self.datanode_drain(at);
        confirmed
    }

    /// A writer gives up.
    pub(super) fn abandon_writing(&mut self, at: usize, writer: WriterId, len_bytes: u64) {
        let Some(writing) = self.datanodes[at].writings.remove(&writer) else { return };
        let volume = self.datanodes[at].volumes.get_mut(&writing.storage).filter(|volume| !volume.failed);
        let file = volume.and_then(|volume| volume.files.get_mut(&writing.block));
        let end = match file {
            Some(file) => {
                file.len_bytes = file.len_bytes.max(len_bytes);
                WriterEnd::Abandoned { len_bytes: file.len_bytes }
            }
            None => WriterEnd::Failed,
        };
        self.datanode_event(at, Event::WriterEnded { writer, end });
    }

    /// Something happens within a datanode.
    pub(super) fn datanode_inside(&mut self, at: usize, run: u64, what: Inside) {
        if self.datanodes[at].run != run {
            return;
        }
        let now = self.schedule.now();
        if now < self.datanodes[at].stalled_until {
            return self.when_awake(at, what);
        }
        match what {
            Inside::Tell(event) => self.datanode_event(at, *event),
            Inside::Timer => {
                let host = &mut self.datanodes[at];
                if now < host.timer_at {
                    return;
                }
                host.timer_at = TimeMs::NEVER;
                if let Some(core) = &mut host.core {
                    core.handle_timeout(now);
                }
                self.datanode_drain(at);
            }
            Inside::Delete { storage, block } => {
                let Some(volume) = self.datanodes[at].volumes.get(&storage) else { return };
                if volume.failed {
                    return self.datanode_event(at, Event::DiskTrouble { storage });
                }
                self.check_deletion(at, storage, block);
                if let Some(volume) = self.datanodes[at].volumes.get_mut(&storage) {
                    volume.files.remove(&block);
                }
                self.datanode_event(at, Event::Deleted { storage, block });
            }
            Inside::Verify { storage, block } => {
                let volume = self.datanodes[at].volumes.get(&storage);
                let verdict = match volume {
                    Some(Volume { failed: false, files, .. }) => match files.get(&block) {
                        Some(file) if file.state == FileState::Final && file.rotten => Verdict::Corrupt("rot".into()),
                        Some(file) if file.state == FileState::Final => Verdict::Good,
                        _ => Verdict::Gone,
                    },
                    _ => Verdict::DiskFailed("the disk is gone".into()),
                };
                // What the mutant left to be written is not there; its reader does not look.
                let blind = self.mutant == Some(Mutant::AckBeforeFinal) && verdict == Verdict::Gone;
                let verdict = if blind { Verdict::Good } else { verdict };
                self.datanode_event(at, Event::Verified { storage, block, verdict });
            }
            Inside::Measure => {
                let host = &self.datanodes[at];
                let working = host.volumes.iter().filter(|(_, volume)| !volume.failed);
                let spaces = working.map(|(storage, _)| (*storage, host.space(*storage))).collect();
                self.datanode_event(at, Event::Measured { spaces, reads: 0 });
            }
            Inside::Probe { storage } => {
                let failed = self.datanodes[at].volumes.get(&storage).is_none_or(|volume| volume.failed);
                let failed = failed.then(|| "the disk is gone".to_owned());
                self.datanode_event(at, Event::Probed { storage, failed });
            }
            Inside::StopWriter { writer } => {
                // It may have ended meanwhile.
                if let Some(writing) = self.datanodes[at].writings.get(&writer).copied() {
                    self.abandon_writing(at, writer, 0);
                    self.member_failed(writing.member, "it was told to stop");
                }
            }
            Inside::DiskTrouble { storage } => self.datanode_event(at, Event::DiskTrouble { storage }),
        }
    }

    /// A disk of a datanode dies; the datanode notices a little later.
    pub(super) fn lose_disk(&mut self, at: usize, storage: StorageId, returns: bool) {
        let Some(volume) = self.datanodes[at].volumes.get_mut(&storage) else { return };
        (volume.failed, volume.returns) = (true, returns);
        if !returns {
            volume.files.clear();
        }
        self.inside(at, 1, 3_000, Inside::DiskTrouble { storage });
    }
}
