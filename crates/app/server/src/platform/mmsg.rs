//! Linux: many datagrams with one system call, `recvmmsg` and `sendmmsg`.

use std::{
    io::IoSlice,
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, RawFd},
};

use mio::net::UdpSocket;
use nix::{
    errno::Errno,
    sys::socket::{
        MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, recvmmsg, sendmmsg,
    },
};

use super::types::{Arrival, Room};

/// The message headers of both calls, allocated once.
pub(crate) struct Batches {
    // One per family, because the kernel shortens the room for the address to what it wrote last.
    headers_v4: MultiHeaders<SockaddrIn>,
    headers_v6: MultiHeaders<SockaddrIn6>,
    send_headers: MultiHeaders<SockaddrStorage>,
}

impl Batches {
    /// Allocates headers for as many datagrams at once.
    pub(crate) fn new(receive: usize, send: usize) -> Self {
        Self {
            headers_v4: MultiHeaders::preallocate(receive, None),
            headers_v6: MultiHeaders::preallocate(receive, None),
            send_headers: MultiHeaders::preallocate(send, None),
        }
    }

    /// Receives without waiting into the rooms in order, passes each arrival to `take`, and returns the number of datagrams.
    /// Fewer than there are rooms means that the socket is empty.
    pub(crate) fn receive<'a>(
        &'a mut self,
        socket: &UdpSocket,
        v6: bool,
        rooms: &'a mut [Room<'a>],
        take: impl FnMut(Arrival),
    ) -> usize {
        let socket = socket.as_raw_fd();
        if v6 {
            receive(socket, &mut self.headers_v6, rooms, take)
        } else {
            receive(socket, &mut self.headers_v4, rooms, take)
        }
    }

    /// Sends without waiting; returns the number of datagrams the socket did not accept.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        datagrams: impl ExactSizeIterator<Item = (SocketAddr, &'a [u8])>,
    ) -> u64 {
        let (addresses, slices): (Vec<_>, Vec<_>) =
            datagrams.map(|(to, bytes)| (Some(SockaddrStorage::from(to)), [IoSlice::new(bytes)])).unzip();
        let (mut at, mut lost) = (0, 0);
        while at < slices.len() {
            let sent = sendmmsg(
                socket.as_raw_fd(),
                &mut self.send_headers,
                &slices[at..],
                &addresses[at..],
                [],
                MsgFlags::MSG_DONTWAIT,
            );
            match sent.map(Iterator::count) {
                Ok(count) if count > 0 => at += count,
                Err(Errno::EINTR) => {}
                // The socket's buffer is full; a relay drops packets rather than wait.
                Err(Errno::EAGAIN) => return lost + (slices.len() - at) as u64,
                // This one cannot be sent, for example because there is no route; the others may.
                _ => (at, lost) = (at + 1, lost + 1),
            }
        }
        lost
    }
}

/// A socket address as the kernel writes it.
trait Peer: SockaddrLike + Copy {
    fn address(self) -> SocketAddr;
}

impl Peer for SockaddrIn {
    fn address(self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::from(self))
    }
}

impl Peer for SockaddrIn6 {
    fn address(self) -> SocketAddr {
        SocketAddr::V6(SocketAddrV6::from(self))
    }
}

fn receive<'a, S: Peer>(
    socket: RawFd,
    headers: &'a mut MultiHeaders<S>,
    rooms: &'a mut [Room<'a>],
    mut take: impl FnMut(Arrival),
) -> usize {
    let Ok(messages) = recvmmsg(socket, headers, rooms.iter_mut(), MsgFlags::MSG_DONTWAIT, None) else {
        return 0;
    };
    let mut count = 0;
    for message in messages {
        take(Arrival { index: count, length: message.bytes, from: message.address.map(Peer::address) });
        count += 1;
    }
    count
}
