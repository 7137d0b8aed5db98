//! How a namenode is configured: a table of TOML, every value of which has a default but the directory.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use situ_wire::block::BlockTokenKey;
use situ_wire::ids::ClusterId;

use crate::core::CoreConfig;
use crate::error::StartError;

/// How a namenode is configured.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamenodeConfig {
    /// Where the namespace is kept: edit log and images. No default.
    pub directory: PathBuf,
    /// Where it listens. Default: `127.0.0.1:9820`.
    #[serde(default = "defaults::listen")]
    pub listen: SocketAddr,
    /// The user who may do everything, and who owns the root directory. It must stay the same for the life of a cluster.
    /// Default: `situ`.
    #[serde(default = "defaults::superuser")]
    pub superuser: String,
    /// The group of the root directory; likewise. Default: `supergroup`.
    #[serde(default = "defaults::supergroup")]
    pub supergroup: String,
    /// How often a datanode sends a heartbeat, in milliseconds. Default: 1000.
    #[serde(default = "defaults::heartbeat_ms")]
    pub heartbeat_ms: u32,
    /// After how long without a heartbeat nothing new is placed on a datanode, in milliseconds. Default: 3000.
    #[serde(default = "defaults::suspect_after_ms")]
    pub suspect_after_ms: u64,
    /// After how long without a heartbeat a datanode's replicas are made anew elsewhere, in milliseconds. Default: 15000.
    #[serde(default = "defaults::dead_after_ms")]
    pub dead_after_ms: u64,
    /// After how long without renewal another client may take over an open file, in milliseconds. Default: 60000.
    #[serde(default = "defaults::lease_soft_ms")]
    pub lease_soft_ms: u64,
    /// After how long without renewal an open file is closed by itself, in milliseconds. Default: 300000.
    #[serde(default = "defaults::lease_hard_ms")]
    pub lease_hard_ms: u64,
    /// How many of a thousand blocks must have a replica before safe mode ends. Default: 999.
    #[serde(default = "defaults::safe_mode_threshold_permille")]
    pub safe_mode_threshold_permille: u64,
    /// How long safe mode goes on after that, in milliseconds. Default: 30000.
    #[serde(default = "defaults::safe_mode_extension_ms")]
    pub safe_mode_extension_ms: u64,
    /// How long an expected replica counts before a datanode confirms it, in milliseconds. Default: 60000.
    #[serde(default = "defaults::pending_timeout_ms")]
    pub pending_timeout_ms: u64,
    /// How long a block token opens its block, in milliseconds. Default: 600000.
    #[serde(default = "defaults::token_lifetime_ms")]
    pub token_lifetime_ms: u64,
    /// After how long without an operation a client's answers are forgotten, in milliseconds: a retry that comes later
    /// than that is a new operation. Default: 600000.
    #[serde(default = "defaults::client_expiry_ms")]
    pub client_expiry_ms: u64,
    /// How much of each volume stays free, in bytes, beside what its datanode keeps free itself and does not report as
    /// free (`reserved_bytes` there). Default: 0.
    #[serde(default = "defaults::reserve_bytes")]
    pub reserve_bytes: u64,
    /// How many copies a datanode sends at once, at most. Default: 4.
    #[serde(default = "defaults::replication_streams")]
    pub replication_streams: u32,
    /// How many replicas one heartbeat's answer tells to delete, at most. Default: 1000.
    #[serde(default = "defaults::invalidate_batch")]
    pub invalidate_batch: usize,
    /// How much of the disk of `directory` is kept for the edit log, in bytes: with less free, the namenode takes only
    /// deletions and what finishes files that are open, and with less than a quarter of it no change at all. Images
    /// keep off it. Default: a thirty-second of the disk, at most 134217728 (128 MiB).
    #[serde(default)]
    pub log_reserve_bytes: Option<u64>,
    /// How long a segment of the edit log becomes, in bytes: what every image has is dropped a segment at a time. Default:
    /// 67108864 (64 MiB).
    #[serde(default = "defaults::segment_len_bytes")]
    pub segment_len_bytes: u64,
    /// After how many edits an image is brought forward. A start replays about twice as many at most. Default: 1000000.
    #[serde(default = "defaults::checkpoint_edits")]
    pub checkpoint_edits: u64,
    /// After how long an image is brought forward if there was any edit, in milliseconds. Default: 600000.
    #[serde(default = "defaults::checkpoint_interval_ms")]
    pub checkpoint_interval_ms: u64,
    /// How many calls may wait for the namesystem; more are answered `Unavailable`. Default: 16384.
    #[serde(default = "defaults::queue_calls")]
    pub queue_calls: usize,
    /// How many edits may be applied but not yet on the disk; then calls wait. Default: 16384.
    #[serde(default = "defaults::unsynced_edits")]
    pub unsynced_edits: usize,
    /// How many bytes of edits may be applied but not yet on the disk; then calls wait. Default: 67108864 (64 MiB).
    #[serde(default = "defaults::unsynced_bytes")]
    pub unsynced_bytes: usize,
}

