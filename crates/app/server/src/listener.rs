//! Listening sockets, and the loop that accepts connections from them.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{StartError, limiter::Permit, platform::REUSE_ADDRESS};

/// Maximum number of connections waiting to be accepted.
const LISTEN_BACKLOG: i32 = 4096;

/// Pause before the next attempt when the system has no more file descriptors.
const OUT_OF_DESCRIPTORS_PAUSE: Duration = Duration::from_millis(100);

/// The endpoints of an accepted connection, and the permit that counts it while it lasts.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) permit: Permit,
}

/// Listens on an address. An IPv6 address does not accept IPv4 unless it is `[::]`.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).map_err(|cause| StartError::listen(address, cause))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(REUSE_ADDRESS)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the future is dropped.
pub(crate) async fn accept<F: Future<Output = ()>>(
    listener: TcpListener,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                serve(stream, SocketAddr::new(peer.ip().to_canonical(), peer.port())).await;
            }
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(reason = %error, "connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(
                    reason = %error,
                    "cannot accept connections; raise the limit of open files if this goes on"
                );
                sleep(OUT_OF_DESCRIPTORS_PAUSE).await;
            }
        }
    }
}

/// Returns true for errors of a connection that ended before it was accepted; the listener itself is fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
