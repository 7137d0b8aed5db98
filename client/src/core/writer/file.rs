use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use situ_wire::block::{CommittedBlock, LocatedBlock};
use situ_wire::error::ErrorCode;
use situ_wire::ids::DatanodeId;
use situ_wire::messages::datanode::WriteStage;
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;
use situ_wire::tree::Tree;

use super::block::{BlockWrite, Outcome, Phase};
use super::event::{Effect, Event, PipelineId, Slot};
use crate::error::{ClientError, WriteError};

/// How many blocks may be unfinished when another one is asked for.
const UNFINISHED_BLOCKS: usize = 2;
/// How long a datanode that failed is not asked for.
const EXCLUDED: Duration = Duration::from_secs(60);

/// What bounds the writing of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriteLimits {
    /// How long a block is.
    pub(crate) block_len_bytes: u64,
    /// How many bytes may be held for pipelines that may yet break.
    pub(crate) window_bytes: u64,
    /// How long each member of a pipeline may take to be ready.
    pub(crate) open_timeout: Duration,
    /// How long a pipeline may owe an acknowledgement of packets.
    pub(crate) ack_timeout: Duration,
    /// How long it may take to bring a whole block to its disks.
    pub(crate) finish_timeout: Duration,
}

/// The writing of one file.
///
/// Feed it with [`handle`](Self::handle), and with [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due; after each do every effect of [`poll_effect`](Self::poll_effect), in
/// order. It is over with [`Effect::End`].
#[derive(Debug)]
pub(crate) struct FileWrite {
    path: DfsPath,
    limits: WriteLimits,
    /// The blocks that are not final or have unfinished ones before them.
    blocks: VecDeque<BlockWrite>,
    next_slot: Slot,
    /// Final, not yet told to the namenode.
    committed: Vec<CommittedBlock>,
    /// Being told to the namenode.
    reporting: Vec<CommittedBlock>,
    /// Who failed, and until when it is not asked for.
    excluded: BTreeMap<DatanodeId, TimeMs>,
    len_bytes: u64,
    closing: bool,
    completing: bool,
    ended: bool,
    effects: VecDeque<Effect>,
}

impl FileWrite {
    pub(crate) fn new(path: DfsPath, limits: WriteLimits) -> Self {
        Self {
            path,
            limits,
            blocks: VecDeque::new(),
            next_slot: 0,
            committed: Vec::new(),
            reporting: Vec::new(),
            excluded: BTreeMap::new(),
            len_bytes: 0,
            closing: false,
            completing: false,
            ended: false,
            effects: VecDeque::new(),
        }
    }

    /// Whether more may be written now.
    pub(crate) fn has_room(&self) -> bool {
        !self.closing && !self.ended && self.held_bytes() < self.limits.window_bytes
    }

    fn held_bytes(&self) -> u64 {
        self.blocks.iter().map(BlockWrite::held_bytes).sum()
    }

    /// The next thing to do.
    pub(crate) fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due next.
    pub(crate) fn poll_timeout(&self) -> Option<TimeMs> {
        if self.ended {
            return None;
        }
        self.blocks.iter().filter_map(|block| block.deadline(&self.limits)).min()
    }

    /// Does what is due by time.
    pub(crate) fn handle_timeout(&mut self, now: TimeMs) {
        if self.ended {
            return;
        }
        let due: Vec<_> = self
            .blocks
            .iter()
            .filter(|block| block.deadline(&self.limits).is_some_and(|deadline| deadline <= now))
            .map(BlockWrite::pipeline)
            .collect();
        for pipeline in due {
            let Some(block) = find(&mut self.blocks, pipeline.slot) else { continue };
            if matches!(block.phase, Phase::Resting(_)) {
                block.try_last_member(&mut self.effects);
            } else {
                self.broken(now, pipeline, None, "it did not acknowledge in time".to_owned());
            }
        }
        self.go_on(now);
    }

