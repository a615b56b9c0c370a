//! UDP endpoints: one socket for IPv4 and one for IPv6, on the same port where that is available.
//!
//! Built on quinn-udp, so that many datagrams take one system call in each direction: equal-sized datagrams for one
//! address leave as one segmented send (GSO), and arrive coalesced (GRO) or at least batched (`recvmmsg`). Datagrams
//! are never fragmented by IP (DF is set), and one that cannot be sent is dropped and counted: the protocols above
//! repeat what matters, and one unreachable member must not stop the others.
//!
//! Where quinn-udp does not work for a socket (IPv4 under wine), datagrams are sent and received one by one.

mod batch;
mod counters;
mod family;
mod outgoing;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

pub use batch::{Datagram, RecvBatch};
use counters::LiveCounters;
pub use counters::{SendDrop, SendDrops, UdpCounters};
use family::FamilySocket;
pub use outgoing::Outgoing;

/// Ephemeral ports that are tried until one is free for both families.
const MAX_PORT_ATTEMPTS: usize = 16;

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {port} is used by another program; stop it, or set port 0 to let the system choose")]
    InUse {
        /// The port asked for.
        port: u16,
    },
    /// Ports below 1024 are reserved.
    #[error("UDP port {port} may be opened by an administrator only; choose one above 1023")]
    Denied {
        /// The port asked for.
        port: u16,
    },
    /// Anything else.
    #[error("no UDP socket could be opened: {0}")]
    Other(#[source] io::Error),
}

impl BindError {
    fn new(port: u16, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { port },
            io::ErrorKind::PermissionDenied => Self::Denied { port },
            _ => Self::Other(error),
        }
    }
}

/// The UDP sockets of one port. Sending never waits for a single peer; everything may be called from several tasks.
#[derive(Debug)]
pub struct UdpEndpoint {
    v4: Option<FamilySocket>,
    v6: Option<FamilySocket>,
    counters: LiveCounters,
}

impl UdpEndpoint {
    /// Opens the sockets on `port`; 0 takes one that is free for both families. Computers without IPv6 get IPv4 only,
    /// and the other way round. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be had, or there is no network at all.
    pub fn bind(port: u16) -> Result<Self, BindError> {
        let (v4, v6) = bind_both(port)?;
        let [port_v4, port_v6] = [&v4, &v6].map(|socket| socket.as_ref().map(FamilySocket::port));
        tracing::debug!(wanted = port, v4 = port_v4, v6 = port_v6, "UDP sockets opened");
        Ok(Self { v4, v6, counters: LiveCounters::default() })
    }

