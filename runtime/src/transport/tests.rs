use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use situ_wire::hello::Role;
use situ_wire::ids::ClusterId;

use super::net::{NetTransport, Route};
use super::sim::{SimIdentity, SimNetwork, SimTransport};
use super::suite::{self, Parties};
use super::{Connection, Listener, ReceiveStream, SendStream, Transport, TransportError};
use crate::security::{Authority, Credentials};

/// No test takes so long unless something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every promise, on one transport.
macro_rules! promises {
    ($transport:ident) => {
        promises!($transport:
            bytes_arrive_in_order_both_ways
            one_direction_ends_without_the_other
            an_empty_stream_ends
            a_reset_is_seen_as_one
            a_receiver_that_leaves_stops_the_sender
            a_sender_waits_for_a_slow_receiver
            a_receive_that_is_given_up_loses_nothing
            closing_wakes_everybody
            a_connection_closes_with_its_last_holder
            a_listener_that_leaves_closes_what_it_took
            many_streams_at_once
            much_arrives_whole
            an_address_is_taken_once
        );
    };
    ($transport:ident: $($promise:ident)*) => {
        mod $transport {
            $(
                #[test]
                fn $promise() {
                    super::$transport(|parties| super::suite::$promise(parties));
                }
            )*
        }
    };
}

promises!(sim);
promises!(local);
promises!(quic);

fn sim<F: Future<Output = ()>>(promise: impl FnOnce(Parties<SimTransport>) -> F) {
    paused(async { promise(sim_parties(&SimNetwork::new(1))).await });
}

fn local<F: Future<Output = ()>>(promise: impl FnOnce(Parties<NetTransport>) -> F) {
    threaded(async { promise(net_parties(None, Route::LocalOnly)).await });
}

fn quic<F: Future<Output = ()>>(promise: impl FnOnce(Parties<NetTransport>) -> F) {
    let authority = Authority::create(ClusterId(1)).unwrap();
    threaded(async { promise(net_parties(Some(&authority), Route::QuicOnly)).await });
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(test);
}

fn threaded(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it hangs") });
}

fn sim_process(network: &SimNetwork, cluster: u128, host: u8, role: Role) -> SimTransport {
    let identity = SimIdentity { cluster: ClusterId(cluster), roles: vec![role], name: format!("host-{host}") };
    SimTransport::new(network.clone(), [10, 0, 0, host].into(), identity)
}

fn sim_parties(network: &SimNetwork) -> Parties<SimTransport> {
    Parties {
        connector: sim_process(network, 1, 1, Role::User),
        listener: sim_process(network, 1, 2, Role::Namenode),
        at: SocketAddr::from(([10, 0, 0, 2], 0)),
        role: Role::Namenode,
    }
}

fn net_parties(authority: Option<&Authority>, route: Route) -> Parties<NetTransport> {
    let process = |role, name| {
        let credentials = authority.map(|authority| authority.issue(&[role], name).unwrap());
        NetTransport::new(credentials.as_ref(), route).unwrap()
    };
    Parties {
        connector: process(Role::User, "ann"),
        listener: process(Role::Namenode, "nn"),
        at: SocketAddr::from(([127, 0, 0, 1], 0)),
        role: Role::Namenode,
    }
}

fn credentials(role: Role, name: &str) -> Credentials {
    Authority::create(ClusterId(2)).unwrap().issue(&[role], name).unwrap()
}

#[test]
fn sim_refuses_strangers_and_other_roles() {
    paused(async {
        let network = SimNetwork::new(1);
        let stranger = sim_process(&network, 2, 3, Role::User);
        suite::strangers_are_refused_and_disturb_nobody(sim_parties(&network), stranger).await;
        suite::a_server_of_another_role_is_not_taken(sim_parties(&network), Role::Datanode).await;
    });
}

