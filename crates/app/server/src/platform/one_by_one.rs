//! Systems without `recvmmsg`: one system call for each datagram, and so fewer packets per second.

use std::{io::ErrorKind, net::SocketAddr};

use mio::net::UdpSocket;

use super::types::{Arrival, Room};

/// Keeps nothing between calls.
pub(crate) struct Batches;

impl Batches {
    /// Does nothing, as there are no headers to allocate.
    pub(crate) const fn new(_: usize, _: usize) -> Self {
        Self
    }

    /// Receives without waiting into the rooms in order, passes each arrival to `take`, and returns the number of datagrams.
    /// Fewer than there are rooms means that the socket is empty.
    pub(crate) fn receive(
        &mut self,
        socket: &UdpSocket,
        _: bool,
        rooms: &mut [Room<'_>],
        mut take: impl FnMut(Arrival),
    ) -> usize {
        for (index, [room]) in rooms.iter_mut().enumerate() {
            match socket.recv_from(room) {
                Ok((length, from)) => take(Arrival { index, length, from: Some(from) }),
                // Only this result re-arms the poll.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return index,
                // Windows reports datagrams that are too long, and unreachable peers, as errors.
                Err(_) => take(Arrival { index, length: 0, from: None }),
            }
        }
        rooms.len()
    }

    /// Sends without waiting; returns the number of datagrams the socket did not accept.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        datagrams: impl ExactSizeIterator<Item = (SocketAddr, &'a [u8])>,
    ) -> u64 {
        datagrams.map(|(to, bytes)| u64::from(socket.send_to(bytes, to).is_err())).sum()
    }
}