impl NamenodeConfig {
    /// The defaults, on `directory`.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            listen: defaults::listen(),
            superuser: defaults::superuser(),
            supergroup: defaults::supergroup(),
            heartbeat_ms: defaults::heartbeat_ms(),
            suspect_after_ms: defaults::suspect_after_ms(),
            dead_after_ms: defaults::dead_after_ms(),
            lease_soft_ms: defaults::lease_soft_ms(),
            lease_hard_ms: defaults::lease_hard_ms(),
            safe_mode_threshold_permille: defaults::safe_mode_threshold_permille(),
            safe_mode_extension_ms: defaults::safe_mode_extension_ms(),
            pending_timeout_ms: defaults::pending_timeout_ms(),
            token_lifetime_ms: defaults::token_lifetime_ms(),
            client_expiry_ms: defaults::client_expiry_ms(),
            reserve_bytes: defaults::reserve_bytes(),
            replication_streams: defaults::replication_streams(),
            invalidate_batch: defaults::invalidate_batch(),
            log_reserve_bytes: None,
            segment_len_bytes: defaults::segment_len_bytes(),
            checkpoint_edits: defaults::checkpoint_edits(),
            checkpoint_interval_ms: defaults::checkpoint_interval_ms(),
            queue_calls: defaults::queue_calls(),
            unsynced_edits: defaults::unsynced_edits(),
            unsynced_bytes: defaults::unsynced_bytes(),
        }
    }

    /// Checks that the values go together.
    ///
    /// # Errors
    /// Names the first one that does not.
    pub fn check(&self) -> Result<(), StartError> {
        let rules = [
            ("superuser", self.superuser.clone(), !self.superuser.is_empty(), "a user's name"),
            ("supergroup", self.supergroup.clone(), !self.supergroup.is_empty(), "a group's name"),
            ("heartbeat_ms", self.heartbeat_ms.to_string(), self.heartbeat_ms > 0, "at least 1"),
            (
                "suspect_after_ms",
                self.suspect_after_ms.to_string(),
                self.suspect_after_ms > u64::from(self.heartbeat_ms),
                "more than heartbeat_ms",
            ),
            (
                "dead_after_ms",
                self.dead_after_ms.to_string(),
                self.dead_after_ms > self.suspect_after_ms,
                "more than suspect_after_ms",
            ),
            (
                "lease_hard_ms",
                self.lease_hard_ms.to_string(),
                self.lease_hard_ms >= self.lease_soft_ms,
                "at least lease_soft_ms",
            ),
            (
                "safe_mode_threshold_permille",
                self.safe_mode_threshold_permille.to_string(),
                self.safe_mode_threshold_permille <= 1000,
                "at most 1000",
            ),
            ("checkpoint_edits", self.checkpoint_edits.to_string(), self.checkpoint_edits > 0, "at least 1"),
            (
                "checkpoint_interval_ms",
                self.checkpoint_interval_ms.to_string(),
                self.checkpoint_interval_ms > 0,
                "at least 1",
            ),
            ("queue_calls", self.queue_calls.to_string(), self.queue_calls > 0, "at least 1"),
            ("unsynced_edits", self.unsynced_edits.to_string(), self.unsynced_edits > 0, "at least 1"),
            ("unsynced_bytes", self.unsynced_bytes.to_string(), self.unsynced_bytes > 0, "at least 1"),
        ];
        match rules.into_iter().find(|(_, _, holds, _)| !holds) {
            Some((name, found, _, expected)) => Err(StartError::Config { name, found, expected }),
            None => Ok(()),
        }
    }

    /// What the state machine is told of it.
    pub(crate) fn core(&self, cluster: ClusterId, token_key: BlockTokenKey, seed: u64) -> CoreConfig {
        CoreConfig {
            cluster,
            superuser: self.superuser.clone(),
            supergroup: self.supergroup.clone(),
            directory: self.directory.display().to_string(),
            token_key,
            seed,
            epoch_chance: seed,
            heartbeat_ms: self.heartbeat_ms,
            suspect_after_ms: self.suspect_after_ms,
            dead_after_ms: self.dead_after_ms,
            lease_soft_ms: self.lease_soft_ms,
            lease_hard_ms: self.lease_hard_ms,
            safe_mode_threshold_permille: self.safe_mode_threshold_permille,
            safe_mode_extension_ms: self.safe_mode_extension_ms,
            pending_timeout_ms: self.pending_timeout_ms,
            token_lifetime_ms: self.token_lifetime_ms,
            client_expiry_ms: self.client_expiry_ms,
            reserve_bytes: self.reserve_bytes,
            replication_streams: self.replication_streams,
            invalidate_batch: self.invalidate_batch,
        }
    }
}

