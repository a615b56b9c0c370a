//! Interoperability tests of Partyline with coturn, stun-client, wireguard-go, miniupnpd and receivers of OTLP.

pub mod collector;
pub mod netns;
pub mod server;
pub mod tool;
