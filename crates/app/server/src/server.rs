//! The running server: sockets opened, tasks started, and an orderly end.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use partyline_rendezvous::RelayOffer;
use partyline_wire::rendezvous::{MAX_RELAYS, RelayServer};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use crate::{
    StartError,
    config::{self, Config},
    connection::{self, Ends, Purpose},
    gate::Gate,
    http,
    hub::Hub,
    listener,
    relay::{self, RelayHandle},
    tls::Tls,
};

/// How long members get to hear that the server stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) hub: Arc<Hub>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tls: Option<Tls>,
    pub(crate) relay: Option<RelayHandle>,
    /// Whether figures have an address of their own.
    pub(crate) has_admin: bool,
}

/// A running server.
pub struct Server {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Opens all sockets and starts serving. Call it within a tokio runtime.
    ///
    /// # Errors
    /// Something cannot be opened; the error says what to do.
    pub fn start(config: Config) -> Result<Self, StartError> {
        let tls = config.tls.clone().map(Tls::new).transpose()?;
        let purpose = if tls.is_some() { Purpose::Tls } else { Purpose::Plain };
        let public: Vec<_> =
            config.listen.iter().map(|address| listener::listen(*address)).collect::<Result<_, _>>()?;
        let admin = config.admin.map(listener::listen).transpose()?;
        let relay = config.relay.as_ref().map(|relay| relay::start(relay.config.clone()));
        let relay = relay.transpose().map_err(StartError::Relay)?;
        let turn = turn_listeners(&config, relay.as_ref())?;
        let addresses = local_addresses(&public);
        let offer = config.relay.as_ref().zip(relay.as_ref()).map(|(settings, handle)| {
            offer(&config, settings, handle.addresses(), addresses.first().map(SocketAddr::port))
        });
        let gate = Gate::new(config.sockets, config.sockets_per_address);
        let hub = Hub::new(config.limits, offer);
        let shared = Arc::new(Shared { hub, gate, tls, relay, has_admin: admin.is_some() });

        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared.hub).sweep());
        public
            .into_iter()
            .for_each(|listener| drop(tasks.spawn(serve(Arc::clone(&shared), listener, purpose))));
        turn.into_iter()
            .for_each(|listener| drop(tasks.spawn(serve(Arc::clone(&shared), listener, Purpose::Relay))));
        let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
        admin.into_iter().for_each(|listener| drop(tasks.spawn(serve_admin(Arc::clone(&shared), listener))));
        Ok(Self { shared, addresses, admin: admin_address, tasks })
    }

    /// Where it listens, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where figures are, if apart.
    #[must_use]
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Where STUN and TURN are served over UDP.
    #[must_use]
    pub fn relay_addresses(&self) -> &[SocketAddr] {
        self.shared.relay.as_ref().map_or(&[], RelayHandle::addresses)
    }

    /// Whether connections are secured.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.shared.tls.is_some()
    }

    /// Reads the certificate again.
    ///
    /// # Errors
    /// It cannot be used; the old one stays.
    pub fn reload(&self) -> Result<(), StartError> {
        self.shared.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// Takes no more connections, tells members, and waits until they are gone, for at most five seconds.
    pub async fn stop(mut self) {
        self.shared.hub.stop();
        self.tasks.shutdown().await;
        if let Some(relay) = &self.shared.relay {
            relay.stop().await;
        }
        if timeout(DRAIN, self.shared.gate.empty()).await.is_err() {
            tracing::info!(
                left = self.shared.gate.count().0,
                "not waiting any longer for connections to end"
            );
        }
    }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, purpose: Purpose) {
    listener::accept(listener, |stream, peer| {
        let shared = Arc::clone(&shared);
        async move {
            let Some(ticket) = shared.gate.enter(peer.ip()) else { return };
            let Ok(local) = stream.local_addr() else { return };
            tokio::spawn(connection::serve(shared, stream, Ends { peer, local, ticket }, purpose));
        }
    })
    .await;
}

async fn serve_admin(shared: Arc<Shared>, listener: TcpListener) {
    listener::accept(listener, |stream, _| {
        let shared = Arc::clone(&shared);
        async move {
            tokio::spawn(http::serve_admin(shared, stream));
        }
    })
    .await;
}

/// TURN over plain TCP has the port of TURN over UDP.
fn turn_listeners(config: &Config, relay: Option<&RelayHandle>) -> Result<Vec<TcpListener>, StartError> {
    let (Some(settings), Some(handle)) = (&config.relay, relay) else { return Ok(Vec::new()) };
    let udp = handle.addresses();
    let wanted = settings.config.listen.iter().filter(|_| settings.tcp);
    wanted
        .filter_map(|listen| udp.iter().find(|address| address.ip() == listen.bind))
        .map(|address| listener::listen(*address))
        .collect()
}

fn local_addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// What members are told: UDP first, then TCP through the port that most networks let out.
fn offer(config: &Config, relay: &config::Relay, udp: &[SocketAddr], tcp: Option<u16>) -> RelayOffer {
    let region = &relay.region;
    let server = |url: String| RelayServer { url, region: region.clone() };
    let mut servers = Vec::new();
    for listen in &relay.config.listen {
        let Some(bound) = udp.iter().find(|address| address.ip() == listen.bind) else { continue };
        let public = config.host.clone().unwrap_or_else(|| literal(listen.public(0).ip()));
        servers.push(server(format!("turn:{public}:{}?transport=udp", bound.port())));
        if let Some(port) = tcp.filter(|_| config.tls.is_none()) {
            servers.push(server(format!("turn:{public}:{port}?transport=tcp")));
        } else if let Some(port) = tcp.filter(|_| config.host.is_some()) {
            servers.push(server(format!("turns:{public}:{port}?transport=tcp")));
        }
    }
    servers.extend(relay.offer.servers.iter().cloned());
    // One name stands for all listening addresses.
    let mut told = HashSet::new();
    servers.retain(|server| told.insert(server.url.clone()));
    servers.truncate(MAX_RELAYS);
    RelayOffer { servers, ..relay.offer.clone() }
}

/// An address as URLs have it.
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
