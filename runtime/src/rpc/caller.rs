use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::codec;
use situ_wire::messages::{Answer, Call, StreamOpen};
use tokio::sync::{mpsc, oneshot};

use super::{FrameReceiver, RpcError};
use crate::clock::Clock;
use crate::transport::{Connection, ReceiveStream, SendStream, TransportError};
use crate::{AbortOnDrop, Runtime};

/// How much is gathered before it is sent, while calls wait.
const BATCH_LEN_BYTES: usize = 128 << 10;
/// How many calls may wait to be sent.
const QUEUE_CALLS: usize = 1024;

/// Makes calls on one stream: many at a time, answered in any order. Cheap to clone.
pub struct Caller<R: Runtime, Q, A> {
    runtime: R,
    stream: Arc<Stream>,
    types: PhantomData<fn(Q) -> A>,
}

impl<R: Runtime, Q, A> Clone for Caller<R, Q, A> {
    fn clone(&self) -> Self {
        Self { runtime: self.runtime.clone(), stream: Arc::clone(&self.stream), types: PhantomData }
    }
}

impl<R: Runtime, Q, A> std::fmt::Debug for Caller<R, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}

struct Stream {
    next: AtomicU64,
    queue: mpsc::Sender<Call>,
    waiting: Arc<Waiting>,
    _sender: AbortOnDrop<()>,
    _receiver: AbortOnDrop<()>,
}

/// Who waits for which answer; none once the stream is gone, with the reason.
type Waiting = Mutex<Table>;
/// By number, so that they hear of a failure in the order of their calls.
type Table = Result<BTreeMap<u64, oneshot::Sender<Result<Bytes, RpcError>>>, RpcError>;

impl<R: Runtime, Q: Serialize + Sync, A: DeserializeOwned> Caller<R, Q, A> {
    /// Opens a stream of calls on `connection`.
    pub(super) async fn open<C: Connection>(runtime: R, connection: &C) -> Result<Self, RpcError> {
        let (mut send, receive) = connection.open().await?;
        super::send_message(&mut send, &StreamOpen::Calls).await?;
        let waiting: Arc<Waiting> = Arc::new(Mutex::new(Ok(BTreeMap::new())));
        let (queue, calls) = mpsc::channel(QUEUE_CALLS);
        let sender = runtime.spawn("rpc-send", send_calls(send, calls, Arc::clone(&waiting)));
        let receiver = runtime.spawn("rpc-receive", receive_answers(receive, Arc::clone(&waiting)));
        let stream = Stream {
            next: AtomicU64::new(0),
            queue,
            waiting,
            _sender: sender.abort_on_drop(),
            _receiver: receiver.abort_on_drop(),
        };
        Ok(Self { runtime, stream: Arc::new(stream), types: PhantomData })
    }

    /// Makes one call and waits for its answer, at most `timeout`.
    ///
    /// # Errors
    /// When the peer answers with an error, or there is no answer; see [`RpcError`] for which of them leave open whether
    /// the peer has acted.
    pub async fn call(&self, request: &Q, timeout: Duration) -> Result<A, RpcError> {
        let number = self.stream.next.fetch_add(1, Ordering::Relaxed);
        let call = Call {
            number,
            timeout_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
            request: codec::encode(request)?,
        };
        let (answer, answered) = oneshot::channel();
        match &mut *lock(&self.stream.waiting) {
            Ok(waiting) => waiting.insert(number, answer),
            Err(error) => return Err(error.clone()),
        };
        let forget = Forget { waiting: &self.stream.waiting, number };
        let gone = || TransportError::Closed { reason: "the stream of calls has ended".to_owned() };
        let outcome = self
            .runtime
            .clock()
            .timeout(timeout, async {
                // If the queue is gone, whoever closed it has told all who wait why.
                let _ = self.stream.queue.send(call).await;
                answered.await.unwrap_or_else(|_| Err(gone().into()))
            })
            .await;
        drop(forget);
        match outcome {
            Some(result) => Ok(codec::decode(&result?)?),
            None => Err(RpcError::DeadlineExceeded { timeout }),
        }
    }

    /// Whether the stream is gone: a new caller is needed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        lock(&self.stream.waiting).is_err()
    }
}

/// Forgets a call that nobody waits for any more, also when its future is dropped.
struct Forget<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Ok(waiting) = &mut *lock(self.waiting) {
            waiting.remove(&self.number);
        }
    }
}

/// The table stays consistent whoever panicked: each critical section is one operation on it.
fn lock(waiting: &Waiting) -> std::sync::MutexGuard<'_, Table> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails everyone who waits, now and later.
fn fail(waiting: &Waiting, error: &RpcError) {
    let mut table = lock(waiting);
    if let Ok(waiters) = std::mem::replace(&mut *table, Err(error.clone())) {
        drop(table);
        for (_, waiter) in waiters {
            // Whoever gave up waiting does not need to know.
            let _ = waiter.send(Err(error.clone()));
        }
    }
}

/// Sends calls, all that wait at once.
async fn send_calls<S: SendStream>(mut stream: S, mut calls: mpsc::Receiver<Call>, waiting: Arc<Waiting>) {
    while let Some(call) = calls.recv().await {
        let mut batch = BytesMut::new();
        put_call(&call, &mut batch, &waiting);
        while batch.len() < BATCH_LEN_BYTES {
            let Ok(call) = calls.try_recv() else { break };
            put_call(&call, &mut batch, &waiting);
        }
        if let Err(error) = stream.send(batch.freeze()).await {
            return fail(&waiting, &error.into());
        }
    }
}

/// Appends a call to a batch. One that cannot be sent fails alone.
fn put_call(call: &Call, batch: &mut BytesMut, waiting: &Waiting) {
    if let Err(error) = codec::encode_frame(call, batch)
        && let Ok(waiters) = &mut *lock(waiting)
        && let Some(waiter) = waiters.remove(&call.number)
    {
        // Whoever gave up waiting does not need to know.
        let _ = waiter.send(Err(error.into()));
    }
}

/// Hands answers to those who wait for them.
async fn receive_answers<T: ReceiveStream>(stream: T, waiting: Arc<Waiting>) {
    let mut frames = FrameReceiver::new(stream);
    let error = loop {
        match frames.message::<Answer>().await {
            Ok(Some(answer)) => {
                let waiter = match &mut *lock(&waiting) {
                    Ok(waiters) => waiters.remove(&answer.number),
                    Err(_) => return,
                };
                // No waiter: the call's time was up.
                if let Some(waiter) = waiter {
                    let _ = waiter.send(answer.result.map_err(RpcError::from));
                }
            }
            Ok(None) => {
                break TransportError::Closed { reason: "the peer ended the stream of calls".to_owned() }.into();
            }
            Err(error) => break error,
        }
    };
    fail(&waiting, &error);
}
