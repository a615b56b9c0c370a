//! UDP sockets, WebSocket and TLS streams, Happy Eyeballs.

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
pub use udp::{BindError, Datagram, Outgoing, RecvBatch, SendDrop, UdpCounters, UdpEndpoint};
pub use websocket::{WebSocket, WebSocketError, connect_ws};
