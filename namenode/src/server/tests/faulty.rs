//! A simulated host whose disk fails on script.

use std::future::Future;
use std::path::Path;

use situ_runtime::disk::faulty::{Faults, FaultyDisk};
use situ_runtime::disk::memory::MemoryDisk;
use situ_runtime::sim::{SimClock, SimRuntime};
use situ_runtime::store::{MemoryStore, Store, StoreError};
use situ_runtime::transport::sim::SimTransport;
use situ_runtime::{Runtime, Task};

/// A simulated host with a disk that fails as its [`Faults`] say.
#[derive(Clone)]
pub(super) struct FaultyRuntime {
    host: SimRuntime,
    disk: FaultyDisk<MemoryDisk>,
}

impl FaultyRuntime {
    pub(super) fn new(host: SimRuntime, faults: Faults) -> Self {
        let disk = host.disk().clone();
        Self::with_disk(host, disk, faults)
    }

    /// A host whose disk is not the world's: it may be small.
    pub(super) fn with_disk(host: SimRuntime, disk: MemoryDisk, faults: Faults) -> Self {
        Self { host, disk: FaultyDisk::new(disk, faults) }
    }
}

impl Runtime for FaultyRuntime {
    type Clock = SimClock;
    type Transport = SimTransport;
    type Disk = FaultyDisk<MemoryDisk>;

    fn clock(&self) -> &SimClock {
        self.host.clock()
    }

    fn transport(&self) -> &SimTransport {
        self.host.transport()
    }

    fn disk(&self) -> &Self::Disk {
        &self.disk
    }

    fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(MemoryStore::open(&self.disk, path)?))
    }

    fn random(&self, bytes: &mut [u8]) {
        self.host.random(bytes);
    }

    fn spawn<F>(&self, name: &'static str, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.host.spawn(name, task)
    }

    fn blocking<F, O>(&self, work: F) -> impl Future<Output = O> + Send
    where
        F: FnOnce() -> O + Send + 'static,
        O: Send + 'static,
    {
        self.host.blocking(work)
    }
}
