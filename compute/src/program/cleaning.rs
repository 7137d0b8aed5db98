//! Taking away what a job that has ended wrote aside, as far as the rights of who submitted it reach.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use situ_wire::error::ErrorCode;
use situ_wire::ids::OperationId;
use situ_wire::path::DfsPath;

use super::error::{ProgramError, StorageError};
use super::world::{Entry, Files, Input, InputBlock, Output};
use crate::dataset::clean_up;

/// Takes away what a job wrote aside below `outputs` and did not publish. Says what stays because it may not be deleted:
/// to try again would change nothing.
///
/// # Errors
/// When something cannot be deleted for another reason.
pub(super) fn take_away(
    delete: impl Fn(&DfsPath, bool) -> Result<bool, StorageError> + Send + Sync,
    outputs: &[String],
    job: &str,
) -> Result<Vec<String>, ProgramError> {
    let refused = Mutex::new(Vec::new());
    let files = Deletes(|path: &DfsPath, recursive| match delete(path, recursive) {
        Err(error) if error.code == ErrorCode::PermissionDenied => {
            refused.lock().unwrap_or_else(PoisonError::into_inner).push(error.message);
            Ok(false)
        }
        result => result,
    });
    for output in outputs {
        clean_up(&files, &DfsPath::parse(output)?, job)?;
    }
    Ok(refused.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// A file system in which a function deletes, and nothing else is done.
struct Deletes<F>(F);

impl<F: Fn(&DfsPath, bool) -> Result<bool, StorageError> + Send + Sync> Files for Deletes<F> {
    fn stat(&self, _: &DfsPath) -> Result<Option<Entry>, StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn list(&self, _: &DfsPath) -> Result<Vec<Entry>, StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn blocks(&self, _: &DfsPath) -> Result<Vec<InputBlock>, StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn open(&self, _: &DfsPath, _: Range<u64>) -> Result<Box<dyn Input>, StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn make_directory(&self, _: &DfsPath) -> Result<(), StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn create(&self, _: &DfsPath) -> Result<Box<dyn Output>, StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn publish(&self, _: Vec<(DfsPath, DfsPath)>, _: DfsPath, _: DfsPath, _: OperationId) -> Result<(), StorageError> {
        unreachable!("a clean-up only deletes")
    }

    fn delete(&self, path: &DfsPath, recursive: bool) -> Result<bool, StorageError> {
        self.0(path, recursive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_deleted_is_told_and_every_other_error_is_one() {
        let outputs = ["/theirs".to_owned(), "/mine".to_owned()];
        let deleted = Mutex::new(Vec::new());
        let delete = |code: ErrorCode| {
            let deleted = &deleted;
            move |path: &DfsPath, recursive| {
                deleted.lock().unwrap().push((path.to_string(), recursive));
                let theirs = path.as_str().starts_with("/theirs");
                if theirs { Err(StorageError { code, message: format!("{path}: no") }) } else { Ok(true) }
            }
        };
        let refused = take_away(delete(ErrorCode::PermissionDenied), &outputs, "job-7");
        assert_eq!(refused, Ok(["/theirs/_temporary/job-7: no", "/theirs/_temporary: no"].map(str::to_owned).to_vec()));
        let mine = [("/mine/_temporary/job-7", true), ("/mine/_temporary", false), ("/mine", false)];
        assert_eq!(deleted.lock().unwrap()[2..], mine.map(|(path, recursive)| (path.to_owned(), recursive)));
        let error = take_away(delete(ErrorCode::Unavailable), &outputs, "job-7").unwrap_err();
        assert!(error.to_string().contains("/theirs/_temporary/job-7: no"), "{error}");
    }
}
