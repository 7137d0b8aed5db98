use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use situ_wire::ids::{NodeName, RackName};

use super::{StartError, machine};

/// The least memory of a process of a job, for each slot: what a map task combines and splits its records in, which is the
/// same on every executor, and what one record in the middle of it may take.
pub const SLOT_MEMORY_MIN_BYTES: u64 = 32 << 20;

/// How an executor is configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Where the processes of jobs work: shuffle output, fetched executables, logs. No default.
    pub directory: PathBuf,
    /// Where the namenode listens; told to the processes of jobs. No default.
    pub namenode: SocketAddr,
    /// Where the scheduler listens. No default.
    pub scheduler: SocketAddr,
    /// The name of the node: that of the datanode beside it. No default.
    pub node: NodeName,
    /// The rack of the node. Default: `/default-rack`.
    #[serde(default = "defaults::rack")]
    pub rack: RackName,
    /// Where it listens. Default: `127.0.0.1:9825`.
    #[serde(default = "defaults::listen")]
    pub listen: SocketAddr,
    /// Where others reach it. Default: where it listens.
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// How many tasks run at once. Default: 1.
    #[serde(default = "defaults::slots")]
    pub slots: u32,
    /// How much memory one process of a job may use, in bytes: at least 33554432 (32 MiB) for each slot. Half of it is lent
    /// to tasks and to partitions that are kept. Default: 2147483648 (2 GiB).
    #[serde(default = "defaults::worker_memory_bytes")]
    pub worker_memory_bytes: u64,
    /// How much memory the workers of all jobs may use together, in bytes: as many have a place at once as fit into it with
    /// `worker_memory_bytes` each, at least one. A worker without tasks is ended when another job needs its place. Drivers
    /// come on top. Default: three quarters of the memory of this machine, or of the control group that limits it.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// How long a worker process may be silent before it is taken as stopped or dead: then it is ended, and its tasks run
    /// elsewhere. Default: 30000 (30 s).
    #[serde(default = "defaults::worker_silence_ms")]
    pub worker_silence_ms: u32,
    /// The directory of the certificate that processes of jobs connect with: one of role `user`. Without one they reach
    /// only what runs on this host. No default.
    #[serde(default)]
    pub worker_credentials: Option<PathBuf>,
    /// How long each log of a process of a job may become, in bytes: of a longer one the middle is taken out, and a line
    /// there says how much. Default: 67108864 (64 MiB).
    #[serde(default = "defaults::log_len_bytes")]
    pub log_len_bytes: u64,
    /// Of how many ended jobs the logs are kept. Default: 1000.
    #[serde(default = "defaults::logs_kept")]
    pub logs_kept: usize,
    /// How many fetched programs are kept, those that jobs use now among them; the least recently used go. Default: 64.
    #[serde(default = "defaults::programs_kept")]
    pub programs_kept: usize,
}

impl ExecutorConfig {
    /// The defaults for a node of a cluster.
    #[must_use]
    pub fn new(directory: PathBuf, node: NodeName, namenode: SocketAddr, scheduler: SocketAddr) -> Self {
        Self {
            directory,
            namenode,
            scheduler,
            node,
            rack: defaults::rack(),
            listen: defaults::listen(),
            advertise: None,
            slots: defaults::slots(),
            worker_memory_bytes: defaults::worker_memory_bytes(),
            memory_bytes: None,
            worker_silence_ms: defaults::worker_silence_ms(),
            worker_credentials: None,
            log_len_bytes: defaults::log_len_bytes(),
            logs_kept: defaults::logs_kept(),
            programs_kept: defaults::programs_kept(),
        }
    }

    /// How many workers have a place at once.
    #[must_use]
    pub fn workers(&self) -> u32 {
        let memory_bytes = self.memory_bytes.unwrap_or_else(default_memory_bytes);
        let workers = memory_bytes.checked_div(self.worker_memory_bytes).unwrap_or_default();
        u32::try_from(workers).unwrap_or(u32::MAX).max(1)
    }