#[test]
fn quic_refuses_strangers_and_other_roles() {
    let authority = Authority::create(ClusterId(1)).unwrap();
    let parties = || net_parties(Some(&authority), Route::QuicOnly);
    threaded(async {
        let stranger = NetTransport::new(Some(&credentials(Role::User, "ann")), Route::QuicOnly).unwrap();
        suite::strangers_are_refused_and_disturb_nobody(parties(), stranger).await;
        suite::a_server_of_another_role_is_not_taken(parties(), Role::Datanode).await;
    });
}

/// One that trusts the listener, but is not trusted by it: it learns so when it connects, not later.
#[test]
fn quic_tells_a_client_at_once_that_it_is_not_trusted() {
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let parties = net_parties(Some(&authority), Route::QuicOnly);
        let impostor = crate::security::impostor(&authority.issue(&[Role::User], "ann").unwrap());
        let impostor = NetTransport::new(Some(&impostor), Route::QuicOnly).unwrap();
        suite::strangers_are_refused_and_disturb_nobody(parties, impostor).await;
    });
}

#[test]
fn garbage_on_the_port_does_no_harm() {
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let Parties { connector, listener, at, role } = net_parties(Some(&authority), Route::QuicOnly);
        let mut listener = listener.listen(at).await.unwrap();
        let address = listener.address();
        let (here, there) = tokio::join!(connector.connect(address, role), listener.accept());
        let (here, there) = (here.unwrap(), there.unwrap());
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..500 {
            let mut datagram = vec![0; random.usize(..3000)];
            random.fill(&mut datagram);
            if let (true, Some(first)) = (round % 2 == 0, datagram.first_mut()) {
                // Looks like the first packet of a connection.
                *first |= 0xC0;
            }
            socket.send_to(&datagram, address).unwrap();
        }
        let (mut send, _receive) = here.open().await.unwrap();
        send.send(Bytes::from_static(b"unharmed")).await.unwrap();
        let (_send, mut receive) = there.accept().await.unwrap();
        assert_eq!(receive.receive(8).await.unwrap().as_deref(), Some(&b"unharmed"[..]));
        let (again, accepted) = tokio::join!(connector.connect(address, role), listener.accept());
        assert!(again.is_ok() && accepted.is_ok());
    });
}

#[test]
fn quic_knows_who_the_peer_is() {
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let Parties { connector, listener, at, role } = net_parties(Some(&authority), Route::QuicOnly);
        let mut listener = listener.listen(at).await.unwrap();
        let (here, there) = tokio::join!(connector.connect(listener.address(), role), listener.accept());
        let (here, there) = (here.unwrap(), there.unwrap());
        assert_eq!((here.peer().roles.as_slice(), here.peer().name.as_deref()), (&[Role::Namenode][..], Some("nn")));
        assert_eq!((there.peer().roles.as_slice(), there.peer().name.as_deref()), (&[Role::User][..], Some("ann")));
        assert_eq!(here.peer().address, Some(listener.address()));
    });
}

#[test]
fn without_credentials_only_loopback_is_listened_on() {
    threaded(async {
        let transport = NetTransport::new(None, Route::Auto).unwrap();
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        assert_eq!(transport.listen(address).await.map(drop), Err(TransportError::Insecure { address }));
        assert!(transport.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.is_ok());
    });
}

#[test]
fn the_way_is_chosen_by_who_listens() {
    use super::net::NetConnection;
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let connector = net_parties(Some(&authority), Route::Auto).connector;
        for (route, ip) in
            [(Route::Auto, [127, 0, 0, 1]), (Route::QuicOnly, [127, 0, 0, 1]), (Route::Auto, [0, 0, 0, 0])]
        {
            let listener = net_parties(Some(&authority), route).listener;
            let mut listener = listener.listen(SocketAddr::from((ip, 0))).await.unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], listener.address().port()));
            let (here, there) = tokio::join!(connector.connect(address, Role::Namenode), listener.accept());
            let is_local = |connection| matches!(connection, NetConnection::Local(_));
            assert_eq!(is_local(here.unwrap()), route == Route::Auto);
            assert_eq!(is_local(there.unwrap()), route == Route::Auto);
        }
    });
}

