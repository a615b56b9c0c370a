//! What goes in and out of the node besides packets.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use partyline_model::{AppError, Method, PartyId};
use partyline_paths::SocketId;

/// A rendezvous server the node talks to; stable while it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u32);

/// Names a command whose answer comes as [`Output::Answer`].
pub type RequestId = u64;

/// What the engine has to do besides sending ([`crate::Egress`]).
#[derive(Debug)]
pub enum Output {
    /// Open fresh UDP sockets on ports that the system chooses, in place of open ones with the same ids; answered by
    /// [`crate::Node::handle_sockets_opened`]. Probe sockets of the network check are for both address families, all
    /// others for IPv4.
    OpenSockets {
        /// The ids to open them under.
        ids: Vec<SocketId>,
    },
    /// Close one of those sockets.
    CloseSocket {
        /// The id it was opened under.
        id: SocketId,
    },
    /// A way of reaching a member was tried; for metrics.
    Tried {
        /// How.
        method: Method,
        /// Whether it works.
        worked: bool,
        /// How long that took to find out.
        took: Duration,
    },
    /// Make sure the party's device exists with these addresses; answered by `handle_device`.
    DeviceUp {
        /// Whose.
        party: PartyId,
        /// What it should be like.
        device: DeviceConfig,
    },
    /// Remove the party's device.
    DeviceDown {
        /// Whose.
        party: PartyId,
    },
    /// Connect to a rendezvous server; answered by `handle_server`.
    ServerOpen {
        /// Under which name.
        id: ServerId,
        /// `wss://…` or `ws://…`.
        url: String,
    },
    /// Send a binary frame to a rendezvous server.
    ServerSend {
        /// To which.
        id: ServerId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Close the connection to a rendezvous server.
    ServerClose {
        /// Which.
        id: ServerId,
    },
    /// Open a byte stream to a relay; answered by `handle_stream`.
    StreamOpen {
        /// Under which name.
        id: partyline_paths::StreamId,
        /// Over TLS.
        tls: bool,
        /// To where.
        address: SocketAddr,
        /// The name its certificate must have.
        host: String,
    },
    /// Close a stream.
    StreamClose {
        /// Which.
        id: partyline_paths::StreamId,
    },
    /// Look up a host name; answered by `handle_resolved`.
    Resolve {
        /// The name or literal address.
        host: String,
        /// The port to put beside the addresses.
        port: u16,
    },
    /// See whether anything answers over TCP at this address, or at its port 443; if so, `handle_reached` is to be told.
    Reach {
        /// Where.
        address: SocketAddr,
    },
    /// Send a LAN beacon: to the group on every interface, or to one neighbour.
    Beacon {
        /// To whom; `None` is everybody.
        to: Option<SocketAddr>,
        /// The beacon.
        bytes: Vec<u8>,
    },
    /// The state changed and must be written before what follows is done.
    Save,
    /// The answer to a command.
    Answer {
        /// To which.
        request: RequestId,
        /// What it is.
        result: Box<Result<partyline_model::Reply, AppError>>,
    },
    /// The node has said goodbye; the engine can end.
    Stopped,
}

/// A party's network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Own address and the party's range.
    pub v4: Ipv4Net,
    /// Own IPv6 address and the party's prefix.
    pub v6: Ipv6Net,
    /// In bytes.
    pub mtu: u16,
}

/// What became of a rendezvous connection.
#[derive(Debug)]
pub enum ServerInput {
    /// The WebSocket stands.
    Opened,
    /// A binary frame came.
    Frame(Vec<u8>),
    /// It could not be opened, or ended.
    Closed(Option<AppError>),
}

/// What became of a stream.
#[derive(Debug)]
pub enum StreamInput {
    /// It stands.
    Opened,
    /// Bytes came.
    Data(Vec<u8>),
    /// It could not be opened, or ended.
    Closed,
}

/// What became of a device.
#[derive(Debug)]
pub enum DeviceInput {
    /// It stands, under this name.
    Up(String),
    /// It could not be made.
    Failed(AppError),
}

/// The computer's own network, as the platform lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalNetwork {
    /// Addresses other computers may reach, without loopback and without the parties' own devices.
    pub addresses: Vec<IpAddr>,
    /// On-link prefixes, for finding collisions.
    pub prefixes: Vec<IpNet>,
    /// Default routers.
    pub routers: Vec<IpAddr>,
    /// The port of the tunnel's IPv4 socket.
    pub port_v4: Option<u16>,
    /// The port of the tunnel's IPv6 socket.
    pub port_v6: Option<u16>,
}
