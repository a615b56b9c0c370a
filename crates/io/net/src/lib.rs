//! UDP sockets, WebSocket and TLS streams, Happy Eyeballs.
//!
//! [`UdpEndpoint`] sends and receives many datagrams by one system call; [`connect_tcp`], [`connect_tls`] and
//! [`connect_ws`] connect to servers by name with errors that a person can act on ([`ConnectError`]);
//! [`BeaconSockets`] multicasts on the local networks.

mod beacon;
mod error;
mod happy_eyeballs;
mod tls;
mod udp;
mod websocket;

pub use beacon::{BeaconInterface, BeaconSockets};
pub use error::{CertificateProblem, ConnectError};
pub use happy_eyeballs::connect_tcp;
pub use tls::{Roots, Stream, TlsClient, connect_tls};
pub use udp::{BindError, Datagram, Outgoing, RecvBatch, SendDrop, SendDrops, UdpCounters, UdpEndpoint};
pub use websocket::{WebSocket, WebSocketError, connect_ws};
