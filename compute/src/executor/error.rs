use std::path::PathBuf;

use situ_runtime::disk::DiskError;
use situ_wire::ids::ClusterId;

/// Why an executor does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its configuration does not go together.
    #[error("executor: {field} = {found}: expected {expected}")]
    Config {
        /// Which value.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Its directory is nobody's.
    #[error(
        "executor: {} is not an executor's directory: expected its VERSION file, and there is none: if its disk is not \
         mounted, mount it; if it is new, or lost for good, `situ executor --config FILE --format` makes an empty one there, \
         once (what tasks had left in a lost one is computed again)",
        directory.display()
    )]
    NotFormatted {
        /// Which.
        directory: PathBuf,
    },
    /// Its directory is not that of an executor of this cluster.
    #[error(
        "executor: {} is not the version file of an executor of cluster {cluster}: name the directory of its own cluster, \
         or a new one and start once with `--format`",
        path.display()
    )]
    WrongVersion {
        /// The version file.
        path: PathBuf,
        /// Whose it should be.
        cluster: ClusterId,
    },
    /// Its directory cannot be used.
    #[error("executor: {0}")]
    Disk(#[from] DiskError),
    /// The path of its own executable is not known, so built-in programs could not be started.
    #[error("executor: the path of this program is not known: {reason}")]
    NoProgram {
        /// What the operating system says.
        reason: String,
    },
}
