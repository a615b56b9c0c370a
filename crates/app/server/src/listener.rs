//! Listening sockets, and the loop that takes connections from them.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use crate::{StartError, platform::REUSE_ADDRESS};

/// How many connections may wait to be taken.
const BACKLOG: i32 = 4096;

/// How long to wait when the system has no more descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Listens on an address; an IPv6 one does not take IPv4 along unless it is `[::]`.
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
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes connections until the future is dropped.
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
            Err(cause) if is_connections_own(&cause) => {}
            Err(cause) => {
                tracing::warn!(%cause, "cannot take connections; raise the limit of open files if this goes on");
                sleep(OUT_OF_DESCRIPTORS).await;
            }
        }
    }
}

/// Errors of a connection that ended before it was taken.
fn is_connections_own(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(cause.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
