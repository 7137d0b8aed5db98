//! The index of a volume: what `current` holds, in a store that is rebuilt when it is not there.

use std::collections::BTreeMap;

use situ_runtime::store::{Store, StoreError};
use situ_wire::ids::{BlockId, GenerationStamp};

/// What the index knows of a final replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IndexedReplica {
    /// Its life.
    pub generation: GenerationStamp,
    /// How many bytes it has.
    pub len_bytes: u64,
}

/// The index of a volume. Its calls block.
///
/// ```text
/// key                              value, numbers little-endian
/// "r" block id, 8 big-endian       1, generation stamp (8), length of the bytes (8)
/// "s"                              1, the block up to which the scrubber has come (8)
/// ```
///
/// A value that does not read as that counts as absent.
pub struct ReplicaIndex {
    store: Box<dyn Store>,
}

impl std::fmt::Debug for ReplicaIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaIndex").finish_non_exhaustive()
    }
}

impl ReplicaIndex {
    /// An index in `store`.
    #[must_use]
    pub fn new(store: Box<dyn Store>) -> Self {
        Self { store }
    }

    /// All that it knows.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    pub fn load(&self) -> Result<BTreeMap<BlockId, IndexedReplica>, StoreError> {
        let mut replicas = BTreeMap::new();
        for entry in self.store.scan(&[REPLICA]) {
            let (key, value) = entry?;
            let [REPLICA, id @ ..] = &*key else { break };
            if let (Ok(id), Some(replica)) = (<[u8; 8]>::try_from(id), decode_replica(&value)) {
                replicas.insert(BlockId(u64::from_be_bytes(id)), replica);
            }
        }
        Ok(replicas)
    }

    /// Notes changes: what is final now, and (with none) what is not any more.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    pub fn write(&self, changes: &[(BlockId, Option<IndexedReplica>)]) -> Result<(), StoreError> {
        let entry = |(id, replica): &(BlockId, Option<IndexedReplica>)| {
            let mut key = vec![REPLICA];
            key.extend_from_slice(&id.0.to_be_bytes());
            (key, replica.as_ref().map(encode_replica))
        };
        self.store.write(changes.iter().map(entry).collect())
    }

    /// Up to which block the scrubber has come.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    pub fn scrubbed(&self) -> Result<Option<BlockId>, StoreError> {
        Ok(match self.store.get(&[SCRUBBED])?.as_deref() {
            Some([VERSION, id @ ..]) => id.try_into().ok().map(|id| BlockId(u64::from_le_bytes(id))),
            _ => None,
        })
    }

    /// Notes up to which block the scrubber has come.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    pub fn set_scrubbed(&self, id: BlockId) -> Result<(), StoreError> {
        let mut value = vec![VERSION];
        value.extend_from_slice(&id.0.to_le_bytes());
        self.store.write(vec![(vec![SCRUBBED], Some(value))])
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// When the store is damaged or its disk fails.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.store.sync()
    }
}

fn encode_replica(replica: &IndexedReplica) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&replica.generation.0.to_le_bytes());
    value.extend_from_slice(&replica.len_bytes.to_le_bytes());
    value
}

fn decode_replica(value: &[u8]) -> Option<IndexedReplica> {
    let ([VERSION], rest) = value.split_first_chunk::<1>()? else { return None };
    let (generation, len) = rest.split_first_chunk::<8>()?;
    Some(IndexedReplica {
        generation: GenerationStamp(u64::from_le_bytes(*generation)),
        len_bytes: u64::from_le_bytes(len.try_into().ok()?),
    })
}

const REPLICA: u8 = b'r';
const SCRUBBED: u8 = b's';
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_stays() {
        let replica = IndexedReplica { generation: GenerationStamp(0x0102), len_bytes: 0x0304 };
        let golden = b"\x01\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0";
        assert_eq!(encode_replica(&replica), golden);
        assert_eq!(decode_replica(golden), Some(replica));
        assert_eq!(decode_replica(&golden[..16]), None);
        assert_eq!(decode_replica(b"\x02\x02\x01\0\0\0\0\0\0\x04\x03\0\0\0\0\0\0"), None);
        assert_eq!(decode_replica(b""), None);
    }
}
