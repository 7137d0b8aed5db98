//! What was acknowledged, and whether it still holds.

use std::sync::{Mutex, MutexGuard, PoisonError};

use situ_wire::ids::JobId;
use situ_wire::messages::scheduler::JobState;
use situ_wire::path::DfsPath;

use crate::error::CliResult;
use crate::fs::cat_paths;
use crate::session::Session;

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
    /// Jobs that succeeded, with where their result is and what it hashes to.
    pub(super) jobs: Vec<(JobId, String, blake3::Hash)>,
    /// Jobs that succeeded while their result could not be read, with where it is.
    pub(super) unread: Vec<(JobId, String)>,
    /// Operations that failed: allowed, for they were not acknowledged.
    pub(super) failures: u64,
    /// What the last failures said.
    pub(super) last_failure: Option<String>,
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
}

/// Everything that was acknowledged and does not hold, in words.
pub(super) async fn losses(session: &Session, entries: &Entries, progress: impl Fn()) -> CliResult<Vec<String>> {
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
    for (job, output) in &entries.unread {
        let mut bytes = Vec::new();
        if let Err(error) = cat_paths(session, std::slice::from_ref(output), &mut bytes).await {
            losses.push(format!("{job}, result {output}: cannot be read: {error}"));
        }
    }
    let known = session.client.scheduler().list().await?;
    for (job, output, expected) in &entries.jobs {
        match known.iter().find(|summary| summary.job == *job).map(|summary| &summary.state) {
            Some(JobState::Succeeded) => {}
            Some(state) => losses.push(format!("{job}: had succeeded and is now {state:?}")),
            None => losses.push(format!("{job}: had succeeded and is forgotten")),
        }
        losses.extend(differs(session, output, *expected).await.map(|how| format!("{job}, result {output}: {how}")));
        progress();
    }
    Ok(losses)
}

/// How what a path or pattern names differs from what it held; none if it does not.
async fn differs(session: &Session, pattern: &str, expected: blake3::Hash) -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    match cat_paths(session, &[pattern.to_owned()], &mut hasher).await {
        Err(error) => Some(format!("cannot be read: {error}")),
        Ok(()) if hasher.finalize() != expected => {
            Some(format!("holds other bytes: they hash to {}, expected {expected}", hasher.finalize()))
        }
        Ok(()) => None,
    }
}
