//! The tunnel's sockets: one for IPv4 and one for IPv6, on the same port where that can be had.
//!
//! Built on quinn-udp, so that many datagrams take one system call in each direction: equal-sized datagrams for one
//! address leave as one segmented send (GSO), and arrive coalesced (GRO) or at least batched (`recvmmsg`). Datagrams
//! are never fragmented by IP (DF is set), and one that cannot be sent is dropped and counted: the protocols above
//! repeat what matters, and one unreachable member must not stop the others.
//!
//! On a system where quinn-udp does not work for a socket (IPv4 under wine), it is used plainly.

mod batch;
mod half;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering},
};

pub use batch::{Datagram, RecvBatch};
use half::Half;

/// How often another ephemeral port is tried when the other family's is taken.
const PORT_ATTEMPTS: usize = 16;

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

/// Datagrams to send to one address.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// From which of this computer's addresses; `None` lets the system choose.
    pub from: Option<IpAddr>,
    /// The datagrams, back to back.
    pub bytes: &'a [u8],
    /// Length of each but the last, which may be shorter. At least 1.
    pub segment: usize,
}

impl<'a> Outgoing<'a> {
    /// One datagram.
    #[must_use]
    pub const fn one(to: SocketAddr, bytes: &'a [u8]) -> Self {
        let segment = if bytes.is_empty() { 1 } else { bytes.len() };
        Self { to, from: None, bytes, segment }
    }
}

/// Why a datagram was not sent. Counted; nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendDrop {
    /// Longer than the path to this address takes without fragmentation.
    TooBig,
    /// No route to it, or a firewall refuses.
    Unreachable,
    /// There is no socket of this address family.
    NoSocket,
    /// The socket's buffer is full.
    Busy,
    /// Anything else.
    Failed,
}

/// Datagrams that were not sent, and errors on receiving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UdpCounters {
    /// See [`SendDrop::TooBig`].
    pub too_big: u64,
    /// See [`SendDrop::Unreachable`].
    pub unreachable: u64,
    /// See [`SendDrop::NoSocket`].
    pub no_socket: u64,
    /// See [`SendDrop::Busy`].
    pub busy: u64,
    /// See [`SendDrop::Failed`].
    pub failed: u64,
    /// Errors reported by the receiving side, such as a peer's port being closed.
    pub received_errors: u64,
}

/// The UDP sockets of the tunnel.
#[derive(Debug)]
pub struct UdpEndpoint {
    v4: Option<Half>,
    v6: Option<Half>,
    drops: [AtomicU64; 5],
    received_errors: AtomicU64,
}

impl UdpEndpoint {
    /// Opens the sockets on `port`; 0 takes one that is free for both families. Computers without IPv6 get IPv4 only,
    /// and the other way round. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the port cannot be had, or there is no network at all.
    pub fn bind(port: u16) -> Result<Self, BindError> {
        let (v4, v6) = bind_both(port)?;
        Ok(Self { v4, v6, drops: Default::default(), received_errors: AtomicU64::new(0) })
    }

    /// Opens a socket for IPv4 alone, on a port that the system chooses. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If there is none to be had.
    pub fn open_v4() -> Result<Self, BindError> {
        let v4 = bind_v4(0).map_err(|error| BindError::new(0, error))?;
        Ok(Self { v4: Some(v4), v6: None, drops: Default::default(), received_errors: AtomicU64::new(0) })
    }

    /// Closes the sockets and opens them anew on the same port, or another if that has been taken meanwhile: after
    /// sleep, or when the system has invalidated them.
    ///
    /// # Errors
    /// As for [`Self::bind`].
    pub fn rebind(&mut self) -> Result<(), BindError> {
        let port = self.port();
        (self.v4, self.v6) = (None, None);
        (self.v4, self.v6) = bind_both(port).or_else(|_| bind_both(0))?;
        Ok(())
    }

