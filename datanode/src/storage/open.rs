//! Making a datanode's volumes, once, and opening them.

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::ids::{ClusterId, DatanodeId, StorageId};

use super::version::{VERSION, VERSION_LIMIT_BYTES};
use super::{Volume, VolumeVersion};
use crate::error::StartError;

/// A datanode's volumes.
#[derive(Debug)]
pub struct OpenVolumes<D: Disk> {
    /// Whose they are.
    pub datanode: DatanodeId,
    /// In the order of their directories.
    pub volumes: Vec<Volume<D>>,
    /// Those that cannot be used.
    pub failed: Vec<FailedVolume>,
}

/// A volume that cannot be used, and is left out until the next start.
#[derive(Debug)]
pub struct FailedVolume {
    /// Which; where that cannot be read, an id that stands for its directory.
    pub storage: StorageId,
    /// Why.
    pub error: StartError,
}

/// Makes empty volumes of those directories among `roots` that hold none, and says of which: of all at a datanode's very
/// first start, which gives it its id; of the new ones when it gets more disks. Blocks.
///
/// # Errors
/// When a directory holds something else, a volume that is damaged, or one of another cluster or datanode; when another
/// process uses it; when a disk fails. What is there is not touched then.
pub fn format<D: Disk>(
    disk: &D,
    roots: &[PathBuf],
    cluster: ClusterId,
    mut random: impl FnMut() -> u128,
) -> Result<Vec<PathBuf>, StartError> {
    let mut locked = Vec::new();
    for root in roots {
        disk.create_directory(root).map_err(|error| StartError::Disk { path: root.clone(), error })?;
        let lock = lock(disk, root)?;
        let version = match read_version(disk, root) {
            Err(StartError::NoVolume { .. }) => None,
            version => Some(version?),
        };
        locked.push((root, lock, version));
    }
    let datanode = check_versions(&locked, cluster)?.unwrap_or_else(|| DatanodeId(random()));
    let mut made = Vec::new();
    for (root, _, _) in locked.iter().filter(|(_, _, version)| version.is_none()) {
        let version = VolumeVersion { cluster, datanode, storage: StorageId(random()) };
        let written = disk.write_atomically(&root.join(VERSION), &version.encode());
        written.map_err(|error| StartError::Disk { path: root.to_path_buf(), error })?;
        made.push(root.to_path_buf());
    }
    Ok(made)
}

/// Locks and opens the volumes in the directories `roots`. Blocks. Those that cannot be used are left out as long as one
/// can: its disk fails or is not mounted, its `VERSION` file is damaged. No directory is taken for a new volume here.
///
/// # Errors
/// When a volume belongs to another cluster or datanode, or is held by another process; or when none can be used.
pub fn open_volumes<D: Disk>(disk: &D, roots: &[PathBuf], cluster: ClusterId) -> Result<OpenVolumes<D>, StartError> {
    let (mut locked, mut unread) = (Vec::new(), Vec::new());
    for root in roots {
        match read_version(disk, root).and_then(|version| Ok((lock(disk, root)?, version))) {
            Ok((lock, version)) => locked.push((root, lock, Some(version))),
            Err(error) if may_be_left_out(&error) => unread.push((root, error)),
            Err(error) => return Err(error),
        }
    }
    let Some(datanode) = check_versions(&locked, cluster)? else {
        let first = unread.into_iter().next().map(|(_, error)| error);
        return Err(
            first.unwrap_or_else(|| StartError::Config("volumes: expected at least one, found none".to_owned()))
        );
    };
    let failed = unread.into_iter().map(|(root, error)| FailedVolume { storage: stand_in(datanode, root), error });
    let (mut volumes, mut failed) = (Vec::new(), failed.collect::<Vec<_>>());
    for (root, lock, version) in locked {
        let Some(version) = version else { continue };
        match Volume::open(disk.clone(), root, lock, version) {
            Ok(volume) => volumes.push(volume),
            Err(error) => {
                let error = StartError::Disk { path: root.clone(), error };
                if !may_be_left_out(&error) {
                    return Err(error);
                }
                failed.push(FailedVolume { storage: version.storage, error });
            }
        }
    }
    match failed.pop() {
        Some(last) if volumes.is_empty() => Err(last.error),
        last => {
            failed.extend(last);
            Ok(OpenVolumes { datanode, volumes, failed })
        }
    }
}

/// Whether a datanode may go on without the volume: not where it is not clear whose it is, or where a moment later it
/// would be there.
fn may_be_left_out(error: &StartError) -> bool {
    match error {
        StartError::Disk { error, .. } => !matches!(error.kind, DiskErrorKind::Locked | DiskErrorKind::Exhausted(_)),
        StartError::NoVolume { .. } | StartError::NotEmpty { .. } | StartError::Version { .. } => true,
        _ => false,
    }
}

/// The id by which the namenode hears of a volume whose own cannot be read: the same at each start.
fn stand_in(datanode: DatanodeId, root: &Path) -> StorageId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&datanode.0.to_le_bytes()).update(root.as_os_str().as_encoded_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    StorageId(u128::from_le_bytes(id))
}

fn lock<D: Disk>(disk: &D, root: &Path) -> Result<D::Lock, StartError> {
    disk.lock(root).map_err(|error| StartError::Disk { path: root.to_owned(), error })
}

/// Whose volume is in a directory.
fn read_version<D: Disk>(disk: &D, root: &Path) -> Result<VolumeVersion, StartError> {
    let failed = |error| StartError::Disk { path: root.to_owned(), error };
    match disk.read(&root.join(VERSION), VERSION_LIMIT_BYTES) {
        Ok(bytes) => {
            VolumeVersion::decode(&bytes).map_err(|error| StartError::Version { path: root.to_owned(), error })
        }
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => {
            // What an interrupted formatting, or a file system, puts into a directory does not make it somebody's.
            let nothing = ["in_use.lock", "VERSION.new", "lost+found"];
            let found = match disk.list(root) {
                Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => "no such directory",
                entries => match entries.map_err(failed)?.into_iter().find(|entry| !nothing.contains(&&*entry.name)) {
                    Some(entry) => return Err(StartError::NotEmpty { path: root.to_owned(), found: entry.name }),
                    None => "an empty directory",
                },
            };
            Err(StartError::NoVolume { path: root.to_owned(), found })
        }
        Err(error) => Err(failed(error)),
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
