use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::SimNetwork;
use super::pipe::Pipe;
use crate::transport::{Connection, Peer, ReceiveStream, SendStream, TransportError};

/// One end of a simulated connection.
#[derive(Clone, Debug)]
pub struct SimConnection {
    end: Arc<End>,
}

impl SimConnection {
    /// What it runs over.
    pub(super) fn wire(&self) -> Weak<Wire> {
        Arc::downgrade(&self.end.wire)
    }
}

/// One end; the connection closes when it is dropped.
#[derive(Debug)]
struct End {
    wire: Arc<Wire>,
    side: Side,
    peer: Peer,
    incoming: tokio::sync::Mutex<mpsc::UnboundedReceiver<Stream>>,
}

/// Both directions of a stream, as the side that accepts it sees them.
#[derive(Debug)]
struct Stream {
    send: Arc<Pipe>,
    receive: Arc<Pipe>,
}

/// Which end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Connector,
    Listener,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Connector => Self::Listener,
            Self::Listener => Self::Connector,
        }
    }
}

/// What both ends share.
#[derive(Debug)]
pub(super) struct Wire {
    network: SimNetwork,
    hosts: [IpAddr; 2],
    closed: [watch::Sender<bool>; 2],
    state: Mutex<WireState>,
}

#[derive(Debug)]
struct WireState {
    reasons: [Option<String>; 2],
    /// Where each side takes the other's streams from; none once closed.
    incoming: [Option<mpsc::UnboundedSender<Stream>>; 2],
    /// All pipes, each with the side that sends.
    pipes: Vec<(Weak<Pipe>, Side)>,
}

impl Wire {
    /// Connects two hosts: the connector's end and the listener's.
    pub(super) fn join(
        network: &SimNetwork,
        hosts: [IpAddr; 2],
        peers: [Peer; 2],
    ) -> (Arc<Self>, SimConnection, SimConnection) {
        let (to_connector, from_listener) = mpsc::unbounded_channel();
        let (to_listener, from_connector) = mpsc::unbounded_channel();
        let wire = Arc::new(Self {
            network: network.clone(),
            hosts,
            closed: [watch::Sender::new(false), watch::Sender::new(false)],
            state: Mutex::new(WireState {
                reasons: [None, None],
                incoming: [Some(to_connector), Some(to_listener)],
                pipes: Vec::new(),
            }),
        });
        let end = |side, peer, incoming| SimConnection {
            end: Arc::new(End { wire: Arc::clone(&wire), side, peer, incoming: tokio::sync::Mutex::new(incoming) }),
        };
        let [seen_by_connector, seen_by_listener] = peers;
        let connector = end(Side::Connector, seen_by_connector, from_listener);
        let listener = end(Side::Listener, seen_by_listener, from_connector);
        (wire, connector, listener)
    }

    pub(super) fn hosts(&self) -> [IpAddr; 2] {
        self.hosts
    }

    /// Closes both ends at once.
    pub(super) fn break_off(&self, reason: &str) {
        self.close_end(Side::Connector, reason);
        self.close_end(Side::Listener, reason);
    }

    /// Tells one end of the other's close, once the way is open.
    pub(super) fn settle(&self) {
        let closed = self.lock().reasons.each_ref().map(Option::is_some);
        for side in [Side::Connector, Side::Listener] {
            if closed[side as usize] && self.is_up(side) {
                self.close_end(side.other(), "the peer closed the connection");
            }
        }
    }

    /// Closes the connection from the listener's side.
    pub(super) fn close_listener(&self) {
        self.close(Side::Listener);
    }

    fn close(&self, side: Side) {
        self.close_end(side, "this side closed the connection");
        self.settle();
    }

    fn close_end(&self, side: Side, reason: &str) {
        let mut state = self.lock();
        if state.reasons[side as usize].is_some() {
            return;
        }
        state.reasons[side as usize] = Some(reason.to_owned());
        state.incoming[side as usize] = None;
        for (pipe, sender) in &state.pipes {
            if let Some(pipe) = pipe.upgrade() {
                pipe.close(*sender == side, reason);
            }
        }
        drop(state);
        self.closed[side as usize].send_replace(true);
    }

    fn is_up(&self, from: Side) -> bool {
        self.network.is_up(self.hosts[from as usize], self.hosts[from.other() as usize])
    }

