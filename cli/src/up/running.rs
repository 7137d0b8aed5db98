//! Which clusters run on this machine: one small file each, in this user's state directory, and a lock in the cluster's
//! own directory that shows whether it still holds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Layout;
use crate::error::{CliError, CliResult, LocalContext};

/// A cluster's place in the list, and its lock: both go when this is dropped or the process ends.
#[derive(Debug)]
pub struct Running {
    entry: PathBuf,
    _lock: File,
}

impl Running {
    /// Takes a cluster's directory for this process and enters it into the list.
    ///
    /// # Errors
    /// When another process has it, or the files cannot be written.
    pub fn enter(layout: &Layout) -> CliResult<Self> {
        let path = layout.lock();
        let lock = File::options().create(true).append(true).open(&path).local("cannot write", &path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(CliError::failed(format!(
                "{}: this cluster is running already: stop that `situ up` first, or name another directory",
                layout.root().display()
            )));
        }
        let state = state_directory()?;
        fs::create_dir_all(&state).local("cannot make", &state)?;
        let name = blake3::hash(layout.root().as_os_str().as_encoded_bytes()).to_hex();
        let entry = state.join(&name[..16]);
        super::layout::write_atomically(&entry, layout.root().as_os_str().as_encoded_bytes())?;
        Ok(Self { entry, _lock: lock })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An entry that stays is told by its lock, which nobody holds.
        let _ = fs::remove_file(&self.entry);
    }
}

/// The directories of all clusters that run now.
///
/// # Errors
/// When the list cannot be read.
pub fn list() -> CliResult<Vec<PathBuf>> {
    let state = state_directory()?;
    let entries = match fs::read_dir(&state) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.local("cannot list", &state)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.local("cannot list", &state)?.path();
        // Another process may take its entry away at any moment.
        let Ok(text) = fs::read_to_string(&entry) else { continue };
        let root = PathBuf::from(text);
        if is_running(&root) {
            found.push(root);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether somebody holds the lock of the cluster in `root`.
fn is_running(root: &Path) -> bool {
    let Ok(layout) = Layout::new(root) else { return false };
    let Ok(lock) = File::open(layout.lock()) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

fn state_directory() -> CliResult<PathBuf> {
    if let Some(state) = std::env::var_os("XDG_STATE_HOME").filter(|state| !state.is_empty()) {
        return Ok(PathBuf::from(state).join("situ/running"));
    }
    match std::env::var_os("HOME").filter(|home| !home.is_empty()) {
        Some(home) => Ok(PathBuf::from(home).join(".local/state/situ/running")),
        None => Err(CliError::failed("neither XDG_STATE_HOME nor HOME is set: name the cluster with --cluster DIR")),
    }
}
