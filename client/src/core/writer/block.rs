use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_wire::block::{CommittedBlock, LocatedBlock};
use situ_wire::error::ErrorCode;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::WriteStage;
use situ_wire::time::TimeMs;
use situ_wire::tree::Tree;

use super::event::{Effect, Packet, PipelineId, Slot};
use super::file::WriteLimits;
use crate::error::ReplicaFailure;

/// How often the last member of a pipeline is tried again, with growing rests.
const LAST_MEMBER_TRIES: u32 = 5;
/// The rest before the last member is tried again; it doubles.
const LAST_MEMBER_REST: Duration = Duration::from_secs(1);
/// How many blocks are asked for in place of ones whose pipeline could not be opened.
const BLOCKS_ASKED: u32 = 10;

/// Where a block stands; see the module's picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It may not be asked for yet.
    Waiting,
    /// The namenode is asked for it.
    Adding,
    /// The namenode is told that it is not wanted.
    Abandoning,
    /// Its pipeline is being opened.
    Opening(WriteStage),
    /// Packets flow.
    Streaming,
    /// The last member failed and shall be tried again, not before this time.
    Resting(TimeMs),
    /// The namenode is asked for a new life.
    Recovering,
    /// Final on these.
    Finished(Vec<DatanodeId>),
}

/// What a failure of a block leads to.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It goes on.
    GoesOn,
    /// Nothing can be done any more.
    Lost,
}

/// One block that is being written.
#[derive(Debug)]
pub(super) struct BlockWrite {
    pub(super) slot: Slot,
    pub(super) phase: Phase,
    /// The block in its present life, with the members of its pipeline; none before the namenode gave one.
    pub(super) located: Option<LocatedBlock>,
    /// Attempts at pipelines so far.
    attempt: u32,
    /// How often the namenode was asked for a block.
    asked: u32,
    /// How often the last member was tried again without progress.
    last_member_tries: u32,
    /// What is not acknowledged.
    packets: VecDeque<Packet>,
    /// How many of them the present pipeline was sent.
    sent: usize,
    /// How many bytes the application wrote.
    pub(super) len_bytes: u64,
    /// Up to which length every member of some pipeline acknowledged, whole packets only.
    acked_bytes: u64,
    hashed_bytes: u64,
    /// Whether the application wrote all of it.
    pub(super) whole: bool,
    tree: Option<Arc<Tree>>,
    finish_sent: bool,
    /// When the pipeline last did what it owes, or began to owe it.
    quiet_since: TimeMs,
    /// What went wrong, for the error if it comes to one.
    pub(super) failures: Vec<ReplicaFailure>,
}

impl BlockWrite {
    pub(super) fn new(slot: Slot, now: TimeMs) -> Self {
        Self {
            slot,
            phase: Phase::Waiting,
            located: None,
            attempt: 0,
            asked: 0,
            last_member_tries: 0,
            packets: VecDeque::new(),
            sent: 0,
            len_bytes: 0,
            acked_bytes: 0,
            hashed_bytes: 0,
            whole: false,
            tree: None,
            finish_sent: false,
            quiet_since: now,
            failures: Vec::new(),
        }
    }

