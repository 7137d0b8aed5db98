//! Frames: how a message stands on a stream.
//!
//! ```text
//! +----------------+---------------------+
//! | length: u32 LE | message in postcard |
//! +----------------+---------------------+
//! ```
//!
//! The length is checked against a limit before anything is allocated. Bulk bytes never go through here: a message says
//! how many follow it raw.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::MESSAGE_LEN_BYTES;

/// The bytes before a message in a frame.
pub const FRAME_HEADER_LEN_BYTES: usize = 4;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The frame says that it is longer than is allowed here.
    #[error("a frame of {found_bytes} bytes; at most {limit_bytes} are allowed here")]
    TooLong {
        /// What the frame says.
        found_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The bytes do not decode as the message.
    #[error("{len_bytes} bytes that are not a {expected}: {reason}")]
    Malformed {
        /// The type that was expected.
        expected: &'static str,
        /// How many bytes there were.
        len_bytes: usize,
        /// What postcard says.
        reason: String,
    },
    /// There are bytes behind the message.
    #[error("{extra_bytes} bytes behind a {expected}")]
    Trailing {
        /// The type that was expected.
        expected: &'static str,
        /// How many bytes are too many.
        extra_bytes: usize,
    },
}

/// Encodes `message` alone, without a frame.
///
/// # Errors
/// When it is longer than [`MESSAGE_LEN_BYTES`] or cannot be encoded at all.
pub fn encode<M: Serialize>(message: &M) -> Result<Bytes, CodecError> {
    let mut out = BytesMut::new();
    encode_frame(message, &mut out)?;
    out.advance(FRAME_HEADER_LEN_BYTES);
    Ok(out.freeze())
}

/// Appends `message` to `out` as a frame.
///
/// # Errors
/// When it is longer than [`MESSAGE_LEN_BYTES`] or cannot be encoded at all; `out` is as it was before.
pub fn encode_frame<M: Serialize>(message: &M, out: &mut BytesMut) -> Result<(), CodecError> {
    let start = out.len();
    out.put_u32_le(0);
    match postcard::serialize_with_flavor(message, Appender(out)) {
        Ok(()) => {}
        Err(reason) => {
            out.truncate(start);
            return Err(CodecError::Malformed {
                expected: std::any::type_name::<M>(),
                len_bytes: 0,
                reason: reason.to_string(),
            });
        }
    }
    let len = out.len() - start - FRAME_HEADER_LEN_BYTES;
    match u32::try_from(len) {
        Ok(header) if len <= MESSAGE_LEN_BYTES => {
            out[start..start + FRAME_HEADER_LEN_BYTES].copy_from_slice(&header.to_le_bytes());
            Ok(())
        }
        _ => {
            out.truncate(start);
            Err(CodecError::TooLong { found_bytes: len, limit_bytes: MESSAGE_LEN_BYTES })
        }
    }
}

/// Decodes a whole message; every byte must belong to it.
///
/// # Errors
/// When the bytes are not exactly one message.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, CodecError> {
    match postcard::take_from_bytes::<M>(bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(CodecError::Trailing { expected: std::any::type_name::<M>(), extra_bytes: rest.len() }),
        Err(reason) => Err(CodecError::Malformed {
            expected: std::any::type_name::<M>(),
            len_bytes: bytes.len(),
            reason: reason.to_string(),
        }),
    }
}

/// Takes the next frame's message off the front of `buffer`; none if it is not all there yet.
///
/// # Errors
/// When the frame is longer than `limit_bytes`, which shows as soon as its header is there.
pub fn take_frame(buffer: &mut BytesMut, limit_bytes: usize) -> Result<Option<Bytes>, CodecError> {
    let Some(header) = buffer.first_chunk::<FRAME_HEADER_LEN_BYTES>() else { return Ok(None) };
    let len = u32::from_le_bytes(*header) as usize;
    if len > limit_bytes {
        return Err(CodecError::TooLong { found_bytes: len, limit_bytes });
    }
    if buffer.len() < FRAME_HEADER_LEN_BYTES + len {
        return Ok(None);
    }
    buffer.advance(FRAME_HEADER_LEN_BYTES);
    Ok(Some(buffer.split_to(len).freeze()))
}

/// Lets postcard write straight into a buffer that already holds other frames.
struct Appender<'a>(&'a mut BytesMut);

impl postcard::ser_flavors::Flavor for Appender<'_> {
    type Output = ();

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.put_u8(data);
        Ok(())
    }

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
    fn frames_come_out_as_they_went_in() {
        let mut buffer = BytesMut::new();
        encode_frame(&(1_u32, "one"), &mut buffer).unwrap();
        encode_frame(&(2_u32, "two"), &mut buffer).unwrap();
        let rest = buffer.split_off(buffer.len() - 1);
        assert_eq!(decode::<(u32, String)>(&take_frame(&mut buffer, 64).unwrap().unwrap()).unwrap(), (1, "one".into()));
        assert_eq!(take_frame(&mut buffer, 64).unwrap(), None);
        buffer.unsplit(rest);
        assert_eq!(decode::<(u32, String)>(&take_frame(&mut buffer, 64).unwrap().unwrap()).unwrap(), (2, "two".into()));
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_long_frame_is_refused_by_its_header_alone() {
        let mut buffer = BytesMut::from(&u32::MAX.to_le_bytes()[..]);
        assert!(matches!(take_frame(&mut buffer, 100), Err(CodecError::TooLong { limit_bytes: 100, .. })));
    }

    #[test]
    fn bytes_behind_a_message_are_refused() {
        let mut bytes = encode(&7_u32).unwrap().to_vec();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::Trailing { extra_bytes: 1, .. })));
    }
}
