use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::SchedulerError;
use crate::core::SchedulingPolicy;

/// How a scheduler is configured, as it stands in a TOML file. Only the directory has to be there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulerConfig {
    /// Where its journal of jobs is. Made if it is not there. No default.
    pub directory: PathBuf,
    /// Where it listens. Default: `127.0.0.1:9824`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// How it decides.
    #[serde(default)]
    pub scheduling: SchedulingPolicy,
}

impl SchedulerConfig {
    /// A configuration with all that has a default left at it.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, listen: default_listen(), scheduling: SchedulingPolicy::default() }
    }

    /// Checks that the values go together.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), SchedulerError> {
        self.scheduling.validate().map_err(|reason| SchedulerError::Config { reason })
    }
}

fn default_listen() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 9824).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_little_and_may_hold_nothing_unknown() {
        let config: SchedulerConfig = toml::from_str("directory = \"/var/situ/scheduler\"").unwrap();
        assert_eq!(config, SchedulerConfig::new("/var/situ/scheduler".into()));
        let text = "directory = \"/d\"\nlisten = \"127.0.0.1:0\"\n[scheduling]\nwait_node_ms = 7\n";
        let config: SchedulerConfig = toml::from_str(text).unwrap();
        assert_eq!(config.scheduling.wait_node_ms, 7);
        let error = toml::from_str::<SchedulerConfig>("directory = \"/d\"\n[scheduling]\nwait = 7\n").unwrap_err();
        assert!(error.to_string().contains("unknown field `wait`"), "{error}");
        let mut config = SchedulerConfig::new("/d".into());
        config.scheduling.dead_ms = 1;
        assert!(config.check().unwrap_err().to_string().contains("suspect_ms must be less than dead_ms"));
    }
}