    /// The present attempt at its pipeline.
    pub(super) fn pipeline(&self) -> PipelineId {
        PipelineId { slot: self.slot, attempt: self.attempt }
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Finished(_))
    }

    /// How many bytes are held for it: not acknowledged or not hashed.
    pub(super) fn held_bytes(&self) -> u64 {
        self.len_bytes - self.acked_bytes.min(self.hashed_bytes)
    }

    /// Notes that the namenode is asked for it; false when it has been asked too often.
    pub(super) fn ask(&mut self) -> bool {
        assert_eq!(self.phase, Phase::Waiting, "a block is asked for when there is none");
        self.phase = Phase::Adding;
        self.asked += 1;
        self.asked <= BLOCKS_ASKED
    }

    /// Takes bytes of the application.
    pub(super) fn write(&mut self, now: TimeMs, bytes: Bytes, crc32c: u32, effects: &mut VecDeque<Effect>) {
        assert!(!self.whole, "nothing is written behind the end of a block");
        effects.push_back(Effect::Hash { slot: self.slot, bytes: bytes.clone() });
        let packet = Packet { offset: self.len_bytes, bytes, crc32c };
        self.len_bytes = packet.end();
        self.packets.push_back(packet);
        self.pump(now, effects);
    }

    /// Takes that the application wrote all of it.
    pub(super) fn end(&mut self, effects: &mut VecDeque<Effect>) {
        assert!(!self.whole && self.len_bytes > 0, "a block ends once and holds something");
        self.whole = true;
        effects.push_back(Effect::EndHash { slot: self.slot });
    }

    /// Opens its pipeline: `located` is the block in a fresh life.
    pub(super) fn open(
        &mut self,
        now: TimeMs,
        located: LocatedBlock,
        stage: WriteStage,
        effects: &mut VecDeque<Effect>,
    ) {
        self.attempt += 1;
        self.sent = 0;
        self.finish_sent = false;
        self.quiet_since = now;
        self.phase = Phase::Opening(stage);
        self.located = Some(located.clone());
        effects.push_back(Effect::Open { pipeline: self.pipeline(), located, stage });
    }

    /// Where a mended pipeline goes on.
    pub(super) fn resume(&self) -> WriteStage {
        WriteStage::Resume { len_bytes: self.acked_bytes }
    }

    pub(super) fn ready(&mut self, now: TimeMs, effects: &mut VecDeque<Effect>) {
        if matches!(self.phase, Phase::Opening(_)) {
            self.phase = Phase::Streaming;
            self.quiet_since = now;
            self.pump(now, effects);
        }
    }

    /// Sends what can be sent.
    fn pump(&mut self, now: TimeMs, effects: &mut VecDeque<Effect>) {
        if self.phase != Phase::Streaming {
            return;
        }
        if !self.owes() {
            self.quiet_since = now;
        }
        let pipeline = self.pipeline();
        for packet in self.packets.range(self.sent..) {
            effects.push_back(Effect::Send { pipeline, packet: packet.clone() });
        }
        self.sent = self.packets.len();
        if let Some(tree) = self.tree.as_ref().filter(|_| self.whole && !self.finish_sent) {
            effects.push_back(Effect::Finish { pipeline, tree: Arc::clone(tree) });
            self.finish_sent = true;
        }
    }

    /// Whether the pipeline owes an acknowledgement.
    fn owes(&self) -> bool {
        self.sent > 0 || self.finish_sent
    }

    /// Takes that all members have `len_bytes`; false when they cannot.
    pub(super) fn received(&mut self, now: TimeMs, len_bytes: u64) -> bool {
        let sent_bytes = self.acked_bytes + self.packets.range(..self.sent).map(|p| p.bytes.len() as u64).sum::<u64>();
        if self.phase != Phase::Streaming || len_bytes > sent_bytes {
            return false;
        }
        while self.packets.front().is_some_and(|packet| self.sent > 0 && packet.end() <= len_bytes) {
            self.acked_bytes = self.packets.pop_front().map_or(self.acked_bytes, |packet| packet.end());
            self.sent -= 1;
            self.quiet_since = now;
            self.last_member_tries = 0;
        }
        true
    }

    /// Takes that the replica is final on `replicas`; false when it cannot be.
    pub(super) fn finished(&mut self, replicas: Vec<DatanodeId>) -> bool {
        let members = self.members();
        if self.phase != Phase::Streaming
            || !self.finish_sent
            || replicas.is_empty()
            || replicas.iter().any(|id| !members.contains(id))
        {
            return false;
        }
        self.packets.clear();
        self.sent = 0;
        self.acked_bytes = self.len_bytes;
        self.phase = Phase::Finished(replicas);
        true
    }

    pub(super) fn hashed(&mut self, len_bytes: u64) {
        assert!((self.hashed_bytes..=self.len_bytes).contains(&len_bytes), "what is hashed was written");
        self.hashed_bytes = len_bytes;
    }

    pub(super) fn take_tree(&mut self, now: TimeMs, tree: Arc<Tree>, effects: &mut VecDeque<Effect>) {
        assert!(self.whole && tree.len_bytes == self.len_bytes, "a tree covers its whole block");
        self.tree = Some(tree);
        self.pump(now, effects);
    }

    fn members(&self) -> Vec<DatanodeId> {
        self.located.iter().flat_map(|located| &located.locations).map(|location| location.id).collect()
    }

    /// The pipeline is broken: decides how to go on. Says who is blamed. `last_block` tells whether the block is the last
    /// of the file so far: only then may another take its place.
    pub(super) fn broken(
        &mut self,
        now: TimeMs,
        member: Option<(DatanodeId, ErrorCode)>,
        reason: String,
        last_block: bool,
        effects: &mut VecDeque<Effect>,
    ) -> (Option<DatanodeId>, Outcome) {
        if !matches!(self.phase, Phase::Opening(_) | Phase::Streaming) {
            return (None, Outcome::GoesOn);
        }
        effects.push_back(Effect::Drop { pipeline: self.pipeline() });
        let Some(located) = self.located.clone() else { return (None, Outcome::Lost) };
        // Who failed is not always known: then it is the one that this process talks to.
        let named = member.and_then(|(id, _)| located.locations.iter().find(|location| location.id == id));
        let Some(blamed) = named.or(located.locations.first()) else { return (None, Outcome::Lost) };
        self.failures.push(ReplicaFailure { datanode: blamed.clone(), reason });
        let survivors: Vec<_> = self.members().into_iter().filter(|id| *id != blamed.id).collect();
        // A replica whose disk failed is no more: there is nothing to go on with.
        let replica_lost = matches!(member, Some((_, ErrorCode::DiskFull | ErrorCode::Io)));
        let fresh = self.phase == Phase::Opening(WriteStage::Create);
        self.sent = 0;
        self.finish_sent = false;
        let outcome = if (fresh || survivors.is_empty()) && last_block && self.acked_bytes == 0 {
            // Nothing of it is anywhere, or nowhere that counts: all its bytes are still here.
            self.phase = Phase::Abandoning;
            effects.push_back(Effect::AbandonBlock { slot: self.slot, block: located.block });
            Outcome::GoesOn
        } else if !survivors.is_empty() {
            self.phase = Phase::Recovering;
            effects.push_back(Effect::RecoverPipeline { slot: self.slot, block: located.block, survivors });
            Outcome::GoesOn
        } else if !replica_lost && self.last_member_tries < LAST_MEMBER_TRIES {
            self.phase = Phase::Resting(now + LAST_MEMBER_REST * (1 << self.last_member_tries));
            self.last_member_tries += 1;
            Outcome::GoesOn
        } else {
            // Nothing is open any more, and nothing will be.
            self.phase = Phase::Resting(TimeMs::NEVER);
            Outcome::Lost
        };
        (Some(blamed.id), outcome)
    }

    /// When it is due: the end of a rest, or of what a pipeline may take.
    pub(super) fn deadline(&self, limits: &WriteLimits) -> Option<TimeMs> {
        match self.phase {
            Phase::Resting(until) => Some(until),
            Phase::Opening(_) => {
                let members = self.located.as_ref().map_or(1, |located| located.locations.len());
                let members = u32::try_from(members).unwrap_or(u32::MAX);
                Some(self.quiet_since + limits.open_timeout.saturating_mul(members))
            }
            Phase::Streaming if self.sent > 0 => Some(self.quiet_since + limits.ack_timeout),
            Phase::Streaming if self.finish_sent => Some(self.quiet_since + limits.finish_timeout),
            _ => None,
        }
    }

    /// The rest before the last member is tried again is over.
    pub(super) fn try_last_member(&mut self, effects: &mut VecDeque<Effect>) {
        assert!(matches!(self.phase, Phase::Resting(_)), "only who rests is woken");
        let survivors = self.members();
        if let Some(located) = &self.located {
            effects.push_back(Effect::RecoverPipeline { slot: self.slot, block: located.block, survivors });
        }
        self.phase = Phase::Recovering;
    }

    /// The block as the namenode wants to hear of it, once it is final.
    pub(super) fn committed(&self) -> Option<CommittedBlock> {
        let (Phase::Finished(replicas), Some(located), Some(tree)) = (&self.phase, &self.located, &self.tree) else {
            return None;
        };
        Some(CommittedBlock {
            block: located.block,
            len_bytes: self.len_bytes,
            root: tree.root,
            replicas: replicas.clone(),
        })
    }

    /// Asserts what always holds.
    pub(super) fn check(&self) {
        assert!(self.sent <= self.packets.len(), "only what is there was sent");
        let held: u64 = self.packets.iter().map(|packet| packet.bytes.len() as u64).sum();
        assert_eq!(self.acked_bytes + held, self.len_bytes, "every byte is acknowledged or here");
        let mut at = self.acked_bytes;
        for packet in &self.packets {
            assert_eq!(packet.offset, at, "packets follow each other");
            at = packet.end();
        }
        assert!(!self.finish_sent || self.tree.is_some(), "a block is finished with its tree");
    }
}
