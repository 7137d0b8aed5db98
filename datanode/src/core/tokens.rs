//! What block tokens are judged by: the namenode's key and the namenode's time.

use std::time::Duration;

use situ_wire::block::{Block, BlockToken, BlockTokenKey, TokenError, TokenMode};
use situ_wire::time::TimeMs;

/// How much longer than it says a token opens its block. By so much the namenode's time may be less than the datanode
/// takes it for: its host may have slept since the last heartbeat.
pub const TOKEN_SLACK: Duration = Duration::from_secs(60);

/// Judges block tokens. A token says until when it is good by the time of the namenode that issued it; what that is, the
/// datanode knows from the answers to its registration and to each heartbeat. No wall clock is asked.
///
/// An answer was on its way for a while, so that the namenode's time is a little later than it is taken to be: to the good
/// of the token. A namenode that starts anew has another time and another key, and both come with the same answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenJudge {
    key: BlockTokenKey,
    /// The namenode's time.
    told: TimeMs,
    /// The datanode's time when it heard of it.
    heard: TimeMs,
}

impl TokenJudge {
    /// The namenode has said at `heard` of the datanode's time that its own is `told`.
    #[must_use]
    pub fn new(key: BlockTokenKey, told: TimeMs, heard: TimeMs) -> Self {
        Self { key, told, heard }
    }

    /// Checks that `token` opens `block` for `mode` at the datanode's time `now`.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, token: &BlockToken, block: Block, mode: TokenMode, now: TimeMs) -> Result<(), TokenError> {
        let theirs = self.told + now.since(self.heard);
        // What has passed since the slack began is nothing if less than that has passed at all.
        let judged_at = TimeMs(0) + theirs.since(TimeMs(0) + TOKEN_SLACK);
        self.key.check(token, block, mode, judged_at)
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{BlockId, ClientId, GenerationStamp};

    use super::*;

    #[test]
    fn a_token_is_judged_by_the_time_of_the_namenode_and_not_by_the_datanodes() {
        let key = BlockTokenKey([7; 32]);
        let block = Block { id: BlockId(1), generation: GenerationStamp(2) };
        const YEAR_MS: u64 = 365 * 24 * 3_600_000;
        for (theirs, mine) in [(YEAR_MS, 2 * YEAR_MS), (2 * YEAR_MS, YEAR_MS), (YEAR_MS, 0), (0, YEAR_MS)] {
            let judge = TokenJudge::new(key.clone(), TimeMs(theirs), TimeMs(mine));
            let token = key.issue(block, TokenMode::Read, ClientId(3), TimeMs(theirs + 1_000));
            let after = |ms| judge.check(&token, block, TokenMode::Read, TimeMs(mine + ms));
            assert_eq!([0, 1_000, 61_000].map(after), [Ok(()); 3], "{theirs} {mine}");
            assert_eq!(after(61_001), Err(TokenError::Expired), "{theirs} {mine}");
            assert_eq!(judge.check(&token, block, TokenMode::Write, TimeMs(mine)), Err(TokenError::Invalid));
        }
    }
}
