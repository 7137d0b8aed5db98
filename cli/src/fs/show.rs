//! `ls`, `stat`, `du` and `df`.

use serde_json::json;
use situ_wire::messages::namenode::{FileKind, FileStatus};

use super::paths;
use crate::admin::Space;
use crate::args::{DfArgs, DuArgs, LsArgs, PathsArgs};
use crate::error::{CliResult, Failures};
use crate::session::Session;
use crate::show::{self, columns, escaped, escaped_on_terminal, local_time, size};

/// `situ fs ls`.
pub(super) async fn ls(session: &Session, args: &LsArgs, as_json: bool) -> CliResult {
    let mut failures = Failures::new(as_json);
    let found = paths::expand_all(session, &args.paths, &mut failures).await?;
    let several = args.paths.len() > 1 || found.len() > 1;
    // As elsewhere, what is no directory comes first.
    let (directories, files): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|status| status.is_directory() && !args.directory);
    rows(&files, args.human, as_json).into_iter().try_for_each(show::line)?;
    for status in directories {
        if several && !args.recursive && !as_json {
            show::line(format!("{}:", escaped_on_terminal(status.path.as_str())))?;
        }
        // What is still to be shown, and below a directory what it holds, as `hdfs dfs -ls -R` goes through a tree.
        let mut open = Some(status);
        let mut shown: Vec<(String, FileStatus)> = Vec::new();
        loop {
            if let Some(directory) = open.take() {
                let entries = failures.note(session.client.list_all(&directory.path).await)?.unwrap_or_default();
                let rows = rows(&entries, args.human, as_json);
                shown.extend(rows.into_iter().zip(entries).rev());
            }
            let Some((row, entry)) = shown.pop() else { break };
            if show::reader_gone() {
                return failures.end();
            }
            show::line(row)?;
            if args.recursive && entry.is_directory() {
                open = Some(entry);
            }
        }
    }
    failures.end()
}

/// A line for each entry.
fn rows(entries: &[FileStatus], human: bool, as_json: bool) -> Vec<String> {
    if as_json {
        return entries.iter().map(|status| status_json(status).to_string()).collect();
    }
    let row = |status: &FileStatus| {
        let (replicas, mark) = match status.kind {
            FileKind::Directory => ("-".to_owned(), ""),
            FileKind::File { replication, open, .. } => {
                (replication.to_string(), if open { "  (being written)" } else { "" })
            }
        };
        [
            mode(status),
            replicas,
            escaped(&status.owner).into_owned(),
            escaped(&status.group).into_owned(),
            size(status.len_bytes(), human),
            local_time(status.modified),
            format!("{}{mark}", escaped_on_terminal(status.path.as_str())),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    columns(&rows, [false, true, false, false, true, false, false])
}

/// `drwxr-xr-x`.
fn mode(status: &FileStatus) -> String {
    format!("{}{}", if status.is_directory() { 'd' } else { '-' }, permissions(status.mode))
}

/// `rwxr-xr-x`; as `ls` does it, the last letter is `t` or `T` where only owners delete.
fn permissions(mode: u16) -> String {
    let mut text = String::new();
    for shift in [6, 3, 0] {
        let bits = mode >> shift;
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if bits & bit == 0 { '-' } else { letter });
        }
    }
    if mode & 0o1000 != 0 {
        text.pop();
        text.push(if mode & 1 == 0 { 'T' } else { 't' });
    }
    text
}

fn status_json(status: &FileStatus) -> serde_json::Value {
    let mut value = json!({
        "path": status.path.as_str(),
        "type": if status.is_directory() { "directory" } else { "file" },
        "inode": status.inode.0,
        "owner": status.owner,
        "group": status.group,
        "mode": format!("{:04o}", status.mode),
        "modified_ms": status.modified.0,
    });
    if let FileKind::File { len_bytes, replication, block_len_bytes, open } = status.kind {
        value["bytes"] = len_bytes.into();
        value["replication"] = replication.into();
        value["block_bytes"] = block_len_bytes.into();
        value["open"] = open.into();
    }
    value
}

/// `situ fs stat`.
pub(super) async fn stat(session: &Session, args: &PathsArgs, as_json: bool) -> CliResult {
    let mut failures = Failures::new(as_json);
    for status in paths::expand_all(session, &args.paths, &mut failures).await? {
        if as_json {
            show::json(&status_json(&status))?;
            continue;
        }
        show::line(escaped_on_terminal(status.path.as_str()))?;
        match status.kind {
            FileKind::Directory => show::line("  type         directory")?,
            FileKind::File { len_bytes, replication, block_len_bytes, open } => {
                show::line(format!("  type         file{}", if open { ", being written" } else { "" }))?;
                show::line(format!(
                    "  size         {} ({})",
                    show::count(len_bytes, "byte"),
                    show::human_size(len_bytes)
                ))?;
                show::line(format!("  replication  {replication}"))?;
                show::line(format!("  block size   {}", show::human_size(block_len_bytes)))?;
            }
        }
        show::line(format!("  owner        {}:{}", escaped(&status.owner), escaped(&status.group)))?;
        show::line(format!("  mode         {} ({:04o})", mode(&status), status.mode))?;
        show::line(format!("  modified     {}", local_time(status.modified)))?;
        show::line(format!("  inode        {}", status.inode.0))?;
    }
    failures.end()
}

/// `situ fs du`.
pub(super) async fn du(session: &Session, args: &DuArgs, as_json: bool) -> CliResult {
    let mut failures = Failures::new(as_json);
    let mut targets = Vec::new();
    for status in paths::expand_all(session, &args.paths, &mut failures).await? {
        if args.summarize || !status.is_directory() {
            targets.push(status);
        } else {
            targets.extend(failures.note(session.client.list_all(&status.path).await)?.into_iter().flatten());
        }
    }
    let mut rows = Vec::new();
    for status in targets {
        let summary = session.client.summary(&status.path).await;
        let Some(summary) = failures.note(summary)? else { continue };
        if as_json {
            show::json(&json!({
                "path": status.path.as_str(), "bytes": summary.len_bytes, "space_bytes": summary.space_bytes,
                "files": summary.files, "directories": summary.directories,
            }))?;
        }
        let (len, space) = (size(summary.len_bytes, args.human), size(summary.space_bytes, args.human));
        rows.push([len, space, escaped_on_terminal(status.path.as_str()).into_owned()]);
    }
    if !as_json {
        columns(&rows, [true, true, false]).into_iter().try_for_each(show::line)?;
    }
    failures.end()
}

/// `situ fs df`.
pub(super) async fn df(session: &Session, args: &DfArgs, as_json: bool) -> CliResult {
    let Space { capacity, used, free } = Space::of(&session.client.report().await?);
    if as_json {
        return show::json(&json!({ "capacity_bytes": capacity, "used_bytes": used, "free_bytes": free }));
    }
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let share = if capacity == 0 { 0.0 } else { used as f64 * 100.0 / capacity as f64 };
    let cells = [capacity, used, free].map(|bytes| size(bytes, args.human));
    let [capacity, used, free] = cells;
    let rows = [["capacity", "used", "free", "use"].map(str::to_owned), [capacity, used, free, format!("{share:.1}%")]];
    columns(&rows, [true; 4]).into_iter().try_for_each(show::line)
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn permissions_are_shown_as_ls_does() {
        let shown = [0o755, 0o640, 0o1777, 0o1770].map(permissions);
        assert_eq!(shown, ["rwxr-xr-x", "rw-r-----", "rwxrwxrwt", "rwxrwx--T"]);
    }
}
