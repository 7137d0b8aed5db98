//! What the state machine is told once.

use situ_wire::block::BlockTokenKey;
use situ_wire::ids::ClusterId;

/// What the state machine is told once. Nothing here may change what [`apply`](super::Namesystem::apply) does but the
/// owner of the root directory, which a cluster keeps for its life.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The user who may do everything; owns the root directory.
    pub superuser: String,
    /// The group of the root directory.
    pub supergroup: String,
    /// Where the namespace is kept, as messages say it.
    pub directory: String,
    /// Makes block tokens.
    pub token_key: BlockTokenKey,
    /// For choices outside the journal (placement).
    pub seed: u64,
    /// A random number for the first epoch that is begun: see [`Epoch`](super::Epoch).
    pub epoch_chance: u64,
    /// How often a datanode sends a heartbeat.
    pub heartbeat_ms: u32,
    /// After how long without a heartbeat nothing new is placed on a datanode.
    pub suspect_after_ms: u64,
    /// After how long without a heartbeat its replicas are made anew elsewhere.
    pub dead_after_ms: u64,
    /// After how long without renewal another client may take over a file.
    pub lease_soft_ms: u64,
    /// After how long without renewal a file is closed by itself.
    pub lease_hard_ms: u64,
    /// How many of a thousand blocks must have a replica before safe mode ends.
    pub safe_mode_threshold_permille: u64,
    /// How long safe mode goes on after that, so that more reports come in before copies are ordered.
    pub safe_mode_extension_ms: u64,
    /// How long an expected replica (of a finished pipeline or an ordered copy) counts before it is confirmed.
    pub pending_timeout_ms: u64,
    /// How long a block token opens its block.
    pub token_lifetime_ms: u64,
    /// After how long without an operation a client's answers are forgotten.
    pub client_expiry_ms: u64,
    /// How much of a volume stays free, beside what its datanode keeps free itself.
    pub reserve_bytes: u64,
    /// How many copies a datanode sends at once, at most; twice as many of blocks that have no other replica.
    pub replication_streams: u32,
    /// How many replicas one heartbeat's answer tells to delete, at most.
    pub invalidate_batch: usize,
}

impl CoreConfig {
    /// The usual values.
    #[must_use]
    pub fn new(cluster: ClusterId, superuser: &str, token_key: BlockTokenKey, seed: u64) -> Self {
        Self {
            cluster,
            superuser: superuser.to_owned(),
            supergroup: "supergroup".to_owned(),
            directory: String::new(),
            token_key,
            seed,
            epoch_chance: 0,
            heartbeat_ms: 1_000,
            suspect_after_ms: 3_000,
            dead_after_ms: 15_000,
            lease_soft_ms: 60_000,
            lease_hard_ms: 300_000,
            safe_mode_threshold_permille: 999,
            safe_mode_extension_ms: 30_000,
            pending_timeout_ms: 60_000,
            token_lifetime_ms: 600_000,
            client_expiry_ms: 600_000,
            reserve_bytes: 0,
            replication_streams: 4,
            invalidate_batch: 1_000,
        }
    }
}
