//! What goes into the path machine and what comes out of it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    time::Duration,
};

use partyline_model::{Attempt, Candidate, Method, Methods, NatProfile, PathKind, Quality};
pub use partyline_model::{SocketId, StreamId};
use partyline_wire::{datagram, probe::Tag};

/// A peer, numbered by the caller: one device in one party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// What a datagram leaves or came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Local {
    /// A UDP socket.
    Socket(SocketId),
    /// A stream to a TURN server, one message at a time (see [`datagram::Deframer`]).
    Stream(StreamId),
    /// Another member, which passes on what is not for it.
    Member(MemberRelay),
}

/// The way to a peer through another one. The caller wraps what leaves by it and hands in what comes by it; addresses
/// mean nothing on it and are [`MemberRelay::ADDRESS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberRelay {
    /// The peer that passes on.
    pub through: PeerId,
    /// The peer at the far end.
    pub to: PeerId,
}

impl MemberRelay {
    /// What stands where other paths have an address.
    pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

    /// The path that leads through it.
    #[must_use]
    pub const fn path(self) -> Path {
        Path { via: Via::Member(self), remote: Self::ADDRESS }
    }
}

/// An allocation at a relay, numbered by the machine and never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllocationId(pub u32);

/// The near end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Straight out of a UDP socket.
    Socket(SocketId),
    /// Through an allocation of ours.
    Relay(AllocationId),
    /// Through another member.
    Member(MemberRelay),
}

/// A path: near end, and the address it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The near end.
    pub via: Via,
    /// The far end as our packets are addressed; a relayed address of the peer's if it uses its relay.
    pub remote: SocketAddr,
}

/// What the machine is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether direct paths are tried.
    pub direct: bool,
    /// Whether relays are used.
    pub relay: bool,
    /// Which ways of connecting are tried.
    pub methods: Methods,
    /// How long a new direct path is tried before it counts as failed and is retried with growing pauses.
    pub direct_timeout: Duration,
    /// The gap between two checks once a burst of 16 is used up, over all peers.
    pub pace: Duration,
    /// How long a path may be silent before it is kept alive; at least a second.
    pub keepalive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            direct: true,
            relay: true,
            methods: Methods::default(),
            direct_timeout: Duration::from_secs(5),
            pace: Duration::from_millis(5),
            keepalive: Duration::from_secs(15),
        }
    }
}

/// How a TURN server is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RelayTransport {
    /// From the shared UDP socket.
    Udp,
    /// Over TCP.
    Tcp,
    /// Over TLS.
    Tls,
}

/// One way of reaching one relay. Ways with the same name lead to the same relay.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayServer {
    /// What people call it; also its identity among the servers.
    pub name: String,
    /// The way of reaching it.
    pub transport: RelayTransport,
    /// Its address, resolved.
    pub address: SocketAddr,
    /// Its host name, for TLS.
    pub host: String,
    /// User name of the long-term credentials.
    pub username: String,
    /// Password of the long-term credentials.
    pub password: String,
}

impl std::fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayServer({} over {:?} at {})", self.name, self.transport, self.address)
    }
}

/// What is known about a peer. Saying it again with other candidates adds and removes paths; another key starts afresh.
#[derive(Clone)]
pub struct PeerParams {
    /// The key both derived for this run.
    pub probe_key: [u8; 32],
    /// The tag we answer to.
    pub local_tag: Tag,
    /// The peer's.
    pub remote_tag: Tag,
    /// Whether our choice of path binds both; true on exactly one side.
    pub controlling: bool,
    /// What the peer says its NAT does.
    pub nat: NatProfile,
    /// Where the peer says it is; the first [`crate::MAX_REMOTE_CANDIDATES`] count.
    pub candidates: Vec<Candidate>,
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// It was the machine's own business, or was dropped and counted.
    Consumed,
    /// A tunnel message. Once the tunnel has authenticated it, say so with [`crate::Paths::on_authenticated`].
    Tunnel {
        /// Where in the datagram the tunnel message lies.
        payload: Range<usize>,
        /// The path it came by.
        path: Path,
    },
    /// Not for this machine: perhaps an answer to a STUN query of someone else's.
    Foreign,
}

/// One way out: prepend the header if there is one, and send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// By what it leaves.
    pub local: Local,
    /// Where to: the peer, or the relay server.
    pub destination: SocketAddr,
    /// The TURN channel to the peer, if relayed.
    pub channel: Option<u16>,
}

