//! A small internet in memory, with time that is moved by hand.
//!
//! A [`World`] is one thread: members are real nodes whose network devices are queues of IP packets, the server is the
//! real rendezvous core behind connections made of memory, the relay is the real TURN core. Datagrams, frames and
//! beacons travel through one queue ordered by their moment of arrival; [`World::run`] jumps from one moment to the
//! next. Everything random comes from the world's seed, so that a run that failed can be played again. (Only WireGuard
//! draws its own ephemeral keys and reads its own clock; nothing here depends on either.)
//!
//! Members have public addresses. What the network does to their datagrams is a test's own function
//! ([`World::network`]); NATs of all kinds are tried where paths are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a world that cannot go on must fail")]

mod ask;
mod member;
pub mod packet;
mod relay;
mod server;
mod world;

pub use member::Member;
pub use world::{Datagram, SERVER, World};
