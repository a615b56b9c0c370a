//! What goes into the path machine and what comes out of it.

use std::{net::SocketAddr, ops::Range, time::Duration};

use partyline_model::{
    Attempt, Candidate, Method, Methods, NatProfile, PathKind, Quality, SharedNat, SocketId, StreamId,
};
use partyline_wire::probe::Tag;

use crate::path::{Local, Path, PeerId};

/// How many candidates of one peer are considered; further ones are ignored.
pub const MAX_REMOTE_CANDIDATES: usize = 32;

/// What the machine may try, and its intervals.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whether direct paths are tried.
    pub direct: bool,
    /// Whether relay servers are used.
    pub relay: bool,
    /// The methods that are tried. Those of direct paths count only if `direct` is on.
    pub methods: Methods,
    /// How long a new candidate pair is checked before it counts as failed and is retried with growing pauses; also how
    /// long a peer is known before members are asked to relay to it.
    pub direct_timeout: Duration,
    /// The gap between two checks once a burst of 16 is used up, over all peers. Checks that only measure a working
    /// path have a pace of their own with twice the gap.
    pub pace: Duration,
    /// How long a path may be silent before a check keeps its NAT mappings alive; at least one second.
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
    /// From the main UDP socket.
    Udp,
    /// Over TCP.
    Tcp,
    /// Over TLS.
    Tls,
}

impl RelayTransport {
    /// Returns the method under which relayed paths over this transport are reported.
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Udp => Method::RelayUdp,
            Self::Tcp => Method::RelayTcp,
            Self::Tls => Method::RelayTls,
        }
    }
}

/// One transport address of a relay server. Entries of the same name lead to the same relay.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayServer {
    /// The name shown to the user; also the relay's identity.
    pub name: String,
    /// The transport this entry uses.
    pub transport: RelayTransport,
    /// The resolved address.
    pub address: SocketAddr,
    /// The host name, verified in the certificate for TLS.
    pub host: String,
    /// User name of the long-term credentials (RFC 8489, section 9.2).
    pub username: String,
    /// Password of the long-term credentials.
    pub password: String,
}

impl std::fmt::Debug for RelayServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayServer({} over {:?} at {})", self.name, self.transport, self.address)
    }
}

/// What is known about a peer.
///
/// Passing other candidates adds and removes paths; passing another key or other tags discards the peer's state.
#[derive(Clone)]
pub struct PeerParams {
    /// The key that both members derived for checks; a restart of either one's program changes it.
    pub probe_key: [u8; 32],
    /// The tag that names us in connectivity checks.
    pub local_tag: Tag,
    /// The tag that names the peer.
    pub remote_tag: Tag,
    /// Whether this side nominates (RFC 8445, section 2.3); true on exactly one of the two.
    pub controlling: bool,
    /// The NAT behavior that the peer reports.
    pub nat: NatProfile,
    /// The peer's candidates; the first [`MAX_REMOTE_CANDIDATES`] count.
    pub candidates: Vec<Candidate>,
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handled {
    /// The machine processed it, or dropped and counted it.
    Consumed,
    /// A tunnel message. Once the tunnel has authenticated it, call [`crate::Paths::on_authenticated`].
    Tunnel {
        /// Where in the datagram the tunnel message lies.
        payload: Range<usize>,
        /// The path it arrived by.
        path: Path,
    },
    /// Not for this machine; it may answer a STUN request that the caller sent itself.
    Foreign,
}

/// A datagram or stream message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The socket, stream or member it leaves by.
    pub local: Local,
    /// The destination; for a stream its server's address.
    pub destination: SocketAddr,
    /// The complete bytes, headers and padding included.
    pub bytes: Vec<u8>,
}

/// What the caller must do or may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The candidates to announce have changed. The list is complete and includes those that the caller gathered.
    LocalCandidates(Vec<Candidate>),
    /// A relay server that had lost our allocation now sees another public address: the router has a new one, or
    /// lost its mappings. What the caller knows about the network is out of date.
    PublicAddressChanged,
    /// Another path carries the peer's packets, or none does; or a check has now validated the path in use.
    PathChanged {
        /// The peer.
        peer: PeerId,
        /// The kind of the new path.
        kind: Option<PathKind>,
        /// The new path.
        path: Option<Path>,
    },
    /// A check of the path in use was answered, or will not be answered any more.
    Sampled {
        /// The peer.
        peer: PeerId,
        /// The round trip time; `None` if the check was lost.
        rtt: Option<Duration>,
        /// The kind of the path in use.
        kind: PathKind,
    },
    /// A method of reaching a peer succeeded, or was given up for now.
    Attempted {
        /// The method.
        method: Method,
        /// Whether packets can take a path found by it.
        succeeded: bool,
        /// The time to this outcome, from the first check or from the start of the punch attempt.
        took: Duration,
    },
    /// Connect to a TURN server, then call [`crate::Paths::stream_opened`] or [`crate::Paths::stream_closed`].
    OpenStream {
        /// The stream's number.
        stream: StreamId,
        /// TCP or TLS.
        transport: RelayTransport,
        /// The server's address.
        address: SocketAddr,
        /// The name to verify in the certificate.
        host: String,
    },
    /// Close the stream; it is no longer needed.
    CloseStream(StreamId),
    /// Open IPv4 UDP sockets on ports that the system chooses, then call [`crate::Paths::sockets_opened`]. Numbers
    /// of closed sockets are reused.
    OpenSockets(Vec<SocketId>),
    /// Close the socket; it is no longer needed.
    CloseSocket(SocketId),
    /// This network's router accepts no more new flows. Sprays have stopped, and from now on create at most so many
    /// here. The caller remembers it for [`crate::Paths::set_spray_limit`].
    RouterFull {
        /// Bounds the flows of sprays in this network.
        spray_limit: u32,
    },
    /// Carry these bytes to the peer, sealed, over every signaling channel; the peer passes them to
    /// [`crate::Paths::handle_signal`].
    Signal {
        /// The recipient.
        peer: PeerId,
        /// The encoded [`partyline_wire::punch::Signal`].
        bytes: Vec<u8>,
    },
}

/// What the user may see of a peer's paths.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerView {
    /// The kind of the path in use.
    pub kind: Option<PathKind>,
    /// The address its packets are sent to first.
    pub remote: Option<SocketAddr>,
    /// The relay server's name, if the path uses an allocation of ours.
    pub relay: Option<String>,
    /// The member that forwards, if one does.
    pub through: Option<PeerId>,
    /// How long this path has been in use.
    pub age: Duration,
    /// Its measured quality.
    pub quality: Quality,
    /// What was tried by each method and with what result, best method first.
    pub attempts: Vec<Attempt>,
    /// The kinds of the paths used so far (`None`: no path) and how long ago each was selected, oldest first and the
    /// present one last; at most 32.
    pub history: Vec<(Duration, Option<PathKind>)>,
    /// The NAT that both members are behind, if no direct path was found because it does not hairpin (RFC 4787,
    /// section 6).
    pub no_hairpin: Option<SharedNat>,
}
