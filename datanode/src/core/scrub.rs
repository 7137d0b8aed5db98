//! Which replica of a volume is verified next, and when.

use std::collections::VecDeque;
use std::time::Duration;

use situ_wire::block::Block;
use situ_wire::ids::BlockId;
use situ_wire::time::TimeMs;

/// How the scrubber goes over one volume: pass after pass, in the order of the blocks, each pass within a period.
#[derive(Debug)]
pub struct Scrub {
    /// Where the pass has come.
    cursor: Option<BlockId>,
    pass_began: TimeMs,
    next_at: TimeMs,
    /// Before that nothing is verified.
    rest_until: TimeMs,
    verifying: Option<Verifying>,
    /// Those that somebody could not read: they come first.
    suspects: VecDeque<Block>,
    period: Duration,
    /// 0 turns passes off; suspects are verified all the same.
    rate_limit_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Verifying {
    block: Block,
    in_pass: bool,
}

/// What to do next on a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Verify that replica, if it is still final.
    Suspect(Block),
    /// Verify the first final replica behind that block.
    After(Option<BlockId>),
}

impl Scrub {
    /// Goes on behind block `cursor`.
    #[must_use]
    pub fn new(cursor: Option<BlockId>, now: TimeMs, period: Duration, rate_limit_bytes: u64) -> Self {
        let next_at = if rate_limit_bytes == 0 { TimeMs::NEVER } else { now + PAUSE };
        Self {
            cursor,
            pass_began: now,
            next_at,
            rest_until: TimeMs(0),
            verifying: None,
            suspects: VecDeque::new(),
            period,
            rate_limit_bytes,
        }
    }

    /// When there is something to do; never while a replica is being verified.
    #[must_use]
    pub fn next_at(&self) -> TimeMs {
        match self.verifying {
            Some(_) => TimeMs::NEVER,
            None if self.suspects.is_empty() => self.next_at.max(self.rest_until),
            None => self.rest_until,
        }
    }

    /// What there is to do now, if anything. A suspect is given out once.
    pub fn next(&mut self, now: TimeMs) -> Option<Next> {
        if self.next_at() > now {
            return None;
        }
        Some(self.suspects.pop_front().map_or(Next::After(self.cursor), Next::Suspect))
    }

    /// A replica is being verified.
    pub fn begin(&mut self, block: Block, in_pass: bool) {
        assert_eq!(self.verifying, None, "one at a time on a volume");
        self.verifying = Some(Verifying { block, in_pass });
    }

    /// Its verification has ended. Returns up to where the pass has come, if this was its next replica.
    pub fn end(&mut self, block: Block) -> Option<BlockId> {
        let ended = self.verifying.take_if(|verifying| verifying.block == block)?;
        ended.in_pass.then(|| *self.cursor.insert(block.id))
    }

    /// Its verification came to nothing: it comes again after a rest.
    pub fn put_off(&mut self, now: TimeMs, block: Block) {
        let Some(ended) = self.verifying.take_if(|verifying| verifying.block == block) else { return };
        self.rest_until = now + REST;
        // The pass has not gone on: its next replica is the same one.
        if !ended.in_pass {
            self.suspect(block);
        }
    }

    /// There is no replica behind the cursor: the pass is over.
    pub fn end_pass(&mut self, now: TimeMs) {
        self.cursor = None;
        self.next_at = (self.pass_began + self.period).max(now + PAUSE);
        self.pass_began = self.next_at;
    }

    /// A replica could not be read.
    pub fn suspect(&mut self, block: Block) {
        let verifying = self.verifying.is_some_and(|verifying| verifying.block == block);
        if !verifying && !self.suspects.contains(&block) && self.suspects.len() < SUSPECTS {
            self.suspects.push_back(block);
        }
    }

    /// How fast to read so that a pass over `used_bytes` takes half of its period, within the limit.
    #[must_use]
    pub fn rate_bytes(&self, used_bytes: u64) -> u64 {
        let half_period_s = (self.period.as_secs() / 2).max(1);
        (used_bytes / half_period_s).clamp(RATE_MIN_BYTES.min(self.rate_limit_bytes), self.rate_limit_bytes)
    }
}

/// How long at least between two passes, so that an empty volume costs nothing.
const PAUSE: Duration = Duration::from_secs(60);
/// How long a volume is left alone when a verification came to nothing.
const REST: Duration = Duration::from_secs(10);
/// A pass is never slower than that, unless the limit is.
const RATE_MIN_BYTES: u64 = 1 << 20;
/// More are not remembered: the next pass finds them.
const SUSPECTS: usize = 1000;
