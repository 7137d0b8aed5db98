//! Records that wait in memory to be handed on.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::write::{PieceWriter, SpoolRecords};
use crate::program::memory::Reservation;
use crate::program::task::TaskContext;

/// How records go to the worker's disk and come back.
pub(super) trait Moves<T> {
    /// Writes a record, in parts if it likes.
    fn write(&self, writer: &mut PieceWriter, record: T);

    /// The next record.
    fn next(&mut self, records: &mut SpoolRecords<T>) -> Option<T>;
}

/// Each as one.
pub(super) struct Whole;

impl<T: Serialize + DeserializeOwned> Moves<T> for Whole {
    fn write(&self, writer: &mut PieceWriter, record: T) {
        writer.write(0, &record);
    }

    fn next(&mut self, records: &mut SpoolRecords<T>) -> Option<T> {
        records.next()
    }
}

/// Gives `records`, which take what `memory` holds. When another operator of the task needs that, what is left of them
/// moves to the worker's disk, and is given from there.
pub(super) fn resident<T, I, M>(task: TaskContext, records: I, memory: Reservation, moves: M) -> impl Iterator<Item = T>
where
    T: Serialize + DeserializeOwned + 'static,
    I: Iterator<Item = T>,
    M: Moves<T>,
{
    memory.listen();
    Resident { place: Place::Held { task, records, memory }, moves }
}

struct Resident<T, I, M> {
    place: Place<T, I>,
    moves: M,
}

enum Place<T, I> {
    Held {
        task: TaskContext,
        records: I,
        memory: Reservation,
    },
    Moved(SpoolRecords<T>),
    /// While they move.
    Moving,
}

impl<T: Serialize + DeserializeOwned + 'static, I: Iterator<Item = T>, M: Moves<T>> Resident<T, I, M> {
    #[inline(never)]
    fn move_out(&mut self) {
        if let Place::Held { task, records, memory } = std::mem::replace(&mut self.place, Place::Moving) {
            let mut writer = PieceWriter::spool(&task, 1);
            records.for_each(|record| self.moves.write(&mut writer, record));
            drop(memory);
            self.place = Place::Moved(writer.into_spool().take(0));
        }
    }
}

impl<T: Serialize + DeserializeOwned + 'static, I: Iterator<Item = T>, M: Moves<T>> Iterator for Resident<T, I, M> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        loop {
            match &mut self.place {
                Place::Held { memory, .. } if memory.is_asked() => self.move_out(),
                Place::Held { records, .. } => return records.next(),
                Place::Moved(records) => return self.moves.next(records),
                Place::Moving => return None,
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.place {
            Place::Held { records, .. } => records.size_hint(),
            Place::Moved(_) | Place::Moving => (0, None),
        }
    }
}
