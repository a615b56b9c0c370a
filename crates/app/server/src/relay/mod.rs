//! The relay's data plane: one thread that owns every UDP socket and the state of `partyline_relay`, and one task per
//! TCP or TLS client that exchanges framed messages with it.

mod arena;
mod config;
mod frame_queue;
mod inbox;
mod sockets;
mod stream;
mod thread;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use mio::{Interest, Poll, Token, Waker};
use partyline_relay::Relay;
use rand::RngCore;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use crate::platform::{interface_addresses, raise_file_limit};

use self::{
    inbox::{Inbound, Inbox, Wakeup},
    thread::{RelayThread, WAKEUP},
};
pub use config::{ListenAddress, PeerPolicy, Quotas, RelayAddress, RelayConfig, Secret, Settings};
pub use partyline_relay::{Counters, time_limited_credentials};

/// Maximum number of messages from all TCP and TLS clients together that wait for the relay's thread.
const INBOX_CAPACITY: usize = 4096;
/// How much longer than the maximum lifetime of an allocation a silent client is kept.
const IDLE_GRACE: Duration = Duration::from_secs(60);
/// How often the addresses of the network interfaces are read again.
const INTERFACES_INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of addresses to listen on; with two ports each, listeners are numbered by a byte.
const MAX_LISTEN_ADDRESSES: usize = 64;

/// What carries a client's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTransport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl StreamTransport {
    /// Returns the `transport` field of log lines.
    const fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// The running relay. Cheap to clone; the relay runs until [`RelayHandle::stop`].
#[derive(Debug, Clone)]
pub struct RelayHandle(Arc<Running>);

#[derive(Debug)]
struct Running {
    inbox: Inbox,
    counters: Arc<Mutex<Counters>>,
    addresses: Vec<SocketAddr>,
    /// The addresses of the network interfaces at the start.
    interfaces: Vec<IpAddr>,
    quotas: Quotas,
    next_stream: AtomicU32,
    streams: Semaphore,
    max_streams: usize,
    refused_streams: AtomicU64,
    idle_timeout: Duration,
}

/// Binds the sockets and starts the relay's thread.
///
/// # Errors
/// An address cannot be bound, the computer's own addresses cannot be read, or the configuration is contradictory.
pub fn start(config: RelayConfig) -> Result<RelayHandle> {
    ensure!(!config.listen.is_empty(), "the relay needs an address to listen on");
    ensure!(
        config.listen.len() <= MAX_LISTEN_ADDRESSES,
        "the relay listens on {MAX_LISTEN_ADDRESSES} addresses at most"
    );
    ensure!(!config.relay.is_empty(), "the relay needs an address to relay on");
    ensure!(!config.settings.ports.is_empty(), "the relay's port range is empty");
    raise_file_limit();
    let bound = sockets::bind_listeners(&config)
        .with_context(|| format!("bind the relay's UDP port {} on {:?}", config.port, config.listen))?;
    let (listeners, mut listening): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
    let addresses = listeners.iter().map(|listener| listener.local).collect();
    let (quotas, max_streams) = (config.settings.quotas.clone(), config.max_streams);
    let idle_timeout = config.settings.max_lifetime + IDLE_GRACE;
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    let mut relay = Relay::new(config.settings, listeners, &config.relay, seed);
    // Without them, members could reach what only this computer may.
    let interfaces = interface_addresses().context("read the addresses of this computer")?;
    relay.set_interface_addresses(interfaces.iter().copied());

    let poll = Poll::new().context("create the relay's poll")?;
    let waker = Waker::new(poll.registry(), WAKEUP).context("create the relay's waker")?;
    let wakeup = Arc::new(Wakeup::new(waker));
    let (sender, receiver) = mpsc::channel(INBOX_CAPACITY);
    for (index, listener) in listening.iter_mut().enumerate() {
        let registered = poll.registry().register(listener, Token(1 + index), Interest::READABLE);
        registered.context("register the relay's sockets")?;
    }
    let counters = Arc::new(Mutex::new(Counters::default()));
    let inbox = Inbox::new(sender, Arc::clone(&wakeup));
    let published = Arc::clone(&counters);
    let run = move || RelayThread::new(relay, poll, listening, receiver, wakeup, published).run();
    std::thread::Builder::new().name("relay".into()).spawn(run).context("start the relay's thread")?;
    Ok(RelayHandle(Arc::new(Running {
        inbox,
        counters,
        addresses,
        interfaces,
        quotas,
        next_stream: AtomicU32::new(0),
        streams: Semaphore::new(max_streams),
        max_streams,
        refused_streams: AtomicU64::new(0),
        idle_timeout,
    })))
}

impl RelayHandle {
    /// Serves a TCP or TLS client until it disconnects; `already_read` is what was read to tell it from HTTP. Above the limit
    /// of streams, the client is dropped at once.
    pub async fn accept_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        local: SocketAddr,
        transport: StreamTransport,
        already_read: Bytes,
    ) {
        let transport = transport.label();
        let Ok(_place) = self.0.streams.try_acquire() else {
            self.0.refused_streams.fetch_add(1, Ordering::Relaxed);
            return tracing::debug!(client = %peer, transport, reason = "stream limit", "relay client refused");
        };
        let number = self.0.next_stream.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(client = %peer, %local, transport, stream = number, "relay client connected");
        stream::serve(stream, number, peer, self.0.inbox.clone(), already_read, self.0.idle_timeout).await;
    }

    /// Reads the addresses of the network interfaces at intervals, so that the relay refuses those that are new as peers,
    /// until the future is dropped or the relay has shut down.
    pub(crate) async fn watch_interfaces(self) {
        let mut known = self.0.interfaces.clone();
        let mut ticks = interval(INTERFACES_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let found = match interface_addresses() {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(reason = %error, "cannot read this computer's addresses; those read before stay refused");
                    continue;
                }
            };
            if found != known {
                tracing::debug!(count = found.len(), "addresses of this computer changed");
                known.clone_from(&found);
                if !self.0.inbox.send(Inbound::InterfaceAddresses(found)).await {
                    return;
                }
            }
        }
    }

    /// Returns the UDP addresses of the listeners.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0.addresses
    }

    /// Returns the relay's counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.0.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of TCP and TLS clients that are served.
    #[must_use]
    pub fn open_streams(&self) -> u64 {
        (self.0.max_streams - self.0.streams.available_permits()) as u64
    }

    /// Returns the number of TCP and TLS clients that were refused.
    #[must_use]
    pub fn refused_streams(&self) -> u64 {
        self.0.refused_streams.load(Ordering::Relaxed)
    }

    /// Returns the configured limits with their label values. Bandwidths are in bytes per second, and left out if unlimited.
    pub(crate) fn limits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let quotas = &self.0.quotas;
        [
            ("allocations", Some(quotas.allocations as u64)),
            ("allocations_per_user", Some(quotas.allocations_per_user as u64)),
            ("allocations_per_address", Some(quotas.allocations_per_address as u64)),
            ("peers_per_allocation", Some(quotas.peers_per_allocation as u64)),
            ("streams", Some(self.0.max_streams as u64)),
            ("bandwidth_per_allocation", quotas.bandwidth_per_allocation),
            ("bandwidth_per_network", quotas.bandwidth_per_network),
            ("bandwidth", quotas.bandwidth),
        ]
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)))
    }

    /// Deletes all allocations, closes all sockets and streams, and waits until that is done.
    pub async fn stop(&self) {
        let (stopped, wait) = oneshot::channel();
        if self.0.inbox.send(Inbound::Stop(stopped)).await {
            // An error means that the thread has ended already.
            let _ = wait.await;
        }
    }
}
