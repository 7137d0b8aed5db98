//! What every transport promises.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{join, join_all};
use situ_wire::hello::Role;

use super::{Connection, Listener, ReceiveStream, SendStream, Transport, TransportError};

/// Two processes that trust each other.
pub(super) struct Parties<T> {
    pub(super) connector: T,
    pub(super) listener: T,
    /// Where the listener may listen.
    pub(super) at: SocketAddr,
    /// The role that the listener plays.
    pub(super) role: Role,
}

/// What a transport may at most hold of one stream that nobody reads.
const HELD_LEN_BYTES: usize = 24 << 20;
/// How long a sender that must wait is watched.
const WATCHED: Duration = Duration::from_millis(300);

impl<T: Transport> Parties<T> {
    async fn listen(&self) -> T::Listener {
        self.listener.listen(self.at).await.unwrap()
    }

    /// The connector's end, the listener's end, and what keeps listening.
    async fn connect(&self) -> (T::Connection, T::Connection, T::Listener) {
        let mut listener = self.listen().await;
        let address = listener.address();
        let (here, there) = join(self.connector.connect(address, self.role), listener.accept()).await;
        (here.unwrap(), there.unwrap(), listener)
    }
}

type Halves<C> = (<C as Connection>::Send, <C as Connection>::Receive);

/// A stream from one end to the other; its first byte has been sent and received.
async fn stream<C: Connection>(here: &C, there: &C) -> (Halves<C>, Halves<C>) {
    let opened = async {
        let (mut send, receive) = here.open().await.unwrap();
        send.send(Bytes::from_static(b"!")).await.unwrap();
        (send, receive)
    };
    let accepted = async {
        let (send, mut receive) = there.accept().await.unwrap();
        assert_eq!(receive.receive(1).await.unwrap().as_deref(), Some(&b"!"[..]));
        (send, receive)
    };
    join(opened, accepted).await
}

async fn receive_all<R: ReceiveStream>(receive: &mut R, limit_bytes: usize) -> Result<BytesMut, TransportError> {
    let mut all = BytesMut::new();
    while let Some(bytes) = receive.receive(limit_bytes).await? {
        assert!((1..=limit_bytes).contains(&bytes.len()), "a piece of {} bytes", bytes.len());
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

fn some_bytes(seed: u64, len_bytes: usize) -> Bytes {
    let mut bytes = vec![0; len_bytes];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes.into()
}

pub(super) async fn bytes_arrive_in_order_both_ways<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let (one, other) = stream(&here, &there).await;
    let talk = async |(mut send, mut receive): Halves<T::Connection>, own: u64, others: u64| {
        let send_all = async {
            let mut random = fastrand::Rng::with_seed(own);
            let mut left = some_bytes(own, 3 << 20);
            while !left.is_empty() {
                let piece = left.split_to(random.usize(..200_000).min(left.len()));
                let rest = left.split_to(random.usize(..10).min(left.len()));
                send.send_all(vec![piece, Bytes::new(), rest]).await.unwrap();
            }
            send.finish().await.unwrap();
        };
        let (received, ()) = join(receive_all(&mut receive, 70_001), send_all).await;
        assert!(received.unwrap() == some_bytes(others, 3 << 20), "other bytes arrived than were sent");
    };
    join(talk(one, 1, 2), talk(other, 2, 1)).await;
}

pub(super) async fn one_direction_ends_without_the_other<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut ask, mut answered), (mut answer, mut asked)) = stream(&here, &there).await;
    ask.send(Bytes::from_static(b"how much?")).await.unwrap();
    ask.finish().await.unwrap();
    assert_eq!(receive_all(&mut asked, 4).await.unwrap(), "how much?");
    assert_eq!(asked.receive(1).await, Ok(None), "an end stays one");
    answer.send(Bytes::from_static(b"42")).await.unwrap();
    answer.finish().await.unwrap();
    assert_eq!(receive_all(&mut answered, 100).await.unwrap(), "42");
    assert!(matches!(ask.send(Bytes::from_static(b"more")).await, Err(TransportError::Closed { .. })));
    drop((ask, answered, answer, asked));
    assert!(!here.is_closed() && !there.is_closed());
}

pub(super) async fn an_empty_stream_ends<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let (mut send, _receive) = here.open().await.unwrap();
    send.finish().await.unwrap();
    let (_, mut receive) = there.accept().await.unwrap();
    assert_eq!(receive.receive(10).await, Ok(None));
}

