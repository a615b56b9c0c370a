//! The running server: opens sockets, starts tasks, and shuts down in order.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use partyline_rendezvous::RelayOffer;
use partyline_wire::rendezvous::{MAX_RELAYS, RelayServer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tracing::Instrument as _;

use crate::{
    StartError,
    config::{Config, Relay},
    connection::{self, ListenerKind},
    counters::{ConnectionCounters, Reason as _},
    http,
    hub::Hub,
    limiter::ConnectionLimiter,
    listener::{self, Accepted},
    metrics,
    relay::{self, RelayHandle},
    shared::Shared,
    tls::Tls,
};

/// How long [`Server::stop`] waits for connections to end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Opens all sockets and starts serving. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A socket or a file cannot be opened; the error says what to do.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let tls = config.tls.clone().map(Tls::new).transpose()?;
        let kind = if tls.is_some() { ListenerKind::Tls } else { ListenerKind::Plain };
        let public: Vec<_> =
            config.listen.iter().map(|address| listener::listen(*address)).collect::<Result<_, _>>()?;
        let admin = config.admin.map(listener::listen).transpose()?;
        let relay = config.relay.as_ref().map(|relay| relay::start(relay.config.clone()));
        let relay = relay.transpose().map_err(StartError::Relay)?;
        let turn = turn_listeners(&config, relay.as_ref())?;
        let addresses = local_addresses(&public);
        let offer = config.relay.as_ref().zip(relay.as_ref()).map(|(settings, handle)| {
            relay_offer(&config, settings, handle.addresses(), addresses.first().map(SocketAddr::port))
        });
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        let shared = Arc::new(Shared {
            hub: Hub::new(config.limits, offer),
            limiter: ConnectionLimiter::new(config.sockets),
            tls,
            relay,
            counters: ConnectionCounters::default(),
            has_admin: admin.is_some(),
        });

        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared.hub).sweep());
        shared.relay.iter().for_each(|relay| drop(tasks.spawn(relay.clone().watch_interfaces())));
        let listeners = public.into_iter().map(|listener| (listener, kind));
        for (listener, kind) in listeners.chain(turn.into_iter().map(|turn| (turn, ListenerKind::Turn))) {
            tasks.spawn(serve(Arc::clone(&shared), listener, kind));
        }
        admin.into_iter().for_each(|listener| drop(tasks.spawn(serve_admin(Arc::clone(&shared), listener))));
        tracing::debug!(?addresses, admin = ?admin_address, "server started");
        Ok(Self { shared, addresses, admin: admin_address, tasks })
    }

    /// Returns the addresses of HTTP, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the address on which only metrics and health are served, if there is one.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns the addresses of STUN and TURN over UDP.
    #[must_use]
    pub fn relay_addresses(&self) -> &[SocketAddr] {
        self.shared.relay.as_ref().map_or(&[], RelayHandle::addresses)
    }

    /// Returns true if HTTP is served within TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.shared.tls.is_some()
    }

    /// Returns a function that renders all metrics in the Prometheus text format, for as long as the server is not dropped.
    pub fn metrics(&self) -> impl Fn() -> String + Send + 'static {
        let shared = Arc::downgrade(&self.shared);
        move || shared.upgrade().map(|shared| metrics::render(&shared)).unwrap_or_default()
    }

    /// Reads the certificate again.
    ///
    /// # Errors
    /// The certificate cannot be used; the old one stays in use.
    pub fn reload(&self) -> Result<(), StartError> {
        self.shared.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Accepts no more connections, closes all sessions, and waits until the connections have ended, for five seconds at
    /// most.
    pub async fn stop(mut self) {
        self.shared.hub.stop();
        self.tasks.shutdown().await;
        if let Some(relay) = &self.shared.relay {
            relay.stop().await;
        }
        if timeout(DRAIN_TIMEOUT, self.shared.limiter.wait_until_drained()).await.is_err() {
            let count = self.shared.limiter.open();
            tracing::info!(count, reason = "no end in 5 s", "connections were cut off");
        }
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, kind: ListenerKind) {
    listener::accept(listener, |stream, peer| {
        serve_connection(&shared, stream, peer, kind);
        std::future::ready(())
    })
    .await;
}

/// Serves a connection on a task of its own, if the limits admit it.
fn serve_connection(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr, kind: ListenerKind) {
    let transport = kind.label();
    let permit = match shared.limiter.admit(peer.ip()) {
        Ok(permit) => permit,
        Err(limit) => {
            return tracing::debug!(client = %peer, transport, reason = limit.label(), "connection refused");
        }
    };
    let Ok(local) = stream.local_addr() else { return };
    let span = tracing::debug_span!("tcp_connection", client = %peer, transport);
    let accepted = Accepted { peer, local, permit };
    tokio::spawn(connection::serve(Arc::clone(shared), stream, accepted, kind).instrument(span));
}

async fn serve_admin(shared: Arc<Shared>, listener: TcpListener) {
    listener::accept(listener, |stream, _| {
        tokio::spawn(http::serve_admin(Arc::clone(&shared), stream));
        std::future::ready(())
    })
    .await;
}

/// TURN over plain TCP is served on the port of TURN over UDP.
fn turn_listeners(config: &Config, relay: Option<&RelayHandle>) -> Result<Vec<TcpListener>, StartError> {
    let (Some(settings), Some(handle)) = (&config.relay, relay) else { return Ok(Vec::new()) };
    let udp = handle.addresses();
    let with_tcp = settings.config.listen.iter().filter(|_| settings.tcp);
    with_tcp
        .filter_map(|listen| udp.iter().find(|address| address.ip() == listen.bind))
        .map(|address| listener::listen(*address))
        .collect()
}

fn local_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// Returns the relays offered to members: UDP first, then TCP on the port of HTTPS, which most firewalls let pass.
fn relay_offer(config: &Config, relay: &Relay, udp: &[SocketAddr], tcp: Option<u16>) -> RelayOffer {
    let region = &relay.region;
    let server = |url: String| RelayServer { url, region: region.clone() };
    let mut servers = Vec::new();
    for listen in &relay.config.listen {
        let Some(bound) = udp.iter().find(|address| address.ip() == listen.bind) else { continue };
        let host = config.host.clone().unwrap_or_else(|| url_host(listen.public(0).ip()));
        servers.push(server(format!("turn:{host}:{}?transport=udp", bound.port())));
        if let Some(port) = tcp.filter(|_| config.tls.is_none()) {
            servers.push(server(format!("turn:{host}:{port}?transport=tcp")));
        } else if let Some(port) = tcp.filter(|_| config.host.is_some()) {
            servers.push(server(format!("turns:{host}:{port}?transport=tcp")));
        }
    }
    servers.extend(relay.offer.servers.iter().cloned());
    // With a host name, all listening addresses have the same URLs.
    let mut seen = HashSet::new();
    servers.retain(|server| seen.insert(server.url.clone()));
    servers.truncate(MAX_RELAYS);
    RelayOffer { servers, ..relay.offer.clone() }
}

/// An address as URLs have it.
fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
