//! The executables that users submit: stored once, under the hash of their bytes and without what debuggers alone need,
//! and taken away when no job needs them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use blake3::Hash;
use situ_runtime::Runtime;
use situ_runtime::clock::Clock;
use situ_wire::error::ErrorCode;
use situ_wire::messages::namenode::FileStatus;
use situ_wire::messages::scheduler::{JobSummary, Program};
use situ_wire::path::DfsPath;
use situ_wire::time::TimeMs;

use super::strip;
use crate::error::{CliError, CliResult, LocalContext};
use crate::session::{DIRECTORY_MODE, Session};
use crate::show as screen;

/// Where they are kept.
const PROGRAMS: &str = "/.situ/programs";
/// How long a program stays there that no job needs.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// A program that was stored longer ago is stored once more when it is submitted: when it was stored says when it was last
/// used. Far less than [`KEPT`]: what was found to be there stays until its job is known.
const FRESH: Duration = Duration::from_hours(24);
const _: () = assert!(FRESH.as_secs() * 2 < KEPT.as_secs(), "a program that is used is never old enough to go");

/// Stores an executable under the hash of its bytes, unless it is there.
///
/// # Errors
/// When it is none, or cannot be read or stored.
pub(super) async fn store(session: &Session, path: &Path, json: bool) -> CliResult<Program> {
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
    let stored = directory.join(&hash.to_hex()).map_err(CliError::failed)?;
    let now = session.client.runtime().clock().now();
    let found = session.client.stat(&stored).await?;
    if found.is_none_or(|found| now.since(found.modified) > FRESH) {
        session.client.mkdir(&directory, true, DIRECTORY_MODE).await?;
        // Another client may store the same bytes at the same time: then either copy will do.
        let options = crate::fs::PutOptions { force: true, ..Default::default() };
        let len = bytes.len() as u64;
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
        let progress = screen::Progress::bytes("program", Some(len), true);
        let reader = Box::new(std::io::Cursor::new(bytes));
        crate::fs::put_reader(session, reader, &path.to_string_lossy(), &stored, &options, |more| progress.add(more))
            .await?;
    }
    let name = path.file_name().map_or_else(|| path.to_string_lossy(), |name| name.to_string_lossy()).into_owned();
    Ok(Program::Stored { name, path: stored, hash: *hash.as_bytes() })
}

/// Takes the programs away that no job needs. The one of the job that was just submitted is not old enough.
///
/// # Errors
/// When the namenode or the scheduler cannot say what there is.
pub(super) async fn collect(session: &Session) -> CliResult {
    let directory = DfsPath::parse(PROGRAMS).map_err(CliError::failed)?;
    let now = session.client.runtime().clock().now();
    let mut stored = session.client.list_all(&directory).await?;
    stored.retain(|program| is_old(program, now));
    if stored.is_empty() {
        return Ok(());
    }
    // Behind the list of programs: whoever has submitted one since then has found it old, and stored it once more.
    let jobs = session.client.scheduler().list().await?;
    for path in unused(&stored, &jobs) {
        match take_away(session, &path, now).await {
            // Whoever stored it takes it away, or has done so.
            Err(error) if matches!(error.code(), Some(ErrorCode::PermissionDenied | ErrorCode::NotFound)) => {}
            done => done?,
        }
    }
    Ok(())
}

/// Whether a program, and nothing else that somebody has put there, was stored long ago.
fn is_old(program: &FileStatus, now: TimeMs) -> bool {
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
/// put back if it is not the old one. Who misses it meanwhile tries again.
async fn take_away(session: &Session, path: &DfsPath, now: TimeMs) -> Result<(), situ_client::ClientError> {
    let random = session.client.runtime().random_u64();
    let parent = path.parent().unwrap_or_else(DfsPath::root);
    // A name that is as long as the hash and a number is no path only where the program was none.
    let Ok(aside) = parent.join(&format!(".{}.{random:016x}", &path.name().trim_start_matches('.')[..64])) else {
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
    use situ_wire::messages::namenode::FileKind;
    use situ_wire::messages::scheduler::JobState;

    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    const NOW: TimeMs = TimeMs(100 * DAY_MS);

    fn program(name: &str, days_ago: u64) -> FileStatus {
        FileStatus {
            path: DfsPath::parse(PROGRAMS).unwrap().join(name).unwrap(),
            inode: INodeId(1),
            kind: FileKind::File { len_bytes: 1, block_len_bytes: 1, replication: 1, open: false },
            owner: String::new(),
            group: String::new(),
            mode: 0o644,
            modified: TimeMs(NOW.0 - days_ago * DAY_MS),
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
            submitted: NOW,
            ended: None,
        };
        let path = program(&used, 8).path;
        let jobs = [
            job(Program::Stored { name: "used".to_owned(), path, hash: [0; 32] }),
            job(Program::BuiltIn { name: "pi".to_owned() }),
        ];
        assert_eq!(unused(&stored, &jobs), [program(&old, 0).path, program(&aside, 0).path]);
    }
}
