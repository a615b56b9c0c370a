//! partyline-server: rendezvous, STUN and relay in one program.
//!
//! Every TCP connection, within TLS or plain, is told apart by its first byte: below 4 it is STUN and goes to the
//! [`relay`]; a letter is HTTP, which serves the rendezvous WebSocket, the page behind invite links, and figures for
//! the operator. The rendezvous itself is `partyline_rendezvous`; the [`hub`] puts sockets around it.
//!
//! An idle member costs no buffer and no timer: bytes are read into, and written from, buffers that belong to the
//! thread, and one sweep a second pings a sixtieth of all members.

pub mod config;
mod connection;
mod error;
mod gate;
mod http;
pub mod hub;
mod listener;
mod metrics;
pub mod platform;
pub mod relay;
mod server;
mod stream;
mod tls;
mod websocket;

pub use error::StartError;
pub use server::Server;
