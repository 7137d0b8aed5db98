//! Executables that users have stored: fetched once, checked by their hash, kept for later jobs.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::{Hash, Hasher};
use situ_client::{Client, ClientError};
use situ_runtime::Runtime;
use situ_runtime::disk::{Disk, DiskError, File, OpenMode};
use situ_wire::error::Retry;
use situ_wire::messages::scheduler::Program;
use situ_wire::path::DfsPath;
use tokio::sync::Mutex;

/// How much of an executable is read at a time.
const PIECE_LEN_BYTES: usize = 1 << 20;

/// Where a program's executable is, or will be, and what comes before its own arguments.
#[derive(Debug)]
pub(super) struct Executable {
    pub(super) path: PathBuf,
    pub(super) leading: Vec<String>,
    whole: Whole,
    /// Of the executor's own executable, what is known of its bytes.
    own: Option<Arc<Mutex<Option<Build>>>>,
}

/// The hash of an executable, and when and what the file was that has it: a release may be installed over it.
#[derive(Debug)]
struct Build {
    file: (u64, u64, i64, i64),
    hash: [u8; 32],
}

/// Whether an executable was found to be whole, or was fetched, in this life of the executor. Who finds out, or fetches,
/// holds it meanwhile.
type Whole = Arc<Mutex<bool>>;

/// The executables of an executor: its own, which holds the built-in programs, and those that it has fetched.
#[derive(Debug)]
pub(super) struct Programs {
    own: PathBuf,
    build: Arc<Mutex<Option<Build>>>,
    directory: PathBuf,
    /// By their hashes, the least recently used first.
    fetched: Vec<([u8; 32], Whole)>,
}

impl Programs {
    /// Takes over what an earlier run has fetched, and deletes what it has not fetched to the end.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn load<D: Disk>(disk: &D, own: PathBuf, directory: PathBuf) -> Result<Self, DiskError> {
        let mut fetched = Vec::new();
        for entry in disk.list(&directory)? {
            match Hash::from_hex(&entry.name) {
                Ok(hash) => fetched.push((*hash.as_bytes(), Whole::default())),
                // No directory is ever made here: it is somebody else's.
                Err(_) if entry.is_directory => {}
                Err(_) => disk.remove_file(&directory.join(entry.name))?,
            }
        }
        Ok(Self { own, build: Arc::default(), directory, fetched })
    }

    /// The executable of a program, which is used now.
    pub(super) fn executable(&mut self, program: &Program) -> Executable {
        match program {
            Program::BuiltIn { name } => Executable {
                path: self.own.clone(),
                leading: vec!["program".to_owned(), name.clone()],
                whole: Whole::default(),
                own: Some(Arc::clone(&self.build)),
            },
            Program::Stored { hash, .. } => {
                let known = self.fetched.iter().position(|(fetched, _)| fetched == hash);
                let whole = known.map(|at| self.fetched.remove(at).1).unwrap_or_default();
                self.fetched.push((*hash, Arc::clone(&whole)));
                Executable { path: self.path(hash), leading: Vec::new(), whole, own: None }
            }
        }
    }

    /// Gives up what is more than `kept`, the least recently used first, but nothing that is in use. Says where it is.
    pub(super) fn take_surplus(&mut self, kept: usize, in_use: &BTreeSet<[u8; 32]>) -> Vec<PathBuf> {
        let mut surplus = self.fetched.len().saturating_sub(kept);
        let goes = |(hash, _): &mut ([u8; 32], Whole)| {
            let goes = surplus > 0 && !in_use.contains(hash);
            surplus -= usize::from(goes);
            goes
        };
        let taken: Vec<_> = self.fetched.extract_if(.., goes).collect();
        taken.iter().map(|(hash, _)| self.path(hash)).collect()
    }

    fn path(&self, hash: &[u8; 32]) -> PathBuf {
        self.directory.join(Hash::from_bytes(*hash).to_hex().as_str())
    }
}

impl Executable {
    /// The hash of the executor's own executable, for the programs in it; none for one whose job names the hash.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn build<R: Runtime>(&self, runtime: &R) -> Result<Option<[u8; 32]>, String> {
        let Some(own) = &self.own else { return Ok(None) };
        let mut known = own.lock().await;
        let failed = |error: String| format!("{} cannot be read: {error}", self.path.display());
        let metadata = std::fs::metadata(&self.path).map_err(|error| failed(error.to_string()))?;
        let file = (metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        if let Some(build) = known.as_ref().filter(|build| build.file == file) {
            return Ok(Some(build.hash));
        }
        let (disk, path) = (runtime.disk().clone(), self.path.clone());
        let hash = runtime.blocking(move || hash_of(&disk, &path)).await.map_err(|error| failed(error.to_string()))?;
        let hash = *hash.as_bytes();
        *known = Some(Build { file, hash });
        Ok(Some(hash))
    }
}

