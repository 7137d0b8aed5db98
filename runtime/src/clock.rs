//! What time it is, by the process and by the wall, and waiting.

use std::future::Future;
use std::time::Duration;

use situ_wire::time::{TimeMs, WallClock, WallTime};

/// A clock. All that waits and decides goes by [`Clock::now`], which never goes back within one process and does not jump
/// when the machine's wall clock is set.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The time now, by this process.
    fn now(&self) -> TimeMs;

    /// The time of day, as the machine's wall clock says now: for people to read.
    fn wall(&self) -> WallTime;

    /// The wall clock as a core is told of it.
    fn wall_clock(&self) -> WallClock {
        WallClock::read(self.now(), self.wall())
    }

    /// Waits until it is `deadline`; forever for [`TimeMs::NEVER`].
    fn sleep_until(&self, deadline: TimeMs) -> impl Future<Output = ()> + Send;

    /// Waits for `rest`.
    fn sleep(&self, rest: Duration) -> impl Future<Output = ()> + Send {
        async move { self.sleep_until(self.now() + rest).await }
    }

    /// Waits for `work`, but no longer than `limit`; none if the time is up.
    fn timeout<F: Future + Send>(&self, limit: Duration, work: F) -> impl Future<Output = Option<F::Output>> + Send
    where
        F::Output: Send,
    {
        async move {
            tokio::select! {
                // In order, so that a simulation runs the same each time.
                biased;
                output = work => Some(output),
                () = self.sleep(limit) => None,
            }
        }
    }
}
