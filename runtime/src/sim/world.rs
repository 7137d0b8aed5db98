use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

use super::{SimClock, SimRuntime};
use crate::disk::memory::MemoryDisk;
use crate::transport::sim::{SimIdentity, SimNetwork, SimTransport};

/// The cluster that hosts belong to when nobody says otherwise.
const CLUSTER: ClusterId = ClusterId(0x0051_7000_0000_0000_0000_0000_0000_0001);

/// A simulated world. Cheap to clone; every clone is the same world.
#[derive(Clone, Debug)]
pub struct SimWorld {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    clock: SimClock,
    network: SimNetwork,
    panics: Panics,
    hosts: Mutex<BTreeMap<String, Host>>,
    /// By how many milliseconds the wall clock of each host is ahead.
    clocks: Mutex<BTreeMap<String, Arc<AtomicI64>>>,
}

#[derive(Debug)]
struct Host {
    ip: IpAddr,
    disk: MemoryDisk,
    /// How often it was started.
    starts: u64,
    runtime: SimRuntime,
}

/// The panics of tasks, as they would have ended their processes.
#[derive(Clone, Default, Debug)]
pub(super) struct Panics(Arc<Mutex<Vec<String>>>);

impl Panics {
    pub(super) fn record(&self, host: &str, task: &str, panic: &(dyn Any + Send)) {
        let what = crate::panic_message(panic);
        lock(&self.0).push(format!("task {task} of {host} panicked: {what}"));
    }
}

impl SimWorld {
    /// A world whose randomness comes from `seed`. Its clock is tokio's, which a test pauses with
    /// `#[tokio::test(start_paused = true)]`; or use [`SimWorld::run`].
    ///
    /// # Panics
    /// Outside a tokio runtime with a clock.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            seed,
            clock: SimClock::new(),
            network: SimNetwork::new(seed),
            panics: Panics::default(),
            hosts: Mutex::default(),
            clocks: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `scenario` in a world of its own, in one thread on a paused clock.
    ///
    /// # Panics
    /// When a task has panicked: in the real world its process would be gone.
    pub fn run<F, T>(seed: u64, scenario: F) -> T
    where
        F: AsyncFnOnce(SimWorld) -> T,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without input and output needs nothing that can be missing");
        runtime.block_on(async {
            let world = Self::new(seed);
            let output = scenario(world.clone()).await;
            world.check();
            output
        })
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// The world's clock, which is right.
    #[must_use]
    pub fn clock(&self) -> &SimClock {
        &self.shared.clock
    }

    /// Sets the wall clock of the host `name` to `ahead_ms` milliseconds ahead of the world's, or behind it if that is
    /// negative, whether the host was started yet or not. A process that runs on it sees its wall clock jump; one that
    /// starts later takes its own time from it, too.
    pub fn set_wall_clock(&self, name: &str, ahead_ms: i64) {
        self.ahead_ms(name).store(ahead_ms, Ordering::Relaxed);
    }

    fn ahead_ms(&self, name: &str) -> Arc<AtomicI64> {
        Arc::clone(lock(&self.shared.clocks).entry(name.to_owned()).or_default())
    }

