//! What is answered by jobs whose drivers are attached: the graph that driver and workers share.

use situ_compute::{Context, ProgramError};

/// The sum of the numbers below `end`, by two tasks.
///
/// # Errors
/// When the job has ended.
pub fn sum_below(context: &Context, end: u64) -> Result<u64, ProgramError> {
    let numbers = context.parallelize((0..end).collect(), 2);
    Ok(numbers.map_partitions(|numbers| std::iter::once(numbers.sum::<u64>())).collect()?.into_iter().sum())
}

/// The next question, as `ask` gives it to the driver; none when there are no more.
///
/// # Errors
/// When the job has ended.
pub fn next(context: &Context, ask: impl FnOnce() -> Option<String>) -> Result<Option<String>, ProgramError> {
    context.once(ask)
}
