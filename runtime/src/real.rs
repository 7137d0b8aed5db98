//! The machine: its clock, its randomness, its file system, its network.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use rustix::process::{Resource, Rlimit};
use rustls::crypto::{SecureRandom, ring};
use situ_wire::time::{TimeMs, WallTime};
use tokio::runtime::Handle;

use crate::clock::Clock;
use crate::disk::fs::FsDisk;
use crate::security::{Credentials, SecurityError};
use crate::store::{SledStore, Store, StoreError};
use crate::transport::net::{NetTransport, Route};
use crate::{Runtime, Task};

/// Lets the process keep some of the memory that it frees, for a process that moves bulk bytes: else every packet is in
/// pages that the kernel has just made and takes back again, which took a third of a datanode's processor time.
///
/// glibc fits what it keeps, at the end of each heap, to twice the largest block that was ever given back, up to 64 MiB
/// (mallopt(3), `M_MMAP_THRESHOLD` and `M_TRIM_THRESHOLD`); elsewhere this does nothing that matters.
pub fn keep_freed_memory() {
    const LARGEST_THAT_COUNTS_BYTES: usize = 31 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGEST_THAT_COUNTS_BYTES)));
}

/// The machine's clocks: one that never goes back, which begins with the time of day at the process's start (a restart on
/// a machine whose clock is right goes on where the last run ended); and the wall clock, read anew each time.
#[derive(Clone, Debug)]
pub struct RealClock {
    started: Instant,
    started_at: TimeMs,
}

impl RealClock {
    /// A clock that is set by the machine's now.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), started_at: TimeMs::default() + since_epoch() }
    }
}

/// What the machine's wall clock says; nothing if that is before 1970.
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> TimeMs {
        self.started_at + self.started.elapsed()
    }

    fn wall(&self) -> WallTime {
        WallTime((TimeMs::default() + since_epoch()).0)
    }

    async fn sleep_until(&self, deadline: TimeMs) {
        if deadline == TimeMs::NEVER {
            return std::future::pending().await;
        }
        match self.started.checked_add(deadline.since(self.started_at)) {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }

    async fn sleep(&self, rest: Duration) {
        // Not by way of whole milliseconds.
        tokio::time::sleep(rest).await;
    }
}

/// The machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RealRuntime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: RealClock,
    transport: NetTransport,
    disk: FsDisk,
    random: &'static dyn SecureRandom,
    /// Where tasks run, whichever thread spawns them.
    tasks: Handle,
}

impl RealRuntime {
    /// The machine, for a process that proves who it is with `credentials`. Allows the process as many descriptors as
    /// the system lets it have: streams on one host take one each.
    ///
    /// # Errors
    /// When the TLS library does not take the credentials.
    ///
    /// # Panics
    /// Outside a tokio runtime: its tasks run there.
    pub fn new(credentials: Option<&Credentials>) -> Result<Self, SecurityError> {
        Self::with_route(credentials, Route::Auto)
    }

    /// As [`RealRuntime::new`], with a say in which ways connections take.
    ///
    /// # Errors
    /// As [`RealRuntime::new`].
    ///
    /// # Panics
    /// As [`RealRuntime::new`].
    pub fn with_route(credentials: Option<&Credentials>, route: Route) -> Result<Self, SecurityError> {
        raise_descriptor_limit();
        let shared = Shared {
            clock: RealClock::new(),
            transport: NetTransport::new(credentials, route)?,
            disk: FsDisk,
            random: ring::default_provider().secure_random,
            tasks: Handle::current(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Runtime for RealRuntime {
    type Clock = RealClock;
    type Transport = NetTransport;
    type Disk = FsDisk;

    fn clock(&self) -> &RealClock {
        &self.shared.clock
    }

    fn transport(&self) -> &NetTransport {
        &self.shared.transport
    }

    fn disk(&self) -> &FsDisk {
        &self.shared.disk
    }

    fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(SledStore::open(path)?))
    }

    fn random(&self, bytes: &mut [u8]) {
        self.shared.random.fill(bytes).expect("the kernel has randomness once it has started");
    }

    fn spawn<F>(&self, name: &'static str, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task(self.shared.tasks.spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    let what = crate::panic_message(panic.as_ref());
                    tracing::error!(task = name, "a task panicked, which is a defect; the process ends: {what}");
                    std::process::abort();
                }
            }
        }))
    }

    async fn blocking<F, O>(&self, work: F) -> O
    where
        F: FnOnce() -> O + Send + 'static,
        O: Send + 'static,
    {
        match self.shared.tasks.spawn_blocking(work).await {
            Ok(output) => output,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down, and with it whoever waits here.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the number of open files that is allowed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_clock_waits_until_the_time_has_come() {
        let runtime = RealRuntime::new(None).unwrap();
        let deadline = runtime.clock().now() + Duration::from_millis(20);
        runtime.clock().sleep_until(deadline).await;
        assert!(runtime.clock().now() >= deadline);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert!(runtime.clock().wall().since(WallTime::default()).abs_diff(now) < Duration::from_secs(60));
    }

    #[tokio::test]
    async fn randomness_differs() {
        let runtime = RealRuntime::new(None).unwrap();
        assert_ne!(runtime.random_u128(), runtime.random_u128());
    }

    #[tokio::test]
    async fn tasks_run_whichever_thread_spawns_them() {
        let runtime = RealRuntime::new(None).unwrap();
        let inside = runtime.clone();
        let spawned = runtime.blocking(move || inside.spawn("answer", async { 42 })).await;
        assert_eq!(spawned.join().await, Some(42));
    }

    #[test]
    #[ignore = "run as a process of its own by the next test"]
    fn a_task_that_panics() {
        let tasks = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tasks.block_on(async {
            let runtime = RealRuntime::new(None).unwrap();
            runtime.spawn("cancelled", std::future::pending::<()>()).abort();
            runtime.spawn("broken", async { panic!("a part of the server is gone") }).join().await
        });
    }

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "real::tests::a_task_that_panics", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        assert!(child.status.signal().is_some(), "it ended with {}", child.status);
        assert!(said.contains("a part of the server is gone"), "{said}");
    }
}
