//! `mkdir`, `rm` and `mv`.

use situ_wire::error::ErrorCode;
use situ_wire::path::DfsPath;

use super::paths::{self, Target};
use crate::args::{MkdirArgs, MvArgs, RmArgs};
use crate::error::{CliError, CliResult};
use crate::session::{DIRECTORY_MODE, Session};
use crate::show;

/// `situ fs mkdir`.
pub(super) async fn mkdir(session: &Session, args: &MkdirArgs, json: bool) -> CliResult {
    for text in &args.paths {
        let path = paths::parse(text)?;
        if let Err(error) = session.client.mkdir(&path, args.parents, DIRECTORY_MODE).await {
            return Err(match error.code() {
                Some(ErrorCode::NotFound) if !args.parents => CliError::failed(format!(
                    "{path}: the directory that it shall be in is not there; make that too with -p"
                )),
                Some(ErrorCode::AlreadyExists) if !args.parents && is_directory(session, &path).await? => {
                    CliError::failed(format!("{path}: is a directory already; with -p that is fine"))
                }
                Some(ErrorCode::AlreadyExists) => exists(session, &path).await?,
                _ => error.into(),
            });
        }
        if json {
            show::json(&serde_json::json!({ "made": path.as_str() }))?;
        }
    }
    Ok(())
}

/// `situ fs rm`.
pub(super) async fn rm(session: &Session, args: &RmArgs, json: bool) -> CliResult {
    for text in &args.paths {
        let found = match args.force {
            true => paths::matching(session, text).await?,
            false => paths::expand(session, text).await?,
        };
        for status in found {
            if status.path.is_root() {
                return Err(CliError::failed(
                    "/: the root directory cannot be deleted; delete what it holds with `situ fs rm -r '/*'`",
                ));
            }
            if status.is_directory() && !args.recursive {
                return Err(CliError::failed(format!("{}: is a directory; delete it with -r", status.path)));
            }
            session.client.delete(&status.path, args.recursive).await?;
            if json {
                show::json(&serde_json::json!({ "deleted": status.path.as_str() }))?;
            }
        }
    }
    Ok(())
}

/// `situ fs mv`.
pub(super) async fn mv(session: &Session, args: &MvArgs, json: bool) -> CliResult {
    let target = Target::parse(&args.target)?;
    let found = paths::expand_all(session, &args.sources).await?;
    for status in &found {
        let from = &status.path;
        let to = target.destination(session, from.name(), status.is_directory(), found.len() > 1).await?;
        if to == *from {
            return Err(CliError::failed(format!("{from}: is there already; name another target")));
        }
        if let Err(error) = session.client.rename(from, &to, args.force).await {
            return Err(match error.code() {
                Some(ErrorCode::AlreadyExists) if status.is_directory() || args.force => exists(session, &to).await?,
                Some(ErrorCode::AlreadyExists) => may_be_replaced(session, &to).await?,
                _ => error.into(),
            });
        }
        if json {
            show::json(&serde_json::json!({ "from": from.as_str(), "to": to.as_str() }))?;
        }
    }
    Ok(())
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
