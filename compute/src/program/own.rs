//! The results of tasks in their job's own directory: those that are too long to go by way of the scheduler.
//!
//! They are files, as other data: replicated, checked as they are read, there when the executor that made one is not, and
//! the scheduler or the driver is another. They go with their scope, or with the job.

use situ_wire::error::ErrorCode;
use situ_wire::ids::{PartitionId, ScopeId, StageId, TaskAttemptId};
use situ_wire::path::DfsPath;

use super::error::StorageError;
use super::world::{Files, Output};

/// Where below a job's own directory they are.
const RESULTS: &str = "results";

/// The directory of the results of a scope.
pub(crate) fn results_directory(own: &DfsPath, scope: ScopeId) -> Result<DfsPath, StorageError> {
    at(own, &[RESULTS, &scope.to_string()])
}

/// The file that an attempt at a task leaves its result in. Each attempt has its own: the scheduler is told which counts.
pub(crate) fn result_path(
    own: &DfsPath,
    stage: StageId,
    PartitionId(partition): PartitionId,
    attempt: u32,
) -> Result<DfsPath, StorageError> {
    at(&results_directory(own, stage.0)?, &[&format!("{stage}-{partition}-{attempt}")])
}

fn at(directory: &DfsPath, names: &[&str]) -> Result<DfsPath, StorageError> {
    names.iter().try_fold(directory.clone(), |directory, name| {
        directory
            .join(name)
            .map_err(|error| StorageError { code: ErrorCode::InvalidArgument, message: error.to_string() })
    })
}

/// Makes that file.
pub(super) fn create_result(
    files: &dyn Files,
    own: &DfsPath,
    of: TaskAttemptId,
) -> Result<Box<dyn Output>, StorageError> {
    let TaskAttemptId { stage, partition, attempt, .. } = of;
    let path = result_path(own, stage, partition, attempt)?;
    match files.create(&path) {
        // It is the first of its scope.
        Err(error) if error.code == ErrorCode::NotFound => {
            files.make_own_directory(own)?;
            files.make_directory(&results_directory(own, stage.0)?)?;
            files.create(&path)
        }
        // A worker had this attempt before, and is gone.
        Err(error) if matches!(error.code, ErrorCode::AlreadyExists | ErrorCode::BeingWritten) => {
            files.delete(&path, false)?;
            files.create(&path)
        }
        created => created,
    }
}
