//! Actions: what makes datasets be computed.

use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::limits::TASK_RESULT_LEN_BYTES;
use situ_wire::messages::scheduler::TaskFailure;

use super::graph::ResultTask;
use super::places::Places;
use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::task::{TaskContext, abort};
use crate::shuffle::records;

impl<T: 'static> Dataset<T> {
    /// All records, in the order of the partitions.
    ///
    /// # Errors
    /// When the job fails, among others because a partition is too large to be sent to the driver.
    #[track_caller]
    pub fn collect(&self) -> Result<Vec<T>, ProgramError>
    where
        T: Serialize + DeserializeOwned,
    {
        let name = Context::name("collect", Location::caller());
        let parts = self.compute_each(&name, 0..self.partitions, encode_all)?;
        let mut all = Vec::new();
        for part in parts {
            decode_all(&name, &part, &mut all)?;
        }
        Ok(all)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn count(&self) -> Result<u64, ProgramError> {
        let name = Context::name("count", Location::caller());
        let counts = self.reduce_each(&name, |_, records| Some(records.count() as u64))?;
        Ok(counts.into_iter().sum())
    }

    /// The first `limit` records, in the order of the partitions. Only as many partitions are computed as it takes.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn take(&self, limit: usize) -> Result<Vec<T>, ProgramError>
    where
        T: Serialize + DeserializeOwned,
    {
        let name = Context::name("take", Location::caller());
        let mut found = Vec::new();
        let (mut next, mut width) = (0, 1_u32);
        while found.len() < limit && next < self.partitions {
            let end = next.saturating_add(width).min(self.partitions);
            let missing = limit - found.len();
            let parts =
                self.compute_each(&name, next..end, move |task, records| encode_all(task, records.take(missing)))?;
            for part in parts {
                decode_all(&name, &part, &mut found)?;
            }
            (next, width) = (end, width.saturating_mul(4));
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The first record, if there is any.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn first(&self) -> Result<Option<T>, ProgramError>
    where
        T: Serialize + DeserializeOwned,
    {
        Ok(self.take(1)?.pop())
    }

    /// All records combined by `function`, which must not depend on their order; none if there are no records.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Send + Sync + 'static) -> Result<Option<T>, ProgramError>
    where
        T: Serialize + DeserializeOwned,
    {
        let name = Context::name("reduce", Location::caller());
        let function = Arc::new(function);
        let shared = Arc::clone(&function);
        let parts = self.reduce_each(&name, move |_, records| records.reduce(|one, other| shared(one, other)))?;
        Ok(parts.into_iter().reduce(|one, other| function(one, other)))
    }

    /// Calls `function` with every record, in the workers.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn for_each(&self, function: impl Fn(T) + Send + Sync + 'static) -> Result<(), ProgramError> {
        let name = Context::name("for_each", Location::caller());
        self.reduce_each::<()>(&name, move |_, records| {
            records.for_each(&function);
            None
        })?;
        Ok(())
    }

    /// One value a partition, where there is any.
    pub(super) fn reduce_each<R: Serialize + DeserializeOwned + 'static>(
        &self,
        name: &str,
        function: impl Fn(u32, Records<T>) -> Option<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>, ProgramError> {
        let parts = self.compute_each(name, 0..self.partitions, move |task, records| {
            encode_all(task, function(task.attempt().partition.0, records).into_iter())
        })?;
        let mut values = Vec::with_capacity(parts.len());
        for part in parts {
            decode_all(name, &part, &mut values)?;
        }
        Ok(values)
    }

    /// Runs an action over some partitions.
    pub(super) fn compute_each(
        &self,
        name: &str,
        partitions: Range<u32>,
        function: impl Fn(&TaskContext, Records<T>) -> Bytes + Send + Sync + 'static,
    ) -> Result<Vec<Bytes>, ProgramError> {
        let preferred = self
            .preferred
            .as_ref()
            .map(|places| Arc::new(Places::Each(places.slice(partitions.start as usize..partitions.end as usize))));
        let compute = Arc::clone(&self.compute);
        let (first, count) = (partitions.start, partitions.end - partitions.start);
        let task: ResultTask = Arc::new(move |task, partition| function(task, compute(task, first + partition)));
        self.context.run_action(name.to_owned(), self.id, count, preferred, |_| task)
    }
}

/// Encodes records behind their number.
fn encode_all<T: Serialize>(task: &TaskContext, records: impl Iterator<Item = T>) -> Bytes {
    let mut out = vec![0; 8];
    let mut count = 0_u64;
    for record in records {
        if let Err(error) = records::append(&record, &mut out) {
            abort(TaskFailure::Program { message: format!("a record cannot be serialized: {error}") });
        }
        count += 1;
        if out.len() > TASK_RESULT_LEN_BYTES {
            abort(TaskFailure::Program {
                message: format!(
                    "the result of one partition is over {TASK_RESULT_LEN_BYTES} bytes, too much to send to the driver; \
                     use save_as_text_file, take, or more partitions"
                ),
            });
        }
    }
    out[..8].copy_from_slice(&count.to_le_bytes());
    task.measure(|metrics| metrics.records += count);
    out.into()
}

/// Appends what [`encode_all`] encoded.
fn decode_all<T: DeserializeOwned>(action: &str, bytes: &[u8], into: &mut Vec<T>) -> Result<(), ProgramError> {
    let wrong = |message: String| ProgramError::Result { action: action.to_owned(), message };
    let Some((count, mut rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!("{} bytes", bytes.len())));
    };
    for _ in 0..u64::from_le_bytes(*count) {
        into.push(records::take(&mut rest).map_err(|error| wrong(error.to_string()))?);
    }
    if rest.is_empty() { Ok(()) } else { Err(wrong(format!("{} bytes too many", rest.len()))) }
}