/// Why a program's executable is not in its place.
#[derive(Debug)]
pub(super) struct NotReady {
    pub(super) reason: String,
    /// Whether it is because the file system is away.
    pub(super) away: bool,
}

impl From<ClientError> for NotReady {
    fn from(error: ClientError) -> Self {
        Self { reason: error.to_string(), away: error.retry() == Retry::Later }
    }
}

impl From<DiskError> for NotReady {
    fn from(error: DiskError) -> Self {
        Self { reason: error.to_string(), away: false }
    }
}

/// Has a program's executable in its place: one that is stored is fetched unless it is there and whole.
///
/// # Errors
/// Says why it cannot be run; trying again may help.
pub(super) async fn make_ready<R: Runtime>(
    client: &Client<R>,
    program: &Program,
    executable: &Executable,
) -> Result<(), NotReady> {
    let Program::Stored { name, path, hash } = program else { return Ok(()) };
    let hash = Hash::from_bytes(*hash);
    let mut whole = executable.whole.lock().await;
    let (disk, target, known) = (client.runtime().disk().clone(), executable.path.clone(), *whole);
    let find = move || Ok(disk.exists(&target)? && (known || hash_of(&disk, &target)? == hash));
    let found = client.runtime().blocking(find).await.unwrap_or_else(|error: DiskError| {
        tracing::warn!(program = %name, %error, "a fetched program cannot be read, and is fetched again");
        false
    });
    if !found {
        let fetched = fetch(client, path, hash, &executable.path).await;
        fetched.map_err(|NotReady { reason, away }| {
            let reason = format!("the program {name} cannot be fetched from {path}: {reason}");
            NotReady { reason, away }
        })?;
    }
    *whole = true;
    Ok(())
}

fn hash_of<D: Disk>(disk: &D, path: &Path) -> Result<Hash, DiskError> {
    let file = disk.open(path, OpenMode::Read)?;
    let (mut hasher, mut offset) = (Hasher::new(), 0);
    loop {
        let piece = file.read_at(offset, PIECE_LEN_BYTES)?;
        if piece.is_empty() {
            return Ok(hasher.finalize());
        }
        hasher.update(&piece);
        offset += piece.len() as u64;
    }
}

async fn fetch<R: Runtime>(client: &Client<R>, path: &DfsPath, expected: Hash, target: &Path) -> Result<(), NotReady> {
    let reader = client.open(path).await?;
    // A name of its own: what was given up before may still be on its way into place.
    let name = target.with_extension(format!("{:016x}", client.runtime().random_u64()));
    let aside = Aside::create(client.runtime().disk(), name)?;
    // Before its bytes: the sync of these covers it.
    let permissions = std::fs::Permissions::from_mode(0o700);
    let made_executable = std::fs::set_permissions(&aside.path, permissions);
    made_executable.map_err(|error| NotReady { reason: error.to_string(), away: false })?;
    let (mut hasher, mut offset) = (Hasher::new(), 0);
    let mut stream = reader.stream(0..reader.len_bytes());
    while let Some(piece) = stream.next().await? {
        hasher.update(&piece);
        aside.file.write_at(offset, &piece)?;
        offset += piece.len() as u64;
    }
    if hasher.finalize() != expected {
        let reason = format!("its bytes hash to {}, expected {expected}", hasher.finalize());
        return Err(NotReady { reason, away: false });
    }
    let target = target.to_owned();
    Ok(client.runtime().blocking(move || aside.put_in_place(&target)).await?)
}

/// A file that is not whole yet. It is deleted when it is dropped before it is in place.
struct Aside<D: Disk> {
    disk: D,
    path: PathBuf,
    file: D::File,
}

impl<D: Disk> Aside<D> {
    /// Makes it, and its directory if somebody has removed that.
    fn create(disk: &D, path: PathBuf) -> Result<Self, DiskError> {
        if let Some(directory) = path.parent() {
            disk.create_directory(directory)?;
        }
        let file = disk.open(&path, OpenMode::CreateNew)?;
        Ok(Self { disk: disk.clone(), path, file })
    }

    /// Puts it where it belongs, where it is from then on, whole, also after a power cut.
    fn put_in_place(self, target: &Path) -> Result<(), DiskError> {
        self.file.sync()?;
        self.disk.rename(&self.path, target)?;
        self.disk.sync_directory(target.parent().unwrap_or(Path::new("/")))
    }
}