/// The defaults, each in one place for TOML and for [`NamenodeConfig::new`].
mod defaults {
    use super::{Ipv4Addr, SocketAddr};

    macro_rules! defaults {
        ($($name:ident: $type:ty = $value:expr;)*) => {
            $(pub(super) fn $name() -> $type { $value })*
        };
    }

    defaults! {
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 9820));
        superuser: String = "situ".to_owned();
        supergroup: String = "supergroup".to_owned();
        heartbeat_ms: u32 = 1_000;
        suspect_after_ms: u64 = 3_000;
        dead_after_ms: u64 = 15_000;
        lease_soft_ms: u64 = 60_000;
        lease_hard_ms: u64 = 300_000;
        safe_mode_threshold_permille: u64 = 999;
        safe_mode_extension_ms: u64 = 30_000;
        pending_timeout_ms: u64 = 60_000;
        token_lifetime_ms: u64 = 600_000;
        client_expiry_ms: u64 = 600_000;
        reserve_bytes: u64 = 0;
        replication_streams: u32 = 4;
        invalidate_batch: usize = 1_000;
        segment_len_bytes: u64 = 64 << 20;
        checkpoint_edits: u64 = 1_000_000;
        checkpoint_interval_ms: u64 = 600_000;
        queue_calls: usize = 16_384;
        unsynced_edits: usize = 16_384;
        unsynced_bytes: usize = 64 << 20;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_enough_and_everything_else_has_its_default() {
        let config: NamenodeConfig = toml::from_str("directory = \"/nn\"").unwrap();
        assert_eq!(config, NamenodeConfig::new("/nn".into()));
        config.check().unwrap();
        assert_eq!(toml::from_str::<NamenodeConfig>(&toml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn the_defaults_are_the_cores() {
        let key = BlockTokenKey([1; 32]);
        let core = NamenodeConfig::new("/nn".into()).core(ClusterId(7), key.clone(), 9);
        let expected = CoreConfig {
            epoch_chance: 9,
            directory: "/nn".to_owned(),
            ..CoreConfig::new(ClusterId(7), "situ", key, 9)
        };
        assert_eq!(format!("{core:?}"), format!("{expected:?}"));
    }

    #[test]
    fn what_is_unknown_missing_or_contradictory_is_named() {
        let unknown = toml::from_str::<NamenodeConfig>("directory = \"/nn\"\nlisten_adress = 1").unwrap_err();
        assert!(unknown.to_string().contains("listen_adress"), "{unknown}");
        let missing = toml::from_str::<NamenodeConfig>("").unwrap_err();
        assert!(missing.to_string().contains("directory"), "{missing}");
        let config = NamenodeConfig { dead_after_ms: 3_000, ..NamenodeConfig::new("/nn".into()) };
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("dead_after_ms = 3000") && error.contains("suspect_after_ms"), "{error}");
    }
}
