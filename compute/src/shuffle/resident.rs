//! Records that wait in memory to be handed on.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::write::{PieceWriter, SpoolRecords};
use crate::program::memory::Reservation;
use crate::program::task::TaskContext;

/// Gives `records`, which take what `memory` holds. When another operator of the task needs that, what is left of them
/// moves to the worker's disk, and is given from there.
pub(super) fn resident<T, I>(task: TaskContext, records: I, memory: Reservation) -> impl Iterator<Item = T>
where
    T: Serialize + DeserializeOwned + 'static,
    I: Iterator<Item = T>,
{
    memory.listen();
    Resident::Held { task, records, memory }
}

enum Resident<T, I> {
    Held {
        task: TaskContext,
        records: I,
        memory: Reservation,
    },
    Moved(SpoolRecords<T>),
    /// While they move.
    Moving,
}

impl<T: Serialize + DeserializeOwned + 'static, I: Iterator<Item = T>> Resident<T, I> {
    #[inline(never)]
    fn move_out(&mut self) {
        if let Self::Held { task, records, memory } = std::mem::replace(self, Self::Moving) {
            let mut writer = PieceWriter::spool(&task, 1);
            records.for_each(|record| writer.write(0, &record));
            drop(memory);
            *self = Self::Moved(writer.into_spool().take(0));
        }
    }
}

impl<T: Serialize + DeserializeOwned + 'static, I: Iterator<Item = T>> Iterator for Resident<T, I> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            match self {
                Self::Held { memory, .. } if memory.is_asked() => self.move_out(),
                Self::Held { records, .. } => return records.next(),
                Self::Moved(records) => return records.next(),
                Self::Moving => return None,
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Held { records, .. } => records.size_hint(),
            Self::Moved(_) | Self::Moving => (0, None),
        }
    }
}
