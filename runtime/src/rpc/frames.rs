use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::codec::{self, FRAME_HEADER_LEN_BYTES};
use situ_wire::limits::MESSAGE_LEN_BYTES;

use super::RpcError;
use crate::transport::{ReceiveStream, SendStream};

/// How much is asked of a stream at once while a message is awaited.
const READ_AHEAD_LEN_BYTES: usize = 256 << 10;

/// Sends messages and raw bytes on a stream.
#[derive(Debug)]
pub struct FrameSender<S> {
    stream: S,
}

impl<S: SendStream> FrameSender<S> {
    /// Sends on `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// When it is too long, or the stream is gone.
    pub async fn message<M: Serialize>(&mut self, message: &M) -> Result<(), RpcError> {
        let mut frame = BytesMut::new();
        codec::encode_frame(message, &mut frame)?;
        Ok(self.stream.send(frame.freeze()).await?)
    }

    /// Sends one message and raw bytes behind it.
    ///
    /// # Errors
    /// When the message is too long, or the stream is gone.
    pub async fn message_and_bytes<M: Serialize>(&mut self, message: &M, bytes: Vec<Bytes>) -> Result<(), RpcError> {
        let mut frame = BytesMut::new();
        codec::encode_frame(message, &mut frame)?;
        let mut pieces = Vec::with_capacity(bytes.len() + 1);
        pieces.push(frame.freeze());
        pieces.extend(bytes);
        Ok(self.stream.send_all(pieces).await?)
    }

    /// Sends raw bytes.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn bytes(&mut self, bytes: Bytes) -> Result<(), RpcError> {
        Ok(self.stream.send(bytes).await?)
    }

    /// Says that nothing more comes.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn finish(&mut self) -> Result<(), RpcError> {
        Ok(self.stream.finish().await?)
    }

    /// Gives the stream up.
    pub fn reset(&mut self) {
        self.stream.reset();
    }
}

/// Receives messages and raw bytes from a stream.
#[derive(Debug)]
pub struct FrameReceiver<R> {
    stream: R,
    /// Received, not yet taken.
    pending: Bytes,
}

impl<R: ReceiveStream> FrameReceiver<R> {
    /// Receives from `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream, pending: Bytes::new() }
    }

    /// The next message; none if the stream ends here. Given up half-way, it loses nothing.
    ///
    /// # Errors
    /// When it is not an `M`, the stream ends in the middle of it, or the stream is gone.
    pub async fn message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, RpcError> {
        self.message_within(MESSAGE_LEN_BYTES).await
    }

    /// The next message, which must be there.
    ///
    /// # Errors
    /// As [`FrameReceiver::message`]; [`RpcError::Ended`] names `expected` when the stream ends here.
    pub async fn expect<M: DeserializeOwned>(&mut self, expected: &'static str) -> Result<M, RpcError> {
        self.message().await?.ok_or(RpcError::Ended { expected })
    }

    /// The next message, of at most `limit_bytes`; none if the stream ends here.
    ///
    /// # Errors
    /// As [`FrameReceiver::message`].
    pub async fn message_within<M: DeserializeOwned>(&mut self, limit_bytes: usize) -> Result<Option<M>, RpcError> {
        match self.frame(limit_bytes).await? {
            Some(bytes) => Ok(Some(codec::decode(&bytes)?)),
            None => Ok(None),
        }
    }

    /// The next raw bytes, at least one and at most `limit_bytes`; none if the stream ends here.
    ///
    /// # Errors
    /// When the stream is gone.
    pub async fn bytes(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, RpcError> {
        if self.pending.is_empty() {
            return Ok(self.stream.receive(limit_bytes).await?);
        }
        Ok(Some(self.pending.split_to(limit_bytes.min(self.pending.len()))))
    }

    /// Exactly `len_bytes` raw bytes, in as many pieces as they came in. Given up half-way, it loses what it has taken.
    ///
    /// # Errors
    /// When the stream ends before, or is gone.
    pub async fn exactly(&mut self, len_bytes: usize) -> Result<Vec<Bytes>, RpcError> {
        let mut pieces = Vec::new();
        let mut left = len_bytes;
        while left > 0 {
            let piece = self.bytes(left).await?.ok_or(RpcError::Ended { expected: "all bytes that were announced" })?;
            left -= piece.len();
            pieces.push(piece);
        }
        Ok(pieces)
    }

    /// The encoded message of the next frame. Nothing is taken before all of it is there: given up half-way, it loses
    /// nothing.
    async fn frame(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, RpcError> {
        if !self.fill(FRAME_HEADER_LEN_BYTES, true).await? {
            return Ok(None);
        }
        let len = self.pending.clone().get_u32_le() as usize;
        if len > limit_bytes {
            return Err(codec::CodecError::TooLong { found_bytes: len, limit_bytes }.into());
        }
        self.fill(FRAME_HEADER_LEN_BYTES + len, false).await?;
        self.pending.advance(FRAME_HEADER_LEN_BYTES);
        Ok(Some(self.pending.split_to(len)))
    }

    /// Makes at least `len_bytes` pending. False if the stream ended before the first of them and may.
    async fn fill(&mut self, len_bytes: usize, may_end: bool) -> Result<bool, RpcError> {
        while self.pending.len() < len_bytes {
            match self.stream.receive(READ_AHEAD_LEN_BYTES).await? {
                Some(piece) => self.append(piece),
                None if may_end && self.pending.is_empty() => return Ok(false),
                None => return Err(RpcError::Ended { expected: "the end of a message" }),
            }
        }
        Ok(true)
    }

    /// Puts a piece behind what is pending. Most messages come whole with one piece; only what does not is copied.
    fn append(&mut self, piece: Bytes) {
        if self.pending.is_empty() {
            self.pending = piece;
            return;
        }
        // The length comes from a peer: room is made for what has arrived, not for what was promised.
        let mut all = std::mem::take(&mut self.pending).try_into_mut().unwrap_or_else(|shared| {
            let mut all = BytesMut::with_capacity(shared.len() + piece.len());
            all.extend_from_slice(&shared);
            all
        });
        all.extend_from_slice(&piece);
        self.pending = all.freeze();
    }
}

/// Sends one message on a bare stream.
///
/// # Errors
/// When it is too long, or the stream is gone.
pub async fn send_message<S: SendStream, M: Serialize>(stream: &mut S, message: &M) -> Result<(), RpcError> {
    let mut frame = BytesMut::new();
    codec::encode_frame(message, &mut frame)?;
    Ok(stream.send(frame.freeze()).await?)
}

/// Receives the only message of a bare stream.
///
/// # Errors
/// When it is not an `M` of at most `limit_bytes`, or the stream is gone.
pub async fn receive_message<R: ReceiveStream, M: DeserializeOwned>(
    stream: R,
    limit_bytes: usize,
) -> Result<M, RpcError> {
    FrameReceiver::new(stream).message_within(limit_bytes).await?.ok_or(RpcError::Ended { expected: "a message" })
}
