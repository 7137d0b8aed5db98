//! `mkdir`, `rm` and `mv`.

use super::paths;
use crate::args::{MkdirArgs, MvArgs, RmArgs};
use crate::error::{CliError, CliResult};
use crate::session::{DIRECTORY_MODE, Session};
use crate::show;

/// `situ fs mkdir`.
pub(super) async fn mkdir(session: &Session, args: &MkdirArgs, json: bool) -> CliResult {
    for text in &args.paths {
        let path = paths::parse(text)?;
        session.client.mkdir(&path, args.parents, DIRECTORY_MODE).await?;
        if json {
            show::json(&serde_json::json!({ "made": path.as_str() }))?;
        }
    }
    Ok(())
}

/// `situ fs rm`.
pub(super) async fn rm(session: &Session, args: &RmArgs, json: bool) -> CliResult {
    for text in &args.paths {
        let found = match paths::expand(session, text).await {
            Err(error) if args.force && error.code == 1 => {
                // Only "nothing is there" is forgiven: whether that is so, the path itself says.
                if super::glob::is_pattern(text) || session.client.stat(&paths::parse(text)?).await?.is_none() {
                    continue;
                }
                return Err(error);
            }
            found => found?,
        };
        for status in found {
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
    let Some((target, sources)) = args.paths.split_last() else {
        return Err(CliError::usage("mv: expected paths and a target"));
    };
    let into = target.ends_with('/') && target != "/";
    let target = paths::parse(target)?;
    let found = paths::expand_all(session, sources).await?;
    for status in &found {
        let destination = paths::destination(session, &target, status.path.name(), found.len() > 1 || into).await?;
        session.client.rename(&status.path, &destination, args.force).await?;
        if json {
            show::json(&serde_json::json!({ "from": status.path.as_str(), "to": destination.as_str() }))?;
        }
    }
    Ok(())
}
