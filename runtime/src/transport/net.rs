//! The machine's network: Unix sockets on this host, QUIC to others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use situ_wire::hello::Role;

use super::local::{self, LocalConnection, LocalListener, LocalReceiveStream, LocalSendStream};
use super::quic::{self, Driver, QuicConnection, QuicListener, QuicReceiveStream, QuicSendStream, Settings};
use super::{Connection, Listener, Peer, ReceiveStream, SendStream, Transport, TransportError};
use crate::security::{Credentials, SecurityError};

/// Which ways are used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Route {
    /// Unix sockets to this host where a process of this user listens, QUIC otherwise.
    #[default]
    Auto,
    /// QUIC alone, also to this host: for measurements.
    QuicOnly,
    /// Unix sockets alone.
    LocalOnly,
}

/// The machine's network, with this process's identity. Cheap to clone.
#[derive(Clone, Debug)]
pub struct NetTransport {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    route: Route,
    /// None without credentials, or without QUIC.
    settings: Option<Settings>,
    /// The endpoints that connections are made from, one for each family of addresses, while somebody uses them.
    drivers: Mutex<[Weak<Driver>; 2]>,
}

impl NetTransport {
    /// A process that proves who it is with `credentials`. Without them it reaches, and is reached by, only processes of
    /// the same user on this host.
    ///
    /// # Errors
    /// When the TLS library does not take the credentials.
    pub fn new(credentials: Option<&Credentials>, route: Route) -> Result<Self, SecurityError> {
        let credentials = credentials.filter(|_| route != Route::LocalOnly);
        let settings = credentials.map(Settings::new).transpose()?;
        Ok(Self { shared: Arc::new(Shared { route, settings, drivers: Mutex::default() }) })
    }

    /// Closes every QUIC connection that was made from here, and waits (a second at most) until the peers know: they
    /// would miss a process that just ends only after ten.
    pub async fn shut_down(&self) {
        let drivers = std::mem::take(&mut *self.shared.drivers.lock().unwrap_or_else(PoisonError::into_inner));
        for driver in drivers.iter().filter_map(Weak::upgrade) {
            driver.say_goodbye().await;
        }
    }

    /// The endpoint to connect from.
    fn driver(&self, family: IpAddr) -> io::Result<Arc<Driver>> {
        let (index, any): (_, IpAddr) = match family {
            IpAddr::V4(_) => (0, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (1, Ipv6Addr::UNSPECIFIED.into()),
        };
        let mut drivers = self.shared.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = drivers[index].upgrade() {
            return Ok(driver);
        }
        let driver = Driver::start(SocketAddr::new(any, 0), None)?;
        drivers[index] = Arc::downgrade(&driver);
        Ok(driver)
    }
}

impl Transport for NetTransport {
    type Connection = NetConnection;
    type Listener = NetListener;

    async fn connect(&self, address: SocketAddr, to: Role) -> Result<NetConnection, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable { address, role: to, reason };
        let here = is_this_host(address.ip());
        if here
            && self.shared.route != Route::QuicOnly
            && let Some(connection) = local::connect(address).await
        {
            return Ok(NetConnection::Local(connection));
        }
        let Some(settings) = &self.shared.settings else {
            let reason = match here {
                true => "no process of this user listens there",
                false => "a cluster certificate is needed to reach other hosts",
            };
            return Err(unreachable(reason.to_owned()));
        };
        let driver = self.driver(address.ip()).map_err(|error| unreachable(error.to_string()))?;
        quic::connect(driver, settings, address, to).await.map(NetConnection::Quic)
    }

    async fn listen(&self, address: SocketAddr) -> Result<NetListener, TransportError> {
        let failed = |error: io::Error| TransportError::Listen { address, reason: error.to_string() };
        let port = match &self.shared.settings {
            Some(settings) => Port::Quic(QuicListener::bind(address, settings).map_err(failed)?),
            None if address.ip().is_loopback() => Port::Reserved(UdpSocket::bind(address).map_err(failed)?),
            None => return Err(TransportError::Insecure { address }),
        };
        let bound = match &port {
            Port::Quic(listener) => listener.address(),
            Port::Reserved(socket) => socket.local_addr(),
        };
        let address = bound.map_err(failed)?;
        let local = match self.shared.route {
            Route::QuicOnly => None,
            Route::Auto | Route::LocalOnly => Some(LocalListener::bind(address).map_err(failed)?),
        };
        Ok(NetListener { address, port, local })
    }
}

