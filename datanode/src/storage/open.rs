//! Opening a datanode's volumes, and formatting fresh ones.

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::ids::{ClusterId, DatanodeId, StorageId};

use super::{Volume, VolumeVersion};
use crate::error::StartError;

/// A datanode's volumes.
#[derive(Debug)]
pub struct OpenVolumes<D: Disk> {
    /// Whose they are.
    pub datanode: DatanodeId,
    /// In the order of their directories.
    pub volumes: Vec<Volume<D>>,
}

/// Locks and opens the volumes in the directories `roots`; those without a volume get a fresh one, and a datanode whose
/// volumes are all fresh a new id. Blocks. A directory whose disk fails is left out as long as another one works.
///
/// # Errors
/// When a volume belongs to another cluster or datanode, is damaged or held by another process, when a directory holds
/// something else, or when no disk works.
pub fn open_volumes<D: Disk>(
    disk: &D,
    roots: &[PathBuf],
    cluster: ClusterId,
    mut random: impl FnMut() -> u128,
) -> Result<OpenVolumes<D>, StartError> {
    let mut locked = Vec::new();
    let mut failure = None;
    for root in roots {
        match lock_and_read(disk, root) {
            Ok((lock, version)) => locked.push((root, lock, version)),
            Err(error) => keep_going(root, error, &mut failure)?,
        }
    }
    let datanode = check_versions(&locked, cluster)?.unwrap_or_else(|| DatanodeId(random()));
    let mut volumes = Vec::new();
    for (root, lock, version) in locked {
        let fresh = VolumeVersion { cluster, datanode, storage: StorageId(random()) };
        let opened = match version {
            Some(version) => Ok(version),
            None => disk.write_atomically(&root.join(VERSION), &fresh.encode()).map(|()| fresh),
        };
        match opened.and_then(|version| Volume::open(disk.clone(), root, lock, &version)) {
            Ok(volume) => volumes.push(volume),
            Err(error) => keep_going(root, StartError::Disk { path: root.clone(), error }, &mut failure)?,
        }
    }
    match failure {
        Some(error) if volumes.is_empty() => Err(error),
        _ => Ok(OpenVolumes { datanode, volumes }),
    }
}

/// Remembers the first failure of a disk; every other error ends the start.
fn keep_going(root: &Path, error: StartError, failure: &mut Option<StartError>) -> Result<(), StartError> {
    match &error {
        StartError::Disk { error: DiskError { kind: DiskErrorKind::Other(_) | DiskErrorKind::Full, .. }, .. } => {
            tracing::error!(volume = %root.display(), %error, "a volume cannot be opened; going on without it");
            failure.get_or_insert(error);
            Ok(())
        }
        _ => Err(error),
    }
}

fn lock_and_read<D: Disk>(disk: &D, root: &Path) -> Result<(D::Lock, Option<VolumeVersion>), StartError> {
    let failed = |error| StartError::Disk { path: root.to_owned(), error };
    disk.create_directory(root).map_err(failed)?;
    let lock = disk.lock(root).map_err(failed)?;
    match disk.read(&root.join(VERSION), VERSION_LIMIT_BYTES) {
        Ok(bytes) => match VolumeVersion::decode(&bytes) {
            Ok(version) => Ok((lock, Some(version))),
            Err(error) => Err(StartError::Version { path: root.to_owned(), error }),
        },
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => {
            check_empty(disk, root)?;
            Ok((lock, None))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A directory that becomes a volume holds nothing but what an interrupted formatting, or a file system, puts there.
fn check_empty<D: Disk>(disk: &D, root: &Path) -> Result<(), StartError> {
    let entries = disk.list(root).map_err(|error| StartError::Disk { path: root.to_owned(), error })?;
    match entries.into_iter().find(|entry| !["in_use.lock", "VERSION.new", "lost+found"].contains(&&*entry.name)) {
        Some(entry) => Err(StartError::NotEmpty { path: root.to_owned(), found: entry.name }),
        None => Ok(()),
    }
}

/// Checks that all volumes belong together, and says to which datanode; none if all are fresh.
fn check_versions<L>(
    volumes: &[(&PathBuf, L, Option<VolumeVersion>)],
    cluster: ClusterId,
) -> Result<Option<DatanodeId>, StartError> {
    let known = volumes.iter().filter_map(|(path, _, version)| Some((*path, version.as_ref()?)));
    let mut datanode = None;
    for (at, (path, version)) in known.clone().enumerate() {
        if version.cluster != cluster {
            let (expected, found) = (cluster, version.cluster);
            return Err(StartError::WrongCluster { path: path.clone(), expected, found });
        }
        let expected = *datanode.get_or_insert(version.datanode);
        if version.datanode != expected {
            return Err(StartError::WrongDatanode { path: path.clone(), expected, found: version.datanode });
        }
        if let Some((other, _)) = known.clone().take(at).find(|(_, other)| other.storage == version.storage) {
            return Err(StartError::SameStorage { path: path.clone(), other: other.clone() });
        }
    }
    Ok(datanode)
}

const VERSION: &str = "VERSION";
/// No `VERSION` file is longer.
const VERSION_LIMIT_BYTES: u64 = 4096;
