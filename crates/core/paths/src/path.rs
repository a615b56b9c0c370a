//! How paths are named, and what a packet needs to leave along one.
//!
//! A [`Path`] is the near end of a candidate pair (RFC 8445, section 6.1.2) and the address its far end is reached at.
//! All candidates of this computer that share a socket have the same base, so the near end is a socket, an allocation
//! at a TURN server, or another member. A [`Hop`] is the same path as bytes on the network need it: which socket or
//! stream, which destination, and which TURN channel header.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use partyline_model::{SocketId, StreamId};
use partyline_wire::datagram;

/// A peer, numbered by the caller: one device in one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An allocation at a relay server. [`crate::Paths`] assigns the numbers and never reuses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationId(pub u32);

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a datagram leaves by or has arrived by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Local {
    /// A UDP socket.
    Socket(SocketId),
    /// A stream to a TURN server, which carries one message at a time (see [`datagram::Deframer`]).
    Stream(StreamId),
    /// Another member, which forwards what is not addressed to itself.
    Member(MemberRelay),
}

/// A path to a peer through another member.
///
/// The caller wraps what leaves by it and unwraps what arrives by it. Socket addresses mean nothing on such a path;
/// [`MemberRelay::ADDRESS`] stands in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberRelay {
    /// The member that forwards.
    pub through: PeerId,
    /// The peer at the far end.
    pub to: PeerId,
}

impl MemberRelay {
    /// The remote address of every path through a member.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    /// Returns the path that leads through this member.
    #[must_use]
    pub const fn path(self) -> Path {
        Path { via: Via::Member(self), remote: Self::ADDRESS }
    }
}

/// The near end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// A UDP socket of this computer.
    Socket(SocketId),
    /// An allocation of ours at a relay server.
    Relay(AllocationId),
    /// Another member.
    Member(MemberRelay),
}

/// A path to a peer: its near end, and the address at its far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The near end.
    pub via: Via,
    /// The address our packets are sent to: the peer's own, or its relayed address.
    pub remote: SocketAddr,
}

impl Path {
    /// Returns false if packets that arrived by this path cannot come from `peer`.
    pub(crate) fn leads_to(&self, peer: PeerId) -> bool {
        !matches!(self.via, Via::Member(MemberRelay { to, .. }) if to != peer)
    }

    /// Returns the member that forwards on this path, if one does.
    pub(crate) const fn through(&self) -> Option<PeerId> {
        match self.via {
            Via::Member(relay) => Some(relay.through),
            Via::Socket(_) | Via::Relay(_) => None,
        }
    }

    /// Returns true if the path leaves by a socket that was opened for punching.
    pub(crate) fn uses_punch_socket(&self) -> bool {
        matches!(self.via, Via::Socket(id) if id != SocketId::MAIN)
    }

    /// Returns true if both paths have the same near end and lead to the same host, whatever its port.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.via == other.via && self.remote.ip() == other.remote.ip()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.via {
            Via::Socket(id) => write!(f, "socket {} to {}", id.0, self.remote),
            Via::Relay(id) => write!(f, "allocation {id} to {}", self.remote),
            Via::Member(relay) => write!(f, "through member {}", relay.through),
        }
    }
}

/// How one packet leaves: prepend the header if there is one, and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// The socket, stream or member it leaves by.
    pub local: Local,
    /// The peer's address, or the relay server's.
    pub destination: SocketAddr,
    /// The TURN channel bound to the peer, if the packet goes through a relay server (RFC 8656, section 12).
    pub channel: Option<u16>,
}

impl Hop {
    /// Returns the ChannelData header to put in front of a message of `len` bytes, if one is needed.
    #[must_use]
    pub fn header(&self, len: usize) -> Option<[u8; datagram::CHANNEL_HEADER]> {
        self.channel.map(|channel| datagram::channel_header(channel, len))
    }

    /// Returns how many zero bytes to append to a message of `len` bytes; over streams ChannelData is padded to
    /// four bytes (RFC 8656, section 12.5).
    #[must_use]
    pub const fn padding(&self, len: usize) -> usize {
        match (self.local, self.channel) {
            (Local::Stream(_), Some(_)) => datagram::stream_padding(len),
            _ => 0,
        }
    }
}

/// Where tunnel messages for a peer go at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The path in use.
    pub primary: Hop,
    /// While the path in use is suspect: the next best one, on which each message is sent as well.
    pub secondary: Option<Hop>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_data_is_padded_on_streams_only() {
        let hop = |local, channel| Hop { local, destination: MemberRelay::ADDRESS, channel };
        let stream = Local::Stream(StreamId(1));
        assert_eq!(hop(stream, Some(0x4000)).padding(5), 3);
        assert_eq!(hop(stream, None).padding(5), 0);
        assert_eq!(hop(Local::Socket(SocketId::MAIN), Some(0x4000)).padding(5), 0);
        assert_eq!(hop(stream, Some(0x4001)).header(5), Some([0x40, 0x01, 0, 5]));
    }

    #[test]
    fn a_member_relay_leads_to_one_peer_and_a_socket_to_any() {
        let path = MemberRelay { through: PeerId(1), to: PeerId(2) }.path();
        assert!(path.leads_to(PeerId(2)) && !path.leads_to(PeerId(1)));
        let path = Path { via: Via::Socket(SocketId::MAIN), remote: MemberRelay::ADDRESS };
        assert!(path.leads_to(PeerId(1)) && !path.uses_punch_socket());
    }
}
