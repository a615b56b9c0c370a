//! Everything that enters and leaves the node besides packets and commands.
//!
//! An [`Output`] asks the engine to do something; the variant says by which `handle_*` method of [`Node`](crate::Node)
//! the engine reports the result. The `*Input` types and [`PortMappingReport`] carry those results.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use partyline_model::{
    AddressScope, AppError, CardKind, Method, PartyId, RouteTarget, RouterCheck, SocketId, StreamId,
    is_public,
};
use partyline_netcheck::PeerMapping;

/// Identifies the connection to a rendezvous server. The node assigns an id when it first needs a server and keeps it
/// across reconnections, until no party uses the server any more. Ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u32);

/// Identifies a command whose answer comes as [`Output::Answer`]. The engine chooses it.
pub type RequestId = u64;

/// Something for the engine to do, besides sending and delivering packets ([`crate::Egress`]).
#[derive(Debug)]
pub enum Output {
    /// Open fresh UDP sockets on ports that the system chooses, in place of open ones with the same ids, and report them
    /// with [`crate::Node::handle_sockets_opened`]. Probe sockets of the network check ([`SocketId::is_probe`]) are for
    /// IPv4 and IPv6, all others for IPv4 alone.
    OpenSockets {
        /// The ids of the sockets to open.
        ids: Vec<SocketId>,
    },
    /// Close a UDP socket that [`Self::OpenSockets`] asked for.
    CloseSocket {
        /// The id of the socket to close.
        id: SocketId,
    },
    /// Count an attempt to reach a member in the metrics; nothing else is to be done.
    PathAttempted {
        /// The connection method that was tried.
        method: Method,
        /// True if the method found a path that was validated end to end, false if it was given up.
        succeeded: bool,
        /// The time from the start of the attempt until its outcome was known.
        took: Duration,
    },
    /// Create the party's network device, or change the one there is to this configuration, and report the result with
    /// [`crate::Node::handle_device`].
    DeviceUp {
        /// The party that the device belongs to.
        party: PartyId,
        /// The addresses and MTU of the device.
        device: DeviceConfig,
    },
    /// Remove the party's network device, if it exists.
    DeviceDown {
        /// The party that the device belongs to.
        party: PartyId,
    },
    /// Open a WebSocket to a rendezvous server (RFC 6455) and report what happens to it with
    /// [`crate::Node::handle_server`].
    ServerOpen {
        /// The id under which the connection is reported and addressed.
        id: ServerId,
        /// The server's URL, `wss://host[:port]` or `ws://host[:port]`.
        url: String,
        /// The addresses at which it may be contacted, whatever its name is resolved to.
        scope: AddressScope,
    },
    /// Send a frame as one binary message to a rendezvous server. It is dropped if the connection is gone.
    ServerSend {
        /// The connection to send on.
        id: ServerId,
        /// The encoded frame ([`partyline_wire::rendezvous::ClientFrame`]).
        frame: Vec<u8>,
    },
    /// Close the connection to a rendezvous server, or give up opening it, and report [`ServerInput::Closed`].
    ServerClose {
        /// The connection to close.
        id: ServerId,
    },
    /// Open a byte stream to a relay (RFC 8656, section 3.1) and report what happens to it with
    /// [`crate::Node::handle_stream`].
    StreamOpen {
        /// The id under which the stream is reported and addressed.
        id: StreamId,
        /// True for TLS over TCP, false for plain TCP.
        tls: bool,
        /// The relay's transport address.
        address: SocketAddr,
        /// The name that the relay's certificate must be valid for; unused without TLS.
        host: String,
    },
    /// Close a stream to a relay. Its end need not be reported.
    StreamClose {
        /// The stream to close.
        id: StreamId,
    },
    /// Look up a host and report its addresses, or that there are none, with [`crate::Node::handle_resolved`]. It is
    /// asked again every minute, and more often while the server at that name does not answer.
    Resolve {
        /// The host name, or a literal IP address.
        host: String,
        /// The port, which is not looked up but reported along with the addresses.
        port: u16,
    },
    /// Ask one of these rendezvous servers for its time, the first that answers, and report it, or that none answered, with
    /// [`crate::Node::handle_server_time`].
    AskTime {
        /// The command that waits for it.
        request: RequestId,
        /// The URLs of the servers, each with the addresses at which it may be contacted.
        servers: Vec<(String, AddressScope)>,
    },
    /// Try to open TCP connections to this address and to port 443 of the same host. If either succeeds, report the
    /// host with [`crate::Node::handle_reached`]: it shows that a silent STUN server is up and UDP is blocked.
    Reach {
        /// The transport address of the STUN server that did not respond.
        address: SocketAddr,
    },
    /// Ask the router to keep the main socket's mappings for the flows to these servers (PCP PEER, RFC 6887, section 12)
    /// where it maps no ports. The list replaces the last one; it has at most one server of each address family.
    KeepaliveServers {
        /// The servers to which the main socket sends its keepalives.
        servers: Vec<SocketAddr>,
    },
    /// Send a LAN beacon.
    Beacon {
        /// The neighbor to send it to; `None` to multicast it on every interface.
        to: Option<SocketAddr>,
        /// The whole beacon ([`partyline_wire::beacon`]).
        bytes: Vec<u8>,
    },
    /// Write the state ([`crate::Node::save`]) to disk. It has to be written before an [`Self::Answer`] that follows is
    /// delivered; otherwise it may be delayed.
    Save,
    /// Deliver the answer to a command.
    Answer {
        /// The command that is answered.
        request: RequestId,
        /// The reply, or the error to show to the user.
        result: Box<Result<partyline_model::Reply, AppError>>,
    },
    /// Shut down: devices and connections have been closed, and nothing else will follow.
    Stopped,
}

