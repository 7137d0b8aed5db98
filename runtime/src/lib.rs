//! The world behind small traits: clocks, randomness, disks, transports, tasks.
//!
//! This crate is the only place of Situ that reads a clock, draws randomness, opens a file or a socket, or spawns. Every
//! server and client is generic over one [`Runtime`]; [`real`] is the machine, [`sim`] a simulated one.
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | [`Clock`]: what time it is, and waiting |
//! | [`disk`] | [`Disk`]: files; on the file system, in memory, and faulty ones |
//! | [`transport`] | [`Transport`]: connections with streams; over QUIC, Unix sockets, simulated |
//! | [`rpc`] | calls over a connection: [`Connector`](rpc::Connector), [`serve`](rpc::serve) |
//! | [`journal`] | an append-only, hash-chained log on a disk |
//! | [`store`] | an ordered map that survives restarts, rebuildable from elsewhere |
//! | [`security`] | certificates: the cluster's authority and who is who |

pub mod clock;
pub mod disk;
pub mod journal;
pub mod real;
pub mod rpc;
pub mod security;
pub mod sim;
pub mod store;
pub mod transport;

use std::future::Future;
use std::path::Path;

use clock::Clock;
use disk::Disk;
use store::{Store, StoreError};
use transport::Transport;

/// A world to run in. Cheap to clone; every clone is the same world.
pub trait Runtime: Clone + Send + Sync + 'static {
    /// Its clock.
    type Clock: Clock;
    /// Its network.
    type Transport: Transport;
    /// Its disk.
    type Disk: Disk;

    /// Its clock.
    fn clock(&self) -> &Self::Clock;

    /// Its network, with this process's identity.
    fn transport(&self) -> &Self::Transport;

    /// Its disk.
    fn disk(&self) -> &Self::Disk;

    /// Opens a store in the directory `path`, or makes one. Blocks.
    ///
    /// # Errors
    /// When it is damaged or its disk fails.
    fn open_store(&self, path: &Path) -> Result<Box<dyn Store>, StoreError>;

    /// Fills `bytes` with randomness, fit for keys and ids.
    fn random(&self, bytes: &mut [u8]);

    /// Runs `task` until it ends or the returned handle aborts it. A task that panics brings the process down in the
    /// real world: a server that has lost a part of itself must not go on.
    fn spawn<F>(&self, name: &'static str, task: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static;

    /// Runs `work`, which may block (on a disk), without holding up tasks.
    fn blocking<F, O>(&self, work: F) -> impl Future<Output = O> + Send
    where
        F: FnOnce() -> O + Send + 'static,
        O: Send + 'static;

    /// A random 64-bit number.
    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.random(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random 128-bit number.
    fn random_u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.random(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// A spawned task. Dropping it lets the task run on; [`Task::abort`] ends it at its next wait.
#[derive(Debug)]
pub struct Task<O>(tokio::task::JoinHandle<O>);

impl<O> Task<O> {
    /// Ends the task at its next wait.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end; none if it was aborted or panicked.
    pub async fn join(self) -> Option<O> {
        self.0.await.ok()
    }

    /// An aborter that ends the task when it is dropped.
    #[must_use]
    pub fn abort_on_drop(self) -> AbortOnDrop<O> {
        AbortOnDrop(self)
    }
}

/// Ends its task when dropped.
#[derive(Debug)]
pub struct AbortOnDrop<O>(Task<O>);

impl<O> Drop for AbortOnDrop<O> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a panic said, as far as it is text.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "a panic without a text",
    }
}
