//! What was acknowledged, and whether it still holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobState;
use situ_wire::path::DfsPath;

use crate::error::CliResult;
use crate::fs::cat_paths;
use crate::session::Session;

/// What was acknowledged.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Mutex<Entries>,
    /// The lines that every job's result must hold, sorted.
    expected: Vec<Vec<u8>>,
}

/// The acknowledged things themselves.
#[derive(Debug, Default, Clone)]
pub(super) struct Entries {
    /// Files, with the hash of what they hold.
    pub(super) files: Vec<(DfsPath, blake3::Hash)>,
    /// Files that were deleted.
    pub(super) deleted: Vec<DfsPath>,
    /// Jobs that succeeded, with where their result is.
    pub(super) jobs: Vec<(JobId, String)>,
    /// Operations that failed: allowed, for they were not acknowledged.
    pub(super) failures: u64,
    /// What the last failures said.
    pub(super) last_failure: Option<String>,
}

impl Ledger {
    /// An empty one; `expected` are the lines of every job's result, sorted.
    pub(super) fn new(expected: Vec<Vec<u8>>) -> Self {
        Self { entries: Mutex::default(), expected }
    }

    /// Whether `result` holds the lines that a job's result must hold, in any order.
    pub(super) fn is_right(&self, result: &[u8]) -> bool {
        let mut lines: Vec<&[u8]> = result.split_inclusive(|byte| *byte == b'\n').collect();
        lines.sort_unstable();
        let lines = lines.into_iter().map(|line| line.strip_suffix(b"\n"));
        lines.eq(self.expected.iter().map(|line| Some(line.as_slice())))
    }

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
}

/// Everything that was acknowledged and does not hold, in words.
pub(super) async fn losses(session: &Session, ledger: &Ledger, progress: impl Fn()) -> CliResult<Vec<String>> {
    let entries = ledger.entries().clone();
    let mut losses = Vec::new();
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
    for (job, output) in &entries.jobs {
        match known.iter().find(|summary| summary.job == *job).map(|summary| &summary.state) {
            Some(JobState::Succeeded) => {}
            Some(state) => losses.push(format!("{job}: had succeeded and is now {state:?}")),
            None => losses.push(format!("{job}: had succeeded and is forgotten")),
        }
        let mut bytes = Vec::new();
        match cat_paths(session, std::slice::from_ref(output), &mut bytes).await {
            Err(error) => losses.push(format!("{job}, result {output}: cannot be read: {error}")),
            Ok(()) if !ledger.is_right(&bytes) => losses.push(format!("{job}, result {output}: holds other lines")),
            Ok(()) => {}
        }
        progress();
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
    fn a_result_is_right_in_any_order_and_only_whole() {
        let ledger = Ledger::new(["a\t1", "b\t2"].map(|line| line.as_bytes().to_vec()).to_vec());
        assert!(ledger.is_right(b"b\t2\na\t1\n"));
        for wrong in ["", "a\t1\n", "a\t1\nb\t2", "a\t1\nb\t3\n", "a\t1\nb\t2\nb\t2\n"] {
            assert!(!ledger.is_right(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
