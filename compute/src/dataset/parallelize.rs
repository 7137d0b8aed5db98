use std::panic::Location;
use std::sync::Arc;

use super::{Context, Dataset, Records};

impl Context {
    /// A dataset of these records, cut into `partitions` parts of about the same length. They are part of the program:
    /// every worker builds them by itself.
    #[track_caller]
    pub fn parallelize<T: Clone + Send + Sync + 'static>(&self, records: Vec<T>, partitions: u32) -> Dataset<T> {
        let partitions = partitions.max(1);
        let records = Arc::new(records);
        let name = Context::name("parallelize", Location::caller());
        self.add(name, Vec::new(), partitions, None, move |_, partition| {
            let cut = |partition: u32| {
                let cut = records.len() as u128 * u128::from(partition) / u128::from(partitions);
                usize::try_from(cut).expect("a cut is within the records")
            };
            let (records, end) = (Arc::clone(&records), cut(partition + 1));
            let mut next = cut(partition);
            Records::new(std::iter::from_fn(move || {
                let record = if next < end { records.get(next).cloned() } else { None };
                next += 1;
                record
            }))
        })
    }
}
