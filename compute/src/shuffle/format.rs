//! The file that a map task leaves.
//!
//! ```text
//! offset      bytes
//! 0           8       "SITUSHFL"
//! 8           4       version, u32 LE: 2
//! 12          8       job, u64 LE
//! 20          12      stage: scope, u64 LE, and number, u32 LE
//! 32          4       map partition, u32 LE
//! 36          4       attempt, u32 LE
//! 40          12      shuffle: scope, u64 LE, and number, u32 LE
//! 52          4       n, the number of pieces, u32 LE
//! 56          20 n    one entry a piece: length u64 LE, CRC32C u32 LE, records u64 LE
//! 56 + 20 n   4       CRC32C of all bytes before, u32 LE
//! 60 + 20 n           the pieces, one behind the other, in the order of the reduce partitions
//! ```
//!
//! A piece is a sequence of frames:
//!
//! ```text
//! +-----------------+------------------------+-----------------+----------------+-----------+
//! | raw len: u32 LE | compressed len: u32 LE | records: u32 LE | CRC32C: u32 LE | LZ4 block |
//! +-----------------+------------------------+-----------------+----------------+-----------+
//! ```
//!
//! A frame holds whole records, each encoded in postcard, one behind the other. A frame that LZ4 does not make shorter
//! stands as it is: its two lengths are equal. Its checksum is over its number in the piece (u64 LE, from 0 on) and all its
//! other bytes: a piece is taken frame by frame as it comes, and its own checksum is known only at its end.
//!
//! Where frames end depends on the records and on the number of pieces alone, so that a map task that runs again leaves
//! the same bytes, wherever it runs.
//!
//! The file is written under another name and renamed when it is whole. It is not synced: what a power cut takes is
//! computed again.

use std::ops::Range;
use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, File, OpenMode};
use situ_wire::ids::{JobId, PartitionId, ShuffleId, StageId, TaskAttemptId};
use situ_wire::limits::PARTITIONS;
use situ_wire::messages::executor::ShufflePiece;

/// What the file starts with.
pub const MAGIC: [u8; 8] = *b"SITUSHFL";
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 2;

/// The bytes before the index.
const FIXED_LEN_BYTES: usize = 56;
/// The bytes of one entry of the index.
const ENTRY_LEN_BYTES: usize = 20;
/// The bytes of the checksum behind the index.
const CRC_LEN_BYTES: usize = 4;

/// Where the output of `map` for `shuffle` lies in a worker's directory.
#[must_use]
pub fn output_path(work_dir: &Path, shuffle: ShuffleId, map: TaskAttemptId) -> PathBuf {
    work_dir.join(shuffle.to_string()).join(format!("{}-attempt-{}", map.partition, map.attempt))
}

/// Why a file is not the output of a map task.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ShuffleFileError {
    /// It cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its bytes are not what they should be.
    #[error("the shuffle output {} is damaged: {reason}; its map task must run again", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// Another release wrote it.
    #[error("the shuffle output {} has version {found}; this program reads version {VERSION}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It has no such piece.
    #[error("the shuffle output {} has {pieces} pieces; {} to {} were asked for", path.display(), asked.0, asked.1)]
    NoPiece {
        /// Which file.
        path: PathBuf,
        /// How many it has.
        pieces: usize,
        /// First and one past the last that were asked for.
        asked: (PartitionId, PartitionId),
    },
}

/// What a header says: whose output it is, and its pieces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The attempt that wrote it.
    pub map: TaskAttemptId,
    /// The shuffle that it is for.
    pub shuffle: ShuffleId,
    /// One piece a reduce partition.
    pub pieces: Vec<ShufflePiece>,
}

