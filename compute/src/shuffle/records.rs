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
