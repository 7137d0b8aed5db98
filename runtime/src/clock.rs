//! What time it is, and waiting.

use std::future::Future;
use std::time::Duration;

use situ_wire::time::TimeMs;

/// A clock. Within one process it never goes back, whatever the machine's clock does.
pub trait Clock: Clone + Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> TimeMs;

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
