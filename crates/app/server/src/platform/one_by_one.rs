//! One call for each datagram: what every system has. It relays the same, only fewer packets per second.

use std::{io::ErrorKind, net::SocketAddr};

use mio::net::UdpSocket;

use super::{Arrival, Room};

/// Nothing has to be kept from call to call.
pub(crate) struct Batches;

impl Batches {
    /// For as many datagrams as are given.
    pub(crate) const fn new(_: usize, _: usize) -> Self {
        Self
    }

    /// Fills the rooms in order and returns how many were filled; fewer than there are means that the socket is empty.
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
                // Only this arms the poll again.
                Err(error) if error.kind() == ErrorKind::WouldBlock => return index,
                // Windows tells of a datagram too long for the room, and of an unreachable peer, in this way.
                Err(_) => take(Arrival { index, length: 0, from: None }),
            }
        }
        rooms.len()
    }

    /// Sends without waiting; returns how many datagrams the socket did not take.
    pub(crate) fn send<'a>(
        &mut self,
        socket: &UdpSocket,
        datagrams: impl ExactSizeIterator<Item = (SocketAddr, &'a [u8])>,
    ) -> u64 {
        datagrams.map(|(to, bytes)| u64::from(socket.send_to(bytes, to).is_err())).sum()
    }
}
