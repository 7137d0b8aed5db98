use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use situ_wire::hello::{Hello, HelloReply, MAGIC, ProtocolVersion, Role};
use situ_wire::ids::ClusterId;
use situ_wire::limits::HELLO_LEN_BYTES;
use situ_wire::messages::StreamOpen;

use super::{Caller, FrameReceiver, FrameSender, Refusal, RpcError};
use crate::Runtime;
use crate::clock::Clock;
use crate::transport::{Connection, SendStream, Transport};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Who this process says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The part that it plays.
    pub role: Role,
    /// Its node's or user's name.
    pub name: String,
}

type ConnectionOf<R> = <<R as Runtime>::Transport as Transport>::Connection;
type SendOf<R> = <ConnectionOf<R> as Connection>::Send;
type ReceiveOf<R> = <ConnectionOf<R> as Connection>::Receive;
type Slots<R> = HashMap<(SocketAddr, Role), Arc<Slot<R>>>;

/// One peer's connection. The lock around all slots is held only to find one, that of a slot while connecting, so that
/// two who want the same peer make one connection and nobody else waits for them.
struct Slot<R: Runtime> {
    /// How often somebody has tried to connect, successful or not.
    attempts: AtomicU64,
    latest: tokio::sync::Mutex<Option<Result<ConnectionOf<R>, RpcError>>>,
}

impl<R: Runtime> Default for Slot<R> {
    fn default() -> Self {
        Self { attempts: AtomicU64::new(0), latest: tokio::sync::Mutex::default() }
    }
}

impl<R: Runtime> Slot<R> {
    /// Whether nobody uses it, and there is no connection in it that would be missed.
    fn is_idle(self: &Arc<Self>) -> bool {
        let is_open = |latest: &Option<Result<ConnectionOf<R>, RpcError>>| {
            latest.as_ref().is_some_and(|latest| latest.as_ref().is_ok_and(|connection| !connection.is_closed()))
        };
        Arc::strong_count(self) == 1 && self.latest.try_lock().is_ok_and(|latest| !is_open(&latest))
    }
}

/// Holds one connection to each peer and opens streams on it. Cheap to clone.
pub struct Connector<R: Runtime> {
    shared: Arc<Shared<R>>,
}

struct Shared<R: Runtime> {
    runtime: R,
    identity: Identity,
    slots: Mutex<Slots<R>>,
}

impl<R: Runtime> Clone for Connector<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Runtime> std::fmt::Debug for Connector<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("identity", &self.shared.identity).finish_non_exhaustive()
    }
}

impl<R: Runtime> Connector<R> {
    /// Connects as `identity`.
    pub fn new(runtime: R, identity: Identity) -> Self {
        Self { shared: Arc::new(Shared { runtime, identity, slots: Mutex::default() }) }
    }

    /// Who this process says it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The world it connects in.
    #[must_use]
    pub fn runtime(&self) -> &R {
        &self.shared.runtime
    }

    /// Opens a stream of calls to the `role` at `address`.
    ///
    /// # Errors
    /// When the peer cannot be reached or refuses.
    pub async fn caller<Q, A>(&self, address: SocketAddr, role: Role) -> Result<Caller<R, Q, A>, RpcError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let connection = self.connection(address, role).await?;
        Caller::open(self.shared.runtime.clone(), &connection).await
    }

    /// Opens a stream of bulk bytes to the `role` at `address`; its opening is sent.
    ///
    /// # Errors
    /// When the peer cannot be reached or refuses.
    pub async fn stream(
        &self,
        address: SocketAddr,
        role: Role,
        open: &StreamOpen,
    ) -> Result<(FrameSender<SendOf<R>>, FrameReceiver<ReceiveOf<R>>), RpcError> {
        let connection = self.connection(address, role).await?;
        let (send, receive) = connection.open().await?;
        let mut send = FrameSender::new(send);
        send.message(open).await?;
        Ok((send, FrameReceiver::new(receive)))
    }

    /// Closes the connection to a peer that is thought dead, so that everyone who waits for it sees an error now.
    pub async fn disconnect(&self, address: SocketAddr, role: Role) {
        if let Some(Ok(connection)) = self.slot(address, role).latest.lock().await.take() {
            connection.close();
        }
    }

    fn slot(&self, address: SocketAddr, role: Role) -> Arc<Slot<R>> {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() == slots.capacity() {
            // Before it grows: peers come and go, and each life has another port.
            slots.retain(|_, slot| !slot.is_idle());
        }
        Arc::clone(slots.entry((address, role)).or_default())
    }

    /// The connection to a peer, made if there is none that works.
    async fn connection(&self, address: SocketAddr, role: Role) -> Result<ConnectionOf<R>, RpcError> {
        let slot = self.slot(address, role);
        let attempts = slot.attempts.load(Ordering::Relaxed);
        let mut latest = slot.latest.lock().await;
        match &*latest {
            Some(Ok(connection)) if !connection.is_closed() => return Ok(connection.clone()),
            // Somebody has tried while this one waited: it would not go better now.
            Some(Err(error)) if slot.attempts.load(Ordering::Relaxed) != attempts => return Err(error.clone()),
            _ => {}
        }
        *latest = None;
        let connected = self.shared.runtime.clock().timeout(CONNECT_TIMEOUT, self.connect(address, role)).await;
        let connected = connected.unwrap_or(Err(RpcError::DeadlineExceeded { timeout: CONNECT_TIMEOUT }));
        slot.attempts.fetch_add(1, Ordering::Relaxed);
        *latest = Some(connected.clone());
        connected
    }

    async fn connect(&self, address: SocketAddr, role: Role) -> Result<ConnectionOf<R>, RpcError> {
        let connection = self.shared.runtime.transport().connect(address, role).await?;
        let identity = &self.shared.identity;
        let hello = Hello {
            magic: MAGIC,
            version: ProtocolVersion::CURRENT,
            cluster: identity.cluster,
            to: role,
            role: identity.role,
            name: identity.name.clone(),
        };
        let (mut send, receive) = connection.open().await?;
        super::send_message(&mut send, &hello).await?;
        send.finish().await?;
        match super::receive_message(receive, HELLO_LEN_BYTES).await? {
            HelloReply::Welcome { version: ProtocolVersion::CURRENT } => Ok(connection),
            HelloReply::Welcome { version } => Err(situ_wire::error::RemoteError::new(
                situ_wire::error::ErrorCode::WrongVersion,
                format!("{role} at {address}"),
                format!(
                    "it speaks protocol version {}, this program speaks {}; run the same release on both sides",
                    version.0,
                    ProtocolVersion::CURRENT.0
                ),
            )
            .into()),
            HelloReply::Refused(error) => Err(Box::new(Refusal { role, address, error }).into()),
        }
    }
}
