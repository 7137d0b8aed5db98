//! What a client must know of its cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, DiskError};
use situ_runtime::rpc::Identity;
use situ_wire::hello::Role;
use situ_wire::ids::{ClusterId, NodeName};
use situ_wire::limits::{
    BLOCK_LEN_DEFAULT_BYTES, BLOCK_LEN_MAX_BYTES, BLOCK_LEN_MIN_BYTES, REPLICATION_DEFAULT, REPLICATION_MAX,
};
use situ_wire::messages::datanode::Durability;

/// The longest configuration file that is read.
const CONFIG_LEN_BYTES: u64 = 1 << 20;

/// What a client must know: its cluster, how files are written when nobody says otherwise, how long to wait.
///
/// As a file it is TOML; every field but the cluster and the namenode's address has a default:
///
/// ```toml
/// cluster = "00112233445566778899aabbccddeeff"
/// namenode = "10.0.0.1:7400"
/// scheduler = "10.0.0.1:7500"
/// durability = "durable"
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The cluster, as 32 hexadecimal digits: a namenode of another one is refused.
    #[serde(with = "cluster_text")]
    pub cluster: ClusterId,
    /// Where the namenode listens.
    pub namenode: SocketAddr,
    /// Where the scheduler listens, if the cluster has one.
    #[serde(default)]
    pub scheduler: Option<SocketAddr>,
    /// The node that this client runs on, if it is one of the cluster's: its replicas are read and written first.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// The directory with this user's or node's certificate and key, and the cluster's authority.
    #[serde(default)]
    pub credentials: Option<PathBuf>,
    /// How many replicas the blocks of a new file shall have.
    #[serde(default = "default_replication")]
    pub replication: u16,
    /// How long the blocks of a new file are.
    #[serde(default = "default_block_len_bytes")]
    pub block_len_bytes: u64,
    /// What an acknowledged close means: `"durable"` (on the disks) or `"visible"`.
    #[serde(default, with = "durability_text")]
    pub durability: Durability,
    /// How long one call may take before it is made again.
    #[serde(default = "default_call_timeout_ms")]
    pub call_timeout_ms: u64,
    /// For how long a call is made again while the namenode or scheduler is away, starting or in safe mode.
    #[serde(default = "default_patience_ms")]
    pub patience_ms: u64,
    /// For how long a call is made again while no datanode can take a block.
    #[serde(default = "default_datanodes_patience_ms")]
    pub datanodes_patience_ms: u64,
    /// How often the leases of open files are renewed.
    #[serde(default = "default_lease_renew_ms")]
    pub lease_renew_ms: u64,
    /// How long each datanode of a pipeline may take to be ready.
    #[serde(default = "default_open_timeout_ms")]
    pub open_timeout_ms: u64,
    /// How long a pipeline may be silent while it owes an acknowledgement of packets. Its datanodes should notice one of
    /// them that stalls before that, and say which: else the nearest is blamed.
    #[serde(default = "default_ack_timeout_ms")]
    pub ack_timeout_ms: u64,
    /// How long a pipeline may take to bring a whole block to its disks.
    #[serde(default = "default_finish_timeout_ms")]
    pub finish_timeout_ms: u64,
    /// How many bytes of one file may be sent and not yet acknowledged.
    #[serde(default = "default_write_window_bytes")]
    pub write_window_bytes: u64,
    /// How long a datanode may be silent while it owes bytes.
    #[serde(default = "default_read_timeout_ms")]
    pub read_timeout_ms: u64,
    /// How long a datanode that failed is tried last.
    #[serde(default = "default_suspect_ms")]
    pub suspect_ms: u64,
}

impl ClientConfig {
    /// The defaults for a cluster and its namenode.
    #[must_use]
    pub fn new(cluster: ClusterId, namenode: SocketAddr) -> Self {
        Self {
            cluster,
            namenode,
            scheduler: None,
            node: None,
            credentials: None,
            replication: default_replication(),
            block_len_bytes: default_block_len_bytes(),
            durability: Durability::default(),
            call_timeout_ms: default_call_timeout_ms(),
            patience_ms: default_patience_ms(),
            datanodes_patience_ms: default_datanodes_patience_ms(),
            lease_renew_ms: default_lease_renew_ms(),
            open_timeout_ms: default_open_timeout_ms(),
            ack_timeout_ms: default_ack_timeout_ms(),
            finish_timeout_ms: default_finish_timeout_ms(),
            write_window_bytes: default_write_window_bytes(),
            read_timeout_ms: default_read_timeout_ms(),
            suspect_ms: default_suspect_ms(),
        }
    }

    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read, is not such a file, or has a value out of its range.
    pub async fn load<R: Runtime>(runtime: &R, path: &Path) -> Result<Self, ConfigError> {
        let (disk, owned) = (runtime.disk().clone(), path.to_owned());
        let bytes = runtime.blocking(move || disk.read(&owned, CONFIG_LEN_BYTES)).await.map_err(ConfigError::Read)?;
        let invalid = |reason: String| ConfigError::Invalid { path: path.to_owned(), reason };
        let text = std::str::from_utf8(&bytes).map_err(|error| invalid(format!("it is not text: {error}")))?;
        let config: Self = toml::from_str(text).map_err(|error| invalid(explain(&error)))?;
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// Says which is not, what was found and what is allowed.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=REPLICATION_MAX).contains(&self.replication) {
            return Err(format!("replication = {}: expected 1 to {REPLICATION_MAX}", self.replication));
        }
        if !(BLOCK_LEN_MIN_BYTES..=BLOCK_LEN_MAX_BYTES).contains(&self.block_len_bytes) {
            return Err(format!(
                "block_len_bytes = {}: expected {BLOCK_LEN_MIN_BYTES} to {BLOCK_LEN_MAX_BYTES}",
                self.block_len_bytes
            ));
        }
        for (name, value) in [
            ("call_timeout_ms", self.call_timeout_ms),
            ("lease_renew_ms", self.lease_renew_ms),
            ("open_timeout_ms", self.open_timeout_ms),
            ("ack_timeout_ms", self.ack_timeout_ms),
            ("finish_timeout_ms", self.finish_timeout_ms),
            ("write_window_bytes", self.write_window_bytes),
            ("read_timeout_ms", self.read_timeout_ms),
        ] {
            if value == 0 {
                return Err(format!("{name} = 0: expected at least 1"));
            }
        }
        Ok(())
    }

    /// The identity of a user of this cluster.
    #[must_use]
    pub fn user(&self, name: impl Into<String>) -> Identity {
        Identity { cluster: self.cluster, role: Role::User, name: name.into() }
    }

    pub(crate) fn call_timeout(&self) -> Duration {
        Duration::from_millis(self.call_timeout_ms)
    }

    pub(crate) fn patience(&self) -> crate::core::Patience {
        crate::core::Patience {
            server: Duration::from_millis(self.patience_ms),
            datanodes: Duration::from_millis(self.datanodes_patience_ms),
        }
    }
}

