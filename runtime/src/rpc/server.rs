use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use situ_wire::codec::{self, CodecError};
use situ_wire::error::{ErrorCode, RemoteError};
use situ_wire::hello::{Hello, HelloReply, MAGIC, ProtocolVersion, Role};
use situ_wire::ids::ClusterId;
use situ_wire::limits::{CALLS_IN_FLIGHT, HELLO_LEN_BYTES, STREAM_OPEN_LEN_BYTES};
use situ_wire::messages::{Answer, Call, StreamOpen};
use situ_wire::time::TimeMs;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{FrameReceiver, FrameSender, RpcError};
use crate::Runtime;
use crate::clock::Clock;
use crate::transport::{Connection, Listener, Peer, SendStream, Transport};

/// How long a peer may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How much is gathered before it is sent, while answers wait.
const BATCH_LEN_BYTES: usize = 128 << 10;
/// How much the requests that are under way on one connection may take.
const REQUESTS_LEN_BYTES: usize = 256 << 20;
/// What each of them counts for at least, so that there are never more than [`CALLS_IN_FLIGHT`].
const REQUEST_LEN_MIN_BYTES: usize = REQUESTS_LEN_BYTES / CALLS_IN_FLIGHT;
/// How much the answers that a peer has not read yet may take, on one connection and on all of a server. They can be much
/// longer than what asked for them: a peer that asks and does not read must not fill the memory.
const UNSENT_LEN_BYTES: [usize; 2] = [256 << 20, 1 << 30];
/// The most streams of calls and of bytes that one connection keeps open at once.
const STREAMS_PER_CONNECTION: usize = 1024;
/// The most among them that are for calls: on each, a message of full length may be half here.
const CALL_STREAMS_PER_CONNECTION: usize = 64;

type ConnectionOf<R> = <<R as Runtime>::Transport as Transport>::Connection;
type SendOf<R> = <ConnectionOf<R> as Connection>::Send;
type ReceiveOf<R> = <ConnectionOf<R> as Connection>::Receive;

/// Who serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerIdentity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The part that it plays.
    pub role: Role,
}

/// Who calls, as far as it has been proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CallerIdentity {
    /// The part that it plays, allowed by its certificate.
    pub role: Role,
    /// Its node's or user's name, as in its certificate.
    pub name: String,
    /// Where it is, as far as is known.
    pub address: Option<SocketAddr>,
}

/// What a server does with calls and streams. Cheap to clone.
pub trait Service<R: Runtime>: Clone + Send + Sync + 'static {
    /// Takes one call; the answer goes through `reply`, whenever it is ready. Must not block and must not wait: a server
    /// hands the call to its owner task or spawns.
    fn call(&self, caller: &Arc<CallerIdentity>, request: Bytes, reply: Reply);

    /// A connection is closed or lost; its calls carried this very [`Arc`]. For servers whose peers owe them regular
    /// calls: a process that is killed shows here at once.
    fn disconnected(&self, caller: &Arc<CallerIdentity>) {
        let _ = caller;
    }

    /// Handles one stream of bulk bytes to its end. An error resets the stream and is logged.
    fn stream(
        &self,
        caller: Arc<CallerIdentity>,
        open: StreamOpen,
        send: FrameSender<SendOf<R>>,
        receive: FrameReceiver<ReceiveOf<R>>,
    ) -> impl Future<Output = Result<(), RpcError>> + Send;
}

/// Where the answer to one call goes. Dropped without an answer, it says that the server is shutting down.
#[derive(Debug)]
pub struct Reply {
    number: u64,
    /// Until when the caller waits.
    deadline: TimeMs,
    answers: mpsc::UnboundedSender<Outgoing>,
    permit: Option<OwnedSemaphorePermit>,
    unsent: [Arc<AtomicUsize>; 2],
}

/// An answer, and what it takes until it is sent.
type Outgoing = (Answer, Place);

/// The place of a call among those under way, and of its answer among those that are not sent.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    len_bytes: usize,
    unsent: [Arc<AtomicUsize>; 2],
}

impl Place {
    /// The same for a call that gets a short answer instead.
    fn without_answer(mut self) -> Self {
        let len_bytes = std::mem::take(&mut self.len_bytes);
        self.unsent.iter().for_each(|unsent| {
            unsent.fetch_sub(len_bytes, Ordering::Relaxed);
        });
        self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.unsent.iter().for_each(|unsent| {
            unsent.fetch_sub(self.len_bytes, Ordering::Relaxed);
        });
    }
}

/// What the calls of one connection share.
struct Room {
    requests: Arc<Semaphore>,
    /// Places for streams of calls.
    streams: Semaphore,
    /// How long the answers are together that are not sent: on this connection, and on all of the server.
    unsent: [Arc<AtomicUsize>; 2],
}

impl Room {
    fn new(all_unsent: Arc<AtomicUsize>) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(REQUESTS_LEN_BYTES)),
            streams: Semaphore::new(CALL_STREAMS_PER_CONNECTION),
            unsent: [Arc::default(), all_unsent],
        }
    }
}

