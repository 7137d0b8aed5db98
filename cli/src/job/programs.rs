//! The executables that users submit: stored once for all users, under the hash of their bytes and without what debuggers
//! alone need, and taken away when no job needs them.
//!
//! How old one is the namenode's clock says, where it matters: those of clients may be wrong.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use blake3::Hash;
use bytes::Bytes;
use situ_client::{ClientError, CreateOptions};
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::error::ErrorCode;
use situ_wire::ids::JobId;
use situ_wire::messages::namenode::{FileKind, FileStatus};
use situ_wire::messages::scheduler::{JobSummary, Program};
use situ_wire::path::DfsPath;
use situ_wire::time::WallTime;

use super::strip;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::Session;
use crate::show as screen;

/// Where they are kept.
const PROGRAMS: &str = "/.situ/programs";
/// The permission bits of that: everybody may store one, and take away only their own.
const SHARED_MODE: u16 = 0o1777;
/// How long a program stays there that no job needs.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// A program that was stored longer ago is stored once more when it is submitted: when it was stored says when it was last
/// used. Far less than [`KEPT`]: what was found to be there stays until its job is known.
const FRESH: Duration = Duration::from_hours(24);
const _: () = assert!(FRESH.as_secs() * 2 < KEPT.as_secs(), "a program that is used is never old enough to go");

/// An executable that is stored, and what it takes to store it again.
pub(super) struct Stored {
    /// What is submitted.
    pub(super) program: Program,
    path: DfsPath,
    bytes: Bytes,
    /// The local file.
    source: PathBuf,
}

/// Stores an executable under the hash of its bytes, unless it is there.
///
/// # Errors
/// When it is none, or cannot be read or stored.
pub(super) async fn store(session: &Session, path: &Path, json: bool) -> CliResult<Stored> {
    let mut bytes = std::fs::read(path).local("cannot read the program", path)?;
    if !bytes.starts_with(b"\x7fELF") {
        return Err(CliError::failed(format!(
            "{}: not an executable of this platform: expected an ELF file, as `cargo build --release` makes it",
            path.display()
        )));
    }
    // An executable that cannot be taken apart is stored as it is.
    let stripped = strip::without_debug_sections(&bytes);
    let before = bytes.len() as u64;
    if let Ok(Some(stripped)) = &stripped {
        bytes.clone_from(stripped);
    }
    let hash = blake3::hash(&bytes);
    let directory = DfsPath::parse(PROGRAMS).map_err(CliError::failed)?;
    let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned();
    let place = directory.join(&hash.to_hex()).map_err(CliError::failed)?;
    let program = Program::Stored { name, path: place.clone(), hash: *hash.as_bytes() };
    let stored = Stored { program, path: place, bytes: bytes.into(), source: path.to_owned() };
    if stored.is_fresh(session, &directory).await? {
        return Ok(stored);
    }
    session.client.mkdir(&directory, true, SHARED_MODE).await?;
    let len = stored.bytes.len() as u64;
    match stripped {
        _ if json => {}
        Ok(None) => {}
        Ok(Some(_)) => screen::note(format!(
            "stored without debug information: {} of {}",
            screen::human_size(len),
            screen::human_size(before)
        )),
        Err(reason) => screen::note(format!(
            "stored with its debug information, {}, because {reason}; `strip = \"debuginfo\"` in the profile of its \
             Cargo.toml leaves it out",
            screen::human_size(len)
        )),
    }
    stored.put(session).await?;
    Ok(stored)
}

impl Stored {
    /// Looks again once its job is known: until then a collector may have taken it for one that nobody needs.
    pub(super) async fn keep(&self, session: &Session, job: JobId) {
        if let Err(error) = self.look_again(session).await {
            screen::note(format!("{job}: its program may be gone, and is not stored again: {error}"));
        }
    }

    async fn look_again(&self, session: &Session) -> CliResult {
        if session.client.stat(&self.path).await?.is_none() {
            self.put(session).await?;
        }
        Ok(())
    }

    /// Whether it is there and need not be stored once more.
    async fn is_fresh(&self, session: &Session, directory: &DfsPath) -> CliResult<bool> {
        let Some(found) = session.client.stat(&self.path).await? else { return Ok(false) };
        // If this clock is wrong, what looks fresh may be old: it is looked at again when the job is known.
        let now = session.client.runtime().clock().wall();
        if now.since(found.modified) <= FRESH && found.modified.since(now) <= FRESH {
            return Ok(true);
        }
        let here = Here::ask(session, directory).await?;
        // What another user has stored cannot be stored again, and need not: whoever takes it away looks at the jobs first.
        Ok(here.now.since(found.modified) <= FRESH || found.owner != here.user)
    }