/// What is wrong with a configuration file, for a person: the parser does not say what an address looks like.
#[must_use]
pub fn explain(error: &toml::de::Error) -> String {
    error.to_string().replace(
        "invalid socket address syntax",
        "expected an IP address and a port, such as \"10.0.0.11:9820\"; names of hosts are not looked up",
    )
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    /// Its file cannot be read.
    #[error("the client's configuration cannot be read: {0}")]
    Read(#[source] DiskError),
    /// It is not what it should be.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong where.
        reason: String,
    },
}

fn default_replication() -> u16 {
    REPLICATION_DEFAULT
}

fn default_block_len_bytes() -> u64 {
    BLOCK_LEN_DEFAULT_BYTES
}

fn default_call_timeout_ms() -> u64 {
    10_000
}

fn default_patience_ms() -> u64 {
    60_000
}

fn default_datanodes_patience_ms() -> u64 {
    10_000
}

fn default_lease_renew_ms() -> u64 {
    10_000
}

fn default_open_timeout_ms() -> u64 {
    10_000
}

fn default_ack_timeout_ms() -> u64 {
    45_000
}

fn default_finish_timeout_ms() -> u64 {
    120_000
}

fn default_write_window_bytes() -> u64 {
    16 << 20
}

fn default_read_timeout_ms() -> u64 {
    10_000
}

fn default_suspect_ms() -> u64 {
    30_000
}

/// TOML has no integers of 128 bits: the cluster stands as its hexadecimal digits.
mod cluster_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use situ_wire::ids::ClusterId;

    pub(super) fn serialize<S: Serializer>(id: &ClusterId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| {
            serde::de::Error::custom("expected the cluster's id: 32 hexadecimal digits, as `situ ca show` prints them")
        })
    }
}

/// Durability as one lower-case word.
mod durability_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use situ_wire::messages::datanode::Durability;

    pub(super) fn serialize<S: Serializer>(durability: &Durability, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match durability {
            Durability::Durable => "durable",
            Durability::Visible => "visible",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Durability, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "durable" => Ok(Durability::Durable),
            "visible" => Ok(Durability::Visible),
            other => Err(serde::de::Error::unknown_variant(other, &["durable", "visible"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_must_and_the_rest_has_defaults() {
        let text = "cluster = \"00112233445566778899aabbccddeeff\"\nnamenode = \"127.0.0.1:7400\"\n";
        let config: ClientConfig = toml::from_str(text).unwrap();
        let expected = ClientConfig::new(
            ClusterId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            SocketAddr::from(([127, 0, 0, 1], 7400)),
        );
        assert_eq!(config, expected);
        let written = toml::to_string(&ClientConfig { node: Some(NodeName("node-1".into())), ..config }).unwrap();
        assert_eq!(toml::from_str::<ClientConfig>(&written).unwrap().node, Some(NodeName("node-1".into())));
        assert!(written.contains("durability = \"durable\""), "{written}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let base = "cluster = \"1\"\nnamenode = \"127.0.0.1:7400\"\n";
        let error = |more: &str| toml::from_str::<ClientConfig>(&format!("{base}{more}")).unwrap_err().to_string();
        assert!(error("replicas = 3\n").contains("replicas"));
        let error_of_name =
            toml::from_str::<ClientConfig>("cluster = \"1\"\nnamenode = \"localhost:7400\"\n").unwrap_err();
        assert!(explain(&error_of_name).contains("expected an IP address and a port"), "{error_of_name}");
        assert!(error("durability = \"maybe\"\n").contains("durable"));
        let config: ClientConfig = toml::from_str(&format!("{base}replication = 0\n")).unwrap();
        assert_eq!(config.check(), Err("replication = 0: expected 1 to 512".to_owned()));
    }
}