pub(super) async fn a_reset_is_seen_as_one<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    for by_drop in [false, true] {
        let ((mut send, _answer), (mut back, mut receive)) = stream(&here, &there).await;
        send.send(Bytes::from_static(b"half of it")).await.unwrap();
        let kept = match by_drop {
            true => {
                drop(send);
                None
            }
            false => {
                send.reset();
                Some(send)
            }
        };
        assert_eq!(receive_all(&mut receive, 100).await, Err(TransportError::Reset));
        assert_eq!(receive.receive(1).await, Err(TransportError::Reset), "a reset stays one");
        // The other direction stands.
        back.send(Bytes::from_static(b"why?")).await.unwrap();
        drop(kept);
    }
    assert!(!here.is_closed() && !there.is_closed());
}

pub(super) async fn a_receiver_that_leaves_stops_the_sender<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, _answer), (back, mut receive)) = stream(&here, &there).await;
    let sender = async {
        loop {
            if let Err(error) = send.send(Bytes::from(vec![7; 1 << 20])).await {
                break error;
            }
        }
    };
    let leave = async {
        receive.receive(100).await.unwrap();
        // The sender comes to wait for room.
        tokio::time::sleep(WATCHED).await;
        drop(receive);
    };
    let (error, ()) = join(sender, leave).await;
    assert_eq!(error, TransportError::Stopped);
    assert_eq!(send.send(Bytes::from_static(b"again")).await, Err(TransportError::Stopped));
    assert_eq!(send.finish().await, Ok(()), "whoever was stopped may finish");
    drop(back);
    assert!(!here.is_closed() && !there.is_closed());
}

pub(super) async fn a_sender_waits_for_a_slow_receiver<T: Transport>(parties: Parties<T>) {
    const TOTAL_LEN_BYTES: usize = 2 * HELD_LEN_BYTES;
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, _answer), (_back, mut receive)) = stream(&here, &there).await;
    let sent = AtomicUsize::new(0);
    let mut sender = Box::pin(async {
        while sent.load(Ordering::Relaxed) < TOTAL_LEN_BYTES {
            send.send(Bytes::from(vec![1; 64 << 10])).await.unwrap();
            sent.fetch_add(64 << 10, Ordering::Relaxed);
        }
        send.finish().await.unwrap();
    });
    let ended = tokio::time::timeout(WATCHED, &mut sender).await;
    assert!(ended.is_err(), "{TOTAL_LEN_BYTES} bytes were sent and nobody took them");
    assert!(sent.load(Ordering::Relaxed) <= HELD_LEN_BYTES);
    // Nobody else is held up by it.
    let ((mut other, _), (_, mut heard)) = stream(&here, &there).await;
    other.send(Bytes::from_static(b"other")).await.unwrap();
    assert_eq!(heard.receive(5).await.unwrap().as_deref(), Some(&b"other"[..]));
    let (received, ()) = join(receive_all(&mut receive, 1 << 20), sender).await;
    assert_eq!(received.unwrap().len(), TOTAL_LEN_BYTES);
}

pub(super) async fn a_receive_that_is_given_up_loses_nothing<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, _answer), (_back, mut receive)) = stream(&here, &there).await;
    let mut received = BytesMut::new();
    for number in 0..100_u8 {
        let given_up = tokio::select! {
            biased;
            bytes = receive.receive(1) => bytes.unwrap(),
            () = tokio::task::yield_now() => None,
        };
        received.extend_from_slice(&given_up.unwrap_or_default());
        send.send(Bytes::copy_from_slice(&[number])).await.unwrap();
    }
    send.finish().await.unwrap();
    received.unsplit(receive_all(&mut receive, 10).await.unwrap());
    assert_eq!(received, (0..100).collect::<Vec<u8>>()[..]);
}

pub(super) async fn closing_wakes_everybody<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, mut answered), (mut back, mut receive)) = stream(&here, &there).await;
    let fill = async |send: &mut <T::Connection as Connection>::Send| {
        loop {
            if let Err(error) = send.send(Bytes::from(vec![7; 1 << 20])).await {
                break error;
            }
        }
    };
    let ((_idle, mut silent), _others) = stream(&here, &there).await;
    let close = async {
        tokio::time::sleep(WATCHED).await;
        assert!(!here.is_closed() && !there.is_closed());
        here.close();
        assert!(here.is_closed());
    };
    let closed = |error: &TransportError| matches!(error, TransportError::Closed { .. });
    let waiting = async {
        tokio::join!(
            async { assert!(closed(&fill(&mut send).await)) },
            async { assert!(closed(&fill(&mut back).await)) },
            async { assert!(here.accept().await.is_err_and(|error| closed(&error))) },
            async { assert!(there.accept().await.is_err_and(|error| closed(&error))) },
            async { assert!(silent.receive(1).await.is_err_and(|error| closed(&error))) },
            here.closed(),
            there.closed(),
        );
    };
    join(waiting, close).await;
    assert!(there.is_closed());
    assert!(answered.receive(1).await.is_err_and(|error| closed(&error)), "this side wants nothing more");
    assert!(receive_all(&mut receive, 1 << 20).await.is_err_and(|error| closed(&error)));
    assert!(here.open().await.is_err_and(|error| closed(&error)));
    assert!(there.open().await.is_err_and(|error| closed(&error)));
}