/// Whether `ip` is an address of this host.
pub(super) fn is_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Takes connections over Unix sockets and QUIC.
#[derive(Debug)]
pub struct NetListener {
    address: SocketAddr,
    port: Port,
    local: Option<LocalListener>,
}

/// The UDP port that a listener has, even where nobody is to be heard on it: the address is this process's.
#[derive(Debug)]
enum Port {
    Quic(QuicListener),
    Reserved(UdpSocket),
}

impl Listener for NetListener {
    type Connection = NetConnection;

    fn address(&self) -> SocketAddr {
        self.address
    }

    async fn accept(&mut self) -> Result<NetConnection, TransportError> {
        let Self { address, port, local } = self;
        let from_local = async {
            match local {
                Some(listener) => listener.accept().await.map(NetConnection::Local),
                None => std::future::pending().await,
            }
        };
        let from_quic = async {
            match port {
                Port::Quic(listener) => listener.accept().await.map(NetConnection::Quic),
                Port::Reserved(_) => std::future::pending().await,
            }
        };
        let accepted = tokio::select! {
            connection = from_local => connection,
            connection = from_quic => connection,
        };
        let failed = || TransportError::Listen { address: *address, reason: "its socket failed".to_owned() };
        accepted.ok_or_else(failed)
    }
}

/// A connection over whichever way.
#[derive(Clone, Debug)]
pub enum NetConnection {
    /// On this host.
    Local(LocalConnection),
    /// Over the network.
    Quic(QuicConnection),
}

impl Connection for NetConnection {
    type Send = NetSendStream;
    type Receive = NetReceiveStream;

    async fn open(&self) -> Result<(NetSendStream, NetReceiveStream), TransportError> {
        match self {
            Self::Local(connection) => connection.open().await.map(local_halves),
            Self::Quic(connection) => connection.open().await.map(quic_halves),
        }
    }

    async fn accept(&self) -> Result<(NetSendStream, NetReceiveStream), TransportError> {
        match self {
            Self::Local(connection) => connection.accept().await.map(local_halves),
            Self::Quic(connection) => connection.accept().await.map(quic_halves),
        }
    }

    fn peer(&self) -> &Peer {
        match self {
            Self::Local(connection) => connection.peer(),
            Self::Quic(connection) => connection.peer(),
        }
    }

    fn close(&self) {
        match self {
            Self::Local(connection) => connection.close(),
            Self::Quic(connection) => connection.close(),
        }
    }

    fn is_closed(&self) -> bool {
        match self {
            Self::Local(connection) => connection.is_closed(),
            Self::Quic(connection) => connection.is_closed(),
        }
    }

    async fn closed(&self) {
        match self {
            Self::Local(connection) => connection.closed().await,
            Self::Quic(connection) => connection.closed().await,
        }
    }
}

fn local_halves((send, receive): (LocalSendStream, LocalReceiveStream)) -> (NetSendStream, NetReceiveStream) {
    (NetSendStream::Local(send), NetReceiveStream::Local(receive))
}

fn quic_halves((send, receive): (QuicSendStream, QuicReceiveStream)) -> (NetSendStream, NetReceiveStream) {
    (NetSendStream::Quic(send), NetReceiveStream::Quic(receive))
}

/// The sending half of a stream.
#[derive(Debug)]
pub enum NetSendStream {
    /// On this host.
    Local(LocalSendStream),
    /// Over the network.
    Quic(QuicSendStream),
}

impl SendStream for NetSendStream {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        match self {
            Self::Local(stream) => stream.send(bytes).await,
            Self::Quic(stream) => stream.send(bytes).await,
        }
    }

    async fn send_all(&mut self, pieces: Vec<Bytes>) -> Result<(), TransportError> {
        match self {
            Self::Local(stream) => stream.send_all(pieces).await,
            Self::Quic(stream) => stream.send_all(pieces).await,
        }
    }

    async fn finish(&mut self) -> Result<(), TransportError> {
        match self {
            Self::Local(stream) => stream.finish().await,
            Self::Quic(stream) => stream.finish().await,
        }
    }

    fn reset(&mut self) {
        match self {
            Self::Local(stream) => stream.reset(),
            Self::Quic(stream) => stream.reset(),
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub enum NetReceiveStream {
    /// On this host.
    Local(LocalReceiveStream),
    /// Over the network.
    Quic(QuicReceiveStream),
}

impl ReceiveStream for NetReceiveStream {
    async fn receive(&mut self, limit_bytes: usize) -> Result<Option<Bytes>, TransportError> {
        match self {
            Self::Local(stream) => stream.receive(limit_bytes).await,
            Self::Quic(stream) => stream.receive(limit_bytes).await,
        }
    }
}
