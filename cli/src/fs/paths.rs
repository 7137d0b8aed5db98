//! From what a person wrote to what is in the cluster.

use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;

use super::glob::{self, Piece};
use crate::error::{CliError, CliResult};
use crate::session::Session;

/// Takes a path as it is written, but for backslashes.
///
/// # Errors
/// When it is not a path: a wrong use.
pub fn parse(text: &str) -> CliResult<DfsPath> {
    DfsPath::parse(&glob::unescape(text)).map_err(CliError::usage)
}

/// What is at a path, which must be there.
///
/// # Errors
/// When nothing is there, or the namenode cannot say.
pub(super) async fn existing(session: &Session, path: &DfsPath) -> CliResult<FileStatus> {
    session
        .client
        .stat(path)
        .await?
        .ok_or_else(|| CliError::failed(format!("{path}: there is no such file or directory")))
}

/// All that a path or pattern names, by path.
///
/// # Errors
/// When nothing is there, or the pattern is not one.
pub(super) async fn expand(session: &Session, pattern: &str) -> CliResult<Vec<FileStatus>> {
    if !glob::is_pattern(pattern) {
        return Ok(vec![existing(session, &parse(pattern)?).await?]);
    }
    if !pattern.starts_with('/') {
        return Err(CliError::usage(format!("path {pattern:?}: expected an absolute path that starts with '/'")));
    }
    let pieces = glob::pieces(pattern)?;
    let mut found = vec![existing(session, &DfsPath::root()).await?];
    for piece in &pieces {
        let mut next = Vec::new();
        for directory in found.iter().filter(|status| status.is_directory()) {
            match piece {
                Piece::Name(name) => {
                    next.extend(session.client.stat(&directory.path.join(name).map_err(CliError::usage)?).await?);
                }
                Piece::Pattern(glob) => {
                    let entries = session.client.list_all(&directory.path).await?;
                    // As in a shell, a leading dot is matched only by a dot.
                    let dotted = glob.glob().glob().starts_with('.');
                    next.extend(entries.into_iter().filter(|entry| {
                        let name = entry.path.name();
                        glob.is_match(name) && (dotted || !name.starts_with('.'))
                    }));
                }
            }
        }
        found = next;
    }
    if found.is_empty() {
        return Err(CliError::failed(format!("{pattern}: nothing matches")));
    }
    Ok(found)
}

/// All that several paths or patterns name.
///
/// # Errors
/// As [`expand`].
pub(super) async fn expand_all(session: &Session, patterns: &[String]) -> CliResult<Vec<FileStatus>> {
    let mut found = Vec::new();
    for pattern in patterns {
        found.extend(expand(session, pattern).await?);
    }
    Ok(found)
}

/// Where something named `name` goes when the target is `target`: into it if it is a directory, else to it.
///
/// # Errors
/// When several things are to go to what is no directory, or the name does not fit.
pub(super) async fn destination(session: &Session, target: &DfsPath, name: &str, several: bool) -> CliResult<DfsPath> {
    match session.client.stat(target).await? {
        Some(status) if status.is_directory() => target.join(name).map_err(CliError::usage),
        Some(_) if several => {
            Err(CliError::failed(format!("{target}: expected a directory, for several sources; found a file")))
        }
        None if several => {
            Err(CliError::failed(format!("{target}: there is no such directory; make it with `situ fs mkdir`")))
        }
        _ => Ok(target.clone()),
    }
}

/// A name for a file while it is being written beside `path`, unlike any other.
///
/// # Errors
/// When the directory's path is too long for it.
pub(super) fn aside(path: &DfsPath) -> CliResult<DfsPath> {
    let parent = path.parent().ok_or_else(|| CliError::failed("/: expected a file's path"))?;
    parent.join(&format!(".{:016x}._COPYING_", fastrand::u64(..))).map_err(CliError::usage)
}
