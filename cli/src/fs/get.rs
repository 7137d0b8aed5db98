//! `get` and `cat`: from the cluster, every byte verified against what the namenode knows of it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use situ_wire::messages::namenode::FileStatus;

use super::Copied;
use super::paths::{self, Pattern};
use crate::args::{GetArgs, PathsArgs};
use crate::error::{CliError, CliResult, Failures, LocalContext};
use crate::session::Session;
use crate::show::{self, Progress};

/// After how long without a piece it is said what is waited for.
const SILENCE: Duration = Duration::from_secs(2);

/// `situ fs get`.
pub(super) async fn get(session: &Session, args: &GetArgs, json: bool) -> CliResult {
    if args.target == "-" {
        return write_out(session, &args.sources, json).await;
    }
    let mut failures = Failures::new(json);
    let found = paths::expand_all(session, &args.sources, &mut failures).await?;
    if found.is_empty() {
        return failures.end();
    }
    let started = std::time::Instant::now();
    let several = args.sources.len() > 1 || found.len() > 1;
    let any_file = found.iter().any(|status| !status.is_directory());
    let (target, into_directory) = local_target(Path::new(&args.target), several, any_file)?;
    let mut fetched = Copied::default();
    for status in &found {
        let destination = if into_directory { target.join(status.path.name()) } else { target.clone() };
        let mut open = vec![(status.clone(), destination)];
        while let Some((status, destination)) = open.pop() {
            if status.is_directory() {
                let entries = get_directory(session, &status, &destination, args.recursive).await;
                for entry in failures.note(entries)?.into_iter().flatten() {
                    let below = destination.join(entry.path.name());
                    open.push((entry, below));
                }
            } else if failures.note(get_one(session, &status, &destination, args.force, json).await)?.is_some() {
                fetched.add(status.len_bytes());
            }
        }
    }
    if fetched.files > 0 || !failures.any() {
        fetched.summary("fetched", started.elapsed(), json)?;
    }
    failures.end()
}

/// Makes the local directory; gives what goes into it.
async fn get_directory(
    session: &Session,
    status: &FileStatus,
    target: &Path,
    recursive: bool,
) -> CliResult<Vec<FileStatus>> {
    if !recursive {
        return Err(CliError::failed(format!("{}: is a directory; fetch it with -r", status.path)));
    }
    std::fs::create_dir_all(target).local("cannot make", target)?;
    Ok(session.client.list_all(&status.path).await?)
}

/// The local target, and whether it is a directory that takes what is fetched. A slash at its end says that it is one;
/// as with `cp`, a directory that is fetched may become what is not there yet.
fn local_target(target: &Path, several: bool, any_file: bool) -> CliResult<(PathBuf, bool)> {
    if target.is_dir() {
        return Ok((target.to_owned(), true));
    }
    let text = target.to_string_lossy();
    let slash = text.ends_with('/');
    let why = if several { "for several sources" } else { "as the slash at its end says" };
    let shown = show::escaped(&text);
    // Without the slash: with it the operating system says of a file only that it is no directory.
    let bare: PathBuf = target.components().collect();
    let parent = bare.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir());
    match (bare.symlink_metadata(), parent) {
        (Ok(_), _) if several || slash => {
            Err(CliError::failed(format!("{shown}: expected a directory, {why}; found a file")))
        }
        (Err(_), _) if several || (slash && any_file) => {
            Err(CliError::failed(format!("{shown}: expected a directory, {why}; found nothing: make it with `mkdir`")))
        }
        (Err(_), Some(parent)) => {
            let parent = parent.to_string_lossy();
            let parent = show::escaped(&parent);
            Err(CliError::failed(format!("{shown}: {parent} is no directory that is there; make it with `mkdir`")))
        }
        _ => Ok((bare, false)),
    }
}