    async fn put(&self, session: &Session) -> CliResult {
        // Another client may store the same bytes at the same time: then either copy will do.
        let options = crate::fs::PutOptions { force: true, ..Default::default() };
        let len = self.bytes.len() as u64;
        let progress = screen::Progress::bytes("program", Some(len), true);
        let reader = Box::new(std::io::Cursor::new(self.bytes.clone()));
        let label = self.source.to_string_lossy();
        let put = crate::fs::put_reader(session, reader, &label, &self.path, &options, |more| progress.add(more)).await;
        let Err(error) = put else { return Ok(()) };
        // It may be another user's by now.
        let is_whole = |found: FileStatus| matches!(found.kind, FileKind::File { len_bytes, .. } if len_bytes == len);
        match error.ends || !session.client.stat(&self.path).await?.is_some_and(is_whole) {
            true => Err(error),
            false => Ok(()),
        }
    }
}

/// What the namenode knows of this client.
struct Here {
    /// Its time.
    now: WallTime,
    /// Who this is.
    user: String,
}

impl Here {
    /// Writes an empty file and looks at it. Should it stay, it looks like a program that was moved aside, and goes as one.
    async fn ask(session: &Session, directory: &DfsPath) -> CliResult<Self> {
        let random = session.client.runtime().random_u64();
        let path = directory.join(&aside_name(&blake3::hash(&[]).to_hex(), random)).map_err(CliError::failed)?;
        session.client.create(&path, CreateOptions::default()).await?.close().await?;
        let found = session.client.stat(&path).await?;
        session.client.delete(&path, false).await?;
        let found = found.ok_or_else(|| CliError::failed(format!("{path}: somebody has taken it away")))?;
        Ok(Self { now: found.modified, user: found.owner })
    }
}

/// Under which name a program is moved aside.
fn aside_name(hash: &str, random: u64) -> String {
    format!(".{hash}.{random:016x}")
}

/// Takes the programs away that no job needs. The one of the job that was just submitted is not old enough.
///
/// # Errors
/// When the namenode or the scheduler cannot say what there is.
pub(super) async fn collect(session: &Session) -> CliResult {
    let directory = DfsPath::parse(PROGRAMS).map_err(CliError::failed)?;
    let mut stored = session.client.list_all(&directory).await?;
    let now = session.client.runtime().clock().wall();
    for (aside, path) in lost(&stored, now) {
        unless_another_did(session.client.rename(&aside, &path, false).await)?;
    }
    stored.retain(|program| is_old(program, now));
    if stored.is_empty() {
        return Ok(());
    }
    // This clock may be wrong.
    let now = Here::ask(session, &directory).await?.now;
    stored.retain(|program| is_old(program, now));
    // Behind the list of programs: whoever has submitted one since then has found it old, and stored it once more.
    let jobs = session.client.scheduler().list().await?;
    for path in unused(&stored, &jobs) {
        unless_another_did(take_away(session, &path, now).await)?;
    }
    Ok(())
}

