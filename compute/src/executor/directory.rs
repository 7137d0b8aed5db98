//! Whose an executor's directory is: its `VERSION` file says so. All else in it can be made anew; but one whose disk is
//! not mounted shall not begin on the disk below.
//!
//! ```text
//! situ-executor
//! layout 1
//! cluster 0000000000000000000000000000002a
//! ```

use std::path::{Path, PathBuf};

use situ_runtime::disk::{Disk, DiskError, DiskErrorKind};
use situ_wire::ids::ClusterId;

use super::StartError;

/// The longest version file that is read.
const VERSION_LEN_MAX_BYTES: u64 = 4096;

/// Makes `directory` the home of an executor of `cluster`; says whether it did, and not because it is one. Blocks.
///
/// # Errors
/// When it is that of another cluster or of something else, another process uses it, or its disk fails.
pub fn format<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<bool, StartError> {
    disk.create_directory(directory)?;
    let _lock = disk.lock(directory)?;
    match check(disk, directory, cluster) {
        Err(StartError::NotFormatted { .. }) => {}
        checked => return checked.map(|()| false),
    }
    disk.write_atomically(&version_path(directory), text(cluster).as_bytes())?;
    Ok(true)
}

/// Checks that the directory is that of an executor of this cluster. Blocks.
pub(super) fn check<D: Disk>(disk: &D, directory: &Path, cluster: ClusterId) -> Result<(), StartError> {
    let path = version_path(directory);
    match disk.read(&path, VERSION_LEN_MAX_BYTES) {
        Ok(bytes) if bytes == text(cluster).as_bytes() => Ok(()),
        Ok(_) => Err(StartError::WrongVersion { path, cluster }),
        Err(DiskError { kind: DiskErrorKind::NotFound, .. }) => {
            Err(StartError::NotFormatted { directory: directory.to_owned() })
        }
        Err(error) => Err(error.into()),
    }
}

fn version_path(directory: &Path) -> PathBuf {
    directory.join("VERSION")
}

fn text(cluster: ClusterId) -> String {
    format!("situ-executor\nlayout 1\ncluster {cluster}\n")
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;

    use super::*;

    #[test]
    fn a_directory_is_an_executor_s_only_once_it_was_made_one() {
        let (disk, directory) = (MemoryDisk::default(), Path::new("/executor"));
        for _ in 0..2 {
            let error = check(&disk, directory, ClusterId(42)).unwrap_err().to_string();
            assert!(error.contains("/executor is not an executor's directory"), "{error}");
            disk.create_directory(&directory.join("lost+found")).unwrap();
        }
        assert!(format(&disk, directory, ClusterId(42)).unwrap());
        assert!(!format(&disk, directory, ClusterId(42)).unwrap());
        check(&disk, directory, ClusterId(42)).unwrap();
        assert!(matches!(check(&disk, directory, ClusterId(43)), Err(StartError::WrongVersion { .. })));
        assert!(matches!(format(&disk, directory, ClusterId(43)), Err(StartError::WrongVersion { .. })));
        let golden = "situ-executor\nlayout 1\ncluster 0000000000000000000000000000002a\n";
        assert_eq!(disk.read(&version_path(directory), 1000).unwrap(), golden.as_bytes());
    }
}
