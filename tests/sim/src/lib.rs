//! Whole parties in virtual time, in one thread.
//!
//! In a [`World`], members are real nodes whose network devices are queues of IP packets, the server is the real rendezvous
//! core behind connections in memory, and the relay is the real TURN core. The network between them is that of
//! `tests/netsim`. Everything random comes from the world's seed, so that a failed run can be repeated. (WireGuard alone
//! draws its own ephemeral keys and reads its own clock; nothing here depends on either.)
//!
//! A [`scenario::Scenario`] is a random party in which things go wrong. [`play::play`] plays it and judges the outcome by
//! what the members' networks allow.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a world that cannot go on must fail")]

pub mod cards;
mod contacts;
mod copies;
pub mod crowd;
pub mod figures;
mod item;
pub mod judge;
mod member;
pub mod outcome;
pub mod packet;
pub mod play;
mod relay;
mod rendezvous;
pub mod report;
pub mod scale;
pub mod scenario;
mod servers;
pub mod shrink;
mod stage;
mod trace;
pub mod watch;
mod wires;
mod world;

pub use member::Member;
pub use rendezvous::SERVER;
pub use trace::Trace;
pub use wires::Wires;
pub use world::World;
