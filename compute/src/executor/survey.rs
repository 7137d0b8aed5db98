//! What an earlier run of this executor, or tasks of this one, have left in the directories of jobs.

use std::path::Path;

use situ_runtime::disk::{Disk, DiskErrorKind};
use situ_wire::ids::{JobId, ShuffleId};
use situ_wire::messages::scheduler::{Holding, StageOutput, TaskDone};

use super::server::Directories;
use crate::shuffle::{OutputFile, ShuffleFileError, output_path};

/// A job in the directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Surveyed {
    pub(super) job: JobId,
    /// Whether no process of it can be at work there.
    pub(super) is_idle: bool,
}

/// All outputs of the tasks of these jobs. What is damaged, or was never finished, is removed. Blocks.
pub(super) fn survey<D: Disk>(disk: &D, directories: &Directories, jobs: &[Surveyed]) -> Vec<Holding> {
    let mut found = Vec::new();
    for surveyed in jobs {
        found.push(Holding::Job(surveyed.job));
        let work = directories.work(surveyed.job);
        for (shuffle, path) in entries(disk, &work) {
            let Ok(shuffle) = shuffle.parse::<ShuffleId>() else { continue };
            for (name, file) in entries(disk, &path) {
                if !name.ends_with(".new") {
                    found.extend(output(disk, &work, *surveyed, shuffle, &file));
                } else if surveyed.is_idle {
                    remove(disk, &file);
                }
            }
        }
    }
    found
}

/// What the job's task has left in a file, if it is whole.
fn output<D: Disk>(disk: &D, work: &Path, surveyed: Surveyed, shuffle: ShuffleId, path: &Path) -> Option<Holding> {
    match OutputFile::read(disk, path) {
        Ok(output) => {
            let header = output.header();
            if header.map.job == surveyed.job && output_path(work, shuffle, header.map) == path {
                let pieces = header.pieces.clone();
                let reducers = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
                let done = Box::new(TaskDone { pieces, ..TaskDone::default() });
                let output = StageOutput::Shuffle { shuffle, reducers };
                return Some(Holding::Left { attempt: header.map, output, done });
            }
            tracing::warn!(path = %path.display(), map = %header.map, "not the output that its name says; removed");
            remove(disk, path);
        }
        // A shuffle that is released meanwhile.
        Err(ShuffleFileError::Disk(error)) if error.kind == DiskErrorKind::NotFound => {}
        Err(error @ ShuffleFileError::Disk(_)) => {
            tracing::warn!(%error, "the output of a task cannot be read; the task runs again");
        }
        Err(error) => {
            tracing::warn!(%error, "removed");
            remove(disk, path);
        }
    }
    None
}

/// Names and paths of what is in a directory; nothing if it is not there.
fn entries<D: Disk>(disk: &D, directory: &Path) -> Vec<(String, std::path::PathBuf)> {
    match disk.list(directory) {
        Ok(entries) => entries.into_iter().map(|entry| (entry.name.clone(), directory.join(entry.name))).collect(),
        Err(error) => {
            if error.kind != DiskErrorKind::NotFound {
                tracing::warn!(%error, "what tasks have left there is computed again");
            }
            Vec::new()
        }
    }
}

fn remove<D: Disk>(disk: &D, path: &Path) {
    if let Err(error) = disk.remove_file(path)
        && error.kind != DiskErrorKind::NotFound
    {
        tracing::warn!(%error, "what nobody needs any more could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use situ_runtime::disk::memory::MemoryDisk;
    use situ_runtime::disk::{File, OpenMode};
    use situ_wire::ids::{PartitionId, ScopeId, StageId, TaskAttemptId};
    use situ_wire::messages::executor::ShufflePiece;

    use super::*;
    use crate::shuffle::Header;

    const JOB: JobId = JobId(1);

    /// A directory with the output of three map tasks.
    fn outputs() -> (MemoryDisk, Directories, Vec<std::path::PathBuf>) {
        let (disk, directories) = (MemoryDisk::default(), Directories("/executor".into()));
        let write = |partition| {
            let map = TaskAttemptId {
                job: JOB,
                stage: StageId(ScopeId::ROOT, 2),
                partition: PartitionId(partition),
                attempt: 4,
            };
            let pieces = vec![ShufflePiece { len_bytes: 3, crc32c: 7, records: 1 }; 2];
            let header = Header { map, shuffle: ShuffleId(ScopeId::ROOT, 5), pieces };
            let path = output_path(&directories.work(JOB), ShuffleId(ScopeId::ROOT, 5), map);
            write(&disk, &path, &[header.encode(), b"abcdef".to_vec()].concat());
            path
        };
        let paths = (0..3).map(write).collect();
        (disk, directories, paths)
    }

    fn write(disk: &MemoryDisk, path: &Path, bytes: &[u8]) {
        disk.create_directory(path.parent().unwrap()).unwrap();
        disk.open(path, OpenMode::Truncate).unwrap().write_at(0, bytes).unwrap();
    }

    fn found(disk: &MemoryDisk, directories: &Directories, is_idle: bool) -> Vec<u32> {
        let found = survey(disk, directories, &[Surveyed { job: JOB, is_idle }]);
        assert_eq!(found[0], Holding::Job(JOB));
        let mut partitions = Vec::new();
        for holding in &found[1..] {
            let Holding::Left { attempt, output, done } = holding else { panic!("{holding:?}") };
            assert_eq!(*output, StageOutput::Shuffle { shuffle: ShuffleId(ScopeId::ROOT, 5), reducers: 2 });
            assert_eq!((done.pieces.len(), attempt.attempt), (2, 4));
            partitions.push(attempt.partition.0);
        }
        partitions
    }

    #[test]
    fn whole_outputs_are_found_and_what_is_damaged_is_removed() {
        let (disk, directories, paths) = outputs();
        assert_eq!(found(&disk, &directories, true), [0, 1, 2]);
        disk.open(&paths[0], OpenMode::Write).unwrap().write_at(20, b"\xff").unwrap();
        let cut = disk.open(&paths[1], OpenMode::Write).unwrap();
        cut.set_len(cut.len().unwrap() - 1).unwrap();
        assert_eq!(found(&disk, &directories, true), [2]);
        assert!(!disk.exists(&paths[0]).unwrap() && !disk.exists(&paths[1]).unwrap());
    }

    #[test]
    fn what_stands_under_another_name_does_not_count_and_what_is_being_written_stays() {
        let (disk, directories, paths) = outputs();
        let other = paths[0].with_file_name("partition-9-attempt-4");
        disk.rename(&paths[0], &other).unwrap();
        let new = paths[0].with_file_name("partition-7-attempt-0.new");
        write(&disk, &new, b"SITU");
        write(&disk, &directories.work(JOB).join("spill").join("x"), b"");
        assert_eq!(found(&disk, &directories, false), [1, 2]);
        assert!(disk.exists(&new).unwrap() && !disk.exists(&other).unwrap());
        assert_eq!(found(&disk, &directories, true), [1, 2]);
        assert!(!disk.exists(&new).unwrap());
        // Another job's file, moved here.
        let moved = output_path(
            &directories.work(JobId(2)),
            ShuffleId(ScopeId::ROOT, 5),
            TaskAttemptId { job: JOB, stage: StageId(ScopeId::ROOT, 2), partition: PartitionId(1), attempt: 4 },
        );
        disk.create_directory(moved.parent().unwrap()).unwrap();
        disk.rename(&paths[1], &moved).unwrap();
        assert_eq!(survey(&disk, &directories, &[Surveyed { job: JobId(2), is_idle: true }]), [Holding::Job(JobId(2))]);
    }
}
