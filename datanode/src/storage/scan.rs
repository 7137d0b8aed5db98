//! What a volume holds when its datanode starts. The listing of its directories is the truth; the index only saves
//! reading the meta files that it knows.

use std::collections::BTreeMap;

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::block::Block;
use situ_wire::ids::BlockId;

use super::names::Part;
use super::volume::absent_is_fine;
use super::{IndexedReplica, Place, ReadError, ReplicaMeta, Volume};

/// A replica that the scan found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScannedReplica {
    /// The block in its life.
    pub block: Block,
    /// How many bytes it has.
    pub len_bytes: u64,
    /// Whether it can be served.
    pub health: Health,
}

/// Whether a replica that the scan found can be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It is final.
    Final,
    /// Its bytes or its tree are damaged; it is kept aside.
    Corrupt,
    /// The disk did not give its tree back; its files are left where they are.
    Unreadable,
}

/// The lengths of a replica's files, as far as they are there.
#[derive(Clone, Copy, Default)]
struct Files {
    data_bytes: Option<u64>,
    meta_bytes: Option<u64>,
}

type Found = BTreeMap<Block, Files>;

impl<D: Disk> Volume<D> {
    /// Finds all replicas, ascending and each block once: only its newest life counts. Drops what was being written,
    /// what a crash left half done and stale lives; moves damaged replicas aside. `index` says what is known to be good.
    ///
    /// # Errors
    /// When the disk fails, or the process has not what it takes to read it.
    pub fn scan(&self, index: &BTreeMap<BlockId, IndexedReplica>) -> Result<Vec<ScannedReplica>, DiskError> {
        self.disk.remove_directory(&self.place(Place::Rbw))?;
        self.disk.create_directory(&self.place(Place::Rbw))?;
        let mut replicas: BTreeMap<_, ScannedReplica> = BTreeMap::new();
        for (block, files) in self.list_place(Place::Corrupt)? {
            let len_bytes = files.data_bytes.unwrap_or(0);
            replicas.insert(block.id, ScannedReplica { block, len_bytes, health: Health::Corrupt });
        }
        for (block, files) in self.list_current()? {
            let known = index.get(&block.id).is_some_and(|known| fits(*known, block, files));
            let Some(found) = self.examine(block, files, known)? else { continue };
            let Some(older) = replicas.insert(block.id, found) else { continue };
            // Lives come in ascending order, but one kept aside may be of any.
            let (stale, newest) = if older.block <= found.block { (older, found) } else { (found, older) };
            tracing::info!(replica = %stale.block, newest = %newest.block, "dropped a stale replica");
            self.delete_at(place_of(stale.health), stale.block)?;
            replicas.insert(block.id, newest);
        }
        Ok(replicas.into_values().collect())
    }

    /// What the files of one replica in `current` amount to; none if they are leftovers, which are removed.
    fn examine(&self, block: Block, files: Files, known: bool) -> Result<Option<ScannedReplica>, DiskError> {
        let (Some(len_bytes), Some(_)) = (files.data_bytes, files.meta_bytes) else {
            tracing::info!(replica = %block, "removed one file of a replica whose other file is not there");
            self.delete_at(Place::Current, block)?;
            return Ok(None);
        };
        let health = if known { Health::Final } else { self.health(block, len_bytes)? };
        if health == Health::Corrupt {
            self.move_aside(block)?;
        }
        Ok(Some(ScannedReplica { block, len_bytes, health }))
    }

    /// What the tree of a replica in `current` says of it, whose data file has `len_bytes`.
    fn health(&self, block: Block, len_bytes: u64) -> Result<Health, DiskError> {
        Ok(match self.read_meta(block) {
            Ok(meta) if meta.len_bytes == len_bytes => Health::Final,
            Ok(meta) => {
                tracing::warn!(replica = %block, found = len_bytes, expected = meta.len_bytes, "a replica of a wrong length");
                Health::Corrupt
            }
            Err(error @ (ReadError::Meta { .. } | ReadError::Corrupt { .. })) => {
                tracing::warn!(replica = %block, %error, "a replica whose tree is damaged");
                Health::Corrupt
            }
            // Nothing else could be read either.
            Err(ReadError::Disk(error @ DiskError { kind: DiskErrorKind::Exhausted(_), .. })) => return Err(error),
            // A disk that cannot give this file back may still have all others, and this one the next time.
            Err(ReadError::Disk(error)) => {
                tracing::warn!(replica = %block, %error, "a replica whose tree cannot be read");
                Health::Unreadable
            }
        })
    }

    /// The files of `current`, its directories synced: what is reported final must not vanish in a power cut, also when
    /// the process that moved it there died before it could sync.
    fn list_current(&self) -> Result<Found, DiskError> {
        let current = self.place(Place::Current);
        let mut found = Found::new();
        for outer in self.disk.list(&current)?.into_iter().filter(|entry| entry.is_directory) {
            let outer = current.join(outer.name);
            for inner in self.disk.list(&outer)?.into_iter().filter(|entry| entry.is_directory) {
                let inner = outer.join(inner.name);
                self.disk.sync_directory(&inner)?;
                for entry in self.disk.list(&inner)? {
                    match Part::parse(&entry.name) {
                        // A file in a directory where it is not looked for would be reported and never found.
                        Some((block, part)) if self.directory(Place::Current, block) == inner => {
                            note(&mut found, block, part, entry.len_bytes);
                        }
                        _ => {
                            tracing::warn!(directory = %inner.display(), name = entry.name, "left a strange file alone");
                        }
                    }
                }
            }
            self.disk.sync_directory(&outer)?;
        }
        self.disk.sync_directory(&current)?;
        Ok(found)
    }

    fn list_place(&self, place: Place) -> Result<Found, DiskError> {
        let mut found = Found::new();
        for entry in self.disk.list(&self.place(place))? {
            if let Some((block, part)) = Part::parse(&entry.name) {
                note(&mut found, block, part, entry.len_bytes);
            }
        }
        // Only the tree of a replica without its bytes is of no use to anybody.
        let (whole, bare): (Found, Found) = found.into_iter().partition(|(_, files)| files.data_bytes.is_some());
        for block in bare.into_keys() {
            absent_is_fine(self.disk.remove_file(&self.path(place, block, Part::Meta)))?;
        }
        Ok(whole)
    }
}

/// Whether the index knows that replica as the listing shows it.
fn fits(known: IndexedReplica, block: Block, files: Files) -> bool {
    known.generation == block.generation
        && files.data_bytes == Some(known.len_bytes)
        && files.meta_bytes == Some(ReplicaMeta::file_len_bytes(known.len_bytes))
}

fn note(found: &mut Found, block: Block, part: Part, len_bytes: u64) {
    let files = found.entry(block).or_default();
    match part {
        Part::Data => files.data_bytes = Some(len_bytes),
        Part::Meta => files.meta_bytes = Some(len_bytes),
    }
}

fn place_of(health: Health) -> Place {
    match health {
        Health::Final | Health::Unreadable => Place::Current,
        Health::Corrupt => Place::Corrupt,
    }
}
