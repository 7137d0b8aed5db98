//! Records as bytes: each in postcard, one behind the other, with their number beside them (a record may take no byte).

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a record.
///
/// # Errors
/// When its `Serialize` fails; what was appended of it stays.
pub(crate) fn append<T: Serialize>(record: &T, out: &mut Vec<u8>) -> Result<(), postcard::Error> {
    postcard::serialize_with_flavor(record, Appender(out))
}

/// How many bytes a record takes, or nothing if it cannot be encoded.
pub(crate) fn encoded_len<T: Serialize>(record: &T) -> usize {
    postcard::serialize_with_flavor(record, postcard::ser_flavors::Size::default()).unwrap_or(0)
}

/// About how many bytes of memory a record holds beside its own, for records that are kept: every part of it as it is
/// encoded, but a number or a length as eight bytes, because in memory a small one takes as much as a large one.
pub(crate) fn outside_len<T: Serialize>(record: &T) -> usize {
    if !std::mem::needs_drop::<T>() {
        return 0;
    }
    let mut len_bytes = 0;
    // Keeping a record does not encode it: one that cannot be encoded counts as far as it can.
    postcard::serialize_with_flavor(record, Measure(&mut len_bytes)).unwrap_or_default();
    len_bytes
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

struct Measure<'a>(&'a mut usize);

impl postcard::ser_flavors::Flavor for Measure<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, _: u8) -> postcard::Result<()> {
        *self.0 += 1;
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        *self.0 += data.len().max(8);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
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
    fn what_a_record_holds_beside_itself_is_counted() {
        assert_eq!(outside_len(&(1_u64, 'x', [2_u32; 9])), 0, "it holds nothing");
        assert_eq!(outside_len(&"x".repeat(1000)), 8 + 1000);
        assert_eq!(outside_len(&vec![1_u8; 1000]), 8 + 1000);
        assert_eq!(outside_len(&vec![1_u64; 1000]), 8 + 8 * 1000);
        let words = vec!["word".to_owned(); 1000];
        assert!(outside_len(&words) > encoded_len(&words) * 3);
    }
}
