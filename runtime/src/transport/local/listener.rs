use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::sync::Weak;
use std::time::Duration;

use situ_wire::hello::Role;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::connection::{self, LocalConnection, Shared};
use crate::transport::Peer;

/// What the listener says to those whom it accepts.
const WELCOME: u8 = b'W';
/// How many accepted connections may wait to be taken.
const QUEUE_CONNECTIONS: usize = 64;
/// How long is waited when the process has no descriptor left: there is no event to wait for.
const OUT_OF_DESCRIPTORS_REST: Duration = Duration::from_millis(50);

/// Takes connections over Unix sockets.
#[derive(Debug)]
pub struct LocalListener {
    incoming: mpsc::Receiver<LocalConnection>,
    task: AbortHandle,
    taken: Vec<Weak<Shared>>,
}

impl LocalListener {
    /// Listens for processes of this host that connect to `address`.
    pub(in crate::transport) fn bind(address: SocketAddr) -> io::Result<Self> {
        let name = std::os::unix::net::SocketAddr::from_abstract_name(socket_name(address))?;
        let socket = std::os::unix::net::UnixListener::bind_addr(&name)?;
        socket.set_nonblocking(true)?;
        let (accepted, incoming) = mpsc::channel(QUEUE_CONNECTIONS);
        let task = tokio::spawn(accept_all(UnixListener::from_std(socket)?, address, accepted)).abort_handle();
        Ok(Self { incoming, task, taken: Vec::new() })
    }

    /// The next connection; none if the socket failed.
    pub(in crate::transport) async fn accept(&mut self) -> Option<LocalConnection> {
        let connection = self.incoming.recv().await?;
        self.taken.retain(|connection| connection.strong_count() > 0);
        self.taken.push(connection.downgrade());
        Some(connection)
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        self.task.abort();
        for connection in self.taken.iter().filter_map(Weak::upgrade) {
            connection.close();
        }
    }
}

async fn accept_all(socket: UnixListener, address: SocketAddr, accepted: mpsc::Sender<LocalConnection>) {
    loop {
        let control = match socket.accept().await {
            Ok((control, _)) => control,
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => continue,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot accept a local connection");
                tokio::time::sleep(OUT_OF_DESCRIPTORS_REST).await;
                continue;
            }
        };
        match welcome(control, address).await {
            Ok(connection) => {
                if accepted.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(%address, %error, "turned a local process away"),
        }
    }
}

async fn welcome(control: UnixStream, address: SocketAddr) -> io::Result<LocalConnection> {
    check_peer(&control)?;
    // The socket is new and empty: this does not wait.
    connection::send_byte(&control, WELCOME, None).await?;
    Ok(LocalConnection::new(control, peer(SocketAddr::new(host(address.ip()), 0))))
}

/// Connects to the process of this host that listens at `address`; none if there is none whom this one trusts.
pub(in crate::transport) async fn connect(address: SocketAddr) -> Option<LocalConnection> {
    // A listener on all addresses listens on this one.
    let any = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    for listener in [address, SocketAddr::new(any, address.port())] {
        let mut name = vec![0];
        name.extend_from_slice(&socket_name(listener));
        let path = std::path::PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name));
        let Ok(control) = UnixStream::connect(path).await else { continue };
        if let Err(error) = check_peer(&control) {
            tracing::warn!(%address, %error, "passed by a local process that listens there");
            continue;
        }
        if let Ok(Some((WELCOME, None))) = connection::receive_byte(&control).await {
            return Some(LocalConnection::new(control, peer(address)));
        }
    }
    None
}

/// The name of a listener's socket. It holds the version of what is spoken on it.
fn socket_name(address: SocketAddr) -> Vec<u8> {
    format!("situ/1/{address}").into_bytes()
}

/// Whether the peer is a process of this user or of root.
fn check_peer(control: &UnixStream) -> io::Result<()> {
    let (own, found) = (rustix::process::geteuid().as_raw(), control.peer_cred()?.uid());
    if found == own || found == 0 {
        return Ok(());
    }
    let reason = format!("it belongs to user {found}, this process to user {own}");
    Err(io::Error::new(ErrorKind::PermissionDenied, reason))
}

/// A process of the same user may play any role, and is called what it calls itself.
fn peer(address: SocketAddr) -> Peer {
    let roles = vec![Role::Namenode, Role::Datanode, Role::Scheduler, Role::Executor, Role::User];
    Peer { roles, name: None, address: Some(address) }
}

/// The address of this host that a listener at `ip` is reached at.
fn host(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