    /// Takes an event.
    pub(crate) fn handle(&mut self, now: TimeMs, event: Event) {
        if self.ended {
            return;
        }
        match event {
            Event::Written { bytes, crc32c } => self.write(now, bytes, crc32c),
            Event::Close => self.close(),
            Event::Added { slot, result } => self.added(now, slot, result),
            Event::Abandoned { slot, result } => self.abandoned(slot, result),
            Event::Recovered { slot, result } => self.recovered(now, slot, result),
            Event::Completed { result } => self.end(result.map(|()| self.len_bytes)),
            Event::Ready { pipeline } => {
                if let Some(block) = current(&mut self.blocks, pipeline) {
                    block.ready(now, &mut self.effects);
                }
            }
            Event::Received { pipeline, len_bytes } => {
                let taken = current(&mut self.blocks, pipeline).is_none_or(|block| block.received(now, len_bytes));
                if !taken {
                    self.broken(now, pipeline, None, format!("it acknowledged {len_bytes} bytes, more than were sent"));
                }
            }
            Event::Finished { pipeline, replicas } => {
                let taken = current(&mut self.blocks, pipeline).is_none_or(|block| block.finished(replicas.clone()));
                if !taken {
                    self.broken(now, pipeline, None, format!("it finished on {replicas:?}, which cannot be"));
                }
            }
            Event::Broken { pipeline, member, reason } => self.broken(now, pipeline, member, reason),
            Event::Hashed { slot, len_bytes } => {
                if let Some(block) = find(&mut self.blocks, slot) {
                    block.hashed(len_bytes);
                }
            }
            Event::Tree { slot, tree } => self.take_tree(now, slot, tree),
        }
        self.go_on(now);
    }

    fn write(&mut self, now: TimeMs, bytes: Bytes, crc32c: u32) {
        assert!(!self.closing, "nothing is written after the close");
        assert!(!bytes.is_empty(), "a packet holds something");
        self.len_bytes += bytes.len() as u64;
        if self.blocks.back().is_none_or(|block| block.whole) {
            self.blocks.push_back(BlockWrite::new(self.next_slot, now));
            self.next_slot += 1;
        }
        let Some(block) = self.blocks.back_mut() else { return };
        block.write(now, bytes, crc32c, &mut self.effects);
        assert!(block.len_bytes <= self.limits.block_len_bytes, "a packet lies within one block");
        if block.len_bytes == self.limits.block_len_bytes {
            block.end(&mut self.effects);
        }
    }

    fn close(&mut self) {
        self.closing = true;
        if let Some(block) = self.blocks.back_mut().filter(|block| !block.whole) {
            block.end(&mut self.effects);
        }
    }

    fn take_tree(&mut self, now: TimeMs, slot: Slot, tree: Arc<Tree>) {
        if let Some(block) = find(&mut self.blocks, slot) {
            block.take_tree(now, tree, &mut self.effects);
        }
    }

