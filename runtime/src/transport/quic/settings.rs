use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;

use crate::security::{Credentials, SecurityError};

/// What both sides say they speak.
const PROTOCOL: &[u8] = b"situ/1";
/// How long nothing may be heard from a peer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often something is said when there is nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// The most streams that the peer keeps open at once.
const STREAMS_PER_SIDE: u32 = 1024;
/// How much of one stream may be on its way or wait to be taken. Half of the socket's buffer: more is lost there.
const STREAM_WINDOW_LEN_BYTES: u32 = 2 << 20;
/// The same of a whole connection. It is many times that of a stream, so that streams which nobody reads do not hold up
/// the others.
const CONNECTION_WINDOW_LEN_BYTES: u32 = 256 << 20;
/// How much is kept until the peer has confirmed it.
const SEND_WINDOW_LEN_BYTES: u64 = 8 << 20;
/// The largest datagram that is tried on loopback.
const LOOPBACK_DATAGRAM_LEN_BYTES: u16 = 65_000;
/// The largest datagram that is tried elsewhere: the kernel cuts one buffer of at most 65,507 bytes into 10 of them, and
/// silently sends nothing when that does not fit.
const NETWORK_DATAGRAM_LEN_BYTES: u16 = 6_550;
/// The largest datagram that is taken.
const TAKEN_DATAGRAM_LEN_BYTES: u16 = 65_527;
/// How many that want to connect are remembered while they wait.
const INCOMING_CONNECTIONS: usize = 1024;
/// How much of what they say is remembered.
const INCOMING_LEN_BYTES: u64 = 64 << 10;

const _: () = assert!(NETWORK_DATAGRAM_LEN_BYTES as u32 * 10 <= 65_507, "a batch of datagrams fits into one buffer");

/// All that is set up once from a process's credentials.
#[derive(Clone)]
pub(in crate::transport) struct Settings {
    client: Arc<QuicClientConfig>,
    server: Arc<QuicServerConfig>,
    loopback: Arc<TransportConfig>,
    network: Arc<TransportConfig>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Settings {
    pub(in crate::transport) fn new(credentials: &Credentials) -> Result<Self, SecurityError> {
        let (client, server) = tls(credentials)
            .map_err(|reason| SecurityError::Unusable { name: credentials.name().to_owned(), reason })?;
        Ok(Self {
            client: Arc::new(client),
            server: Arc::new(server),
            loopback: Arc::new(transport(super::driver::has_room_for_large_datagrams())),
            network: Arc::new(transport(false)),
        })
    }

    pub(super) fn endpoint() -> EndpointConfig {
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(TAKEN_DATAGRAM_LEN_BYTES).expect("it is a size that QUIC allows");
        config
    }

    pub(super) fn client(&self, address: SocketAddr) -> ClientConfig {
        let mut config = ClientConfig::new(self.client.clone());
        let loopback = crate::transport::net::is_this_host(address.ip());
        config.transport_config(self.transport(loopback));
        config
    }

    /// For a peer at `remote` that wants to reach the address `local` of this host.
    pub(super) fn server(&self, remote: IpAddr, local: Option<IpAddr>) -> ServerConfig {
        let mut config = ServerConfig::with_crypto(self.server.clone());
        config
            .transport_config(self.transport(remote.is_loopback() || local == Some(remote)))
            .migration(false)
            .max_incoming(INCOMING_CONNECTIONS)
            .incoming_buffer_size(INCOMING_LEN_BYTES)
            .incoming_buffer_size_total(INCOMING_LEN_BYTES * 64);
        config
    }

    fn transport(&self, loopback: bool) -> Arc<TransportConfig> {
        Arc::clone(if loopback { &self.loopback } else { &self.network })
    }
}

fn tls(credentials: &Credentials) -> Result<(QuicClientConfig, QuicServerConfig), String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let mut provider = ring::default_provider();
    // The fastest comes first where the processor knows AES.
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(credentials.authority().clone()).map_err(|error| text(&error))?;
    let roots = Arc::new(roots);

    let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| text(&error))?
        .with_root_certificates(Arc::clone(&roots))
        .with_client_auth_cert(credentials.chain(), credentials.key())
        .map_err(|error| text(&error))?;
    client.alpn_protocols = vec![PROTOCOL.to_vec()];
    client.resumption = Resumption::disabled();

    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|error| text(&error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| text(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain(), credentials.key())
        .map_err(|error| text(&error))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    // Each connection proves anew who it is.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let client = QuicClientConfig::try_from(client).map_err(|error| text(&error))?;
    let server = QuicServerConfig::try_from(server).map_err(|error| text(&error))?;
    Ok((client, server))
}

/// Large datagrams one by one, where there is a way for them, or small ones in batches.
fn transport(large_datagrams: bool) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(if large_datagrams { LOOPBACK_DATAGRAM_LEN_BYTES } else { NETWORK_DATAGRAM_LEN_BYTES });
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_SIDE))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("it is a time that QUIC can express")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_LEN_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_LEN_BYTES))
        .send_window(SEND_WINDOW_LEN_BYTES)
        .mtu_discovery_config(Some(mtu))
        .enable_segmentation_offload(!large_datagrams);
    config
}
