//! Actions: what makes datasets be computed.

use std::any::type_name;
use std::ops::Range;
use std::panic::Location;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::graph::{ActionTask, Parent, ResultTask};
use super::local_iterator::LocalIterator;
use super::record::{FirstRecord, Record};
use super::results::{ActionParts, ResultWriter, inline_len_bytes};
use super::{Context, Dataset, Records};
use crate::program::error::ProgramError;
use crate::program::task::TaskContext;

impl<T: 'static> Dataset<T> {
    /// All records, in the order of the partitions. The memory of the driver is the bound; [`Dataset::to_local_iterator`]
    /// takes that of one partition.
    ///
    /// Where the program goes on to compute with them, every process of the job gets them, and needs the memory for them: a
    /// worker fetches what is large when a task needs what comes behind. Where only the driver does something with them, let
    /// that stand in a [`Context::scope`] that returns what the rest of the program needs: a worker that comes late passes
    /// over it.
    ///
    /// What is short (256 KiB of a partition, 4 MiB of all) goes by way of the scheduler; the rest is files in the job's own
    /// directory, which go at the end of the scope, or of the job.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn collect(&self) -> Result<Vec<T>, ProgramError>
    where
        T: Record,
    {
        let name = Context::name("collect", Location::caller());
        let written = name.clone();
        let parts = self.compute_each(&name, 0..self.partitions, move |task, records, limit| {
            encode_all(task, &written, limit, records)
        })?;
        let mut all = Vec::new();
        self.context.decode_all(&name, &parts, &mut all)?;
        Ok(all)
    }

    /// All records, in the order of the partitions, of which each is an action of its own that runs when the iterator comes
    /// to it: the driver needs memory for one. In every process of the job it gives the same records.
    ///
    /// ```
    /// # let directory = std::env::temp_dir().join(format!("situ-doc-local-iterator-{}", std::process::id()));
    /// # let context = situ_compute::testing::context(&directory);
    /// let squares = context.parallelize((0..10_u64).collect(), 5).map(|number| number * number);
    /// let mut sum = 0;
    /// for square in squares.to_local_iterator() {
    ///     sum += square?;
    /// }
    /// assert_eq!(sum, 285);
    /// # std::fs::remove_dir_all(&directory).ok();
    /// # Ok::<(), situ_compute::ProgramError>(())
    /// ```
    ///
    /// What stands before in the lineage is computed again for each partition that needs it, but for shuffles: `persist` it
    /// where that costs. An error is the last item.
    #[track_caller]
    pub fn to_local_iterator(&self) -> LocalIterator<T>
    where
        T: Record,
    {
        LocalIterator::new(self.clone(), Context::name("to_local_iterator", Location::caller()))
    }

    /// The records of one partition.
    pub(super) fn collect_partition(&self, name: &str, partition: u32) -> Result<Vec<T>, ProgramError>
    where
        T: Record,
    {
        let written = name.to_owned();
        let parts = self.compute_each(name, partition..partition + 1, move |task, records, limit| {
            encode_all(task, &written, limit, records)
        })?;
        let mut all = Vec::new();
        self.context.decode_all(name, &parts, &mut all)?;
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
        T: Record,
    {
        let name = Context::name("take", Location::caller());
        let mut found = Vec::new();
        let (mut next, mut width) = (0, 1_u32);
        while found.len() < limit && next < self.partitions {
            let end = next.saturating_add(width).min(self.partitions);
            let (missing, written) = (limit - found.len(), name.clone());
            let parts = self.compute_each(&name, next..end, move |task, records, limit| {
                encode_all(task, &written, limit, records.take(missing))
            })?;
            self.context.decode_all(&name, &parts, &mut found)?;
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
        T: Record,
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
        T: Record,
    {
        let name = Context::name("reduce", Location::caller());
        let function = Arc::new(function);
        let shared = Arc::clone(&function);
        let parts = self.reduce_each(&name, move |_, records| records.reduce(|one, other| shared(one, other)))?;
        Ok(parts.into_iter().reduce(|one, other| function(one, other)))
    }

    /// Calls `function` with every record, in the workers. A task that fails or is slow is run again elsewhere, so `function`
    /// may see a record more than once; in a check of the replay it is not called a second time for that.
    ///
    /// # Errors
    /// When the job fails.
    #[track_caller]
    pub fn for_each(&self, function: impl Fn(T) + Send + Sync + 'static) -> Result<(), ProgramError> {
        let name = Context::name("for_each", Location::caller());
        let compute = Arc::clone(&self.compute);
        let task: ResultTask = Arc::new(move |task, partition| {
            compute(task, partition).for_each(&function);
            Bytes::new()
        });
        let task = ActionTask { task, checked: false, for_driver: true };
        self.context.run_action(name, Parent::whole(&self.node), task).map(drop)
    }

    /// One value a partition, where there is any.
    pub(super) fn reduce_each<R: Serialize + DeserializeOwned + 'static>(
        &self,
        name: &str,
        function: impl Fn(u32, Records<T>) -> Option<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>, ProgramError> {
        let written = name.to_owned();
        let parts = self.compute_each(name, 0..self.partitions, move |task, records, limit| {
            encode_all(task, &written, limit, function(task.attempt().partition.0, records).into_iter())
        })?;
        let mut values = Vec::with_capacity(parts.parts.len());
        self.context.decode_all(name, &parts, &mut values)?;
        Ok(values)
    }

    /// Runs an action over some partitions. The function hears how long a result may be that is no file.
    fn compute_each(
        &self,
        name: &str,
        partitions: Range<u32>,
        function: impl Fn(&TaskContext, Records<T>, usize) -> Bytes + Send + Sync + 'static,
    ) -> Result<ActionParts, ProgramError> {
        let compute = Arc::clone(&self.compute);
        let (first, count) = (partitions.start, partitions.end - partitions.start);
        let limit = inline_len_bytes(count);
        let task: ResultTask = Arc::new(move |task, partition| function(task, compute(task, first + partition), limit));
        let task = ActionTask { task, checked: true, for_driver: false };
        self.context.run_action(name.to_owned(), Parent::part(&self.node, 0, first, count), task)
    }
}

/// Encodes records as a result of the action of that name.
fn encode_all<T: Serialize + DeserializeOwned>(
    task: &TaskContext,
    action: &str,
    limit: usize,
    records: impl Iterator<Item = T>,
) -> Bytes {
    let mut writer = ResultWriter::new(task, limit);
    let mut first = FirstRecord::of(action, type_name::<T>());
    for record in records {
        first.check(&record);
        writer.append(&record);
    }
    writer.finish()
}
