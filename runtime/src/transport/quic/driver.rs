use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, Runtime, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::settings::Settings;

/// How much the kernel holds of what arrives, as far as the system allows it.
const SOCKET_LEN_BYTES: usize = 4 << 20;
/// How long the last words of a closed endpoint may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// An endpoint, and the thread that drives it and does nothing else. Whoever uses the endpoint holds it; when nobody
/// does any more, the endpoint says goodbye and the thread ends.
#[derive(Debug)]
pub(in crate::transport) struct Driver {
    endpoint: Endpoint,
    handle: Handle,
    /// Dropped with this.
    _stop: oneshot::Sender<()>,
}

impl Driver {
    /// Binds a socket to `address` and drives it.
    pub(in crate::transport) fn start(address: SocketAddr, server: Option<ServerConfig>) -> io::Result<Arc<Self>> {
        let socket = socket(Domain::for_address(address))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;

        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let on_driver = Arc::new(OnDriver(handle.clone()));
        let endpoint = Endpoint::new(Settings::endpoint(), server, socket.into(), on_driver)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let closing = endpoint.clone();
        thread::Builder::new().name("situ-quic".to_owned()).spawn(move || {
            runtime.block_on(async {
                // It ends with an error when the sender is dropped, which is what is waited for.
                let _ = stopped.await;
                say_goodbye(&closing).await;
            });
        })?;
        Ok(Arc::new(Self { endpoint, handle, _stop: stop }))
    }

    pub(in crate::transport) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Closes all connections and waits until the peers know.
    pub(in crate::transport) async fn say_goodbye(&self) {
        say_goodbye(&self.endpoint).await;
    }

    /// The driver's thread.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}

async fn say_goodbye(endpoint: &Endpoint) {
    endpoint.close(quinn::VarInt::from_u32(0), b"the peer closed the connection");
    // Whoever does not hear it in time finds out by itself.
    let _ = tokio::time::timeout(GOODBYE_TIMEOUT, endpoint.wait_idle()).await;
}

/// A socket with as much room as the system allows.
fn socket(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
    // Beyond the system's limit if this process may; if not, up to it.
    if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, SOCKET_LEN_BYTES).is_err() {
        socket.set_recv_buffer_size(SOCKET_LEN_BYTES)?;
    }
    socket.set_send_buffer_size(SOCKET_LEN_BYTES)?;
    Ok(socket)
}

/// Whether the system allows sockets enough room for many of the largest datagrams: of what arrives in too little room
/// most is lost. Linux allows 208 KiB, three of them, unless `net.core.rmem_max` says otherwise.
pub(super) fn has_room_for_large_datagrams() -> bool {
    let granted = socket(Domain::IPV4).and_then(|socket| socket.recv_buffer_size());
    granted.is_ok_and(|granted| granted >= SOCKET_LEN_BYTES / 2)
}

/// Spawns on the driver's thread, whichever thread asks.
#[derive(Debug)]
struct OnDriver(Handle);

impl Runtime for OnDriver {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let _entered = self.0.enter();
        TokioRuntime.new_timer(deadline)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let _entered = self.0.enter();
        TokioRuntime.wrap_udp_socket(socket)
    }
}
