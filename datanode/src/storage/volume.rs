//! One volume: its directory, its lock, its final replicas.

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode, Space};
use situ_wire::block::Block;
use situ_wire::ids::StorageId;

use super::names::{Part, directory};
use super::version::{VERSION, VERSION_LIMIT_BYTES};
use super::{MetaError, ReplicaMeta, VolumeVersion};

/// Where on a volume a replica stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Place {
    /// Among those being written.
    Rbw,
    /// Among the final ones.
    Current,
    /// Among those kept aside because their bytes are wrong.
    Corrupt,
}

/// An open volume, locked against other processes until it is dropped. All calls block.
pub struct Volume<D: Disk> {
    pub(super) disk: D,
    pub(super) root: PathBuf,
    version: VolumeVersion,
    _lock: D::Lock,
}

/// An open final replica.
pub struct FinalReplica<D: Disk> {
    /// Its bytes.
    pub file: D::File,
    /// Its tree, checked against its own checksum and root.
    pub meta: ReplicaMeta,
}

/// Why a final replica cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The disk fails, or the file is not there.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The meta file is damaged.
    #[error("the meta file of {block}: {error}")]
    Meta {
        /// Of which replica.
        block: Block,
        /// What is wrong with it.
        error: MetaError,
    },
    /// The bytes are not those that were written.
    #[error("the replica of {block}: {reason}")]
    Corrupt {
        /// Which replica.
        block: Block,
        /// What is wrong with it.
        reason: String,
    },
}

impl<D: Disk> std::fmt::Debug for Volume<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volume")
            .field("root", &self.root)
            .field("storage", &self.version.storage)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> std::fmt::Debug for FinalReplica<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FinalReplica").field("block", &self.meta.block).finish_non_exhaustive()
    }
}

impl<D: Disk> Volume<D> {
    /// The volume in the locked directory `root`, whose `VERSION` is `version`; makes the directories that it needs.
    pub(super) fn open(disk: D, root: &Path, lock: D::Lock, version: VolumeVersion) -> Result<Self, DiskError> {
        let volume = Self { disk, root: root.to_owned(), version, _lock: lock };
        for place in [Place::Rbw, Place::Current, Place::Corrupt] {
            volume.disk.create_directory(&volume.place(place))?;
        }
        Ok(volume)
    }

    /// Which volume it is.
    #[must_use]
    pub fn storage(&self) -> StorageId {
        self.version.storage
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where its index stands.
    #[must_use]
    pub fn index_path(&self) -> PathBuf {
        self.root.join("index")
    }

    /// How much room its disk has.
    ///
    /// # Errors
    /// When the disk fails or is not mounted any more.
    pub fn space(&self) -> Result<Space, DiskError> {
        self.check_mounted()?;
        self.disk.space(&self.root)
    }

    /// Checks that the directory still holds this volume: its disk may have been unmounted, or another one be mounted.
    fn check_mounted(&self) -> Result<(), DiskError> {
        let path = self.root.join(VERSION);
        if self.disk.read(&path, VERSION_LIMIT_BYTES)? == self.version.encode() {
            return Ok(());
        }
        let kind = DiskErrorKind::Other("it is not the one that was opened here; is another disk mounted?".to_owned());
        Err(DiskError { path, operation: "check", kind })
    }

    /// Opens a final replica and reads its tree.
    ///
    /// # Errors
    /// When it is not there, the disk fails, or its meta file is damaged.
    pub fn open_final(&self, block: Block) -> Result<FinalReplica<D>, ReadError> {
        let file = self.disk.open(&self.path(Place::Current, block, Part::Data), OpenMode::Read)?;
        let meta = self.read_meta(block)?;
        let found = file.len()?;
        if found != meta.len_bytes {
            let reason = format!("its file has {found} bytes; {} were written", meta.len_bytes);
            return Err(ReadError::Corrupt { block, reason });
        }
        Ok(FinalReplica { file, meta })
    }

    /// Reads the tree of a final replica.
    pub(super) fn read_meta(&self, block: Block) -> Result<ReplicaMeta, ReadError> {
        let path = self.path(Place::Current, block, Part::Meta);
        let meta = match self.disk.read(&path, ReplicaMeta::file_len_max_bytes()) {
            Ok(bytes) => ReplicaMeta::decode(&bytes).map_err(|error| ReadError::Meta { block, error })?,
            Err(DiskError { kind: DiskErrorKind::TooLong { found_bytes, .. }, .. }) => {
                let len_bytes = usize::try_from(found_bytes).unwrap_or(usize::MAX);
                return Err(ReadError::Meta { block, error: MetaError::Damaged { len_bytes } });
            }
            Err(error) => return Err(error.into()),
        };
        if meta.block != block {
            let reason = format!("its meta file is that of {}", meta.block);
            return Err(ReadError::Corrupt { block, reason });
        }
        Ok(meta)
    }

    /// Deletes what there is of a replica, wherever it is.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn delete(&self, block: Block) -> Result<(), DiskError> {
        [Place::Rbw, Place::Current, Place::Corrupt].into_iter().try_for_each(|place| self.delete_at(place, block))
    }