pub(super) async fn a_connection_closes_with_its_last_holder<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, answered), (_back, mut receive)) = stream(&here, &there).await;
    drop((here.clone(), here, answered));
    send.send(Bytes::from_static(b"still here")).await.unwrap();
    assert_eq!(receive.receive(1).await.unwrap().as_deref(), Some(&b"s"[..]));
    assert!(!there.is_closed());
    drop(send);
    there.closed().await;
}

pub(super) async fn a_listener_that_leaves_closes_what_it_took<T: Transport>(parties: Parties<T>) {
    let (here, there, listener) = parties.connect().await;
    let address = listener.address();
    drop(listener);
    join(here.closed(), there.closed()).await;
    // A listener goes a moment after it was dropped; who comes in that moment is closed like the others.
    for tried in 0.. {
        match parties.connector.connect(address, parties.role).await.map(drop) {
            Err(TransportError::Unreachable { .. }) => break,
            found => assert!(tried < 10_000, "nobody is there any more, but {found:?}"),
        }
        tokio::task::yield_now().await;
    }
}

pub(super) async fn many_streams_at_once<T: Transport>(parties: Parties<T>) {
    const STREAMS: u64 = 300;
    let (here, there, _listener) = parties.connect().await;
    let ask = async |number: u64| {
        let (mut send, mut receive) = here.open().await.unwrap();
        send.send(some_bytes(number, 10_000)).await.unwrap();
        send.finish().await.unwrap();
        assert!(receive_all(&mut receive, 4096).await.unwrap() == some_bytes(number, 10_000));
    };
    let answer = async || {
        let (mut send, mut receive) = there.accept().await.unwrap();
        let asked = receive_all(&mut receive, 4096).await.unwrap();
        send.send(asked.freeze()).await.unwrap();
        send.finish().await.unwrap();
    };
    join(join_all((0..STREAMS).map(ask)), join_all((0..STREAMS).map(|_| answer()))).await;
}

pub(super) async fn much_arrives_whole<T: Transport>(parties: Parties<T>) {
    let (here, there, _listener) = parties.connect().await;
    let ((mut send, _answer), (_back, mut receive)) = stream(&here, &there).await;
    let piece = some_bytes(1, 1 << 20);
    let send_all = async {
        let mut hasher = crc32c::crc32c(b"");
        for _ in 0..64 {
            hasher = crc32c::crc32c_append(hasher, &piece);
            send.send(piece.clone()).await.unwrap();
        }
        send.finish().await.unwrap();
        hasher
    };
    let take_all = async {
        let mut hasher = crc32c::crc32c(b"");
        while let Some(bytes) = receive.receive(1 << 20).await.unwrap() {
            hasher = crc32c::crc32c_append(hasher, &bytes);
        }
        hasher
    };
    let (sent, received) = join(send_all, take_all).await;
    assert_eq!(sent, received);
}

pub(super) async fn an_address_is_taken_once<T: Transport>(parties: Parties<T>) {
    let listener = parties.listen().await;
    let second = parties.listener.listen(listener.address()).await.map(drop);
    assert!(matches!(second, Err(TransportError::Listen { .. })), "{second:?}");
}

/// `stranger` has a certificate, but not of this cluster.
pub(super) async fn strangers_are_refused_and_disturb_nobody<T: Transport>(parties: Parties<T>, stranger: T) {
    let (here, there, mut listener) = parties.connect().await;
    let address = listener.address();
    let refused = {
        let accepting = async {
            let accepted = listener.accept().await.map(drop);
            panic!("a stranger was accepted: {accepted:?}");
        };
        tokio::select! {
            refused = stranger.connect(address, parties.role) => refused.map(drop),
            () = accepting => unreachable!("it panics"),
        }
    };
    assert!(matches!(refused, Err(TransportError::Untrusted { .. })), "{refused:?}");
    let ((mut send, _answer), (_back, mut receive)) = stream(&here, &there).await;
    send.send(Bytes::from_static(b"undisturbed")).await.unwrap();
    assert_eq!(receive.receive(100).await.unwrap().as_deref(), Some(&b"undisturbed"[..]));
    let (again, accepted) = join(parties.connector.connect(address, parties.role), listener.accept()).await;
    assert!(again.is_ok() && accepted.is_ok());
}

pub(super) async fn a_server_of_another_role_is_not_taken<T: Transport>(parties: Parties<T>, other: Role) {
    let listener = parties.listen().await;
    let refused = parties.connector.connect(listener.address(), other).await.map(drop);
    assert!(matches!(refused, Err(TransportError::Untrusted { .. })), "{refused:?}");
}