    /// The port; that of IPv4 where they differ.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.v4.as_ref().or(self.v6.as_ref()).map_or(0, Half::port)
    }

    /// The port of the IPv6 socket, which can differ if another program had ours.
    #[must_use]
    pub fn port_v6(&self) -> Option<u16> {
        self.v6.as_ref().map(Half::port)
    }

    /// Whether there is an IPv4 socket.
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
            let half = tokio::select! {
                half = readable(self.v4.as_ref()) => half?,
                half = readable(self.v6.as_ref()) => half?,
            };
            match half.try_recv(batch) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_passing(&error) => {
                    self.received_errors.fetch_add(1, Ordering::Relaxed);
                }
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
            half = readable(self.v4.as_ref()) => half.map(drop),
            half = readable(self.v6.as_ref()) => half.map(drop),
        }
    }

    /// Takes what has arrived, without waiting. False if nothing has.
    ///
    /// # Errors
    /// As for [`Self::recv`].
    pub fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        for half in [&self.v4, &self.v6].into_iter().flatten() {
            match half.try_recv(batch) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_passing(&error) => {
                    self.received_errors.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Sends, waiting while the socket's buffer is full.
    ///
    /// # Errors
    /// If something was dropped; it has been counted.
    pub async fn send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendDrop> {
        let Some(half) = self.half(outgoing.to) else { return Err(self.count(SendDrop::NoSocket)) };
        half.send(outgoing).await.map_err(|error| self.count(reason(&error)))
    }

    /// Sends, or drops what does not fit the socket's buffer.
    ///
    /// # Errors
    /// If something was dropped; it has been counted.
    pub fn try_send(&self, outgoing: &Outgoing<'_>) -> Result<(), SendDrop> {
        let Some(half) = self.half(outgoing.to) else { return Err(self.count(SendDrop::NoSocket)) };
        half.try_send(outgoing).map_err(|error| self.count(reason(&error)))
    }

    /// What was dropped so far. Counts bursts, not the datagrams in them.
    #[must_use]
    pub fn counters(&self) -> UdpCounters {
        let drops = |reason: SendDrop| self.drops[reason as usize].load(Ordering::Relaxed);
        UdpCounters {
            too_big: drops(SendDrop::TooBig),
            unreachable: drops(SendDrop::Unreachable),
            no_socket: drops(SendDrop::NoSocket),
            busy: drops(SendDrop::Busy),
            failed: drops(SendDrop::Failed),
            received_errors: self.received_errors.load(Ordering::Relaxed),
        }
    }

    const fn half(&self, to: SocketAddr) -> Option<&Half> {
        if to.is_ipv4() { self.v4.as_ref() } else { self.v6.as_ref() }
    }

    fn count(&self, reason: SendDrop) -> SendDrop {
        self.drops[reason as usize].fetch_add(1, Ordering::Relaxed);
        reason
    }
}

type Halves = (Option<Half>, Option<Half>);

fn bind_both(port: u16) -> Result<Halves, BindError> {
    let mut v4 = bind_v4(port);
    for _ in 0..PORT_ATTEMPTS {
        let wanted = v4.as_ref().map_or(port, Half::port);
        match bind_v6(wanted) {
            // The other family's port was taken by chance: draw again.
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => v4 = bind_v4(0),
            v6 => return pair(port, v4, v6),
        }
    }
    pair(port, v4, bind_v6(0))
}

fn pair(port: u16, v4: io::Result<Half>, v6: io::Result<Half>) -> Result<Halves, BindError> {
    match (v4, v6) {
        (Err(error), Err(_)) => Err(BindError::new(port, error)),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(BindError::new(port, error))
        }
        (v4, v6) => Ok((v4.ok(), v6.ok())),
    }
}

fn bind_v4(port: u16) -> io::Result<Half> {
    Half::bind((Ipv4Addr::UNSPECIFIED, port).into())
}

fn bind_v6(port: u16) -> io::Result<Half> {
    Half::bind((Ipv6Addr::UNSPECIFIED, port).into())
}

/// Waits for one of the sockets; for ever if there is none of the family.
async fn readable(half: Option<&Half>) -> io::Result<&Half> {
    match half {
        Some(half) => half.readable().await.map(|()| half),
        None => std::future::pending().await,
    }
}

/// Errors that report the fate of some datagram sent earlier, or a network that may come back.
fn is_passing(error: &io::Error) -> bool {
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
