use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use situ_wire::hello::Role;
use tokio::sync::mpsc;

use super::connection::Wire;
use super::network::Open;
use super::{IDLE_TIMEOUT, SimConnection, SimIdentity, SimNetwork};
use crate::transport::{Listener, Peer, Transport, TransportError};

/// One process on a simulated network.
#[derive(Clone, Debug)]
pub struct SimTransport {
    network: SimNetwork,
    host: IpAddr,
    /// The life of the host that it belongs to.
    life: u64,
    identity: Arc<SimIdentity>,
}

impl SimTransport {
    /// A process on the host `host`, as it lives now.
    #[must_use]
    pub fn new(network: SimNetwork, host: IpAddr, identity: SimIdentity) -> Self {
        let life = network.life(host);
        Self { network, host, life, identity: Arc::new(identity) }
    }

    /// Its host's address.
    #[must_use]
    pub fn host(&self) -> IpAddr {
        self.host
    }

    /// The network that it is on.
    #[must_use]
    pub fn network(&self) -> &SimNetwork {
        &self.network
    }

    fn is_dead(&self) -> bool {
        self.network.life(self.host) != self.life
    }

    /// The host's own address where a loopback address or none in particular is meant.
    fn own(&self, mut address: SocketAddr) -> SocketAddr {
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            address.set_ip(self.host);
        }
        address
    }

    /// Waits until both ways to `host` are open.
    async fn way_to(&self, host: IpAddr) {
        let mut topology = self.network.topology();
        while !(self.network.is_up(self.host, host) && self.network.is_up(host, self.host)) {
            // The network lives as long as this transport: it cannot end.
            let _ = topology.changed().await;
        }
    }
}

impl Transport for SimTransport {
    type Connection = SimConnection;
    type Listener = SimListener;

    async fn connect(&self, address: SocketAddr, to: Role) -> Result<SimConnection, TransportError> {
        let address = self.own(address);
        let unreachable = |reason: &str| TransportError::Unreachable { address, role: to, reason: reason.to_owned() };
        if tokio::time::timeout(IDLE_TIMEOUT, self.way_to(address.ip())).await.is_err() {
            return Err(unreachable("no answer in time"));
        }
        // There and back again.
        let latency = self.network.latency(self.host, address.ip()) + self.network.latency(address.ip(), self.host);
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        if self.is_dead() {
            return Err(unreachable("this host is dead"));
        }
        let Some(Open { identity, connections }) = self.network.listener(address) else {
            return Err(unreachable("nobody listens there"));
        };
        let untrusted = |reason: String| TransportError::Untrusted { address, role: to, reason };
        if identity.cluster != self.identity.cluster {
            return Err(untrusted("the certificates come from different authorities".to_owned()));
        }
        if !identity.roles.contains(&to) {
            return Err(untrusted(format!(
                "its certificate is for {} {:?}",
                Role::list(&identity.roles),
                identity.name
            )));
        }
        let peer = |identity: &SimIdentity, address| Peer {
            roles: identity.roles.clone(),
            name: Some(identity.name.clone()),
            address: Some(address),
        };
        let here = SocketAddr::new(self.host, 0);
        let (wire, connector, listener) = Wire::join(
            &self.network,
            [self.host, address.ip()],
            [peer(&identity, address), peer(&self.identity, here)],
        );
        self.network.add(&wire);
        connections.send(listener).map_err(|_| unreachable("nobody listens there"))?;
        Ok(connector)
    }

    async fn listen(&self, address: SocketAddr) -> Result<SimListener, TransportError> {
        let address = self.own(address);
        let refused = |reason: &str| TransportError::Listen { address, reason: reason.to_owned() };
        if self.is_dead() {
            return Err(refused("this host is dead"));
        }
        if address.ip() != self.host {
            return Err(refused("it is not an address of this host"));
        }
        let (connections, incoming) = mpsc::unbounded_channel();
        let weak = connections.downgrade();
        let open = Open { identity: (*self.identity).clone(), connections };
        let address = self.network.listen(address, open).ok_or_else(|| refused("the address is in use"))?;
        Ok(SimListener { network: self.network.clone(), address, incoming, connections: weak, taken: Vec::new() })
    }
}

/// Takes connections on a simulated network.
#[derive(Debug)]
pub struct SimListener {
    network: SimNetwork,
    address: SocketAddr,
    incoming: mpsc::UnboundedReceiver<SimConnection>,
    connections: mpsc::WeakUnboundedSender<SimConnection>,
    taken: Vec<Weak<Wire>>,
}

impl Listener for SimListener {
    type Connection = SimConnection;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> Result<SimConnection, TransportError> {
        let Some(connection) = self.incoming.recv().await else {
            return Err(TransportError::Listen { address: self.address, reason: "this host is dead".to_owned() });
        };
        self.taken.retain(|wire| wire.strong_count() > 0);
        self.taken.push(connection.wire());
        Ok(connection)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.unlisten(self.address, &self.connections);
        for wire in self.taken.iter().filter_map(Weak::upgrade) {
            wire.close_listener();
        }
    }
}
