use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::Driver;
use crate::transport::{Connection, Peer, ReceiveStream, SendStream, TransportError};

/// Nothing went wrong, or nothing that the peer could do anything about.
const NO_REASON: VarInt = VarInt::from_u32(0);
/// How many packets' bytes are taken at once.
const PIECES_PER_CALL: usize = 16;

/// A connection over QUIC.
#[derive(Clone, Debug)]
pub struct QuicConnection {
    shared: Arc<Shared>,
}

/// What connection and streams hold; the connection closes when it is dropped.
#[derive(Debug)]
struct Shared {
    connection: quinn::Connection,
    peer: Peer,
    /// By this side: what has arrived is not for reading any more.
    closed_here: AtomicBool,
    _driver: Arc<Driver>,
}

impl QuicConnection {
    pub(super) fn new(connection: quinn::Connection, peer: Peer, driver: Arc<Driver>) -> Self {
        Self { shared: Arc::new(Shared { connection, peer, closed_here: AtomicBool::new(false), _driver: driver }) }
    }

    fn halves(&self, (send, receive): (quinn::SendStream, quinn::RecvStream)) -> (QuicSendStream, QuicReceiveStream) {
        (
            QuicSendStream { stream: send, ended: false, shared: Arc::clone(&self.shared) },
            QuicReceiveStream {
                stream: receive,
                pending: VecDeque::new(),
                end: None,
                shared: Arc::clone(&self.shared),
            },
        )
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.close(NO_REASON, b"nobody uses it any more");
    }
}

impl Connection for QuicConnection {
    type Send = QuicSendStream;
    type Receive = QuicReceiveStream;

    async fn open(&self) -> Result<(QuicSendStream, QuicReceiveStream), TransportError> {
        Ok(self.halves(self.shared.connection.open_bi().await.map_err(closed)?))
    }

    async fn accept(&self) -> Result<(QuicSendStream, QuicReceiveStream), TransportError> {
        Ok(self.halves(self.shared.connection.accept_bi().await.map_err(closed)?))
    }

    fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    fn close(&self) {
        self.shared.closed_here.store(true, Ordering::Relaxed);
        self.shared.connection.close(NO_REASON, b"the peer closed the connection");
    }

    fn is_closed(&self) -> bool {
        self.shared.connection.close_reason().is_some()
    }

    async fn closed(&self) {
        self.shared.connection.closed().await;
    }
}

/// The sending half of a stream over QUIC.
#[derive(Debug)]
pub struct QuicSendStream {
    stream: quinn::SendStream,
    ended: bool,
    shared: Arc<Shared>,
}

impl QuicSendStream {
    fn error(&self, error: WriteError) -> TransportError {
        match error {
            WriteError::Stopped(_) => TransportError::Stopped,
            WriteError::ConnectionLost(error) => closed(error),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => match self.shared.connection.close_reason() {
                Some(error) => closed(error),
                None => TransportError::Closed { reason: "this side has ended the stream".to_owned() },
            },
        }
    }
}

impl SendStream for QuicSendStream {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        self.stream.write_chunk(bytes).await.map_err(|error| self.error(error))
    }

    async fn send_all(&mut self, mut pieces: Vec<Bytes>) -> Result<(), TransportError> {
        self.stream.write_all_chunks(&mut pieces).await.map_err(|error| self.error(error))
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        if let Some(error) = self.shared.connection.close_reason() {
            return Err(closed(error));
        }
        self.ended = true;
        // It fails only if the stream has ended already, in whichever way.
        let _ = self.stream.finish();
        Ok(())
    }

    fn reset(&mut self) {
        if !self.ended {
            self.ended = true;
            // It fails only if the stream has ended already.
            let _ = self.stream.reset(NO_REASON);
        }
    }
}

impl Drop for QuicSendStream {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The receiving half of a stream over QUIC. Dropped before its end, it stops the peer.
#[derive(Debug)]
pub struct QuicReceiveStream {
    stream: quinn::RecvStream,
    /// Received, not yet taken.
    pending: VecDeque<Bytes>,
    /// How the stream ended. The library itself forgets that it was a reset, once it has said so.
    end: Option<Result<(), TransportError>>,
    shared: Arc<Shared>,
}

impl QuicReceiveStream {
    /// Waits for more, or for the end.
    async fn fill(&mut self) {
        let mut pieces = [const { Bytes::new() }; PIECES_PER_CALL];
        let end = match self.stream.read_chunks(&mut pieces).await {
            Ok(Some(count)) => return self.pending.extend(pieces.into_iter().take(count)),
            Ok(None) => Ok(()),
            Err(ReadError::Reset(_)) => Err(TransportError::Reset),
            Err(ReadError::ConnectionLost(error)) => Err(closed(error)),
            Err(ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
                Err(TransportError::Closed { reason: "this side has given the stream up".to_owned() })
            }
        };
        self.end = Some(end);
    }
}

impl ReceiveStream for QuicReceiveStream {
    async fn receive(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, TransportError> {
        assert!(limit_bytes > 0, "a receiver asks for at least one byte");
        loop {
            if self.shared.closed_here.load(Ordering::Relaxed) {
                return Err(closed(ConnectionError::LocallyClosed));
            }
            if let Some(front) = self.pending.front_mut() {
                let bytes = front.split_to(limit_bytes.min(front.len()));
                if front.is_empty() {
                    self.pending.pop_front();
                }
                return Ok(Some(bytes));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            self.fill().await;
        }
    }
}

fn closed(error: ConnectionError) -> TransportError {
    let reason = match error {
        ConnectionError::LocallyClosed => "this side closed the connection".to_owned(),
        ConnectionError::ApplicationClosed(frame) => String::from_utf8_lossy(&frame.reason).into_owned(),
        ConnectionError::TimedOut => "nothing was heard from the peer for too long".to_owned(),
        other => other.to_string(),
    };
    TransportError::Closed { reason }
}
