//! The sentences of frequent errors: what it is about, what was expected, what was found, what to do.

use std::fmt::Display;

use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::ids::ClusterId;
use situ_wire::path::DfsPath;

/// What is wrong with a target whose name is of the form that is for copying.
pub(super) const COPYING_NAME: &str = "names of this form are for files that are being copied; choose another one";

pub(super) fn not_found(path: &DfsPath) -> RemoteError {
    RemoteError::new(
        ErrorCode::NotFound,
        path,
        "expected a file or directory, found nothing; check the path (situ fs ls shows what is there)",
    )
}

pub(super) fn no_epochs(cluster: ClusterId) -> RemoteError {
    let message = "all epochs of the namespace are used up; copy what it holds into a new cluster";
    RemoteError::new(ErrorCode::TooMuch, cluster, message)
}

pub(super) fn parent_not_found(path: &DfsPath) -> RemoteError {
    let make = path.parent().map(|parent| format!("situ fs mkdir -p {}", parent.for_shell())).unwrap_or_default();
    RemoteError::new(
        ErrorCode::NotFound,
        path,
        format!("the directory that it shall be in is not there; make that first (`{make}`)"),
    )
}

pub(super) fn blocked(path: &DfsPath) -> RemoteError {
    RemoteError::new(
        ErrorCode::NotADirectory,
        path,
        "a name on the way is a file where a directory is needed; choose another path",
    )
}

pub(super) fn is_a_directory(path: &DfsPath) -> RemoteError {
    RemoteError::new(ErrorCode::IsADirectory, path, "expected a file, found a directory; name a file")
}

pub(super) fn already_exists(path: &DfsPath, found: &str) -> RemoteError {
    RemoteError::new(
        ErrorCode::AlreadyExists,
        path,
        format!("expected nothing there, found {found}; choose another name or remove it first"),
    )
}

pub(super) fn invalid(subject: impl Display, message: impl Into<String>) -> RemoteError {
    RemoteError::new(ErrorCode::InvalidArgument, subject, message)
}
