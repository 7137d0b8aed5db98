//! An image of the namespace in a store: its header, its keys, how it is read.
//!
//! ```text
//! key                              value
//! 00                               header (below)
//! 01                               MetaRecord      \
//! 02 inode                         INodeRecord      |  ImageRecord in postcard,
//! 03 inode name                    EdgeRecord       |  numbers in keys big-endian
//! 04 block                         BlockRecord      |
//! 05 client sequence               OperationRecord  |
//! 06 epoch                         EpochRecord     /
//!
//! header, little-endian:
//! 0     4        6       7       8         24   32       64         96
//! | SIMG | format | state | 0     | cluster | tx | digest | BLAKE3   |
//!                                                          of 0..64
//! ```
//!
//! An image is good only if its header says *complete* and the digest over its records is the header's. It says *in
//! progress* before the first record changes and *complete* in the same batch as the last.

use std::path::Path;

use situ_runtime::Runtime;
use situ_runtime::store::Store;
use situ_wire::ids::{ClusterId, TxId};

use crate::core::{CoreConfig, ImageDigest, ImageKey, ImageRecord, NamespaceDigest, Namesystem};
use crate::error::ImageError;

/// What is written to a store in one step.
pub(super) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

const MAGIC: [u8; 4] = *b"SIMG";
/// The only format so far.
const FORMAT: u16 = 1;
const HEADER_LEN_BYTES: usize = 96;
const HEADER_KEY: [u8; 1] = [0];
const FIRST_RECORD_KEY: [u8; 1] = [1];

/// What an image says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Whether all of it is there.
    pub(super) complete: bool,
    /// Whose namespace it is.
    pub(super) cluster: ClusterId,
    /// Up to where it goes.
    pub(super) tx: TxId,
    /// Over all its records.
    pub(super) digest: NamespaceDigest,
}

impl Header {
    /// The header of an image that is being brought forward.
    pub(super) fn in_progress(cluster: ClusterId) -> Self {
        Self { complete: false, cluster, tx: TxId(0), digest: NamespaceDigest([0; 32]) }
    }

    /// The header as an entry of its store.
    pub(super) fn entry(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        (HEADER_KEY.to_vec(), Some(self.encode().to_vec()))
    }

