//! Records as they are once they were moved.
//!
//! What serializes does not always come back whole: a field with serde's `skip` comes back as its default, a hash map with
//! its entries in another order. Whether records are moved to the disk depends on memory. So what a program has made and
//! may be moved within a task is given on as if it had been.

use std::any::{TypeId, type_name};

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::messages::scheduler::TaskFailure;

use super::records;
use crate::program::task::abort;
use crate::text::Text;

/// A buffer that one record made longer than this is not kept for the next.
const BUFFER_LEN_BYTES: usize = 1 << 20;

/// Makes of records what comes back of them.
pub(crate) struct Settling {
    bytes: Vec<u8>,
    /// Whether all comes back as it was.
    is_whole: bool,
}

impl Settling {
    /// For records of which nothing is lost.
    pub(crate) fn none() -> Self {
        Self { bytes: Vec::new(), is_whole: true }
    }

    /// For records of this type.
    pub(crate) fn of<T: 'static>() -> Self {
        Self { bytes: Vec::new(), is_whole: comes_back_whole(TypeId::of::<T>()) }
    }

    /// What comes back of a record. Ends the task if none does.
    #[inline]
    pub(crate) fn settle<T: Serialize + DeserializeOwned>(&mut self, record: T) -> T {
        if self.is_whole { record } else { self.move_through(record) }
    }

    fn move_through<T: Serialize + DeserializeOwned>(&mut self, record: T) -> T {
        let failed = |how: &str, error: &postcard::Error| -> ! {
            let message = format!("a record of the type {} {how}: {error}", type_name::<T>());
            abort(TaskFailure::Program { message })
        };
        if let Err(error) = records::append(&record, &mut self.bytes) {
            failed("cannot be serialized", &error);
        }
        drop(record);
        let back = match records::take(&mut &self.bytes[..]) {
            Ok(back) => back,
            Err(error) => failed("does not read back from what it serializes to", &error),
        };
        if self.bytes.capacity() > BUFFER_LEN_BYTES {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
        back
    }
}

macro_rules! whole_types {
    ($($whole:ty),*) => {
        /// Whether it is such a type, a list or an option of one, or a pair that begins with one.
        fn begins_with<T: 'static>(id: TypeId) -> bool {
            [TypeId::of::<T>(), TypeId::of::<Vec<T>>(), TypeId::of::<Option<T>>(), $(TypeId::of::<(T, $whole)>()),*]
                .contains(&id)
        }

        /// Whether values of a type are known to come back as they were: numbers, texts and simple things of them. Of all
        /// others nothing is known.
        fn comes_back_whole(id: TypeId) -> bool {
            [$(begins_with::<$whole>(id)),*].contains(&true)
        }
    };
}

whole_types!((), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, String, Text);

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Noted {
        value: u8,
        #[serde(skip)]
        note: u8,
    }

    #[test]
    fn what_does_not_come_back_is_gone_at_once() {
        let mut settling = Settling::of::<Noted>();
        assert_eq!(settling.settle(Noted { value: 1, note: 2 }), Noted { value: 1, note: 0 });
        assert_eq!(settling.settle(Noted { value: 3, note: 4 }), Noted { value: 3, note: 0 });
        assert!(!Settling::of::<(String, Noted)>().is_whole && !Settling::of::<Vec<Noted>>().is_whole);
        assert!(Settling::of::<(Text, u64)>().is_whole && Settling::of::<Vec<f64>>().is_whole);
    }
}
