//! The namenode's directory: who it belongs to, and where things are in it.
//!
//! ```text
//! DIRECTORY/VERSION       what this is, its layout, its cluster (the text below)
//! DIRECTORY/in_use.lock   held by the namenode that runs here
//! DIRECTORY/journal/      the edit log, the truth
//! DIRECTORY/images/N/     images of the namespace, rebuildable from the journal
//! ```
//!
//! ```text
//! situ-namenode
//! layout 2
//! cluster 0000000000000000000000000000002a
//! ```

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::ids::ClusterId;

use crate::error::{DirectoryError, FormatError};

/// The first line of the version file.
const MAGIC: &str = "situ-namenode";
/// The longest version file that is read.
const VERSION_LEN_MAX_BYTES: u64 = 4096;

/// A layout of the directory. Its values are the changelog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LayoutVersion(pub u32);

impl LayoutVersion {
    /// The first: a hash-chained journal and numbered images.
    pub const V1: Self = Self(1);
    /// Ids and generation stamps belong to epochs.
    pub const V2: Self = Self(2);
    /// What this build writes, and all that it reads.
    pub const CURRENT: Self = Self::V2;
}

/// Where the version file is.
fn version_path(directory: &Path) -> PathBuf {
    directory.join("VERSION")
}

/// Where the journal is.
pub(super) fn journal_path(directory: &Path) -> PathBuf {
    directory.join("journal")
}

/// Where the images are.
pub(super) fn images_path(directory: &Path) -> PathBuf {
    directory.join("images")
}

/// Makes `directory` the home of cluster `cluster`'s namespace, which is empty. Blocks.
///
/// # Errors
/// When it is formatted already, holds something else, or its disk fails. Nothing that is there is touched then.
pub fn format<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<(), FormatError> {
    disk.create_directory(directory)?;
    let _lock = disk.lock(directory)?;
    let version = version_path(directory);
    if disk.exists(&version)? {
        return Err(FormatError::AlreadyFormatted { directory: directory.to_owned() });
    }
    // What a format that was interrupted may have left behind; everything else is somebody's.
    let ours = ["in_use.lock", "journal", "images", "VERSION.new", "lost+found"];
    let entries = disk.list(directory)?;
    if let Some(stranger) = entries.iter().find(|entry| !ours.contains(&entry.name.as_str())) {
        return Err(FormatError::NotEmpty { directory: directory.to_owned(), found: stranger.name.clone() });
    }
    for child in [journal_path(directory), images_path(directory)] {
        if disk.exists(&child)? && !disk.list(&child)?.is_empty() {
            return Err(FormatError::NotEmpty { directory: directory.to_owned(), found: child.display().to_string() });
        }
        disk.create_directory(&child)?;
    }
    // The version file comes last: with it the directory counts as formatted.
    disk.write_atomically(&version, version_text(cluster).as_bytes())?;
    Ok(())
}

/// The cluster that `directory` was formatted for; none if it was not formatted. Blocks.
///
/// # Errors
/// When it is of another layout, its version file is damaged, or its disk fails.
pub fn formatted_cluster<D: Disk>(disk: &D, directory: &Path) -> Result<Option<ClusterId>, DirectoryError> {
    let path = version_path(directory);
    match disk.read(&path, VERSION_LEN_MAX_BYTES) {
        Ok(bytes) => parse_version(&path, &bytes).map(Some),
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Checks that `directory` is formatted for `cluster`. Blocks.
pub(super) fn check<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<(), DirectoryError> {
    match formatted_cluster(disk, directory)? {
        None => Err(DirectoryError::NotFormatted { directory: directory.to_owned() }),
        Some(found) if found != cluster => {
            Err(DirectoryError::WrongCluster { directory: directory.to_owned(), found, expected: cluster })
        }
        // Made before the version file: one that is gone is not empty, whatever was in it.
        Some(_) if !disk.exists(&journal_path(directory))? => {
            Err(DirectoryError::NoJournal { journal: journal_path(directory) })
        }
        Some(_) => Ok(()),
    }
}

fn version_text(cluster: ClusterId) -> String {
    format!("{MAGIC}\nlayout {}\ncluster {cluster}\n", LayoutVersion::CURRENT.0)
}

fn parse_version(path: &Path, bytes: &[u8]) -> Result<ClusterId, DirectoryError> {
    let damaged = |reason: &str| DirectoryError::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(MAGIC) {
        return Err(damaged("it does not begin with \"situ-namenode\""));
    }
    let layout = lines.next().and_then(|line| line.strip_prefix("layout ")).and_then(|layout| layout.parse().ok());
    match layout {
        None => return Err(damaged("its second line is not \"layout NUMBER\"")),
        Some(found) if found != LayoutVersion::CURRENT.0 => {
            return Err(DirectoryError::WrongLayout { path: path.to_owned(), found: LayoutVersion(found) });
        }
        Some(_) => {}
    }
    let cluster = lines.next().and_then(|line| line.strip_prefix("cluster ")).and_then(|id| id.parse().ok());
    match cluster {
        None => Err(damaged("its third line is not \"cluster ID\"")),
        // An id that was cut short is an id too: only the very text counts.
        Some(cluster) if version_text(cluster) != text => Err(damaged("it is not three whole lines")),
        Some(cluster) => Ok(cluster),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout is pinned: a change of these bytes needs a new [`LayoutVersion`].
    const GOLDEN: &str = "situ-namenode\nlayout 2\ncluster 0000000000000000000000000000002a\n";

    #[test]
    fn the_version_file_is_as_it_was_and_is_read_back() {
        assert_eq!(version_text(ClusterId(42)), GOLDEN);
        let path = Path::new("/nn/VERSION");
        assert_eq!(parse_version(path, GOLDEN.as_bytes()).unwrap(), ClusterId(42));
    }

    #[test]
    fn another_layout_and_damage_are_told_apart() {
        let path = Path::new("/nn/VERSION");
        let newer = GOLDEN.replace("layout 2", "layout 3");
        let error = parse_version(path, newer.as_bytes()).unwrap_err();
        assert!(matches!(error, DirectoryError::WrongLayout { found: LayoutVersion(3), .. }));
        assert!(error.to_string().contains("/nn/VERSION") && error.to_string().contains("layout 3"), "{error}");
        let broken = [
            b"\xff".to_vec(),
            b"".to_vec(),
            GOLDEN[1..].into(),
            GOLDEN[..20].into(),
            GOLDEN[..30].into(),
            GOLDEN[..40].into(),
            [GOLDEN.as_bytes(), b"x"].concat(),
        ];
        for bytes in broken {
            assert!(matches!(parse_version(path, &bytes), Err(DirectoryError::Damaged { .. })), "{bytes:?}");
        }
    }
}