/// Fetches one file. What is or becomes a regular file is written aside and renamed when it is whole; a link to one stays
/// a link. Into a device or a FIFO it is written straight.
async fn get_one(session: &Session, status: &FileStatus, target: &Path, force: bool, json: bool) -> CliResult {
    let refused = |why| Err(CliError::failed(format!("{}: {why}", show::escaped(&target.to_string_lossy()))));
    match std::fs::metadata(target) {
        Ok(found) if !found.is_file() && !found.is_dir() => {
            let opened = target.to_owned();
            let open = move || std::fs::File::options().write(true).open(opened);
            let file = tokio::select! {
                biased;
                () = session.interrupt.wait() => return Err(CliError::failed("interrupted").ending()),
                // A FIFO opens when somebody reads from it, and who waits for that must not be held.
                file = tokio::task::spawn_blocking(open) => file?,
            };
            let mut file = file.local("cannot write", target)?;
            return copy_until_interrupted(session, status, &mut file, target, "has a part of it", json).await;
        }
        Ok(_) if !force => return refused("exists already; replace it with -f"),
        Err(_) if target.is_symlink() => return refused("is a link that leads nowhere; delete it first"),
        _ => {}
    }
    let linked = if target.is_symlink() { Some(target.canonicalize().local("cannot find", target)?) } else { None };
    get_whole(session, status, linked.as_deref().unwrap_or(target), json).await
}

/// Fetches one file to where nothing or a regular file is.
async fn get_whole(session: &Session, status: &FileStatus, target: &Path, json: bool) -> CliResult {
    let mut name = std::ffi::OsString::from(".");
    name.push(format!("{:016x}._COPYING_", fastrand::u64(..)));
    let aside = target.with_file_name(name);
    // The name aside is no business of the user's, the target is.
    let mut file = std::fs::File::create_new(&aside).local("cannot write", target)?;
    let copied = copy_until_interrupted(session, status, &mut file, target, "is as it was", json).await;
    let placed = copied.and_then(|()| std::fs::rename(&aside, target).local("cannot write", target));
    if placed.is_err()
        && let Err(error) = std::fs::remove_file(&aside)
    {
        show::note(format!("{}: could not be cleaned away: {error}", aside.display()));
    }
    placed
}

async fn copy_until_interrupted(
    session: &Session,
    status: &FileStatus,
    file: &mut std::fs::File,
    target: &Path,
    after: &str,
    json: bool,
) -> CliResult {
    let progress = Progress::bytes(status.path.name(), Some(status.len_bytes()), !json);
    tokio::select! {
        biased;
        () = session.interrupt.wait() => {
            Err(CliError::failed(format!("interrupted; {} {after}", target.display())).ending())
        }
        copied = copy(session, status, file, |more| progress.add(more)) => copied,
    }
}

/// `situ fs cat`.
pub(super) async fn cat(session: &Session, args: &PathsArgs, json: bool) -> CliResult {
    write_out(session, &args.paths, json).await
}

/// All bytes of what several paths or patterns name.
///
/// # Errors
/// When one is not there, is a directory or cannot be read whole.
pub async fn cat_paths(session: &Session, patterns: &[String], out: &mut impl Write) -> CliResult {
    for pattern in Pattern::parse_all(patterns)? {
        for status in pattern.expand(session).await? {
            copy(session, &status, out, |_| ()).await?;
        }
    }
    Ok(())
}

async fn write_out(session: &Session, patterns: &[String], json: bool) -> CliResult {
    let mut failures = Failures::new(json);
    for status in paths::expand_all(session, patterns, &mut failures).await? {
        let copied = copy(session, &status, &mut show::Output, |_| ()).await;
        // Whoever read our output has seen enough, as in `| head`.
        if show::reader_gone() {
            break;
        }
        failures.note(copied)?;
    }
    failures.end()
}

/// Copies a file's verified bytes to `out`.
async fn copy(session: &Session, status: &FileStatus, out: &mut impl Write, progress: impl Fn(u64)) -> CliResult {
    if status.is_directory() {
        return Err(CliError::failed(format!("{}: is a directory; expected a file", status.path)));
    }
    let reader = session.client.open(&status.path).await?;
    let mut stream = reader.stream(0..reader.len_bytes());
    let failed = |error| CliError::failed(format!("cannot write what {} holds: {error}", status.path));
    let mut told = false;
    loop {
        let mut next = std::pin::pin!(stream.next());
        let piece = match tokio::time::timeout(SILENCE, &mut next).await {
            Ok(piece) => piece?,
            Err(_) => {
                if !std::mem::replace(&mut told, true) {
                    show::note(format!(
                        "{}: waiting for the datanodes that hold it; `situ admin report` shows which are away",
                        status.path
                    ));
                }
                next.await?
            }
        };
        let Some(piece) = piece else { break };
        out.write_all(&piece).map_err(failed)?;
        progress(piece.len() as u64);
    }
    // Standard output keeps what follows the last line break until it is told otherwise, and tells no error then.
    out.flush().map_err(failed)
}
