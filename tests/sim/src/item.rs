//! What is on its way besides datagrams and stream data.

use std::net::{IpAddr, SocketAddr};

use partyline_node::{ServerId, StreamId};

use crate::rendezvous::Connection;

/// An event of the future. The first field names the member that it concerns, by its number.
pub(crate) enum Item {
    /// A beacon reaches a member on the same LAN.
    Beacon { to: usize, from: SocketAddr, bytes: Vec<u8> },
    /// A member's attempt to connect, by its number, reaches the rendezvous server.
    Connect(usize, ServerId, u32),
    /// A member learns that this attempt has failed.
    Unreachable(usize, ServerId, u32),
    /// A frame reaches the rendezvous server.
    ToServer(usize, Connection, Vec<u8>),
    /// The rendezvous server learns that a member has closed its connection.
    HangUp(Connection),
    /// A frame reaches a member.
    ToMember(usize, ServerId, Connection, Vec<u8>),
    /// A member learns that its connection is closed, or was given up before it was open.
    Closed(usize, ServerId, Option<Connection>),
    /// A member's stream reaches the relay at this address, or where that was.
    OpenStream(usize, StreamId, IpAddr),
    /// A member learns that a server accepts TCP connections.
    Reached(usize, IpAddr),
    /// A member's router has mapped its ports.
    Mapped(usize),
    /// A member's state has to be written to its disk.
    Save(usize),
}
