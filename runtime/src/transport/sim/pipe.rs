use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::SimNetwork;
use crate::transport::TransportError;

/// How much one direction of a stream holds before its sender has to wait.
const WINDOW_LEN_BYTES: usize = 256 << 10;

/// One direction of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    network: SimNetwork,
    /// The sender's host.
    from: IpAddr,
    /// The receiver's host.
    to: IpAddr,
    state: Mutex<State>,
    /// Something changed for the receiver.
    readable: Notify,
    /// Something changed for the sender.
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is on its way, and when it arrives.
    queue: VecDeque<(Instant, Bytes)>,
    queued_bytes: usize,
    end: Option<(Instant, End)>,
    /// The receiver wants no more.
    stopped: bool,
    /// Why the connection is closed, as far as the sender knows.
    closed_for_sender: Option<String>,
    /// Why the connection is closed, as far as the receiver knows.
    closed_for_receiver: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Finished,
    Reset,
}

/// What the receiver finds.
enum Found {
    Now(Result<Option<Bytes>, TransportError>),
    At(Instant),
    Nothing,
}

impl Pipe {
    pub(super) fn new(network: SimNetwork, from: IpAddr, to: IpAddr) -> Self {
        Self { network, from, to, state: Mutex::default(), readable: Notify::new(), writable: Notify::new() }
    }

    /// Puts `bytes` on the way, waiting for room.
    pub(super) async fn send(&self, mut bytes: Bytes) -> Result<(), TransportError> {
        loop {
            {
                let mut state = self.lock();
                if let Some(reason) = &state.closed_for_sender {
                    return Err(TransportError::Closed { reason: reason.clone() });
                }
                if state.end.is_some() {
                    return Err(TransportError::Closed { reason: "this side has ended the stream".to_owned() });
                }
                if state.stopped && self.network.is_up(self.to, self.from) {
                    return Err(TransportError::Stopped);
                }
                let room = WINDOW_LEN_BYTES - state.queued_bytes;
                if room > 0 {
                    let piece = bytes.split_to(room.min(bytes.len()));
                    let due = self.due(&state);
                    state.queued_bytes += piece.len();
                    if !piece.is_empty() {
                        state.queue.push_back((due, piece));
                        self.readable.notify_one();
                    }
                    assert!(state.queued_bytes <= WINDOW_LEN_BYTES, "a sender has to wait for room");
                }
            }
            if bytes.is_empty() {
                return Ok(());
            }
            self.writable.notified().await;
        }
    }

    /// Ends the stream in order.
    pub(super) fn finish(&self) -> Result<(), TransportError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed_for_sender {
            return Err(TransportError::Closed { reason: reason.clone() });
        }
        if state.end.is_none() {
            state.end = Some((self.due(&state), End::Finished));
            self.readable.notify_one();
        }
        Ok(())
    }

    /// Gives the stream up, unless it has ended in order.
    pub(super) fn reset(&self) {
        let mut state = self.lock();
        if state.end.is_none() {
            state.end = Some((self.due(&state), End::Reset));
            self.readable.notify_one();
        }
    }

    /// The receiver wants no more.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.queue.clear();
        state.queued_bytes = 0;
        self.writable.notify_one();
    }

    pub(super) async fn receive(&self, limit_bytes: usize) -> Result<Option<Bytes>, TransportError> {
        let mut topology = self.network.topology();
        loop {
            topology.mark_unchanged();
            let found = self.find(limit_bytes);
            let wake = match found {
                Found::Now(result) => return result,
                Found::At(due) => Some(due),
                Found::Nothing => None,
            };
            let arrival = async {
                match wake {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.readable.notified() => {}
                // The network lives as long as this pipe: it cannot end.
                _ = topology.changed() => {}
                () = arrival => {}
            }
        }
    }

    fn find(&self, limit_bytes: usize) -> Found {
        assert!(limit_bytes > 0, "a receiver asks for at least one byte");
        let mut state = self.lock();
        if let Some(reason) = &state.closed_for_receiver {
            return Found::Now(Err(TransportError::Closed { reason: reason.clone() }));
        }
        if !self.network.is_up(self.from, self.to) {
            return Found::Nothing;
        }
        let now = Instant::now();
        if let Some((due, End::Reset)) = state.end
            && due <= now
        {
            return Found::Now(Err(TransportError::Reset));
        }
        if let Some((due, bytes)) = state.queue.front_mut() {
            if *due > now {
                return Found::At(*due);
            }
            let piece = bytes.split_to(limit_bytes.min(bytes.len()));
            if bytes.is_empty() {
                state.queue.pop_front();
            }
            state.queued_bytes -= piece.len();
            self.writable.notify_one();
            return Found::Now(Ok(Some(piece)));
        }
        match state.end {
            Some((due, _)) if due > now => Found::At(due),
            Some((_, End::Finished)) => Found::Now(Ok(None)),
            Some((_, End::Reset)) => Found::Now(Err(TransportError::Reset)),
            None => Found::Nothing,
        }
    }

    /// The connection is closed for the sender or for the receiver.
    pub(super) fn close(&self, for_sender: bool, reason: &str) {
        let mut state = self.lock();
        let side = if for_sender { &mut state.closed_for_sender } else { &mut state.closed_for_receiver };
        side.get_or_insert_with(|| reason.to_owned());
        self.readable.notify_one();
        self.writable.notify_one();
    }

    /// When what is sent now arrives: never before what was sent earlier.
    fn due(&self, state: &State) -> Instant {
        let due = Instant::now() + self.network.latency(self.from, self.to);
        state.queue.back().map_or(due, |(last, _)| due.max(*last))
    }

    /// The state stays consistent whoever panicked: the asserts come before what they guard is used.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