impl Reply {
    /// Until when the caller waits.
    #[must_use]
    pub fn deadline(&self) -> TimeMs {
        self.deadline
    }

    /// Answers.
    pub fn send<A: Serialize>(mut self, result: Result<&A, RemoteError>) {
        let result = result.and_then(|answer| codec::encode(answer).map_err(|error| too_much(&error)));
        self.answer(result);
    }

    fn answer(&mut self, mut result: Result<Bytes, RemoteError>) {
        let Some(permit) = self.permit.take() else { return };
        let unsent = self.unsent.clone();
        let len_bytes = result.as_ref().map_or(0, Bytes::len);
        let mut place = Place { _permit: permit, len_bytes, unsent };
        let before = place.unsent.each_ref().map(|unsent| unsent.fetch_add(len_bytes, Ordering::Relaxed));
        // An answer goes out however long it is if nothing on its connection waits before it: what others do not read is
        // nothing to whoever reads.
        let is_full = |(before, limit): (usize, usize)| before + len_bytes > limit;
        if before[0] > 0 && before.into_iter().zip(UNSENT_LEN_BYTES).any(is_full) {
            place = place.without_answer();
            result = Err(RemoteError::new(
                ErrorCode::Unavailable,
                "the server",
                "too many answers wait to be read; read them and try again",
            ));
        }
        // The stream may be gone: then nobody waits.
        let _ = self.answers.send((Answer { number: self.number, result }, place));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.answer(Err(RemoteError::new(
            ErrorCode::Unavailable,
            "the server",
            "it is shutting down or gave the call up; try again",
        )));
    }
}

/// Serves connections until the listener fails, and says why: the server hears nobody any more.
pub async fn serve<R, L, S>(runtime: R, mut listener: L, identity: ServerIdentity, service: S) -> RpcError
where
    R: Runtime,
    L: Listener<Connection = ConnectionOf<R>>,
    S: Service<R>,
{
    let unsent = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let room = Arc::new(Room::new(Arc::clone(&unsent)));
                let task = serve_connection(runtime.clone(), connection, identity.clone(), service.clone(), room);
                runtime.spawn("connection", task);
            }
            Err(error) => return error.into(),
        }
    }
}

async fn serve_connection<R: Runtime, S: Service<R>>(
    runtime: R,
    connection: ConnectionOf<R>,
    identity: ServerIdentity,
    service: S,
    room: Arc<Room>,
) {
    let greeted = runtime.clock().timeout(HELLO_TIMEOUT, greet(&connection, &identity)).await;
    let caller = match greeted {
        Some(Ok(caller)) => Arc::new(caller),
        Some(Err(error)) => {
            tracing::warn!(peer = ?connection.peer().address, %error, "turned a connection away");
            return connection.close();
        }
        None => {
            tracing::warn!(peer = ?connection.peer().address, "a connection said no hello in time");
            return connection.close();
        }
    };
    let places = Arc::new(Semaphore::new(STREAMS_PER_CONNECTION));
    loop {
        // Without a place no stream is taken, and the transport holds the peer back.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, connection.accept().await.ok()?))
        };
        let next = tokio::select! {
            biased;
            () = connection.closed() => None,
            next = next => next,
        };
        let Some((place, (send, receive))) = next else { return service.disconnected(&caller) };
        let (runtime_, service, caller) = (runtime.clone(), service.clone(), Arc::clone(&caller));
        let room = Arc::clone(&room);
        runtime.spawn("stream", async move {
            if let Err(error) = serve_stream(runtime_, service, &caller, &room, send, receive).await {
                tracing::debug!(caller = %caller.name, %error, "a stream ended with an error");
            }
            drop(place);
        });
    }
}

/// Takes the hello of a connection and answers it.
async fn greet<C: Connection>(connection: &C, identity: &ServerIdentity) -> Result<CallerIdentity, RpcError> {
    let (mut send, receive) = connection.accept().await?;
    let hello: Hello = super::receive_message(receive, HELLO_LEN_BYTES).await?;
    let checked = check_hello(&hello, connection.peer(), identity);
    let reply = match &checked {
        Ok(_) => HelloReply::Welcome { version: ProtocolVersion::CURRENT },
        Err(error) => HelloReply::Refused(error.clone()),
    };
    super::send_message(&mut send, &reply).await?;
    send.finish().await?;
    if checked.is_err() {
        // The refusal must arrive before the connection goes: the peer closes it when it has read it.
        connection.closed().await;
    }
    Ok(checked?)
}

