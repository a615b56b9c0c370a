//! One TCP connection: TLS if there is a certificate, then the first byte decides what it is for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{
    counters::{EarlyClose, Reason as _},
    http,
    listener::Accepted,
    peeked::Peeked,
    relay::StreamTransport,
    shared::Shared,
};

/// How long the TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the first byte may take.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a listener accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListenerKind {
    /// HTTP and TURN within TLS.
    Tls,
    /// HTTP and TURN without TLS.
    Plain,
    /// TURN only, without TLS.
    Turn,
}

impl ListenerKind {
    /// Returns the `transport` field of log lines and spans.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Plain => "tcp",
            Self::Turn => "turn_tcp",
        }
    }
}

/// Serves a connection until it ends or is handed over to a task of its own.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, accepted: Accepted, kind: ListenerKind) {
    // Handshakes need far more memory than what follows, so they are boxed futures of their own.
    let served = match kind {
        ListenerKind::Tls => Box::pin(serve_tls(&shared, stream, accepted)).await,
        ListenerKind::Plain | ListenerKind::Turn => {
            Box::pin(serve_stream(&shared, stream, accepted, StreamTransport::Tcp, kind)).await
        }
    };
    if let Err(reason) = served {
        shared.counters.closed_early.count(reason);
        tracing::debug!(reason = reason.label(), "connection closed early");
    }
}

async fn serve_tls(shared: &Arc<Shared>, stream: TcpStream, accepted: Accepted) -> Result<(), EarlyClose> {
    let acceptor = shared.tls.as_ref().map(|tls| tls.acceptor()).ok_or(EarlyClose::TlsFailed)?;
    let started = Instant::now();
    let handshake = timeout(HANDSHAKE_TIMEOUT, Box::pin(acceptor.accept(stream))).await;
    let stream = handshake.map_err(|_| EarlyClose::TlsTimeout)?.map_err(|error| {
        tracing::debug!(reason = %error, "TLS handshake failed");
        EarlyClose::TlsFailed
    })?;
    shared.counters.tls_handshake.record(started.elapsed());
    Box::pin(serve_stream(shared, stream, accepted, StreamTransport::Tls, ListenerKind::Tls)).await
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: &Arc<Shared>,
    stream: S,
    accepted: Accepted,
    transport: StreamTransport,
    kind: ListenerKind,
) -> Result<(), EarlyClose> {
    let peeked = timeout(FIRST_BYTE_TIMEOUT, Peeked::new(stream)).await;
    let Ok(Ok(Some((first, stream)))) = peeked else { return Err(EarlyClose::Silent) };
    match (first, &shared.relay) {
        // A client's first message is a STUN request, whose type is below 0x0400; HTTP begins with a letter.
        (0..4, Some(relay)) => {
            let Accepted { peer, local, permit } = accepted;
            let already_read = Bytes::copy_from_slice(&[first]);
            relay.accept_stream(stream.into_inner(), peer, local, transport, already_read).await;
            drop(permit);
            Ok(())
        }
        (letter, _) if letter.is_ascii_alphabetic() && kind != ListenerKind::Turn => {
            http::serve(Arc::clone(shared), stream, accepted).await;
            Ok(())
        }
        _ => Err(EarlyClose::UnknownProtocol),
    }
}
