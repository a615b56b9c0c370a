//! Binds the relay's UDP sockets.

use std::{io, net::SocketAddr};

use mio::net::UdpSocket;
use partyline_relay::Listener;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::RelayConfig;

/// Bytes requested for the buffers of a listener, through which the packets of all clients pass; the kernel grants
/// `rmem_max` and `wmem_max` at most.
const LISTENER_BUFFER: usize = 8 << 20;

/// Binds all listeners of a configuration: each address with the main port, and with the alternate one if there is one.
pub fn bind_listeners(config: &RelayConfig) -> io::Result<Vec<(Listener, UdpSocket)>> {
    let mut bound: Vec<(Listener, UdpSocket)> = Vec::new();
    let mut main = config.port;
    for address in &config.listen {
        let (listener, socket) =
            bind_listener(SocketAddr::new(address.bind, main), |port| address.public(port))?;
        // A port that the system chose for the first address is used for the others too.
        main = listener.local.port();
        bound.push((listener, socket));
    }
    let mut alternate = config.alternate_port;
    for address in &config.listen {
        let Some(port) = alternate else { break };
        let (listener, socket) =
            bind_listener(SocketAddr::new(address.bind, port), |port| address.public(port))?;
        alternate = Some(listener.local.port());
        bound.push((listener, socket));
    }
    Ok(bound)
}

fn bind_listener(
    address: SocketAddr,
    public: impl Fn(u16) -> SocketAddr,
) -> io::Result<(Listener, UdpSocket)> {
    let socket = bind(address)?;
    // Smaller buffers than requested are no reason not to serve.
    let _ = socket.set_recv_buffer_size(LISTENER_BUFFER);
    let _ = socket.set_send_buffer_size(LISTENER_BUFFER);
    let received = socket.recv_buffer_size().unwrap_or_default();
    let socket = UdpSocket::from_std(socket.into());
    let local = socket.local_addr()?;
    tracing::debug!(%local, receive_buffer = received, "relay listener bound");
    Ok((Listener { local, public: public(local.port()) }, socket))
}

/// Binds a relayed transport address.
pub fn bind_relayed(address: SocketAddr) -> io::Result<UdpSocket> {
    Ok(UdpSocket::from_std(bind(address)?.into()))
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
