//! Records as bytes: each in postcard, one behind the other, with their number beside them (a record may take no byte).

use std::cell::{Cell, RefCell};

use blake3::Hasher;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a record.
///
/// # Errors
/// When its `Serialize` fails; what was appended of it stays.
pub(crate) fn append<T: Serialize>(record: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let start = out.len();
    let done = postcard::serialize_with_flavor(record, Appender(out));
    if IS_NOTED.get() {
        note(&out[start..]);
    }
    done
}

thread_local! {
    /// Whether this thread notes what it appends.
    static IS_NOTED: Cell<bool> = const { Cell::new(false) };
    static NOTED: RefCell<Hasher> = RefCell::new(Hasher::new());
}

/// What `work` gives, and a hash of the records that it appends on this thread: one after the other, but of each whatever the
/// order of the bytes, because maps and sets within a record have no order.
pub(crate) fn noting<O>(work: impl FnOnce() -> O) -> (O, blake3::Hash) {
    NOTED.with_borrow_mut(|noted| *noted = Hasher::new());
    IS_NOTED.set(true);
    let given = work();
    IS_NOTED.set(false);
    (given, NOTED.with_borrow(Hasher::finalize))
}

/// Bytes of a record from this length on are counted instead of sorted.
const COUNTED_LEN_BYTES: usize = 1 << 10;

#[cold]
fn note(record: &[u8]) {
    NOTED.with_borrow_mut(|noted| {
        noted.update(&(record.len() as u64).to_le_bytes());
        if record.len() < COUNTED_LEN_BYTES {
            let mut bytes = record.to_vec();
            bytes.sort_unstable();
            noted.update(&bytes);
            return;
        }
        for (byte, times) in (0..=u8::MAX).zip(byte_counts(record)).filter(|(_, times)| *times > 0) {
            noted.update(&[byte]).update(&times.to_le_bytes());
        }
    });
}

/// How often each byte occurs: what is left of bytes when their order does not count.
pub(crate) fn byte_counts(bytes: &[u8]) -> [u64; 256] {
    let mut counts = [0; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    counts
}

/// How many bytes a record takes, or nothing if it cannot be encoded.
pub(crate) fn encoded_len<T: Serialize>(record: &T) -> usize {
    postcard::serialize_with_flavor(record, postcard::ser_flavors::Size::default()).unwrap_or(0)
}

/// Takes the record at the front of `bytes`.
///
/// # Errors
/// When there is none.
pub(crate) fn take<T: DeserializeOwned>(bytes: &mut &[u8]) -> Result<T, postcard::Error> {
    let (record, rest) = postcard::take_from_bytes(bytes)?;
    *bytes = rest;
    Ok(record)
}

struct Appender<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_of_a_record_is_its_bytes_in_whatever_order() {
        let noted = |records: &[Vec<u8>]| {
            let work = || records.iter().try_for_each(|record| append(record, &mut Vec::new()));
            let (done, hash) = noting(work);
            done.unwrap();
            hash
        };
        for len in [3, COUNTED_LEN_BYTES] {
            let up: Vec<u8> = (0..=250).cycle().take(len).collect();
            let down: Vec<u8> = up.iter().rev().copied().collect();
            let other = vec![7; len];
            assert_eq!(noted(std::slice::from_ref(&up)), noted(&[down]));
            assert_ne!(noted(std::slice::from_ref(&up)), noted(std::slice::from_ref(&other)));
            assert_ne!(noted(&[up.clone(), other.clone()]), noted(&[other, up]), "records have an order");
        }
    }
}