    fn added(&mut self, now: TimeMs, slot: Slot, result: Result<LocatedBlock, ClientError>) {
        let Some(block) = find(&mut self.blocks, slot) else { return };
        match result {
            Ok(located) if located.locations.is_empty() => self.lost(slot),
            Ok(located) => {
                self.reporting.clear();
                block.open(now, located, WriteStage::Create, &mut self.effects);
            }
            // Better a datanode that has just failed than none.
            Err(error) if error.code() == Some(ErrorCode::NoDatanodes) && !self.excluded.is_empty() => {
                self.excluded.clear();
                self.committed.splice(0..0, self.reporting.drain(..));
                block.phase = Phase::Waiting;
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn abandoned(&mut self, slot: Slot, result: Result<(), ClientError>) {
        let Some(block) = find(&mut self.blocks, slot) else { return };
        match result {
            Ok(()) => {
                block.located = None;
                block.phase = Phase::Waiting;
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn recovered(&mut self, now: TimeMs, slot: Slot, result: Result<LocatedBlock, ClientError>) {
        let Some(block) = find(&mut self.blocks, slot) else { return };
        match result {
            Ok(located) if located.locations.is_empty() => self.lost(slot),
            Ok(located) => {
                let stage = block.resume();
                block.open(now, located, stage, &mut self.effects);
            }
            Err(error) => self.end(Err(error)),
        }
    }

    fn broken(&mut self, now: TimeMs, pipeline: PipelineId, member: Option<(DatanodeId, ErrorCode)>, reason: String) {
        // A block that waits for its turn is not known to the namenode: the one before it is its last.
        let last_asked = self.blocks.iter().rev().find(|block| block.phase != Phase::Waiting).map(|block| block.slot);
        let Some(block) = current(&mut self.blocks, pipeline) else { return };
        let (blamed, outcome) = block.broken(now, member, reason, last_asked == Some(pipeline.slot), &mut self.effects);
        if let Some(blamed) = blamed {
            self.excluded.insert(blamed, now + EXCLUDED);
        }
        if outcome == Outcome::Lost {
            self.lost(pipeline.slot);
        }
    }

    /// A block has no way on: the file fails.
    fn lost(&mut self, slot: Slot) {
        let Some(block) = find(&mut self.blocks, slot) else { return };
        let error = WriteError {
            path: self.path.clone(),
            block: block.located.as_ref().map(|located| located.block),
            offset: slot * self.limits.block_len_bytes,
            failures: std::mem::take(&mut block.failures),
        };
        self.end(Err(ClientError::Write(Box::new(error))));
    }

    fn end(&mut self, result: Result<u64, ClientError>) {
        if self.ended {
            return;
        }
        self.ended = true;
        for block in &self.blocks {
            if matches!(block.phase, Phase::Opening(_) | Phase::Streaming) {
                self.effects.push_back(Effect::Drop { pipeline: block.pipeline() });
            }
        }
        self.effects.push_back(Effect::End { result });
    }

    /// Does what has become possible: notes final blocks, asks for the next one, closes the file.
    fn go_on(&mut self, now: TimeMs) {
        if self.ended {
            return;
        }
        while let Some(committed) = self.blocks.front().and_then(BlockWrite::committed) {
            self.committed.push(committed);
            self.blocks.pop_front();
        }
        self.ask_for_block(now);
        if self.closing && self.blocks.is_empty() && !self.completing && !self.ended {
            self.completing = true;
            self.effects.push_back(Effect::Complete { committed: std::mem::take(&mut self.committed) });
        }
    }

    /// Asks for the block that waits first, when few enough before it are unfinished and no other is asked for.
    fn ask_for_block(&mut self, now: TimeMs) {
        let Some(at) = self.blocks.iter().position(|block| block.phase == Phase::Waiting) else { return };
        let before = self.blocks.range(..at);
        let unfinished = before.clone().filter(|block| !block.is_finished()).count();
        // The namenode keeps blocks in the order in which it gave them: those before must have theirs for good.
        let settled = before.clone().all(|block| {
            matches!(block.phase, Phase::Streaming | Phase::Recovering | Phase::Resting(_) | Phase::Finished(_))
                || matches!(block.phase, Phase::Opening(WriteStage::Resume { .. }))
        });
        if unfinished > UNFINISHED_BLOCKS || !settled {
            return;
        }
        let Some(block) = self.blocks.get_mut(at) else { return };
        let slot = block.slot;
        if !block.ask() {
            return self.lost(slot);
        }
        assert!(self.reporting.is_empty(), "one report at a time");
        self.reporting = std::mem::take(&mut self.committed);
        self.excluded.retain(|_, until| *until > now);
        let exclude = self.excluded.keys().copied().collect();
        self.effects.push_back(Effect::AddBlock { slot, committed: self.reporting.clone(), exclude });
    }

    /// Asserts what always holds.
    pub(crate) fn check(&self) {
        for (before, after) in self.blocks.iter().zip(self.blocks.iter().skip(1)) {
            assert_eq!(before.slot + 1, after.slot, "blocks follow each other");
            assert!(before.whole, "a block begins when the one before it is whole");
        }
        self.blocks.iter().for_each(BlockWrite::check);
        assert!(!self.completing || self.blocks.is_empty(), "a file is closed when all its blocks are final");
    }
}

fn find(blocks: &mut VecDeque<BlockWrite>, slot: Slot) -> Option<&mut BlockWrite> {
    blocks.iter_mut().find(|block| block.slot == slot)
}

/// The block whose present pipeline that is.
fn current(blocks: &mut VecDeque<BlockWrite>, pipeline: PipelineId) -> Option<&mut BlockWrite> {
    find(blocks, pipeline.slot).filter(|block| block.pipeline() == pipeline)
}
