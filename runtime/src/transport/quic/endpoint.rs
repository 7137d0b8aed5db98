use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quinn::{ConnectionError, Incoming, VarInt};
use rustls_pki_types::CertificateDer;
use situ_wire::hello::Role;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::connection::QuicConnection;
use super::{Driver, Settings};
use crate::security::{Identity, server_name};
use crate::transport::{Peer, TransportError};

/// What a server says to those whom it accepts.
const WELCOME: u8 = b'W';
/// Why a connection is closed by a side that does not trust the other's certificate.
const UNTRUSTED: VarInt = VarInt::from_u32(1);
/// How many accepted connections may wait to be taken.
const QUEUE_CONNECTIONS: usize = 64;
/// From this many handshakes under way on, whoever wants to connect has to prove its address first.
const HANDSHAKES_UNPROVEN: usize = 64;
/// The most handshakes under way.
const HANDSHAKES: usize = 512;

/// Takes connections over QUIC.
#[derive(Debug)]
pub(in crate::transport) struct QuicListener {
    driver: Arc<Driver>,
    incoming: mpsc::Receiver<QuicConnection>,
}

impl QuicListener {
    pub(in crate::transport) fn bind(address: SocketAddr, settings: &Settings) -> io::Result<Self> {
        let driver = Driver::start(address, Some(settings.server(address.ip(), None)))?;
        let (accepted, incoming) = mpsc::channel(QUEUE_CONNECTIONS);
        driver.handle().spawn(accept_all(Arc::downgrade(&driver), settings.clone(), accepted));
        Ok(Self { driver, incoming })
    }

    pub(in crate::transport) fn address(&self) -> io::Result<SocketAddr> {
        self.driver.endpoint().local_addr()
    }

    /// The next connection; none if the socket failed.
    pub(in crate::transport) async fn accept(&mut self) -> Option<QuicConnection> {
        self.incoming.recv().await
    }
}

impl Drop for QuicListener {
    fn drop(&mut self) {
        self.driver.endpoint().close(VarInt::from_u32(0), b"the listener is gone");
    }
}

/// The connections hold the driver, not this: else it would never end.
async fn accept_all(driver: std::sync::Weak<Driver>, settings: Settings, accepted: mpsc::Sender<QuicConnection>) {
    let Some(endpoint) = driver.upgrade().map(|driver| driver.endpoint().clone()) else { return };
    let handshakes = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = endpoint.accept().await {
        let under_way = handshakes.load(Ordering::Relaxed);
        if under_way >= HANDSHAKES {
            incoming.refuse();
        } else if under_way >= HANDSHAKES_UNPROVEN && incoming.may_retry() {
            // It cannot fail: that a retry is possible was just asked.
            let _ = incoming.retry();
        } else {
            let place = Handshake::begin(&handshakes);
            let (driver, settings, accepted) = (driver.clone(), settings.clone(), accepted.clone());
            tokio::spawn(async move {
                let remote = incoming.remote_address();
                match welcome(incoming, &settings).await {
                    Ok((connection, peer)) => {
                        drop(place);
                        if let Some(driver) = driver.upgrade() {
                            // Whoever listened is gone: then so is the connection.
                            let _ = accepted.send(QuicConnection::new(connection, peer, driver)).await;
                        }
                    }
                    Err(reason) => tracing::warn!(%remote, reason, "turned a connection away"),
                }
            });
        }
    }
}

/// Counts one handshake while it is under way.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn welcome(incoming: Incoming, settings: &Settings) -> Result<(quinn::Connection, Peer), String> {
    let config = settings.server(incoming.remote_address().ip(), incoming.local_ip());
    let connecting = incoming.accept_with(Arc::new(config)).map_err(|error| error.to_string())?;
    let connection = connecting.await.map_err(|error| error.to_string())?;
    let peer = match peer(&connection) {
        Ok(peer) => peer,
        Err(reason) => {
            connection.close(UNTRUSTED, reason.as_bytes());
            return Err(reason);
        }
    };
    let (mut send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
    drop(receive);
    send.write_all(&[WELCOME]).await.map_err(|error| error.to_string())?;
    // It cannot be finished already.
    let _ = send.finish();
    Ok((connection, peer))
}

/// Connects to the process at `address` that plays `role`.
pub(in crate::transport) async fn connect(
    driver: Arc<Driver>,
    settings: &Settings,
    address: SocketAddr,
    role: Role,
) -> Result<QuicConnection, TransportError> {
    let unreachable = |reason: String| TransportError::Unreachable { address, role, reason };
    let connecting = driver
        .endpoint()
        .connect_with(settings.client(address), address, &server_name(role))
        .map_err(|error| unreachable(error.to_string()))?;
    let greeted = async {
        let connection = connecting.await.map_err(|error| refused(address, role, error))?;
        let (_, mut receive) = connection.accept_bi().await.map_err(|error| refused(address, role, error))?;
        let mut byte = [0];
        let welcome = receive.read_exact(&mut byte).await;
        if welcome.is_err() || byte != [WELCOME] {
            return match connection.close_reason() {
                Some(error) => Err(refused(address, role, error)),
                None => Err(unreachable("what listens there does not speak the protocol of Situ".to_owned())),
            };
        }
        let peer = peer(&connection)
            .map_err(|reason| TransportError::Untrusted { address, role, reason })
            .inspect_err(|_| connection.close(UNTRUSTED, b"the server's certificate names no role"))?;
        Ok(QuicConnection::new(connection, peer, driver.clone()))
    };
    tokio::select! {
        biased;
        greeted = greeted => greeted,
        error = nobody_listens(address) => Err(unreachable(error.to_string())),
    }
}

/// Waits for word from the address's host that nobody listens there. QUIC itself does not hear it, and a process that
/// was killed would be waited for until the time is up.
async fn nobody_listens(address: SocketAddr) -> io::Error {
    let heard = async {
        let any = SocketAddr::new(
            if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() },
            0,
        );
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        // Not a packet of QUIC: whoever listens ignores it.
        socket.send(&[0]).await?;
        loop {
            socket.recv(&mut [0]).await?;
        }
    };
    let heard: io::Result<std::convert::Infallible> = heard.await;
    match heard {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        // Whatever it is, the connection attempt will tell.
        _ => std::future::pending().await,
    }
}

/// Who the peer is, by its certificate, which has been verified.
fn peer(connection: &quinn::Connection) -> Result<Peer, String> {
    let chain = connection.peer_identity().and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let certificate = chain.as_ref().and_then(|chain| chain.first()).ok_or("it showed no certificate")?;
    let Identity { roles, name } = Identity::from_certificate(certificate)?;
    Ok(Peer { roles, name: Some(name), address: Some(connection.remote_address()) })
}

/// Why a connection did not come to stand.
fn refused(address: SocketAddr, role: Role, error: ConnectionError) -> TransportError {
    let reason = error.to_string();
    let untrusted = match &error {
        ConnectionError::TransportError(error) => is_about_certificates(error.code),
        ConnectionError::ConnectionClosed(frame) => is_about_certificates(frame.error_code),
        ConnectionError::ApplicationClosed(frame) => frame.error_code == UNTRUSTED,
        _ => false,
    };
    match untrusted {
        true => TransportError::Untrusted { address, role, reason },
        false => TransportError::Unreachable { address, role, reason },
    }
}

/// Alerts of TLS travel as errors from 0x100 on (RFC 9001, section 4.8).
fn is_about_certificates(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}