impl Header {
    /// How many bytes stand before the first piece of a file with so many pieces.
    #[must_use]
    pub fn len_bytes(pieces: usize) -> usize {
        FIXED_LEN_BYTES + pieces * ENTRY_LEN_BYTES + CRC_LEN_BYTES
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::len_bytes(self.pieces.len()));
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.map.job.0.to_le_bytes());
        out.extend_from_slice(&self.map.stage.to_le_bytes());
        out.extend_from_slice(&self.map.partition.0.to_le_bytes());
        out.extend_from_slice(&self.map.attempt.to_le_bytes());
        out.extend_from_slice(&self.shuffle.to_le_bytes());
        let count = u32::try_from(self.pieces.len()).expect("a dataset has at most PARTITIONS partitions");
        out.extend_from_slice(&count.to_le_bytes());
        for piece in &self.pieces {
            out.extend_from_slice(&piece.len_bytes.to_le_bytes());
            out.extend_from_slice(&piece.crc32c.to_le_bytes());
            out.extend_from_slice(&piece.records.to_le_bytes());
        }
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        debug_assert_eq!(out.len(), Self::len_bytes(self.pieces.len()), "the layout is as drawn");
        out
    }

    /// Takes a header from a file's first bytes; the fixed part says how many there must be.
    fn decode(path: &Path, bytes: &[u8]) -> Result<Self, ShuffleFileError> {
        let damaged = |reason: String| ShuffleFileError::Damaged { path: path.to_owned(), reason };
        let pieces = Self::decode_fixed(path, bytes)?;
        let len = Self::len_bytes(pieces);
        if bytes.len() < len {
            return Err(damaged(format!("its header has {len} bytes, but the file ends after {}", bytes.len())));
        }
        let (head, crc) = bytes[..len].split_at(len - CRC_LEN_BYTES);
        if crc32c::crc32c(head).to_le_bytes() != *crc {
            return Err(damaged("the checksum of its header does not match".to_owned()));
        }
        let map = TaskAttemptId {
            job: JobId(u64_at(head, 12)),
            stage: StageId::from_le_bytes(id_at(head, 20)),
            partition: PartitionId(u32_at(head, 32)),
            attempt: u32_at(head, 36),
        };
        let pieces = (0..pieces)
            .map(|piece| FIXED_LEN_BYTES + piece * ENTRY_LEN_BYTES)
            .map(|at| ShufflePiece {
                len_bytes: u64_at(head, at),
                crc32c: u32_at(head, at + 8),
                records: u64_at(head, at + 12),
            })
            .collect();
        Ok(Self { map, shuffle: ShuffleId::from_le_bytes(id_at(head, 40)), pieces })
    }

    /// Checks the fixed part and gives the number of pieces.
    fn decode_fixed(path: &Path, bytes: &[u8]) -> Result<usize, ShuffleFileError> {
        let damaged = |reason: String| ShuffleFileError::Damaged { path: path.to_owned(), reason };
        if bytes.len() < FIXED_LEN_BYTES || bytes[..8] != MAGIC {
            return Err(damaged("it does not start as a shuffle output does".to_owned()));
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(ShuffleFileError::Version { path: path.to_owned(), found: version });
        }
        let pieces = u32_at(bytes, 52);
        if pieces > PARTITIONS {
            return Err(damaged(format!("it claims {pieces} pieces; at most {PARTITIONS} are possible")));
        }
        Ok(pieces as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map(u32::from_le_bytes).expect("four bytes")
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map(u64::from_le_bytes).expect("eight bytes")
}

fn id_at(bytes: &[u8], at: usize) -> [u8; 12] {
    bytes[at..at + 12].try_into().expect("twelve bytes")
}

/// A map task's output, open for reading. Its header has been checked; its pieces are checked by who fetches them.
#[derive(Debug)]
pub struct OutputFile<F> {
    path: PathBuf,
    file: F,
    header: Header,
    /// Where each piece starts, and where the last one ends.
    offsets: Vec<u64>,
}

impl<F: File> OutputFile<F> {
    /// Opens the output of `map` for `shuffle` in a worker's directory. Blocks.
    ///
    /// # Errors
    /// When it is not there, cannot be read, is damaged, or is another task's.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        work_dir: &Path,
        shuffle: ShuffleId,
        map: TaskAttemptId,
    ) -> Result<Self, ShuffleFileError> {
        let output = Self::read(disk, &output_path(work_dir, shuffle, map))?;
        let Header { map: found, shuffle: of, .. } = output.header;
        if found != map || of != shuffle {
            let reason = format!("it holds {of} of {found}, expected {shuffle} of {map}");
            return Err(ShuffleFileError::Damaged { path: output.path, reason });
        }
        Ok(output)
    }

    /// Opens whatever output is at a path. Blocks.
    ///
    /// # Errors
    /// When it is not there, cannot be read or is damaged.
    pub(crate) fn read<D: Disk<File = F>>(disk: &D, path: &Path) -> Result<Self, ShuffleFileError> {
        let path = path.to_owned();
        let file = disk.open(&path, OpenMode::Read)?;
        let pieces = Header::decode_fixed(&path, &file.read_at(0, FIXED_LEN_BYTES)?)?;
        let header = Header::decode(&path, &file.read_at(0, Header::len_bytes(pieces))?)?;
        let damaged = |reason: String| ShuffleFileError::Damaged { path: path.clone(), reason };
        let mut offsets = Vec::with_capacity(header.pieces.len() + 1);
        let mut offset = Header::len_bytes(pieces) as u64;
        offsets.push(offset);
        for piece in &header.pieces {
            offset = offset
                .checked_add(piece.len_bytes)
                .ok_or_else(|| damaged("its pieces are longer than a file can be".to_owned()))?;
            offsets.push(offset);
        }
        let len = file.len()?;
        if len != offset {
            return Err(damaged(format!("it has {len} bytes, its header says {offset}")));
        }
        Ok(Self { path, file, header, offsets })
    }

    /// Whose output it is, and its pieces.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// What each piece is, one a reduce partition.
    #[must_use]
    pub fn pieces(&self) -> &[ShufflePiece] {
        &self.header.pieces
    }

    /// The pieces for the reduce partitions from the first up to, but not with, the second, and which bytes of the file
    /// they are.
    ///
    /// # Errors
    /// When there are no such pieces.
    pub fn range(&self, reduce: (PartitionId, PartitionId)) -> Result<(&[ShufflePiece], Range<u64>), ShuffleFileError> {
        let (first, end) = (reduce.0.0 as usize, reduce.1.0 as usize);
        match self.header.pieces.get(first..end) {
            Some(pieces) => Ok((pieces, self.offsets[first]..self.offsets[end])),
            None => Err(ShuffleFileError::NoPiece {
                path: self.path.clone(),
                pieces: self.header.pieces.len(),
                asked: reduce,
            }),
        }
    }

    /// The file, to read such ranges from.
    #[must_use]
    pub fn file(&self) -> &F {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::ScopeId;

    use super::*;

    fn header() -> Header {
        Header {
            map: TaskAttemptId { job: JobId(1), stage: StageId(ScopeId(9), 2), partition: PartitionId(3), attempt: 4 },
            shuffle: ShuffleId(ScopeId(9), 5),
            pieces: vec![
                ShufflePiece { len_bytes: 6, crc32c: 7, records: 8 },
                ShufflePiece { len_bytes: 9, crc32c: 10, records: 11 },
            ],
        }
    }

    #[test]
    fn golden() {
        let bytes = header().encode();
        let expected: Vec<u8> = [
            &b"SITUSHFL"[..],
            &[2, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0],
            &[6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0],
            &[161, 191, 230, 194],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(Header::decode(Path::new("/f"), &bytes).unwrap(), header());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let bytes = header().encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(Header::decode(Path::new("/f"), &damaged).is_err(), "a flip in byte {at}");
            assert!(Header::decode(Path::new("/f"), &bytes[..at]).is_err(), "a cut at byte {at}");
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = header().encode();
        bytes[8] = 3;
        assert!(matches!(Header::decode(Path::new("/f"), &bytes), Err(ShuffleFileError::Version { found: 3, .. })));
    }
}
