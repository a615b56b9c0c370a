//! The socket of one address family.

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{io::Interest, net::UdpSocket};

use super::{batch::RecvBatch, outgoing::Outgoing};

/// The buffer asked of the kernel for each direction, in bytes: 20 ms at a gigabit. The kernel may give less.
const BUFFER_SIZE: usize = 4 << 20;

/// One UDP socket, with quinn-udp's batching where it works.
#[derive(Debug)]
pub(super) struct FamilySocket {
    socket: UdpSocket,
    /// `None` where quinn-udp does not work.
    state: Option<UdpSocketState>,
    port: u16,
    gso_fallbacks: AtomicU64,
}

impl FamilySocket {
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        enlarge_buffers(&socket);
        socket.bind(&address.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let port = socket.local_addr()?.port();
        let state = UdpSocketState::new(UdpSockRef::from(&socket))
            .inspect_err(|error| tracing::warn!(%error, "batched UDP is not available, sending plainly"))
            .ok();
        Ok(Self { socket, state, port, gso_fallbacks: AtomicU64::new(0) })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn gso_fallbacks(&self) -> u64 {
        self.gso_fallbacks.load(Ordering::Relaxed)
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    pub(super) fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<()> {
        let socket = UdpSockRef::from(&self.socket);
        batch.fill(|buffers, meta| match &self.state {
            Some(state) => self.socket.try_io(Interest::READABLE, || state.recv(socket, buffers, meta)),
            None => {
                let (len, from) = self.socket.try_recv_from(&mut buffers[0])?;
                (meta[0].addr, meta[0].len, meta[0].stride, meta[0].dst_ip) = (from, len, len, None);
                Ok(1)
            }
        })
    }

    pub(super) async fn send(&self, outgoing: &Outgoing<'_>) -> io::Result<()> {
        let mut rest = *outgoing;
        loop {
            match self.send_some(&mut rest, Self::send_when_ready) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                result => return result,
            }
        }
    }

    pub(super) fn try_send(&self, outgoing: &Outgoing<'_>) -> io::Result<()> {
        // The runtime does not know yet that a socket opened a moment ago can send; the system does.
        self.send_some(&mut { *outgoing }, Self::send_now)
    }

    /// Sends from the front of `rest` until it is empty or an error occurs; what was sent is gone from it.
    fn send_some(
        &self,
        rest: &mut Outgoing<'_>,
        send: impl Fn(&Self, &Outgoing<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            let most = self.segments_at_once() * rest.segment.max(1);
            let (now, later) = rest.bytes.split_at(most.min(rest.bytes.len()));
            match send(self, &Outgoing { bytes: now, ..*rest }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
                // The network adapter refused segmentation: once more, one by one.
                Err(error) if most > self.segments_at_once() * rest.segment.max(1) => {
                    self.on_gso_refused(&error);
                    continue;
                }
                Err(error) => result = Err(error),
                Ok(()) => {}
            }
            rest.bytes = later;
            if later.is_empty() {
                return result;
            }
        }
    }

    pub(super) fn on_gso_refused(&self, error: &io::Error) {
        tracing::debug!(port = self.port, reason = %error, "segmentation offload was refused; sending datagrams one by one");
        self.gso_fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    fn segments_at_once(&self) -> usize {
        self.state.as_ref().map_or(1, UdpSocketState::max_gso_segments).max(1)
    }

    /// Remembers that the buffer is full, so that one can wait until it no longer is.
    fn send_when_ready(&self, burst: &Outgoing<'_>) -> io::Result<()> {
        if self.state.is_none() {
            return self.send_now(burst);
        }
        self.socket.try_io(Interest::WRITABLE, || self.send_now(burst))
    }

    fn send_now(&self, burst: &Outgoing<'_>) -> io::Result<()> {
        let Some(state) = &self.state else {
            return self.socket.try_send_to(burst.bytes, burst.to).map(|_| ());
        };
        let transmit = Transmit {
            destination: burst.to,
            ecn: None,
            contents: burst.bytes,
            segment_size: (burst.bytes.len() > burst.segment).then_some(burst.segment),
            src_ip: burst.from,
        };
        state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// Larger buffers bridge the moments in which the engine is not scheduled. A privileged process may exceed the
/// system's limit; any other gets what the limit allows.
fn enlarge_buffers(socket: &Socket) {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::socket::{
            setsockopt,
            sockopt::{RcvBufForce, SndBufForce},
        };
        let forced =
            setsockopt(socket, RcvBufForce, &BUFFER_SIZE).and(setsockopt(socket, SndBufForce, &BUFFER_SIZE));
        if forced.is_ok() {
            return;
        }
    }
    for result in [socket.set_recv_buffer_size(BUFFER_SIZE), socket.set_send_buffer_size(BUFFER_SIZE)] {
        if let Err(error) = result {
            tracing::debug!(%error, "the socket keeps its default buffer");
        }
    }
}
