use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use situ_runtime::Runtime;
use situ_runtime::rpc::{Connector, Identity};
use situ_wire::hello::Role;
use situ_wire::ids::{ClientId, OperationId};
use situ_wire::messages::{namenode, scheduler};

use super::lease::Leases;
use super::remote::{Asked, Remote, WaitObserver};
use crate::config::ClientConfig;
use crate::core::Suspects;
use crate::error::ClientError;

/// A client of one cluster. Cheap to clone; every clone is the same client, and holds the same leases.
pub struct Client<R: Runtime> {
    pub(super) shared: Arc<Shared<R>>,
}

/// What all clones share.
pub(super) struct Shared<R: Runtime> {
    pub(super) runtime: R,
    pub(super) config: ClientConfig,
    pub(super) connector: Connector<R>,
    /// This run of the client: the holder of its leases.
    pub(super) id: ClientId,
    /// The number of the next operation.
    sequence: AtomicU64,
    pub(super) namenode: Remote<R, namenode::Request, namenode::Response>,
    pub(super) scheduler: Option<Remote<R, scheduler::Request, scheduler::Response>>,
    pub(super) leases: Leases,
    /// Datanodes that failed lately.
    suspects: Mutex<Suspects>,
}

impl<R: Runtime> Clone for Client<R> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Runtime> std::fmt::Debug for Client<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.shared.id)
            .field("namenode", &self.shared.config.namenode)
            .finish_non_exhaustive()
    }
}

impl<R: Runtime> Client<R> {
    /// A client that speaks as `identity` (see [`ClientConfig::user`]). It connects when it must, not before.
    pub fn new(runtime: R, config: ClientConfig, identity: Identity) -> Self {
        let observer: WaitObserver = Arc::new(|waiting| {
            tracing::warn!(
                server = %waiting.role,
                address = %waiting.address,
                operation = waiting.operation,
                error = %waiting.error,
                waited = ?waiting.waited,
                limit = ?waiting.limit,
                "waiting for a server"
            );
        });
        Self::with_observer(runtime, config, identity, observer)
    }

    /// As [`Client::new`]; `observer` is told whenever the client waits for a server that is away, instead of the log.
    pub fn with_observer(runtime: R, config: ClientConfig, identity: Identity, observer: WaitObserver) -> Self {
        let connector = Connector::new(runtime.clone(), identity);
        let (patience, timeout) = (config.patience(), config.call_timeout());
        let namenode =
            Remote::new(connector.clone(), Role::Namenode, config.namenode, patience, timeout, Arc::clone(&observer));
        let scheduler = config.scheduler.map(|address: SocketAddr| {
            Remote::new(connector.clone(), Role::Scheduler, address, patience, timeout, observer)
        });
        let suspects = Mutex::new(Suspects::new(Duration::from_millis(config.suspect_ms)));
        let shared = Shared {
            id: ClientId(runtime.random_u128()),
            sequence: AtomicU64::new(1),
            runtime,
            config,
            connector,
            namenode,
            scheduler,
            leases: Leases::default(),
            suspects,
        };
        Self { shared: Arc::new(shared) }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &ClientConfig {
        &self.shared.config
    }

    /// The servers are where `config` says from now on, for all clones; whether one of them was elsewhere before.
    /// Nothing else of it is taken.
    pub fn moved_to(&self, config: &ClientConfig) -> bool {
        let namenode = self.shared.namenode.moved_to(config.namenode);
        let scheduler = self.shared.scheduler.as_ref().zip(config.scheduler);
        scheduler.is_some_and(|(scheduler, address)| scheduler.moved_to(address)) || namenode
    }

    /// This run of the client: the holder of its leases.
    #[must_use]
    pub fn id(&self) -> ClientId {
        self.shared.id
    }

    /// The world it runs in.
    #[must_use]
    pub fn runtime(&self) -> &R {
        &self.shared.runtime
    }

    /// Its connections, for whoever speaks to servers of the same cluster as the same identity.
    #[must_use]
    pub fn connector(&self) -> &Connector<R> {
        &self.shared.connector
    }

    /// Names a new operation.
    pub(super) fn operation(&self) -> OperationId {
        OperationId { client: self.shared.id, sequence: self.shared.sequence.fetch_add(1, Ordering::Relaxed) }
    }

    /// Datanodes that failed lately. The table stays consistent whoever panicked: each call is one step.
    pub(super) fn suspects(&self) -> MutexGuard<'_, Suspects> {
        self.shared.suspects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the namenode, again where that can help.
    pub(super) async fn ask(
        &self,
        asked: Asked<'_>,
        request: &namenode::Request,
    ) -> Result<namenode::Response, ClientError> {
        self.shared.namenode.call(asked, request).await
    }
}
