//! What flows between datanodes: pipelines of writers, and copies.

use situ_datanode::core::WriterId;
use situ_datanode::storage::Verdict;
use situ_wire::block::{Block, BlockToken, TokenMode};
use situ_wire::ids::{DatanodeId, StorageId};
use situ_wire::messages::datanode::WriteStage;

use super::disk::{FileState, Volume};
use super::mutants::Mutant;
use super::world::{Happening, World};

/// A member of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemberId {
    pub(super) pipeline: u64,
    pub(super) index: usize,
}

/// For whom the bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A client writes.
    Client { at: usize, run: u64 },
    /// A datanode copies what it has.
    Copy { at: usize, run: u64, storage: StorageId },
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It was asked, or will be.
    Opening,
    /// It takes bytes.
    Writing(WriterId),
    /// It has all of them, for good.
    Final,
    /// It is broken. It may have some of the bytes.
    Failed,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) at: usize,
    pub(super) state: MemberState,
}

/// Bytes of one block that flow to some datanodes.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) owner: Owner,
    pub(super) block: Block,
    len_bytes: u64,
    token: BlockToken,
    stage: WriteStage,
    pub(super) members: Vec<Member>,
}

/// What happens to a pipeline.
#[derive(Debug, Clone, Copy)]
pub(super) enum Flow {
    /// A member is asked for a replica.
    Open(usize),
    /// A member has all bytes, or breaks down.
    Finish(usize),
    /// It takes too long.
    GiveUp,
}

/// How long a pipeline may take.
const PATIENCE_MS: u64 = 6_000;

impl World {
    /// Lets a block flow to datanodes; resumed `from` that length if it is not a new one.
    pub(super) fn start_pipeline(
        &mut self,
        owner: Owner,
        (block, len_bytes): (Block, u64),
        targets: &[DatanodeId],
        token: BlockToken,
        from: Option<u64>,
    ) -> u64 {
        let id = self.next_number();
        let stage = from.map_or(WriteStage::Create, |len_bytes| WriteStage::Resume { len_bytes });
        let members = targets.iter().filter_map(|target| self.datanode_of(*target));
        let members: Vec<Member> = members.map(|at| Member { at, state: MemberState::Opening }).collect();
        for index in 0..members.len() {
            let delay_ms = self.chance.between(1, 20);
            self.schedule.after(delay_ms, Happening::Flow { pipeline: id, what: Flow::Open(index) });
        }
        self.schedule.after(PATIENCE_MS, Happening::Flow { pipeline: id, what: Flow::GiveUp });
        self.pipelines.insert(id, Pipeline { owner, block, len_bytes, token, stage, members });
        id
    }

    pub(super) fn datanode_of(&self, id: DatanodeId) -> Option<usize> {
        self.datanodes.iter().position(|datanode| datanode.me.id == id)
    }

    pub(super) fn flow(&mut self, id: u64, what: Flow) {
        let Some(pipeline) = self.pipelines.get(&id) else { return };
        match what {
            Flow::Open(index) => self.open_member(MemberId { pipeline: id, index }),
            Flow::Finish(index) => self.finish_member(MemberId { pipeline: id, index }),
            Flow::GiveUp => {
                for index in 0..pipeline.members.len() {
                    self.member_failed(MemberId { pipeline: id, index }, "it takes too long");
                }
            }
        }
    }

    fn open_member(&mut self, id: MemberId) {
        let pipeline = &self.pipelines[&id.pipeline];
        let member = &pipeline.members[id.index];
        if member.state != MemberState::Opening {
            return;
        }
        let (at, block, stage, limit_bytes) = (member.at, pipeline.block, pipeline.stage, pipeline.len_bytes);
        let host = &self.datanodes[at];
        let now = self.schedule.now();
        let allowed = host.judge.as_ref().map(|judge| judge.check(&pipeline.token, block, TokenMode::Write, now));
        match allowed {
            Some(Ok(())) if host.core.is_some() => self.datanode_open(at, id, block, stage, limit_bytes),
            Some(Err(error)) => self.member_failed(id, &error.to_string()),
            _ => self.member_failed(id, "it is down"),
        }
    }

    /// A member may take bytes. Whether anybody still wants it to.
    pub(super) fn member_ready(&mut self, id: MemberId, writer: WriterId) -> bool {
        let Some(pipeline) = self.pipelines.get_mut(&id.pipeline) else { return false };
        let member = &mut pipeline.members[id.index];
        if member.state != MemberState::Opening {
            return false;
        }
        member.state = MemberState::Writing(writer);
        let delay_ms = self.chance.between(5, 400);
        self.schedule.after(delay_ms, Happening::Flow { pipeline: id.pipeline, what: Flow::Finish(id.index) });
        true
    }