/// What the process in the test below does: it sends a part of a stream and waits to be killed.
#[test]
#[ignore = "run as a process of its own by the next test"]
fn half_a_stream() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let transport = NetTransport::new(None, Route::LocalOnly).unwrap();
        let mut listener = transport.listen(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        println!("\nlistening on {}", listener.address());
        let connection = listener.accept().await.unwrap();
        let mut kept = Vec::new();
        loop {
            let (mut send, receive) = connection.accept().await.unwrap();
            send.send(Bytes::from_static(b"half")).await.unwrap();
            kept.push((send, receive));
        }
    });
}

#[test]
fn a_killed_process_is_not_taken_for_one_that_gave_a_stream_up() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    threaded(async {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transport::tests::half_a_stream", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let address = lines.find_map(|line| line.strip_prefix("listening on ")?.parse().ok()).unwrap();
        let transport = NetTransport::new(None, Route::LocalOnly).unwrap();
        let connection = transport.connect(address, Role::Namenode).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..50 {
            let (mut send, mut receive) = connection.open().await.unwrap();
            send.send(Bytes::from_static(b"?")).await.unwrap();
            assert_eq!(receive.receive(4).await.unwrap().as_deref(), Some(&b"half"[..]));
            streams.push((send, receive));
        }
        child.kill().unwrap();
        let closed = |error: TransportError| matches!(error, TransportError::Closed { .. });
        for (mut send, mut receive) in streams {
            assert!(receive.receive(4).await.is_err_and(closed));
            assert!(send.send(Bytes::from_static(b"?")).await.is_err_and(closed));
        }
        assert!(connection.is_closed());
        child.wait().unwrap();
        let gone = transport.connect(address, Role::Namenode).await.map(drop);
        assert!(matches!(gone, Err(TransportError::Unreachable { .. })), "{gone:?}");
    });
}

#[test]
fn garbage_on_a_local_socket_does_no_harm() {
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    threaded(async {
        let Parties { connector, listener, at, role } = net_parties(None, Route::LocalOnly);
        let mut listener = listener.listen(at).await.unwrap();
        let address = listener.address();
        let name = format!("situ/1/{address}");
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let mut socket = std::os::unix::net::UnixStream::connect_addr(&name).unwrap();
        let stranger = listener.accept().await.unwrap();
        socket.write_all(b"GET / HTTP/1.1").unwrap();
        stranger.closed().await;
        let mut said = Vec::new();
        // Reset or closed: in any case it ends.
        let _ = socket.read_to_end(&mut said);
        assert_eq!(said, b"W");
        let (again, accepted) = tokio::join!(connector.connect(address, role), listener.accept());
        assert!(again.is_ok() && accepted.is_ok());
    });
}

#[test]
fn nobody_at_an_address_shows_at_once() {
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let Parties { connector, at, role, .. } = net_parties(Some(&authority), Route::QuicOnly);
        let free = UdpSocket::bind(at).unwrap().local_addr().unwrap();
        let begin = std::time::Instant::now();
        let refused = connector.connect(free, role).await.map(drop);
        assert!(matches!(refused, Err(TransportError::Unreachable { .. })), "{refused:?}");
        assert!(begin.elapsed() < Duration::from_secs(5), "QUIC alone would have waited for longer");
    });
}

#[test]
fn whoever_shuts_down_says_so() {
    threaded(async {
        let authority = Authority::create(ClusterId(1)).unwrap();
        let Parties { connector, listener, at, role } = net_parties(Some(&authority), Route::QuicOnly);
        let mut listener = listener.listen(at).await.unwrap();
        let (here, there) = tokio::join!(connector.connect(listener.address(), role), listener.accept());
        let (here, there) = (here.unwrap(), there.unwrap());
        let begin = std::time::Instant::now();
        connector.shut_down().await;
        there.closed().await;
        assert!(here.is_closed());
        assert!(begin.elapsed() < Duration::from_secs(5), "it was missed, not told");
        // The next connection gets an endpoint that works, while the old one is still held.
        let (again, accepted) = tokio::join!(connector.connect(listener.address(), role), listener.accept());
        assert!(again.is_ok() && accepted.is_ok());
    });
}
