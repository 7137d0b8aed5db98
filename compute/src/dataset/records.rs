/// How many records are handed over at once.
///
/// Enough that a call through a pointer is paid by many records, and that a record has left the processor's store buffer
/// before it is read again, which is what makes handing over one by one slow. Few enough that long records do not fill
/// the memory.
const BATCH: usize = 32;

/// The records of one partition, as they come.
///
/// An iterator whose type is hidden, as [`Box<dyn Iterator>`](Iterator) is, with one difference that matters: taken all
/// at once (`for_each`, `fold`, `count`, `collect` and what builds on them) it asks the hidden iterator once and is
/// handed the records in batches, instead of asking for each. Adapters of the standard library pass that on, so no
/// operation of a chain costs a call through a pointer or memory of its own for every record.
pub struct Records<T>(Box<dyn Hidden<T>>);

impl<T: 'static> Records<T> {
    /// Hides the type of `records`.
    pub fn new(records: impl Iterator<Item = T> + 'static) -> Self {
        Self(Box::new(records))
    }
}

impl<T> std::fmt::Debug for Records<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

trait Hidden<T> {
    fn pull(&mut self) -> Option<T>;
    fn hint(&self) -> (usize, Option<usize>);
    /// Hands over all records. `sink` empties what it is given.
    fn push_all(self: Box<Self>, sink: &mut dyn FnMut(&mut Vec<T>));
}

impl<T, I: Iterator<Item = T>> Hidden<T> for I {
    fn pull(&mut self) -> Option<T> {
        self.next()
    }

    fn hint(&self) -> (usize, Option<usize>) {
        self.size_hint()
    }

    fn push_all(self: Box<Self>, sink: &mut dyn FnMut(&mut Vec<T>)) {
        let mut batch = Vec::with_capacity(BATCH);
        (*self).for_each(|record| {
            batch.push(record);
            if batch.len() == BATCH {
                sink(&mut batch);
            }
        });
        sink(&mut batch);
    }
}

impl<T> Iterator for Records<T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.0.pull()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.hint()
    }

    #[inline]
    fn fold<B, F: FnMut(B, T) -> B>(self, init: B, mut f: F) -> B {
        let mut accumulator = Some(init);
        self.0.push_all(&mut |batch| {
            let before = accumulator.take().expect("it is put back below");
            accumulator = Some(batch.drain(..).fold(before, &mut f));
        });
        accumulator.expect("it was put back")
    }
}
