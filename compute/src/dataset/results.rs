//! Results of tasks on their way to whoever runs the program: short ones go by way of the scheduler, which keeps them as long
//! as the job; of the others it keeps where they are, which is a file in the job's own directory.

use blake3::Hasher;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use situ_wire::codec;
use situ_wire::ids::{PartitionId, ScopeId, StageId};
use situ_wire::limits::TASK_RESULT_LEN_BYTES;
use situ_wire::messages::scheduler::TaskFailure;

use super::Context;
use super::values::read_checked;
use crate::program::error::{ProgramError, StorageError};
use crate::program::own::{result_path, results_directory};
use crate::program::task::{TaskContext, abort, abort_storage};
use crate::program::world::Output;
use crate::shuffle::records;

/// How long the results of one action may be together that are no files, unless it has very many partitions.
const INLINE_LEN_BYTES: usize = 4 << 20;
/// What says where a result is takes about as much: what is shorter is no file.
const PLACE_LEN_BYTES: usize = 64;
/// How much of a file is written at a time.
const WRITE_LEN_BYTES: usize = 1 << 20;

/// How long a result of an action over so many partitions may be that is no file.
pub(super) fn inline_len_bytes(partitions: u32) -> usize {
    let share = INLINE_LEN_BYTES / usize::try_from(partitions.max(1)).unwrap_or(usize::MAX);
    share.clamp(PLACE_LEN_BYTES, TASK_RESULT_LEN_BYTES - PLACE_LEN_BYTES)
}

/// What an action has given.
pub(super) struct ActionParts {
    /// Its stage.
    pub(super) stage: StageId,
    /// The result of each partition, in order.
    pub(super) parts: Vec<Bytes>,
}

/// The result of one partition.
#[derive(Serialize, Deserialize)]
struct Part {
    /// How many records: one may take no byte.
    records: u64,
    place: Place,
}

#[derive(Serialize, Deserialize)]
enum Place {
    Inline(Bytes),
    /// In a file of its own.
    Stored {
        /// Which attempt has written it.
        attempt: u32,
        len_bytes: u64,
        /// The BLAKE3 hash of its bytes.
        hash: [u8; 32],
    },
}

/// Takes the records of a task's result.
pub(super) struct ResultWriter<'a> {
    task: &'a TaskContext,
    limit: usize,
    count: u64,
    /// What is not in the file.
    bytes: Vec<u8>,
    file: Option<ResultFile>,
}

struct ResultFile {
    output: Box<dyn Output>,
    hasher: Hasher,
    len_bytes: u64,
}

impl<'a> ResultWriter<'a> {
    /// A result that is a file when it becomes longer than `limit` bytes.
    pub(super) fn new(task: &'a TaskContext, limit: usize) -> Self {
        Self { task, limit, count: 0, bytes: Vec::new(), file: None }
    }

    pub(super) fn append<T: Serialize>(&mut self, record: &T) {
        if let Err(error) = records::append(record, &mut self.bytes) {
            abort(TaskFailure::Program { message: format!("a record cannot be serialized: {error}") });
        }
        self.count += 1;
        let most = if self.file.is_some() { WRITE_LEN_BYTES } else { self.limit };
        if self.bytes.len() > most {
            self.write();
        }
    }

    /// Moves what there is to the file.
    fn write(&mut self) {
        let Self { task, bytes, file, .. } = self;
        task.go_on();
        let file = file.get_or_insert_with(|| {
            let output = task.world().create_result(task.attempt()).unwrap_or_else(|error| abort_storage(&error));
            ResultFile { output, hasher: Hasher::new(), len_bytes: 0 }
        });
        let bytes = Bytes::from(std::mem::replace(bytes, Vec::with_capacity(WRITE_LEN_BYTES + WRITE_LEN_BYTES / 8)));
        file.hasher.update(&bytes);
        file.len_bytes += bytes.len() as u64;
        for start in (0..bytes.len()).step_by(WRITE_LEN_BYTES) {
            let piece = bytes.slice(start..bytes.len().min(start + WRITE_LEN_BYTES));
            file.output.write(piece).unwrap_or_else(|error| abort_storage(&error));
        }
    }

    /// What is told of it. A file is durable by then.
    pub(super) fn finish(mut self) -> Bytes {
        if self.file.is_some() && !self.bytes.is_empty() {
            self.write();
        }
        let Self { task, count, bytes, file, .. } = self;
        task.measure(|metrics| metrics.records += count);
        let place = match file {
            None => Place::Inline(bytes.into()),
            Some(ResultFile { output, hasher, len_bytes }) => {
                output.close().unwrap_or_else(|error| abort_storage(&error));
                let hash = *hasher.finalize().as_bytes();
                Place::Stored { attempt: task.attempt().attempt, len_bytes, hash }
            }
        };
        codec::encode(&Part { records: count, place }).expect("what is longer than the limit is a file")
    }
}

