use std::iter::FusedIterator;

use super::{Dataset, Record};
use crate::program::error::ProgramError;

/// The records of a dataset, partition by partition; made by [`Dataset::to_local_iterator`].
#[must_use = "nothing is computed before the iterator is asked"]
pub struct LocalIterator<T> {
    /// None once nothing more is computed.
    dataset: Option<Dataset<T>>,
    /// What its actions are called.
    name: String,
    next: u32,
    /// Of the partition before the next one.
    records: std::vec::IntoIter<T>,
}

impl<T> LocalIterator<T> {
    pub(super) fn new(dataset: Dataset<T>, name: String) -> Self {
        Self { dataset: Some(dataset), name, next: 0, records: Vec::new().into_iter() }
    }
}

impl<T> std::fmt::Debug for LocalIterator<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalIterator").field("name", &self.name).field("next", &self.next).finish_non_exhaustive()
    }
}

impl<T: Record> Iterator for LocalIterator<T> {
    type Item = Result<T, ProgramError>;

    fn next(&mut self) -> Option<Result<T, ProgramError>> {
        loop {
            if let Some(record) = self.records.next() {
                return Some(Ok(record));
            }
            let dataset = self.dataset.as_ref()?;
            if self.next == dataset.partitions {
                self.dataset = None;
                return None;
            }
            // Not both at once in memory.
            self.records = Vec::new().into_iter();
            match dataset.collect_partition(&self.name, self.next) {
                Ok(records) => (self.records, self.next) = (records.into_iter(), self.next + 1),
                Err(error) => {
                    self.dataset = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<T: Record> FusedIterator for LocalIterator<T> {}
