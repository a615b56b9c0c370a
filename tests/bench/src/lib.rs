//! Benchmarks of Partyline, and of comparable programs for reference.

pub mod dht;
pub mod handshakes;
pub mod members;
pub mod mesh;
pub mod relay;
