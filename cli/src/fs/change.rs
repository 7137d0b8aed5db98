//! `mkdir`, `rm` and `mv`.

use situ_wire::error::ErrorCode;
use situ_wire::messages::namenode::FileStatus;
use situ_wire::path::DfsPath;

use super::paths::{self, Pattern, Target};
use crate::args::{MkdirArgs, MvArgs, RmArgs};
use crate::error::{CliError, CliResult, Failures};
use crate::session::{DIRECTORY_MODE, Session};
use crate::show;

/// `situ fs mkdir`.
pub(super) async fn mkdir(session: &Session, args: &MkdirArgs, json: bool) -> CliResult {
    let paths: Vec<DfsPath> = args.paths.iter().map(|text| paths::parse(text)).collect::<CliResult<_>>()?;
    let mut failures = Failures::new(json);
    for path in &paths {
        if failures.note(make(session, path, args.parents).await)?.is_some() && json {
            show::json(&serde_json::json!({ "made": path.as_str() }))?;
        }
    }
    failures.end()
}

async fn make(session: &Session, path: &DfsPath, parents: bool) -> CliResult {
    let Err(error) = session.client.mkdir(path, parents, DIRECTORY_MODE).await else { return Ok(()) };
    Err(match error.code() {
        Some(ErrorCode::NotFound) if !parents => {
            CliError::failed(format!("{path}: the directory that it shall be in is not there; make that too with -p"))
        }
        Some(ErrorCode::AlreadyExists) if !parents && is_directory(session, path).await? => {
            CliError::failed(format!("{path}: is a directory already; with -p that is fine"))
        }
        Some(ErrorCode::AlreadyExists) => exists(session, path).await?,
        _ => error.into(),
    })
}

/// `situ fs rm`.
pub(super) async fn rm(session: &Session, args: &RmArgs, json: bool) -> CliResult {
    let mut failures = Failures::new(json);
    for pattern in Pattern::parse_all(&args.paths)? {
        let found = match args.force {
            true => pattern.matching(session).await,
            false => pattern.expand(session).await,
        };
        for status in failures.note(found)?.into_iter().flatten() {
            if failures.note(delete(session, &status, args.recursive).await)?.is_some() && json {
                show::json(&serde_json::json!({ "deleted": status.path.as_str() }))?;
            }
        }
    }
    failures.end()
}

async fn delete(session: &Session, status: &FileStatus, recursive: bool) -> CliResult {
    if status.path.is_root() {
        return Err(CliError::failed(
            "/: the root directory cannot be deleted; delete what it holds with `situ fs rm -r '/*'`",
        ));
    }
    if status.is_directory() && !recursive {
        return Err(CliError::failed(format!("{}: is a directory; delete it with -r", status.path)));
    }
    session.client.delete(&status.path, recursive).await?;
    Ok(())
}

/// `situ fs mv`.
pub(super) async fn mv(session: &Session, args: &MvArgs, json: bool) -> CliResult {
    let target = Target::parse(&args.target)?;
    let mut failures = Failures::new(json);
    let found = paths::expand_all(session, &args.sources, &mut failures).await?;
    let several = args.sources.len() > 1 || found.len() > 1;
    for status in &found {
        let moved = rename(session, status, &target, several, args.force).await;
        if let Some(to) = failures.note(moved)?
            && json
        {
            show::json(&serde_json::json!({ "from": status.path.as_str(), "to": to.as_str() }))?;
        }
    }
    failures.end()
}

/// Moves one thing; gives where it is now.
async fn rename(
    session: &Session,
    status: &FileStatus,
    target: &Target,
    several: bool,
    force: bool,
) -> CliResult<DfsPath> {
    let from = &status.path;
    let to = target.destination(session, from.name(), status.is_directory(), several).await?;
    if to == *from {
        return Err(CliError::failed(format!("{from}: is there already; name another target")));
    }
    let Err(error) = session.client.rename(from, &to, force).await else { return Ok(to) };
    Err(match error.code() {
        Some(ErrorCode::AlreadyExists) if status.is_directory() || force => exists(session, &to).await?,
        Some(ErrorCode::AlreadyExists) => may_be_replaced(session, &to).await?,
        _ => error.into(),
    })
}

/// Something is in the way that cannot be replaced.
async fn exists(session: &Session, path: &DfsPath) -> CliResult<CliError> {
    let what = if is_directory(session, path).await? { "a directory" } else { "a file" };
    Ok(CliError::failed(format!("{path}: is {what} already; choose another name, or delete it first")))
}

/// Something is in the way of a file that can be replaced if it is a file too.
async fn may_be_replaced(session: &Session, path: &DfsPath) -> CliResult<CliError> {
    if is_directory(session, path).await? {
        return exists(session, path).await;
    }
    Ok(CliError::failed(format!("{path}: exists already; replace it with -f or name another target")))
}

async fn is_directory(session: &Session, path: &DfsPath) -> CliResult<bool> {
    Ok(session.client.stat(path).await?.is_some_and(|status| status.is_directory()))
}
