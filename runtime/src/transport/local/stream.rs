use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::coop;

use super::connection::Handle;
use crate::transport::{ReceiveStream, SendStream, TransportError};

/// The bytes before each chunk: its length.
const HEADER_LEN_BYTES: usize = 4;
/// The longest chunk that is sent as one.
const CHUNK_LEN_BYTES: usize = 1 << 30;
/// The most pieces that are handed to the kernel at once.
const PIECES_PER_CALL: usize = 64;
/// How much is read at once at first, and at most.
const READ_LEN_BYTES: (usize, usize) = (16 << 10, 1 << 20);

/// A stream's socket, which both halves share.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: UnixStream,
    /// Among those that this side may open.
    pub(super) _place: Option<OwnedSemaphorePermit>,
}

pub(super) fn halves(socket: Arc<Socket>, handle: &Arc<Handle>) -> (LocalSendStream, LocalReceiveStream) {
    (
        LocalSendStream {
            socket: Arc::clone(&socket),
            handle: Arc::clone(handle),
            pending: VecDeque::new(),
            end: None,
        },
        LocalReceiveStream {
            socket,
            handle: Arc::clone(handle),
            buffer: BytesMut::new(),
            left: 0,
            read_len_bytes: READ_LEN_BYTES.0,
            end: None,
        },
    )
}

/// Ends a socket in both directions.
pub(super) fn shut_down(socket: &UnixStream) {
    // It fails only if the peer's end is gone already.
    let _ = rustix::net::shutdown(socket, Shutdown::Both);
}

/// The sending half of a stream over a Unix socket.
#[derive(Debug)]
pub struct LocalSendStream {
    socket: Arc<Socket>,
    handle: Arc<Handle>,
    /// Begun, but not yet with the kernel. It outlives a `send` that is given up half-way: what follows stays in frame.
    pending: VecDeque<Bytes>,
    /// How this half ended.
    end: Option<TransportError>,
}

impl LocalSendStream {
    fn check(&self) -> Result<(), TransportError> {
        match (&self.end, self.handle.shared.closed_error()) {
            (_, Some(error)) => Err(error),
            (Some(error), None) => Err(error.clone()),
            (None, None) => Ok(()),
        }
    }

    /// Puts a chunk in line, if there is anything in it.
    fn push(&mut self, pieces: &mut Vec<Bytes>) {
        let len: usize = pieces.iter().map(Bytes::len).sum();
        if len > 0 {
            assert!(len < CHUNK_LEN_BYTES, "whoever sends has cut what is longer");
            let header = u32::try_from(len).expect("a chunk's length fits into its header");
            self.pending.push_back(Bytes::copy_from_slice(&header.to_le_bytes()));
            self.pending.extend(pieces.drain(..).filter(|piece| !piece.is_empty()));
        }
        pieces.clear();
    }