    fn gone(&self, side: Side) -> TransportError {
        let reason = self.lock().reasons[side as usize].clone();
        TransportError::Closed { reason: reason.unwrap_or_else(|| "it has ended".to_owned()) }
    }

    fn pipe(self: &Arc<Self>, from: Side) -> Arc<Pipe> {
        let hosts = (self.hosts[from as usize], self.hosts[from.other() as usize]);
        let pipe = Arc::new(Pipe::new(self.network.clone(), hosts.0, hosts.1));
        let mut state = self.lock();
        state.pipes.retain(|(pipe, _)| pipe.strong_count() > 0);
        state.pipes.push((Arc::downgrade(&pipe), from));
        pipe
    }

    /// The state stays consistent whoever panicked: each critical section is a few plain assignments.
    fn lock(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.wire.close(self.side);
    }
}

impl Connection for SimConnection {
    type Send = SimSendStream;
    type Receive = SimReceiveStream;

    async fn open(&self) -> Result<(SimSendStream, SimReceiveStream), TransportError> {
        let End { wire, side, .. } = &*self.end;
        if self.is_closed() {
            return Err(wire.gone(*side));
        }
        let (send, receive) = (wire.pipe(*side), wire.pipe(side.other()));
        let announcement = Stream { send: Arc::clone(&receive), receive: Arc::clone(&send) };
        Ok((
            SimSendStream { pipe: send, announcement: Some(announcement), end: Arc::clone(&self.end) },
            SimReceiveStream { pipe: receive, ended: false, _end: Arc::clone(&self.end) },
        ))
    }

    async fn accept(&self) -> Result<(SimSendStream, SimReceiveStream), TransportError> {
        let End { wire, side, incoming, .. } = &*self.end;
        let stream = match incoming.lock().await.recv().await {
            Some(stream) if !self.is_closed() => stream,
            _ => return Err(wire.gone(*side)),
        };
        Ok((
            SimSendStream { pipe: stream.send, announcement: None, end: Arc::clone(&self.end) },
            SimReceiveStream { pipe: stream.receive, ended: false, _end: Arc::clone(&self.end) },
        ))
    }

    fn peer(&self) -> &Peer {
        &self.end.peer
    }

    fn close(&self) {
        self.end.wire.close(self.end.side);
    }

    fn is_closed(&self) -> bool {
        *self.end.wire.closed[self.end.side as usize].borrow()
    }

    async fn closed(&self) {
        let mut closed = self.end.wire.closed[self.end.side as usize].subscribe();
        // The sender lives as long as this connection: it cannot be gone before it says so.
        let _ = closed.wait_for(|closed| *closed).await;
    }
}

/// The sending half of a simulated stream.
#[derive(Debug)]
pub struct SimSendStream {
    pipe: Arc<Pipe>,
    /// What the peer takes when something is sent for the first time.
    announcement: Option<Stream>,
    end: Arc<End>,
}

impl SimSendStream {
    fn announce(&mut self) {
        if let Some(stream) = self.announcement.take()
            && let Some(incoming) = &self.end.wire.lock().incoming[self.end.side.other() as usize]
        {
            // Nobody takes streams there any more: the pipes learn of the close by themselves.
            let _ = incoming.send(stream);
        }
    }
}

impl SendStream for SimSendStream {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        self.announce();
        self.pipe.send(bytes).await
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        self.announce();
        self.pipe.finish()
    }

    fn reset(&mut self) {
        self.announce();
        self.pipe.reset();
    }
}

impl Drop for SimSendStream {
    fn drop(&mut self) {
        self.reset();
    }
}

/// The receiving half of a simulated stream.
#[derive(Debug)]
pub struct SimReceiveStream {
    pipe: Arc<Pipe>,
    ended: bool,
    _end: Arc<End>,
}

impl ReceiveStream for SimReceiveStream {
    async fn receive(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, TransportError> {
        if self.ended {
            return Ok(None);
        }
        let received = self.pipe.receive(limit_bytes).await?;
        self.ended = received.is_none();
        Ok(received)
    }
}

impl Drop for SimReceiveStream {
    fn drop(&mut self) {
        if !self.ended {
            self.pipe.stop();
        }
    }
}
