//! The LAN beacon's sockets: multicast on every interface, and answers by unicast.
//!
//! Beacons leave from a socket on an ephemeral port, so that an answer reaches the one engine that asked even where
//! several run on one computer; the group's port is shared, and only listened on. A computer without IPv4 or without
//! IPv6 uses the other family alone.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use partyline_wire::beacon::{GROUP_V4, GROUP_V6, MAX_BEACON, PORT};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// An interface that beacons are sent on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BeaconInterface {
    /// The system's index of the interface.
    pub index: u32,
    /// One of its IPv4 addresses, by which IPv4 multicast names an interface.
    pub v4: Option<Ipv4Addr>,
    /// True if it has an IPv6 address.
    pub v6: bool,
}

/// The sockets, for IPv4 and IPv6 where the computer has them.
#[derive(Debug)]
pub struct BeaconSockets {
    v4: Option<SocketPair>,
    v6: Option<SocketPair>,
    interfaces: Vec<BeaconInterface>,
}

/// The sockets of one address family.
#[derive(Debug)]
struct SocketPair {
    group: UdpSocket,
    own: UdpSocket,
}

impl BeaconSockets {
    /// Opens the sockets. They join no group before [`Self::set_interfaces`].
    ///
    /// # Errors
    /// The beacon's port is available neither for IPv4 nor for IPv6.
    pub fn open() -> io::Result<Self> {
        let v4 = SocketPair::open(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into());
        let v6 = SocketPair::open(Domain::IPV6, Ipv6Addr::UNSPECIFIED.into());
        match (v4, v6) {
            (Err(error), Err(_)) => Err(error),
            (v4, v6) => {
                tracing::debug!(v4 = v4.is_ok(), v6 = v6.is_ok(), "LAN beacon sockets opened");
                Ok(Self { v4: v4.ok(), v6: v6.ok(), interfaces: Vec::new() })
            }
        }
    }

    /// Listens and sends on these interfaces from now on. An interface without multicast is skipped.
    pub fn set_interfaces(&mut self, interfaces: Vec<BeaconInterface>) {
        for gone in self.interfaces.iter().filter(|old| !interfaces.contains(old)) {
            self.membership(*gone, false);
        }
        for new in interfaces.iter().filter(|new| !self.interfaces.contains(new)) {
            self.membership(*new, true);
        }
        self.interfaces = interfaces;
    }

    /// Sends to the group on every interface. Returns the number of interfaces on which that worked.
    pub fn send_to_group(&self, bytes: &[u8]) -> usize {
        self.interfaces
            .iter()
            .map(|interface| {
                let v4 = interface.v4.map(|address| self.send_v4(address, bytes));
                let v6 = interface.v6.then(|| self.send_v6(interface.index, bytes));
                let sent = [v4, v6].into_iter().flatten().filter(|sent| {
                    if let Err(error) = sent {
                        tracing::trace!(interface = interface.index, %error, "a LAN beacon was not sent");
                    }
                    sent.is_ok()
                });
                usize::from(sent.count() > 0)
            })
            .sum()
    }

    /// Sends to one neighbour. Lost if the socket's buffer is full; beacons are repeated.
    ///
    /// # Errors
    /// The socket's error, or `Unsupported` without a socket of the address's family.
    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
        let pair = if to.is_ipv4() { &self.v4 } else { &self.v6 };
        pair.as_ref().ok_or(io::ErrorKind::Unsupported)?.send(to, bytes)
    }

    /// Receives the next beacon and its source.
    ///
    /// # Errors
    /// The socket's error; calling again is fine.
    pub async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        tokio::select! {
            received = receive_pair(self.v4.as_ref()) => received,
            received = receive_pair(self.v6.as_ref()) => received,
        }
    }

    fn membership(&self, interface: BeaconInterface, join: bool) {
        if let (Some(pair), Some(address)) = (&self.v4, interface.v4) {
            let change = if join { Socket::join_multicast_v4 } else { Socket::leave_multicast_v4 };
            log(change(&SockRef::from(&pair.group), &GROUP_V4, &address), interface.index, join);
        }
        if let (Some(pair), true) = (&self.v6, interface.v6) {
            let change = if join { Socket::join_multicast_v6 } else { Socket::leave_multicast_v6 };
            log(change(&SockRef::from(&pair.group), &GROUP_V6, interface.index), interface.index, join);
        }
    }

    fn send_v4(&self, interface: Ipv4Addr, bytes: &[u8]) -> io::Result<usize> {
        let pair = self.v4.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        SockRef::from(&pair.own).set_multicast_if_v4(&interface)?;
        pair.send((GROUP_V4, PORT).into(), bytes)
    }

    fn send_v6(&self, index: u32, bytes: &[u8]) -> io::Result<usize> {
        let pair = self.v6.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        SockRef::from(&pair.own).set_multicast_if_v6(index)?;
        pair.send(SocketAddrV6::new(GROUP_V6, PORT, 0, index).into(), bytes)
    }
}

impl SocketPair {
    fn open(domain: Domain, any: IpAddr) -> io::Result<Self> {
        Ok(Self {
            group: open(domain, (any, PORT).into(), true)?,
            own: open(domain, (any, 0).into(), false)?,
        })
    }

    /// Bypasses tokio, which does not know that a socket can send until it has been polled once.
    fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(&self.own).send_to(bytes, &to.into())
    }

    async fn receive(&self) -> io::Result<(Vec<u8>, SocketAddr)> {
        // One byte more than the longest beacon, so that a longer datagram is recognised as none.
        let (mut group, mut own) = ([0; MAX_BEACON + 1], [0; MAX_BEACON + 1]);
        tokio::select! {
            received = self.group.recv_from(&mut group) => received.map(|(len, from)| (group[..len].to_vec(), from)),
            received = self.own.recv_from(&mut own) => received.map(|(len, from)| (own[..len].to_vec(), from)),
        }
    }
}

async fn receive_pair(pair: Option<&SocketPair>) -> io::Result<(Vec<u8>, SocketAddr)> {
    match pair {
        Some(pair) => pair.receive().await,
        None => std::future::pending().await,
    }
}

fn open(domain: Domain, address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    if shared {
        socket.set_reuse_address(true)?;
        #[cfg(unix)]
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn log(result: io::Result<()>, interface: u32, join: bool) {
    match result {
        Ok(()) => tracing::debug!(interface, join, "LAN beacon group membership changed"),
        Err(error) => {
            tracing::debug!(interface, join, reason = %error, "the LAN beacon cannot change its group membership");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_neighbour_receives_a_beacon_and_answers_its_sender() {
        let mut asker = BeaconSockets::open().unwrap();
        let mut neighbour = BeaconSockets::open().unwrap();
        let loopback = BeaconInterface { index: 1, v4: Some(Ipv4Addr::LOCALHOST), v6: false };
        asker.set_interfaces(vec![loopback]);
        neighbour.set_interfaces(vec![loopback]);
        assert_eq!(asker.send_to_group(b"who is there?"), 1);
        let (heard, from) = neighbour.receive().await.unwrap();
        assert_eq!(heard, b"who is there?");
        neighbour.send_to(from, b"me").unwrap();
        loop {
            let (heard, _) = asker.receive().await.unwrap();
            if heard == b"me" {
                break;
            }
        }
    }
}