    /// Checks that the values go together.
    ///
    /// # Errors
    /// Names the first one that does not.
    pub fn check(&self) -> Result<(), StartError> {
        let invalid = |field, found: String, expected| Err(StartError::Config { field, found, expected });
        if self.node.0.is_empty() {
            return invalid("node", "an empty text".to_owned(), "the node's name, as its datanode has it");
        }
        if !(1..=1024).contains(&self.slots) {
            return invalid("slots", self.slots.to_string(), "1 to 1024");
        }
        if self.worker_memory_bytes < SLOT_MEMORY_MIN_BYTES * u64::from(self.slots) {
            let found = format!("{} for {} slots", self.worker_memory_bytes, self.slots);
            return invalid("worker_memory_bytes", found, "at least 33554432 (32 MiB) for each slot");
        }
        if let Some(memory_bytes) = self.memory_bytes
            && memory_bytes < self.worker_memory_bytes
        {
            let found = format!("{memory_bytes} with {} for each worker", self.worker_memory_bytes);
            return invalid("memory_bytes", found, "at least worker_memory_bytes: the memory of one worker");
        }
        if self.worker_silence_ms < 1_000 {
            return invalid("worker_silence_ms", self.worker_silence_ms.to_string(), "at least 1000 (1 s)");
        }
        if self.log_len_bytes < 4 << 10 {
            return invalid("log_len_bytes", self.log_len_bytes.to_string(), "at least 4096 (4 KiB)");
        }
        Ok(())
    }
}

/// How much memory the workers of an executor may use together, unless its configuration says it: three quarters of what
/// the machine has for it, in bytes.
#[must_use]
pub fn default_memory_bytes() -> u64 {
    machine::memory_bytes() / 4 * 3
}

mod defaults {
    use std::net::{Ipv4Addr, SocketAddr};

    use situ_wire::ids::RackName;

    pub(super) fn rack() -> RackName {
        RackName("/default-rack".to_owned())
    }

    pub(super) fn listen() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 9825))
    }

    pub(super) fn slots() -> u32 {
        1
    }

    pub(super) fn worker_memory_bytes() -> u64 {
        2 << 30
    }

    pub(super) fn worker_silence_ms() -> u32 {
        30_000
    }

    pub(super) fn log_len_bytes() -> u64 {
        64 << 20
    }

    pub(super) fn logs_kept() -> usize {
        1000
    }

    pub(super) fn programs_kept() -> usize {
        64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_the_memory_that_a_task_needs() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut config = ExecutorConfig::new(PathBuf::from("/d"), NodeName("n".to_owned()), address, address);
        config.check().expect("the defaults");
        config.slots = 8;
        config.worker_memory_bytes = 256 << 20;
        config.check().expect("just enough");
        config.worker_memory_bytes -= 1;
        let error = config.check().expect_err("too little").to_string();
        assert!(error.contains("268435455 for 8 slots") && error.contains("for each slot"), "{error}");
    }

    #[test]
    fn as_many_workers_have_a_place_as_fit_into_the_memory() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut config = ExecutorConfig::new(PathBuf::from("/d"), NodeName("n".to_owned()), address, address);
        assert!(config.workers() >= 1, "however little the machine has");
        config.worker_memory_bytes = 1 << 30;
        for (memory_bytes, workers) in [(1 << 30, 1), ((2 << 30) - 1, 1), (7 << 30, 7), (u64::MAX, u32::MAX)] {
            config.memory_bytes = Some(memory_bytes);
            config.check().expect("room for one");
            assert_eq!(config.workers(), workers);
        }
        config.memory_bytes = Some((1 << 30) - 1);
        let error = config.check().expect_err("too little for one").to_string();
        assert!(error.contains("memory_bytes") && error.contains("1073741823 with 1073741824"), "{error}");
    }
}
