//! Which clusters run on this machine: one small file each, in this user's state directory, and a lock in the cluster's
//! own directory that shows whether it still holds.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use situ_runtime::disk::LOCK_NAME;
use tokio::sync::oneshot;

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

/// For how long the roles of an earlier start may take to end: a role ends within 15 s of its supervisor.
const FORMER_LIMIT: Duration = Duration::from_secs(20);

/// Waits until no role of an earlier start holds its directory any more: when `situ up` is killed, its roles end by
/// themselves, but a namenode with much to write down takes a moment.
///
/// # Errors
/// When one does not end, or a lock cannot be opened.
pub async fn former_roles_ended(layout: &Layout) -> CliResult {
    let mut held = Vec::new();
    for path in role_locks(layout.root()) {
        let lock = File::open(&path).local("cannot open", &path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            held.push((path, lock));
        }
    }
    let Some((first, _)) = held.first() else { return Ok(()) };
    let first = first.display().to_string();
    crate::show::note(format!("waiting up to {FORMER_LIMIT:?} for the processes of an earlier start to end"));
    let (ended, all_ended) = oneshot::channel();
    // A thread of its own: a wait for a lock cannot be given up, and this process must not wait for it to end.
    std::thread::spawn(move || {
        for (_, lock) in held {
            // A lock that cannot be waited for is seen by the role that takes it.
            let _ = flock(&lock, FlockOperation::LockExclusive);
        }
        // Nobody listens: the wait was given up.
        let _ = ended.send(());
    });
    match tokio::time::timeout(FORMER_LIMIT, all_ended).await {
        Ok(_) => Ok(()),
        Err(_) => Err(CliError::failed(format!(
            "{first}: a process of an earlier start has still not ended after {FORMER_LIMIT:?}: end it and try again"
        ))),
    }
}

/// The locks of all roles below a cluster's directory: `namenode/`, `scheduler/`, `node-1/volume-1/`, ...
fn role_locks(root: &Path) -> Vec<PathBuf> {
    let children = |directory: &Path| -> Vec<PathBuf> {
        // What cannot be listed holds no role that could start either: that role names the reason.
        fs::read_dir(directory).map_or_else(|_| Vec::new(), |all| all.flatten().map(|entry| entry.path()).collect())
    };
    let roles = children(root);
    let nested = roles.iter().flat_map(|role| children(role)).collect::<Vec<_>>();
    roles.iter().chain(&nested).map(|directory| directory.join(LOCK_NAME)).filter(|lock| lock.is_file()).collect()
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
pub fn is_running(root: &Path) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_start_waits_for_the_roles_of_the_start_before() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path()).unwrap();
        former_roles_ended(&layout).await.unwrap();
        let volume = root.path().join("node-1/volume-1");
        fs::create_dir_all(&volume).unwrap();
        let path = volume.join(LOCK_NAME);
        let lock = File::create(&path).unwrap();
        assert_eq!(role_locks(root.path()), [path]);
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut waiting = std::pin::pin!(former_roles_ended(&layout));
        let first_poll =
            std::future::poll_fn(|context| std::task::Poll::Ready(waiting.as_mut().poll(context).is_pending()));
        assert!(first_poll.await, "a role holds its directory");
        drop(lock);
        waiting.await.unwrap();
    }
}
