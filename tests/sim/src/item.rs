//! What is on its way besides datagrams and stream data.

use std::net::{IpAddr, SocketAddr};

use partyline_node::{ServerId, StreamId};
use partyline_rendezvous::ConnectionId;

/// An event of the future. The first field names the member that it concerns, by its number.
pub(crate) enum Item {
    /// A beacon reaches a member on the same LAN.
    Beacon { to: usize, from: SocketAddr, bytes: Vec<u8> },
    /// A member's connection reaches the rendezvous server.
    Connect(usize, ServerId),
    /// A frame reaches the rendezvous server.
    ToServer(usize, ConnectionId, Vec<u8>),
    /// The rendezvous server learns that a member has closed its connection.
    HangUp(ConnectionId),
    /// A frame reaches a member.
    ToMember(usize, ServerId, ConnectionId, Vec<u8>),
    /// A member learns that its connection is closed, or could not be opened.
    Closed(usize, ServerId, Option<ConnectionId>),
    /// A member's stream reaches the relay.
    OpenStream(usize, StreamId),
    /// A member learns that a server accepts TCP connections.
    Reached(usize, IpAddr),
    /// A member's router has mapped its ports.
    Mapped(usize),
    /// A member's state has to be written to its disk.
    Save(usize),
}