    /// Deletes what there is of a replica at `place`, the meta file first: a crash in between leaves one file without
    /// the other, which the scan removes.
    pub(super) fn delete_at(&self, place: Place, block: Block) -> Result<(), DiskError> {
        for part in [Part::Meta, Part::Data] {
            absent_is_fine(self.disk.remove_file(&self.path(place, block, part)))?;
        }
        Ok(())
    }

    /// Moves a final replica whose bytes are wrong aside, the data file first, so that whatever a crash leaves the bytes
    /// are either final or aside.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn move_aside(&self, block: Block) -> Result<(), DiskError> {
        for part in [Part::Data, Part::Meta] {
            let to = self.path(Place::Corrupt, block, part);
            absent_is_fine(self.disk.rename(&self.path(Place::Current, block, part), &to))?;
        }
        self.disk.sync_directory(&self.place(Place::Corrupt))?;
        self.disk.sync_directory(&self.directory(Place::Current, block))
    }

    /// Tries whether the volume still works: whether a file can be written, synced, read back and removed.
    ///
    /// # Errors
    /// What does not work.
    pub fn probe(&self) -> Result<(), DiskError> {
        match self.try_out() {
            // That says nothing about the volume: its next trouble has it probed again.
            Err(DiskError { kind: DiskErrorKind::Exhausted(_), .. }) => Ok(()),
            result => result,
        }
    }

    fn try_out(&self) -> Result<(), DiskError> {
        self.check_mounted()?;
        let path = self.root.join("probe");
        match self.disk.write_atomically(&path, PROBE) {
            // A full disk takes nothing more, but what it holds can be read.
            Err(DiskError { kind: DiskErrorKind::Full, .. }) => return self.disk.list(&self.root).map(drop),
            result => result?,
        }
        let found = self.disk.read(&path, PROBE.len() as u64)?;
        self.disk.remove_file(&path)?;
        if found != PROBE {
            let kind = DiskErrorKind::Other("other bytes came back than were written".to_owned());
            return Err(DiskError { path, operation: "probe", kind });
        }
        Ok(())
    }

    pub(super) fn place(&self, place: Place) -> PathBuf {
        self.root.join(match place {
            Place::Rbw => "rbw",
            Place::Current => "current",
            Place::Corrupt => "corrupt",
        })
    }

    /// The directory of a replica's files.
    pub(super) fn directory(&self, place: Place, block: Block) -> PathBuf {
        match place {
            Place::Current => self.place(place).join(directory(block.id)),
            Place::Rbw | Place::Corrupt => self.place(place),
        }
    }

    pub(super) fn path(&self, place: Place, block: Block, part: Part) -> PathBuf {
        self.directory(place, block).join(part.name(block))
    }
}

/// What is removed or moved may be gone already.
pub(super) fn absent_is_fine(result: Result<(), DiskError>) -> Result<(), DiskError> {
    match result {
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => Ok(()),
        result => result,
    }
}

const PROBE: &[u8] = b"a volume that takes this and gives it back works\n";
