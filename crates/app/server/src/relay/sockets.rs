//! Binding the relay's sockets.

use std::{io, net::SocketAddr};

use mio::net::UdpSocket;
use partyline_relay::Listener;
use socket2::{Domain, Protocol, Socket, Type};

use super::config::RelayConfig;

/// Every client's packets come in here, so the queue is long; the kernel gives as much of it as `rmem_max` allows.
const LISTENER_BUFFER: usize = 8 << 20;

/// Binds all listeners of a configuration: each address with the main port, and with the alternate one if there is one.
pub fn bind_listeners(config: &RelayConfig) -> io::Result<Vec<(Listener, UdpSocket)>> {
    let mut bound: Vec<(Listener, UdpSocket)> = Vec::new();
    let mut main = config.port;
    for address in &config.listen {
        let (listener, socket) =
            bind_listener(SocketAddr::new(address.bind, main), |port| address.public(port))?;
        // The port the system chose for the first serves for the others too.
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
    // Less than asked for is no reason not to serve.
    let _ = socket.set_recv_buffer_size(LISTENER_BUFFER);
    let _ = socket.set_send_buffer_size(LISTENER_BUFFER);
    let socket = UdpSocket::from_std(socket.into());
    let local = socket.local_addr()?;
    Ok((Listener { local, public: public(local.port()) }, socket))
}

/// Binds a relayed address.
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