    fn encode(&self) -> [u8; HEADER_LEN_BYTES] {
        let mut bytes = [0; HEADER_LEN_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[6] = u8::from(self.complete);
        bytes[8..24].copy_from_slice(&self.cluster.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.tx.0.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.digest.0);
        let check = blake3::hash(&bytes[..64]);
        bytes[64..].copy_from_slice(check.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        let bytes: &[u8; HEADER_LEN_BYTES] =
            bytes.try_into().map_err(|_| ImageError::Header { reason: "it has another length" })?;
        if bytes[0..4] != MAGIC {
            return Err(ImageError::Header { reason: "it does not begin with SIMG" });
        }
        let format = u16::from_le_bytes(part(bytes, 4));
        if format != FORMAT {
            return Err(ImageError::Format { found: format, expected: FORMAT });
        }
        if *blake3::hash(&bytes[..64]).as_bytes() != part::<32>(bytes, 64) {
            return Err(ImageError::Header { reason: "it does not match its hash" });
        }
        Ok(Self {
            complete: bytes[6] == 1,
            cluster: ClusterId(u128::from_le_bytes(part(bytes, 8))),
            tx: TxId(u64::from_le_bytes(part(bytes, 24))),
            digest: NamespaceDigest(part(bytes, 32)),
        })
    }
}

fn part<const N: usize>(bytes: &[u8; HEADER_LEN_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// An open image that says it is complete.
pub(super) struct Image {
    store: Box<dyn Store>,
    /// What it says of itself.
    pub(super) header: Header,
}

impl Image {
    /// Opens the image at `path`. Blocks.
    pub(super) fn open<R: Runtime>(runtime: &R, path: &Path, cluster: ClusterId) -> Result<Self, ImageError> {
        let store = runtime.open_store(path)?;
        let header = Header::decode(&store.get(&HEADER_KEY)?.ok_or(ImageError::NoHeader)?)?;
        if header.cluster != cluster {
            return Err(ImageError::Cluster { found: header.cluster });
        }
        if !header.complete {
            return Err(ImageError::InProgress);
        }
        Ok(Self { store, header })
    }

    /// The namespace that it holds, its digest compared. Blocks.
    pub(super) fn load(&self, config: CoreConfig) -> Result<Namesystem, ImageError> {
        let mut namesystem = Namesystem::new(config);
        for record in self.records() {
            namesystem.restore(&record?).map_err(damaged)?;
        }
        namesystem.finish_restore(self.header.tx).map_err(damaged)?;
        self.compare(namesystem.digest())?;
        Ok(namesystem)
    }

    /// Reads all of it and compares its digest. Blocks.
    pub(super) fn verify(&self) -> Result<(), ImageError> {
        let mut digest = ImageDigest::default();
        for record in self.records() {
            digest.add(&record?);
        }
        self.compare(digest.digest().ok_or_else(|| damaged("the counters are missing"))?)
    }

    /// Its records, each under its own key.
    fn records(&self) -> impl Iterator<Item = Result<ImageRecord, ImageError>> {
        self.store.scan(&FIRST_RECORD_KEY).map(|entry| {
            let (key, value) = entry?;
            let record: ImageRecord =
                postcard::from_bytes(&value).map_err(|error| damaged(format!("key {key:02x?}: {error}")))?;
            if encode_key(&record.key()) != key {
                return Err(damaged(format!("key {key:02x?} holds the record of another: {:?}", record.key())));
            }
            Ok(record)
        })
    }

    fn compare(&self, found: NamespaceDigest) -> Result<(), ImageError> {
        if found == self.header.digest {
            return Ok(());
        }
        Err(ImageError::Digest { found: found.to_string(), expected: self.header.digest.to_string() })
    }
}

fn damaged(reason: impl ToString) -> ImageError {
    ImageError::Record { reason: reason.to_string() }
}

/// Changes as entries of a store.
///
/// # Errors
/// When a record cannot be encoded: a defect.
pub(super) fn encode_changes(changes: &[(ImageKey, Option<ImageRecord>)]) -> Result<Batch, ImageError> {
    changes
        .iter()
        .map(|(key, record)| {
            let value = record.as_ref().map(postcard::to_stdvec).transpose();
            Ok((encode_key(key), value.map_err(|error| ImageError::Record { reason: error.to_string() })?))
        })
        .collect()
}

fn encode_key(key: &ImageKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    match key {
        ImageKey::Meta => bytes.push(1),
        ImageKey::INode(inode) => {
            bytes.push(2);
            bytes.extend_from_slice(&inode.0.to_be_bytes());
        }
        ImageKey::Edge(parent, name) => {
            bytes.push(3);
            bytes.extend_from_slice(&parent.0.to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        ImageKey::Block(block) => {
            bytes.push(4);
            bytes.extend_from_slice(&block.0.to_be_bytes());
        }
        ImageKey::Operation(client, sequence) => {
            bytes.push(5);
            bytes.extend_from_slice(&client.0.to_be_bytes());
            bytes.extend_from_slice(&sequence.to_be_bytes());
        }
        ImageKey::Epoch(epoch) => {
            bytes.push(6);
            bytes.extend_from_slice(&epoch.0.to_be_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{BlockId, ClientId, INodeId};

    use super::*;
    use crate::core::Epoch;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The format is pinned: a change of these bytes needs a new [`FORMAT`].
    #[test]
    fn the_header_is_as_it_was_and_is_read_back() {
        let header =
            Header { complete: true, cluster: ClusterId(42), tx: TxId(7), digest: NamespaceDigest([0xab; 32]) };
        let golden = format!(
            "53494d47{}{}{}{}{}",
            "01000100",
            "2a000000000000000000000000000000",
            "0700000000000000",
            "ab".repeat(32),
            GOLDEN_CHECK
        );
        assert_eq!(hex(&header.encode()), golden);
        assert_eq!(Header::decode(&header.encode()).unwrap(), header);
    }

    const GOLDEN_CHECK: &str = "d7917d2b5be9a074d7ecc8d87509e1d22327c8a59f3833f8398b50080f9caeed";

    #[test]
    fn every_flipped_bit_of_a_header_shows() {
        let good = Header::in_progress(ClusterId(42)).encode();
        for at in 0..HEADER_LEN_BYTES * 8 {
            let mut bytes = good;
            bytes[at / 8] ^= 1 << (at % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {at}");
        }
        assert!(Header::decode(&good[1..]).is_err());
    }

    #[test]
    fn keys_are_as_they_were() {
        let keys = [
            (ImageKey::Meta, "01"),
            (ImageKey::INode(INodeId(258)), "020000000000000102"),
            (ImageKey::Edge(INodeId(1), "ab".into()), "0300000000000000016162"),
            (ImageKey::Block(BlockId(3)), "040000000000000003"),
            (ImageKey::Operation(ClientId(4), 5), "05000000000000000000000000000000040000000000000005"),
            (ImageKey::Epoch(Epoch(6)), "060000000000000006"),
        ];
        for (key, golden) in keys {
            assert_eq!(hex(&encode_key(&key)), golden);
        }
    }
}