    /// Opens a socket for IPv4 alone, on a port that the system chooses. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn open_v4() -> Result<Self, BindError> {
        let v4 = bind_v4(0).map_err(|error| BindError::new(0, error))?;
        tracing::trace!(port = v4.port(), "IPv4 UDP socket opened");
        Ok(Self { v4: Some(v4), v6: None, counters: LiveCounters::default() })
    }

    /// Closes the sockets and opens new ones on the same port, or on another if that has been taken meanwhile: after
    /// sleep, or when the system has invalidated them.
    ///
    /// # Errors
    /// As for [`Self::bind`].
    pub fn rebind(&mut self) -> Result<(), BindError> {
        let port = self.port();
        self.counters.retire(self.gso_fallbacks());
        (self.v4, self.v6) = (None, None);
        (self.v4, self.v6) = bind_both(port).or_else(|error| {
            tracing::warn!(port, %error, "the UDP port is taken; moving to another one");
            bind_both(0)
        })?;
        tracing::debug!(before = port, port = self.port(), "reopened the UDP sockets");
        Ok(())
    }

    /// Returns the port; that of IPv4 where they differ.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.v4.as_ref().or(self.v6.as_ref()).map_or(0, FamilySocket::port)
    }

    /// Returns the port of the IPv6 socket, which can differ if another program had ours.
    #[must_use]
    pub fn port_v6(&self) -> Option<u16> {
        self.v6.as_ref().map(FamilySocket::port)
    }

    /// True if there is an IPv4 socket.
    #[must_use]
    pub const fn has_v4(&self) -> bool {
        self.v4.is_some()
    }

    /// Waits for datagrams and takes as many as one system call gives.
    ///
    /// # Errors
    /// Only when a socket is lost for good; see [`Self::rebind`].
    pub async fn recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        loop {
            let socket = tokio::select! {
                socket = readable(self.v4.as_ref()) => socket?,
                socket = readable(self.v6.as_ref()) => socket?,
            };
            match socket.try_recv(batch) {
                Ok(()) => {
                    self.count_received(batch);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_transient(&error) => self.counters.on_receive_error(&error),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until something may have arrived, for [`Self::try_recv`].
    ///
    /// # Errors
    /// As for [`Self::recv`].
    pub async fn readable(&self) -> io::Result<()> {
        tokio::select! {
            socket = readable(self.v4.as_ref()) => socket.map(drop),
            socket = readable(self.v6.as_ref()) => socket.map(drop),
        }
    }

    /// Takes what has arrived, without waiting. False if nothing has.
    ///
    /// # Errors
    /// As for [`Self::recv`].
    pub fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        for socket in [&self.v4, &self.v6].into_iter().flatten() {
            match socket.try_recv(batch) {
                Ok(()) => {
                    self.count_received(batch);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_transient(&error) => self.counters.on_receive_error(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Sends, waiting while the socket's buffer is full.
    ///
    /// # Errors
    /// The reason why something was dropped; it has been counted.
    pub async fn send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendDrop> {
        let result = match self.socket(outgoing.to) {
            Some(socket) => socket.send(outgoing).await.map_err(|error| reason(&error)),
            None => Err(SendDrop::NoSocket),
        };
        self.count_sent(outgoing, result)
    }

    /// Sends without waiting, or drops what does not fit the socket's buffer.
    ///
    /// # Errors
    /// The reason why something was dropped; it has been counted.
    pub fn try_send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendDrop> {
        let result = match self.socket(outgoing.to) {
            Some(socket) => socket.try_send(outgoing).map_err(|error| reason(&error)),
            None => Err(SendDrop::NoSocket),
        };
        self.count_sent(outgoing, result)
    }

    /// Returns what was sent, received and dropped so far. Drops count bursts, not the datagrams in them.
    #[must_use]
    pub fn counters(&self) -> UdpCounters {
        self.counters.read(self.gso_fallbacks())
    }

    fn gso_fallbacks(&self) -> u64 {
        [&self.v4, &self.v6].into_iter().flatten().map(FamilySocket::gso_fallbacks).sum()
    }

    fn count_sent(&self, outgoing: &Outgoing<'_>, result: Result<(), SendDrop>) -> Result<(), SendDrop> {
        match result {
            Ok(()) => {
                let datagrams = outgoing.bytes.len().div_ceil(outgoing.segment.max(1)).max(1);
                self.counters.on_sent(datagrams as u64, outgoing.bytes.len() as u64);
                tracing::trace!(to = %outgoing.to, datagrams, bytes = outgoing.bytes.len(), "datagrams sent");
                Ok(())
            }
            Err(reason) => {
                tracing::trace!(to = %outgoing.to, bytes = outgoing.bytes.len(), ?reason, "datagrams not sent");
                Err(self.counters.on_drop(reason))
            }
        }
    }

    fn count_received(&self, batch: &RecvBatch) {
        let (datagrams, bytes) = batch.totals();
        tracing::trace!(datagrams, bytes, "datagrams received");
        self.counters.on_received(datagrams, bytes);
    }

    const fn socket(&self, to: SocketAddr) -> Option<&FamilySocket> {
        if to.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }
}

type Sockets = (Option<FamilySocket>, Option<FamilySocket>);

fn bind_both(port: u16) -> Result<Sockets, BindError> {
    let mut v4 = bind_v4(port);
    for _ in 0..MAX_PORT_ATTEMPTS {
        let wanted = v4.as_ref().map_or(port, FamilySocket::port);
        match bind_v6(wanted) {
            // The other family's port was taken by chance: draw again.
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {
                tracing::trace!(port = wanted, reason = "taken for IPv6", "drawing another UDP port");
                v4 = bind_v4(0);
            }
            v6 => return pair(port, v4, v6),
        }
    }
    pair(port, v4, bind_v6(0))
}

fn pair(port: u16, v4: io::Result<FamilySocket>, v6: io::Result<FamilySocket>) -> Result<Sockets, BindError> {
    match (v4, v6) {
        (Err(error), Err(_)) => Err(BindError::new(port, error)),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(BindError::new(port, error))
        }
        (v4, v6) => Ok((available(v4, "IPv4"), available(v6, "IPv6"))),
    }
}

fn available(socket: io::Result<FamilySocket>, family: &'static str) -> Option<FamilySocket> {
    let log = |error: &io::Error| tracing::debug!(family, reason = %error, "no UDP socket of this family");
    socket.inspect_err(log).ok()
}

fn bind_v4(port: u16) -> io::Result<FamilySocket> {
    FamilySocket::bind((Ipv4Addr::UNSPECIFIED, port).into())
}

fn bind_v6(port: u16) -> io::Result<FamilySocket> {
    FamilySocket::bind((Ipv6Addr::UNSPECIFIED, port).into())
}

/// Waits for one of the sockets; forever if there is none of the family.
async fn readable(socket: Option<&FamilySocket>) -> io::Result<&FamilySocket> {
    match socket {
        Some(socket) => socket.readable().await.map(|()| socket),
        None => std::future::pending().await,
    }
}

/// True for errors that report the fate of some datagram sent earlier, or a network that may come back.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    let kind = error.kind();
    matches!(
        kind,
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
    ) || quinn_udp::is_msg_size_err(error)
}

fn reason(error: &io::Error) -> SendDrop {
    use io::ErrorKind::{
        AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        PermissionDenied, WouldBlock,
    };
    match error.kind() {
        _ if quinn_udp::is_msg_size_err(error) => SendDrop::TooBig,
        WouldBlock => SendDrop::Busy,
        // Linux reports a packet dropped by a local firewall as a lack of permission.
        AddrNotAvailable | ConnectionRefused | HostUnreachable | NetworkDown | NetworkUnreachable
        | PermissionDenied => SendDrop::Unreachable,
        _ => SendDrop::Failed,
    }
}
