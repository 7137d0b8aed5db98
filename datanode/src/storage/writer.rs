//! A replica that is being written, until it is final.

use std::sync::Arc;

use bytes::Bytes;
use situ_runtime::disk::{Disk, DiskError, DiskErrorKind, File, OpenMode, PageBuffer};
use situ_wire::block::{Block, BlockRoot};
use situ_wire::ids::GenerationStamp;
use situ_wire::messages::datanode::Durability;
use situ_wire::tree::Leaf;

use super::names::Part;
use super::volume::absent_is_fine;
use super::{Place, ReplicaMeta, Volume};

/// What there is of a replica before a writer takes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prior {
    /// Nothing.
    Nothing,
    /// A replica that was being written in that life.
    BeingWritten(GenerationStamp),
    /// A final replica of that life.
    Final(GenerationStamp),
}

/// Writes one replica. Its calls block, and one thread makes them.
pub struct ReplicaWriter<D: Disk> {
    volume: Arc<Volume<D>>,
    block: Block,
    file: D::File,
    durability: Durability,
    len_bytes: u64,
    /// Gathers pieces while they are appended: the disk is given long steps.
    staged: PageBuffer,
    /// Up to where the disk was told to write.
    write_back_at: u64,
}

impl<D: Disk> std::fmt::Debug for ReplicaWriter<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaWriter")
            .field("block", &self.block)
            .field("len_bytes", &self.len_bytes)
            .finish_non_exhaustive()
    }
}

impl<D: Disk> ReplicaWriter<D> {
    /// Makes an empty replica, or opens the prior one, which becomes one of this life and is cut to `len_bytes`.
    ///
    /// # Errors
    /// When the disk is full or fails, or the prior replica is shorter.
    pub fn open(
        volume: Arc<Volume<D>>,
        block: Block,
        prior: Prior,
        len_bytes: u64,
        durability: Durability,
    ) -> Result<Self, DiskError> {
        let disk = &volume.disk;
        let data = volume.path(Place::Rbw, block, Part::Data);
        let older = |generation| Block { id: block.id, generation };
        let file = match prior {
            // A leftover that nobody knows of any more may be in the way.
            Prior::Nothing if durability == Durability::Durable => disk.open(&data, OpenMode::Stream)?,
            Prior::Nothing => disk.open(&data, OpenMode::Truncate)?,
            Prior::BeingWritten(generation) => {
                // A failed attempt at becoming final may have left a meta file.
                absent_is_fine(disk.remove_file(&volume.path(Place::Rbw, older(generation), Part::Meta)))?;
                disk.rename(&volume.path(Place::Rbw, older(generation), Part::Data), &data)?;
                disk.open(&data, OpenMode::Write)?
            }
            Prior::Final(generation) => {
                absent_is_fine(disk.remove_file(&volume.path(Place::Current, older(generation), Part::Meta)))?;
                disk.rename(&volume.path(Place::Current, older(generation), Part::Data), &data)?;
                disk.open(&data, OpenMode::Write)?
            }
        };
        if prior != Prior::Nothing {
            let found = file.len()?;
            if found < len_bytes {
                let reason = format!("it has {found} bytes; {len_bytes} were acknowledged");
                return Err(DiskError { path: data, operation: "resume", kind: DiskErrorKind::Other(reason) });
            }
            file.set_len(len_bytes)?;
        }
        Ok(Self { volume, block, file, durability, len_bytes, staged: PageBuffer::default(), write_back_at: len_bytes })
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Appends `pieces`, and lets the disk begin with what has gathered.
    ///
    /// # Errors
    /// When the disk is full or fails: the replica is then of no use.
    pub fn append(&mut self, pieces: &[Bytes]) -> Result<(), DiskError> {
        for mut piece in pieces.iter().map(|piece| &piece[..]) {
            self.len_bytes += piece.len() as u64;
            while !piece.is_empty() {
                // Steps end at multiples of their length, also in a replica that is gone on with.
                let begun = (self.len_bytes - piece.len() as u64) % STEP_LEN_BYTES as u64;
                let room = STEP_LEN_BYTES - usize::try_from(begun).unwrap_or(0);
                let (now, later) = piece.split_at(room.min(piece.len()));
                self.staged.extend_from_slice(now);
                piece = later;
                if now.len() == room {
                    self.write_staged(piece.len() as u64)?;
                }
            }
        }
        self.write_staged(0)
    }

    /// Writes what is staged, which ends `behind` bytes before the end of all.
    fn write_staged(&mut self, behind: u64) -> Result<(), DiskError> {
        let end = self.len_bytes - behind;
        if self.staged.is_empty() {
            return Ok(());
        }
        self.file.write_at(end - self.staged.len() as u64, &self.staged)?;
        self.staged.clear();
        if self.durability == Durability::Durable && end > self.write_back_at {
            self.file.start_write_back(self.write_back_at, end - self.write_back_at);
            self.write_back_at = end;
        }
        Ok(())
    }

    /// Makes the replica final; see the [module](super) for the steps. When this returns it is there for good, or, at
    /// [`Durability::Visible`], as good as the operating system keeps it.
    ///
    /// # Errors
    /// When the disk is full or fails: the replica is then of no use, and what there is of it goes at the next start.
    pub fn finalize(self, root: BlockRoot, leaves: Vec<Leaf>) -> Result<(), DiskError> {
        let Self { volume, block, file, durability, len_bytes, .. } = self;
        let meta = ReplicaMeta { block, len_bytes, root, leaves };
        let durable = durability == Durability::Durable;
        if durable {
            file.sync()?;
        }
        let aside = volume.path(Place::Rbw, block, Part::Meta);
        let meta_file = volume.disk.open(&aside, OpenMode::Truncate)?;
        meta_file.write_at(0, &meta.encode())?;
        if durable {
            meta_file.sync()?;
        }
        let directory = volume.directory(Place::Current, block);
        volume.disk.create_directory(&directory)?;
        let data = volume.path(Place::Rbw, block, Part::Data);
        volume.disk.rename(&data, &volume.path(Place::Current, block, Part::Data))?;
        volume.disk.rename(&aside, &volume.path(Place::Current, block, Part::Meta))?;
        if durable {
            volume.disk.sync_directory(&directory)?;
        }
        Ok(())
    }
}

/// How much is written at once.
const STEP_LEN_BYTES: usize = 1 << 20;