    fn finish_member(&mut self, id: MemberId) {
        let Some(pipeline) = self.pipelines.get(&id.pipeline) else { return };
        let member = &pipeline.members[id.index];
        let MemberState::Writing(writer) = member.state else { return };
        let (at, block, len_bytes) = (member.at, pipeline.block, pipeline.len_bytes);
        let now = self.schedule.now();
        let sender_until = match pipeline.owner {
            Owner::Client { .. } => now,
            Owner::Copy { at, .. } => self.datanodes[at].stalled_until,
        };
        let awake_at = sender_until.max(self.datanodes[at].stalled_until);
        if now < awake_at {
            // Whoever sends or takes the bytes stands still.
            return self.schedule.at(awake_at, Happening::Flow { pipeline: id.pipeline, what: Flow::Finish(id.index) });
        }
        let source_is_good = match pipeline.owner {
            Owner::Client { .. } => true,
            Owner::Copy { at, storage, .. } => self.can_be_read(at, storage, block),
        };
        if !source_is_good || self.chance.permille(self.settings.broken_write_permille) {
            return self.member_failed(id, "it broke down");
        }
        let is_final = self.finish_writing(at, writer, len_bytes) || self.mutant == Some(Mutant::AckBeforeFinal);
        let Some(pipeline) = self.pipelines.get_mut(&id.pipeline) else { return };
        if is_final {
            pipeline.members[id.index].state = MemberState::Final;
            self.pipeline_progress(id.pipeline);
        } else {
            self.member_failed(id, "it does not count");
        }
    }

    fn can_be_read(&self, at: usize, storage: StorageId, block: Block) -> bool {
        self.read_verdict(at, storage, block) == Verdict::Good
    }

    /// What a reader of a whole replica finds.
    fn read_verdict(&self, at: usize, storage: StorageId, block: Block) -> Verdict {
        match self.datanodes[at].volumes.get(&storage) {
            Some(Volume { failed: false, files, .. }) => match files.get(&block) {
                Some(file) if file.rotten => Verdict::Corrupt("rot".to_owned()),
                Some(file) if file.state == FileState::Final => Verdict::Good,
                _ => Verdict::Gone,
            },
            _ => Verdict::DiskFailed("the disk is gone".to_owned()),
        }
    }

    /// A member is of no use any more.
    pub(super) fn member_failed(&mut self, id: MemberId, reason: &str) {
        let Some(pipeline) = self.pipelines.get_mut(&id.pipeline) else { return };
        let half_bytes = pipeline.len_bytes / 2;
        let member = &mut pipeline.members[id.index];
        let at = member.at;
        let before = std::mem::replace(&mut member.state, MemberState::Failed);
        match before {
            MemberState::Final => member.state = MemberState::Final,
            MemberState::Failed => return,
            MemberState::Opening => {}
            MemberState::Writing(writer) => self.abandon_writing(at, writer, half_bytes),
        }
        if self.trace.is_shown && before != MemberState::Final {
            println!("{:?} {id:?} at {at}: {reason}", self.schedule.now());
        }
        self.pipeline_progress(id.pipeline);
    }

    /// A datanode's process died: whoever writes there notices.
    pub(super) fn pipelines_lost_datanode(&mut self, at: usize) {
        let members = self.pipelines.iter().flat_map(|(pipeline, flow)| {
            let here = flow.members.iter().enumerate().filter(|(_, member)| member.at == at);
            here.map(|(index, _)| MemberId { pipeline: *pipeline, index })
        });
        for member in members.collect::<Vec<_>>() {
            self.member_failed(member, "its process died");
        }
    }

    /// Tells the owner when all members have come to an end.
    fn pipeline_progress(&mut self, id: u64) {
        let Some(pipeline) = self.pipelines.get(&id) else { return };
        let ended = |member: &Member| matches!(member.state, MemberState::Final | MemberState::Failed);
        if !pipeline.members.iter().all(ended) {
            return;
        }
        let Some(pipeline) = self.pipelines.remove(&id) else { return };
        match pipeline.owner {
            Owner::Client { at, run } => {
                if self.clients[at].run == run {
                    self.client_pipeline_ended(at, &pipeline);
                }
            }
            Owner::Copy { at, run, storage } => {
                if self.datanodes[at].run != run {
                    return;
                }
                let failed = pipeline.members.iter().filter(|member| member.state == MemberState::Failed);
                let failed = failed.map(|member| (self.datanodes[member.at].me.id, "it failed".to_owned())).collect();
                let verdict = self.read_verdict(at, storage, pipeline.block);
                let event = situ_datanode::core::Event::Replicated { storage, block: pipeline.block, failed, verdict };
                self.datanode_event(at, event);
            }
        }
    }
}
