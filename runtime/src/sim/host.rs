use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use situ_wire::time::{TimeMs, WallTime};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::world::Panics;
use crate::clock::Clock;
use crate::disk::memory::MemoryDisk;
use crate::store::{MemoryStore, Store, StoreError};
use crate::transport::sim::SimTransport;
use crate::{Runtime, Task};

/// When every simulation begins.
const START: TimeMs = TimeMs(1_750_000_000_000);

/// The simulated clock, over tokio's paused one: of the world, or of one process.
#[derive(Clone, Debug)]
pub struct SimClock {
    start: Instant,
    /// What it said at the world's beginning: as on a real machine, a process takes its time from the wall clock once.
    start_at: TimeMs,
    /// By how many milliseconds the host's wall clock is ahead of the world's.
    ahead_ms: Arc<AtomicI64>,
}

impl SimClock {
    pub(super) fn new() -> Self {
        Self { start: Instant::now(), start_at: START, ahead_ms: Arc::default() }
    }

    /// The clock of a process that starts now on a host whose wall clock is ahead by `ahead_ms`, now and later.
    pub(super) fn of_process(&self, ahead_ms: Arc<AtomicI64>) -> Self {
        let start_at = TimeMs(START.0.saturating_add_signed(ahead_ms.load(Ordering::Relaxed)));
        Self { start: self.start, start_at, ahead_ms }
    }
}

impl Clock for SimClock {
    fn now(&self) -> TimeMs {
        self.start_at + self.start.elapsed()
    }

    fn wall(&self) -> WallTime {
        let rightly = START + self.start.elapsed();
        WallTime(rightly.0.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed)))
    }

    async fn sleep_until(&self, deadline: TimeMs) {
        if deadline == TimeMs::NEVER {
            return std::future::pending().await;
        }
        match self.start.checked_add(deadline.since(self.start_at)) {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// One process on a simulated host. Made by [`SimWorld::host`](super::SimWorld::host).
#[derive(Clone, Debug)]
pub struct SimRuntime {
    process: Arc<Process>,
}

#[derive(Debug)]
struct Process {
    name: String,
    clock: SimClock,
    transport: SimTransport,
    disk: MemoryDisk,
    random: Mutex<fastrand::Rng>,
    tasks: Mutex<Tasks>,
    panics: Panics,
}

#[derive(Debug, Default)]
struct Tasks {
    dead: bool,
    running: Vec<AbortHandle>,
    /// When the ended ones are next thrown out.
    sweep_at: usize,
}

impl SimRuntime {
    pub(super) fn new(
        name: String,
        clock: SimClock,
        transport: SimTransport,
        disk: MemoryDisk,
        random: fastrand::Rng,
        panics: Panics,
    ) -> Self {
        let process =
            Process { name, clock, transport, disk, random: Mutex::new(random), tasks: Mutex::default(), panics };
        Self { process: Arc::new(process) }
    }

    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.process.name
    }

    /// The host's address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.process.transport.host()
    }

    /// Ends all tasks; none can be spawned any more.
    pub(super) fn end_tasks(&self) {
        let mut tasks = lock(&self.process.tasks);
        tasks.dead = true;
        for task in tasks.running.drain(..) {
            task.abort();
        }
    }
}

impl Runtime for SimRuntime {
    type Clock = SimClock;
    type Transport = SimTransport;
    type Disk = MemoryDisk;

    fn clock(&self) -> &SimClock {
        &self.process.clock
    }

    fn transport(&self) -> &SimTransport {
        &self.process.transport
    }

    fn disk(&self) -> &MemoryDisk {
        &self.process.disk
    }

    fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(MemoryStore::open(&self.process.disk, path)?))
    }

    fn random(&self, bytes: &mut [u8]) {
        lock(&self.process.random).fill(bytes);
    }

    fn spawn<F>(&self, name: &'static str, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (host, panics) = (self.process.name.clone(), self.process.panics.clone());
        let watched = async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(output) => output,
                Err(panic) => {
                    panics.record(&host, name, panic.as_ref());
                    std::panic::resume_unwind(panic)
                }
            }
        };
        let handle = tokio::spawn(watched);
        let mut tasks = lock(&self.process.tasks);
        if tasks.dead {
            handle.abort();
        } else {
            if tasks.running.len() >= tasks.sweep_at {
                tasks.running.retain(|task| !task.is_finished());
                tasks.sweep_at = (2 * tasks.running.len()).max(64);
            }
            tasks.running.push(handle.abort_handle());
        }
        Task(handle)
    }

    async fn blocking<F, O>(&self, work: F) -> O
    where
        F: FnOnce() -> O + Send + 'static,
        O: Send + 'static,
    {
        // Others get their turn, as they would while a disk works.
        tokio::task::yield_now().await;
        work()
    }
}

/// What the locks guard stays consistent whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
