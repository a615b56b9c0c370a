//! What the owner of the sockets has to do for the server.

use std::{net::SocketAddr, ops::Range};

use crate::client::{Client, ClientTransport, RelaySocket};

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forward {
    /// Nowhere: it was a STUN message, or it was dropped and counted.
    Consumed,
    /// From a relayed address to a peer.
    ToPeer {
        /// The socket to send from.
        socket: RelaySocket,
        /// The address to send to.
        peer: SocketAddr,
        /// The part of the packet's buffer to send.
        range: Range<usize>,
    },
    /// To a client.
    ToClient {
        /// The client.
        client: Client,
        /// The part of the packet's buffer to send.
        range: Range<usize>,
    },
}

/// A STUN response to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// The transport. Its listener may differ from the one that received the request (RFC 5780, section 3).
    pub transport: ClientTransport,
    /// The address to send to.
    pub destination: SocketAddr,
    /// The message.
    pub payload: Vec<u8>,
}

/// A request to the owner of the sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Bind a socket, then call [`crate::Relay::handle_socket_opened`].
    OpenSocket {
        /// The socket's number from now on.
        socket: RelaySocket,
        /// The local address to bind it to.
        address: SocketAddr,
    },
    /// Close the socket.
    CloseSocket {
        /// The socket.
        socket: RelaySocket,
    },
}