    /// The network that all hosts are on: links are cut and healed there.
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.shared.network
    }

    /// The cluster that hosts belong to, unless made by [`SimWorld::host_of`].
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        CLUSTER
    }

    /// Starts a process with a host of its own that may play `roles`; its certificate has the same name. A host that
    /// was there before has the disk and the address that it had; what still ran on it is killed first.
    pub fn host(&self, name: &str, roles: &[Role]) -> SimRuntime {
        self.host_of(CLUSTER, name, roles)
    }

    /// As [`SimWorld::host`], with a certificate of another cluster's authority.
    pub fn host_of(&self, cluster: ClusterId, name: &str, roles: &[Role]) -> SimRuntime {
        self.kill(name);
        let mut hosts = lock(&self.shared.hosts);
        let (ip, disk, starts) = match hosts.get(name) {
            Some(host) => (host.ip, host.disk.clone(), host.starts + 1),
            None => (address(hosts.len()), MemoryDisk::default(), 0),
        };
        let identity = SimIdentity { cluster, roles: roles.to_vec(), name: name.to_owned() };
        let runtime = SimRuntime::new(
            name.to_owned(),
            self.shared.clock.of_process(self.ahead_ms(name)),
            SimTransport::new(self.shared.network.clone(), ip, identity),
            disk.clone(),
            fastrand::Rng::with_seed(self.seed_for(name, starts)),
            self.shared.panics.clone(),
        );
        hosts.insert(name.to_owned(), Host { ip, disk, starts, runtime: runtime.clone() });
        runtime
    }

    /// Kills the process `name` as `kill -9` does: its tasks end, its connections break; what it wrote stays.
    pub fn kill(&self, name: &str) {
        if let Some(host) = lock(&self.shared.hosts).get(name) {
            self.shared.network.kill(host.ip);
            host.runtime.end_tasks();
            host.disk.release_locks();
        }
    }

    /// Cuts the power of the host `name`: as [`SimWorld::kill`], and what was not synced is lost, in part or in whole.
    pub fn crash(&self, name: &str) {
        self.kill(name);
        if let Some(host) = lock(&self.shared.hosts).get(name) {
            host.disk.crash(self.seed_for(&format!("the power of {name}"), host.starts));
        }
    }

    /// The address of the host `name`; none if there is none.
    #[must_use]
    pub fn ip(&self, name: &str) -> Option<IpAddr> {
        lock(&self.shared.hosts).get(name).map(|host| host.ip)
    }

    /// Asserts that no task has panicked.
    ///
    /// # Panics
    /// When one has.
    pub fn check(&self) {
        let panics = lock(&self.shared.panics.0);
        assert!(panics.is_empty(), "with seed {}: {}", self.shared.seed, panics.join("; "));
    }

    /// A seed for one start of one host, the same whatever other hosts do.
    fn seed_for(&self, name: &str, start: u64) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.shared.seed.to_le_bytes()).update(&start.to_le_bytes()).update(name.as_bytes());
        let mut seed = [0; 8];
        hasher.finalize_xof().fill(&mut seed);
        u64::from_le_bytes(seed)
    }
}

/// The address of the host that is made after `count` others.
fn address(count: usize) -> IpAddr {
    let count = u32::try_from(count).expect("nobody makes billions of hosts");
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + count).into()
}

/// What the locks guard stays consistent whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use situ_wire::time::{TimeMs, WallTime};

    use super::*;
    use crate::Runtime;
    use crate::clock::Clock;

    #[test]
    fn a_wall_clock_that_is_set_is_seen_at_once_and_moves_no_process_that_runs() {
        const HOUR_MS: i64 = 3_600_000;
        SimWorld::run(1, async |world| {
            let begun = world.clock().now();
            world.set_wall_clock("dn2", -HOUR_MS);
            let (one, two) = (world.host("dn1", &[Role::Datanode]), world.host("dn2", &[Role::Datanode]));
            let earlier = TimeMs(begun.0.saturating_add_signed(-HOUR_MS));
            assert_eq!(
                (one.clock().now(), two.clock().now()),
                (begun, earlier),
                "a process begins with the wall clock"
            );
            world.set_wall_clock("dn1", HOUR_MS);
            let rest = Duration::from_secs(5);
            one.clock().sleep(rest).await;
            assert_eq!((world.clock().now(), one.clock().now()), (begun + rest, begun + rest));
            two.clock().sleep_until(earlier + rest + rest).await;
            assert_eq!(two.clock().now(), earlier + rest + rest);
            let later = begun + rest + rest + Duration::from_hours(1);
            assert_eq!(one.clock().wall(), WallTime(later.0));
            assert_eq!(one.clock().wall_clock().at(one.clock().now()), one.clock().wall());
            assert_eq!(world.host("dn1", &[Role::Datanode]).clock().now(), later, "and so does the next");
        });
    }
}
