//! The relay's data plane: one thread that owns every UDP socket and the state of `partyline_relay`, and one task per
//! TCP or TLS client that exchanges framed messages with it.

mod arena;
mod config;
mod plane;
mod sockets;
mod stream;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
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
};

use crate::platform::raise_file_limit;

use self::{
    plane::Plane,
    stream::{Bell, Inbound, Inbox},
};
pub use config::{ListenAddress, PeerPolicy, Quotas, RelayAddress, RelayConfig, Secret, Settings};
pub use partyline_relay::{Counters, time_limited_credentials};

/// Messages from all TCP and TLS clients together that may wait for the relay's thread.
const INBOX: usize = 4096;
/// How much longer than an allocation's longest life a silent client is kept.
const GRACE: Duration = Duration::from_secs(60);

/// What carries a client's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTransport {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

/// The running relay. Cheap to clone; the relay runs until [`RelayHandle::stop`].
#[derive(Debug, Clone)]
pub struct RelayHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inbox: Inbox,
    counters: Arc<Mutex<Counters>>,
    addresses: Vec<SocketAddr>,
    next_stream: AtomicU32,
    streams: Semaphore,
    idle: Duration,
}

/// Binds the sockets and starts the relay's thread.
///
/// # Errors
/// If an address cannot be bound, or the configuration is contradictory.
pub fn start(config: RelayConfig) -> Result<RelayHandle> {
    ensure!(!config.listen.is_empty(), "the relay needs an address to listen on");
    ensure!(config.listen.len() <= 64, "the relay listens on 64 addresses at most");
    ensure!(!config.relay.is_empty(), "the relay needs an address to relay on");
    ensure!(!config.settings.ports.is_empty(), "the relay's port range is empty");
    raise_file_limit();
    let bound = sockets::bind_listeners(&config)
        .with_context(|| format!("bind the relay's UDP port {} on {:?}", config.port, config.listen))?;
    let (listeners, mut listening): (Vec<_>, Vec<_>) = bound.into_iter().unzip();
    let addresses = listeners.iter().map(|listener| listener.local).collect();
    let idle = config.settings.max_lifetime + GRACE;
    let mut seed = [0; 32];
    rand::rngs::OsRng.fill_bytes(&mut seed);
    let relay = Relay::new(config.settings, listeners, &config.relay, seed);

    let poll = Poll::new().context("make the relay's poll")?;
    let bell =
        Arc::new(Bell::new(Waker::new(poll.registry(), plane::BELL).context("make the relay's waker")?));
    let (sender, receiver) = mpsc::channel(INBOX);
    let counters = Arc::new(Mutex::new(Counters::default()));
    for (index, listener) in listening.iter_mut().enumerate() {
        let registered = poll.registry().register(listener, Token(1 + index), Interest::READABLE);
        registered.context("register the relay's sockets")?;
    }
    let published = (bell.clone(), counters.clone());
    let run = move || Plane::new(relay, poll, listening, receiver, published.0, published.1).run();
    thread::Builder::new().name("relay".into()).spawn(run).context("start the relay's thread")?;
    Ok(RelayHandle(Arc::new(Shared {
        inbox: Inbox::new(sender, bell),
        counters,
        addresses,
        next_stream: AtomicU32::new(0),
        streams: Semaphore::new(config.max_streams),
        idle,
    })))
}

impl RelayHandle {
    /// Serves a TCP or TLS client until it leaves; `already_read` is what was taken from the stream to tell it from HTTP.
    /// Over the limit of streams it is dropped at once.
    pub async fn accept_stream(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: SocketAddr,
        local: SocketAddr,
        transport: StreamTransport,
        already_read: Bytes,
    ) {
        let Ok(_place) = self.0.streams.try_acquire() else {
            return tracing::debug!(%peer, %local, ?transport, "too many relay streams, client refused");
        };
        let number = self.0.next_stream.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%peer, %local, ?transport, stream = number, "relay client connected");
        stream::serve(stream, number, peer, self.0.inbox.clone(), already_read, self.0.idle).await;
    }

    /// UDP addresses listened on.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0.addresses
    }

    /// Counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.0.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all allocations, closes all sockets and streams, and waits until that is done.
    pub async fn stop(&self) {
        let (stopped, wait) = oneshot::channel();
        if self.0.inbox.send(Inbound::Stop(stopped)).await {
            // An error means that the thread has ended already.
            let _ = wait.await;
        }
    }
}
