//! partyline-server: rendezvous, STUN and relay in one program.
//!
//! Every TCP connection, within TLS or plain, is classified by its first byte: below 4 it is STUN and goes to the
//! [`relay`]; a letter is HTTP, which serves the rendezvous WebSocket, the page behind invite links, and metrics for
//! the operator. The rendezvous state machine is `partyline_rendezvous`; the [`hub`] connects it to sockets.
//!
//! An idle member costs no buffer and no timer: bytes are read into, and written from, buffers that belong to the
//! thread, and one sweep a second pings one in sixty members.

mod clock;
pub mod config;
mod connection;
mod counters;
mod error;
mod http;
pub mod hub;
mod limiter;
mod listener;
mod metrics;
mod peeked;
pub mod platform;
pub mod relay;
mod server;
mod shared;
mod tls;
mod websocket;

pub use error::StartError;
pub use server::Server;
