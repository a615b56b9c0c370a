//! Partyline against coturn, stun-client and wireguard-go.

pub mod netns;
pub mod server;
pub mod tool;