/// The configuration of a party's network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// This device's virtual IPv4 address, with the prefix length of the party's range.
    pub v4: Ipv4Net,
    /// This device's virtual IPv6 address, with the prefix length of the party's network, 64.
    pub v6: Ipv6Net,
    /// The MTU of the network device in bytes.
    pub mtu: u16,
}

/// What happened to the connection with a rendezvous server.
#[derive(Debug)]
pub enum ServerInput {
    /// The WebSocket is open.
    Opened,
    /// A binary message arrived.
    Frame(Vec<u8>),
    /// The WebSocket could not be opened, or was closed by either side. The error is shown to the user; `None` keeps
    /// the one that is shown.
    Closed(Option<AppError>),
}

/// What happened to a stream to a relay.
#[derive(Debug)]
pub enum StreamInput {
    /// The stream is open, its TLS handshake included.
    Opened,
    /// Bytes arrived, cut anywhere.
    Data(Vec<u8>),
    /// The stream could not be opened, or was closed by the relay.
    Closed,
}

impl LocalNetwork {
    /// Returns true if this computer has an IPv4 address to send from.
    pub(crate) fn has_v4(&self) -> bool {
        self.addresses.iter().any(|host| host.address.is_ipv4())
    }

    /// Returns true if this computer has a public IPv6 address to send from.
    pub(crate) fn has_v6(&self) -> bool {
        self.addresses.iter().any(|host| host.address.is_ipv6() && is_public(host.address))
    }
}

/// The result of [`Output::DeviceUp`].
#[derive(Debug)]
pub enum DeviceInput {
    /// The network device is up. The value is the name that the system shows for it.
    Up(String),
    /// The network device could not be created or configured.
    Failed(AppError),
}

/// An address of one of the computer's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// What stands behind the interface.
    pub card: CardKind,
    /// True for an address that new connections should not use (RFC 4862, section 5.5.4).
    pub deprecated: bool,
}

/// An ordinary address on hardware.
impl From<IpAddr> for HostAddress {
    fn from(address: IpAddr) -> Self {
        Self { address, card: CardKind::Physical, deprecated: false }
    }
}

/// The computer's own network, as the operating system lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalNetwork {
    /// The addresses at which other computers may reach this one: no loopback, no link-local addresses, none of the
    /// parties' own devices.
    pub addresses: Vec<HostAddress>,
    /// What the networks beside the default route are reached by. The longest prefix counts.
    pub routes: Vec<(IpNet, RouteTarget)>,
    /// The prefixes that are on link, by which clashes with a party's range are found.
    pub prefixes: Vec<IpNet>,
    /// The destinations of routes, for the same purpose. Routes through the parties' own devices are not among them.
    pub routed: Vec<IpNet>,
    /// The default routers.
    pub routers: Vec<IpAddr>,
    /// The port of the main socket over IPv4; `None` without IPv4.
    pub port_v4: Option<u16>,
    /// The port of the main socket over IPv6; `None` without IPv6.
    pub port_v6: Option<u16>,
}

/// Everything that the router's port mapping protocols (UPnP IGD, NAT-PMP, PCP) say at present. A report replaces the
/// one before; the default one says that there is no router to ask.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortMappingReport {
    /// The external addresses of the main socket's mappings, best first.
    pub mapped: Vec<SocketAddr>,
    /// The outcome of each protocol, for the network report.
    pub protocols: Vec<RouterCheck>,
    /// What the router guarantees about the flows to [`Output::KeepaliveServers`].
    pub peer_mappings: Vec<PeerMapping>,
}
