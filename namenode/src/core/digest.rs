//! The digest over a whole namespace, kept while it changes.

use std::fmt;

use serde::{Deserialize, Serialize};
use situ_wire::ids::DatanodeId;

use super::image::{ImageRecord, MetaRecord};

/// A record that borrows what it holds.
pub(super) type RecordRef<'a> = ImageRecord<&'a str, &'a [DatanodeId]>;

/// The digest over a whole namespace at one transaction: equal digests, equal namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NamespaceDigest(pub [u8; 32]);

impl fmt::Display for NamespaceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for NamespaceDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sum of the hashes of a set of records, so that the order in which they came does not matter: the BLAKE3 hash of
/// each record as four numbers, added lane by lane, wrapping. It finds damage and divergence; it does not withstand
/// somebody who may choose the records.
#[derive(Clone, Debug, Default)]
pub(super) struct RecordSum {
    lanes: [u64; 4],
    scratch: Scratch,
}

impl RecordSum {
    pub(super) fn add(&mut self, record: &RecordRef<'_>) {
        for (lane, part) in self.lanes.iter_mut().zip(self.scratch.hash(record)) {
            *lane = lane.wrapping_add(part);
        }
    }

    pub(super) fn subtract(&mut self, record: &RecordRef<'_>) {
        for (lane, part) in self.lanes.iter_mut().zip(self.scratch.hash(record)) {
            *lane = lane.wrapping_sub(part);
        }
    }

    pub(super) fn lanes(&self) -> [u64; 4] {
        self.lanes
    }

    /// The digest over all records and the counters.
    pub(super) fn digest(&self, meta: MetaRecord) -> NamespaceDigest {
        let mut hasher = blake3::Hasher::new();
        for lane in self.lanes {
            hasher.update(&lane.to_le_bytes());
        }
        for counter in [meta.next_inode.0, meta.next_block.0, meta.next_generation.0] {
            hasher.update(&counter.to_le_bytes());
        }
        NamespaceDigest(*hasher.finalize().as_bytes())
    }
}

/// A buffer for encoding, kept between records.
#[derive(Clone, Debug, Default)]
struct Scratch(Vec<u8>);

impl Scratch {
    fn hash(&mut self, record: &RecordRef<'_>) -> [u64; 4] {
        self.0.clear();
        postcard::serialize_with_flavor(record, Appender(&mut self.0)).expect("a record can be encoded into memory");
        let hash = blake3::hash(&self.0);
        let (parts, _) = hash.as_bytes().as_chunks::<8>();
        std::array::from_fn(|at| u64::from_le_bytes(parts[at]))
    }
}

/// Lets postcard write into a buffer that is kept.
struct Appender<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
