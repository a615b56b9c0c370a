//! UDP sockets, WebSocket and TLS streams, Happy Eyeballs.
//!
//! [`UdpEndpoint`] sends and receives many datagrams by one system call; [`connect_tcp`], [`connect_tls`] and
//! [`connect_ws`] connect to servers by name, on IPv6-only networks by [`Nat64Prefix`] too, with errors that a person can
//! act on ([`ConnectError`]); [`BeaconSockets`] multicasts on the local networks.

mod beacon;
mod error;
mod happy_eyeballs;
mod nat64;
mod own_router;
mod portal;
mod tls;
mod udp;
mod websocket;

pub use beacon::{BeaconInterface, BeaconSockets};
pub use error::{CertificateProblem, ConnectError};
pub use happy_eyeballs::{connect_tcp, lookup, lookup_for_datagrams};
pub use nat64::{Nat64Prefix, find_nat64, lacks_ipv4};
pub use tls::{Roots, Stream, TlsClient, connect_tls, connect_tls_at};
pub use udp::{BindError, Datagram, Outgoing, RecvBatch, SendDrop, SendDrops, UdpCounters, UdpEndpoint};
pub use websocket::{WebSocket, WebSocketError, connect_ws};