impl<D: Disk> Drop for Aside<D> {
    fn drop(&mut self) {
        // Once it is in place there is nothing of this name. What stays goes when the executor starts again.
        let _ = self.disk.remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use situ_client::ClientConfig;
    use situ_runtime::disk::memory::MemoryDisk;
    use situ_runtime::real::RealRuntime;
    use situ_runtime::rpc::Identity;
    use situ_wire::hello::Role;
    use situ_wire::ids::ClusterId;

    use super::*;

    const DIRECTORY: &str = "/programs";

    fn program(bytes: &[u8]) -> Program {
        let path = DfsPath::parse("/program").unwrap();
        Program::Stored { name: "program".to_owned(), path, hash: *blake3::hash(bytes).as_bytes() }
    }

    fn name(bytes: &[u8]) -> String {
        blake3::hash(bytes).to_hex().to_string()
    }

    #[test]
    fn what_was_not_fetched_to_its_end_is_deleted_at_the_next_start() {
        let disk = MemoryDisk::default();
        let directory = Path::new(DIRECTORY);
        disk.create_directory(directory).unwrap();
        for name in [name(b"whole"), format!("{}.0123456789abcdef", name(b"half"))] {
            disk.open(&directory.join(name), OpenMode::CreateNew).unwrap();
        }
        Programs::load(&disk, PathBuf::new(), directory.to_owned()).unwrap();
        let left: Vec<String> = disk.list(directory).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(left, [name(b"whole")]);
    }

    #[test]
    fn the_least_recently_used_go_first_and_none_that_a_job_uses() {
        let disk = MemoryDisk::default();
        disk.create_directory(Path::new(DIRECTORY)).unwrap();
        let mut programs = Programs::load(&disk, "/own".into(), DIRECTORY.into()).unwrap();
        for bytes in [b"a", b"b", b"c", b"d", b"a"] {
            programs.executable(&program(bytes));
        }
        programs.executable(&Program::BuiltIn { name: "pi".to_owned() });
        let at = |bytes: &[u8]| Path::new(DIRECTORY).join(name(bytes));
        let in_use = BTreeSet::from([*blake3::hash(b"b").as_bytes()]);
        assert_eq!(programs.take_surplus(4, &in_use), [""; 0].map(PathBuf::from));
        assert_eq!(programs.take_surplus(2, &in_use), [at(b"c"), at(b"d")]);
        assert_eq!(programs.take_surplus(0, &in_use), [at(b"a")]);
        assert_eq!(programs.take_surplus(0, &BTreeSet::new()), [at(b"b")]);
    }

    #[test]
    fn what_is_in_place_is_whole_after_a_power_cut_and_what_is_given_up_leaves_nothing() {
        for seed in 0..20 {
            let disk = MemoryDisk::default();
            let directory = Path::new(DIRECTORY);
            disk.create_directory(directory).unwrap();
            let aside = |name| Aside::create(&disk, directory.join(name)).unwrap();
            let (kept, given_up) = (aside("kept"), aside("given up"));
            for aside in [&kept, &given_up] {
                aside.file.write_at(0, b"a program").unwrap();
            }
            kept.put_in_place(&directory.join("target")).unwrap();
            drop(given_up);
            assert_eq!(disk.list(directory).unwrap().len(), 1);
            disk.crash(seed);
            assert_eq!(hash_of(&disk, &directory.join("target")).unwrap(), blake3::hash(b"a program"));
        }
    }

    #[test]
    fn the_directory_is_made_again_when_somebody_has_removed_it() {
        let disk = MemoryDisk::default();
        let directory = Path::new(DIRECTORY);
        disk.create_directory(directory).unwrap();
        disk.remove_directory(directory).unwrap();
        let aside = Aside::create(&disk, directory.join("aside")).unwrap();
        aside.put_in_place(&directory.join("target")).unwrap();
        disk.crash(0);
        assert!(disk.exists(&directory.join("target")).unwrap(), "it is there after a power cut, too");
    }

    #[tokio::test]
    async fn what_an_earlier_run_has_left_is_used_only_if_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = RealRuntime::new(None).unwrap();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let config = ClientConfig { patience_ms: 1, ..ClientConfig::new(ClusterId(1), nowhere) };
        let identity = Identity { cluster: ClusterId(1), role: Role::Executor, name: "node-1".to_owned() };
        let client = Client::new(runtime.clone(), config, identity);
        for bytes in [&b"whole"[..], b"torn"] {
            std::fs::write(directory.path().join(name(bytes)), "whole").unwrap();
        }
        let mut programs = Programs::load(runtime.disk(), PathBuf::new(), directory.path().to_owned()).unwrap();
        let mut ready = async |bytes: &[u8]| {
            let executable = programs.executable(&program(bytes));
            make_ready(&client, &program(bytes), &executable).await
        };
        ready(b"whole").await.unwrap();
        let NotReady { reason, away } = ready(b"torn").await.unwrap_err();
        assert!(reason.starts_with("the program program cannot be fetched from /program: "), "{reason}");
        assert!(away, "nobody answers");
    }
}
