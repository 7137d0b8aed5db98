//! What a datanode is told when it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The configuration of a datanode, as it stands in a TOML file. Only the node's name, the namenode's address and the
/// volumes have to be there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatanodeConfig {
    /// Where to listen; port 0 lets the system choose.
    #[serde(default = "loopback")]
    pub listen: SocketAddr,
    /// The address that others reach it at, when that is not where it listens (as behind a wildcard address).
    #[serde(default)]
    pub advertise: Option<SocketAddr>,
    /// The name of the node: an executor beside this datanode has the same.
    pub node: String,
    /// The rack of the node: what fails together.
    #[serde(default = "default_rack")]
    pub rack: String,
    /// Where the namenode listens.
    pub namenode: SocketAddr,
    /// The directories for replicas, best one for each disk.
    pub volumes: Vec<PathBuf>,
    /// How many bytes the replicas of one volume may take; without it the disk is the limit.
    #[serde(default)]
    pub capacity_bytes: Option<u64>,
    /// How many bytes of each disk stay free for others.
    #[serde(default = "default_reserved_bytes")]
    pub reserved_bytes: u64,
    /// Within how many seconds the scrubber reads every replica and checks it.
    #[serde(default = "default_scrub_period_s")]
    pub scrub_period_s: u64,
    /// How many bytes a second the scrubber reads at most on one volume; 0 turns it off.
    #[serde(default = "default_scrub_rate_bytes")]
    pub scrub_rate_bytes: u64,
    /// How many blocks may be written here at once; more are refused.
    #[serde(default = "default_writes")]
    pub writes: usize,
    /// How many reads are served at once; more wait.
    #[serde(default = "default_reads")]
    pub reads: usize,
    /// How many replicas are copied to other datanodes at once.
    #[serde(default = "default_replications")]
    pub replications: usize,
    /// After how many milliseconds without progress the next datanode of a pipeline counts as failed.
    #[serde(default = "default_stall_timeout_ms")]
    pub stall_timeout_ms: u64,
    /// After how many seconds a replica whose writer is gone is dropped.
    #[serde(default = "default_abandoned_s")]
    pub abandoned_s: u64,
}

impl DatanodeConfig {
    /// A configuration with all that has a default left at it.
    #[must_use]
    pub fn new(node: impl Into<String>, namenode: SocketAddr, volumes: Vec<PathBuf>) -> Self {
        Self {
            listen: loopback(),
            advertise: None,
            node: node.into(),
            rack: default_rack(),
            namenode,
            volumes,
            capacity_bytes: None,
            reserved_bytes: default_reserved_bytes(),
            scrub_period_s: default_scrub_period_s(),
            scrub_rate_bytes: default_scrub_rate_bytes(),
            writes: default_writes(),
            reads: default_reads(),
            replications: default_replications(),
            stall_timeout_ms: default_stall_timeout_ms(),
            abandoned_s: default_abandoned_s(),
        }
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// A sentence that names the field, what was found and what is expected.
    pub fn check(&self) -> Result<(), String> {
        if self.node.is_empty() || self.node.len() > NAME_LEN_BYTES {
            return Err(format!("node: expected a name of 1 to {NAME_LEN_BYTES} bytes, found {:?}", self.node));
        }
        if self.volumes.is_empty() {
            return Err("volumes: expected at least one directory, found none".to_owned());
        }
        for (at, volume) in self.volumes.iter().enumerate() {
            if self.volumes[..at].contains(volume) {
                return Err(format!("volumes: {} is named twice; name each directory once", volume.display()));
            }
        }
        for (field, value) in [("writes", self.writes), ("reads", self.reads), ("replications", self.replications)] {
            if value == 0 {
                return Err(format!("{field}: expected at least 1, found 0"));
            }
        }
        if self.stall_timeout_ms == 0 {
            return Err("stall_timeout_ms: expected at least 1, found 0".to_owned());
        }
        Ok(())
    }

    /// [`DatanodeConfig::stall_timeout_ms`] as a duration.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        Duration::from_millis(self.stall_timeout_ms)
    }
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn default_rack() -> String {
    "/default-rack".to_owned()
}

fn default_reserved_bytes() -> u64 {
    256 << 20
}

fn default_scrub_period_s() -> u64 {
    14 * 24 * 3600
}

fn default_scrub_rate_bytes() -> u64 {
    8 << 20
}

fn default_writes() -> usize {
    256
}

fn default_reads() -> usize {
    512
}

fn default_replications() -> usize {
    4
}

fn default_stall_timeout_ms() -> u64 {
    15_000
}

fn default_abandoned_s() -> u64 {
    3600
}

/// The longest name of a node.
const NAME_LEN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_default_may_be_left_out_and_what_is_unknown_is_refused() {
        let namenode = SocketAddr::from(([10, 0, 0, 1], 9000));
        let text = "node = \"a\"\nnamenode = \"10.0.0.1:9000\"\nvolumes = [\"/data/1\"]\n";
        let config: DatanodeConfig = toml::from_str(text).unwrap();
        assert_eq!(config, DatanodeConfig::new("a", namenode, vec![PathBuf::from("/data/1")]));
        assert_eq!(config.check(), Ok(()));
        assert_eq!(toml::from_str::<DatanodeConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
        let error = toml::from_str::<DatanodeConfig>(&format!("{text}volume = 1\n")).unwrap_err();
        assert!(error.to_string().contains("unknown field `volume`"), "{error}");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named() {
        let namenode = SocketAddr::from(([10, 0, 0, 1], 9000));
        let one = || vec![PathBuf::from("/data/1")];
        let twice = DatanodeConfig::new("a", namenode, [one(), one()].concat());
        assert_eq!(twice.check().unwrap_err(), "volumes: /data/1 is named twice; name each directory once");
        let none = DatanodeConfig { reads: 0, ..DatanodeConfig::new("a", namenode, one()) };
        assert_eq!(none.check().unwrap_err(), "reads: expected at least 1, found 0");
        assert!(DatanodeConfig::new("", namenode, one()).check().is_err());
        assert!(DatanodeConfig::new("a", namenode, Vec::new()).check().is_err());
    }
}
