use std::time::Duration;

use situ_runtime::rpc::RpcError;
use situ_wire::error::{ErrorCode, Retry};
use situ_wire::time::TimeMs;

/// The wait before the first retry; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How long a call is tried again, by what keeps it from being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Patience {
    /// While the server is away, starting or busy.
    pub(crate) server: Duration,
    /// While no datanode can take a block.
    pub(crate) datanodes: Duration,
}

/// The retries of one call.
#[derive(Debug)]
pub(crate) struct Retries {
    patience: Patience,
    started: TimeMs,
    tries: u32,
}

impl Retries {
    /// A call that is first tried `now`.
    pub(crate) fn new(patience: Patience, now: TimeMs) -> Self {
        Self { patience, started: now, tries: 0 }
    }

    /// The call failed `now` with `error`: how long to wait before it is tried again, or none if it shall not be.
    /// `random` spreads the clients of a server that comes back.
    pub(crate) fn after(&mut self, now: TimeMs, error: &RpcError, random: u64) -> Option<Duration> {
        let limit = self.limit(error)?;
        if self.waited(now) >= limit {
            return None;
        }
        let longest = LONGEST_WAIT.min(FIRST_WAIT.saturating_mul(1 << self.tries.min(16)));
        self.tries += 1;
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX).max(2);
        let wait = Duration::from_millis(longest_ms / 2 + random % (longest_ms / 2));
        assert!(wait <= LONGEST_WAIT, "a wait is bounded");
        // The last try is made when the time is up, not before.
        Some(wait.min(limit.saturating_sub(self.waited(now)).max(Duration::from_millis(1))))
    }

    /// How long the call has been tried.
    pub(crate) fn waited(&self, now: TimeMs) -> Duration {
        now.since(self.started)
    }

    /// How long a call that meets `error` is tried; none if trying again cannot help.
    pub(crate) fn limit(&self, error: &RpcError) -> Option<Duration> {
        if error.retry() != Retry::Later {
            return None;
        }
        match error.remote() {
            Some(remote) if remote.code == ErrorCode::NoDatanodes => Some(self.patience.datanodes),
            _ => Some(self.patience.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use situ_wire::error::RemoteError;

    fn patience() -> Patience {
        Patience { server: Duration::from_secs(60), datanodes: Duration::from_secs(5) }
    }

    fn remote(code: ErrorCode) -> RpcError {
        RemoteError::new(code, "/a", "because").into()
    }

    #[test]
    fn waits_grow_to_a_bound_and_end_with_the_patience() {
        let mut now = TimeMs(1_000);
        let mut retries = Retries::new(patience(), now);
        let error = RpcError::DeadlineExceeded { timeout: Duration::from_secs(1) };
        let mut waits = Vec::new();
        while let Some(wait) = retries.after(now, &error, u64::MAX) {
            waits.push(wait.as_millis());
            now = now + wait;
        }
        assert!(waits[..5].is_sorted(), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= 2_000), "{waits:?}");
        assert_eq!(now, TimeMs(61_000), "the last try is made when the time is up");
    }

    #[test]
    fn only_what_may_change_is_tried_again_and_a_lack_of_datanodes_not_for_long() {
        let start = TimeMs(0);
        for (code, at, again) in [
            (ErrorCode::SafeMode, 59_999, true),
            (ErrorCode::SafeMode, 60_000, false),
            (ErrorCode::Unavailable, 59_999, true),
            (ErrorCode::NotRegistered, 0, true),
            (ErrorCode::NoDatanodes, 4_999, true),
            (ErrorCode::NoDatanodes, 5_000, false),
            (ErrorCode::NotFound, 0, false),
            (ErrorCode::LeaseLost, 0, false),
            (ErrorCode::NamenodeFull, 0, false),
            (ErrorCode::Io, 0, false),
        ] {
            let mut retries = Retries::new(patience(), start);
            assert_eq!(retries.after(TimeMs(at), &remote(code), 7).is_some(), again, "{code:?} at {at} ms");
        }
    }
}
