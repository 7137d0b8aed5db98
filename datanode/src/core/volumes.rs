//! Room on the volumes, and which of them have failed.

use std::collections::BTreeMap;

use situ_runtime::disk::Space;
use situ_wire::ids::StorageId;
use situ_wire::messages::namenode::VolumeStatus;

/// A datanode's volumes.
#[derive(Debug)]
pub struct Volumes {
    volumes: BTreeMap<StorageId, Volume>,
    /// The volume that took the last replica: the next one goes to the one after it.
    last: Option<StorageId>,
    capacity_limit_bytes: Option<u64>,
    reserved_bytes: u64,
}

#[derive(Debug)]
struct Volume {
    /// As last measured, less what was written since.
    space: Space,
    /// What its replicas take.
    used_bytes: u64,
    /// What its writers may still write.
    promised_bytes: u64,
    probing: bool,
    failed: Option<String>,
}

impl Volumes {
    /// Volumes of which each may hold at most `capacity_limit_bytes` and leaves `reserved_bytes` of its disk free.
    #[must_use]
    pub fn new(spaces: Vec<(StorageId, Space)>, capacity_limit_bytes: Option<u64>, reserved_bytes: u64) -> Self {
        let volume = |space| Volume { space, used_bytes: 0, promised_bytes: 0, probing: false, failed: None };
        let volumes = spaces.into_iter().map(|(storage, space)| (storage, volume(space))).collect();
        Self { volumes, last: None, capacity_limit_bytes, reserved_bytes }
    }

    /// A volume could not be opened.
    pub fn failed(&mut self, storage: StorageId, reason: String) {
        let space = Space { capacity_bytes: 0, free_bytes: 0 };
        let failed = Some(reason);
        let volume = Volume { space, used_bytes: 0, promised_bytes: 0, probing: false, failed };
        let before = self.volumes.insert(storage, volume);
        assert!(before.is_none(), "what could not be opened is in use");
    }

    /// The volume for a replica that may take `len_bytes`: each in turn, of those that have room; none if none has.
    pub fn choose(&mut self, len_bytes: u64) -> Option<StorageId> {
        let fits = |storage: &&StorageId| self.works(**storage) && self.free_bytes(**storage) >= len_bytes;
        let after = |storage: &&StorageId| self.last.is_none_or(|last| **storage > last);
        let chosen = self.volumes.keys().filter(after).find(fits).or_else(|| self.volumes.keys().find(fits)).copied();
        self.last = chosen.or(self.last);
        chosen
    }

    /// How many more bytes a volume can take; 0 for one that has failed.
    #[must_use]
    pub fn free_bytes(&self, storage: StorageId) -> u64 {
        let Some(volume) = self.volumes.get(&storage).filter(|volume| volume.failed.is_none()) else { return 0 };
        let by_disk = volume.space.free_bytes.saturating_sub(self.reserved_bytes);
        let by_limit = self.capacity_limit_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(volume.used_bytes));
        by_disk.min(by_limit).saturating_sub(volume.promised_bytes)
    }

    /// Whether a volume works, as far as is known.
    #[must_use]
    pub fn works(&self, storage: StorageId) -> bool {
        self.volumes.get(&storage).is_some_and(|volume| volume.failed.is_none())
    }

    /// The volumes that work.
    pub fn working(&self) -> impl Iterator<Item = StorageId> + '_ {
        self.volumes.iter().filter(|(_, volume)| volume.failed.is_none()).map(|(storage, _)| *storage)
    }

    /// Sets `len_bytes` aside for a writer.
    pub fn promise(&mut self, storage: StorageId, len_bytes: u64) {
        if let Some(volume) = self.volumes.get_mut(&storage) {
            volume.promised_bytes += len_bytes;
        }
    }

    /// A writer is done with what was set aside for it, and has written `written_bytes` of it.
    pub fn settle(&mut self, storage: StorageId, promised_bytes: u64, written_bytes: u64) {
        if let Some(volume) = self.volumes.get_mut(&storage) {
            assert!(volume.promised_bytes >= promised_bytes, "only what was promised is settled");
            volume.promised_bytes -= promised_bytes;
            volume.space.free_bytes = volume.space.free_bytes.saturating_sub(written_bytes);
        }
    }

    /// A replica that took `before_bytes` takes `after_bytes` now.
    pub fn use_bytes(&mut self, storage: StorageId, before_bytes: u64, after_bytes: u64) {
        if let Some(volume) = self.volumes.get_mut(&storage) {
            assert!(volume.used_bytes >= before_bytes, "what a replica takes was counted");
            volume.used_bytes = volume.used_bytes - before_bytes + after_bytes;
        }
    }

    /// What its replicas take.
    #[must_use]
    pub fn used_bytes(&self, storage: StorageId) -> u64 {
        self.volumes.get(&storage).map_or(0, |volume| volume.used_bytes)
    }

    /// The room of a volume was measured.
    pub fn measured(&mut self, storage: StorageId, space: Space) {
        if let Some(volume) = self.volumes.get_mut(&storage) {
            volume.space = space;
        }
    }

    /// Whether a volume that gave an error is to be probed now: not if it is being probed, or has failed.
    pub fn begin_probe(&mut self, storage: StorageId) -> bool {
        match self.volumes.get_mut(&storage) {
            Some(volume) if !volume.probing && volume.failed.is_none() => {
                volume.probing = true;
                true
            }
            _ => false,
        }
    }

    /// A probe has ended. Returns whether the volume fails with it.
    pub fn probed(&mut self, storage: StorageId, failed: Option<String>) -> bool {
        let Some(volume) = self.volumes.get_mut(&storage) else { return false };
        volume.probing = false;
        if volume.failed.is_some() || failed.is_none() {
            return false;
        }
        volume.failed = failed;
        true
    }

    /// All of them, as the namenode is told.
    #[must_use]
    pub fn status(&self) -> Vec<VolumeStatus> {
        let status = |(storage, volume): (&StorageId, &Volume)| VolumeStatus {
            storage: *storage,
            capacity_bytes: volume.space.capacity_bytes.min(self.capacity_limit_bytes.unwrap_or(u64::MAX)),
            used_bytes: volume.used_bytes,
            free_bytes: self.free_bytes(*storage),
            failed: volume.failed.clone(),
        };
        self.volumes.iter().map(status).collect()
    }
}
