//! The scheduler's directory.
//!
//! ```text
//! DIRECTORY/VERSION       what this is, its layout, its cluster (the text below)
//! DIRECTORY/in_use.lock   held by the scheduler that runs here
//! DIRECTORY/jobs/         the journal of jobs
//! ```
//!
//! ```text
//! situ-scheduler
//! layout 2
//! cluster 0000000000000000000000000000002a
//! ```

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::ids::ClusterId;

use super::{DirectoryError, SchedulerError};

/// The first line of the version file.
const MAGIC: &str = "situ-scheduler";
/// The longest version file that is read.
const VERSION_LEN_MAX_BYTES: u64 = 4096;

/// A layout of the directory. Its values are the changelog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LayoutVersion(pub u32);

impl LayoutVersion {
    /// The first: a journal of [`JobRecord`](crate::core::JobRecord)s.
    pub const V1: Self = Self(1);
    /// Datasets, shuffles, stages and actions are counted within scopes.
    pub const V2: Self = Self(2);
    /// What this build writes, and all that it reads.
    pub const CURRENT: Self = Self::V2;
}

/// Where the journal is.
pub(super) fn journal_path(directory: &Path) -> PathBuf {
    directory.join("jobs")
}

/// Makes `directory` the home of a scheduler of `cluster` that knows no job; says whether it did, and not because it is
/// one. Blocks.
///
/// # Errors
/// When it holds something else or belongs to another cluster, another process uses it, or its disk fails.
pub fn format<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<bool, SchedulerError> {
    disk.create_directory(directory)?;
    let _lock = disk.lock(directory)?;
    match check(disk, directory, cluster) {
        Err(SchedulerError::Directory(DirectoryError::NotFormatted { .. })) => {}
        checked => return checked.map(|()| false),
    }
    // The version file is written first: what is here without one is not a scheduler's.
    let ours = ["in_use.lock", "VERSION.new", "lost+found"];
    if let Some(stranger) = disk.list(directory)?.into_iter().find(|entry| !ours.contains(&entry.name.as_str())) {
        let (directory, found) = (directory.to_owned(), stranger.name);
        return Err(DirectoryError::NotEmpty { directory, found }.into());
    }
    disk.write_atomically(&version_path(directory), text(cluster).as_bytes())?;
    Ok(true)
}

/// Takes the directory for this process and this cluster. Blocks.
pub(super) fn take<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<D::Lock, SchedulerError> {
    check(disk, directory, cluster)?;
    let lock = disk.lock(directory)?;
    disk.create_directory(&journal_path(directory))?;
    Ok(lock)
}

/// Checks that the directory is that of a scheduler of this cluster.
fn check<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<(), SchedulerError> {
    let path = version_path(directory);
    match disk.read(&path, VERSION_LEN_MAX_BYTES) {
        Ok(bytes) => match parse(&path, &bytes)? {
            found if found == cluster => Ok(()),
            found => {
                let directory = directory.to_owned();
                Err(DirectoryError::WrongCluster { directory, found, expected: cluster }.into())
            }
        },
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => {
            Err(DirectoryError::NotFormatted { directory: directory.to_owned() }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Where the version file is.
fn version_path(directory: &Path) -> PathBuf {
    directory.join("VERSION")
}

fn text(cluster: ClusterId) -> String {
    format!("{MAGIC}\nlayout {}\ncluster {cluster}\n", LayoutVersion::CURRENT.0)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ClusterId, DirectoryError> {
    let damaged = |reason| DirectoryError::Damaged { path: path.to_owned(), reason };
    let found = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = found.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("it does not begin with \"situ-scheduler\""));
    }
    let layout = lines.next().and_then(|line| line.strip_prefix("layout ")).and_then(|layout| layout.parse().ok());
    let layout = LayoutVersion(layout.ok_or_else(|| damaged("its second line is not \"layout NUMBER\""))?);
    if layout != LayoutVersion::CURRENT {
        return Err(DirectoryError::WrongLayout { path: path.to_owned(), found: layout });
    }
    let cluster = lines.next().and_then(|line| line.strip_prefix("cluster ")).and_then(|id| id.parse().ok());
    // An id that was cut short is an id too: only the very text counts.
    cluster.filter(|cluster| text(*cluster) == found).ok_or_else(|| damaged("its third line is not \"cluster ID\""))
}
