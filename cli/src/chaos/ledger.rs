//! What was acknowledged, and whether it still holds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobState;
use situ_wire::path::DfsPath;

use crate::error::CliResult;
use crate::fs::cat_paths;
use crate::session::Session;

/// What says that an output is whole, and whose it is.
pub(super) const SUCCESS: &str = "_SUCCESS";

/// What was acknowledged.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
}

/// The acknowledged things themselves.
#[derive(Debug, Default, Clone)]
pub(super) struct Entries {
    /// Files, with the hash of what they hold.
    pub(super) files: Vec<(DfsPath, blake3::Hash)>,
    /// Files that were deleted.
    pub(super) deleted: Vec<DfsPath>,
    /// Jobs that succeeded.
    pub(super) jobs: Vec<JobId>,
    /// What jobs have published: also those that failed later.
    pub(super) outputs: Vec<JobOutput>,
    /// Outputs that were moved away once they were published: nothing must be there again.
    pub(super) moved: Vec<(JobId, DfsPath)>,
    /// What was promised and found broken on the way.
    pub(super) broken: Vec<String>,
    /// Operations that failed: allowed, for they were not acknowledged.
    pub(super) failures: u64,
    /// What the last failure said.
    pub(super) last_failure: Option<String>,
}

/// A directory that a job has published.
#[derive(Debug, Clone)]
pub(super) struct JobOutput {
    pub(super) job: JobId,
    pub(super) path: DfsPath,
    pub(super) expected: Arc<Expected>,
}

/// What the parts of an output hold.
#[derive(Debug)]
pub(super) struct Expected {
    /// How many parts there are at most.
    pub(super) parts: usize,
    /// Their lines, sorted, each with its line break.
    pub(super) lines: Vec<Vec<u8>>,
    /// Whether they stand in this order, too.
    pub(super) in_order: bool,
}

impl Ledger {
    /// The entries, for a change.
    pub(super) fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something failed.
    pub(super) fn failed(&self, what: &str, error: &dyn std::fmt::Display) {
        let mut entries = self.entries();
        entries.failures += 1;
        entries.last_failure = Some(format!("{what}: {error}"));
    }

    /// Notes that a promise is broken.
    pub(super) fn broken(&self, what: String) {
        self.entries().broken.push(what);
    }
}

impl Expected {
    /// Whether a result is what it must be.
    fn is(&self, result: &[u8]) -> bool {
        let mut lines: Vec<&[u8]> = result.split_inclusive(|byte| *byte == b'\n').collect();
        if !self.in_order {
            lines.sort_unstable();
        }
        lines.into_iter().eq(self.lines.iter().map(Vec::as_slice))
    }

    /// How what lies at `path` differs from this, as the output of `job`; none if it does not.
    pub(super) async fn differs(&self, session: &Session, job: JobId, path: &DfsPath) -> Option<String> {
        let listed = match session.client.list_all(path).await {
            Ok(listed) => listed,
            Err(error) => return Some(format!("cannot be listed: {error}")),
        };
        let names: Vec<&str> = listed.iter().map(|entry| entry.path.name()).collect();
        let (parts, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with("part-"));
        if others != [SUCCESS] || parts.is_empty() || parts.len() > self.parts {
            return Some(format!("holds {names:?}: expected {} parts and {SUCCESS}", self.parts));
        }
        let (mut success, mut bytes) = (Vec::new(), Vec::new());
        let read = match cat_paths(session, &[format!("{path}/{SUCCESS}")], &mut success).await {
            Ok(()) => cat_paths(session, &[format!("{path}/part-*")], &mut bytes).await,
            failed => failed,
        };
        match read {
            Err(error) => Some(format!("cannot be read: {error}")),
            Ok(()) if success != format!("{job}\n").as_bytes() => {
                Some(format!("WRONG JOB: {SUCCESS} holds {:?}", String::from_utf8_lossy(&success)))
            }
            Ok(()) if !self.is(&bytes) => Some("WRONG RESULT: it holds other lines".to_owned()),
            Ok(()) => None,
        }
    }
}

/// Everything that was acknowledged and does not hold, in words.
pub(super) async fn losses(session: &Session, ledger: &Ledger, progress: impl Fn()) -> CliResult<Vec<String>> {
    let entries = ledger.entries().clone();
    let mut losses = entries.broken;
    for (path, expected) in &entries.files {
        losses.extend(differs(session, path.as_str(), *expected).await.map(|how| format!("file {path}: {how}")));
        progress();
    }
    for path in &entries.deleted {
        if session.client.stat(path).await?.is_some() {
            losses.push(format!("file {path}: was deleted and is back"));
        }
    }
    let known = session.client.scheduler().list().await?;
    for job in &entries.jobs {
        match known.iter().find(|summary| summary.job == *job).map(|summary| &summary.state) {
            Some(JobState::Succeeded) => {}
            Some(state) => losses.push(format!("{job}: had succeeded and is now {state:?}")),
            None => losses.push(format!("{job}: had succeeded and is forgotten")),
        }
    }
    for JobOutput { job, path, expected } in &entries.outputs {
        losses.extend(expected.differs(session, *job, path).await.map(|how| format!("{job}, output {path}: {how}")));
        progress();
    }
    for (job, path) in &entries.moved {
        if session.client.stat(path).await?.is_some() {
            losses.push(format!("{job}, output {path}: was published, moved away, and is PUBLISHED AGAIN"));
        }
    }
    Ok(losses)
}

/// How a file differs from what it held; none if it does not.
async fn differs(session: &Session, path: &str, expected: blake3::Hash) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    match cat_paths(session, &[path.to_owned()], &mut hasher).await {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(()) if hasher.finalize() != expected => {
            Some(format!("holds other bytes: they hash to {}, expected {expected}", hasher.finalize()))
        }
        Ok(()) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_right_only_whole_and_in_order_where_it_has_one() {
        let lines = ["a\t1\n", "b\t2\n"].map(|line| line.as_bytes().to_vec()).to_vec();
        let any = Expected { parts: 2, lines: lines.clone(), in_order: false };
        let ordered = Expected { parts: 2, lines, in_order: true };
        assert!(any.is(b"b\t2\na\t1\n") && !ordered.is(b"b\t2\na\t1\n"));
        assert!(any.is(b"a\t1\nb\t2\n") && ordered.is(b"a\t1\nb\t2\n"));
        for wrong in ["", "a\t1\n", "a\t1\nb\t2", "a\t1\nb\t3\n", "a\t1\nb\t2\nb\t2\n"] {
            assert!(!any.is(wrong.as_bytes()) && !ordered.is(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