/// What is told of a result that is whole already: it is a file if it is too long.
pub(crate) fn told_of(task: &TaskContext, partitions: u32, result: Bytes) -> Bytes {
    let mut writer = ResultWriter::new(task, inline_len_bytes(partitions));
    writer.bytes = result.into();
    if writer.bytes.len() > writer.limit {
        writer.write();
    }
    writer.finish()
}

impl Context {
    /// Deletes the files of a scope that has ended. What cannot be deleted now goes with the job.
    pub(super) fn forget_results(&self, scope: ScopeId) {
        let Some(files) = self.backend().driver_files() else { return };
        let forgotten = self.backend().own_directory().map_err(|error| error.to_string()).and_then(|own| {
            let forget = || files.delete(&results_directory(&own, scope)?, true);
            forget().map_err(|error: StorageError| error.message)
        });
        if let Err(error) = forgotten {
            tracing::warn!(%scope, error, "results of a scope that has ended stay until the job ends");
        }
    }

    /// Appends the records of an action of that name, in the order of its partitions.
    pub(super) fn decode_all<T: DeserializeOwned>(
        &self,
        name: &str,
        parts: &ActionParts,
        into: &mut Vec<T>,
    ) -> Result<(), ProgramError> {
        let wrong = |message: String| ProgramError::Result { action: name.to_owned(), message };
        for (partition, part) in (0..).map(PartitionId).zip(&parts.parts) {
            let (count, bytes) = self.fetch_part(name, parts.stage, partition, part)?;
            let mut rest = bytes.as_ref();
            for _ in 0..count {
                into.push(records::take(&mut rest).map_err(|error| wrong(error.to_string()))?);
            }
            if !rest.is_empty() {
                return Err(wrong(format!("{} bytes too many", rest.len())));
            }
        }
        Ok(())
    }

    /// The results of an action of that name as tasks have given them, in the order of its partitions.
    pub(super) fn fetch_all(&self, name: &str, parts: &ActionParts) -> Result<Vec<Bytes>, ProgramError> {
        let numbered = (0..).map(PartitionId).zip(&parts.parts);
        let fetch = |(partition, part): (PartitionId, &Bytes)| {
            self.fetch_part(name, parts.stage, partition, part).map(|(_, bytes)| bytes)
        };
        numbered.map(fetch).collect()
    }

    /// How many records the result of a partition has, and their bytes.
    fn fetch_part(
        &self,
        name: &str,
        stage: StageId,
        partition: PartitionId,
        part: &Bytes,
    ) -> Result<(u64, Bytes), ProgramError> {
        let wrong = |message: String| ProgramError::Result { action: name.to_owned(), message };
        let Part { records, place } = codec::decode(part).map_err(|error| wrong(error.to_string()))?;
        let (attempt, len_bytes, hash) = match place {
            Place::Inline(bytes) => return Ok((records, bytes)),
            Place::Stored { attempt, len_bytes, hash } => (attempt, len_bytes, hash),
        };
        self.here().stores_results();
        self.backend().wait_for_need()?;
        let own = self.backend().own_directory()?;
        let read = || {
            let path = result_path(&own, stage, partition, attempt)?;
            read_checked(self.backend().files(), &path, 0..len_bytes, &hash, || ())
        };
        let unreadable =
            |error: StorageError| ProgramError::ResultUnreadable { action: name.to_owned(), message: error.message };
        Ok((records, read().map_err(unreadable)?))
    }
}

#[cfg(test)]
mod tests {
    use situ_wire::limits::MESSAGE_LEN_BYTES;

    use super::*;

    #[test]
    fn the_results_of_an_action_fit_into_a_message() {
        let len = |place: Place| codec::encode(&Part { records: u64::MAX, place }).unwrap().len();
        let stored = Place::Stored { attempt: u32::MAX, len_bytes: u64::MAX, hash: [7; 32] };
        assert!(len(stored) <= PLACE_LEN_BYTES);
        for partitions in [1, 15, 16, 17, 1_000, 65_536, 65_537, 180_000] {
            let longest = inline_len_bytes(partitions);
            let part = len(Place::Inline(vec![7; longest].into()));
            assert!(part <= TASK_RESULT_LEN_BYTES, "{partitions}: {part}");
            // In an answer each stands behind its length.
            let all = (part + 5) * usize::try_from(partitions).unwrap();
            assert!(all < MESSAGE_LEN_BYTES - (64 << 10), "{partitions}: {all}");
        }
    }
}