    /// Hands all that is in line to the kernel.
    async fn flush(&mut self) -> Result<(), TransportError> {
        while !self.pending.is_empty() {
            coop::consume_budget().await;
            let written = match self.write() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.stream.writable().await.map(|()| 0),
                written => written,
            };
            match written {
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    let ends = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
                    let error = match ends {
                        true => self.handle.shared.why(TransportError::Stopped).await,
                        false => TransportError::Closed { reason: error.to_string() },
                    };
                    self.end = Some(error.clone());
                    self.pending.clear();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn write(&self) -> io::Result<usize> {
        let stream = &self.socket.stream;
        let mut slices = [IoSlice::new(&[]); PIECES_PER_CALL];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pending) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        stream.try_io(Interest::WRITABLE, || {
            let mut nothing = SendAncillaryBuffer::default();
            Ok(rustix::net::sendmsg(stream, &slices[..count], &mut nothing, SendFlags::NOSIGNAL)?)
        })
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.pending.front_mut() {
            if written < piece.len() {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.pending.pop_front();
        }
        assert_eq!(written, 0, "the kernel takes no more than there is");
    }

    fn ended() -> TransportError {
        TransportError::Closed { reason: "this side has ended the stream".to_owned() }
    }
}

impl SendStream for LocalSendStream {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        self.send_all(vec![bytes]).await
    }

    async fn send_all(&mut self, pieces: Vec<Bytes>) -> Result<(), TransportError> {
        self.check()?;
        let mut chunk = Vec::with_capacity(pieces.len());
        let mut chunk_len_bytes = 0;
        for mut piece in pieces {
            while chunk_len_bytes + piece.len() >= CHUNK_LEN_BYTES {
                let rest = piece.split_off(CHUNK_LEN_BYTES - 1 - chunk_len_bytes);
                chunk.push(piece);
                self.push(&mut chunk);
                (piece, chunk_len_bytes) = (rest, 0);
            }
            chunk_len_bytes += piece.len();
            chunk.push(piece);
        }
        self.push(&mut chunk);
        self.flush().await
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        match self.check() {
            Err(TransportError::Stopped) => return Ok(()),
            checked => checked?,
        }
        self.pending.push_back(Bytes::from_static(&[0; HEADER_LEN_BYTES]));
        match self.flush().await {
            // The peer has all that it wants.
            Ok(()) | Err(TransportError::Stopped) => {
                self.end = Some(Self::ended());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn reset(&mut self) {
        if self.end.is_none() {
            self.end = Some(Self::ended());
            self.pending.clear();
            // It fails only if the peer's end is gone already.
            let _ = rustix::net::shutdown(&self.socket.stream, Shutdown::Write);
        }
    }
}

impl Drop for LocalSendStream {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The receiving half of a stream over a Unix socket.
#[derive(Debug)]
pub struct LocalReceiveStream {
    socket: Arc<Socket>,
    handle: Arc<Handle>,
    /// Received, not yet taken, with headers between.
    buffer: BytesMut,
    /// How much of the chunk in front has not been taken yet.
    left: usize,
    /// How much is read next: more when there was more than this the last time.
    read_len_bytes: usize,
    end: Option<Result<(), TransportError>>,
}

impl LocalReceiveStream {
    /// What is taken off the buffer, if something is there.
    fn take(&mut self, limit_bytes: usize) -> Option<Bytes> {
        if self.left == 0 {
            let header = self.buffer.first_chunk::<HEADER_LEN_BYTES>()?;
            self.left = u32::from_le_bytes(*header) as usize;
            self.buffer.advance(HEADER_LEN_BYTES);
            if self.left == 0 {
                self.end = Some(Ok(()));
            }
        }
        let len = self.left.min(limit_bytes).min(self.buffer.len());
        self.left -= len;
        (len > 0).then(|| self.buffer.split_to(len).freeze())
    }

    /// Reads once; false at the end of the socket.
    async fn read(&mut self) -> io::Result<bool> {
        let want = self.read_len_bytes.max((self.left + HEADER_LEN_BYTES).min(READ_LEN_BYTES.1));
        // A little room left over is not worth a call; a new buffer serves many small messages.
        if self.buffer.capacity() - self.buffer.len() < want.min(READ_LEN_BYTES.0 / 4) {
            self.buffer.reserve(want);
        }
        let room = self.buffer.capacity() - self.buffer.len();
        loop {
            coop::consume_budget().await;
            match self.socket.stream.try_read_buf(&mut self.buffer) {
                Ok(read) => {
                    if read == room {
                        self.read_len_bytes = (2 * self.read_len_bytes).min(READ_LEN_BYTES.1);
                    }
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.stream.readable().await?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl ReceiveStream for LocalReceiveStream {
    async fn receive(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, TransportError> {
        assert!(limit_bytes > 0, "a receiver asks for at least one byte");
        loop {
            if let Some(error) = self.handle.shared.closed_here() {
                return Err(error);
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            if let Some(bytes) = self.take(limit_bytes) {
                return Ok(Some(bytes));
            }
            if self.end.is_some() {
                continue;
            }
            let error = match self.read().await {
                Ok(true) => continue,
                Ok(false) => self.handle.shared.why(TransportError::Reset).await,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.handle.shared.why(TransportError::Reset).await
                }
                Err(error) => TransportError::Closed { reason: error.to_string() },
            };
            self.end = Some(Err(error));
        }
    }
}

impl Drop for LocalReceiveStream {
    fn drop(&mut self) {
        if self.end.is_some() {
            return;
        }
        // From now on the peer cannot send. What it has sent is thrown away: the kernel wakes a sender that waits for
        // room only when there is some.
        let _ = rustix::net::shutdown(&self.socket.stream, Shutdown::Read);
        self.buffer.clear();
        self.buffer.reserve(READ_LEN_BYTES.0);
        while matches!(self.socket.stream.try_read_buf(&mut self.buffer), Ok(read) if read > 0) {
            self.buffer.clear();
        }
    }
}