/// Whoever stored a program takes it away or puts it back, or has done so.
fn unless_another_did(done: Result<(), ClientError>) -> Result<(), ClientError> {
    match done {
        Err(error)
            if matches!(
                error.code(),
                Some(ErrorCode::PermissionDenied | ErrorCode::NotFound | ErrorCode::AlreadyExists)
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Programs that somebody has moved aside and, though they are not old, has not put back; and where they belong.
fn lost(stored: &[FileStatus], now: WallTime) -> Vec<(DfsPath, DfsPath)> {
    let nothing = blake3::hash(&[]).to_hex();
    let belongs = |aside: &FileStatus| {
        let hash = aside.path.name().strip_prefix('.')?.get(..2 * blake3::OUT_LEN)?;
        let is_program = Hash::from_hex(hash).is_ok() && hash != nothing.as_str();
        let path = aside.path.parent()?.join(hash).ok()?;
        let is_there = stored.iter().any(|program| program.path == path);
        (is_program && !is_there && !is_old(aside, now)).then(|| (aside.path.clone(), path))
    };
    stored.iter().filter_map(belongs).collect()
}

/// Whether a program, and nothing else that somebody has put there, was stored long ago.
fn is_old(program: &FileStatus, now: WallTime) -> bool {
    // What was moved aside has a dot before and something behind the hash.
    let name = program.path.name().trim_start_matches('.');
    let is_program = name.get(..2 * blake3::OUT_LEN).is_some_and(|hash| Hash::from_hex(hash).is_ok());
    is_program && !program.is_directory() && now.since(program.modified) > KEPT
}

/// Those that no job runs or, as far as the scheduler remembers, has run.
fn unused(stored: &[FileStatus], jobs: &[JobSummary]) -> Vec<DfsPath> {
    let used: BTreeSet<&DfsPath> = jobs
        .iter()
        .filter_map(|job| match &job.program {
            Program::Stored { path, .. } => Some(path),
            Program::BuiltIn { .. } => None,
        })
        .collect();
    stored.iter().map(|program| &program.path).filter(|path| !used.contains(path)).cloned().collect()
}

/// Deletes a program, unless somebody has stored it once more at this moment: it is moved aside first, in one step, and
/// put back if it is not the old one. Who misses it meanwhile tries again; should this client die before it has put it back,
/// the next one does.
async fn take_away(session: &Session, path: &DfsPath, now: WallTime) -> Result<(), ClientError> {
    if session.client.stat(path).await?.is_none_or(|found| !is_old(&found, now)) {
        return Ok(());
    }
    let random = session.client.runtime().random_u64();
    let parent = path.parent().unwrap_or_else(DfsPath::root);
    // A name that is as long as the hash and a number is no path only where the program was none.
    let Ok(aside) = parent.join(&aside_name(&path.name().trim_start_matches('.')[..64], random)) else {
        return Ok(());
    };
    session.client.rename(path, &aside, false).await?;
    match session.client.stat(&aside).await? {
        Some(moved) if !is_old(&moved, now) => match session.client.rename(&aside, path, false).await {
            // It has been stored yet again.
            Err(error) if error.code() == Some(ErrorCode::AlreadyExists) => {
                session.client.delete(&aside, false).await.map(drop)
            }
            done => done,
        },
        _ => session.client.delete(&aside, false).await.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::ids::{INodeId, JobId};
    use situ_wire::messages::scheduler::JobState;

    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    const NOW: WallTime = WallTime(100 * DAY_MS);

    fn program(name: &str, days_ago: u64) -> FileStatus {
        FileStatus {
            path: DfsPath::parse(PROGRAMS).unwrap().join(name).unwrap(),
            inode: INodeId(1),
            kind: FileKind::File { len_bytes: 1, block_len_bytes: 1, replication: 1, open: false },
            owner: String::new(),
            group: String::new(),
            mode: 0o644,
            modified: WallTime(NOW.0 - days_ago * DAY_MS),
        }
    }

    #[test]
    fn only_what_is_old_and_of_no_job_goes() {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let (old, used, fresh) = (hash(b"old"), hash(b"used"), hash(b"fresh"));
        let aside = format!(".{}.0123456789abcdef", hash(b"aside"));
        let mut stored = vec![program(&old, 8), program(&used, 8), program(&fresh, 6), program(&aside, 8)];
        stored.push(program("somebody's", 80));
        stored.retain(|program| is_old(program, NOW));
        let job = |program| JobSummary {
            job: JobId(1),
            program,
            arguments: Vec::new(),
            user: String::new(),
            state: JobState::Succeeded,
            submitted: situ_wire::time::TimeMs(0),
            ended: None,
        };
        let path = program(&used, 8).path;
        let jobs = [
            job(Program::Stored { name: "used".to_owned(), path, hash: [0; 32] }),
            job(Program::BuiltIn { name: "pi".to_owned() }),
        ];
        assert_eq!(unused(&stored, &jobs), [program(&old, 0).path, program(&aside, 0).path]);
    }

    #[test]
    fn what_was_moved_aside_and_forgotten_is_put_back() {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
        let aside = |bytes: &[u8], days_ago| program(&aside_name(&hash(bytes), 7), days_ago);
        let stored = [
            aside(b"lost", 1),
            aside(b"old", 8),
            aside(b"there", 1),
            program(&hash(b"there"), 1),
            // Somebody asks for the time.
            aside(b"", 0),
            program(".somebody's", 1),
        ];
        assert_eq!(lost(&stored, NOW), [(stored[0].path.clone(), program(&hash(b"lost"), 0).path)]);
    }
}
