use situ_runtime::disk::DiskError;

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
