//! One TCP connection: TLS if there is a certificate, then the first byte decides.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use crate::{gate::Ticket, http, relay::StreamTransport, server::Shared, stream::Peeked};

/// For the TLS handshake, and again for the first byte.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// HTTP and TURN, within TLS.
    Tls,
    /// HTTP and TURN, plain.
    Plain,
    /// TURN only, plain.
    Relay,
}

/// Who is connected to what.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    /// Counts the connection while it lasts.
    pub(crate) ticket: Ticket,
}

/// Serves a connection until it ends or becomes something else's.
pub(crate) async fn serve(shared: Arc<Shared>, stream: TcpStream, ends: Ends, purpose: Purpose) {
    // Handshakes need far more memory than what follows, so they are futures of their own.
    match purpose {
        Purpose::Tls => {
            let Some(acceptor) = shared.tls.as_ref().map(|tls| tls.acceptor()) else { return };
            let Ok(Ok(stream)) = timeout(PATIENCE, Box::pin(acceptor.accept(stream))).await else { return };
            Box::pin(tell_apart(shared, stream, ends, StreamTransport::Tls, purpose)).await;
        }
        Purpose::Plain | Purpose::Relay => {
            Box::pin(tell_apart(shared, stream, ends, StreamTransport::Tcp, purpose)).await;
        }
    }
}

async fn tell_apart<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: Arc<Shared>,
    stream: S,
    ends: Ends,
    transport: StreamTransport,
    purpose: Purpose,
) {
    let Ok(Ok(Some((first, stream)))) = timeout(PATIENCE, Peeked::new(stream)).await else { return };
    match first {
        0..4 => {
            if let Some(relay) = &shared.relay {
                let Ends { peer, local, ticket } = ends;
                let read = Bytes::copy_from_slice(&[first]);
                relay.accept_stream(stream.into_inner(), peer, local, transport, read).await;
                drop(ticket);
            }
        }
        letter if letter.is_ascii_alphabetic() && purpose != Purpose::Relay => {
            http::serve(shared, stream, ends).await;
        }
        _ => {}
    }
}
