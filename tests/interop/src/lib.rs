//! Partyline against programs of others: coturn, stun-client, wireguard-go, and receivers of OTLP.

pub mod collector;
pub mod netns;
pub mod server;
pub mod tool;