impl Hop {
    /// The bytes to put in front of a tunnel message of `len` bytes, if any.
    #[must_use]
    pub fn header(&self, len: usize) -> Option<[u8; datagram::CHANNEL_HEADER]> {
        self.channel.map(|channel| datagram::channel_header(channel, len))
    }

    /// Zero bytes to append to a tunnel message of `len` bytes.
    #[must_use]
    pub const fn padding(&self, len: usize) -> usize {
        match (self.local, self.channel) {
            (Local::Stream(_), Some(_)) => datagram::stream_padding(len),
            _ => 0,
        }
    }
}

/// Where tunnel messages for a peer go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The path in use.
    pub primary: Hop,
    /// While the path in use is suspect: the next best one, to be sent on as well.
    pub secondary: Option<Hop>,
}

/// A datagram or stream message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// By what it leaves.
    pub local: Local,
    /// Where to; for a stream its server.
    pub destination: SocketAddr,
    /// What to send, complete with headers and padding.
    pub bytes: Vec<u8>,
}

/// What the caller should know or do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All candidates to announce, those given included, as they changed.
    LocalCandidates(Vec<Candidate>),
    /// A relay that had forgotten us sees us at another address than before: the router has another one, or has lost
    /// its table. If that is news to the caller, what it knows of the network is out of date.
    PublicAddressChanged,
    /// Another path carries the peer's packets now, or none does; or the one that does was only heard on, and is proven
    /// by an answer now.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// What carries it.
        kind: Option<PathKind>,
        /// The path.
        path: Option<Path>,
    },
    /// A check of the path in use was answered, or will not be any more.
    Sampled {
        /// Whose path.
        peer: PeerId,
        /// The round trip; `None` if there was no answer.
        rtt: Option<Duration>,
        /// What carries the peer's packets.
        kind: PathKind,
    },
    /// A way of reaching a peer was tried.
    Attempted {
        /// How.
        method: Method,
        /// Whether packets can go that way.
        succeeded: bool,
        /// How long it took to work, or to be given up.
        took: Duration,
    },
    /// Connect to a TURN server, then say [`crate::Paths::stream_opened`] or [`crate::Paths::stream_closed`].
    OpenStream {
        /// The stream's number.
        stream: StreamId,
        /// TCP or TLS.
        transport: RelayTransport,
        /// Where to.
        address: SocketAddr,
        /// The name to verify in the certificate.
        host: String,
    },
    /// The stream is no longer needed.
    CloseStream(StreamId),
    /// Open UDP sockets for IPv4 on ports that the system chooses, then say [`crate::Paths::sockets_opened`]. Numbers
    /// of closed sockets are used again.
    OpenSockets(Vec<SocketId>),
    /// The socket is no longer needed.
    CloseSocket(SocketId),
    /// Carry these bytes to the peer, sealed, by every channel there is; there they go into
    /// [`crate::Paths::handle_signal`].
    Signal {
        /// To whom.
        peer: PeerId,
        /// What.
        bytes: Vec<u8>,
    },
}

/// What the user may see of a peer's paths.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// What carries its packets.
    pub kind: Option<PathKind>,
    /// The far end of it.
    pub remote: Option<SocketAddr>,
    /// The relay's name, if it is one of ours.
    pub relay: Option<String>,
    /// The peer that passes the packets on, if one does.
    pub through: Option<PeerId>,
    /// How long this path has been in use.
    pub age: Duration,
    /// How good it is.
    pub quality: Quality,
    /// What was tried, best first.
    pub attempts: Vec<Attempt>,
    /// Earlier paths and how long ago each began, oldest first, at most 32.
    pub history: Vec<(Duration, Option<PathKind>)>,
}

/// Datagrams dropped, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Neither STUN, ChannelData nor WireGuard.
    pub unknown: u64,
    /// Probes that name a known pair of tags but fail authentication.
    pub forged: u64,
    /// Authentic probes seen before.
    pub replayed: u64,
    /// Answers to nothing that was asked, or from elsewhere than what was asked.
    pub stray: u64,
    /// ChannelData and indications from no relay or channel of ours.
    pub unrelayed: u64,
    /// Signals that are not in their form.
    pub malformed: u64,
}