fn check_hello(hello: &Hello, peer: &Peer, identity: &ServerIdentity) -> Result<CallerIdentity, RemoteError> {
    let subject = format!("{} {}", hello.role, hello.name);
    if hello.magic != MAGIC {
        return Err(RemoteError::new(ErrorCode::Malformed, "a connection", "it does not speak the protocol of Situ"));
    }
    if hello.version != ProtocolVersion::CURRENT {
        return Err(RemoteError::new(
            ErrorCode::WrongVersion,
            subject,
            format!(
                "it speaks protocol version {}, the {} speaks {}; run the same release on both sides",
                hello.version.0,
                identity.role,
                ProtocolVersion::CURRENT.0
            ),
        ));
    }
    if hello.cluster != identity.cluster {
        return Err(RemoteError::new(
            ErrorCode::WrongCluster,
            subject,
            format!(
                "it belongs to cluster {}, the {} to cluster {}; check its directory and its configuration",
                hello.cluster, identity.role, identity.cluster
            ),
        ));
    }
    if hello.to != identity.role {
        return Err(RemoteError::new(
            ErrorCode::WrongIdentity,
            subject,
            format!("it looks for a {}, but a {} listens here; check the address", hello.to, identity.role),
        ));
    }
    let named = peer.name.as_ref().is_none_or(|name| *name == hello.name);
    if !peer.roles.contains(&hello.role) || !named {
        let (role, name) = (hello.role, &hello.name);
        return Err(RemoteError::new(
            ErrorCode::WrongIdentity,
            subject,
            format!(
                "expected a certificate for {role} {name:?}, found one for {} {:?}; have one issued with `situ ca issue \
                 --role {role} --name {name:?} --dir CA --out DIR`, and set `credentials` to that DIR",
                Role::list(&peer.roles),
                peer.name.as_deref().unwrap_or_default()
            ),
        ));
    }
    Ok(CallerIdentity { role: hello.role, name: hello.name.clone(), address: peer.address })
}

async fn serve_stream<R: Runtime, S: Service<R>>(
    runtime: R,
    service: S,
    caller: &Arc<CallerIdentity>,
    room: &Room,
    send: SendOf<R>,
    receive: ReceiveOf<R>,
) -> Result<(), RpcError> {
    let mut receive = FrameReceiver::new(receive);
    match receive.message_within::<StreamOpen>(STREAM_OPEN_LEN_BYTES).await? {
        None => Ok(()),
        Some(StreamOpen::Calls) => serve_calls(runtime, service, caller, room, send, receive).await,
        Some(open) => service.stream(Arc::clone(caller), open, FrameSender::new(send), receive).await,
    }
}

async fn serve_calls<R: Runtime, S: Service<R>>(
    runtime: R,
    service: S,
    caller: &Arc<CallerIdentity>,
    room: &Room,
    send: SendOf<R>,
    mut receive: FrameReceiver<ReceiveOf<R>>,
) -> Result<(), RpcError> {
    let _place = room.streams.acquire().await.expect("it is never closed");
    let (answers, queue) = mpsc::unbounded_channel();
    let sender = runtime.spawn("rpc-answer", send_answers(send, queue));
    while let Some(call) = receive.message::<Call>().await? {
        // Without room no call is taken, and the transport holds the caller back.
        let room_bytes = call.request.len().clamp(REQUEST_LEN_MIN_BYTES, REQUESTS_LEN_BYTES);
        let room_bytes = u32::try_from(room_bytes).expect("the room for requests is less than 4 GiB");
        let Ok(permit) = Arc::clone(&room.requests).acquire_many_owned(room_bytes).await else { break };
        let deadline = runtime.clock().now() + Duration::from_millis(u64::from(call.timeout_ms));
        let (answers, unsent) = (answers.clone(), room.unsent.clone());
        let reply = Reply { number: call.number, deadline, answers, permit: Some(permit), unsent };
        service.call(caller, call.request, reply);
    }
    // The caller asks no more; what is under way is still answered.
    drop(answers);
    sender.join().await.unwrap_or(Ok(()))
}

/// Sends answers, all that are ready at once.
async fn send_answers<S: SendStream>(
    mut stream: S,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
) -> Result<(), RpcError> {
    while let Some((answer, place)) = queue.recv().await {
        let mut batch = BytesMut::new();
        let mut places = vec![place];
        put_answer(answer, &mut batch)?;
        while batch.len() < BATCH_LEN_BYTES {
            let Ok((answer, place)) = queue.try_recv() else { break };
            put_answer(answer, &mut batch)?;
            places.push(place);
        }
        stream.send(batch.freeze()).await?;
        drop(places);
    }
    Ok(stream.finish().await?)
}

/// Appends an answer to a batch. One that is too long becomes an error, which fits.
fn put_answer(answer: Answer, batch: &mut BytesMut) -> Result<(), RpcError> {
    if let Err(error) = codec::encode_frame(&answer, batch) {
        codec::encode_frame(&Answer { number: answer.number, result: Err(too_much(&error)) }, batch)?;
    }
    Ok(())
}

fn too_much(error: &CodecError) -> RemoteError {
    RemoteError::new(ErrorCode::TooMuch, "the answer", format!("{error}; ask for less at a time"))
}
