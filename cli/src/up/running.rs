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
    _lock: Lock,
}

/// A lock that ends with this value, also when a process that is just being started still has its open file.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    /// None while others hold it.
    fn try_take(file: File, operation: FlockOperation) -> Result<Self, File> {
        match flock(&file, operation) {
            Ok(()) => Ok(Self(file)),
            Err(_) => Err(file),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file releases it too, if no process has inherited it.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// For how long those who look whether a cluster runs may keep it from being started.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

impl Running {
    /// Takes a cluster's directory for this process and enters it into the list.
    ///
    /// # Errors
    /// When another process has it, or the files cannot be written.
    pub async fn enter(layout: &Layout) -> CliResult<Self> {
        let path = layout.lock();
        let open = || File::options().create(true).append(true).open(&path).local("cannot write", &path);
        let runs = || {
            CliError::failed(format!(
                "{}: this cluster is running already: stop that `situ up` first, or name another directory",
                layout.root().display()
            ))
        };
        let lock = match Lock::try_take(open()?, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            // Somebody who only looks has it for a moment, shared; who runs the cluster has it alone.
            Err(file) => match Lock::try_take(file, FlockOperation::NonBlockingLockShared) {
                Err(_) => return Err(runs()),
                Ok(shared) => {
                    drop(shared);
                    wait_for(vec![open()?], LOOK_LIMIT).await.and_then(|mut locks| locks.pop()).ok_or_else(runs)?
                }
            },
        };
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
        let file = File::open(&path).local("cannot open", &path)?;
        if let Err(file) = Lock::try_take(file, FlockOperation::NonBlockingLockExclusive) {
            held.push((path, file));
        }
    }
    let Some((first, _)) = held.first() else { return Ok(()) };
    let first = first.display().to_string();
    crate::show::note(format!("waiting up to {FORMER_LIMIT:?} for the processes of an earlier start to end"));
    let files = held.into_iter().map(|(_, file)| file).collect();
    match wait_for(files, FORMER_LIMIT).await {
        Some(_) => Ok(()),
        None => Err(CliError::failed(format!(
            "{first}: a process of an earlier start has still not ended after {FORMER_LIMIT:?}: end it and try again"
        ))),
    }
}

/// Waits for so long until nobody else holds these locks; a lock that cannot be waited for is left out.
async fn wait_for(files: Vec<File>, limit: Duration) -> Option<Vec<Lock>> {
    let (taken, all_taken) = oneshot::channel();
    // A thread of its own: a wait for a lock cannot be given up, and this process must not wait for it to end.
    std::thread::spawn(move || {
        let locks = files.into_iter().filter_map(|file| Lock::try_take(file, FlockOperation::LockExclusive).ok());
        // Nobody listens when the wait was given up.
        let _ = taken.send(locks.collect());
    });
    tokio::time::timeout(limit, all_taken).await.ok()?.ok()
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
    Lock::try_take(lock, FlockOperation::NonBlockingLockShared).is_err()
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

    #[tokio::test]
    async fn a_lock_ends_with_its_value_though_a_new_process_has_inherited_its_file() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(LOCK_NAME);
        let take =
            |operation| Lock::try_take(File::options().create(true).append(true).open(&path).unwrap(), operation);
        let lock = take(FlockOperation::NonBlockingLockExclusive).unwrap();
        // As between fork and exec.
        let inherited = lock.0.try_clone().unwrap();
        assert!(take(FlockOperation::NonBlockingLockShared).is_err());
        drop(lock);
        take(FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(inherited);
    }

    #[tokio::test]
    async fn who_only_looks_keeps_no_cluster_from_being_started() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(root.path()).unwrap();
        layout.create().unwrap();
        fs::write(layout.lock(), "").unwrap();
        let looking =
            Lock::try_take(File::open(layout.lock()).unwrap(), FlockOperation::NonBlockingLockShared).unwrap();
        let mut entering = std::pin::pin!(Running::enter(&layout));
        let first_poll =
            std::future::poll_fn(|context| std::task::Poll::Ready(entering.as_mut().poll(context).is_pending()));
        assert!(first_poll.await, "somebody looks");
        drop(looking);
        let running = entering.await.unwrap();
        assert!(Running::enter(&layout).await.unwrap_err().message.contains("running already"));
        drop(running);
    }
}
