use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc, watch};

use super::stream::{self, LocalReceiveStream, LocalSendStream, Socket};
use crate::transport::{Connection, Peer, TransportError};

/// The most streams that one side keeps open at once; who wants more waits.
const STREAMS_PER_SIDE: usize = 1024;
/// How much the kernel holds of a stream before its sender has to wait, as far as the system allows it.
const SOCKET_LEN_BYTES: usize = 1 << 20;

const STREAM: u8 = b'S';
const PING: u8 = b'P';
const PONG: u8 = b'A';

/// A connection over Unix sockets.
#[derive(Clone, Debug)]
pub struct LocalConnection {
    handle: Arc<Handle>,
}

/// What connection and streams hold; the connection closes when it is dropped.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    peer: Peer,
}

#[derive(Debug)]
pub(super) struct Shared {
    control: UnixStream,
    ended: watch::Sender<Option<Ended>>,
    streams: Mutex<Vec<Weak<Socket>>>,
    places: Arc<Semaphore>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<UnixStream>>,
    /// How many pings were sent. Held while one is under way: the peer answers each, and in order.
    pings: tokio::sync::Mutex<u64>,
    pongs: watch::Sender<u64>,
}

/// How a connection ended.
#[derive(Clone, Debug)]
struct Ended {
    reason: String,
    /// By this side: what has arrived is not for reading any more.
    here: bool,
}

impl LocalConnection {
    /// A connection over a control socket whose ends trust each other.
    pub(super) fn new(control: UnixStream, peer: Peer) -> Self {
        let (accepted, incoming) = mpsc::channel(STREAMS_PER_SIDE);
        let shared = Arc::new(Shared {
            control,
            ended: watch::Sender::new(None),
            streams: Mutex::default(),
            places: Arc::new(Semaphore::new(STREAMS_PER_SIDE)),
            incoming: tokio::sync::Mutex::new(incoming),
            pings: tokio::sync::Mutex::new(0),
            pongs: watch::Sender::new(0),
        });
        tokio::spawn(Arc::clone(&shared).attend(accepted));
        Self { handle: Arc::new(Handle { shared, peer }) }
    }

    /// What closes it from afar without keeping it alive.
    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.handle.shared)
    }
}

impl Shared {
    /// Closes the connection and all its streams.
    pub(super) fn close(&self) {
        self.end("this side closed the connection", true);
    }

    /// Why nothing can be sent or received any more.
    pub(super) fn closed_error(&self) -> Option<TransportError> {
        self.ended.borrow().as_ref().map(|ended| TransportError::Closed { reason: ended.reason.clone() })
    }

    /// Why nothing can be received any more, not even what has arrived already.
    pub(super) fn closed_here(&self) -> Option<TransportError> {
        self.closed_error().filter(|_| self.ended.borrow().as_ref().is_some_and(|ended| ended.here))
    }

    /// Why a stream's socket has ended: `given_up` if the peer is alive.
    pub(super) async fn why(&self, given_up: TransportError) -> TransportError {
        let alive = async {
            let mut pings = self.pings.lock().await;
            let mut pongs = self.pongs.subscribe();
            send_byte(&self.control, PING, None).await?;
            *pings += 1;
            let number = *pings;
            // The sender lives as long as this connection.
            let _ = pongs.wait_for(|pongs| *pongs >= number).await;
            Ok::<(), io::Error>(())
        };
        let alive = tokio::select! {
            biased;
            () = self.closed() => false,
            answer = alive => answer.is_ok(),
        };
        if !alive {
            // Whoever hears of it must not be handed this connection again.
            self.end("the peer's process is gone", false);
        }
        self.closed_error().unwrap_or(given_up)
    }

    async fn closed(&self) {
        // The sender lives as long as this connection.
        let _ = self.ended.subscribe().wait_for(Option::is_some).await;
    }

