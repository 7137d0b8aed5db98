use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::messages::namenode::Request;

use super::client::{Client, Shared};

/// The leases of a client: one call renews them all, while any file is open.
#[derive(Debug, Default)]
pub(super) struct Leases {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many files are open for writing.
    open: usize,
    /// Whether somebody renews.
    renewing: bool,
}

/// Keeps the client's leases alive until it is dropped.
#[derive(Debug)]
pub(super) struct LeaseGuard {
    state: Arc<Mutex<State>>,
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        lock(&self.state).open -= 1;
    }
}

impl<R: Runtime> Client<R> {
    /// Keeps this client's leases alive as long as the guard lives.
    pub(super) fn hold_lease(&self) -> LeaseGuard {
        let state = Arc::clone(&self.shared.leases.state);
        let mut now = lock(&state);
        now.open += 1;
        if !now.renewing {
            now.renewing = true;
            self.shared.runtime.spawn("lease-renewal", renew(Arc::clone(&self.shared)));
        }
        drop(now);
        LeaseGuard { state }
    }
}

/// Renews until no file is open any more.
async fn renew<R: Runtime>(shared: Arc<Shared<R>>) {
    let rest = Duration::from_millis(shared.config.lease_renew_ms);
    let request = Request::RenewLease { client: shared.id };
    loop {
        shared.runtime.clock().sleep(rest).await;
        {
            let mut state = lock(&shared.leases.state);
            if state.open == 0 {
                state.renewing = false;
                return;
            }
        }
        // Not tried again at once: the next round comes soon, and whoever writes notices a lease that is lost.
        if let Err(error) = shared.namenode.try_once(&request, rest).await {
            tracing::warn!(client = %shared.id, %error, "could not renew the leases of open files; will try again");
        }
    }
}

/// The state stays consistent whoever panicked: each critical section is one step.
fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