    fn end(&self, reason: &str, here: bool) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert_with(|| Ended { reason: reason.to_owned(), here });
            first
        });
        // Whoever waits on a socket wakes up and asks why.
        stream::shut_down(&self.control);
        for socket in self.streams.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            stream::shut_down(&socket.stream);
        }
    }

    fn error(&self) -> TransportError {
        self.closed_error().unwrap_or_else(|| TransportError::Closed { reason: "it has ended".to_owned() })
    }

    /// Takes what comes through the control socket until it ends.
    async fn attend(self: Arc<Self>, accepted: mpsc::Sender<UnixStream>) {
        // More than one only if the peer's pings were given up.
        let mut owed_pongs = 0_u64;
        let reason = loop {
            let message = tokio::select! {
                biased;
                message = receive_byte(&self.control) => message,
                sent = send_byte(&self.control, PONG, None), if owed_pongs > 0 => match sent {
                    Ok(()) => {
                        owed_pongs -= 1;
                        continue;
                    }
                    Err(error) => break error.to_string(),
                }
            };
            match message {
                Ok(Some((STREAM, Some(socket)))) => match into_stream(socket) {
                    // Who opens more streams than both sides agreed on, loses them.
                    Ok(stream) => drop(accepted.try_send(stream)),
                    Err(error) => tracing::warn!(%error, "a peer passed something that is no stream"),
                },
                Ok(Some((PING, None))) => owed_pongs += 1,
                Ok(Some((PONG, None))) => self.pongs.send_modify(|pongs| *pongs += 1),
                Ok(Some((byte, _))) => break format!("the peer sent the unknown byte {byte:#04x}"),
                Ok(None) => break "the peer closed the connection".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        self.end(&reason, false);
    }

    fn stream(self: &Arc<Self>, stream: UnixStream, place: Option<tokio::sync::OwnedSemaphorePermit>) -> Arc<Socket> {
        let socket = Arc::new(Socket { stream, _place: place });
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if streams.len() == streams.capacity() {
            streams.retain(|socket| socket.strong_count() > 0);
        }
        streams.push(Arc::downgrade(&socket));
        drop(streams);
        if self.ended.borrow().is_some() {
            stream::shut_down(&socket.stream);
        }
        socket
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Connection for LocalConnection {
    type Send = LocalSendStream;
    type Receive = LocalReceiveStream;

    async fn open(&self) -> Result<(LocalSendStream, LocalReceiveStream), TransportError> {
        let shared = &self.handle.shared;
        let place = tokio::select! {
            biased;
            () = shared.closed() => None,
            place = Arc::clone(&shared.places).acquire_owned() => place.ok(),
        };
        let Some(place) = place else { return Err(shared.error()) };
        let failed = |error: io::Error| {
            shared.closed_error().unwrap_or_else(|| TransportError::Closed { reason: format!("no stream: {error}") })
        };
        let (ours, theirs) = socket_pair().map_err(failed)?;
        let ours = into_stream(ours).map_err(failed)?;
        send_byte(&shared.control, STREAM, Some(theirs.as_fd())).await.map_err(failed)?;
        Ok(stream::halves(shared.stream(ours, Some(place)), &self.handle))
    }

    async fn accept(&self) -> Result<(LocalSendStream, LocalReceiveStream), TransportError> {
        let shared = &self.handle.shared;
        let next = async { shared.incoming.lock().await.recv().await };
        let stream = tokio::select! {
            biased;
            () = shared.closed() => None,
            stream = next => stream,
        };
        let stream = stream.ok_or_else(|| shared.error())?;
        Ok(stream::halves(shared.stream(stream, None), &self.handle))
    }

    fn peer(&self) -> &Peer {
        &self.handle.peer
    }

    fn close(&self) {
        self.handle.shared.close();
    }

    fn is_closed(&self) -> bool {
        self.handle.shared.ended.borrow().is_some()
    }

    async fn closed(&self) {
        self.handle.shared.closed().await;
    }
}

fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    for socket in [&one, &other] {
        // The sender's buffer is the one that counts; the system may allow less.
        rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_LEN_BYTES)?;
    }
    Ok((one, other))
}

fn into_stream(socket: OwnedFd) -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(socket);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Sends one byte through a control socket, and a socket with it.
pub(super) async fn send_byte(control: &UnixStream, byte: u8, socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    control
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let sockets = socket.as_slice();
            if !sockets.is_empty() {
                let fits = ancillary.push(SendAncillaryMessage::ScmRights(sockets));
                assert!(fits, "there is space for one socket");
            }
            let sent = rustix::net::sendmsg(control, &[IoSlice::new(&[byte])], &mut ancillary, SendFlags::NOSIGNAL)?;
            assert_eq!(sent, 1, "one byte is sent or none");
            Ok(())
        })
        .await
}

/// The next byte of a control socket, and the socket that came with it; none at its end.
pub(super) async fn receive_byte(control: &UnixStream) -> io::Result<Option<(u8, Option<OwnedFd>)>> {
    control
        .async_io(Interest::READABLE, || {
            let mut byte = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let received = rustix::net::recvmsg(
                control,
                &mut [IoSliceMut::new(&mut byte)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let mut sockets = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            });
            let socket = sockets.next().and_then(|mut sockets| sockets.next());
            Ok((received.bytes > 0).then_some((byte[0], socket)))
        })
        .await
}
